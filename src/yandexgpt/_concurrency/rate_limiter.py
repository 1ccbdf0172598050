"""The rate limit of operation polls, which the service counts per second.

The service allows 50 polls a second (its published default) and counts them when they arrive. The network may delay
some of them, so that they arrive together: while a connection is being opened, or a packet is sent again. So there are
two limits. Polls are started at least 25 ms apart: at most 41 in a second. And at most 8 polls are in flight at once,
so that at most 8 polls sent before a second begins can arrive in that second. Together these are 49, whatever the
network does.
"""

from __future__ import annotations

import math
import threading

__all__ = ["MAX_CONCURRENT_POLLS", "POLL_INTERVAL", "RateLimiter"]

POLL_INTERVAL = 0.025
"""Seconds, at least, from one poll of a client to the next."""
MAX_CONCURRENT_POLLS = 8
"""How many polls of a client may be in flight at once; further ones wait in a queue."""


class RateLimiter:
    """Assigns start times with a minimum interval, in the order of the requests. Thread-safe; does not wait.

    Args:
        interval: seconds, at least, from one start time to the next (>= 0).
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.reset()

    def reset(self) -> None:
        """Forget all reservations: after a fork those of the parent do not apply to the child."""
        self._next = -math.inf
        self._lock = threading.RLock()  # re-entrant: a signal handler may make a call, too

    def reserve(self, now: float, latest: float = math.inf) -> float | None:
        """Reserve the next free start time.

        Args:
            now: the time in seconds, of a monotonic clock.
            latest: the last start time that the caller can use.

        Returns:
            A start time not before ``now``; or None, without a reservation, if it would be after ``latest``.
        """
        with self._lock:
            start_time = max(now, self._next)
            if start_time > latest:
                return None
            self._next = start_time + self._interval
            return start_time
