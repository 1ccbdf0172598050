"""Keyword arguments of calls that are based on ``complete()``, for type checkers; described at ``complete()``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from yandexgpt._checks import Metadata
from yandexgpt._config import Unset
from yandexgpt._request import Reasoning, ResponseFormat, ToolLike

__all__ = [
    "AskOptions",
    "CallKeywords",
    "ManyOptions",
    "ParseOptions",
    "RunOptions",
    "StreamTurnOptions",
    "TurnOptions",
]


class CallKeywords(TypedDict, total=False):
    """Options of every call: the fields of ``_rpc.call.CallOptions``."""

    timeout: float | Unset | None
    attempt_timeout: float | Unset | None
    metadata: Metadata
    request_id: str | None
    max_context_tokens: int | None


class ModelOptions(CallKeywords, total=False):
    """Options of every generation: parameters of ``build_request``."""

    model: str | None
    temperature: float | None
    max_tokens: int | None
    reasoning: Reasoning | None
    tool_choice: str | None
    parallel_tool_calls: bool | None


class AskOptions(ModelOptions, total=False):
    """Options of ``Chat.ask``."""

    response_format: ResponseFormat | None


class TurnOptions(AskOptions, total=False):
    """Options of ``Chat.send``."""

    tools: Iterable[ToolLike] | None


class StreamTurnOptions(TurnOptions, total=False):
    """Options of ``Chat.stream``."""

    latest: bool


class RunOptions(AskOptions, total=False):
    """Options of ``run_tools``."""

    system: str | None


class ManyOptions(RunOptions, total=False):
    """Options of ``complete_many``."""

    tools: Iterable[ToolLike] | None


class ParseOptions(ModelOptions, total=False):
    """Options of ``parse``."""

    system: str | None
    tools: Iterable[ToolLike] | None
