"""Generations in flight, and the quotas that the service sets on them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from yandexgpt.emulator.refusal import Refusal, quota_exceeded

__all__ = ["Quota", "Slot"]


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
            quota.leave()


class Quota:
    """Counts generations and admits them within the limits. Thread-safe.

    Args:
        max_concurrent: generations that may run at once; None: any number.
        rate: generations that may start per second, as a token bucket that holds one second's worth (at least one);
            None: any number.
        clock: the time in seconds.
    """

    def __init__(
        self, max_concurrent: int | None, rate: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_concurrent = max_concurrent
        self._rate = rate
        self._clock = clock
        self._capacity = max(1.0, rate or 0.0)
        self._tokens = self._capacity
        self._filled_at = clock()
        self._in_flight = 0
        self._peak = 0
        self._lock = threading.Lock()

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

    def enter(self) -> Slot | Refusal:
        """A place for one more generation, or the words to refuse it with; a refusal uses up no quota."""
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

    def leave(self) -> None:
        """One generation less; :meth:`Slot.release` calls it."""
        with self._lock:
            self._in_flight -= 1
