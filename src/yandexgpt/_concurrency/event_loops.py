"""Helpers to wait in an event loop and to wake it from another thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["threadsafe_callback", "times_cancelled", "wait_for_event"]


async def wait_for_event(event: asyncio.Event, timeout: float | None) -> None:
    """Wait for the event, or until the timeout (in seconds) has passed.

    ``asyncio.wait_for`` is not used: before Python 3.12 it may swallow a cancellation that arrives together with the
    event.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting}, timeout=timeout)
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and this coroutine is being finalized
            waiting.cancel()


def threadsafe_callback(function: Callable[[], Any]) -> Callable[[], Any]:
    """Return a thread-safe function that schedules this one in the running event loop."""
    return partial(asyncio.get_running_loop().call_soon_threadsafe, function)


def times_cancelled() -> int:
    """Return how many times the running task was cancelled; always 0 before Python 3.11, where this is unknown.

    Code that swallows a cancellation rarely calls ``uncancel()``. So compare two results: the task was cancelled again
    if the number has grown.
    """
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)
    return 0 if cancelling is None else int(cancelling())
