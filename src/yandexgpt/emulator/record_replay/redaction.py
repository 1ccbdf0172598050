"""Redaction of messages before they are written to a file: secrets always, texts on request.

A redacted text is masked: each character except white space is replaced by ``x``. So the texts of a stream keep their
lengths, their words and their common prefixes, and a request still matches its recording by the masked texts.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from yandexgpt.emulator.record_replay.message_encoding import child_messages, unpack_any

__all__ = ["REMOVED", "find_secrets", "without_secrets", "without_texts"]

REMOVED = "removed"
"""Replaces a secret."""
_IAM_PACKAGE = "yandex.cloud.iam."
_SECRET_FIELDS = ("yandex_passport_oauth_token", "jwt", "iam_token")

_UNMASKED = {
    "CompletionRequest.model_uri",
    "CompletionResponse.model_version",
    "BatchCompletionRequest.model_uri",
    "BatchCompletionRequest.source_dataset_id",
    "TokenizeRequest.model_uri",
    "TokenizeResponse.model_version",
    "Message.role",
    "FunctionTool.name",
    "FunctionCall.name",
    "FunctionResult.name",
    "ToolChoice.function_name",
    "Operation.id",
    "Operation.description",
    "Operation.created_by",
    "GetOperationRequest.operation_id",
    "CancelOperationRequest.operation_id",
    "Any.type_url",
}
"""String fields without user text. All other strings are masked."""
_UNCHANGED = ("google.rpc.Status", "google.protobuf.Timestamp")
"""Message types that are not changed: errors of the service, and times."""
_SCHEMA_FIELDS = {"FunctionTool.parameters", "JsonSchema.schema"}
_TEXT_KEYWORDS = ("title", "description", "$comment")
_VALUE_KEYWORDS = ("default", "const", "enum", "example", "examples")
"""Keywords of a schema with arbitrary values."""
_CHARACTER = re.compile("[^\\s\ufffd]")
_Message = TypeVar("_Message", bound=Message)


def find_secrets(message: Message) -> list[str]:
    """The tokens and keys in the message."""
    if not message.DESCRIPTOR.full_name.startswith(_IAM_PACKAGE):
        return []
    return [value for field, value in message.ListFields() if field.name in _SECRET_FIELDS]


def without_secrets(message: _Message) -> _Message:
    """The message without tokens and without the expiry time of a token; the same object if its type has none."""
    if not message.DESCRIPTOR.full_name.startswith(_IAM_PACKAGE):
        return message
    copy = _copy(message)
    for field, _ in message.ListFields():
        if field.name in _SECRET_FIELDS:
            setattr(copy, field.name, REMOVED)
        elif field.name == "expires_at":
            copy.ClearField(field.name)
    return copy


def without_texts(message: _Message) -> _Message:
    """A copy with masked texts.

    These are: messages, answers, tokens (and their ids), arguments and results of tools. In a schema, descriptions are
    masked, but not the structure. Unknown fields are removed.
    """
    copy = _copy(message)
    _mask_message(copy)
    return copy


def _copy(message: _Message) -> _Message:
    copy = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    return copy


def _mask_message(message: Any) -> None:
    if message.DESCRIPTOR.full_name in _UNCHANGED:
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        inner = unpack_any(message)
        message.value = b"" if inner is None else without_texts(inner).SerializeToString(deterministic=True)
        return
    for field, value in message.ListFields():
        name = f"{field.containing_type.name}.{field.name}"
        if name == "Token.id":
            message.id = 0
        elif field.type == FieldDescriptor.TYPE_STRING and name not in _UNMASKED:
            setattr(message, field.name, _mask(value))
        elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
            _mask_struct(value, schema=name in _SCHEMA_FIELDS)
    for each in child_messages(message):
        if each.DESCRIPTOR.full_name != "google.protobuf.Struct":
            _mask_message(each)


def _mask_struct(struct: Any, *, schema: bool) -> None:
    for key in list(struct.fields):
        _mask_value(struct.fields[key], key if schema and key not in _VALUE_KEYWORDS else None)


def _mask_value(value: Any, keyword: str | None) -> None:
    """Mask the texts in a JSON value.

    Args:
        value: a ``google.protobuf.Value``.
        keyword: in a schema, the keyword of the value; None: mask the whole value.
    """
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        _mask_struct(value.struct_value, schema=keyword is not None)
    elif kind == "list_value":
        for each in value.list_value.values:
            _mask_value(each, keyword)
    elif kind == "string_value" and (keyword is None or keyword in _TEXT_KEYWORDS):
        value.string_value = _mask(value.string_value)
    elif kind == "number_value" and keyword is None:
        value.number_value = 0
    elif kind == "bool_value" and keyword is None:
        value.bool_value = False


def _mask(text: str) -> str:
    return _CHARACTER.sub("x", text)
