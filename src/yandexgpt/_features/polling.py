"""When to poll operations that a caller waits for. Pure: decisions only, nothing here sleeps."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from yandexgpt._checks import check_seconds
from yandexgpt.errors import DeadlineExceededError, OperationTimeout

__all__ = ["PollSchedule", "Pollable"]

INITIAL_INTERVAL = 0.5
"""Seconds from a submission to its first poll, and from the first poll to the second."""
MAX_INTERVAL = 10.0
"""The longest interval between two polls of an operation, in seconds (longer if there are more operations than the rate
limit of polls allows)."""
INTERVAL_GROWTH = 1.5
"""The factor from one interval to the next. While intervals are below :data:`MAX_INTERVAL`, an operation that took t
seconds, more than the first interval, is seen as done after 2 t at the latest; for longer t after about 1.5 t."""
JITTER_SHARE = 0.2
"""The share of an interval that is random, so that operations submitted together are not polled together."""
FINAL_POLL_BEFORE_END = 1.0
"""Seconds from the last poll to the deadline of a wait (half of the wait, if that is less)."""
CLOCK_TOLERANCE = 0.01
"""Seconds by which gRPC's deadline may pass before ours."""


class Pollable(Protocol):
    """An operation, as far as a schedule needs it."""

    _looked_up: bool
    """Whether more than the id is known. If not, the operation is polled at once."""

    @property
    def id(self) -> str: ...
    @property
    def done(self) -> bool: ...


O = TypeVar("O", bound=Pollable)  # noqa: E741


class PollSchedule(Generic[O]):
    """Which operation to poll next, and when: the one with the earliest due time. True while an operation is pending.

    Args:
        operations: the operations to wait for.
        timeout: seconds for the whole wait (> 0), or None for no deadline.
        now: the current time of a monotonic clock, in seconds; by default ``time.monotonic()``.
        rng: returns a random number from 0 to 1.

    Raises:
        ValueError: ``timeout`` is not a number of seconds greater than 0.
    """

    def __init__(
        self,
        operations: Iterable[O],
        timeout: float | None,
        now: float | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        check_seconds("timeout", timeout)
        now = time.monotonic() if now is None else now
        self._timeout = timeout
        self._deadline = None if timeout is None else now + timeout
        self._final_poll_at = None if timeout is None else now + timeout - min(FINAL_POLL_BEFORE_END, timeout / 2)
        self._rng = rng
        self._queue: list[tuple[float, int, int, O]] = []
        self.already_done: list[O] = []
        """The operations that were done before the wait began."""
        for order, operation in enumerate(operations):
            if operation.done:
                self.already_done.append(operation)
            else:
                self._schedule(order, 0, operation, self._interval(0) if operation._looked_up else 0.0, now)

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def next_operation(self) -> O:
        """The operation to poll next."""
        return self._queue[0][-1]

    def remaining(self, now: float) -> float | None:
        """Seconds to the deadline of the wait, or None if it has none.

        Raises:
            OperationTimeout: the deadline has passed.
        """
        if self._deadline is None:
            return None
        if now >= self._deadline:
            raise self._timeout_error()
        return self._deadline - now

    def raise_if_timed_out(self, error: DeadlineExceededError, now: float) -> None:
        """Find out whether a poll timed out because the wait did.

        Args:
            error: the error of the poll.

        Raises:
            OperationTimeout: the wait has timed out: the poll was never sent, or the deadline of the wait has passed.
        """
        if self._deadline is not None and (not error.attempts or now > self._deadline - CLOCK_TOLERANCE):
            raise self._timeout_error() from error

    def delay(self, now: float) -> float:
        """Seconds until the next operation is due; 0 if it is due now."""
        return max(0.0, self._queue[0][0] - now)

    def record_poll(self, now: float) -> bool:
        """Record that the next operation was polled.

        Returns:
            True: it is done, and leaves the schedule. False: its next poll is scheduled.
        """
        _, order, polls, operation = heapq.heappop(self._queue)
        if operation.done:
            return True
        self._schedule(order, polls + 1, operation, self._interval(polls), now)
        return False

    def _schedule(self, order: int, polls: int, operation: O, interval: float, now: float) -> None:
        due = now + interval
        if self._deadline is not None and self._final_poll_at is not None and due > self._final_poll_at:
            due = self._final_poll_at if now < self._final_poll_at else self._deadline
        heapq.heappush(self._queue, (due, order, polls, operation))

    def _interval(self, polls: int) -> float:
        bound: float = min(MAX_INTERVAL, INITIAL_INTERVAL * INTERVAL_GROWTH ** min(polls, 64))
        return bound * (1 - JITTER_SHARE * self._rng())

    def _timeout_error(self) -> OperationTimeout:
        waiting: tuple[Any, ...] = tuple(entry[-1] for entry in sorted(self._queue, key=lambda entry: entry[1]))
        assert self._timeout is not None  # noqa: S101  (for the type checker)
        return OperationTimeout(tuple(operation.id for operation in waiting), self._timeout, waiting)
