# Generated from ../_async by scripts/unasync.py. Do not edit.
"""The tool loop: call the model, run the tools that it calls, and repeat until an answer has no tool call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from yandexgpt._rpc.tool_calls import call_tools

if TYPE_CHECKING:
    from yandexgpt._features.tool_loop import ToolLoop
    from yandexgpt._models import Completion

__all__ = ["run_tool_loop"]


def run_tool_loop(complete: Callable[..., Completion], loop: ToolLoop) -> Completion:
    """Run a tool loop to its end.

    Args:
        complete: the client's ``complete()``.
        loop: the state of the loop.

    Returns:
        The last answer.

    Raises:
        TruncatedError, ContentFilterError, ToolRoundsError, APIError: as for ``run_tools()``.
    """
    while calls := loop.add_answer(completion := complete(loop.request, **loop.options)):
        loop.add_results(call_tools(loop, calls))
    return completion
