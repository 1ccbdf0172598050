"""The parts of a prompt: messages, tool calls and their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message as ProtoMessage

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._struct_json import check_text, parse_json, to_python, to_struct_value

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ROLES", "Message", "ProtoWrapper", "ToolCall", "ToolResult", "set_function", "set_tool_choice"]

ROLES = ("system", "user", "assistant")
"""The roles of messages (source: ``text_common.proto`` of the pinned interface)."""


TOOL_CHOICE_MODES = {
    "none": text_common_pb2.ToolChoice.NONE,
    "auto": text_common_pb2.ToolChoice.AUTO,
    "required": text_common_pb2.ToolChoice.REQUIRED,
}


P = TypeVar("P", bound=ProtoMessage)


class ProtoWrapper(Generic[P]):
    """A frozen view over a protobuf message: attributes are computed on access."""

    __slots__ = ("_proto",)

    def __init__(self, proto: P) -> None:
        self._proto = proto

    @property
    def proto(self) -> P:
        """The protobuf message, for fields that this class does not show."""
        return self._proto

    def __eq__(self, other: object) -> bool:
        return self._proto == other._proto if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._proto.SerializeToString(deterministic=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self._proto)

    def __copy__(self) -> Self:
        return self


def _restore(cls: type[ProtoWrapper[Any]], proto: ProtoMessage) -> ProtoWrapper[Any]:
    view = cls.__new__(cls)
    ProtoWrapper.__init__(view, proto)
    return view


class ToolCall(ProtoWrapper[text_common_pb2.ToolCall]):
    """A function call that the model asks for. Frozen."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Name of the function."""
        return self._proto.function_call.name

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments; whole numbers are ``int``, although protobuf carries them as doubles."""
        return to_python(self._proto.function_call.arguments)

    def __repr__(self) -> str:
        return f"ToolCall(name={self.name!r}, arguments={self.arguments!r})"


class ToolResult(ProtoWrapper[text_common_pb2.ToolResult]):
    """The result of a function call. Frozen.

    Args:
        name: the function's name, as in the call.
        content: the result as text; a value that is not text should be JSON.

    Raises:
        ValueError: the name is empty, or one of the two is not a ``str`` or holds a lone surrogate.
    """

    __slots__ = ()

    def __init__(self, name: str, content: str) -> None:
        if not check_text(name, "name"):
            raise ValueError("name must not be empty")
        result = text_common_pb2.FunctionResult(name=name, content=check_text(content, "content"))
        super().__init__(text_common_pb2.ToolResult(function_result=result))

    @classmethod
    def from_proto(cls, proto: text_common_pb2.ToolResult) -> ToolResult:
        """A view over an existing protobuf message."""
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
        text: its text.

    Raises:
        ValueError: the role is unknown, or the text is not a ``str`` or holds a lone surrogate.
    """

    __slots__ = ()

    def __init__(self, role: str, text: str) -> None:
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, got {role!r}")
        super().__init__(text_common_pb2.Message(role=role, text=check_text(text, "text")))

    @classmethod
    def from_proto(cls, proto: text_common_pb2.Message) -> Message:
        """A view over an existing protobuf message."""
        message = cls.__new__(cls)
        ProtoWrapper.__init__(message, proto)
        return message

    @classmethod
    def from_tool_results(cls, results: Iterable[ToolResult], *, role: str = "user") -> Message:
        """The message with the results of tool calls.

        Args:
            results: one for each call, in the order of the calls: calls have no ids, so the service matches by name and
                order.
            role: the role of the message. Yandex Cloud's own SDK sends ``"user"``; the service also accepts
                ``"assistant"``.

        Raises:
            ValueError: there are no results, one is not a :class:`ToolResult`, or the role is unknown.
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
        """The text; empty if the message holds tool calls or their results."""
        return self._proto.text

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The function calls that the model asks for; empty if there are none."""
        return tuple(map(ToolCall, self._proto.tool_call_list.tool_calls))

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """The results of function calls; empty if there are none."""
        return tuple(map(ToolResult.from_proto, self._proto.tool_result_list.tool_results))

    def to_dict(self) -> dict[str, Any]:
        """The message as in the REST API's JSON (``{"role", "text"}``)."""
        return json_format.MessageToDict(self._proto)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """Read the result of :meth:`to_dict`.

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


def set_function(proto: text_common_pb2.FunctionTool, function: Mapping[str, Any], where: str) -> None:
    """Set the name, description and parameters of a tool.

    Args:
        where: the place of the function in the arguments, for error messages.

    Raises:
        ValueError: an unknown or missing key, or a value of a wrong type.
    """
    unknown = set(function) - {"name", "description", "parameters", "strict"}
    if unknown or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError(
            f"{where} must have a name, and may have description, parameters (a JSON Schema) and strict; "
            f"got {', '.join(map(repr, function)) or 'nothing'}"
        )
    proto.name = check_text(function["name"], f"{where}['name']")
    proto.description = check_text(function.get("description", ""), f"{where}['description']")
    parameters = function.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise ValueError(f"{where}['parameters'] must be a JSON Schema as a mapping, got {parameters!r}")
    proto.parameters.update(to_struct_value(parameters, f"{where}['parameters']"))
    strict = function.get("strict", False)
    if not isinstance(strict, bool):
        raise ValueError(f"{where}['strict'] must be True or False, got {strict!r}")
    proto.strict = strict


def set_tool_choice(proto: text_common_pb2.ToolChoice, choice: Any, functions: Iterable[str]) -> None:
    """Set the tool choice: a mode, or the name of one of the functions.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(choice, str) and choice in TOOL_CHOICE_MODES:
        proto.mode = TOOL_CHOICE_MODES[choice]
        return
    allowed = [*TOOL_CHOICE_MODES, *functions]
    if not isinstance(choice, str) or choice not in allowed:
        raise ValueError(f"tool_choice must be one of {', '.join(allowed)}, got {choice!r}")
    proto.function_name = choice
