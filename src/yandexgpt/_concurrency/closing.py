"""Who closed an iterator: whoever else was reading it must not take that for its end."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from typing import Any

__all__ = ["AsyncClosing", "Closing"]


class Closing:
    """Whether the iteration that is under way was cut off: the iterator was closed before its end.

    Who begins to iterate afterwards finds it closed, and has lost nothing, unless another thread has closed it.
    """

    __slots__ = ("_by", "_cut_off")

    def __init__(self) -> None:
        self._by: weakref.ref[Any] | None = None
        self._cut_off = False

    def begins(self) -> None:
        """An iteration begins."""
        self._cut_off = False

    def closed(self) -> None:
        """It was closed by this thread, or by a signal handler in it, for the first time or again."""
        if self._by is None:
            self._by = weakref.ref(threading.current_thread())
            self._cut_off = True

    def cuts_off(self) -> bool:
        """Whether whoever reads in this thread was cut off."""
        return self._cut_off or (self._by is not None and self._by() is not threading.current_thread())


class AsyncClosing:
    """Whether the task that was reading an iterator is the one that closed it before its end.

    A task that comes later finds it closed, and has lost nothing.
    """

    __slots__ = ("_cut_off", "_last")

    def __init__(self) -> None:
        self._last: weakref.ref[Any] | None = None
        self._cut_off: weakref.ref[Any] | None = None

    def reads(self) -> None:
        """This task reads."""
        self._last = weakref.ref(asyncio.current_task())

    def closed(self) -> None:
        """It was closed by this task, for the first time or again."""
        if self._cut_off is None and self._last is not None and self._last() is not asyncio.current_task():
            self._cut_off = self._last

    def cuts_off(self) -> bool:
        """Whether another task has closed it while this one was reading."""
        task = asyncio.current_task()
        return self._cut_off is not None and (self._cut_off() is task or _is_of_one_step(task))


def _is_of_one_step(task: asyncio.Task[Any] | None) -> bool:
    """Whether the task was made to read once, as ``wait_for(anext(stream), 5)`` does each time before Python 3.12."""
    step: Any = None if task is None else task.get_coro()
    return not inspect.iscoroutine(step) or step.__name__ == "__anext__"
