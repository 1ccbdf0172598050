"""Background threads that serve one iterator and stop with it, and an event to wait for other threads."""

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
from yandexgpt._concurrency.weak_set import LockFreeWeakSet
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SIGNAL_CHECK_INTERVAL", "AutoResetEvent", "StoppableThread", "interpreter_is_exiting", "run_in_thread"]

logger = logging.getLogger("yandexgpt")

SIGNAL_CHECK_INTERVAL = 0.5
"""Seconds that one blocking wait lasts at most. A signal that arrives just before the main thread blocks does not wake
it, so Ctrl-C would have no effect until the wait ends. gRPC splits its waits in the same way."""

JOIN_TIMEOUT = 1.0
"""Seconds to wait for a thread that was asked to stop, which usually takes a millisecond. The wait is limited because
the thread may run code of the application, such as an interceptor."""

_threads: LockFreeWeakSet[StoppableThread] = LockFreeWeakSet()


class AutoResetEvent:
    """An event that one thread waits for, and that threads, signal handlers and finalizers may set.

    ``threading.Event`` cannot be used: it is set under a lock, which may be held by the very thread that the signal
    handler or the finalizer has interrupted. Setting it would then deadlock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the waiting thread, or let the next wait return at once if no thread waits."""
        with contextlib.suppress(RuntimeError):  # it is set already
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, and reset it.

        Args:
            timeout: seconds to wait at most, or None for no limit.

        Returns:
            Whether it was set; False if the timeout passed first.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        while (left := end - time.monotonic()) > SIGNAL_CHECK_INTERVAL:
            if self._lock.acquire(timeout=SIGNAL_CHECK_INTERVAL):
                return True
        return self._lock.acquire(timeout=max(0.0, left))


def run_in_thread(function: Callable[[], object]) -> None:
    """Start a thread that calls the function, and do not wait for it.

    This prevents a deadlock when a call is cancelled from a signal handler or a finalizer. To cancel or to read a call,
    gRPC acquires the lock of the call and the lock of the channel, one while it holds the other. The handler may have
    interrupted gRPC's code while it held one of them, and the thread that reads the call may hold the other one and
    wait for the first.
    """
    try:
        _thread.start_new_thread(_run_and_log, (function,))  # not threading.Thread, whose start acquires a lock
    except RuntimeError:  # the interpreter is exiting, or the system cannot start another thread
        _run_and_log(function)


def _run_and_log(function: Callable[[], object]) -> None:
    try:
        function()
    except Exception:
        logger.exception("a background operation on a call or a channel failed")


class StoppableThread(fork_safety.ForkAware):
    """A daemon thread that is stopped at interpreter exit.

    Args:
        name: of the thread.
        run: the function that the thread runs.
        stop: makes ``run`` return; called from any thread, possibly more than once.

    Raises:
        ConfigurationError: the thread cannot be started, for example because the interpreter is exiting.
    """

    _thread: threading.Thread | None = None

    def __init__(self, name: str, run: Callable[[], None], stop: Callable[[], object]) -> None:
        self._stop = stop
        self._belongs_to_parent = False
        self._thread = thread = threading.Thread(target=run, name=name, daemon=True)
        fork_safety.register(self)
        try:
            thread.start()
        except RuntimeError as error:
            raise ConfigurationError(f"a thread is needed, and none can be started: {error}") from error
        _threads.add(self)

    def __del__(self) -> None:
        """Stop the thread: its user may have been interrupted before it did so."""
        if self._thread is not None:  # __init__ may have been interrupted, too
            self.stop()

    def after_fork(self) -> None:
        """Record that the child has no such thread. Objects of the thread stay untouched until the process exits."""
        self._belongs_to_parent = True

    def check(self) -> None:
        """Refuse to wait for a thread that is not in this process.

        Raises:
            ConfigurationError: it was started before a fork.
        """
        if self._belongs_to_parent:
            fork_safety.check()
            raise ConfigurationError("this iterator was begun before a fork: go on with it in the parent process")

    def stop(self) -> None:
        """Ask the thread to stop. Does not wait, so a finalizer may call it."""
        if not self._belongs_to_parent and not sys.is_finalizing():
            _threads.discard(self)
            self._stop()

    def stop_and_join(self) -> None:
        """Stop the thread and join it, unless it is the calling thread."""
        self.stop()
        thread = self._thread
        if thread is None or self._belongs_to_parent or sys.is_finalizing() or thread is threading.current_thread():
            return
        thread.join(JOIN_TIMEOUT)


_interpreter_is_exiting = False


def interpreter_is_exiting() -> bool:
    """Return whether the interpreter is exiting.

    Threads that wait for a stoppable thread at interpreter exit are daemon threads. They need not be woken: they die
    with the interpreter.
    """
    return _interpreter_is_exiting


@atexit.register
def _stop_all() -> None:
    global _interpreter_is_exiting
    _interpreter_is_exiting = True
    for thread in list(_threads):
        thread.stop_and_join()
