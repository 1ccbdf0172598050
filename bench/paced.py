"""The rows with the server in Python: how it paces its answers, and how many calls there are at once.

This module needs nothing but Python.
"""

from __future__ import annotations

from dataclasses import dataclass

SECONDS = 1.0
"""How long paced calls are made in a measurement, about."""
INSTANT_CALLS = 640
"""How many calls a measurement has whose answers come at once."""
AT_ONCE = (1, 8, 32)


@dataclass(frozen=True)
class Pace:
    """How the server answers."""

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
    """Calls of one kind, so many at once."""

    pace: str
    workers: str
    """`threads` or `tasks`."""
    at_once: int

    @property
    def key(self) -> str:
        """Its name, which begins with the kind of worker, then the pace."""
        return f"python-{self.workers}-{self.pace}-{self.at_once}"

    @property
    def title(self) -> str:
        """What it is."""
        workers = self.workers if self.at_once > 1 else self.workers.rstrip("s")
        return f"{PACES[self.pace].title}, {self.at_once} {workers}"

    @property
    def stream(self) -> bool:
        """Whether a call is streamed."""
        return PACES[self.pace].chunks > 1

    @property
    def calls(self) -> int:
        """How many there are in a measurement."""
        pace = PACES[self.pace]
        if not pace.every:
            return INSTANT_CALLS
        return self.at_once * max(1, round(SECONDS / (pace.every * pace.chunks)))


ROWS = [Row(pace, workers, at_once) for workers in ("threads", "tasks") for pace in PACES for at_once in AT_ONCE]
