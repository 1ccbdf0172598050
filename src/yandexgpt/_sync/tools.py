# Generated from ../_async by scripts/unasync.py. Do not edit.
"""The tool loop: ask, call the tools that the answer asks for, ask again, until it asks for none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from yandexgpt._rpc.tool_calls import call_tools

if TYPE_CHECKING:
    from yandexgpt._features.tool_loop import ToolLoop
    from yandexgpt._models import Completion

__all__ = ["run_tool_loop"]


def run_tool_loop(complete: Callable[..., Completion], loop: ToolLoop) -> Completion:
    """The last answer.

    Args:
        complete: of the client.
    """
    while calls := loop.calls(completion := complete(loop.request, **loop.options)):
        loop.add(call_tools(loop, calls))
    return completion
