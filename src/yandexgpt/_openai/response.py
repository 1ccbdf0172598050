"""What ``client.responses`` answers: a frozen view over a completion, in the shape of openai's ``Response``.

The names are those of the openai package's ``openai.types.responses``; what the service does not send is not made up.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

from yandexgpt._models import Completion, Status

__all__ = [
    "IncompleteDetails",
    "OutputFunctionCall",
    "OutputMessage",
    "OutputText",
    "OutputTokensDetails",
    "Response",
    "ResponseError",
    "ResponseUsage",
]


class _Object:
    """What has a form in openai's JSON."""

    def to_dict(self) -> dict[str, Any]:
        """The object as in the JSON of the Responses API."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, _Object):
        return value.to_dict()
    return list(map(_plain, value)) if isinstance(value, tuple | list) else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputText(_Object):
    """A part of a message. Frozen."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[()] = ()
    """The service sends none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputMessage(_Object):
    """What the model says. Frozen; may be passed on as an item of ``input``."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["completed", "incomplete"] = "completed"
    content: tuple[OutputText, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputFunctionCall(_Object):
    """A function that the model wants called. Frozen; may be passed on as an item of ``input``."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: Literal["completed"] = "completed"
    call_id: str
    """Made here: the service's calls have no ids."""
    name: str
    arguments: str
    """A JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputTokensDetails(_Object):
    """What the tokens of an answer went into. Frozen."""

    reasoning_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResponseUsage(_Object):
    """Tokens used. Frozen."""

    input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResponseError(_Object):
    """Why a background response failed. Frozen."""

    code: str
    """The gRPC status code's name, such as ``INTERNAL``."""
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class IncompleteDetails(_Object):
    """Why an answer is not whole. Frozen."""

    reason: Literal["max_output_tokens", "content_filter"] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Response(_Object):
    """An answer, or one that is still to come, in the shape of openai's ``Response``. Frozen.

    Attributes:
        id: of a background response the operation's, by which any process may retrieve it for three days; of another
            one the id that was sent as ``x-client-request-id``, which the service keeps nothing under.
        created_at: seconds since 1970 (UTC): when the service made the operation (None if it does not say), or
            when ``create`` was called.
        model: the model's URI; None of a response that was retrieved, with which the service keeps no model.
        background: whether it is an operation of the service.
        error: why there is no answer; None unless the status is ``"failed"`` or ``"cancelled"``.
        completion: the whole answer, once there is one, with what openai's shape does not show.
    """

    id: str
    created_at: float | None
    model: str | None
    background: bool
    error: ResponseError | None = None
    completion: Completion | None = None

    @property
    def object(self) -> Literal["response"]:
        """``"response"``."""
        return "response"

    @property
    def status(self) -> Literal["completed", "incomplete", "in_progress", "failed", "cancelled"]:
        """``"completed"``, ``"incomplete"`` (see :attr:`incomplete_details`), ``"failed"`` (see :attr:`error`),
        ``"cancelled"``, or ``"in_progress"``: the service does not tell a response in its queue from one under way."""
        if self.error is not None:
            return "cancelled" if self.error.code == "CANCELLED" else "failed"
        if self.completion is None:
            return "in_progress"
        return "completed" if self.incomplete_details is None else "incomplete"

    @property
    def incomplete_details(self) -> IncompleteDetails | None:
        """Why the answer is not whole: its ``reason`` is ``"max_output_tokens"``, ``"content_filter"`` (the text is
        then the service's refusal), or None if the service ended without a final answer."""
        if self.completion is None:
            return None
        status = self.completion.status
        if status == Status.TRUNCATED:
            return IncompleteDetails(reason="max_output_tokens")
        if status == Status.CONTENT_FILTER:
            return IncompleteDetails(reason="content_filter")
        return None if status.final else IncompleteDetails(reason=None)

    @property
    def output(self) -> list[OutputMessage | OutputFunctionCall]:
        """One message, or the calls of functions that the model asks for; empty until there is an answer. A new list
        each time. Of several alternatives it is the first; ``completion.alternatives`` has all."""
        if self.completion is None:
            return []
        calls = self.completion.tool_calls
        if calls:
            return [
                OutputFunctionCall(
                    id=f"fc_{self.id}_{index}",
                    call_id=f"call_{self.id}_{index}",
                    name=call.name,
                    arguments=json.dumps(call.arguments, ensure_ascii=False),
                )
                for index, call in enumerate(calls)
            ]
        status: Literal["completed", "incomplete"] = "completed" if self.status == "completed" else "incomplete"
        return [OutputMessage(id=f"msg_{self.id}", status=status, content=(OutputText(text=self.completion.text),))]

    @property
    def output_text(self) -> str:
        """The answer's text; empty if the model asks for functions instead, and until there is an answer."""
        return "" if self.completion is None else self.completion.text

    @property
    def usage(self) -> ResponseUsage | None:
        """Tokens used, once there is an answer."""
        if self.completion is None:
            return None
        usage = self.completion.usage
        return ResponseUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
            total_tokens=usage.total_tokens,
        )

    def to_dict(self) -> dict[str, Any]:
        """The response as in the JSON of the Responses API."""
        names = ("id", "object", "created_at", "status", "background", "error", "incomplete_details", "model")
        return {name: _plain(getattr(self, name)) for name in (*names, "output", "usage")}
