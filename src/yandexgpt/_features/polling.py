"""When to look at operations that are waited for: decisions only, nothing here waits."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from yandexgpt._checks import check_seconds
from yandexgpt.errors import DeadlineExceededError, OperationTimeout

__all__ = ["PollSchedule", "Waitable"]

FIRST_INTERVAL = 0.5
"""Seconds from a submission to its first look-up, and from the first to the second."""
LONGEST_INTERVAL = 10.0
"""Seconds between two look-ups of an operation at most (more, if there are more operations than look-ups)."""
GROWTH = 1.5
"""From one interval to the next: an answer is seen at the latest half as long again after its beginning."""
JITTER = 0.2
"""The share of an interval that is random, so that operations submitted together are not looked up together."""
LAST_LOOK = 1.0
"""Seconds before the end of a wait when there is one more look-up (half of the wait, if that is less)."""
CLOCK_TOLERANCE = 0.01
"""Seconds by which gRPC's deadline may be ahead of ours."""


class Waitable(Protocol):
    """What is asked of an operation."""

    _seen: bool
    """Whether anything but its id is known: if not, it is looked up at once."""

    @property
    def id(self) -> str: ...
    @property
    def done(self) -> bool: ...


O = TypeVar("O", bound=Waitable)  # noqa: E741


class PollSchedule(Generic[O]):
    """Which of the operations to look up next, and when: the first that is due, so each in its turn. Does not wait.

    Args:
        operations: what to wait for.
        timeout: seconds for all of it (> 0), or None.
        now: the time in seconds, of a clock that does not go back; by default ``time.monotonic()``.
        rng: a random number from 0 to 1.

    Raises:
        ValueError: an impossible timeout.
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
        self._last_look = None if timeout is None else now + timeout - min(LAST_LOOK, timeout / 2)
        self._rng = rng
        self._due: list[tuple[float, int, int, O]] = []
        self.ended: list[O] = []
        """Those that had ended before the wait began."""
        for order, operation in enumerate(operations):
            if operation.done:
                self.ended.append(operation)
            else:
                self._put(order, 0, operation, self._interval(0) if operation._seen else 0.0, now)

    def __bool__(self) -> bool:
        return bool(self._due)

    @property
    def first(self) -> O:
        """The operation whose turn is next."""
        return self._due[0][-1]

    def remaining(self, now: float) -> float | None:
        """Seconds to the end of the wait, or None if it has none.

        Raises:
            OperationTimeout: it has ended.
        """
        if self._deadline is None:
            return None
        if now >= self._deadline:
            raise self._timed_out()
        return self._deadline - now

    def check(self, error: DeadlineExceededError, now: float) -> None:
        """A look-up has run out of time.

        Raises:
            OperationTimeout: because the wait has: the look-up was never sent, or the time is over.
        """
        if self._deadline is not None and (not error.attempts or now > self._deadline - CLOCK_TOLERANCE):
            raise self._timed_out() from error

    def delay(self, now: float) -> float:
        """Seconds until the first is due; 0 if it is."""
        return max(0.0, self._due[0][0] - now)

    def polled(self, now: float) -> bool:
        """The first was looked up.

        Returns:
            Whether it has ended; if not, it gets another turn.
        """
        _, order, looks, operation = heapq.heappop(self._due)
        if operation.done:
            return True
        self._put(order, looks + 1, operation, self._interval(looks), now)
        return False

    def _put(self, order: int, looks: int, operation: O, interval: float, now: float) -> None:
        due = now + interval
        if self._deadline is not None and self._last_look is not None and due > self._last_look:
            due = self._last_look if now < self._last_look else self._deadline
        heapq.heappush(self._due, (due, order, looks, operation))

    def _interval(self, looks: int) -> float:
        bound: float = min(LONGEST_INTERVAL, FIRST_INTERVAL * GROWTH ** min(looks, 64))
        return bound * (1 - JITTER * self._rng())

    def _timed_out(self) -> OperationTimeout:
        waiting: tuple[Any, ...] = tuple(entry[-1] for entry in sorted(self._due, key=lambda entry: entry[1]))
        assert self._timeout is not None  # noqa: S101  (for the type checker)
        return OperationTimeout(tuple(operation.id for operation in waiting), self._timeout, waiting)
