"""Makes the calls of the asynchronous client: all code of a call that waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import weakref
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import grpc
from grpc.aio import _call

from yandexgpt._concurrency.event_loops import threadsafe_callback, times_cancelled, wait_for_event
from yandexgpt._models import NO_METADATA, ReceivedMetadata
from yandexgpt._rpc.async_registry import AsyncChannelRegistry, cancel_rpc
from yandexgpt._rpc.base_invoker import BaseInvoker
from yandexgpt._rpc.call import Answer, CallOptions
from yandexgpt._rpc.channels import open_aio_channel
from yandexgpt._rpc.conflate import conflate_async
from yandexgpt._rpc.failures import code_of
from yandexgpt._rpc.grpc_call import peer_was_silent
from yandexgpt._rpc.interceptors import AttemptRegistry, check_interceptors
from yandexgpt._rpc.methods import TextGenerationService, TokenizerService
from yandexgpt._rpc.raw import AsyncRaw
from yandexgpt._rpc.watch import Watch, drain
from yandexgpt.errors import APIError

if TYPE_CHECKING:
    from yandexgpt._concurrency.limiter import Limiter
    from yandexgpt._config import Settings
    from yandexgpt._endpoint import Endpoint
    from yandexgpt._models import CompletionResponse
    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.channel_pool import PooledChannel
    from yandexgpt._rpc.methods import Method

__all__ = ["AsyncInvoker"]

LIMITER_POLL_INTERVAL = 5.0
"""Seconds between two polls of the limiter: a holder that is garbage-collected, or whose event loop is closed, does not
notify the calls that wait. Longer than for threads, because there may be thousands of tasks."""


class AsyncInvoker(BaseInvoker[AsyncChannelRegistry]):
    """Makes the calls of one client.

    Args:
        settings: of the client.
        parent: the invoker of the client whose ``with_options`` created this one, or None. State that depends on
            unchanged settings is shared with it.
    """

    def __init__(self, settings: Settings, parent: AsyncInvoker | None) -> None:
        check_interceptors(settings.interceptors, for_aio=True)
        super().__init__(settings, parent, AsyncChannelRegistry)
        self._raw: tuple[int, asyncio.AbstractEventLoop, AsyncRaw] | None = None
        self.registry.invokers.add(self)

    async def close(self) -> None:
        """Cancel all calls on the connection, and close it.

        If another client has opened the connection, only cancel the calls of this client.
        """
        self.closed = True
        if self.owns_registry:
            await self.registry.close()
        else:
            self.registry.cancel(self.state)

    async def pause(self, seconds: float) -> None:
        """Wait between two calls. Closing the client ends the wait.

        Args:
            seconds: how long to wait.

        Raises:
            CancelledError: the client was closed meanwhile.
        """
        event = asyncio.Event()
        wake = threadsafe_callback(event.set)
        self.registry.pauses[wake] = self.state
        try:
            if not self.is_closed:
                await wait_for_event(event, seconds)
        finally:
            self.registry.pauses.pop(wake, None)
        self.check_not_closed_in_pause()

    async def connect(self, timeout: float | None) -> None:
        """Open the connection to the service by a health check. Any response means that the connection is open.

        Raises:
            UnavailableError: it was not open in time.
        """
        call = self.begin(
            TextGenerationService.Completion, "connect", CallOptions() if timeout is None else CallOptions(timeout)
        )
        self.registry.add_call(call)
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
                    raise call.cancelled_error() from error
                if code_of(error).name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    raise call.not_connected_error() from error
            except asyncio.CancelledError:
                rpc.cancel()
                if call.cancelled and times_cancelled() == cancellations:
                    raise call.cancelled_error() from None
                raise
        finally:
            pooled.calls.discard(call)
            self.registry.in_flight.discard(call)

    def raw(self) -> AsyncRaw:
        """Return the generated stubs for this process and the running event loop."""
        self.check_open()
        key = os.getpid(), asyncio.get_running_loop()
        if self._raw is None or self._raw[:2] != key:
            self._raw = *key, AsyncRaw(self.settings, self.check_open, self._open_raw_channel)
        return self._raw[2]

    def drop_raw(self) -> None:
        """Drop the stubs and their channels."""
        self._raw = None

    async def unary(self, method: Method, request: Any, options: CallOptions) -> Answer:
        """Make a call, and return its answer: for a stream, the last message.

        Raises:
            APIError: the call failed.
        """
        return await self._read_answer(self.begin(method, method.subject(request), options), request)

    async def _read_answer(self, call: Call, request: Any) -> Answer:
        async for _ in self.messages(call, request):
            pass
        return Answer(call.answer, call.request_id, call.received_metadata)

    def stream(
        self, method: Method, request: Any, options: CallOptions, *, latest: bool
    ) -> tuple[AsyncGenerator[CompletionResponse, None], Call]:
        """Create a call, and return its messages. The request is sent when the first message is read.

        Args:
            latest: return only the newest message that is available.
        """
        call = self.begin(method, method.subject(request), options)
        messages = self.messages(call, request)
        if latest:
            messages = conflate_async(messages, call)
        call.generator = weakref.ref(messages)
        return messages, call

    async def messages(self, call: Call, request: Any) -> AsyncGenerator[Any, None]:
        """Yield the messages of a call. Attempts are retried until one of them has yielded a message."""
        registry, method = self.registry, call.method
        limiter = self.state.limiter_for(method)
        # Resources are keyed by the call, so they are released even if the event loop is closed before this generator
        # runs again.
        registry.add_call(call)
        try:
            self.check_open()  # after the registration: close() sees the call, or this sees close()
            pool = registry.pool(call.endpoint)
            if call.max_context_tokens is not None:
                await self._check_prompt_length(call, request)
            if limiter is not None:
                await self._acquire_limiter(limiter, call)
            while True:
                authorization = await self._authorization(call)
                if method.limit == "polls" and (delay := call.rate_limit_delay()):
                    await registry.wait(call, asyncio.Event(), delay)
                pooled: PooledChannel | None = None
                rpc: Any = None
                last: Any = None
                watch: Watch | None = None
                rpc_ended = False  # gRPC has returned the status: nothing is left to cancel
                yielding = False  # the reader runs, not gRPC
                cancellations = times_cancelled()  # tells a cancellation of the task from one of the call
                try:
                    pooled = pool.acquire(call)
                    rpc = self._begin_attempt(pooled, call, request, authorization)
                    watch = Watch.for_attempt(call, rpc)
                    messages = aiter(rpc) if method.streams else _single_message(rpc)
                    async for message in messages:
                        if message is None:  # grpc.aio yields None for a message that it cannot deserialize
                            cancel_rpc(rpc)
                            raise _deserialization_error()
                        last = message
                        if not call.first_message_at:
                            call.first_message_at = time.monotonic()
                        if watch is not None:
                            watch.message_received(call, last)
                        yielding = True
                        yield last
                        yielding = False
                        cancellations = times_cancelled()
                        if watch is not None:
                            watch.resume_reading(call, last)
                    rpc_ended = True
                    call.succeeded(last, await _received_metadata(rpc))
                    return
                except grpc.RpcError as error:
                    rpc_ended = True
                    if call.cancelled:
                        raise call.cancelled_error(last) from error
                    if pooled is not None and peer_was_silent(error, last):
                        pool.evict(pooled)
                    if call.complete_despite_failure(error, last):
                        return
                    delay = call.failed(error, last)
                except asyncio.CancelledError as error:
                    # gRPC raises it for a call that was cancelled on this side, asyncio for a task that was cancelled,
                    # and a watch ends an attempt by it.
                    if watch is not None:
                        watch.stop()
                    if times_cancelled() == cancellations:
                        if call.cancelled:
                            raise call.cancelled_error(last) from None
                        if watch is not None and watch.expired:
                            raise call.deadline_error("in an interceptor") from error
                    call.log_end_by_caller(error)
                    raise
                except grpc.aio.UsageError as error:  # grpc.aio raises it for a closed channel
                    if call.cancelled or registry.closed:
                        raise call.cancelled_error(last) from error
                    raise
                except BaseException as error:
                    if not isinstance(error, APIError):
                        call.log_end_by_caller(error)
                    raise
                finally:
                    call.cancel_hook = None
                    if watch is not None:
                        watch.stop()
                    if pooled is not None:
                        pooled.calls.discard(call)
                        pooled.attempts.unregister(request)
                    if not rpc_ended and rpc is not None:
                        cancel_rpc(rpc)
                        if yielding and not isinstance(rpc, _call.Call):
                            await drain(messages)
                    # In CPython 3.10 a task of gRPC that is destroyed while this frame runs keeps the frame alive.
                    rpc = messages = None
                await registry.wait(call, asyncio.Event(), delay)
        finally:
            if limiter is not None:
                limiter.release(call)
            registry.in_flight.discard(call)

    def _begin_attempt(self, pooled: PooledChannel, call: Call, request: Any, authorization: str) -> Any:
        """Send the request, and return gRPC's call."""
        timeout, metadata = call.attempt(authorization)
        multicallable = pooled.multicallable(call.method)
        if pooled.attempts.enabled:
            pooled.attempts.register(request, call)
        rpc = multicallable(request, timeout=timeout, metadata=metadata)
        self.registry.add_rpc(rpc)
        call.cancel_hook = threadsafe_callback(rpc.cancel)
        if call.cancelled:
            cancel_rpc(rpc)
        return rpc

    async def _authorization(self, call: Call) -> str:
        """Return the ``authorization`` to send. A failure to get a token is retried as a failed attempt is.

        Raises:
            APIError, ConfigurationError: no token could be got.
        """
        while isinstance(header := self.header_or_future(call), Future):
            failure = await self._wait_for_token(call, header)
            if failure is None:
                return header.result()
            await self.registry.wait(call, asyncio.Event(), call.token_failed(failure))
        return header

    async def _wait_for_token(self, call: Call, token: Future[str]) -> BaseException | None:
        """Wait for a token. Return the exception of a failure, or None if there is a token.

        Raises:
            DeadlineExceededError, CancelledError: the call ended first.
        """
        event = asyncio.Event()
        wake = threadsafe_callback(event.set)

        def notify(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits there any more
                wake()

        token.add_done_callback(notify)
        if not await self.registry.wait(call, event, call.remaining()):
            raise call.deadline_error("while waiting for a token")
        return token.exception()

    async def _check_prompt_length(self, call: Call, request: Any) -> None:
        """Count the tokens of the prompt before it is sent.

        Raises:
            PromptTooLongError: it exceeds ``max_context_tokens``.
        """
        counting = call.child_call(TokenizerService.TokenizeCompletion)
        call.cancel_hook = counting.cancel
        if call.cancelled:
            counting.cancel()
        try:
            tokens = (await self._read_answer(counting, request)).message.tokens
        finally:
            call.cancel_hook = None
        call.check_prompt_length(request, len(tokens))

    async def _acquire_limiter(self, limiter: Limiter, call: Call) -> None:
        """Acquire the limiter for the call."""
        event = asyncio.Event()
        if limiter.acquire(call, threadsafe_callback(event.set), asyncio.get_running_loop().is_closed):
            return
        while not limiter.holds(call):
            left = call.remaining()
            if left == 0.0:
                raise call.deadline_error(f"in line, behind {self.state.describe_limiter_holders(call.method)}")
            await self.registry.wait(
                call, event, LIMITER_POLL_INTERVAL if left is None else min(left, LIMITER_POLL_INTERVAL)
            )
            event.clear()

    def _open_raw_channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        interceptors = [*self.settings.interceptors, _AuthorizeUnary(self), _AuthorizeStream(self)]
        channel: grpc.aio.Channel = open_aio_channel(
            endpoint, self.settings.channel_options, AttemptRegistry(), interceptors
        )
        self.registry.raw_channels.append((channel, asyncio.get_running_loop()))
        return channel

    async def authorized(self, details: Any) -> dict[str, Any]:
        """Return the metadata of a raw call plus those of the client, and its timeout less the wait for a token."""
        limited = (details.timeout or 0.0) > 0.0  # gRPC itself rejects a timeout that is not positive
        call = self.begin(
            TextGenerationService.Completion, "raw", CallOptions(details.timeout) if limited else CallOptions()
        )
        self.registry.add_call(call)
        try:
            self.check_open()
            header = self.header_or_future(call)
            if isinstance(header, Future):
                await self._wait_for_token(call, header)
                header = header.result()
        finally:
            self.registry.in_flight.discard(call)
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *call.attempt(header).metadata)
        return {"metadata": metadata, "timeout": call.remaining() if limited else details.timeout}


class _Authorize:
    """Adds the metadata of the client to the calls of the raw stubs."""

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


def _deserialization_error() -> grpc.aio.AioRpcError:
    """Return the error for a message that is not valid protobuf. Synchronous calls of gRPC raise it themselves."""
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "Exception deserializing response!")


async def _single_message(rpc: Any) -> AsyncGenerator[Any, None]:
    """Yield the answer of a unary call."""
    yield await rpc


async def _received_metadata(rpc: Any) -> ReceivedMetadata:
    """Return the initial and trailing metadata; none if an interceptor has returned an object without them."""
    try:
        return ReceivedMetadata(await rpc.initial_metadata(), await rpc.trailing_metadata())
    except AttributeError:
        return NO_METADATA
