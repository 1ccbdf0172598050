"""JSON values to and from ``google.protobuf.Struct``, in which every number is a double.

So ``5`` comes back as ``5.0``, and an integer beyond 2**53 changes on the way unless somebody looks. Whole numbers are
turned back into ``int`` here, and an integer that a double cannot hold is refused, never changed without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct, Value


def encodable(text: object, name: str) -> str:
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


__all__ = ["checked", "to_python"]


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


def checked(value: object, where: str) -> Any:
    """The JSON value in plain dicts and lists, fit for a Struct.

    Raises:
        ValueError: something in it is not JSON, or a number that a double cannot hold; the message names the place.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return encodable(value, where)
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
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"{where}: the key {name!r} is not a string")
            encodable(name, f"{where}: a key")
        return {name: checked(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [checked(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ValueError(f"{where}: {type(value).__name__} is not a JSON value")
