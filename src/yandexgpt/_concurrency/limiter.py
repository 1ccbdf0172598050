"""A bound on how many calls are in flight, first come, first served, for threads and tasks alike."""

from __future__ import annotations

import itertools
import time
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Limiter"]

_SWEEP_SECONDS = 0.1
"""The shortest time after which those who wait look for users whose event loop is closed."""


class _Entry:
    __slots__ = ("gone", "wake", "woken")

    def __init__(self, wake: Callable[[], Any], gone: Callable[[], bool] | None) -> None:
        self.wake = wake
        self.gone = gone
        self.woken = False


class Limiter:
    """A fair semaphore that does not care how its users wait.

    All users stand in one queue, and those at its first ``limit`` places hold it. So nothing has to be handed over, and
    no lock is needed: every change is one step of a built-in dict, which threads, signal handlers and finalizers may
    make at any moment.

    Who is collected without a release wakes nobody. So those who wait look again from time to time.

    Args:
        limit: how many may hold it at once (>= 1).
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.reset()

    def reset(self) -> None:
        """Begin anew: in the child of a fork nobody holds it and nobody waits."""
        self._queue: dict[weakref.ref[Any], _Entry] = {}
        self._swept = 0.0

    def acquire(self, user: object, wake: Callable[[], Any], gone: Callable[[], bool] | None = None) -> bool:
        """Join the queue, at its end.

        Args:
            user: who it is. It leaves the queue by :meth:`release`, and in any case when it is collected.
            wake: called from any thread when the user's turn has come. It raises RuntimeError if the user's event loop
                is closed: the turn goes to the next.
            gone: whether the user cannot release any more, because its event loop is closed.

        Returns:
            Whether the user holds it at once. If not, :meth:`holds` tells when it does.
        """
        entry = _Entry(wake, gone)
        self._queue[weakref.ref(user, self._forget)] = entry
        if len(self._queue) > self._limit:
            self._sweep()
        entry.woken = self._is_first(user)
        return entry.woken

    def holds(self, user: object) -> bool:
        """Whether the user, who stands in the queue, holds it."""
        if len(self._queue) > self._limit and time.monotonic() > self._swept + _SWEEP_SECONDS:
            self._sweep()
        return self._is_first(user)

    def release(self, user: object) -> None:
        """Leave the queue, from wherever in it. A second time changes nothing."""
        self._queue.pop(weakref.ref(user), None)
        self._wake()

    def _is_first(self, user: object) -> bool:
        return len(self._queue) <= self._limit or weakref.ref(user) in self._first()

    def _first(self) -> list[weakref.ref[Any]]:
        """Those who hold it."""
        while True:
            try:
                return list(itertools.islice(self._queue, self._limit))
            except RuntimeError:  # noqa: PERF203  (a user was collected as the list was made)
                continue

    def _sweep(self) -> None:
        """Take out those who hold it and whose event loop is closed."""
        self._swept = time.monotonic()
        for reference in self._first():
            entry = self._queue.get(reference)
            if entry is not None and entry.gone is not None and entry.gone():
                self._queue.pop(reference, None)
        self._wake()

    def _wake(self) -> None:
        """Wake those whose turn has come: the last ones of those who hold it."""
        queue = self._queue
        while len(queue) >= self._limit:
            left = False
            for reference in reversed(self._first()):
                entry = queue.get(reference)
                if entry is None:
                    continue
                if entry.woken:
                    break
                entry.woken = True
                try:
                    entry.wake()
                except RuntimeError:  # its event loop is closed
                    queue.pop(reference, None)
                    left = True
            if not left:
                return

    def _forget(self, reference: weakref.ref[Any]) -> None:
        self._queue.pop(reference, None)
