"""The tool loop: ask, call the tools that the answer asks for, ask again, until it asks for none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from yandexgpt._rpc.tool_calls import call_tools_async

if TYPE_CHECKING:
    from yandexgpt._features.tool_loop import ToolLoop
    from yandexgpt._models import Completion

__all__ = ["run_tool_loop"]


async def run_tool_loop(complete: Callable[..., Awaitable[Completion]], loop: ToolLoop) -> Completion:
    """The last answer.

    Args:
        complete: of the client.
    """
    while calls := loop.calls(completion := await complete(loop.request, **loop.options)):
        loop.add(await call_tools_async(loop, calls))
    return completion
