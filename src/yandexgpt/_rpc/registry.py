"""The channels of a client, and the calls in flight on them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from yandexgpt._concurrency import fork_safety
from yandexgpt._concurrency.threads import AutoResetEvent
from yandexgpt._concurrency.weak_set import LockFreeWeakSet
from yandexgpt._rpc.channel_pool import ChannelPool
from yandexgpt._rpc.channels import inherited, open_channel

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
    """What a client shares with those that come of it by ``with_options``: its channels, and the calls on them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pools: dict[Endpoint, ChannelPool] = {}
        self.closed = False
        self.in_flight: LockFreeWeakSet[Call] = LockFreeWeakSet()
        self.pauses: dict[AutoResetEvent, ClientState] = {}
        self.batches: dict[_Cancellable, ClientState] = {}
        self.raw_channels: list[grpc.Channel] = []
        fork_safety.register(self)

    def before_fork(self) -> bool:
        return bool(self.in_flight)

    def after_fork(self) -> None:
        """The parent's calls and channels are not the child's."""
        for call in self.in_flight:
            call.cancel_hook = None  # gRPC's own locks may be held by a thread that the child does not have
        for pool in self._pools.values():
            pool.after_fork()
        self.in_flight = LockFreeWeakSet()
        self.pauses = {}
        self.batches = {}
        inherited.extend(self.raw_channels)
        self.raw_channels = []

    def pool(self, endpoint: Endpoint) -> ChannelPool:
        """The channels to an endpoint."""
        pool = self._pools.get(endpoint)
        if pool is None:
            settings = self._settings
            opened = ChannelPool(
                partial(open_channel, endpoint, settings.channel_options, interceptors=settings.interceptors)
            )
            pool = self._pools.setdefault(endpoint, opened)
            if self.closed:
                pool.close()
        return pool

    def wait(self, call: Call, event: AutoResetEvent, timeout: float | None) -> bool:
        """Wait until the event is set, or the call is cancelled.

        Raises:
            CancelledError: the call was cancelled.
        """
        call.cancel_hook = event.set
        is_set = not call.cancelled and event.wait(timeout)
        call.cancel_hook = None
        if call.cancelled:
            raise call.cancelled_locally()
        return is_set

    def cancel(self, state: ClientState | None = None) -> None:
        """End the calls that are under way, and the waits between calls, or those of one client."""
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
        """End the calls that are under way, and the connections."""
        self.closed = True
        self.cancel()
        for pool in list(self._pools.values()):
            for pooled in pool.close():
                pooled.close()
        while self.raw_channels:
            self.raw_channels.pop().close()
