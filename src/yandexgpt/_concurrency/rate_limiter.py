"""The spacing of calls that the service counts by the second: the look-ups of operations.

The service allows 50 look-ups a second (its published default), and counts them where they arrive. The network may hold
some back and let them arrive together: while a connection is being opened, or a packet is sent again. So two bounds
stand here. Between two look-ups there are at least 25 ms, which makes 41 in a second at the most; and no more than 8
are under way at once, so that no more than 8 sent before a second begins can arrive in it: 49 in all, whatever the
network does.
"""

from __future__ import annotations

import math
import threading

__all__ = ["POLLS_AT_ONCE", "POLL_INTERVAL", "RateLimiter"]

POLL_INTERVAL = 0.025
"""Seconds from one look-up of a client to the next, at least."""
POLLS_AT_ONCE = 8
"""Look-ups of a client that are under way at a time, at most; further ones wait in line."""


class RateLimiter:
    """Hands out moments that lie apart, in the order in which they are asked for. Thread-safe; does not wait.

    Args:
        interval: seconds from one moment to the next, at least (>= 0).
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.reset()

    def reset(self) -> None:
        """Begin anew: what the parent of a fork has reserved is not the child's."""
        self._next = -math.inf
        self._lock = threading.RLock()  # a signal handler may make a call, too

    def reserve(self, now: float, latest: float = math.inf) -> float | None:
        """The next free moment, taken for the caller.

        Args:
            now: the time in seconds, of a clock that does not go back.
            latest: the last moment that is of use to the caller.

        Returns:
            A moment not before ``now``; None, and nothing is taken, if it would be after ``latest``.
        """
        with self._lock:
            moment = max(now, self._next)
            if moment > latest:
                return None
            self._next = moment + self._interval
            return moment
