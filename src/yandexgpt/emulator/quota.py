"""Generations in flight, and the quotas that the service sets on them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from yandexgpt.emulator.arguments import check_count
from yandexgpt.emulator.error_status import ErrorStatus, quota_exceeded

__all__ = ["Quota", "Slot", "check_limit"]


def check_limit(name: str, value: float | None) -> float | None:
    """`value`, if it is fit for the argument `name` of :class:`Quota`.

    Raises:
        ValueError: it is not; the message names the argument.
    """
    if value is None:
        return None
    if name == "max_concurrent":
        return check_count(name, value)  # type: ignore[arg-type]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of generations per second above 0, not {value!r}")
    return value


class Slot:
    """One generation's place among those in flight."""

    def __init__(self, quota: Quota) -> None:
        self._quota: Quota | None = quota
        self._lock = threading.Lock()

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        with self._lock:
            quota, self._quota = self._quota, None
        if quota is not None:
            quota.release()


class Quota:
    """Counts generations and admits them within the limits. Thread-safe.

    Args:
        max_concurrent: generations that may run at once; None: any number.
        rate: generations that may start per second, as a token bucket that holds one second's worth (at least one);
            None: any number.
        clock: the time in seconds.

    Raises:
        ValueError: a limit is not as above.
    """

    def __init__(
        self, max_concurrent: int | None, rate: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._max_concurrent: float | None = None
        self._rate: float | None = None
        self.set_limits(max_concurrent=max_concurrent, rate=rate)
        self._in_flight = 0
        self._peak = 0

    def set_limits(self, **limits: float | None) -> None:
        """Set `max_concurrent`, `rate` or both, for the generations to come; arguments and errors of the class."""
        checked = {name: check_limit(name, value) for name, value in limits.items()}
        with self._lock:
            self._max_concurrent = checked.get("max_concurrent", self._max_concurrent)
            self._rate = checked.get("rate", self._rate)
            self._tokens = self._capacity = max(1.0, self._rate or 0.0)
            self._filled_at = self._clock()

    @property
    def in_flight(self) -> int:
        """Generations that run now."""
        with self._lock:
            return self._in_flight

    @property
    def peak(self) -> int:
        """The most that ran at once since the start or the last :meth:`reset_peak`."""
        with self._lock:
            return self._peak

    def reset_peak(self) -> None:
        """Count the peak anew."""
        with self._lock:
            self._peak = self._in_flight

    def acquire(self) -> Slot | ErrorStatus:
        """A place for one more generation, or the words to refuse it with; a status uses up no quota."""
        with self._lock:
            if self._max_concurrent is not None and self._in_flight >= self._max_concurrent:
                limit = self._max_concurrent
                return quota_exceeded(
                    "concurrent generations", f"the limit of {limit} concurrent generations is reached"
                )
            if self._rate is not None:
                now = self._clock()
                self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._rate)
                self._filled_at = now
                if self._tokens < 1:
                    description = f"the limit of {self._rate:g} generations per second is reached"
                    wait = (1 - self._tokens) / self._rate
                    return quota_exceeded("generations per second", description, retry_after=wait)
                self._tokens -= 1
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)
        return Slot(self)

    def release(self) -> None:
        """One generation less; :meth:`Slot.release` calls it."""
        with self._lock:
            self._in_flight -= 1
