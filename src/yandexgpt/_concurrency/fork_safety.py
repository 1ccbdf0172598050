"""What happens to clients when the process forks.

Threads of the parent do not exist in the child. So a lock that such a thread held, a connection that it served and an
operation that it ran inside gRPC are unusable there: they are replaced, or are not used again.
"""

from __future__ import annotations

import gc
import os

from yandexgpt._concurrency.weak_set import LockFreeWeakSet
from yandexgpt.errors import ConfigurationError

__all__ = ["ForkAware", "check", "collect_garbage_before_fork", "grpc_is_unusable", "register"]


class ForkAware:
    """An object with state that must be replaced in the child of a fork."""

    def before_fork(self) -> bool:
        """Prepare for a fork, in the parent.

        Returns:
            Whether a call is in flight inside gRPC: then gRPC cannot be used in the child.
        """
        return self.calls_in_flight()

    def calls_in_flight(self) -> bool:
        """Return whether a call is in flight inside gRPC.

        The child asks again: another thread may have begun one after :meth:`before_fork`, and the child has a copy of
        the parent's state at the moment of the fork.
        """
        return False

    def after_fork(self) -> None:
        """Replace the state, in the child, before any other code runs there."""
        raise NotImplementedError


_registered: LockFreeWeakSet[ForkAware] = LockFreeWeakSet()
_calls_were_in_flight = False
_grpc_is_unusable = False
_must_collect_garbage = False


def register(item: ForkAware) -> None:
    """Call the fork hooks of the object for as long as it is alive. It is held by a weak reference."""
    _registered.add(item)


def grpc_is_unusable() -> bool:
    """Return whether gRPC cannot be used in this process: it was forked while its parent had calls in flight."""
    return _grpc_is_unusable


def check() -> None:
    """Refuse to use gRPC in a process where it would deadlock or crash.

    Raises:
        ConfigurationError: this process was forked while calls were in flight in its parent.
    """
    if _grpc_is_unusable:
        raise ConfigurationError(
            "this process was forked while calls were in flight in its parent, and gRPC cannot be used in such a "
            "child: fork before the calls begin, or start processes by multiprocessing's spawn or forkserver"
        )


def collect_garbage_before_fork() -> None:
    """Run the garbage collector before the next fork: objects that must be freed by then may be in reference cycles."""
    global _must_collect_garbage
    _must_collect_garbage = True


def _before_fork() -> None:
    global _calls_were_in_flight, _must_collect_garbage
    _calls_were_in_flight = any([item.before_fork() for item in _registered])  # noqa: C419  (each must be called)
    if _must_collect_garbage and not _calls_were_in_flight:
        _must_collect_garbage = False
        gc.collect()


def _after_fork() -> None:
    global _grpc_is_unusable
    in_flight = any(item.calls_in_flight() for item in _registered)
    _grpc_is_unusable = _grpc_is_unusable or _calls_were_in_flight or in_flight
    for item in _registered:
        item.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
