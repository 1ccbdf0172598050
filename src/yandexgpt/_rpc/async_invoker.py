"""How the asynchronous client makes its calls: the twin of :mod:`yandexgpt._rpc.invoker`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from grpc.aio import _call

from yandexgpt import errors
from yandexgpt._checks import Metadata
from yandexgpt._concurrency import fork_safety as forks
from yandexgpt._concurrency.weak_registry import Holders
from yandexgpt._config import UNSET, Endpoint, Settings, Unset
from yandexgpt._models import NO_METADATA, ReceivedMetadata
from yandexgpt._rpc import failures
from yandexgpt._rpc.call import CallFactory
from yandexgpt._rpc.channels import (
    Attempts,
    ChannelPool,
    check_interceptors,
    inherited,
    keep_core,
    open_aio_channel,
    went_silent,
)
from yandexgpt._rpc.failures import code_of
from yandexgpt._rpc.iam import IamExchange
from yandexgpt._rpc.methods import GENERATE, TOKENIZE_PROMPT
from yandexgpt._rpc.raw import AsyncRaw
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from yandexgpt._checks import Metadata
    from yandexgpt._concurrency.limiter import Limiter
    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.channels import PooledChannel
    from yandexgpt._rpc.methods import Method

__all__ = ["AsyncDriver"]

logger = logging.getLogger("yandexgpt")

RECHECK_SECONDS = 5.0
"""How long a call waits for others at a time before it looks again: who is collected, or whose event loop is closed,
wakes nobody. Longer than a thread waits, because there may be thousands of tasks."""
INTERCEPTORS_SECONDS = 0.2
"""How long after the deadline of an attempt its interceptors may go on: gRPC's own word comes first if it can."""
SETTLING_SECONDS = 0.25
"""How long closing a client waits at most for gRPC's last word on calls that were given up."""
FREEING_SECONDS = 1.0
"""How long a fork waits at most for gRPC's last word on calls that closed event loops have left."""
CLOSING_SECONDS = 5.0
"""How long to wait for another event loop to close its channels; it may be busy, or end."""
LOOK_AGAIN_SECONDS = 0.05
"""How often to look whether that loop still runs."""


class AsyncConnection(forks.Forkable):
    """What a client shares with those that come of it by ``with_options``: its channels, and the calls on them.

    A channel of ``grpc.aio`` belongs to the event loop that it was opened in, so each loop has its own.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loops: dict[asyncio.AbstractEventLoop, dict[Endpoint, ChannelPool]] = {}
        self.closed = False
        self.calls: Holders[Call] = Holders()
        self.pauses: dict[Callable[[], Any], CallFactory] = {}
        self.raw_channels: list[tuple[grpc.aio.Channel, asyncio.AbstractEventLoop]] = []
        self.rpcs: dict[asyncio.AbstractEventLoop, Holders[Any]] = {}
        """gRPC's calls that are not freed yet, by their loops."""
        self.drivers: Holders[AsyncDriver] = Holders()
        forks.register(self)

    def before_fork(self) -> bool:
        """Let go of the channels: while there is one, a thread of grpc.aio is inside gRPC, which no child survives.

        The parent opens others with its next call.
        """
        if any(not call.over for call in self.calls):
            return True
        if self._loops or self.raw_channels or self.rpcs:
            keep_core()
            self._loops.clear()
            self.raw_channels.clear()
            for driver in self.drivers:
                driver.forget_raw()
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
        for call in self.calls:
            generator = None if call.generator is None else call.generator()
            if call.over and generator is not None and not generator.ag_running:
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
        self.calls = Holders()
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
        self.rpcs.setdefault(asyncio.get_running_loop(), Holders()).add(rpc)

    def enter(self, call: Call) -> None:
        """A call begins, in the running loop."""
        call.loop = asyncio.get_running_loop()
        self.calls.add(call)

    async def wait(self, call: Call, event: asyncio.Event, timeout: float | None) -> bool:
        """Wait for the event, or for the end of the call by somebody else's hand.

        Raises:
            CancelledError: the call was cancelled.
        """
        call.interrupt = from_any_thread(event.set)
        if not call.cancelled:
            await wait_for_event(event, timeout)
        call.interrupt = None
        if call.cancelled:
            raise call.ended_here()
        return event.is_set()

    def cancel(self, factory: CallFactory | None = None) -> None:
        """End the calls that are under way, and the waits between calls, or those of one client."""
        for call in self.calls:
            if (factory is None or call.factory is factory) and not call.over:
                with contextlib.suppress(RuntimeError):  # its event loop has closed: nobody is waiting there any more
                    call.cancel()
        for wake in list(self.pauses):
            if factory is None or self.pauses.get(wake) is factory:
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
                    loop.call_soon_threadsafe(_cancel, rpc)
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


