"""Helpers to wait in an event loop and to wake it from another thread."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any

__all__ = ["cancel_and_wait", "run_in_loop", "threadsafe_callback", "times_cancelled", "wait_for_event"]

REMOTE_LOOP_TIMEOUT = 5.0
"""Seconds to wait for another event loop; it may be busy, or may stop."""


LOOP_POLL_INTERVAL = 0.05
"""Seconds between two checks whether that event loop still runs."""


async def run_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run a coroutine in another event loop, which runs in another thread, and wait until it is done or the loop stops.

    Args:
        function: returns the coroutine.
    """
    done = Future[None]()
    done.set_running_or_notify_cancel()  # it cannot be cancelled
    tasks: list[asyncio.Task[None]] = []

    async def run() -> None:
        try:
            await function()
        finally:
            done.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(run())))
        waiting = asyncio.wrap_future(done)
        end = time.monotonic() + REMOTE_LOOP_TIMEOUT
        while not waiting.done() and loop.is_running() and time.monotonic() < end:
            await asyncio.wait({waiting}, timeout=LOOP_POLL_INTERVAL)


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


async def cancel_and_wait(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended. If they are in an event loop that does not run, only cancel them."""
    for task in tasks:
        with contextlib.suppress(RuntimeError):  # its event loop is closed
            task.cancel()
    if tasks and next(iter(tasks)).get_loop() is asyncio.get_running_loop():
        await asyncio.wait(tasks)


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
