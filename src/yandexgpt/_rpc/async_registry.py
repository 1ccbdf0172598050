"""The channels of an asynchronous client in each event loop, and the calls in flight on them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from yandexgpt._concurrency import fork_safety
from yandexgpt._concurrency.event_loops import threadsafe_callback, wait_for_event
from yandexgpt._concurrency.weak_set import LockFreeWeakSet
from yandexgpt._rpc.channel_pool import ChannelPool
from yandexgpt._rpc.channels import inherited, keep_core, open_aio_channel

if TYPE_CHECKING:
    from yandexgpt._config import Settings
    from yandexgpt._endpoint import Endpoint
    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.client_state import ClientState

__all__ = ["SETTLING_SECONDS", "AsyncChannelRegistry", "cancel_rpc"]

logger = logging.getLogger("yandexgpt")

SETTLING_SECONDS = 0.25
"""How long closing a client waits at most for gRPC's last word on calls that were given up."""


FREEING_SECONDS = 1.0
"""How long a fork waits at most for gRPC's last word on calls that closed event loops have left."""


CLOSING_SECONDS = 5.0
"""How long to wait for another event loop to close its channels; it may be busy, or end."""


LOOK_AGAIN_SECONDS = 0.05
"""How often to look whether that loop still runs."""


class _HoldsStubs(Protocol):
    def forget_raw(self) -> None: ...


