"""The state of a tool loop: rounds of tool calls until the model answers without one."""

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
from yandexgpt._structured_output import describe_error, require_complete, require_pydantic
from yandexgpt._tools import Tool
from yandexgpt.errors import ToolRoundsError

if TYPE_CHECKING:
    from yandexgpt._config import Settings
    from yandexgpt._messages import ToolCall
    from yandexgpt._models import Completion, Usage
    from yandexgpt._request import Prompt, ToolLike

__all__ = ["ToolLoop", "add_usage", "assistant_message", "failure_result", "success_result"]

logger = logging.getLogger("yandexgpt")

_REQUEST_OPTIONS = frozenset(inspect.signature(build_request).parameters)
"""The options that the request holds once it is built; the others are passed to every call."""


def tools_by_name(tools: Iterable[ToolLike]) -> dict[str, Tool[..., Any]]:
    """The tools by name.

    Raises:
        ValueError: a tool has no function, or two have the same name.
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
    """The rounds of tool calls for one prompt. Shared by both clients; does no I/O.

    Args:
        settings: the client's settings.
        prompt, tools, max_rounds, options: as for ``run_tools()``.

    Raises:
        ValueError: an argument is out of range or malformed.
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
        self._tools = tools_by_name(tools)
        self._max_rounds = max_rounds
        self._rounds = 0
        self.request = build_request(
            prompt,
            folder_id=settings.folder_id,
            default_model=settings.model,
            stream=False,
            tools=self._tools.values(),
            **{name: value for name, value in options.items() if name in _REQUEST_OPTIONS},
        )
        """The request of the next call to the model; the calls and results of each round are appended to it."""
        self.options = {name: value for name, value in options.items() if name not in _REQUEST_OPTIONS}
        """The options of every call to the model."""
        self.usage = text_common_pb2.ContentUsage()
        """The tokens of all calls to the model."""

    def add_answer(self, completion: Completion) -> tuple[ToolCall, ...]:
        """Append an answer of the model to the request.

        Returns:
            The tool calls that the answer asks for; empty if it is the last answer.

        Raises:
            TruncatedError, ContentFilterError: the answer was truncated, or filtered.
            ToolRoundsError: the answer asks for more than ``max_rounds`` rounds.
        """
        add_usage(self.usage, completion.usage)
        self.request.messages.append(assistant_message(completion))
        calls = require_complete(completion).tool_calls
        if calls and self._rounds >= self._max_rounds:
            raise ToolRoundsError(completion, self._rounds)
        self._rounds += 1
        return calls

    def starts_without_blocking(self, call: ToolCall) -> bool:
        """Whether :meth:`start` does not block: the function is a coroutine function, or there is no such tool."""
        tool = self._tools.get(call.name)
        return tool is None or inspect.iscoroutinefunction(tool.function)

    def start(self, call: ToolCall) -> ToolResult | Awaitable[Any]:
        """Call the function.

        Returns:
            The result of a synchronous function, or its failure; the awaitable of an asynchronous function.
        """
        try:
            if call.name not in self._tools:
                raise ValueError(f"there is no tool {call.name!r}, only {', '.join(self._tools) or 'none at all'}")
            result = self._tools[call.name].bind(call.arguments)()
            return result if inspect.isawaitable(result) else success_result(call, result)
        # The model reads the error. A CancelledError comes from the function itself: nothing here awaits, so a task
        # cannot be cancelled here.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            return failure_result(call, error)

    def add_results(self, results: Iterable[ToolResult]) -> None:
        """Append the results of a round to the request, and clear ``tool_choice``: the required call has been made."""
        self.request.messages.append(Message.from_tool_results(results).proto)
        self.request.ClearField("tool_choice")


def success_result(call: ToolCall, result: object) -> ToolResult:
    """The result as the model gets it: a ``str`` unchanged, any other value as JSON with exact integers of any size.

    Raises:
        ValueError, TypeError: the result cannot be converted to JSON.
        ConfigurationError: the conversion needs pydantic, which is not installed.
    """
    if not isinstance(result, str):
        result = json.dumps(result, ensure_ascii=False, allow_nan=False, default=_to_jsonable)
    return ToolResult(call.name, result)


def failure_result(call: ToolCall, error: BaseException) -> ToolResult:
    """A failure as the model gets it: the exception's type and message, without the traceback.

    The log has the type on WARNING, and the message and the traceback on DEBUG.
    """
    logger.warning("tool %s failed: %s", call.name, type(error).__name__)
    logger.debug("tool %s failed", call.name, exc_info=error)
    message = describe_error(error) if isinstance(error, ValueError) else str(error)
    kind = "Error" if type(error) is ValueError else type(error).__name__
    text = f"{kind}: {message}" if message else kind
    return ToolResult(call.name or "unknown", text.encode("utf-8", "replace").decode())


def assistant_message(completion: Completion) -> text_common_pb2.Message:
    """The answer's message for the next prompt; with an empty text if it has no content, which the service refuses."""
    message = completion.message
    return message.proto if message.proto.WhichOneof("Content") else Message("assistant", "").proto


def add_usage(total: text_common_pb2.ContentUsage, usage: Usage) -> None:
    """Add the tokens of a call to a total."""
    total.input_text_tokens += usage.input_tokens
    total.completion_tokens += usage.completion_tokens
    total.total_tokens += usage.total_tokens
    if usage.reasoning_tokens:  # the service sends no details without reasoning tokens
        total.completion_tokens_details.reasoning_tokens += usage.reasoning_tokens


def _to_jsonable(value: object) -> Any:
    """A value that JSON has no form for (a model, a dataclass, a date, a set, ...), converted by pydantic."""
    require_pydantic(f"a result of the type {type(value).__name__}")
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)
