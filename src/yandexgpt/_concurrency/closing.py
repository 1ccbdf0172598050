"""Iterators that one thread or task reads and another may close."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import weakref
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, Protocol, cast

from yandexgpt._concurrency.event_loops import run_in_loop

if TYPE_CHECKING:
    from types import AsyncGeneratorType

__all__ = ["AsyncClosing", "Closing"]


class Cancellable(Protocol):
    """The call or the batch that a generator reads from."""

    cancelled: bool

    def cancel(self) -> object: ...


class Closing:
    """Distinguishes a reader that reached the end from a reader whose iterator was closed by another thread.

    An iteration that starts after :meth:`close` was called by the same thread has lost nothing, and just ends. If
    another thread called it, the iteration has ended early.
    """

    __slots__ = ("_closed_by", "_closed_during_iteration", "_finished", "_interrupted")

    def __init__(self) -> None:
        self._closed_by: weakref.ref[Any] | None = None
        self._closed_during_iteration = False
        self._finished = False
        self._interrupted = False
        """Whether Ctrl-C ended a read: the call is over, but its reader may continue to iterate."""

    def start_iteration(self) -> None:
        """Record that an iteration starts."""
        self._closed_during_iteration = False

    def mark_finished(self) -> None:
        """Record that the iterator has reached its end."""
        self._finished = True

    def close(self, generator: Generator[Any, None, None], source: Cancellable) -> None:
        """Close the generator; if another thread runs it, cancel what it reads from. Idempotent."""
        if self._closed_by is None and not self._finished:
            self._closed_by = weakref.ref(threading.current_thread())
            self._closed_during_iteration = True
        source.cancelled = True
        if not _close(generator):
            source.cancel()

    def is_concurrent_close(self, error: BaseException, source: Cancellable) -> bool:
        """Return whether a read failed because another thread is closing the generator.

        Also records that the read was interrupted, if it was.
        """
        if isinstance(error, ValueError):
            return source.cancelled and str(error) == "generator already executing"
        self._interrupted = self._interrupted or not isinstance(error, Exception)
        return False

    def ended_early(self) -> bool:
        """Return, at the end of the generator, whether it ended before this thread could read everything."""
        if self._finished:
            return False
        by = self._closed_by
        return (
            self._interrupted
            or self._closed_during_iteration
            or (by is not None and by() is not threading.current_thread())
        )


def _close(generator: Generator[Any, None, None]) -> bool:
    """Close a generator, unless it is running. Return whether it is closed."""
    if generator.gi_running:  # type: ignore[attr-defined]  # checked first: CPython 3.11 may crash on closing one
        return False
    try:
        generator.close()
    except ValueError:  # another thread has started to run it
        if inspect.getgeneratorstate(generator) != inspect.GEN_RUNNING:
            raise
        return False
    return True


class AsyncClosing:
    """Records, for tasks, whether another task closed the iterator while this task was reading it.

    A task that starts to read after the iterator was closed has lost nothing.
    """

    __slots__ = ("_finished", "_interrupted", "_interrupted_reader", "_loop", "_reader")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop in which the iterator is read."""
        self._reader: weakref.ref[Any] | None = None
        self._interrupted_reader: weakref.ref[Any] | None = None
        """The task that was reading when another task closed the iterator."""
        self._finished = False
        self._interrupted = False
        """Whether a read was cancelled: the call is over, but its reader may continue to iterate."""

    def record_reader(self) -> None:
        """Record that the current task reads."""
        self._loop = asyncio.get_running_loop()
        self._reader = weakref.ref(asyncio.current_task())

    def mark_finished(self) -> None:
        """Record that the iterator has reached its end."""
        self._finished = True

    async def close(self, generator: AsyncGenerator[Any, None], source: Cancellable) -> None:
        """Cancel what the generator reads from; close the generator, unless another task runs it. Idempotent."""
        if not self._finished and self._interrupted_reader is None:
            reader = self._reader
            if reader is not None and reader() is not asyncio.current_task():
                self._interrupted_reader = reader
        with contextlib.suppress(RuntimeError):  # its event loop is closed: nothing of it runs any more
            source.cancel()
        loop = self._loop
        if loop is not None and loop.is_running() and loop is not asyncio.get_running_loop():
            await run_in_loop(loop, lambda: _close_idle(generator))
        else:
            await _close_idle(generator)

    def is_concurrent_close(self, error: BaseException, source: Cancellable) -> bool:
        """Return whether a read failed because another task is closing the generator.

        Also records that the read was cancelled, if it was.
        """
        self._interrupted = self._interrupted or isinstance(error, asyncio.CancelledError)
        return isinstance(error, RuntimeError) and source.cancelled

    def ended_early(self) -> bool:
        """Return, at the end of the generator, whether another task closed it while this task was reading."""
        if self._finished:
            return False
        task = asyncio.current_task()
        return self._interrupted or (
            self._interrupted_reader is not None and (self._interrupted_reader() is task or _is_single_read_task(task))
        )


async def _close_idle(generator: AsyncGenerator[Any, None]) -> None:
    """Close a generator, unless its reader runs it."""
    if not cast("AsyncGeneratorType[Any, None]", generator).ag_running:
        await generator.aclose()


def _is_single_read_task(task: asyncio.Task[Any] | None) -> bool:
    """Return whether the task makes one read, as each ``wait_for(anext(stream), 5)`` does before Python 3.12."""
    step: Any = None if task is None else task.get_coro()
    return not inspect.iscoroutine(step) or step.__name__ == "__anext__"
