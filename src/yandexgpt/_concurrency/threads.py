"""Threads that work for one iterator and end with it, and how to wait for what another thread does."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import logging
import math
import sys
import threading
import time
from typing import TYPE_CHECKING

from yandexgpt._concurrency import fork_safety
from yandexgpt._concurrency.weak_registry import WeakRegistry
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SIGNALS_SEEN_WITHIN", "AutoResetEvent", "StoppableThread", "exiting", "run_in_thread"]

logger = logging.getLogger("yandexgpt")

SIGNALS_SEEN_WITHIN = 0.5
"""Seconds: the longest single wait. A signal that comes just as the main thread falls asleep does not wake it up (gRPC
waits in such slices too), and Ctrl-C would be lost."""

PATIENCE_SECONDS = 1.0
"""How long to wait for a thread that was told to end, which takes it a millisecond. Not for ever: what the thread runs
may be somebody else's code, such as an interceptor."""

_workers: WeakRegistry[StoppableThread] = WeakRegistry()


class AutoResetEvent:
    """What one thread waits for and anybody may set: threads, signal handlers and finalizers.

    ``threading.Event`` will not do: it is set under a lock, which the thread that a signal handler or a finalizer has
    interrupted may hold.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """End a wait, or the next one if nobody waits."""
        with contextlib.suppress(RuntimeError):  # it is set already
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, and reset it.

        Args:
            timeout: seconds to wait at most, or None for no limit.

        Returns:
            Whether it was set; False if the time was over before.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        while (left := end - time.monotonic()) > SIGNALS_SEEN_WITHIN:
            if self._lock.acquire(timeout=SIGNALS_SEEN_WITHIN):
                return True
        return self._lock.acquire(timeout=max(0.0, left))


def run_in_thread(errand: Callable[[], object]) -> None:
    """Have something done at once, in a thread of its own.

    gRPC takes locks of the call and of the channel to cancel a call, and to read it, one inside of the other. A signal
    handler or a finalizer may have interrupted gRPC's own code under one of them, while the thread that reads the call
    waits for that one under the other.
    """
    try:
        _thread.start_new_thread(_do, (errand,))  # not threading.Thread: it takes a lock to start
    except RuntimeError:  # the interpreter is about to end, or the system allows no further thread
        _do(errand)


def _do(errand: Callable[[], object]) -> None:
    try:
        errand()
    except Exception:
        logger.exception("a call could not be cancelled")


class StoppableThread(fork_safety.Forkable):
    """A daemon thread: it does not keep the interpreter, and is told to end before that does.

    Args:
        name: of the thread.
        run: what it does.
        stop: makes ``run`` return; called from any thread, perhaps more than once.

    Raises:
        ConfigurationError: the interpreter is about to end, and starts no threads any more.
    """

    def __init__(self, name: str, run: Callable[[], None], stop: Callable[[], object]) -> None:
        self._stop = stop
        self._inherited = False
        self._thread = threading.Thread(target=run, name=name, daemon=True)
        fork_safety.register(self)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise ConfigurationError(f"a thread is needed, and none can be started: {error}") from error
        _workers.add(self)

    def __del__(self) -> None:
        """Whoever should have ended it may have been interrupted before."""
        self.stop()

    def after_fork(self) -> None:
        """The child has no such thread; what belonged to it is kept, untouched, to the end of the process."""
        self._inherited = True

    def check(self) -> None:
        """Refuse to wait for a thread that is not in this process.

        Raises:
            ConfigurationError: it was begun before a fork.
        """
        if self._inherited:
            fork_safety.check()
            raise ConfigurationError("this iterator was begun before a fork: go on with it in the parent process")

    def stop(self) -> None:
        """Tell the thread to end. Waits for nothing, so a finalizer may call it."""
        if not self._inherited and not sys.is_finalizing():
            _workers.discard(self)
            self._stop()

    def end(self) -> None:
        """End the thread, and wait for it unless it is the one that calls."""
        self.stop()
        if not self._inherited and not sys.is_finalizing() and self._thread is not threading.current_thread():
            self._thread.join(PATIENCE_SECONDS)


_exiting = False


def exiting() -> bool:
    """Whether the interpreter is about to end. Threads that still wait for a worker are daemons, and end with it."""
    return _exiting


@atexit.register
def _end_all() -> None:
    global _exiting
    _exiting = True
    for worker in list(_workers):
        worker.end()
