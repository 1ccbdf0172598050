"""Registers of objects that do not keep them alive, and that need no lock."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["WeakRegistry"]

T = TypeVar("T")


class WeakRegistry(Generic[T]):
    """A set of objects, in which those that were collected are no longer.

    There is no lock: every change is one step of a built-in set, so threads, signal handlers and finalizers may make it
    at any moment. Whoever is interrupted before it removes itself is removed when it is collected.
    """

    def __init__(self) -> None:
        self._references: set[weakref.ref[T]] = set()

    def add(self, item: T) -> None:
        """Put it in, once."""
        self._references.add(weakref.ref(item, self._references.discard))

    def discard(self, item: T) -> None:
        """Take it out, if it is in."""
        self._references.discard(weakref.ref(item))

    def __iter__(self) -> Iterator[T]:
        """Those that were in when the iteration began, and still live; none is kept alive but the one at hand."""
        for reference in list(self._references):
            item = reference()
            if item is not None:
                yield item

    def __len__(self) -> int:
        return len(self._references)
