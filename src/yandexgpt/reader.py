"""Who reads an iterator: somebody else may close it, and the reader must not take that for its end."""

from __future__ import annotations

__all__ = ["Reader"]


class Reader:
    """The reader of an iterator, by the number of its thread or task.

    Attributes:
        last: who has read last.
    """

    __slots__ = ("_cut_off", "last")

    def __init__(self) -> None:
        self.last: int | None = None
        self._cut_off: int | None = None

    def closed(self, by: int) -> None:
        """Somebody has closed the iterator before its end."""
        if self.last != by:
            self._cut_off = self.last

    def cut_off(self, who: int) -> bool:
        """Whether somebody else has closed it while this one was reading."""
        return self._cut_off is not None and self._cut_off == who