class AsyncChannelRegistry(fork_safety.ForkAware):
    """What a client shares with those that come of it by ``with_options``: its channels, and the calls on them.

    A channel of ``grpc.aio`` belongs to the event loop that it was opened in, so each loop has its own.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loops: dict[asyncio.AbstractEventLoop, dict[Endpoint, ChannelPool]] = {}
        self.closed = False
        self.in_flight: LockFreeWeakSet[Call] = LockFreeWeakSet()
        self.pauses: dict[Callable[[], Any], ClientState] = {}
        self.raw_channels: list[tuple[grpc.aio.Channel, asyncio.AbstractEventLoop]] = []
        self.rpcs: dict[asyncio.AbstractEventLoop, LockFreeWeakSet[Any]] = {}
        """gRPC's calls that are not freed yet, by their loops."""
        self.invokers: LockFreeWeakSet[_HoldsStubs] = LockFreeWeakSet()
        fork_safety.register(self)

    def before_fork(self) -> bool:
        """Let go of the channels: while there is one, a thread of grpc.aio is inside gRPC, which no child survives.

        The parent opens others with its next call.
        """
        if any(not call.loop_is_closed for call in self.in_flight):
            return True
        if self._loops or self.raw_channels or self.rpcs:
            keep_core()
            self._loops.clear()
            self.raw_channels.clear()
            for invoker in self.invokers:
                invoker.forget_raw()
            gc.collect()  # what refers to a channel may be in cycles
            if self._give_up_closed_loops():
                freeing = threading.Thread(target=asyncio.run, args=(self._free(),), name="yandexgpt-free")
                freeing.start()
                freeing.join()
        return self._give_up_closed_loops()

    def _give_up_closed_loops(self) -> bool:
        """Cancel what was left in event loops that are closed, and forget their channels.

        Returns:
            Whether gRPC still holds some of it: until an event loop, any, has heard the end of the calls.
        """
        for call in self.in_flight:
            generator = None if call.generator is None else call.generator()
            if call.loop_is_closed and generator is not None and not generator.ag_running:
                # Somebody keeps the stream, and it would keep gRPC's call. To close it takes no event loop.
                with contextlib.suppress(StopIteration, RuntimeError):
                    generator.aclose().send(None)
        for loop in {*list(self._loops), *list(self.rpcs)}:
            if loop.is_closed():
                self._loops.pop(loop, None)
                # Never to run again, these tasks wait for gRPC, which would wake them, fail, and keep all it has.
                for left in (*asyncio.all_tasks(loop), *self.rpcs.get(loop, ())):
                    with contextlib.suppress(RuntimeError):  # it is cancelled, and cannot tell its event loop
                        left.cancel()
                if not len(self.rpcs.get(loop, ())):
                    self.rpcs.pop(loop, None)
        return any(loop.is_closed() for loop in list(self.rpcs))

    async def _free(self) -> None:
        """Hear the end of the calls that closed event loops have left, in a loop made for that."""
        channel = grpc.aio.insecure_channel("localhost:1")  # never connected: it lets this loop hear
        end = time.monotonic() + FREEING_SECONDS
        while self._give_up_closed_loops() and time.monotonic() < end:
            await asyncio.sleep(FREEING_SECONDS / 100)
            gc.collect()
        await channel.close()

    def after_fork(self) -> None:
        """The parent's calls and channels are not the child's."""
        for pools in self._loops.values():
            for pool in pools.values():
                pool.after_fork()
        self.in_flight = LockFreeWeakSet()
        self.rpcs = {}
        self.pauses = {}
        inherited.extend(channel for channel, _ in self.raw_channels)
        self.raw_channels = []

    def pool(self, endpoint: Endpoint) -> ChannelPool:
        """The running loop's channels to an endpoint."""
        loop = asyncio.get_running_loop()
        endpoints = self._loops.get(loop)
        if endpoints is None:
            self._give_up_closed_loops()
            endpoints = self._loops[loop] = {}
        pool = endpoints.get(endpoint)
        if pool is None:
            settings = self._settings
            pool = endpoints[endpoint] = ChannelPool(
                partial(open_aio_channel, endpoint, settings.channel_options, interceptors=settings.interceptors)
            )
        return pool

    def add_rpc(self, rpc: Any) -> None:
        """gRPC has made a call, in the running loop."""
        self.rpcs.setdefault(asyncio.get_running_loop(), LockFreeWeakSet()).add(rpc)

    def enter(self, call: Call) -> None:
        """A call begins, in the running loop."""
        call.loop = asyncio.get_running_loop()
        self.in_flight.add(call)

    async def wait(self, call: Call, event: asyncio.Event, timeout: float | None) -> bool:
        """Wait for the event, or for the end of the call by somebody else's hand.

        Raises:
            CancelledError: the call was cancelled.
        """
        call.cancel_hook = threadsafe_callback(event.set)
        if not call.cancelled:
            await wait_for_event(event, timeout)
        call.cancel_hook = None
        if call.cancelled:
            raise call.cancelled_locally()
        return event.is_set()

    def cancel(self, state: ClientState | None = None) -> None:
        """End the calls that are under way, and the waits between calls, or those of one client."""
        for call in self.in_flight:
            if (state is None or call.state is state) and not call.loop_is_closed:
                with contextlib.suppress(RuntimeError):  # its event loop has closed: nobody is waiting there any more
                    call.cancel()
        for wake in list(self.pauses):
            if state is None or self.pauses.get(wake) is state:
                with contextlib.suppress(RuntimeError):  # as above
                    wake()

    async def close(self) -> None:
        """End the calls that are under way, and the connections, in whichever loop they are."""
        self.closed = True
        self.cancel()
        self._give_up_closed_loops()
        for loop in list(self.rpcs):
            for rpc in self.rpcs.get(loop, ()):  # closing the channel ends it too, but not with every grpcio
                with contextlib.suppress(RuntimeError):  # as above
                    loop.call_soon_threadsafe(cancel_rpc, rpc)
        channels = [
            (pooled.opened, loop)
            for loop in list(self._loops)
            for pool in list(self._loops.get(loop, {}).values())
            for pooled in pool.close()
            if pooled.opened is not None
        ]
        while self.raw_channels:
            channels.append(self.raw_channels.pop())
        here = asyncio.get_running_loop()
        for channel, loop in channels:
            try:
                if loop is here:
                    await channel.close()
                elif loop.is_running():
                    await _close_elsewhere(channel, loop)
            except Exception:  # noqa: PERF203  (grpc.aio's own, over what an interceptor has handed out)
                logger.warning("a connection could not be closed", exc_info=True)
        # What gRPC still has to say of calls that were cancelled must find this loop, or it is never freed.
        end = time.monotonic() + SETTLING_SECONDS
        while len(self.rpcs.get(here, ())) and time.monotonic() < end:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(SETTLING_SECONDS / 50)


def cancel_rpc(rpc: Any) -> None:
    try:
        rpc.cancel()
    except Exception as error:  # noqa: BLE001  (an interceptor's, which its caller has got already: grpcio 1.71)
        logger.debug("a call could not be cancelled: %r", error)


async def _close_elsewhere(channel: grpc.aio.Channel, loop: asyncio.AbstractEventLoop) -> None:
    """Close a channel in its own loop, which goes on in another thread, unless that loop ends before."""
    closed = Future[None]()
    closed.set_running_or_notify_cancel()  # it cannot be cancelled
    tasks: list[asyncio.Task[None]] = []

    async def close() -> None:
        try:
            await channel.close()
        finally:
            closed.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop has closed
        loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(close())))
        waiting = asyncio.wrap_future(closed)
        end = time.monotonic() + CLOSING_SECONDS
        while not waiting.done() and loop.is_running() and time.monotonic() < end:
            await asyncio.wait({waiting}, timeout=LOOK_AGAIN_SECONDS)
