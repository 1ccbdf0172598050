"""Deadlines and cancellations of attempts that go through interceptors of ``grpc.aio``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from grpc.aio import _call

from yandexgpt._concurrency.event_loops import threadsafe_callback, times_cancelled
from yandexgpt._rpc.async_registry import SETTLING_SECONDS, cancel_rpc

if TYPE_CHECKING:
    from yandexgpt._rpc.call import Call

__all__ = ["Watch", "read_on"]

INTERCEPTORS_SECONDS = 0.2
"""How long after the deadline of an attempt its interceptors may go on: gRPC's own word comes first if it can."""


class Watch:
    """Ends an attempt whose interceptors keep it beyond its deadline, or after it was cancelled.

    gRPC counts the deadline from where interceptors have let the call go, and cancels only that call: what they hand
    out may wait for something else. So the task that reads is cancelled, as ``asyncio.timeout`` does it.

    Attributes:
        expired: whether the deadline has passed.
    """

    def __init__(self, rpc: Any, seconds: float | None) -> None:
        self.expired = False
        self._rpc = rpc
        self._requests = 0
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._expire)
        self._task = asyncio.current_task()

    @classmethod
    def over(cls, call: Call, rpc: Any) -> Watch | None:
        """A watch over an attempt, if there are interceptors."""
        if isinstance(rpc, _call.Call):
            return None
        ends = call.attempt_ends
        watch = cls(rpc, None if ends is None else ends - time.monotonic() + INTERCEPTORS_SECONDS)
        call.cancel_hook = threadsafe_callback(watch.cancel)
        return watch

    def reads(self, call: Call, last: Any) -> None:
        """The running task goes on to wait for the next message.

        Raises:
            CancelledError, DeadlineExceededError: the attempt has ended meanwhile.
        """
        self._task = asyncio.current_task()
        self._check(call, last)

    def hands_out(self, call: Call, last: Any) -> None:
        """A message has come.

        Raises:
            CancelledError, DeadlineExceededError: an interceptor has swallowed the end of the attempt.
        """
        self._task = None
        self._take_back()
        self._check(call, last)

    def cancel(self) -> None:
        """Cancel the attempt."""
        if self._task is None:
            cancel_rpc(self._rpc)
        else:
            self._requests += 1
            self._task.cancel()

    def end(self) -> None:
        """The attempt has ended."""
        self._task = None
        self._take_back()
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        self.cancel()

    def _check(self, call: Call, last: Any) -> None:
        if call.cancelled:
            raise call.cancelled_locally(last)
        if self.expired:
            raise call.expired("in an interceptor")

    def _take_back(self) -> None:
        """Others who cancel the task are to be told apart."""
        task = asyncio.current_task()
        while self._requests:
            self._requests -= 1
            if task is not None and hasattr(task, "uncancel"):  # since Python 3.11
                task.uncancel()


async def read_on(messages: AsyncIterator[Any]) -> None:
    """Read a call that was cancelled between two messages to its end, which is at hand.

    An instrumentation wraps the messages in a generator of its own, and its span ends when that one is told how the
    call ended. Interceptors that have something else to wait for are not waited for.
    """
    cancellations = times_cancelled()
    watch = Watch(None, SETTLING_SECONDS)
    try:
        async for _ in messages:
            pass
    except grpc.RpcError:
        pass
    except asyncio.CancelledError:
        watch.end()
        if times_cancelled() > cancellations:
            raise
    finally:
        watch.end()
