"""What makes the calls of the asynchronous client: everything about a call that waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import weakref
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from grpc.aio import _call

from yandexgpt._concurrency import fork_safety
from yandexgpt._concurrency.event_loops import threadsafe_callback, times_cancelled, wait_for_event
from yandexgpt._models import NO_METADATA, ReceivedMetadata
from yandexgpt._rpc import failures
from yandexgpt._rpc.async_registry import AsyncChannelRegistry, cancel_rpc
from yandexgpt._rpc.call import Answer, CallOptions, new_call
from yandexgpt._rpc.channels import open_aio_channel
from yandexgpt._rpc.client_state import ClientState
from yandexgpt._rpc.conflate import conflate_async
from yandexgpt._rpc.failures import code_of
from yandexgpt._rpc.grpc_call import went_silent
from yandexgpt._rpc.iam import IamExchange
from yandexgpt._rpc.interceptors import Attempts, check_interceptors
from yandexgpt._rpc.methods import TextGenerationService, TokenizerService
from yandexgpt._rpc.raw import AsyncRaw
from yandexgpt._rpc.watch import Watch, read_on
from yandexgpt.errors import APIError, ConfigurationError

if TYPE_CHECKING:
    from yandexgpt._concurrency.limiter import Limiter
    from yandexgpt._config import Settings
    from yandexgpt._endpoint import Endpoint
    from yandexgpt._models import CompletionResponse
    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.channel_pool import PooledChannel
    from yandexgpt._rpc.methods import Method

__all__ = ["AsyncInvoker"]

RECHECK_SECONDS = 5.0
"""How long a call waits for others at a time before it looks again: who is collected, or whose event loop is closed,
wakes nobody. Longer than a thread waits, because there may be thousands of tasks."""


class AsyncInvoker:
    """Makes the calls of one client.

    Args:
        settings: the client's.
        parent: the invoker of the client that this one came from by ``with_options``; what did not change is shared.
    """

    def __init__(self, settings: Settings, parent: AsyncInvoker | None) -> None:
        check_interceptors(settings.interceptors, for_aio=True)
        self.settings = settings
        self.state: ClientState = ClientState(settings, parent.state if parent else None)
        self.owns_registry = parent is None or parent.settings.connection_key != settings.connection_key
        self.registry: AsyncChannelRegistry = (
            AsyncChannelRegistry(settings) if parent is None or self.owns_registry else parent.registry
        )
        self.closed = False
        self._raw: tuple[int, asyncio.AbstractEventLoop, AsyncRaw] | None = None
        self.registry.invokers.add(self)

    def check_open(self) -> None:
        """Refuse to make calls where they cannot be made.

        Raises:
            ConfigurationError: the client is closed, or this process was forked while calls were under way.
        """
        fork_safety.check()
        if self.closed or self.registry.closed:
            raise ConfigurationError("the client is closed")

    def begin(self, method: Method, subject: str, options: CallOptions) -> Call:
        """Begin a call: its deadline runs from now.

        Raises:
            ConfigurationError: as :meth:`check_open`.
            ValueError: an argument has an impossible value.
        """
        self.check_open()
        return new_call(self.state, method, subject, options)

    async def close(self) -> None:
        """End what is in flight and close the connection; if that is another client's, end the calls of this one."""
        self.closed = True
        if self.owns_registry:
            await self.registry.close()
        else:
            self.registry.cancel(self.state)

    async def pause(self, seconds: float) -> None:
        """Wait between two calls; the end of the client ends the wait.

        Raises:
            CancelledError: the client was closed meanwhile.
        """
        event = asyncio.Event()
        wake = threadsafe_callback(event.set)
        self.registry.pauses[wake] = self.state
        try:
            if not (self.closed or self.registry.closed):
                await wait_for_event(event, seconds)
        finally:
            self.registry.pauses.pop(wake, None)
        if self.closed or self.registry.closed:
            raise failures.closed_meanwhile(self.settings.operation_endpoint.target)

    async def connect(self, timeout: float | None) -> None:
        """Open the connection to the service, by asking it for its health; whatever it answers, it is there.

        Raises:
            UnavailableError: it was not open in time.
        """
        call = self.begin(
            TextGenerationService.Completion, "connect", CallOptions() if timeout is None else CallOptions(timeout)
        )
        self.registry.enter(call)
        pooled = self.registry.pool(call.endpoint).acquire(call)
        try:
            check = pooled.channel.unary_unary("/grpc.health.v1.Health/Check")
            cancellations = times_cancelled()
            rpc = check(b"", timeout=call.remaining(), wait_for_ready=True)
            call.cancel_hook = threadsafe_callback(rpc.cancel)
            try:
                await rpc
            except grpc.RpcError as error:
                if call.cancelled:
                    raise call.cancelled_locally() from error
                if code_of(error).name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    raise call.not_connected() from error
            except asyncio.CancelledError:
                rpc.cancel()
                if call.cancelled and times_cancelled() == cancellations:
                    raise call.cancelled_locally() from None
                raise
        finally:
            pooled.calls.discard(call)
            self.registry.in_flight.discard(call)

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

    async def unary(self, method: Method, request: Any, options: CallOptions) -> Answer:
        """Make a call, and wait for its answer: of a stream the last message.

        Raises:
            APIError: the call failed.
        """
        return await self._answer(self.begin(method, method.subject(request), options), request)

    async def _answer(self, call: Call, request: Any) -> Answer:
        async for _ in self.messages(call, request):
            pass
        return Answer(call.answer, call.request_id, call.received)

    def stream(
        self, method: Method, request: Any, options: CallOptions, *, latest: bool
    ) -> tuple[AsyncGenerator[CompletionResponse, None], Call]:
        """Make a call when its first message is asked for.

        Args:
            latest: hand out only the newest message that there is.
        """
        call = self.begin(method, method.subject(request), options)
        messages = self.messages(call, request)
        if latest:
            messages = conflate_async(messages, call)
        call.generator = weakref.ref(messages)
        return messages, call

    async def messages(self, call: Call, request: Any) -> AsyncGenerator[Any, None]:
        """The messages of a call: attempts, until one of them has handed something out."""
        registry, method = self.registry, call.method
        limiter = self.state.limiter_of(method)
        # What is taken here is known by the call's own name. So it comes back, too, when the event loop is closed
        # without another step of this generator.
        registry.enter(call)
        try:
            self.check_open()  # only now: whoever closes the client sees the call, or the call sees that it is closed
            pool = registry.pool(call.endpoint)
            if call.max_context_tokens is not None:
                await self._count(call, request)
            if limiter is not None:
                await self._acquire(limiter, call)
            while True:
                authorization = await self._authorization(call)
                if method.limit == "polls" and (delay := call.rate_limit_delay()):
                    await registry.wait(call, asyncio.Event(), delay)
                pooled: PooledChannel | None = None
                rpc: Any = None
                last: Any = None
                watch: Watch | None = None
                ended = handing_out = False
                cancellations = times_cancelled()
                try:
                    pooled = pool.acquire(call)
                    rpc = self._begin_attempt(pooled, call, request, authorization)
                    watch = Watch.over(call, rpc)
                    messages = aiter(rpc) if method.streams else _one(rpc)
                    async for message in messages:
                        if message is None:  # grpc.aio's word for it
                            cancel_rpc(rpc)
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
                        raise call.cancelled_locally(last) from error
                    if pooled is not None and went_silent(error, last):
                        pool.evict(pooled)
                    if call.stands(error, last):
                        return
                    delay = call.failed(error, last)
                except asyncio.CancelledError as error:
                    # gRPC's word for a call that was cancelled on this side, asyncio's for a task that was, and how
                    # a watch ends an attempt.
                    if watch is not None:
                        watch.end()
                    if times_cancelled() == cancellations:
                        if call.cancelled:
                            raise call.cancelled_locally(last) from None
                        if watch is not None and watch.expired:
                            raise call.expired("in an interceptor") from error
                    call.ended_by_caller(error)
                    raise
                except grpc.aio.UsageError as error:  # for a channel that was closed a moment ago
                    if call.cancelled or registry.closed:
                        raise call.cancelled_locally(last) from error
                    raise
                except BaseException as error:
                    if not isinstance(error, APIError):
                        call.ended_by_caller(error)
                    raise
                finally:
                    call.cancel_hook = None
                    if watch is not None:
                        watch.end()
                    if pooled is not None:
                        pooled.calls.discard(call)
                        pooled.attempts.forget(request)
                    if not ended and rpc is not None:
                        cancel_rpc(rpc)
                        if handing_out and not isinstance(rpc, _call.Call):
                            await read_on(messages)
                await registry.wait(call, asyncio.Event(), delay)
        finally:
            if limiter is not None:
                limiter.release(call)
            registry.in_flight.discard(call)

    def _begin_attempt(self, pooled: PooledChannel, call: Call, request: Any, authorization: str) -> Any:
        """Send the request."""
        timeout, metadata = call.attempt(authorization)
        multicallable = pooled.multicallable(call.method)
        if pooled.attempts.watched:
            pooled.attempts.expect(request, call)
        rpc = multicallable(request, timeout=timeout, metadata=metadata)
        self.registry.add_rpc(rpc)
        call.cancel_hook = threadsafe_callback(rpc.cancel)
        if call.cancelled:
            cancel_rpc(rpc)
        return rpc

    async def _authorization(self, call: Call) -> str:
        """What to send as ``authorization``. A token that cannot be got is tried for again as the call is.

        Raises:
            APIError, ConfigurationError: there is none to be had.
        """
        while isinstance(header := self._header(call), Future):
            failure = await self._failure(call, header)
            if failure is None:
                return header.result()
            await self.registry.wait(call, asyncio.Event(), call.token_failed(failure))
        return header

    def _header(self, call: Call) -> str | Future[str]:
        """What to send as ``authorization``, or the token that is to be waited for."""
        credentials = self.settings.credentials
        if credentials.header is not None:
            return credentials.header
        fetch = partial(credentials.fetch, IamExchange(self.settings))
        return credentials.token_cache.header(fetch, rejected=call.rejected_token)

    async def _failure(self, call: Call, token: Future[str]) -> BaseException | None:
        """Wait for a token: why it could not be got, if so.

        Raises:
            DeadlineExceededError, CancelledError: the call ended before.
        """
        event = asyncio.Event()
        wake = threadsafe_callback(event.set)

        def tell(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits there any more
                wake()

        token.add_done_callback(tell)
        if not await self.registry.wait(call, event, call.remaining()):
            raise call.expired("while waiting for a token")
        return token.exception()

    async def _count(self, call: Call, request: Any) -> None:
        """Count the prompt of a call before it is sent.

        Raises:
            PromptTooLongError: it does not fit.
        """
        counting = call.child_call(TokenizerService.TokenizeCompletion)
        call.cancel_hook = counting.cancel
        if call.cancelled:
            counting.cancel()
        try:
            tokens = (await self._answer(counting, request)).message.tokens
        finally:
            call.cancel_hook = None
        call.fits(request, len(tokens))

    async def _acquire(self, limiter: Limiter, call: Call) -> None:
        """Wait until the call may be made."""
        event = asyncio.Event()
        if limiter.acquire(call, threadsafe_callback(event.set), asyncio.get_running_loop().is_closed):
            return
        while not limiter.holds(call):
            left = call.remaining()
            if left == 0.0:
                raise call.expired(f"in line, behind {self.state.calls_ahead(call.method)}")
            await self.registry.wait(call, event, RECHECK_SECONDS if left is None else min(left, RECHECK_SECONDS))
            event.clear()

    def _open_raw_channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        interceptors = [*self.settings.interceptors, _AuthorizeUnary(self), _AuthorizeStream(self)]
        channel: grpc.aio.Channel = open_aio_channel(endpoint, self.settings.channel_options, Attempts(), interceptors)
        self.registry.raw_channels.append((channel, asyncio.get_running_loop()))
        return channel

    async def authorized(self, details: Any) -> dict[str, Any]:
        """The metadata of a raw call, with the client's, and the time that is left after a wait for a token."""
        limited = (details.timeout or 0.0) > 0.0  # what is not, gRPC refuses itself
        call = self.begin(
            TextGenerationService.Completion, "raw", CallOptions(details.timeout) if limited else CallOptions()
        )
        self.registry.enter(call)
        try:
            self.check_open()
            header = self._header(call)
            if isinstance(header, Future):
                await self._failure(call, header)
                header = header.result()
        finally:
            self.registry.in_flight.discard(call)
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *call.attempt(header).metadata)
        return {"metadata": metadata, "timeout": call.remaining() if limited else details.timeout}


class _Authorize:
    """Adds the client's metadata to the calls of the raw stubs."""

    def __init__(self, invoker: AsyncInvoker) -> None:
        self._invoker = invoker

    async def _continue(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        authorized = await self._invoker.authorized(client_call_details)
        call = await continuation(client_call_details._replace(**authorized), request)
        self._invoker.registry.add_rpc(call)
        return call


class _AuthorizeUnary(_Authorize, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _Authorize._continue


class _AuthorizeStream(_Authorize, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _Authorize._continue


def _unreadable() -> grpc.aio.AioRpcError:
    """For a message that is no protobuf: what the synchronous kind of call raises by itself."""
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "Exception deserializing response!")


async def _one(rpc: Any) -> AsyncGenerator[Any, None]:
    """The answer of a unary call as a stream of one message."""
    yield await rpc


async def _received(rpc: Any) -> ReceivedMetadata:
    """What the service sent around the answer, as far as the call says: an interceptor may have taken its place."""
    try:
        return ReceivedMetadata(await rpc.initial_metadata(), await rpc.trailing_metadata())
    except AttributeError:
        return NO_METADATA
