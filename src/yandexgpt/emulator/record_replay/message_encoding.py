"""Encodes messages as JSON, and additionally as Base64 bytes if JSON cannot represent them."""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

from google.protobuf import any_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2  # type: ignore[import-untyped] # noqa: F401 - its types are for `_TYPES`

from yandexgpt._proto import POOL

__all__ = ["canonical_bytes", "child_messages", "encode_fields", "from_base64", "from_json", "to_base64", "unpack_any"]

_ANY = any_pb2.Any.DESCRIPTOR.full_name
_Message = TypeVar("_Message", bound=Message)


class _Types:
    """Finds message types for ``google.protobuf.Any``: messages of the service and error details."""

    def FindMessageTypeByName(self, name: str) -> Descriptor:  # noqa: N802 - as a descriptor pool has it
        """The message type; raises KeyError if it is unknown."""
        try:
            return POOL.FindMessageTypeByName(name)
        except KeyError:
            return descriptor_pool.Default().FindMessageTypeByName(name)


_TYPES: Any = _Types()
"""A descriptor pool, as far as ``json_format`` needs one."""


def _to_json(message: Message) -> tuple[Any, bool]:
    """The message as proto3 JSON in plain dicts and lists.

    Returns:
        The JSON (None if there is none), and whether :func:`from_json` restores the same message.
    """
    try:
        data = json_format.MessageToDict(message, descriptor_pool=_TYPES)
        again = from_json(data, type(message))
    except (json_format.Error, DecodeError, TypeError, ValueError):
        return None, False
    return data, canonical_bytes(again) == canonical_bytes(message)


def from_json(data: Any, message_type: type[_Message]) -> _Message:
    """Convert JSON to a message.

    Raises:
        ValueError: the JSON does not match the type; the message is one line.
    """
    message = message_type()
    try:
        json_format.ParseDict(data, message, descriptor_pool=_TYPES)
    except (json_format.Error, TypeError, ValueError, AttributeError, KeyError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    return message


def to_base64(data: bytes) -> str:
    """Bytes as Base64."""
    return base64.b64encode(data).decode()


def from_base64(text: object) -> bytes:
    """Bytes from Base64; raises ValueError for invalid Base64."""
    if not isinstance(text, str):
        raise ValueError(f"must be base64 in a string, not {text!r}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"must be base64: {error}") from error


def encode_fields(name: str, raw_name: str, message: Message) -> dict[str, Any]:
    """The message as JSON in the field `name`, and its bytes in the field `raw_name` if JSON cannot hold all of it."""
    data, exact = _to_json(message)
    found = {} if data is None else {name: data}
    return found if exact else {**found, raw_name: to_base64(message.SerializeToString(deterministic=True))}


def canonical_bytes(message: Message) -> bytes:
    """Bytes that are the same for equal messages: maps are sorted, also inside ``Any``."""
    copy = type(message)()
    copy.CopyFrom(message)
    _canonicalize(copy)
    return copy.SerializeToString(deterministic=True)


def unpack_any(message: Any) -> Message | None:
    """The content of an ``Any`` of any pool; None if its type is unknown or its bytes do not match the type."""
    try:
        inner = message_factory.GetMessageClass(_TYPES.FindMessageTypeByName(message.type_url.rpartition("/")[2]))()
        inner.ParseFromString(message.value)
    except (KeyError, DecodeError):
        return None
    return inner


def _canonicalize(message: Message) -> None:
    if message.DESCRIPTOR.full_name == _ANY:
        inner = unpack_any(message)
        if inner is not None:
            _canonicalize(inner)
            message.value = inner.SerializeToString(deterministic=True)  # type: ignore[attr-defined]
        return
    for each in child_messages(message):
        _canonicalize(each)


def child_messages(message: Message) -> list[Any]:
    """The messages in the fields of a message, except those in maps."""
    found: list[Any] = []
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        found.extend([value] if isinstance(value, Message) else value)
    return found
