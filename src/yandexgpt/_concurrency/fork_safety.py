"""What happens to clients when the process forks.

The child has none of the parent's threads, so locks that those held, connections that they served, and whatever they
were doing inside gRPC are made anew there, or are out of use.
"""

from __future__ import annotations

import gc
import os

from yandexgpt._concurrency.weak_registry import WeakRegistry
from yandexgpt.errors import ConfigurationError

__all__ = ["Forkable", "check", "collect_before_fork", "register", "unusable"]


class Forkable:
    """Something that does not survive a fork as it is."""

    def before_fork(self) -> bool:
        """Called in the parent. Returns whether a call is under way inside gRPC, which the child then cannot use."""
        return False

    def calls_in_flight(self) -> bool:
        """Called in the child, before :meth:`after_fork`: whether a call was in flight at the moment of the fork.

        Another thread may have begun one after :meth:`before_fork`. The child has a copy of the registers as they were.
        """
        return False

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there."""
        raise NotImplementedError


_registered: WeakRegistry[Forkable] = WeakRegistry()
_calls_were_under_way = False
_unusable = False
_leaves_cycles = False


def register(item: Forkable) -> None:
    """Have the item told of forks for as long as it lives."""
    _registered.add(item)


def unusable() -> bool:
    """Whether gRPC cannot be used in this process: it was forked while calls were in flight in its parent."""
    return _unusable


def check() -> None:
    """Refuse to use gRPC in a process where it would hang or crash.

    Raises:
        ConfigurationError: this process was forked while calls were under way in its parent.
    """
    if _unusable:
        raise ConfigurationError(
            "this process was forked while calls were in flight in its parent, and gRPC cannot be used in such a "
            "child: fork before the calls begin, or start processes by multiprocessing's spawn or forkserver"
        )


def collect_before_fork() -> None:
    """Have garbage collected before the next fork: what must not be there then may be in reference cycles."""
    global _leaves_cycles
    _leaves_cycles = True


def _before_fork() -> None:
    global _calls_were_under_way, _leaves_cycles
    _calls_were_under_way = any([item.before_fork() for item in _registered])  # noqa: C419  (all are to be called)
    if _leaves_cycles and not _calls_were_under_way:
        _leaves_cycles = False
        gc.collect()


def _after_fork() -> None:
    global _unusable
    _unusable = _unusable or _calls_were_under_way or any(item.calls_in_flight() for item in _registered)
    for item in _registered:
        item.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
