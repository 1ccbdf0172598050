"""Waiting in event loops, and being woken from other threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["from_any_thread", "times_cancelled", "wait_for_event"]


async def wait_for_event(event: asyncio.Event, timeout: float | None) -> None:
    """Wait for the event, or for so many seconds.

    Not ``wait_for``: it may swallow a cancellation that comes together with the event (before Python 3.12).
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting}, timeout=timeout)
    finally:
        with contextlib.suppress(RuntimeError):  # the loop was closed, and this is the end of what it left
            waiting.cancel()


def from_any_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, to be called in the running loop from wherever it is called."""
    return partial(asyncio.get_running_loop().call_soon_threadsafe, function)


def times_cancelled() -> int:
    """How often somebody has cancelled the running task (unknown, so 0, before Python 3.11).

    Who swallows a cancellation seldom takes it back: what counts is whether the number has grown.
    """
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)
    return 0 if cancelling is None else int(cancelling())
