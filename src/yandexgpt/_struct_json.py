"""Converts JSON values to and from ``google.protobuf.Struct``, in which every number is a double.

A Struct returns ``5`` as ``5.0``, and silently changes an integer beyond 2**53. Here whole numbers are converted back
to ``int``, and an integer that a double cannot hold is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.struct_pb2 import Struct, Value


__all__ = ["MAX_MESSAGE_DEPTH", "check_text", "parse_json", "to_python", "to_struct_value"]


def check_text(text: object, name: str) -> str:
    """The text, if protobuf can carry it.

    Args:
        name: the name of the argument, for the error.

    Raises:
        ValueError: it is not a ``str``, or it holds a lone surrogate.
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
    """The Struct as a dict; whole numbers are ``int``."""
    # Sorted, because the order of a protobuf map differs from process to process.
    return {name: _value_to_python(value) for name, value in sorted(struct.fields.items())}


def _value_to_python(value: Value) -> Any:
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
        return [_value_to_python(item) for item in value.list_value.values]
    return None


MAX_MESSAGE_DEPTH = 97
"""The deepest nesting of a value, in protobuf messages. The parsers of protobuf, here and at the service, accept 100
nested messages, and the parameters of a tool, the deepest values of a request, start at the third."""
_OBJECT_DEPTH, _LIST_DEPTH = 3, 2
"""Nested messages of one object (Struct, map entry, Value), and of one list (ListValue, Value)."""


def to_struct_value(value: object, where: str) -> Any:
    """The JSON value as dicts and lists that a Struct can hold.

    Args:
        where: the name of the value, for the error.

    Raises:
        ValueError: a part of the value is not JSON, or is a number that a double cannot hold, or is nested more deeply
            than :data:`MAX_MESSAGE_DEPTH` allows (32 nested objects, or 48 nested lists). The message has its path.
    """
    return _checked_value(value, where, MAX_MESSAGE_DEPTH)


def _checked_value(value: object, where: str, remaining: int) -> Any:
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
        remaining = _descend(where, remaining, _OBJECT_DEPTH)
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"{where}: the key {name!r} is not a string")
            check_text(name, f"{where}: a key")
        return {name: _checked_value(item, f"{where}.{name}", remaining) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        remaining = _descend(where, remaining, _LIST_DEPTH)
        return [_checked_value(item, f"{where}[{index}]", remaining) for index, item in enumerate(value)]
    raise ValueError(f"{where}: {type(value).__name__} is not a JSON value")


def _descend(where: str, remaining: int, depth: int) -> int:
    if remaining < depth:
        raise ValueError(
            f"{where}: nested too deeply, or inside itself: protobuf carries 32 objects or 48 lists inside one another"
        )
    return remaining - depth


def parse_json(data: Any, message: Message) -> None:
    """Fill a protobuf message from its JSON form in the REST API.

    Raises:
        json_format.ParseError: the data does not have that form, or is nested too deeply or in itself.
    """
    try:
        json_format.ParseDict(data, message)
    except RecursionError:
        pass  # raised below, without its cause: the traceback of a RecursionError is as long as the stack
    else:
        return
    raise json_format.ParseError("nested too deeply, or inside itself")
