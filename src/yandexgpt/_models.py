"""The answers of the service: frozen views over protobuf messages."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import json_format

from yandexgpt._messages import Message, ProtoWrapper, ToolCall
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt._struct_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["NO_METADATA", "Alternative", "Completion", "ReceivedMetadata", "Status", "Token", "Usage"]

CompletionResponse = text_generation_service_pb2.CompletionResponse


class Status(enum.IntEnum):
    """The status of the generation of an answer. An unknown number is kept, with the name ``UNKNOWN_<number>``."""

    UNSPECIFIED = 0
    PARTIAL = 1
    TRUNCATED = 2
    """Cut at ``max_tokens``."""
    FINAL = 3
    CONTENT_FILTER = 4
    """Stopped because of sensitive content; the text is a refusal."""
    TOOL_CALLS = 5
    """The model asks for tool calls."""

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        if not isinstance(value, int):
            return None
        unknown = int.__new__(cls, value)
        unknown._name_ = f"UNKNOWN_{value}"
        unknown._value_ = value
        return unknown

    def __reduce_ex__(self, protocol: object) -> tuple[type[Status], tuple[int]]:
        return Status, (int(self),)

    @property
    def final(self) -> bool:
        """Whether the answer does not change any more."""
        return self > Status.PARTIAL


class Usage(ProtoWrapper[text_common_pb2.ContentUsage]):
    """Tokens used by a call. Frozen."""

    __slots__ = ()

    @property
    def input_tokens(self) -> int:
        """Tokens of the prompt."""
        return self._proto.input_text_tokens

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer."""
        return self._proto.completion_tokens

    @property
    def total_tokens(self) -> int:
        """Tokens of both."""
        return self._proto.total_tokens

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the answer that were used for hidden reasoning."""
        return self._proto.completion_tokens_details.reasoning_tokens

    def __repr__(self) -> str:
        return (
            f"Usage(input_tokens={self.input_tokens}, completion_tokens={self.completion_tokens}, "
            f"total_tokens={self.total_tokens}, reasoning_tokens={self.reasoning_tokens})"
        )


class Token(ProtoWrapper[text_common_pb2.Token]):
    """A token: a piece of text as a model reads it. Frozen."""

    __slots__ = ()

    @property
    def id(self) -> int:
        """Its number in the model's vocabulary."""
        return self._proto.id

    @property
    def text(self) -> str:
        """Its text."""
        return self._proto.text

    @property
    def special(self) -> bool:
        """Whether it is a control token, such as the beginning of a message, and not text."""
        return self._proto.special

    def __repr__(self) -> str:
        return f"Token(id={self.id}, text={self.text!r}, special={self.special})"


