"""How the asynchronous client makes its calls: the twin of :mod:`yandexgpt.driver`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from yandexgpt import errors, failures, forks
from yandexgpt.calls import CallFactory
from yandexgpt.checks import Metadata
from yandexgpt.completion import ReceivedMetadata
from yandexgpt.errors import ConfigurationError
from yandexgpt.iam import IamExchange
from yandexgpt.methods import GENERATE, TOKENIZE_PROMPT
from yandexgpt.raw import AsyncRaw
from yandexgpt.settings import UNSET, Endpoint, Settings, Unset
from yandexgpt.transport import Lanes, inherited, keep_core, open_aio_channel, went_silent

if TYPE_CHECKING:
    from yandexgpt.calls import Call
    from yandexgpt.checks import Metadata
    from yandexgpt.line import Line
    from yandexgpt.methods import Method

__all__ = ["AsyncDriver"]


class AsyncConnection(forks.Forkable):
    """What a client shares with those that come of it by ``with_options``: its channels, and the calls on them.

    A channel of ``grpc.aio`` belongs to the event loop that it was opened in, so each loop has its own.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Endpoint, Lanes]]
        self._loops = weakref.WeakKeyDictionary()
        self.closed = False
        self.calls: dict[Call, asyncio.AbstractEventLoop] = {}
        self.pauses: dict[Callable[[], Any], CallFactory] = {}
        self.raw_channels: list[tuple[grpc.aio.Channel, asyncio.AbstractEventLoop]] = []
        self.raws: weakref.WeakKeyDictionary[AsyncDriver, tuple[tuple[int, asyncio.AbstractEventLoop], AsyncRaw]]
        self.raws = weakref.WeakKeyDictionary()
        self.raw_calls: weakref.WeakKeyDictionary[Any, asyncio.AbstractEventLoop] = weakref.WeakKeyDictionary()
        forks.register(self)

    def before_fork(self) -> bool:
        """Let go of the channels: while there is one, a thread of grpc.aio is inside gRPC, which no child survives.

        The parent opens others with its next call.
        """
        if not self.calls and (self._loops or self.raw_channels):
            keep_core()
            self._loops.clear()
            self.raw_channels.clear()
            self.raws.clear()
            gc.collect()  # what refers to a channel may be in cycles
        return bool(self.calls)

    def after_fork(self) -> None:
        """The parent's calls and channels are not the child's."""
        self.calls = {}
        self.pauses = {}
        inherited.extend(channel for channel, _ in self.raw_channels)
        self.raw_channels = []

    def lanes(self, endpoint: Endpoint) -> Lanes:
        """The running loop's connections to an endpoint."""
        loop = asyncio.get_running_loop()
        endpoints = self._loops.get(loop)
        if endpoints is None:
            for old in list(self._loops):
                if old.is_closed():  # nobody can close its channels any more; they go with the last reference
                    self._loops.pop(old, None)
            endpoints = self._loops[loop] = {}
        lanes = endpoints.get(endpoint)
        if lanes is None:
            settings = self._settings
            lanes = Lanes(partial(open_aio_channel, endpoint, settings.channel_options, settings.interceptors))
            endpoints[endpoint] = lanes
        return lanes

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
        for call, loop in list(self.calls.items()):
            if (factory is None or call.factory is factory) and not loop.is_closed():
                call.cancel()
        for wake, its in list(self.pauses.items()):
            if factory is None or its is factory:
                with contextlib.suppress(RuntimeError):  # its event loop has closed: nobody is waiting there any more
                    wake()

    async def close(self) -> None:
        """End the calls that are under way, and the connections, in whichever loop they are."""
        self.closed = True
        self.cancel()
        for raw_call, loop in list(self.raw_calls.items()):
            if not loop.is_closed():  # closing the channel ends it too, but not with every grpcio
                loop.call_soon_threadsafe(raw_call.cancel)
        channels = [
            (channel, loop)
            for loop, endpoints in list(self._loops.items())
            for lanes in list(endpoints.values())
            for channel in lanes.drain()
        ]
        channels += self.raw_channels
        self.raw_channels = []
        here = asyncio.get_running_loop()
        for channel, loop in channels:
            if loop is here:
                await channel.close()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(channel.close(), loop))


