"""Who closed an iterator: whoever else reads it must not take that for its end."""

from __future__ import annotations

import weakref

__all__ = ["Closing"]


class Closing:
    """By whom an iterator was closed before its end: a thread or a task."""

    __slots__ = ("_by",)

    def __init__(self) -> None:
        self._by: weakref.ref[object] | None = None

    def closed(self, by: object) -> None:
        """It was closed, for the first time or again."""
        if self._by is None:
            self._by = weakref.ref(by)

    def cuts_off(self, reader: object) -> bool:
        """Whether somebody else than this reader has closed it."""
        return self._by is not None and self._by() is not reader
