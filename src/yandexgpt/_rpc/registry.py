"""The channels of a synchronous client, and the calls in flight on them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from yandexgpt._concurrency import fork_safety
from yandexgpt._concurrency.threads import AutoResetEvent
from yandexgpt._concurrency.weak_set import LockFreeWeakSet
from yandexgpt._rpc.channel_pool import ChannelPool
from yandexgpt._rpc.channels import channels_of_parent, open_channel

if TYPE_CHECKING:
    import grpc

    from yandexgpt._config import Settings
    from yandexgpt._endpoint import Endpoint
    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.client_state import ClientState

__all__ = ["ChannelRegistry"]


class _Cancellable(Protocol):
    def cancel(self) -> object: ...


class ChannelRegistry(fork_safety.ForkAware):
    """The channels, and the calls on them, of a client and of those that its ``with_options`` returned."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pools: dict[Endpoint, ChannelPool] = {}
        self.closed = False
        self.in_flight: LockFreeWeakSet[Call] = LockFreeWeakSet()
        self.pauses: dict[AutoResetEvent, ClientState] = {}
        self.batches: dict[_Cancellable, ClientState] = {}
        self.raw_channels: list[grpc.Channel] = []
        fork_safety.register(self)

    def calls_in_flight(self) -> bool:
        return bool(self.in_flight)

    def after_fork(self) -> None:
        """Forget the calls and channels of the parent."""
        for call in self.in_flight:
            call.cancel_hook = None  # gRPC's locks may be held by a thread that does not exist in the child
        for pool in self._pools.values():
            pool.after_fork()
        self.in_flight = LockFreeWeakSet()
        self.pauses = {}
        self.batches = {}
        channels_of_parent.extend(self.raw_channels)
        self.raw_channels = []

    def pool(self, endpoint: Endpoint) -> ChannelPool:
        """Return the channels to an endpoint."""
        pool = self._pools.get(endpoint)
        if pool is None:
            settings = self._settings
            new_pool = ChannelPool(
                partial(open_channel, endpoint, settings.channel_options, interceptors=settings.interceptors)
            )
            pool = self._pools.setdefault(endpoint, new_pool)
            if self.closed:
                pool.close()
        return pool

    def wait(self, call: Call, event: AutoResetEvent, timeout: float | None) -> bool:
        """Wait until the event is set, or the call is cancelled.

        Args:
            timeout: seconds, or None for no limit.

        Returns:
            Whether the event was set.

        Raises:
            CancelledError: the call was cancelled.
        """
        call.cancel_hook = event.set
        is_set = not call.cancelled and event.wait(timeout)
        call.cancel_hook = None
        if call.cancelled:
            raise call.cancelled_error()
        return is_set

    def cancel(self, state: ClientState | None = None) -> None:
        """Cancel the calls in flight, the waits between calls, and the batches: all, or those of one client."""
        for call in self.in_flight:
            if state is None or call.state is state:
                call.cancel()
        for event in list(self.pauses):
            if state is None or self.pauses.get(event) is state:
                event.set()
        for batch in list(self.batches):
            if state is None or self.batches.get(batch) is state:
                batch.cancel()

    def close(self) -> None:
        """Cancel the calls in flight and close the connections."""
        self.closed = True
        self.cancel()
        for pool in list(self._pools.values()):
            for pooled in pool.close():
                pooled.close()
        while self.raw_channels:
            self.raw_channels.pop().close()