class AsyncDriver:
    """Makes the calls of one client.

    Args:
        settings: the client's.
        parent: the driver of the client that this one came from by ``with_options``; what did not change is shared.
    """

    def __init__(self, settings: Settings, parent: AsyncDriver | None) -> None:
        self.settings = settings
        self.calls: CallFactory = CallFactory(settings, parent.calls if parent else None)
        self.owns_connection = parent is None or parent.settings.connection != settings.connection
        self.connection: AsyncConnection = (
            AsyncConnection(settings) if parent is None or self.owns_connection else parent.connection
        )
        self.closed = False

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
        lanes = self.connection.lanes(call.endpoint)
        lane = lanes.take()
        self.connection.calls[call] = asyncio.get_running_loop()
        try:
            rpc = lane.channel.unary_stream("/grpc.health.v1.Health/Check")(
                b"", timeout=call.remaining(), wait_for_ready=True
            )
            call.interrupt = from_any_thread(rpc.cancel)
            try:
                async for _ in rpc:
                    pass
            except grpc.RpcError as error:
                if call.cancelled:
                    raise call.ended_here() from error
                if error.code().name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    raise call.not_connected() from error
            except asyncio.CancelledError:
                rpc.cancel()
                if call.cancelled and not task_cancelled():
                    raise call.ended_here() from None
                raise
        finally:
            self.connection.calls.pop(call, None)
            lanes.give(lane)

    def raw(self) -> AsyncRaw:
        """The generated stubs for this process and the running loop."""
        self.check_open()
        here = os.getpid(), asyncio.get_running_loop()
        kept = self.connection.raws.get(self)
        if kept is None or kept[0] != here:
            kept = self.connection.raws[self] = here, AsyncRaw(self.settings, self._open_raw_channel)
        return kept[1]

    async def unary(self, call: Call, request: Any) -> Any:
        """The one message of a call that has one."""
        async for _ in self.responses(call, request):
            pass
        return call.answer

    async def responses(self, call: Call, request: Any) -> AsyncGenerator[Any, None]:
        """The messages of a call: attempts, until one of them has handed something out."""
        self.check_open()
        connection, method = self.connection, call.method
        lanes = connection.lanes(call.endpoint)
        line = self.calls.line_of(method)
        connection.calls[call] = asyncio.get_running_loop()
        try:
            if call.max_context_tokens is not None:
                await self._count(call, request)
            if line is not None:
                await self._get_in_line(line, call)
            try:
                while True:
                    delay: float | None
                    authorization = await self._authorization(call)
                    if isinstance(authorization, str):
                        if method.paced and (turn := call.turn()):
                            await connection.wait(call, asyncio.Event(), turn)
                        lane = lanes.take()
                        rpc: Any = None
                        last: Any = None
                        try:
                            timeout, sent = call.attempt(authorization)
                            rpc = lane.multicallable(method)(request, timeout=timeout, metadata=sent)
                            call.interrupt = from_any_thread(rpc.cancel)
                            if call.cancelled:
                                rpc.cancel()
                            async for last in rpc:
                                if not call.first_message_at:
                                    call.first_message_at = time.monotonic()
                                yield last
                            received = ReceivedMetadata(await rpc.initial_metadata(), await rpc.trailing_metadata())
                            call.succeeded(last, received)
                            return
                        except grpc.RpcError as error:
                            if call.cancelled:
                                raise call.ended_here(last) from error
                            if went_silent(error):
                                lanes.retire(lane)
                            delay = call.failed(error, last)
                            if delay is None:
                                return
                        except asyncio.CancelledError:
                            # gRPC's word for a call that was cancelled on this side, and asyncio's for a task that was.
                            if call.cancelled and not task_cancelled():
                                raise call.ended_here(last) from None
                            if rpc is not None:
                                rpc.cancel()
                            call.abandoned()
                            raise
                        except grpc.aio.UsageError as error:  # for a channel that was closed a moment ago
                            if call.cancelled or connection.closed:
                                raise call.ended_here(last) from error
                            raise
                        except BaseException as error:
                            if rpc is not None:
                                rpc.cancel()
                            if not isinstance(error, errors.APIError):
                                call.abandoned()
                            raise
                        finally:
                            call.interrupt = None
                            lanes.give(lane)
                    else:
                        delay = call.token_failed(authorization)
                    await connection.wait(call, asyncio.Event(), delay)
            finally:
                if line is not None:
                    line.leave()
        finally:
            connection.calls.pop(call, None)

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

    async def _get_in_line(self, line: Line, call: Call) -> None:
        """Wait for a place in it."""
        event = asyncio.Event()
        waiter = line.enter(from_any_thread(event.set))
        if waiter is None:
            return
        try:
            if not await self.connection.wait(call, event, call.remaining()):
                raise call.expired(f"in line, behind {self.calls.ahead_of(call.method)}")
        except BaseException:
            line.abandon(waiter)
            raise

    def _open_raw_channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        interceptors = [*self.settings.interceptors, _AuthorizeUnary(self), _AuthorizeStream(self)]
        channel: grpc.aio.Channel = open_aio_channel(endpoint, self.settings.channel_options, interceptors)
        self.connection.raw_channels.append((channel, asyncio.get_running_loop()))
        return channel

    async def raw_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        call = self.begin(GENERATE, "raw")
        self.connection.calls[call] = asyncio.get_running_loop()
        try:
            authorization = await self._authorization(call)
        finally:
            self.connection.calls.pop(call, None)
        if not isinstance(authorization, str):
            raise authorization
        return call.attempt(authorization).metadata


class _Authorize:
    """Adds the client's metadata to the calls of the raw stubs."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    async def _continue(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), *await self._driver.raw_metadata())
        call = await continuation(client_call_details._replace(metadata=metadata), request)
        self._driver.connection.raw_calls[call] = asyncio.get_running_loop()
        return call


class _AuthorizeUnary(_Authorize, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _Authorize._continue


class _AuthorizeStream(_Authorize, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _Authorize._continue


async def wait_for_event(event: asyncio.Event, timeout: float | None) -> None:
    """Wait for the event, or for so many seconds.

    Not ``wait_for``: it may swallow a cancellation that comes together with the event (before Python 3.12).
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting}, timeout=timeout)
    finally:
        waiting.cancel()


def from_any_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, to be called in the running loop from wherever it is called."""
    return partial(asyncio.get_running_loop().call_soon_threadsafe, function)


def task_cancelled() -> bool:
    """Whether somebody has cancelled the running task (unknown, so False, before Python 3.11)."""
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)
    return cancelling is not None and cancelling() > 0
