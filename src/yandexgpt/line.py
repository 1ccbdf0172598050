"""First come, first served: a bound on how many calls are under way, for threads and tasks alike."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from yandexgpt import forks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Line", "Waiter"]


class Waiter:
    """Somebody in the line. ``wake`` is called once, from any thread, when it is their turn or the line closes."""

    __slots__ = ("admitted", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.admitted = False


class Line(forks.Forkable):
    """A fair semaphore that does not care how its users wait.

    Args:
        places: how many may be inside at once.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """Begin anew: in the child of a fork nobody is inside and nobody waits."""
        self._free = self._places
        self._waiting: deque[Waiter] = deque()
        self._lock = threading.Lock()

    def enter(self, wake: Callable[[], None]) -> Waiter | None:
        """Go in at once (None), or get in line: ``wake`` is called when a place is free and taken for this waiter."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return None
            waiter = Waiter(wake)
            self._waiting.append(waiter)
            return waiter

    def leave(self) -> None:
        """Give one's place to the first in line."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    return
                waiter = self._waiting.popleft()
                waiter.admitted = True
            try:
                waiter.wake()
            except RuntimeError:  # its event loop has closed: nobody is waiting there any more
                waiter.admitted = False  # the place goes on to the next: abandon() must not give it back again
                continue
            return

    def abandon(self, waiter: Waiter) -> None:
        """Stop waiting; if the turn has come in the meantime, the place goes to the next."""
        with self._lock:
            if not waiter.admitted:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                return
        self.leave()
