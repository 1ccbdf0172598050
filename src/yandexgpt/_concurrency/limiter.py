"""A fair limit on the number of calls in flight, for threads and tasks."""

from __future__ import annotations

import itertools
import time
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Limiter"]

_SWEEP_INTERVAL = 0.1
"""Seconds, at least, between two sweeps by waiters: a sweep removes holders whose event loop is closed."""


class _QueueEntry:
    __slots__ = ("loop_is_closed", "notified", "on_acquired")

    def __init__(self, on_acquired: Callable[[], Any], loop_is_closed: Callable[[], bool] | None) -> None:
        self.on_acquired = on_acquired
        self.loop_is_closed = loop_is_closed
        self.notified = False


class Limiter:
    """A fair (FIFO), lock-free semaphore for threads and tasks.

    Holders and waiters are in one queue, and its first ``limit`` entries hold the semaphore. So a release only removes
    an entry, and no lock is needed: every change is one atomic operation of a built-in dict, which threads, signal
    handlers and finalizers may make at any moment.

    A holder that is garbage-collected without a release notifies no waiter. So waiters must poll :meth:`holds`.

    Args:
        limit: how many may hold it at once (>= 1).
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.reset()

    def reset(self) -> None:
        """Remove all holders and waiters: after a fork the child has none."""
        self._queue: dict[weakref.ref[Any], _QueueEntry] = {}
        self._last_sweep = 0.0
        self._collected = False
        """Whether a holder was garbage-collected since the last notification: a new holder may not know it yet."""

    def acquire(
        self, holder: object, on_acquired: Callable[[], Any], loop_is_closed: Callable[[], bool] | None = None
    ) -> bool:
        """Append a holder to the queue.

        Args:
            holder: identifies the place in the queue. It is held by a weak reference, and removed by :meth:`release`
                or when it is garbage-collected.
            on_acquired: called from any thread when a waiting holder has acquired the semaphore. It raises RuntimeError
                if the event loop of the holder is closed: then the holder is removed, and the next one acquires.
            loop_is_closed: returns whether the event loop of the holder is closed, so that it cannot release any more.

        Returns:
            Whether the semaphore was acquired at once. If not, :meth:`holds` returns True once it is.
        """
        entry = _QueueEntry(on_acquired, loop_is_closed)
        self._queue[weakref.ref(holder, self._remove_collected)] = entry
        if self._collected or len(self._queue) > self._limit:
            self._sweep()
        entry.notified = self._is_holder(holder)
        return entry.notified

    def holds(self, holder: object) -> bool:
        """Return whether the holder, which must be in the queue, has acquired the semaphore."""
        if len(self._queue) > self._limit and time.monotonic() > self._last_sweep + _SWEEP_INTERVAL:
            self._sweep()
        return self._is_holder(holder)

    def release(self, holder: object) -> None:
        """Remove the holder from the queue, whether it has acquired the semaphore or waits. Idempotent."""
        self._queue.pop(weakref.ref(holder), None)
        self._notify_holders()

    def _is_holder(self, holder: object) -> bool:
        return len(self._queue) <= self._limit or weakref.ref(holder) in self._holders()

    def _holders(self) -> list[weakref.ref[Any]]:
        while True:
            try:
                return list(itertools.islice(self._queue, self._limit))
            except RuntimeError:  # noqa: PERF203  (an entry was garbage-collected while the list was built)
                continue

    def _sweep(self) -> None:
        """Remove holders whose event loop is closed."""
        self._last_sweep = time.monotonic()
        for reference in self._holders():
            entry = self._queue.get(reference)
            if entry is not None and entry.loop_is_closed is not None and entry.loop_is_closed():
                self._queue.pop(reference, None)
        self._notify_holders()

    def _notify_holders(self) -> None:
        """Call ``on_acquired`` of the new holders.

        They are the last ones among the holders, unless a holder was garbage-collected.
        """
        queue = self._queue
        collected = self._collected
        self._collected = False
        while collected or len(queue) >= self._limit:
            removed = False
            for reference in reversed(self._holders()):
                entry = queue.get(reference)
                if entry is None:
                    continue
                if entry.notified:
                    if collected:
                        continue
                    break
                entry.notified = True
                try:
                    entry.on_acquired()
                except RuntimeError:  # its event loop is closed
                    queue.pop(reference, None)
                    removed = True
            if not removed:
                return

    def _remove_collected(self, reference: weakref.ref[Any]) -> None:
        self._queue.pop(reference, None)
        self._collected = True  # a finalizer notifies nobody: the next caller does
