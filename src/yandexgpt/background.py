"""Threads that work for one iterator and end with it, and how to wait for what another thread does."""

from __future__ import annotations

import atexit
import math
import sys
import threading
import time
from typing import TYPE_CHECKING

from yandexgpt import forks
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SIGNALS_SEEN_WITHIN", "Worker", "exiting", "wait"]

SIGNALS_SEEN_WITHIN = 0.5
"""Seconds: the longest single wait. A signal that comes just as the main thread falls asleep does not wake it up (gRPC
waits in such slices too), and Ctrl-C would be lost."""

PATIENCE_SECONDS = 1.0
"""How long to wait for a thread that was told to end, which takes it a millisecond. Not for ever: an iterator may be
collected, in the middle of anything, by a thread that holds a lock which the worker needs to end."""

_workers: set[Worker] = set()


def wait(event: threading.Event, timeout: float | None = None) -> bool:
    """``event.wait(timeout)``, but for signals that it might sleep through."""
    end = time.monotonic() + (math.inf if timeout is None else timeout)
    while (left := end - time.monotonic()) > SIGNALS_SEEN_WITHIN:
        if event.wait(SIGNALS_SEEN_WITHIN):
            return True
    return event.wait(left)


class Worker(forks.Forkable):
    """A daemon thread: it does not keep the interpreter, and is told to end before that does.

    Args:
        name: of the thread.
        run: what it does.
        stop: makes ``run`` return; called from any thread, perhaps more than once.
    """

    def __init__(self, name: str, run: Callable[[], None], stop: Callable[[], object]) -> None:
        self._stop = stop
        self._inherited = False
        self._thread = threading.Thread(target=run, name=name, daemon=True)
        forks.register(self)
        self._thread.start()
        _workers.add(self)

    def after_fork(self) -> None:
        """The child has no such thread; what belonged to it is kept, untouched, to the end of the process."""
        self._inherited = True

    def check(self) -> None:
        """Refuse to wait for a thread that is not in this process.

        Raises:
            ConfigurationError: it was begun before a fork.
        """
        if self._inherited:
            forks.check()
            raise ConfigurationError("this iterator was begun before a fork: go on with it in the parent process")

    def end(self) -> None:
        """End the thread, and wait for it unless it is the one that calls."""
        if self._inherited or sys.is_finalizing():
            return
        _workers.discard(self)
        self._stop()
        if self._thread is not threading.current_thread():
            self._thread.join(PATIENCE_SECONDS)


_exiting = False


def exiting() -> bool:
    """Whether the interpreter is about to end: who still waits for a worker is left to wait, and ends with it."""
    return _exiting


@atexit.register
def _end_all() -> None:
    global _exiting
    _exiting = True
    for worker in list(_workers):
        worker.end()