class Alternative(ProtoWrapper[text_common_pb2.Alternative]):
    """One of the answers to a prompt. Frozen."""

    __slots__ = ()

    @property
    def message(self) -> Message:
        """The assistant's message."""
        return Message.from_proto(self._proto.message)

    @property
    def text(self) -> str:
        """The text of the message; empty if it holds tool calls."""
        return self._proto.message.text

    @property
    def role(self) -> str:
        """The role of its author: ``"assistant"``."""
        return self._proto.message.role

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The function calls that the model asks for; empty if there are none."""
        return tuple(map(ToolCall, self._proto.message.tool_call_list.tool_calls))

    @property
    def status(self) -> Status:
        """How its generation ended."""
        return Status(self._proto.status)

    def __repr__(self) -> str:
        return f"Alternative(message={self.message!r}, status={self.status.name})"


_NO_ALTERNATIVE = text_common_pb2.Alternative()


def first_alternative(response: CompletionResponse) -> text_common_pb2.Alternative:
    """The first alternative, or an empty one; `Completion.text` and similar attributes read it."""
    alternatives = response.alternatives
    return alternatives[0] if alternatives else _NO_ALTERNATIVE


class ReceivedMetadata(NamedTuple):
    """The initial and trailing metadata that the service sent with an answer."""

    initial: Iterable[tuple[str, Any]] | None = ()
    trailing: Iterable[tuple[str, Any]] | None = ()

    def get(self, key: str) -> str | None:
        """The value of a key, or None if it was not sent."""
        for metadata in (self.trailing, self.initial):
            for name, value in metadata or ():
                if name == key:
                    return str(value)
        return None


NO_METADATA = ReceivedMetadata()


class Completion(ProtoWrapper[CompletionResponse]):
    """A whole answer. A frozen view: attributes are computed on access.

    ``text``, ``role``, ``status``, ``message`` and ``tool_calls`` are those of the first alternative.

    Args:
        proto: the protobuf message.
        request_id: the client's id of the call, or None.
        received: the metadata that the service sent.
    """

    __slots__ = ("_metadata", "_request_id")

    def __init__(
        self, proto: CompletionResponse, request_id: str | None = None, received: ReceivedMetadata = NO_METADATA
    ) -> None:
        self._proto = proto
        self._request_id = request_id
        self._metadata = received

    @property
    def text(self) -> str:
        """The text of the answer; empty if the model asks for tool calls instead."""
        alternatives = self._proto.alternatives
        return alternatives[0].message.text if alternatives else ""

    @property
    def role(self) -> str:
        """The role of its author: ``"assistant"``."""
        return first_alternative(self._proto).message.role

    @property
    def status(self) -> Status:
        """How the generation ended."""
        return Status(first_alternative(self._proto).status)

    @property
    def message(self) -> Message:
        """The assistant's message, to be put into the next prompt."""
        return Message.from_proto(first_alternative(self._proto).message)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The function calls that the model asks for; empty if there are none."""
        return Alternative(first_alternative(self._proto)).tool_calls

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """All answers."""
        return tuple(map(Alternative, self._proto.alternatives))

    @property
    def usage(self) -> Usage:
        """Tokens used."""
        return Usage(self._proto.usage)

    @property
    def model_version(self) -> str:
        """Version of the model that answered."""
        return self._proto.model_version

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut at ``max_tokens``."""
        return self.status == Status.TRUNCATED

    @property
    def filtered(self) -> bool:
        """Whether the content filter replaced the answer by a refusal."""
        return self.status == Status.CONTENT_FILTER

    @property
    def request_id(self) -> str | None:
        """The client's id of the call (``x-client-request-id``)."""
        return self._request_id

    @property
    def server_request_id(self) -> str | None:
        """The service's id of the call (``x-request-id``), if it sent one."""
        return self._metadata.get("x-request-id")

    @property
    def trace_id(self) -> str | None:
        """The service's trace (``x-server-trace-id``), if it sent one."""
        return self._metadata.get("x-server-trace-id")

    def to_dict(self) -> dict[str, Any]:
        """The answer as the REST API's JSON: ``{"result": {...}}``, 64-bit integers as strings."""
        return {"result": json_format.MessageToDict(self._proto)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Completion:
        """Read a REST answer, with or without ``"result"`` around it.

        Raises:
            ValueError: it is not such an answer; the message names the field.
        """
        body = data.get("result", data) if isinstance(data, Mapping) else data
        if not isinstance(body, Mapping):
            raise ValueError(f"not an answer of the REST API: it is a JSON object, this is {type(body).__name__}")
        proto = CompletionResponse()
        try:
            parse_json(dict(body), proto)
        except json_format.ParseError as error:
            raise ValueError(f"not an answer of the REST API: {error}") from error
        return cls(proto)

    def __reduce__(self) -> tuple[Callable[..., Completion], tuple[Any, ...]]:
        ids = {"x-request-id": self.server_request_id, "x-server-trace-id": self.trace_id}
        received = ReceivedMetadata(tuple((key, value) for key, value in ids.items() if value is not None))
        return Completion, (self._proto, self._request_id, received)

    def __repr__(self) -> str:
        more = f", tool_calls={self.tool_calls!r}" if self.tool_calls else ""
        return f"Completion(text={self.text!r}, status={self.status.name}{more}, usage={self.usage!r})"
