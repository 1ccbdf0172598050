"""JSON values to and from ``google.protobuf.Struct``, in which every number is a double.

So ``5`` comes back as ``5.0``, and an integer beyond 2**53 changes on the way unless somebody looks. Whole numbers are
turned back into ``int`` here, and an integer that a double cannot hold is refused, never changed without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.struct_pb2 import Struct, Value


__all__ = ["MAX_MESSAGES_DEEP", "check_text", "parse_json", "to_python", "to_struct_value"]


def check_text(text: object, name: str) -> str:
    """The text, if it is one that the wire can carry.

    Raises:
        ValueError: it is not a str, or it holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise ValueError(f"{name} must be a str, got {text!r}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name} holds a lone surrogate at {error.start}, which UTF-8 cannot carry") from error
    return text


def to_python(struct: Struct) -> dict[str, Any]:
    """The Struct as a dict; whole numbers come as ``int``."""
    # Sorted, because the order of a protobuf map is another in each process.
    return {name: _value(value) for name, value in sorted(struct.fields.items())}


def _value(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return to_python(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    return None


MAX_MESSAGES_DEEP = 97
"""How many messages deep a value may be. Readers of protobuf, here and at the service, go 100 messages deep, and the
parameters of a tool, the deepest values of a request, begin at the third."""
_DEPTH_OF_OBJECT, _DEPTH_OF_LIST = 3, 2
"""The messages that one makes: Struct, map entry and Value; ListValue and Value."""


def to_struct_value(value: object, where: str) -> Any:
    """The JSON value in plain dicts and lists, fit for a Struct.

    Raises:
        ValueError: something in it is not JSON, or a number that a double cannot hold, or it is nested more deeply than
            :data:`MAX_MESSAGES_DEEP` allows (32 objects inside one another, or 48 lists); the message names the place.
    """
    return _to_value(value, where, MAX_MESSAGES_DEEP)


def _to_value(value: object, where: str, left: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(value, where)
    if isinstance(value, int):
        try:
            exact = int(float(value)) == value
        except OverflowError:
            exact = False
        if not exact:
            raise ValueError(
                f"{where}: the integer {value} does not fit a double, which is how the service carries numbers; "
                "pass it as a string"
            )
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value} is not a JSON number")
        return value
    if isinstance(value, Mapping):
        left = _one_deeper(where, left, _DEPTH_OF_OBJECT)
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"{where}: the key {name!r} is not a string")
            check_text(name, f"{where}: a key")
        return {name: _to_value(item, f"{where}.{name}", left) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        left = _one_deeper(where, left, _DEPTH_OF_LIST)
        return [_to_value(item, f"{where}[{index}]", left) for index, item in enumerate(value)]
    raise ValueError(f"{where}: {type(value).__name__} is not a JSON value")


def _one_deeper(where: str, left: int, depth: int) -> int:
    if left < depth:
        raise ValueError(
            f"{where}: nested too deeply, or inside itself: protobuf carries 32 objects or 48 lists inside one another"
        )
    return left - depth


def parse_json(data: Any, message: Message) -> None:
    """Fill in a message from the JSON form that the REST API has of it.

    Raises:
        json_format.ParseError: it is not of that form, or nested without end.
    """
    try:
        json_format.ParseDict(data, message)
    except RecursionError:
        pass  # raised below: its traceback is as long as the stack
    else:
        return
    raise json_format.ParseError("nested too deeply, or inside itself")