def _cancel(rpc: Any) -> None:
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


class AsyncDriver:
    """Makes the calls of one client.

    Args:
        settings: the client's.
        parent: the driver of the client that this one came from by ``with_options``; what did not change is shared.
    """

    def __init__(self, settings: Settings, parent: AsyncDriver | None) -> None:
        check_interceptors(settings.interceptors, for_aio=True)
        self.settings = settings
        self.calls: CallFactory = CallFactory(settings, parent.calls if parent else None)
        self.owns_connection = parent is None or parent.settings.connection != settings.connection
        self.connection: AsyncConnection = (
            AsyncConnection(settings) if parent is None or self.owns_connection else parent.connection
        )
        self.closed = False
        self._raw: tuple[int, asyncio.AbstractEventLoop, AsyncRaw] | None = None
        self.connection.drivers.add(self)

    def check_open(self) -> None:
        """Refuse to make calls where they cannot be made.

        Raises:
            ConfigurationError: the client is closed, or this process was forked while calls were under way.
        """
        forks.check()
        if self.closed or self.connection.closed:
            raise ConfigurationError("the client is closed")

    def begin(
        self,
        method: Method,
        subject: str,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        metadata: Metadata = (),
        request_id: str | None = None,
    ) -> Call:
        """Begin a call: its deadline runs from now.

        Raises:
            ConfigurationError: as :meth:`check_open`.
            ValueError: an argument has an impossible value.
        """
        self.check_open()
        return self.calls.new(method, subject, timeout, attempt_timeout, metadata, request_id)

    async def close(self) -> None:
        """End what is in flight and close the connection; if that is another client's, end the calls of this one."""
        self.closed = True
        if self.owns_connection:
            await self.connection.close()
        else:
            self.connection.cancel(self.calls)

    async def pause(self, seconds: float) -> None:
        """Wait between two calls; the end of the client ends the wait.

        Raises:
            CancelledError: the client was closed meanwhile.
        """
        event = asyncio.Event()
        wake = from_any_thread(event.set)
        self.connection.pauses[wake] = self.calls
        try:
            if not (self.closed or self.connection.closed):
                await wait_for_event(event, seconds)
        finally:
            self.connection.pauses.pop(wake, None)
        if self.closed or self.connection.closed:
            raise failures.closed_meanwhile(self.settings.operation_endpoint.target)

    async def connect(self, timeout: float | None) -> None:
        """Open the connection to the service, by asking it for its health; whatever it answers, it is there.

        Raises:
            UnavailableError: it was not open in time.
        """
        call = self.begin(GENERATE, "connect", UNSET if timeout is None else timeout)
        self.connection.enter(call)
        pooled = self.connection.pool(call.endpoint).acquire(call)
        try:
            check = pooled.channel.unary_unary("/grpc.health.v1.Health/Check")
            cancellations = times_cancelled()
            rpc = check(b"", timeout=call.remaining(), wait_for_ready=True)
            call.interrupt = from_any_thread(rpc.cancel)
            try:
                await rpc
            except grpc.RpcError as error:
                if call.cancelled:
                    raise call.ended_here() from error
                if code_of(error).name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    raise call.not_connected() from error
            except asyncio.CancelledError:
                rpc.cancel()
                if call.cancelled and times_cancelled() == cancellations:
                    raise call.ended_here() from None
                raise
        finally:
            pooled.calls.discard(call)
            self.connection.calls.discard(call)

    def raw(self) -> AsyncRaw:
        """The generated stubs for this process and the running loop."""
        self.check_open()
        here = os.getpid(), asyncio.get_running_loop()
        if self._raw is None or self._raw[:2] != here:
            self._raw = *here, AsyncRaw(self.settings, self.check_open, self._open_raw_channel)
        return self._raw[2]

    def forget_raw(self) -> None:
        """Let go of the stubs' channels."""
        self._raw = None

    async def unary(self, call: Call, request: Any) -> Any:
        """The one message of a call that has one."""
        async for _ in self.responses(call, request):
            pass
        return call.answer

    async def responses(self, call: Call, request: Any) -> AsyncGenerator[Any, None]:
        """The messages of a call: attempts, until one of them has handed something out."""
        connection, method = self.connection, call.method
        limiter = self.calls.limiter_of(method)
        # What is taken here is known by the call's own name. So it comes back, too, when the event loop is closed
        # without another step of this generator.
        connection.enter(call)
        try:
            self.check_open()  # only now: whoever closes the client sees the call, or the call sees that it is closed
            pool = connection.pool(call.endpoint)
            if call.max_context_tokens is not None:
                await self._count(call, request)
            if limiter is not None:
                await self._acquire(limiter, call)
            while True:
                delay: float | None
                authorization = await self._authorization(call)
                if isinstance(authorization, str):
                    if method.paced and (turn := call.turn()):
                        await connection.wait(call, asyncio.Event(), turn)
                    pooled: PooledChannel | None = None
                    rpc: Any = None
                    last: Any = None
                    watch: _Watch | None = None
                    ended = handing_out = False
                    cancellations = times_cancelled()
                    try:
                        pooled = pool.acquire(call)
                        rpc = self._begin_attempt(pooled, call, request, authorization)
                        watch = _Watch.over(call, rpc)
                        messages = aiter(rpc) if method.generates else _one(rpc)
                        async for message in messages:
                            if message is None:  # grpc.aio's word for it
                                _cancel(rpc)
                                raise _unreadable()
                            last = message
                            if not call.first_message_at:
                                call.first_message_at = time.monotonic()
                            if watch is not None:
                                watch.hands_out(call, last)
                            handing_out = True
                            yield last
                            handing_out = False
                            cancellations = times_cancelled()
                            if watch is not None:
                                watch.reads(call, last)
                        ended = True
                        call.succeeded(last, await _received(rpc))
                        return
                    except grpc.RpcError as error:
                        ended = True
                        if call.cancelled:
                            raise call.ended_here(last) from error
                        if pooled is not None and went_silent(error, last):
                            pool.evict(pooled)
                        delay = call.failed(error, last)
                        if delay is None:
                            return
                    except asyncio.CancelledError as error:
                        # gRPC's word for a call that was cancelled on this side, asyncio's for a task that was, and how
                        # a watch ends an attempt.
                        if watch is not None:
                            watch.end()
                        if times_cancelled() == cancellations:
                            if call.cancelled:
                                raise call.ended_here(last) from None
                            if watch is not None and watch.expired:
                                raise call.expired("in an interceptor") from error
                        call.abandoned(error)
                        raise
                    except grpc.aio.UsageError as error:  # for a channel that was closed a moment ago
                        if call.cancelled or connection.closed:
                            raise call.ended_here(last) from error
                        raise
                    except BaseException as error:
                        if not isinstance(error, errors.APIError):
                            call.abandoned(error)
                        raise
                    finally:
                        call.interrupt = None
                        if watch is not None:
                            watch.end()
                        if pooled is not None:
                            pooled.calls.discard(call)
                            pooled.attempts.forget(request)
                        if not ended and rpc is not None:
                            _cancel(rpc)
                            if handing_out and not isinstance(rpc, _call.Call):
                                await _read_on(messages)
                else:
                    delay = call.token_failed(authorization)
                await connection.wait(call, asyncio.Event(), delay)
        finally:
            if limiter is not None:
                limiter.release(call)
            connection.calls.discard(call)

    def _begin_attempt(self, pooled: PooledChannel, call: Call, request: Any, authorization: str) -> Any:
        """Send the request."""
        timeout, metadata = call.attempt(authorization)
        multicallable = pooled.multicallable(call.method)
        if pooled.attempts.watched:
            pooled.attempts.expect(request, call)
        rpc = multicallable(request, timeout=timeout, metadata=metadata)
        self.connection.add_rpc(rpc)
        call.interrupt = from_any_thread(rpc.cancel)
        if call.cancelled:
            _cancel(rpc)
        return rpc

    async def _authorization(self, call: Call) -> str | BaseException:
        """What to send as ``authorization``, or why there is nothing to send."""
        credentials = self.settings.credentials
        if credentials.header is not None:
            return credentials.header
        header = credentials.refresher.header(
            partial(credentials.fetch, IamExchange(self.settings)), refused=call.refused
        )
        if isinstance(header, str):
            return header
        event = asyncio.Event()
        wake = from_any_thread(event.set)

        def tell(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits there any more
                wake()

        header.add_done_callback(tell)
        if not await self.connection.wait(call, event, call.remaining()):
            raise call.expired("while waiting for a token")
        return header.exception() or header.result()

    async def _count(self, call: Call, request: Any) -> None:
        """Count the prompt of a call before it is sent.

        Raises:
            PromptTooLongError: it does not fit.
        """
        counting = call.preceding(TOKENIZE_PROMPT)
        call.interrupt = counting.cancel
        if call.cancelled:
            counting.cancel()
        try:
            tokens = (await self.unary(counting, request)).tokens
        finally:
            call.interrupt = None
        call.fits(request, len(tokens))

    async def _acquire(self, limiter: Limiter, call: Call) -> None:
        """Wait until the call may be made."""
        event = asyncio.Event()
        if limiter.acquire(call, from_any_thread(event.set), asyncio.get_running_loop().is_closed):
            return
        while not limiter.holds(call):
            left = call.remaining()
            if left == 0.0:
                raise call.expired(f"in line, behind {self.calls.ahead_of(call.method)}")
            await self.connection.wait(call, event, RECHECK_SECONDS if left is None else min(left, RECHECK_SECONDS))
            event.clear()

    def _open_raw_channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        interceptors = [*self.settings.interceptors, _AuthorizeUnary(self), _AuthorizeStream(self)]
        channel: grpc.aio.Channel = open_aio_channel(endpoint, self.settings.channel_options, Attempts(), interceptors)
        self.connection.raw_channels.append((channel, asyncio.get_running_loop()))
        return channel

    async def authorized(self, details: Any) -> dict[str, Any]:
        """The metadata of a raw call, with the client's, and the time that is left after a wait for a token."""
        limited = (details.timeout or 0.0) > 0.0  # what is not, gRPC refuses itself
        call = self.begin(GENERATE, "raw", details.timeout if limited else UNSET)
        self.connection.enter(call)
        try:
            self.check_open()
            authorization = await self._authorization(call)
        finally:
            self.connection.calls.discard(call)
        if not isinstance(authorization, str):
            raise authorization
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *call.attempt(authorization).metadata)
        return {"metadata": metadata, "timeout": call.remaining() if limited else details.timeout}


