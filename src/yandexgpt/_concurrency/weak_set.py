"""A set of weak references that needs no lock."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["LockFreeWeakSet"]

T = TypeVar("T")


class LockFreeWeakSet(Generic[T]):
    """A set of weak references. A garbage-collected object is removed from it.

    No lock is needed: every change is one atomic operation of a built-in set, so threads, signal handlers and
    finalizers may make it at any moment. If a caller is interrupted before it removes an object, the object is removed
    when it is garbage-collected.
    """

    def __init__(self) -> None:
        self._references: set[weakref.ref[T]] = set()

    def add(self, item: T) -> None:
        """Add an object. Idempotent."""
        self._references.add(weakref.ref(item, self._references.discard))

    def discard(self, item: T) -> None:
        """Remove an object, if it is present."""
        self._references.discard(weakref.ref(item))

    def __iter__(self) -> Iterator[T]:
        """Iterate over the objects that were present at the start and are still alive.

        Only the current object is kept alive by the iteration.
        """
        for reference in list(self._references):
            item = reference()
            if item is not None:
                yield item

    def __len__(self) -> int:
        return len(self._references)
