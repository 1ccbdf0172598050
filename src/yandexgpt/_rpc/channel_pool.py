"""Which channel a call goes over."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from yandexgpt._concurrency.threads import AutoResetEvent, run_in_thread
from yandexgpt._concurrency.weak_set import LockFreeWeakSet
from yandexgpt._rpc.channels import STREAMS_PER_CHANNEL, grpc_channel, inherited
from yandexgpt._rpc.interceptors import Attempts
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.methods import Method

__all__ = ["ChannelPool", "PooledChannel"]

R = TypeVar("R")


LOCKED_SECONDS = 0.5
"""After how long a lock of gRPC's counts as left taken. gRPC itself holds one for microseconds."""


class PooledChannel:
    """A channel, with the calls on it. It is opened when the first of them begins.

    Attributes:
        calls: what counts against the number of calls that it carries.
        attempts: those on it, for interceptors.
    """

    def __init__(self, open_channel: Callable[[Attempts], Any]) -> None:
        self.attempts = Attempts()
        self._open = open_channel
        self._opened: dict[str, Any] = {}
        self._multicallables: dict[Method, Any] = {}
        self._starting: set[Call] = set()
        self._closed = False
        self.calls: LockFreeWeakSet[object] = LockFreeWeakSet()

    @property
    def channel(self) -> Any:
        """The channel itself.

        Raises:
            ConfigurationError: the PEM bundle cannot be read.
        """
        channel = self.opened
        if channel is None:
            opened = self._open(self.attempts)
            channel = self._opened.setdefault("channel", opened)
            if channel is not opened:  # another thread was quicker
                opened.close()
        return channel

    def multicallable(self, method: Method) -> Any:
        """What makes calls of a method on this channel."""
        multicallable = self._multicallables.get(method)
        if multicallable is None:
            multicallable = self._multicallables[method] = method.of_channel(self.channel)
        return multicallable

    def start(self, call: Call, begin: Callable[..., R], *arguments: Any) -> R:
        """Begin a synchronous call, unless the channel is closed: to use it then may crash the process.

        No lock is held, because interceptors run in here. Whoever closes the channel meanwhile leaves it to this.

        Args:
            begin: called with this object and the arguments.

        Raises:
            CancelledError: the client was closed.
        """
        self._starting.add(call)
        try:
            if self._closed:
                raise call.cancelled_locally()
            return begin(self, *arguments)
        finally:
            self._starting.discard(call)
            if self._closed:
                self.close()

    @property
    def single_threaded(self) -> bool:
        """Whether no thread of gRPC's has to do with a stream on the channel."""
        channel = grpc_channel(self.opened)
        return channel is not None and bool(channel._single_threaded_unary_stream)

    def is_unharmed(self, call: Call, *, alone: bool) -> bool:
        """Whether gRPC's locks are free, after an exception such as Ctrl-C in the middle of its code for a call.

        The thread that was interrupted may take them again, if it holds them: this asks another.

        Args:
            alone: no thread of gRPC's has to do with the call.
        """
        channel, rpc = grpc_channel(self.opened), call.rpc
        if channel is None or not (alone or hasattr(rpc, "_state")):
            return False
        looked = AutoResetEvent()

        def look() -> None:
            if not alone:  # gRPC's thread for the channel takes this one
                with rpc._state.condition:
                    pass
            with contextlib.suppress(ValueError):  # the channel is closed
                channel._channel.check_connectivity_state(False)
            looked.set()

        run_in_thread(look)
        return looked.wait(LOCKED_SECONDS)

    @property
    def opened(self) -> Any:
        """The channel, if it is open; else None."""
        return self._opened.get("channel")

    def close(self) -> None:
        """Close a synchronous channel: now, or when the calls that are just beginning have begun. Idempotent."""
        self._closed = True
        if not self._starting and self.opened is not None:
            self.opened.close()


class ChannelPool:
    """The channels to one endpoint: a call takes the first that has room, and another is opened if none has.

    Filling the first before the second lets connections that a burst has opened fall idle again. There is no lock: a
    call joins first, and looks then whether there was room.

    Args:
        open_channel: opens one, with what its interceptors are to know of the attempts on it.
    """

    def __init__(self, open_channel: Callable[[Attempts], Any]) -> None:
        self._open = open_channel
        self._channels: dict[int, PooledChannel] = {}
        self._closed = False

    def after_fork(self) -> None:
        """The parent's connections are not the child's, which opens its own."""
        inherited.extend(self._channels.values())
        self._channels = {}

    def acquire(self, call: object) -> PooledChannel:
        """A channel with room for the call, which gives it back by leaving its ``calls``.

        Raises:
            ConfigurationError: the client was closed.
        """
        for number in itertools.count():
            pooled = self._channels.get(number) or self._channels.setdefault(number, PooledChannel(self._open))
            pooled.calls.add(call)
            if self._closed:
                raise ConfigurationError("the client is closed")
            if len(pooled.calls) <= STREAMS_PER_CHANNEL:
                return pooled
            pooled.calls.discard(call)
        raise AssertionError("whole numbers have come to an end")

    def evict(self, pooled: PooledChannel) -> None:
        """Begin no further calls on a channel; it is closed when those on it have ended."""
        for number in list(self._channels):
            if self._channels.get(number) is pooled:
                self._channels.pop(number, None)

    def interrupted(self, pooled: PooledChannel, call: Call, *, streamed: bool) -> None:
        """An exception such as Ctrl-C came in the middle of gRPC's code, and may have left one of its locks taken.

        Other calls on that channel would then wait for ever, and so would whoever closes it, or drops the last
        reference to it: it is kept to the end of the process, unless the locks turn out to be free.
        """
        import ctypes  # seldom needed

        kept = ctypes.py_object(pooled)
        ctypes.pythonapi.Py_IncRef(kept)  # a global variable would let go of it as the interpreter ends
        self.evict(pooled)
        alone = streamed and pooled.single_threaded
        if pooled.is_unharmed(call, alone=alone):
            if call.rpc is not None:
                self._put_back(pooled)
            ctypes.pythonapi.Py_DecRef(kept)
        if call.rpc is None and not pooled.calls:
            # gRPC may have begun the call, and nothing else cancels it now. Only this thread gets past the lock; but
            # closing waits for gRPC's thread, if there is one, and that one may wait for the lock.
            if alone:
                pooled.close()
            else:
                run_in_thread(pooled.close)

    def _put_back(self, pooled: PooledChannel) -> None:
        for number in itertools.count():
            if self._channels.setdefault(number, pooled) is pooled:
                break
        if self._closed:  # by somebody who did not see it
            pooled.close()

    def close(self) -> list[PooledChannel]:
        """Begin no further calls.

        Returns:
            The channels, to be closed.
        """
        self._closed = True
        return list(self._channels.values())
