"""Deadlines and cancellations of attempts that go through interceptors of ``grpc.aio``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from grpc.aio import _call

from yandexgpt._concurrency.event_loops import threadsafe_callback, times_cancelled
from yandexgpt._rpc.async_registry import CANCEL_DRAIN_TIMEOUT, cancel_rpc

if TYPE_CHECKING:
    from yandexgpt._rpc.call import Call

__all__ = ["Watch", "drain"]

INTERCEPTOR_GRACE_SECONDS = 0.2
"""How long after the deadline of an attempt its interceptors may run: an error that gRPC raises itself is preferred."""


class Watch:
    """Cancels an attempt whose interceptors continue after its deadline, or after its cancellation.

    gRPC counts the deadline from the moment when the interceptors have started its call, and cancels only that call.
    The object that interceptors return may wait for something else. So the task that reads is cancelled, as
    ``asyncio.timeout`` does it.

    Attributes:
        expired: whether the deadline has passed.
    """

    def __init__(self, rpc: Any, seconds: float | None) -> None:
        self.expired = False
        self._rpc = rpc
        self._cancel_requests = 0
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._expire)
        self._reading_task = asyncio.current_task()

    @classmethod
    def for_attempt(cls, call: Call, rpc: Any) -> Watch | None:
        """Return a watch for an attempt, or None if there are no interceptors."""
        if isinstance(rpc, _call.Call):
            return None
        deadline = call.attempt_deadline
        watch = cls(rpc, None if deadline is None else deadline - time.monotonic() + INTERCEPTOR_GRACE_SECONDS)
        call.cancel_hook = threadsafe_callback(watch.cancel)
        return watch

    def resume_reading(self, call: Call, last: Any) -> None:
        """Record that the running task waits for the next message.

        Raises:
            CancelledError, DeadlineExceededError: the attempt has ended meanwhile.
        """
        self._reading_task = asyncio.current_task()
        self._check(call, last)

    def message_received(self, call: Call, last: Any) -> None:
        """Record that a message has arrived.

        Raises:
            CancelledError, DeadlineExceededError: an interceptor has swallowed the cancellation of the task.
        """
        self._reading_task = None
        self._uncancel()
        self._check(call, last)

    def cancel(self) -> None:
        """Cancel the attempt."""
        if self._reading_task is None:
            cancel_rpc(self._rpc)
        else:
            self._cancel_requests += 1
            self._reading_task.cancel()

    def stop(self) -> None:
        """Stop watching: the attempt has ended."""
        self._reading_task = None
        self._uncancel()
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        self.cancel()

    def _check(self, call: Call, last: Any) -> None:
        if call.cancelled:
            raise call.cancelled_error(last)
        if self.expired:
            raise call.deadline_error("in an interceptor")

    def _uncancel(self) -> None:
        """Undo the cancellations that this object requested, so that those requested by other code can be counted."""
        task = asyncio.current_task()
        while self._cancel_requests:
            self._cancel_requests -= 1
            if task is not None and hasattr(task, "uncancel"):  # since Python 3.11
                task.uncancel()


async def drain(messages: AsyncIterator[Any]) -> None:
    """Read the remaining messages of a call that was cancelled between two of them. Its end arrives very soon.

    Instrumentation wraps the messages in its own generator, and ends its span when that generator receives the end of
    the call. The time is limited, because interceptors may wait for something else.
    """
    cancellations = times_cancelled()
    watch = Watch(None, CANCEL_DRAIN_TIMEOUT)
    try:
        async for _ in messages:
            pass
    except grpc.RpcError:
        pass
    except asyncio.CancelledError:
        watch.stop()
        if times_cancelled() > cancellations:
            raise
    finally:
        watch.stop()