class _Authorize:
    """Adds the client's metadata to the calls of the raw stubs."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    async def _continue(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        authorized = await self._driver.authorized(client_call_details)
        call = await continuation(client_call_details._replace(**authorized), request)
        self._driver.connection.add_rpc(call)
        return call


class _AuthorizeUnary(_Authorize, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _Authorize._continue


class _AuthorizeStream(_Authorize, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _Authorize._continue


class _Watch:
    """Ends an attempt whose interceptors keep it beyond its deadline, or after it was cancelled.

    gRPC counts the deadline from where interceptors have let the call go, and cancels only that call: what they hand
    out may wait for something else. So the task that reads is cancelled, as ``asyncio.timeout`` does it.

    Attributes:
        expired: whether the deadline has passed.
    """

    def __init__(self, rpc: Any, seconds: float | None) -> None:
        self.expired = False
        self._rpc = rpc
        self._requests = 0
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._expire)
        self._task = asyncio.current_task()

    @classmethod
    def over(cls, call: Call, rpc: Any) -> _Watch | None:
        """A watch over an attempt, if there are interceptors."""
        if isinstance(rpc, _call.Call):
            return None
        ends = call.attempt_ends
        watch = cls(rpc, None if ends is None else ends - time.monotonic() + INTERCEPTORS_SECONDS)
        call.interrupt = from_any_thread(watch.cancel)
        return watch

    def reads(self, call: Call, last: Any) -> None:
        """The running task goes on to wait for the next message.

        Raises:
            CancelledError, DeadlineExceededError: the attempt has ended meanwhile.
        """
        self._task = asyncio.current_task()
        self._check(call, last)

    def hands_out(self, call: Call, last: Any) -> None:
        """A message has come.

        Raises:
            CancelledError, DeadlineExceededError: an interceptor has swallowed the end of the attempt.
        """
        self._task = None
        self._take_back()
        self._check(call, last)

    def cancel(self) -> None:
        """Cancel the attempt."""
        if self._task is None:
            _cancel(self._rpc)
        else:
            self._requests += 1
            self._task.cancel()

    def end(self) -> None:
        """The attempt has ended."""
        self._task = None
        self._take_back()
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        self.cancel()

    def _check(self, call: Call, last: Any) -> None:
        if call.cancelled:
            raise call.ended_here(last)
        if self.expired:
            raise call.expired("in an interceptor")

    def _take_back(self) -> None:
        """Others who cancel the task are to be told apart."""
        task = asyncio.current_task()
        while self._requests:
            self._requests -= 1
            if task is not None and hasattr(task, "uncancel"):  # since Python 3.11
                task.uncancel()


def _unreadable() -> grpc.aio.AioRpcError:
    """For a message that is no protobuf: what the synchronous kind of call raises by itself."""
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "Exception deserializing response!")


async def _one(rpc: Any) -> AsyncGenerator[Any, None]:
    """The answer of a unary call as a stream of one message."""
    yield await rpc


async def _read_on(messages: AsyncIterator[Any]) -> None:
    """Read a call that was cancelled between two messages to its end, which is at hand.

    An instrumentation wraps the messages in a generator of its own, and its span ends when that one is told how the
    call ended. Interceptors that have something else to wait for are not waited for.
    """
    cancellations = times_cancelled()
    watch = _Watch(None, SETTLING_SECONDS)
    try:
        async for _ in messages:
            pass
    except grpc.RpcError:
        pass
    except asyncio.CancelledError:
        watch.end()
        if times_cancelled() > cancellations:
            raise
    finally:
        watch.end()


async def _received(rpc: Any) -> ReceivedMetadata:
    """What the service sent around the answer, as far as the call says: an interceptor may have taken its place."""
    try:
        return ReceivedMetadata(await rpc.initial_metadata(), await rpc.trailing_metadata())
    except AttributeError:
        return NO_METADATA


async def wait_for_event(event: asyncio.Event, timeout: float | None) -> None:
    """Wait for the event, or for so many seconds.

    Not ``wait_for``: it may swallow a cancellation that comes together with the event (before Python 3.12).
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting}, timeout=timeout)
    finally:
        with contextlib.suppress(RuntimeError):  # the loop was closed, and this is the end of what it left
            waiting.cancel()


def from_any_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, to be called in the running loop from wherever it is called."""
    return partial(asyncio.get_running_loop().call_soon_threadsafe, function)


def times_cancelled() -> int:
    """How often somebody has cancelled the running task (unknown, so 0, before Python 3.11).

    Who swallows a cancellation seldom takes it back: what counts is whether the number has grown.
    """
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)
    return 0 if cancelling is None else int(cancelling())
