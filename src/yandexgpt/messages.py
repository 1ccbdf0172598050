"""What a prompt is made of: messages, and the calls of tools that the model asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._view import View
from yandexgpt.structs import to_python

__all__ = ["ROLES", "Message", "ToolCall", "encodable"]

ROLES = ("system", "user", "assistant")
"""Roles that the service knows (source: ``text_common.proto`` of the pinned interface)."""


class ToolCall(View[text_common_pb2.ToolCall]):
    """A function that the model wants called. Frozen."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Name of the function."""
        return self._proto.function_call.name

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments as the model chose them; whole numbers are ``int``, although the wire has only doubles."""
        return to_python(self._proto.function_call.arguments)

    def __repr__(self) -> str:
        return f"ToolCall(name={self.name!r}, arguments={self.arguments!r})"


class Message(View[text_common_pb2.Message]):
    """One message of a conversation. Frozen.

    Args:
        role: ``"system"``, ``"user"`` or ``"assistant"``.
        text: what it says.

    Raises:
        ValueError: an unknown role, or a text that is not a string of whole characters.
    """

    __slots__ = ()

    def __init__(self, role: str, text: str) -> None:
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, got {role!r}")
        super().__init__(text_common_pb2.Message(role=role, text=encodable(text, "text")))

    @classmethod
    def from_proto(cls, proto: text_common_pb2.Message) -> Message:
        """A view over a message that exists already."""
        message = cls.__new__(cls)
        View.__init__(message, proto)
        return message

    @property
    def role(self) -> str:
        """``"system"``, ``"user"`` or ``"assistant"``."""
        return self._proto.role

    @property
    def text(self) -> str:
        """What it says; empty if it holds tool calls or their results."""
        return self._proto.text

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The functions that the model wants called."""
        return tuple(map(ToolCall, self._proto.tool_call_list.tool_calls))

    def to_dict(self) -> dict[str, Any]:
        """The message as in the REST API's JSON (``{"role", "text"}``)."""
        return json_format.MessageToDict(self._proto)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Read what :meth:`to_dict` writes.

        Raises:
            ValueError: an unknown field or role, or a value of the wrong type.
        """
        proto = text_common_pb2.Message()
        try:
            json_format.ParseDict(dict(data), proto)
        except json_format.ParseError as error:
            raise ValueError(f"not a message of the REST API: {error}") from error
        if proto.role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, got {proto.role!r}")
        if not proto.WhichOneof("Content"):
            raise ValueError("a message needs one of text, toolCallList, toolResultList")
        return cls.from_proto(proto)

    def __repr__(self) -> str:
        if self.tool_calls:
            return f"Message(role={self.role!r}, tool_calls={self.tool_calls!r})"
        return f"Message(role={self.role!r}, text={self.text!r})"


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
