"""Rounds of tool calls: the model asks, the functions answer, until it asks for no more."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from yandexgpt._messages import Message, ToolResult
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._request import build_request
from yandexgpt._structured_output import need_pydantic, reasons, whole
from yandexgpt._tools import Tool
from yandexgpt.errors import ToolRoundsError

if TYPE_CHECKING:
    from yandexgpt._config import Settings
    from yandexgpt._messages import ToolCall
    from yandexgpt._models import Completion, Usage
    from yandexgpt._request import Prompt, ToolLike

__all__ = ["ToolLoop", "add_usage", "assistant_message", "failed", "succeeded"]

logger = logging.getLogger("yandexgpt")

_OF_THE_REQUEST = frozenset(inspect.signature(build_request).parameters)
"""Options that are in the request once it is built; the others are given to every call."""


def runnable(tools: Iterable[ToolLike]) -> dict[str, Tool[..., Any]]:
    """The tools by name.

    Raises:
        ValueError: one has no function, or two have the same name.
    """
    by_name: dict[str, Tool[..., Any]] = {}
    for index, each in enumerate(tools):
        if not isinstance(each, Tool):
            raise ValueError(
                f"tools[{index}] must be a yandexgpt.Tool, because its function is to be called, got "
                f"{type(each).__name__}: make one with yandexgpt.tool"
            )
        if by_name.setdefault(each.name, each) is not each:
            raise ValueError(f"tools[{index}]: there is another tool of the name {each.name!r}")
    return by_name


class ToolLoop:
    """The rounds of one prompt: what both clients share of them. Nothing here waits.

    Args:
        settings: the client's.
        prompt, tools, max_rounds, options: of ``run_tools()``.

    Raises:
        ValueError: an argument has an impossible value.
    """

    def __init__(
        self,
        settings: Settings,
        prompt: Prompt,
        tools: Iterable[ToolLike],
        max_rounds: int,
        options: Mapping[str, Any],
    ) -> None:
        if isinstance(max_rounds, bool) or not isinstance(max_rounds, int) or max_rounds < 1:
            raise ValueError(f"max_rounds must be a whole number from 1, got {max_rounds!r}")
        self._tools = runnable(tools)
        self._max_rounds = max_rounds
        self._rounds = 0
        self.request = build_request(
            prompt,
            folder_id=settings.folder_id,
            default_model=settings.model,
            stream=False,
            tools=self._tools.values(),
            **{name: value for name, value in options.items() if name in _OF_THE_REQUEST},
        )
        """What to ask next; grows by the calls and the results of each round."""
        self.options = {name: value for name, value in options.items() if name not in _OF_THE_REQUEST}
        """Those of every call."""
        self.usage = text_common_pb2.ContentUsage()
        """Of all calls."""

    def calls(self, completion: Completion) -> tuple[ToolCall, ...]:
        """The calls that the answer asks for; none if it is the last one.

        Raises:
            TruncatedError, ContentFilterError: it was cut, or filtered.
            ToolRoundsError: it asks for one round too many.
        """
        add_usage(self.usage, completion.usage)
        self.request.messages.append(assistant_message(completion))
        calls = whole(completion).tool_calls
        if calls and self._rounds >= self._max_rounds:
            raise ToolRoundsError(completion, self._rounds)
        self._rounds += 1
        return calls

    def begins_at_once(self, call: ToolCall) -> bool:
        """Whether :meth:`begin` does not block: the function is asynchronous, or there is none."""
        called = self._tools.get(call.name)
        return called is None or inspect.iscoroutinefunction(called.function)

    def begin(self, call: ToolCall) -> ToolResult | Awaitable[Any]:
        """Make the call: its result, or of an asynchronous function what is to be waited for."""
        try:
            if call.name not in self._tools:
                raise ValueError(f"there is no tool {call.name!r}, only {', '.join(self._tools) or 'none at all'}")
            result = self._tools[call.name].bind(call.arguments)()
            return result if inspect.isawaitable(result) else succeeded(call, result)
        # It is for the model to read. Whoever cancels a task does not do so here, where nothing waits.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            return failed(call, error)

    def add(self, results: Iterable[ToolResult]) -> None:
        """Put the results of a round into the request. A tool that was demanded has been called by now."""
        self.request.messages.append(Message.from_tool_results(results).proto)
        self.request.ClearField("tool_choice")


def succeeded(call: ToolCall, result: object) -> ToolResult:
    """What the model is told: text as it is, anything else as JSON, in which integers of any size are exact.

    Raises:
        ValueError, TypeError: the result is neither text nor JSON.
    """
    if not isinstance(result, str):
        result = json.dumps(result, ensure_ascii=False, allow_nan=False, default=_plain)
    return ToolResult(call.name, result)


def failed(call: ToolCall, error: BaseException) -> ToolResult:
    """What the model is told of a failure: type and message, no traceback. The log has the type, and on DEBUG all."""
    logger.warning("tool %s failed: %s", call.name, type(error).__name__)
    logger.debug("tool %s failed", call.name, exc_info=error)
    message = reasons(error) if isinstance(error, ValueError) else str(error)
    kind = "Error" if type(error) is ValueError else type(error).__name__
    text = f"{kind}: {message}" if message else kind
    return ToolResult(call.name or "unknown", text.encode("utf-8", "replace").decode())


def assistant_message(completion: Completion) -> text_common_pb2.Message:
    """The answer's message for the next prompt; the service refuses one without any content, so it gets a text."""
    message = completion.message
    return message.proto if message.proto.WhichOneof("Content") else Message("assistant", "").proto


def add_usage(total: text_common_pb2.ContentUsage, usage: Usage) -> None:
    """Add to a sum of tokens."""
    total.input_text_tokens += usage.input_tokens
    total.completion_tokens += usage.completion_tokens
    total.total_tokens += usage.total_tokens
    if usage.reasoning_tokens:  # without any, the service does not send the details either
        total.completion_tokens_details.reasoning_tokens += usage.reasoning_tokens


def _plain(value: object) -> Any:
    """What JSON has no form for: models, dataclasses, dates, sets, ..., as pydantic writes them."""
    need_pydantic(f"a result of the type {type(value).__name__}")
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)
