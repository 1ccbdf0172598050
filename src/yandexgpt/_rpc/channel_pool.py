"""Pools of channels, and the choice of a channel for each call."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from yandexgpt._concurrency.threads import AutoResetEvent, run_in_thread
from yandexgpt._concurrency.weak_set import LockFreeWeakSet
from yandexgpt._rpc.channels import STREAMS_PER_CHANNEL, channels_of_parent, grpc_channel
from yandexgpt._rpc.interceptors import AttemptRegistry
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.methods import Method

__all__ = ["ChannelPool", "PooledChannel"]

R = TypeVar("R")


LOCK_TIMEOUT = 0.5
"""Seconds after which a lock of gRPC is considered never released. gRPC holds its locks for microseconds."""


class PooledChannel:
    """A channel and the calls on it. The channel is opened for the first call.

    Attributes:
        calls: the calls that count against the limit of the channel.
        attempts: the attempts in flight on the channel, for the interceptors of this package.
    """

    def __init__(self, open_channel: Callable[[AttemptRegistry], Any]) -> None:
        self.attempts = AttemptRegistry()
        self._open = open_channel
        self._channel_slot: dict[str, Any] = {}
        self._multicallables: dict[Method, Any] = {}
        self._starting: set[Call] = set()
        self._closed = False
        self.calls: LockFreeWeakSet[object] = LockFreeWeakSet()

    @property
    def channel(self) -> Any:
        """The channel, which is opened if necessary.

        Raises:
            ConfigurationError: the PEM bundle cannot be read.
        """
        channel = self.channel_if_open
        if channel is None:
            new_channel = self._open(self.attempts)
            channel = self._channel_slot.setdefault("channel", new_channel)
            if channel is not new_channel:  # another thread has opened one meanwhile
                new_channel.close()
        return channel

    def multicallable(self, method: Method) -> Any:
        """Return the multicallable of a method on this channel."""
        multicallable = self._multicallables.get(method)
        if multicallable is None:
            multicallable = self._multicallables[method] = method.of_channel(self.channel)
        return multicallable

    def start(self, call: Call, begin: Callable[..., R], *arguments: Any) -> R:
        """Start a synchronous call, unless the channel is closed: using a closed channel may crash the process.

        No lock is held, because interceptors run here. If another thread calls :meth:`close` meanwhile, this method
        closes the channel at its end.

        Args:
            begin: called with this object and the arguments.

        Raises:
            CancelledError: the client was closed.
        """
        self._starting.add(call)
        try:
            if self._closed:
                raise call.cancelled_error()
            return begin(self, *arguments)
        finally:
            self._starting.discard(call)
            if self._closed:
                self.close()

    @property
    def single_threaded(self) -> bool:
        """Whether no thread of gRPC serves the streams of the channel."""
        channel = grpc_channel(self.channel_if_open)
        return channel is not None and bool(channel._single_threaded_unary_stream)

    def locks_are_free(self, call: Call, *, single_threaded: bool) -> bool:
        """Return whether gRPC's locks are free after an exception such as Ctrl-C inside gRPC's code for a call.

        Another thread tries to acquire them, because they are re-entrant: the interrupted thread would succeed even
        while it holds them.

        Args:
            single_threaded: whether no thread of gRPC serves the call.
        """
        channel, rpc = grpc_channel(self.channel_if_open), call.rpc
        if channel is None or not (single_threaded or hasattr(rpc, "_state")):
            return False
        acquired = AutoResetEvent()

        def acquire_locks() -> None:
            if not single_threaded:  # gRPC's thread for the channel acquires this lock
                with rpc._state.condition:
                    pass
            with contextlib.suppress(ValueError):  # the channel is closed
                channel._channel.check_connectivity_state(False)
            acquired.set()

        run_in_thread(acquire_locks)
        return acquired.wait(LOCK_TIMEOUT)

    @property
    def channel_if_open(self) -> Any:
        """The channel, or None if it was not opened yet."""
        return self._channel_slot.get("channel")

    def close(self) -> None:
        """Close a synchronous channel: now, or when the calls that are being started have started. Idempotent."""
        self._closed = True
        if not self._starting and self.channel_if_open is not None:
            self.channel_if_open.close()


class ChannelPool:
    """The channels to one endpoint. A call uses the first channel with capacity; if there is none, another is opened.

    The first channel is filled before the second, so that connections opened for a burst of calls become idle again.
    The pool is lock-free: a call joins a channel first, and then checks whether the channel had capacity.

    Args:
        open_channel: opens a channel, with the registry of its attempts for the interceptors of this package.
    """

    def __init__(self, open_channel: Callable[[AttemptRegistry], Any]) -> None:
        self._open = open_channel
        self._channels: dict[int, PooledChannel] = {}
        self._closed = False

    def after_fork(self) -> None:
        """Forget the connections of the parent: the child opens its own."""
        channels_of_parent.extend(self._channels.values())
        self._channels = {}

    def acquire(self, call: object) -> PooledChannel:
        """Return a channel with capacity for the call. To release it, discard the call from its ``calls``.

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
        """Start no further calls on a channel. It is closed when the calls on it have ended."""
        for number in list(self._channels):
            if self._channels.get(number) is pooled:
                self._channels.pop(number, None)

    def handle_interrupt(self, pooled: PooledChannel, call: Call, *, streamed: bool) -> None:
        """Evict a channel after an exception such as Ctrl-C inside gRPC's code, unless gRPC's locks are free.

        The exception may have left a lock acquired. Then other calls on the channel would deadlock, and so would
        closing it or dropping the last reference to it. Such a channel is kept alive until the process exits.
        """
        import ctypes  # rarely needed

        kept_alive = ctypes.py_object(pooled)
        ctypes.pythonapi.Py_IncRef(kept_alive)  # a global variable would drop its reference at interpreter exit
        self.evict(pooled)
        single_threaded = streamed and pooled.single_threaded
        if pooled.locks_are_free(call, single_threaded=single_threaded):
            if call.rpc is not None:
                self._restore(pooled)
            ctypes.pythonapi.Py_DecRef(kept_alive)
        if call.rpc is None and not pooled.calls:
            # gRPC may have started the call, and only closing the channel cancels it now. If a lock was left acquired,
            # only this thread can acquire it. But closing waits for gRPC's thread, if there is one, and that thread may
            # wait for the lock.
            if single_threaded:
                pooled.close()
            else:
                run_in_thread(pooled.close)

    def _restore(self, pooled: PooledChannel) -> None:
        for number in itertools.count():
            if self._channels.setdefault(number, pooled) is pooled:
                break
        if self._closed:  # by a thread that did not see this channel
            pooled.close()

    def close(self) -> list[PooledChannel]:
        """Start no further calls.

        Returns:
            The channels, which the caller must close.
        """
        self._closed = True
        return list(self._channels.values())
