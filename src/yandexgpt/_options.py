"""Keywords of the calls that stand on ``complete()``, for type checkers: what each means stands there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from yandexgpt._checks import Metadata
from yandexgpt._config import Unset
from yandexgpt._request import Reasoning, ResponseFormat, ToolLike

__all__ = [
    "AskOptions",
    "CallOptions",
    "ManyOptions",
    "ParseOptions",
    "RunOptions",
    "StreamTurnOptions",
    "TurnOptions",
]


class CallOptions(TypedDict, total=False):
    """Of every call."""

    timeout: float | Unset | None
    attempt_timeout: float | Unset | None
    metadata: Metadata
    request_id: str | None
    max_context_tokens: int | None


class ModelOptions(CallOptions, total=False):
    """Of every generation."""

    model: str | None
    temperature: float | None
    max_tokens: int | None
    reasoning: Reasoning | None
    tool_choice: str | None
    parallel_tool_calls: bool | None


class AskOptions(ModelOptions, total=False):
    """Of ``Chat.ask``."""

    response_format: ResponseFormat | None


class TurnOptions(AskOptions, total=False):
    """Of ``Chat.send``."""

    tools: Iterable[ToolLike] | None


class StreamTurnOptions(TurnOptions, total=False):
    """Of ``Chat.stream``."""

    latest: bool


class RunOptions(AskOptions, total=False):
    """Of ``run_tools``."""

    system: str | None


class ManyOptions(RunOptions, total=False):
    """Of ``complete_many``."""

    tools: Iterable[ToolLike] | None


class ParseOptions(ModelOptions, total=False):
    """Of ``parse``."""

    system: str | None
    tools: Iterable[ToolLike] | None
