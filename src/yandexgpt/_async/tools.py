"""The tool loop: call the model, run the tools that it calls, and repeat until an answer has no tool call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from yandexgpt._rpc.tool_calls import call_tools_async

if TYPE_CHECKING:
    from yandexgpt._features.tool_loop import ToolLoop
    from yandexgpt._models import Completion

__all__ = ["run_tool_loop"]


async def run_tool_loop(complete: Callable[..., Awaitable[Completion]], loop: ToolLoop) -> Completion:
    """Run a tool loop to its end.

    Args:
        complete: the client's ``complete()``.
        loop: the state of the loop.

    Returns:
        The last answer.

    Raises:
        TruncatedError, ContentFilterError, ToolRoundsError, APIError: as for ``run_tools()``.
    """
    while calls := loop.add_answer(completion := await complete(loop.request, **loop.options)):
        loop.add_results(await call_tools_async(loop, calls))
    return completion
