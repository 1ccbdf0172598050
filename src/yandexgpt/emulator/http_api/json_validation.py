"""Checks that a JSON value matches a message type. The parser of protobuf is more lenient, and its error texts vary."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

__all__ = ["WELL_KNOWN", "InvalidRequest", "check_json", "field_named", "is_repeated"]

WELL_KNOWN = "google.protobuf."
"""The prefix of types whose JSON form does not list their fields."""
_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|Infinity)|NaN", re.ASCII)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_WANTED = {
    FieldDescriptor.CPPTYPE_STRING: "a string",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
}
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: 32,
    FieldDescriptor.CPPTYPE_INT64: 64,
    FieldDescriptor.CPPTYPE_ENUM: 32,
}
_SHOWN = 200
"""Maximum length of a field path and of a problem in an error message."""
_DEEPEST = 30
"""Maximum nesting of arbitrary JSON. A level takes three nested messages, and protobuf reads at most a hundred."""


class InvalidRequest(Exception):  # noqa: N818 - it is converted to a response
    """A request that is not a valid message of its method.

    Args:
        field: the path of the invalid field, as it was sent; empty: the whole body.
        problem: a description in one line.
    """

    def __init__(self, field: str, problem: str) -> None:
        self.field = _shortened(field)
        self.problem = _shortened(problem)
        super().__init__(f"{self.field}: {self.problem}" if field else self.problem)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def field_named(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """The field with this name, in its JSON form or its protobuf form."""
    field = descriptor.fields_by_name.get(name)
    return field or next((each for each in descriptor.fields if each.json_name == name), None)


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether the field is repeated."""
    # The attribute for this has different names in protobuf 5 and 7.
    return isinstance(field.default_value, list)


def check_json(value: Any, descriptor: Descriptor, path: str) -> None:
    """Raise InvalidRequest if the value does not match the message type."""
    if not isinstance(value, dict):
        raise InvalidRequest(path, f"an object is wanted, not {_describe(value)}")
    for name, item in value.items():
        where = f"{path}.{name}" if path else name
        field = field_named(descriptor, name)
        if field is None:
            known = ", ".join(each.json_name for each in descriptor.fields)
            raise InvalidRequest(where, f"there is no such field; there are {known}")
        if item is None:
            continue
        if not is_repeated(field):
            _check_item(item, field, where)
        elif isinstance(item, list):
            for index, each in enumerate(item):
                _check_item(each, field, f"{where}[{index}]")
        else:
            raise InvalidRequest(where, f"an array is wanted, not {_describe(item)}")


def _check_item(item: Any, field: FieldDescriptor, where: str) -> None:
    inner = field.message_type
    if inner is None:
        _check_scalar(item, field, where)
    elif not inner.full_name.startswith(WELL_KNOWN):
        check_json(item, inner, where)
    elif "value" in inner.fields_by_name:
        _check_scalar(item, inner.fields_by_name["value"], where)
    elif not isinstance(item, dict):
        raise InvalidRequest(where, f"an object is wanted, not {_describe(item)}")
    else:
        _check_json_value(item, where, 1)


def _check_scalar(item: Any, field: FieldDescriptor, where: str) -> None:
    wanted = _WANTED.get(field.cpp_type, "an integer")
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        valid = isinstance(item, str) and _is_valid_text(item)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        valid = isinstance(item, bool)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        valid = _is_number(item) or (isinstance(item, str) and _NUMBER.fullmatch(item) is not None)
    elif field.enum_type is not None and isinstance(item, str):
        names = list(field.enum_type.values_by_name)
        valid, wanted = item in names, f"one of {', '.join(names)}"
    else:
        valid = _is_integer(item, _BITS.get(field.cpp_type, 0))
    if not valid:
        raise InvalidRequest(where, f"{wanted} is wanted, not {_describe(item)}")


def _check_json_value(item: Any, where: str, level: int) -> None:
    """Raise InvalidRequest for a value that a ``google.protobuf.Struct`` cannot contain."""
    if level > _DEEPEST and isinstance(item, (dict, list)):
        raise InvalidRequest(where, f"there are more than {_DEEPEST} levels of objects and arrays")
    if isinstance(item, dict):
        for name, each in item.items():
            _check_json_value(name, where, level)
            _check_json_value(each, f"{where}.{name}", level + 1)
    elif isinstance(item, list):
        for index, each in enumerate(item):
            _check_json_value(each, f"{where}[{index}]", level + 1)
    elif not (
        _is_valid_text(item) if isinstance(item, str) else item is None or isinstance(item, bool) or _is_number(item)
    ):
        raise InvalidRequest(where, f"a value that UTF-8 and a double can hold is wanted, not {_describe(item)}")


def _is_valid_text(value: str) -> bool:
    """Whether the text contains no lone surrogate, such as ``\\ud800``."""
    return not _SURROGATE.search(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_integer(value: Any, bits: int) -> bool:
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value):
            return False
        value = int(value)
    return _is_number(value) and value == int(value) and -(1 << bits - 1) <= value < 1 << bits - 1


def _describe(value: Any) -> str:
    """The value for an error message, or its type if it is an object or an array."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    return json.dumps(value) if value is None or isinstance(value, bool) else ascii(value)
