"""Iterators that one thread or task reads and another may close."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from types import AsyncGeneratorType

__all__ = ["AsyncClosing", "Closing"]


class Cancellable(Protocol):
    """What a generator reads from."""

    cancelled: bool

    def cancel(self) -> object: ...


class Closing:
    """Tells a reader whose iterator another thread has closed from one that has come to its end.

    Who begins to iterate after :meth:`close` finds the iterator closed, and has lost nothing, unless another thread has
    closed it.
    """

    __slots__ = ("_closed_by", "_cut_off", "_finished", "_interrupted")

    def __init__(self) -> None:
        self._closed_by: weakref.ref[Any] | None = None
        self._cut_off = False
        self._finished = False
        self._interrupted = False
        """Whether a read was ended by Ctrl-C: the call is over, and its reader may go on."""

    def begins(self) -> None:
        """An iteration begins."""
        self._cut_off = False

    def finished(self) -> None:
        """The iterator has come to its end."""
        self._finished = True

    def close(self, generator: Generator[Any, None, None], source: Cancellable) -> None:
        """Close the generator; if another thread runs it, cancel what it reads from. Idempotent."""
        if self._closed_by is None and not self._finished:
            self._closed_by = weakref.ref(threading.current_thread())
            self._cut_off = True
        source.cancelled = True
        if not _close(generator):
            source.cancel()

    def was_closed(self, error: BaseException, source: Cancellable) -> bool:
        """Whether a read failed because another thread is about to close the generator."""
        if isinstance(error, ValueError):
            return source.cancelled and str(error) == "generator already executing"
        self._interrupted = self._interrupted or not isinstance(error, Exception)
        return False

    def cuts_off(self) -> bool:
        """At the end of the generator: whether this thread's reading was cut off."""
        if self._finished:
            return False
        by = self._closed_by
        return self._interrupted or self._cut_off or (by is not None and by() is not threading.current_thread())


def _close(generator: Generator[Any, None, None]) -> bool:
    """Close a generator, unless it is running; whether it is closed."""
    if generator.gi_running:  # type: ignore[attr-defined]  # looked at first: CPython 3.11 may crash on closing one
        return False
    try:
        generator.close()
    except ValueError:  # another thread has begun to run it
        if inspect.getgeneratorstate(generator) != inspect.GEN_RUNNING:
            raise
        return False
    return True


class AsyncClosing:
    """The same for tasks: whether the task that was reading an iterator is the one that closed it before its end.

    A task that comes later finds it closed, and has lost nothing.
    """

    __slots__ = ("_cut_off", "_finished", "_interrupted", "_reader")

    def __init__(self) -> None:
        self._reader: weakref.ref[Any] | None = None
        self._cut_off: weakref.ref[Any] | None = None
        self._finished = False
        self._interrupted = False
        """Whether a read was cancelled: the call is over, and its reader may go on."""

    def reads(self) -> None:
        """This task reads."""
        self._reader = weakref.ref(asyncio.current_task())

    def finished(self) -> None:
        """The iterator has come to its end."""
        self._finished = True

    async def close(self, generator: AsyncGenerator[Any, None], source: Cancellable) -> None:
        """Cancel what the generator reads from; close the generator, unless another task runs it. Idempotent."""
        if not self._finished and self._cut_off is None:
            reader = self._reader
            if reader is not None and reader() is not asyncio.current_task():
                self._cut_off = reader
        source.cancel()
        if not cast("AsyncGeneratorType[Any, None]", generator).ag_running:
            await generator.aclose()

    def was_closed(self, error: BaseException, source: Cancellable) -> bool:
        """Whether a read failed because another task is about to close the generator."""
        self._interrupted = self._interrupted or isinstance(error, asyncio.CancelledError)
        return isinstance(error, RuntimeError) and source.cancelled

    def cuts_off(self) -> bool:
        """At the end of the generator: whether another task has closed it while this one was reading."""
        if self._finished:
            return False
        task = asyncio.current_task()
        return self._interrupted or (self._cut_off is not None and (self._cut_off() is task or _reads_once(task)))


def _reads_once(task: asyncio.Task[Any] | None) -> bool:
    """Whether the task was made to read once, as ``wait_for(anext(stream), 5)`` does each time before Python 3.12."""
    step: Any = None if task is None else task.get_coro()
    return not inspect.iscoroutine(step) or step.__name__ == "__anext__"
