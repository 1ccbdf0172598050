"""Makes the calls of the synchronous client: all code of a call that blocks."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, cast

import grpc

from yandexgpt._concurrency.threads import AutoResetEvent
from yandexgpt._rpc.base_invoker import BaseInvoker
from yandexgpt._rpc.call import Answer, CallOptions
from yandexgpt._rpc.channels import SINGLE_THREADED, open_channel
from yandexgpt._rpc.conflate import conflate
from yandexgpt._rpc.failures import code_of
from yandexgpt._rpc.grpc_call import (
    CALL_ERRORS,
    cancel_unfinished,
    cancellable_rpc,
    free_rpc,
    peer_was_silent,
    received_metadata,
)
from yandexgpt._rpc.interceptors import AttemptRegistry, check_interceptors, replace_details
from yandexgpt._rpc.methods import TextGenerationService, TokenizerService
from yandexgpt._rpc.raw import Raw
from yandexgpt._rpc.registry import ChannelRegistry
from yandexgpt.errors import APIError

if TYPE_CHECKING:
    from yandexgpt._concurrency.limiter import Limiter
    from yandexgpt._config import Settings
    from yandexgpt._endpoint import Endpoint
    from yandexgpt._models import CompletionResponse
    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.channel_pool import ChannelPool, PooledChannel
    from yandexgpt._rpc.methods import Method

__all__ = ["Invoker"]

LIMITER_POLL_INTERVAL = 0.5
"""Seconds between two polls of the limiter: a holder that is garbage-collected does not notify the calls that wait."""


class Invoker(BaseInvoker[ChannelRegistry]):
    """Makes the calls of one client.

    Args:
        settings: of the client.
        parent: the invoker of the client whose ``with_options`` created this one, or None. State that depends on
            unchanged settings is shared with it.
    """

    def __init__(self, settings: Settings, parent: Invoker | None) -> None:
        check_interceptors(settings.interceptors, for_aio=False)
        super().__init__(settings, parent, ChannelRegistry)
        self._raw: tuple[int, Raw] | None = None

    def close(self) -> None:
        """Cancel all calls on the connection, and close it.

        If another client has opened the connection, only cancel the calls of this client.
        """
        self.closed = True
        if self.owns_registry:
            self.registry.close()
        else:
            self.registry.cancel(self.state)

    def pause(self, seconds: float) -> None:
        """Wait between two calls. Closing the client ends the wait.

        Args:
            seconds: how long to wait.

        Raises:
            CancelledError: the client was closed meanwhile.
        """
        event = AutoResetEvent()
        self.registry.pauses[event] = self.state
        try:
            if not self.is_closed:
                event.wait(seconds)
        finally:
            self.registry.pauses.pop(event, None)
        self.check_not_closed_in_pause()

    def connect(self, timeout: float | None) -> None:
        """Open the connection to the service by a health check. Any response means that the connection is open.

        Raises:
            UnavailableError: it was not open in time.
        """
        call = self.begin(
            TextGenerationService.Completion, "connect", CallOptions() if timeout is None else CallOptions(timeout)
        )
        self.registry.in_flight.add(call)
        pool = self.registry.pool(call.endpoint)
        pooled: PooledChannel | None = None
        rpc: Any = None
        rpc_ended = False
        try:
            pooled = pool.acquire(call)
            rpc = pooled.start(call, _check_health, call.remaining())
            call.attach_rpc(cancellable_rpc(rpc))
            for _ in _single_message(rpc):
                pass
            rpc_ended = True
        except CALL_ERRORS as error:
            rpc_ended = True
            if call.cancelled:
                raise call.cancelled_error() from error
            if code_of(error).name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise call.not_connected_error() from error
        finally:
            self._end_attempt(pool, pooled, call, None, rpc, rpc_ended=rpc_ended, in_grpc=True)
            self.registry.in_flight.discard(call)

    def raw(self) -> Raw:
        """Return the generated stubs for this process."""
        self.check_open()
        process_id = os.getpid()  # the child of a fork needs new channels
        if self._raw is None or self._raw[0] != process_id:
            self._raw = process_id, Raw(self.settings, self.check_open, self._open_raw_channel)
        return self._raw[1]

    def unary(self, method: Method, request: Any, options: CallOptions) -> Answer:
        """Make a call, and return its answer: for a stream, the last message.

        Raises:
            APIError: the call failed.
        """
        return self._read_answer(self.begin(method, method.subject(request), options), request)

    def _read_answer(self, call: Call, request: Any) -> Answer:
        for _ in self.messages(call, request):
            pass
        return Answer(call.answer, call.request_id, call.received_metadata)

    def stream(
        self, method: Method, request: Any, options: CallOptions, *, latest: bool
    ) -> tuple[Generator[CompletionResponse, None, None], Call]:
        """Create a call, and return its messages. The request is sent when the first message is read.

        Args:
            latest: return only the newest message that is available.
        """
        call = self.begin(method, method.subject(request), options)
        messages = self.messages(call, request)
        return (conflate(messages, call) if latest else messages), call

    def messages(self, call: Call, request: Any) -> Generator[Any, None, None]:
        """Yield the messages of a call. Attempts are retried until one of them has yielded a message."""
        registry, method = self.registry, call.method
        limiter = self.state.limiter_for(method)
        # Resources are keyed by the call, so they are released even if an interrupt comes while they are acquired.
        registry.in_flight.add(call)
        try:
            self.check_open()  # after the registration: close() sees the call, or this sees close()
            pool = registry.pool(call.endpoint)
            if call.max_context_tokens is not None:
                self._check_prompt_length(call, request)
            if limiter is not None:
                self._acquire_limiter(limiter, call)
            while True:
                authorization = self._authorization(call)
                if method.limit == "polls" and (delay := call.rate_limit_delay()):
                    registry.wait(call, AutoResetEvent(), delay)
                pooled: PooledChannel | None = None
                rpc: Any = None
                last: Any = None
                # A signal handler may raise an exception at any line. What must be done then depends on where.
                in_grpc = True  # the running code may be gRPC's, and may have left one of gRPC's locks acquired
                rpc_ended = False  # gRPC has returned the status: nothing is left to cancel
                try:
                    pooled = pool.acquire(call)
                    rpc = self._begin_attempt(pooled, call, request, authorization)
                    for last in rpc if method.streams else _single_message(rpc):
                        in_grpc = False
                        if not call.first_message_at:
                            call.first_message_at = time.monotonic()
                        if call.rpc is None:
                            call.attach_rpc(cancellable_rpc(rpc))
                        yield last
                        in_grpc = True
                    rpc_ended = True
                    call.succeeded(last, received_metadata(call.rpc))
                    return
                except CALL_ERRORS as error:
                    rpc_ended = True
                    if call.cancelled:
                        raise call.cancelled_error(last) from error
                    if pooled is not None and peer_was_silent(error, last):
                        pool.evict(pooled)
                    if call.complete_despite_failure(cast("grpc.RpcError", error), last):
                        return
                    delay = call.failed(cast("grpc.RpcError", error), last)
                    error.__traceback__ = None  # gRPC raises the call object: a cycle, which would include this frame
                except APIError:
                    in_grpc = False
                    raise
                except BaseException as error:
                    call.log_end_by_caller(error)
                    raise
                finally:
                    self._end_attempt(pool, pooled, call, request, rpc, rpc_ended=rpc_ended, in_grpc=in_grpc)
                registry.wait(call, AutoResetEvent(), delay)
        finally:
            if limiter is not None:
                limiter.release(call)
            registry.in_flight.discard(call)

    def _begin_attempt(self, pooled: PooledChannel, call: Call, request: Any, authorization: str) -> Any:
        """Send the request. Return the object that the channel returned, which is read as a stream."""
        timeout, metadata = call.attempt(authorization)
        rpc = pooled.start(call, _invoke, call, request, timeout, metadata)
        if call.rpc is None:
            call.attach_rpc(cancellable_rpc(rpc))
        return rpc

    def _end_attempt(
        self,
        pool: ChannelPool,
        pooled: PooledChannel | None,
        call: Call,
        request: Any,
        rpc: Any,
        *,
        rpc_ended: bool,
        in_grpc: bool,
    ) -> None:
        """Release the resources of an attempt.

        Args:
            request: None for the unary call of :meth:`connect`, which is no attempt.
            rpc_ended: whether gRPC has returned the status of the call.
            in_grpc: whether an exception such as Ctrl-C was raised inside gRPC's code; ignored if the call has ended.
        """
        call.cancel_hook = None
        freed = False
        try:
            if pooled is not None:
                pooled.calls.discard(call)
                pooled.attempts.unregister(request)
            if not rpc_ended:
                cancel_unfinished(rpc, call.rpc, interrupted=in_grpc)
            if rpc_ended or not in_grpc:
                free_rpc(call.rpc)
                freed = True
        finally:
            if not freed and pooled is not None:
                pool.handle_interrupt(pooled, call, streamed=call.method.streams and request is not None)

    def _authorization(self, call: Call) -> str:
        """Return the ``authorization`` to send. A failure to get a token is retried as a failed attempt is.

        Raises:
            APIError, ConfigurationError: no token could be got.
        """
        while isinstance(header := self.header_or_future(call), Future):
            failure = self._wait_for_token(call, header)
            if failure is None:
                return header.result()
            self.registry.wait(call, AutoResetEvent(), call.token_failed(failure))
        return header

    def _wait_for_token(self, call: Call, token: Future[str]) -> BaseException | None:
        """Wait for a token. Return the exception of a failure, or None if there is a token.

        Raises:
            DeadlineExceededError, CancelledError: the call ended first.
        """
        event = AutoResetEvent()
        token.add_done_callback(lambda _: event.set())
        if not self.registry.wait(call, event, call.remaining()):
            raise call.deadline_error("while waiting for a token")
        return token.exception()

    def _check_prompt_length(self, call: Call, request: Any) -> None:
        """Count the tokens of the prompt before it is sent.

        Raises:
            PromptTooLongError: it exceeds ``max_context_tokens``.
        """
        counting = call.child_call(TokenizerService.TokenizeCompletion)
        call.cancel_hook = counting.cancel
        if call.cancelled:
            counting.cancel()
        try:
            tokens = self._read_answer(counting, request).message.tokens
        finally:
            call.cancel_hook = None
        call.check_prompt_length(request, len(tokens))

    def _acquire_limiter(self, limiter: Limiter, call: Call) -> None:
        """Acquire the limiter for the call."""
        event = AutoResetEvent()
        if limiter.acquire(call, event.set):
            return
        while not limiter.holds(call):
            left = call.remaining()
            if left == 0.0:
                raise call.deadline_error(f"in line, behind {self.state.describe_limiter_holders(call.method)}")
            self.registry.wait(call, event, LIMITER_POLL_INTERVAL if left is None else min(left, LIMITER_POLL_INTERVAL))

    def _open_raw_channel(self, endpoint: Endpoint) -> grpc.Channel:
        settings = self.settings
        channel_options = (
            (SINGLE_THREADED, 0),
            *settings.channel_options,
        )  # single-threaded calls must be freed explicitly
        channel = open_channel(endpoint, channel_options, AttemptRegistry(), settings.interceptors)
        self.registry.raw_channels.append(channel)
        return grpc.intercept_channel(channel, _Authorize(self))

    def authorized(self, details: Any) -> dict[str, Any]:
        """Return the metadata of a raw call plus those of the client, and its timeout less the wait for a token."""
        limited = (details.timeout or 0.0) > 0.0  # gRPC itself rejects a timeout that is not positive
        call = self.begin(
            TextGenerationService.Completion, "raw", CallOptions(details.timeout) if limited else CallOptions()
        )
        self.registry.in_flight.add(call)
        try:
            self.check_open()
            header = self.header_or_future(call)
            if isinstance(header, Future):
                self._wait_for_token(call, header)
                header = header.result()
        finally:
            self.registry.in_flight.discard(call)
        self.check_open()  # it may have been closed during the wait, and a call on a closed channel crashes the process
        metadata = (*(details.metadata or ()), *call.attempt(header).metadata)
        return {"metadata": metadata, "timeout": call.remaining() if limited else details.timeout}


class _Authorize(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the metadata of the client to the calls of the raw stubs."""

    def __init__(self, invoker: Invoker) -> None:
        self._invoker = invoker

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        authorized = self._invoker.authorized(client_call_details)
        return continuation(replace_details(client_call_details, **authorized), request)

    intercept_unary_stream = intercept_unary_unary


def _invoke(pooled: PooledChannel, call: Call, request: Any, timeout: float | None, metadata: Any) -> Any:
    multicallable = pooled.multicallable(call.method)
    if pooled.attempts.enabled:
        pooled.attempts.register(request, call)
    begin = multicallable if call.method.streams else multicallable.future
    return begin(request, timeout=timeout, metadata=metadata)


def _check_health(pooled: PooledChannel, timeout: float | None) -> Any:
    check = pooled.channel.unary_unary("/grpc.health.v1.Health/Check")
    return check.future(b"", timeout=timeout, wait_for_ready=True)


def _single_message(rpc: Any) -> Iterator[Any]:
    """Yield the answer of a unary call. An interceptor may have returned the answer itself instead of the call."""
    yield rpc.result() if hasattr(rpc, "result") else rpc
