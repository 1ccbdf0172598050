"""The channels of an asynchronous client in each event loop, and the calls in flight on them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from yandexgpt._concurrency import fork_safety
from yandexgpt._concurrency.event_loops import run_in_loop, threadsafe_callback, wait_for_event
from yandexgpt._concurrency.weak_set import LockFreeWeakSet
from yandexgpt._rpc.channel_pool import ChannelPool
from yandexgpt._rpc.channels import channels_of_parent, keep_grpc_core_alive, open_aio_channel

if TYPE_CHECKING:
    from yandexgpt._config import Settings
    from yandexgpt._endpoint import Endpoint
    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.client_state import ClientState

__all__ = ["CANCEL_DRAIN_TIMEOUT", "AsyncChannelRegistry", "cancel_rpc"]

logger = logging.getLogger("yandexgpt")

CANCEL_DRAIN_TIMEOUT = 0.25
"""Seconds that closing a client waits at most for the final events of cancelled calls from gRPC."""


FORK_DRAIN_TIMEOUT = 1.0
"""Seconds that a fork waits at most for the final events of calls whose event loop is closed."""


class _StubHolder(Protocol):
    def drop_raw(self) -> None: ...


class AsyncChannelRegistry(fork_safety.ForkAware):
    """The channels, and the calls on them, of a client and of those that its ``with_options`` returned.

    A channel of ``grpc.aio`` belongs to the event loop that opened it, so each loop has its own channels.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loops: dict[asyncio.AbstractEventLoop, dict[Endpoint, ChannelPool]] = {}
        self.closed = False
        self.in_flight: LockFreeWeakSet[Call] = LockFreeWeakSet()
        self.pauses: dict[Callable[[], Any], ClientState] = {}
        self.raw_channels: list[tuple[grpc.aio.Channel, asyncio.AbstractEventLoop]] = []
        self.rpcs: dict[asyncio.AbstractEventLoop, LockFreeWeakSet[Any]] = {}
        """gRPC's calls that are not freed yet, by event loop."""
        self.invokers: LockFreeWeakSet[_StubHolder] = LockFreeWeakSet()
        fork_safety.register(self)

    def before_fork(self) -> bool:
        """Drop the channels: while one exists, a thread of grpc.aio is inside gRPC, which breaks gRPC in the child.

        The parent opens new ones with its next call.
        """
        if self.calls_in_flight():
            return True
        if self._loops or self.raw_channels or self.rpcs:
            keep_grpc_core_alive()
            self._loops.clear()
            self.raw_channels.clear()
            for invoker in self.invokers:
                invoker.drop_raw()
            gc.collect()  # objects that refer to a channel may be in reference cycles
            if self._discard_closed_loops():
                draining = threading.Thread(target=asyncio.run, args=(self._drain(),), name="yandexgpt-free")
                draining.start()
                draining.join()
        return self._discard_closed_loops()

    def calls_in_flight(self) -> bool:
        return any(not call.loop_is_closed for call in self.in_flight)

    def _discard_closed_loops(self) -> bool:
        """Cancel the calls and tasks of closed event loops, and drop the channels of these loops.

        Returns:
            Whether gRPC still holds some of the calls: it does until an event loop, any, receives their final events.
        """
        for call in self.in_flight:
            generator = None if call.generator is None else call.generator()
            if call.loop_is_closed and generator is not None and not generator.ag_running:
                # The application still refers to the stream, which refers to gRPC's call. No event loop is needed to
                # close it.
                with contextlib.suppress(StopIteration, RuntimeError):
                    generator.aclose().send(None)
        for loop in {*list(self._loops), *list(self.rpcs)}:
            if loop.is_closed():
                self._loops.pop(loop, None)
                # These tasks never run again. gRPC would try to wake them, fail, and keep all objects of their calls.
                for waiting in (*asyncio.all_tasks(loop), *self.rpcs.get(loop, ())):
                    with contextlib.suppress(RuntimeError):  # it is cancelled, but cannot notify its event loop
                        waiting.cancel()
                    del waiting  # CPython 3.10 may keep this frame alive: see AsyncInvoker.messages
                if not len(self.rpcs.get(loop, ())):
                    self.rpcs.pop(loop, None)
        return any(loop.is_closed() for loop in list(self.rpcs))

    async def _drain(self) -> None:
        """Receive the final events of calls whose event loop is closed, in a temporary event loop."""
        channel = grpc.aio.insecure_channel("localhost:1")  # never connected: it makes gRPC send events to this loop
        end = time.monotonic() + FORK_DRAIN_TIMEOUT
        while self._discard_closed_loops() and time.monotonic() < end:
            await asyncio.sleep(FORK_DRAIN_TIMEOUT / 100)
            gc.collect()
        await channel.close()

    def after_fork(self) -> None:
        """Forget the calls and channels of the parent."""
        for pools in self._loops.values():
            for pool in pools.values():
                pool.after_fork()
        self.in_flight = LockFreeWeakSet()
        self.rpcs = {}
        self.pauses = {}
        channels_of_parent.extend(channel for channel, _ in self.raw_channels)
        self.raw_channels = []

    def pool(self, endpoint: Endpoint) -> ChannelPool:
        """Return the channels to an endpoint in the running event loop."""
        loop = asyncio.get_running_loop()
        endpoints = self._loops.get(loop)
        if endpoints is None:
            self._discard_closed_loops()
            endpoints = self._loops[loop] = {}
        pool = endpoints.get(endpoint)
        if pool is None:
            settings = self._settings
            pool = endpoints[endpoint] = ChannelPool(
                partial(open_aio_channel, endpoint, settings.channel_options, interceptors=settings.interceptors)
            )
        return pool

    def add_rpc(self, rpc: Any) -> None:
        """Register a call of gRPC in the running event loop."""
        self.rpcs.setdefault(asyncio.get_running_loop(), LockFreeWeakSet()).add(rpc)

    def add_call(self, call: Call) -> None:
        """Register a call that starts in the running event loop."""
        call.loop = asyncio.get_running_loop()
        self.in_flight.add(call)

    async def wait(self, call: Call, event: asyncio.Event, timeout: float | None) -> bool:
        """Wait for the event, or until the call is cancelled by another task or thread.

        Args:
            timeout: seconds, or None for no limit.

        Returns:
            Whether the event is set.

        Raises:
            CancelledError: the call was cancelled.
        """
        call.cancel_hook = threadsafe_callback(event.set)
        if not call.cancelled:
            await wait_for_event(event, timeout)
        call.cancel_hook = None
        if call.cancelled:
            raise call.cancelled_error()
        return event.is_set()

    def cancel(self, state: ClientState | None = None) -> None:
        """Cancel the calls in flight and the waits between calls: all, or those of one client."""
        for call in self.in_flight:
            if (state is None or call.state is state) and not call.loop_is_closed:
                with contextlib.suppress(RuntimeError):  # its event loop was closed: no task waits there any more
                    call.cancel()
        for wake in list(self.pauses):
            if state is None or self.pauses.get(wake) is state:
                with contextlib.suppress(RuntimeError):  # as above
                    wake()

    async def close(self) -> None:
        """Cancel the calls in flight and close the connections, in all event loops."""
        self.closed = True
        self.cancel()
        self._discard_closed_loops()
        for loop in list(self.rpcs):
            for rpc in self.rpcs.get(loop, ()):  # some versions of grpcio do not cancel it when the channel is closed
                with contextlib.suppress(RuntimeError):  # as above
                    loop.call_soon_threadsafe(cancel_rpc, rpc)
        channels = [
            (pooled.channel_if_open, loop)
            for loop in list(self._loops)
            for pool in list(self._loops.get(loop, {}).values())
            for pooled in pool.close()
            if pooled.channel_if_open is not None
        ]
        while self.raw_channels:
            channels.append(self.raw_channels.pop())
        running_loop = asyncio.get_running_loop()
        for channel, loop in channels:
            try:
                if loop is running_loop:
                    await channel.close()
                elif loop.is_running():
                    await run_in_loop(loop, channel.close)
            except Exception:  # noqa: PERF203  (grpc.aio fails on some objects that interceptors return)
                logger.warning("a connection could not be closed", exc_info=True)
        # gRPC must deliver the final events of cancelled calls to this loop; if it is closed first, they are not freed.
        end = time.monotonic() + CANCEL_DRAIN_TIMEOUT
        while len(self.rpcs.get(running_loop, ())) and time.monotonic() < end:  # noqa: ASYNC110  (there is no event)
            await asyncio.sleep(CANCEL_DRAIN_TIMEOUT / 50)


def cancel_rpc(rpc: Any) -> None:
    """Cancel a call of gRPC, and log an exception instead of raising it."""
    try:
        rpc.cancel()
    except Exception as error:  # noqa: BLE001  (of an interceptor, and raised to the caller already: grpcio 1.71)
        logger.debug("a call could not be cancelled: %r", error)
