"""The questions with the server in Python: the intervals of its messages, and the number of concurrent calls.

This module imports only the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass

SECONDS = 1.0
"""The approximate time of a measurement with delayed answers."""
INSTANT_CALLS = 640
"""The number of calls of a measurement with immediate answers."""
AT_ONCE = (1, 8, 32)


@dataclass(frozen=True)
class Pace:
    """An answer of the server, with the interval of its messages."""

    title: str
    every: float
    """Seconds before each message."""
    chunks: int = 1


PACES = {
    "instant": Pace("a whole answer at once", 0.0),
    "whole50": Pace("a whole answer after 50 ms", 0.050),
    "stream10": Pace("a stream of 50 chunks, 10 ms apart", 0.010, chunks=50),
    "stream20": Pace("a stream of 50 chunks, 20 ms apart", 0.020, chunks=50),
}


@dataclass(frozen=True)
class Row:
    """Calls of one kind, with a fixed number of concurrent calls."""

    pace: str
    workers: str
    """`threads` or `tasks`."""
    at_once: int

    @property
    def key(self) -> str:
        """The name of the row, which begins with the kind of worker and the answer."""
        return f"python-{self.workers}-{self.pace}-{self.at_once}"

    @property
    def title(self) -> str:
        """The title of the row."""
        workers = self.workers if self.at_once > 1 else self.workers.rstrip("s")
        return f"{PACES[self.pace].title}, {self.at_once} {workers}"

    @property
    def stream(self) -> bool:
        """Whether the answer is streamed."""
        return PACES[self.pace].chunks > 1

    @property
    def calls(self) -> int:
        """The number of calls of a measurement."""
        pace = PACES[self.pace]
        if not pace.every:
            return INSTANT_CALLS
        return self.at_once * max(1, round(SECONDS / (pace.every * pace.chunks)))


ROWS = [Row(pace, workers, at_once) for workers in ("threads", "tasks") for pace in PACES for at_once in AT_ONCE]
