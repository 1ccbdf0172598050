"""Quotas: the limits of concurrent generations and of generations per second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from yandexgpt.emulator.arguments import check_count
from yandexgpt.emulator.error_status import ErrorStatus, quota_exceeded

__all__ = ["Quota", "Slot", "check_limit"]


def check_limit(name: str, value: float | None) -> float | None:
    """Return `value` if it is valid for the argument `name` of :class:`Quota`.

    Raises:
        ValueError: it is invalid; the message names the argument.
    """
    if value is None:
        return None
    if name == "max_concurrent":
        return check_count(name, value)  # type: ignore[arg-type]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of generations per second above 0, not {value!r}")
    return value


class Slot:
    """One running generation. It counts until :meth:`release`."""

    def __init__(self, quota: Quota) -> None:
        self._quota: Quota | None = quota
        self._lock = threading.Lock()

    def release(self) -> None:
        """Stop counting this generation. A second call does nothing."""
        with self._lock:
            quota, self._quota = self._quota, None
        if quota is not None:
            quota.release()


class Quota:
    """Counts running generations and limits them. Thread-safe.

    Args:
        max_concurrent: maximum number of concurrent generations; None: no limit.
        rate: maximum number of new generations per second. It is a token bucket with the capacity of one second (at
            least one token). None: no limit.
        clock: returns the time in seconds.

    Raises:
        ValueError: a limit is invalid.
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
        """Set `max_concurrent`, `rate` or both for new generations. The arguments and errors are those of the class."""
        checked = {name: check_limit(name, value) for name, value in limits.items()}
        with self._lock:
            self._max_concurrent = checked.get("max_concurrent", self._max_concurrent)
            self._rate = checked.get("rate", self._rate)
            self._tokens = self._capacity = max(1.0, self._rate or 0.0)
            self._filled_at = self._clock()

    @property
    def in_flight(self) -> int:
        """The number of running generations."""
        with self._lock:
            return self._in_flight

    @property
    def peak(self) -> int:
        """The maximum of :attr:`in_flight` since the start or the last :meth:`reset_peak`."""
        with self._lock:
            return self._peak

    def reset_peak(self) -> None:
        """Set the peak to the current number of running generations."""
        with self._lock:
            self._peak = self._in_flight

    def acquire(self) -> Slot | ErrorStatus:
        """A slot for a new generation, or the error status if a limit is reached. A rejected call uses no quota."""
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
        """Count one running generation less. Only :meth:`Slot.release` calls it."""
        with self._lock:
            self._in_flight -= 1
