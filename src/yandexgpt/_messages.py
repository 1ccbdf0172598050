"""What a prompt is made of: messages, and the calls of tools that the model asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._struct_json import parse_json, to_python
from yandexgpt._view import ProtoWrapper

__all__ = ["ROLES", "Message", "ToolCall", "ToolResult", "check_text"]

ROLES = ("system", "user", "assistant")
"""Roles that the service knows (source: ``text_common.proto`` of the pinned interface)."""


class ToolCall(ProtoWrapper[text_common_pb2.ToolCall]):
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


class ToolResult(ProtoWrapper[text_common_pb2.ToolResult]):
    """What a function that the model called has returned. Frozen.

    Args:
        name: the function's name, as in the call.
        content: the result as text; whatever is not text goes as JSON.

    Raises:
        ValueError: the name is empty, or one of them is not a string of whole characters.
    """

    __slots__ = ()

    def __init__(self, name: str, content: str) -> None:
        if not check_text(name, "name"):
            raise ValueError("name must not be empty")
        result = text_common_pb2.FunctionResult(name=name, content=check_text(content, "content"))
        super().__init__(text_common_pb2.ToolResult(function_result=result))

    @classmethod
    def from_proto(cls, proto: text_common_pb2.ToolResult) -> ToolResult:
        """A view over a result that exists already."""
        result = cls.__new__(cls)
        ProtoWrapper.__init__(result, proto)
        return result

    @property
    def name(self) -> str:
        """Name of the function."""
        return self._proto.function_result.name

    @property
    def content(self) -> str:
        """The result."""
        return self._proto.function_result.content

    def __repr__(self) -> str:
        return f"ToolResult(name={self.name!r}, content={self.content!r})"


class Message(ProtoWrapper[text_common_pb2.Message]):
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
        super().__init__(text_common_pb2.Message(role=role, text=check_text(text, "text")))

    @classmethod
    def from_proto(cls, proto: text_common_pb2.Message) -> Message:
        """A view over a message that exists already."""
        message = cls.__new__(cls)
        ProtoWrapper.__init__(message, proto)
        return message

    @classmethod
    def from_tool_results(cls, results: Iterable[ToolResult], *, role: str = "user") -> Message:
        """The message that answers a message with tool calls.

        Args:
            results: one for each call, in the order of the calls: nothing else tells the service which is which.
            role: who reports them; ``"user"`` is what Yandex Cloud's own SDK sends, ``"assistant"`` is taken as well.

        Raises:
            ValueError: there are none, one is not a :class:`ToolResult`, or the role is unknown.
        """
        protos = []
        for index, result in enumerate(results):
            if not isinstance(result, ToolResult):
                raise ValueError(f"results[{index}] must be a ToolResult, got {result!r}")
            protos.append(result.proto)
        if not protos:
            raise ValueError("results must hold at least one ToolResult")
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, got {role!r}")
        listed = text_common_pb2.ToolResultList(tool_results=protos)
        return cls.from_proto(text_common_pb2.Message(role=role, tool_result_list=listed))

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

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """What the functions that the model called have returned."""
        return tuple(map(ToolResult.from_proto, self._proto.tool_result_list.tool_results))

    def to_dict(self) -> dict[str, Any]:
        """The message as in the REST API's JSON (``{"role", "text"}``)."""
        return json_format.MessageToDict(self._proto)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Read what :meth:`to_dict` writes.

        Raises:
            ValueError: an unknown field or role, or a value of the wrong type.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a message of the REST API is a mapping, this is {type(data).__name__}")
        proto = text_common_pb2.Message()
        try:
            parse_json(dict(data), proto)
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
        if self.tool_results:
            return f"Message(role={self.role!r}, tool_results={self.tool_results!r})"
        return f"Message(role={self.role!r}, text={self.text!r})"


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
