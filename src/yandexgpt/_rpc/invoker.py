"""What makes the calls of the synchronous client: everything about a call that waits."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import grpc

from yandexgpt._concurrency import fork_safety
from yandexgpt._concurrency.threads import AutoResetEvent
from yandexgpt._rpc import failures
from yandexgpt._rpc.call import Answer, CallOptions, new_call
from yandexgpt._rpc.channels import SINGLE_THREADED, open_channel
from yandexgpt._rpc.client_state import ClientState
from yandexgpt._rpc.conflate import conflate
from yandexgpt._rpc.failures import code_of
from yandexgpt._rpc.grpc_call import FAILURES, free, give_up, received, underlying, went_silent
from yandexgpt._rpc.iam import IamExchange
from yandexgpt._rpc.interceptors import Attempts, check_interceptors, replaced
from yandexgpt._rpc.methods import TextGenerationService, TokenizerService
from yandexgpt._rpc.raw import Raw
from yandexgpt._rpc.registry import ChannelRegistry
from yandexgpt.errors import APIError, ConfigurationError

if TYPE_CHECKING:
    from yandexgpt._concurrency.limiter import Limiter
    from yandexgpt._config import Settings
    from yandexgpt._endpoint import Endpoint
    from yandexgpt._models import CompletionResponse
    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.channel_pool import ChannelPool, PooledChannel
    from yandexgpt._rpc.methods import Method

__all__ = ["Invoker"]

RECHECK_SECONDS = 0.5
"""How long a call waits for others at a time before it looks again: who is collected wakes nobody."""


class Invoker:
    """Makes the calls of one client.

    Args:
        settings: the client's.
        parent: the invoker of the client that this one came from by ``with_options``; what did not change is shared.
    """

    def __init__(self, settings: Settings, parent: Invoker | None) -> None:
        check_interceptors(settings.interceptors, for_aio=False)
        self.settings = settings
        self.state: ClientState = ClientState(settings, parent.state if parent else None)
        self.owns_registry = parent is None or parent.settings.connection_key != settings.connection_key
        self.registry: ChannelRegistry = (
            ChannelRegistry(settings) if parent is None or self.owns_registry else parent.registry
        )
        self.closed = False
        self._raw: tuple[int, Raw] | None = None

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

    def close(self) -> None:
        """End what is in flight and close the connection; if that is another client's, end the calls of this one."""
        self.closed = True
        if self.owns_registry:
            self.registry.close()
        else:
            self.registry.cancel(self.state)

    def pause(self, seconds: float) -> None:
        """Wait between two calls; the end of the client ends the wait.

        Raises:
            CancelledError: the client was closed meanwhile.
        """
        event = AutoResetEvent()
        self.registry.pauses[event] = self.state
        try:
            if not (self.closed or self.registry.closed):
                event.wait(seconds)
        finally:
            self.registry.pauses.pop(event, None)
        if self.closed or self.registry.closed:
            raise failures.closed_meanwhile(self.settings.operation_endpoint.target)

    def connect(self, timeout: float | None) -> None:
        """Open the connection to the service, by asking it for its health; whatever it answers, it is there.

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
        ended = False
        try:
            pooled = pool.acquire(call)
            rpc = pooled.start(call, _check_health, call.remaining())
            call.started(underlying(rpc))
            for _ in _one(rpc):
                pass
            ended = True
        except FAILURES as error:
            ended = True
            if call.cancelled:
                raise call.cancelled_locally() from error
            if code_of(error).name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise call.not_connected() from error
        finally:
            self._end_attempt(pool, pooled, call, None, rpc, ended=ended, reading=True)
            self.registry.in_flight.discard(call)

    def raw(self) -> Raw:
        """The generated stubs for this process."""
        self.check_open()
        here = os.getpid()  # a forked child needs channels of its own
        if self._raw is None or self._raw[0] != here:
            self._raw = here, Raw(self.settings, self.check_open, self._open_raw_channel)
        return self._raw[1]

    def unary(self, method: Method, request: Any, options: CallOptions) -> Answer:
        """Make a call, and wait for its answer: of a stream the last message.

        Raises:
            APIError: the call failed.
        """
        return self._answer(self.begin(method, method.subject(request), options), request)

    def _answer(self, call: Call, request: Any) -> Answer:
        for _ in self.messages(call, request):
            pass
        return Answer(call.answer, call.request_id, call.received)

    def stream(
        self, method: Method, request: Any, options: CallOptions, *, latest: bool
    ) -> tuple[Generator[CompletionResponse, None, None], Call]:
        """Make a call when its first message is asked for.

        Args:
            latest: hand out only the newest message that there is.
        """
        call = self.begin(method, method.subject(request), options)
        messages = self.messages(call, request)
        return (conflate(messages, call) if latest else messages), call

    def messages(self, call: Call, request: Any) -> Generator[Any, None, None]:
        """The messages of a call: attempts, until one of them has handed something out."""
        registry, method = self.registry, call.method
        limiter = self.state.limiter_of(method)
        # Whatever is taken here is given back by the call's own name: also when an interrupt comes while it is taken.
        registry.in_flight.add(call)
        try:
            self.check_open()  # only now: whoever closes the client sees the call, or the call sees that it is closed
            pool = registry.pool(call.endpoint)
            if call.max_context_tokens is not None:
                self._count(call, request)
            if limiter is not None:
                self._acquire(limiter, call)
            while True:
                authorization = self._authorization(call)
                if method.limit == "polls" and (delay := call.rate_limit_delay()):
                    registry.wait(call, AutoResetEvent(), delay)
                pooled: PooledChannel | None = None
                rpc: Any = None
                last: Any = None
                reading = True
                ended = False
                try:
                    pooled = pool.acquire(call)
                    rpc = self._begin_attempt(pooled, call, request, authorization)
                    for last in rpc if method.streams else _one(rpc):
                        reading = False
                        if not call.first_message_at:
                            call.first_message_at = time.monotonic()
                        if call.rpc is None:
                            call.started(underlying(rpc))
                        yield last
                        reading = True
                    ended = True
                    call.succeeded(last, received(call.rpc))
                    return
                except FAILURES as error:
                    ended = True
                    if call.cancelled:
                        raise call.cancelled_locally(last) from error
                    if pooled is not None and went_silent(error, last):
                        pool.evict(pooled)
                    failure = cast("grpc.RpcError", error)
                    if call.stands(failure, last):
                        return
                    delay = call.failed(failure, last)
                except APIError:
                    reading = False
                    raise
                except BaseException as error:
                    call.ended_by_caller(error)
                    raise
                finally:
                    self._end_attempt(pool, pooled, call, request, rpc, ended=ended, reading=reading)
                registry.wait(call, AutoResetEvent(), delay)
        finally:
            if limiter is not None:
                limiter.release(call)
            registry.in_flight.discard(call)

    def _begin_attempt(self, pooled: PooledChannel, call: Call, request: Any, authorization: str) -> Any:
        """Send the request; what the channel hands out is read as a stream."""
        timeout, metadata = call.attempt(authorization)
        rpc = pooled.start(call, _begin, call, request, timeout, metadata)
        if call.rpc is None:
            call.started(underlying(rpc))
        return rpc

    def _end_attempt(
        self,
        pool: ChannelPool,
        pooled: PooledChannel | None,
        call: Call,
        request: Any,
        rpc: Any,
        *,
        ended: bool,
        reading: bool,
    ) -> None:
        """Give back what an attempt had.

        Args:
            request: None for a call that is no attempt: a unary one, to connect.
            ended: gRPC has told how the call ended.
            reading: if it has not: an exception such as Ctrl-C came in the middle of gRPC's code.
        """
        call.cancel_hook = None
        whole = False
        try:
            if pooled is not None:
                pooled.calls.discard(call)
                pooled.attempts.forget(request)
            if not ended:
                give_up(rpc, call.rpc, interrupted=reading)
            if ended or not reading:
                free(call.rpc)
                whole = True
        finally:
            if not whole and pooled is not None:
                pool.interrupted(pooled, call, streamed=call.method.streams and request is not None)

    def _authorization(self, call: Call) -> str:
        """What to send as ``authorization``. A token that cannot be got is tried for again as the call is.

        Raises:
            APIError, ConfigurationError: there is none to be had.
        """
        while isinstance(header := self._header(call), Future):
            failure = self._failure(call, header)
            if failure is None:
                return header.result()
            self.registry.wait(call, AutoResetEvent(), call.token_failed(failure))
        return header

    def _header(self, call: Call) -> str | Future[str]:
        """What to send as ``authorization``, or the token that is to be waited for."""
        credentials = self.settings.credentials
        if credentials.header is not None:
            return credentials.header
        fetch = partial(credentials.fetch, IamExchange(self.settings))
        return credentials.token_cache.header(fetch, rejected=call.rejected_token)

    def _failure(self, call: Call, token: Future[str]) -> BaseException | None:
        """Wait for a token: why it could not be got, if so.

        Raises:
            DeadlineExceededError, CancelledError: the call ended before.
        """
        event = AutoResetEvent()
        token.add_done_callback(lambda _: event.set())
        if not self.registry.wait(call, event, call.remaining()):
            raise call.expired("while waiting for a token")
        return token.exception()

    def _count(self, call: Call, request: Any) -> None:
        """Count the prompt of a call before it is sent.

        Raises:
            PromptTooLongError: it does not fit.
        """
        counting = call.child_call(TokenizerService.TokenizeCompletion)
        call.cancel_hook = counting.cancel
        if call.cancelled:
            counting.cancel()
        try:
            tokens = self._answer(counting, request).message.tokens
        finally:
            call.cancel_hook = None
        call.fits(request, len(tokens))

    def _acquire(self, limiter: Limiter, call: Call) -> None:
        """Wait until the call may be made."""
        event = AutoResetEvent()
        if limiter.acquire(call, event.set):
            return
        while not limiter.holds(call):
            left = call.remaining()
            if left == 0.0:
                raise call.expired(f"in line, behind {self.state.calls_ahead(call.method)}")
            self.registry.wait(call, event, RECHECK_SECONDS if left is None else min(left, RECHECK_SECONDS))

    def _open_raw_channel(self, endpoint: Endpoint) -> grpc.Channel:
        settings = self.settings
        plain = ((SINGLE_THREADED, 0), *settings.channel_options)  # calls of the other kind are to be freed by hand
        channel = open_channel(endpoint, plain, Attempts(), settings.interceptors)
        self.registry.raw_channels.append(channel)
        return grpc.intercept_channel(channel, _Authorize(self))

    def authorized(self, details: Any) -> dict[str, Any]:
        """The metadata of a raw call, with the client's, and the time that is left after a wait for a token."""
        limited = (details.timeout or 0.0) > 0.0  # what is not, gRPC refuses itself
        call = self.begin(
            TextGenerationService.Completion, "raw", CallOptions(details.timeout) if limited else CallOptions()
        )
        self.registry.in_flight.add(call)
        try:
            self.check_open()
            header = self._header(call)
            if isinstance(header, Future):
                self._failure(call, header)
                header = header.result()
        finally:
            self.registry.in_flight.discard(call)
        self.check_open()  # the wait may have been long, and a call on a closed channel crashes the process
        metadata = (*(details.metadata or ()), *call.attempt(header).metadata)
        return {"metadata": metadata, "timeout": call.remaining() if limited else details.timeout}


class _Authorize(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the client's metadata to the calls of the raw stubs."""

    def __init__(self, invoker: Invoker) -> None:
        self._invoker = invoker

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        authorized = self._invoker.authorized(client_call_details)
        return continuation(replaced(client_call_details, **authorized), request)

    intercept_unary_stream = intercept_unary_unary


def _begin(pooled: PooledChannel, call: Call, request: Any, timeout: float | None, metadata: Any) -> Any:
    multicallable = pooled.multicallable(call.method)
    if pooled.attempts.watched:
        pooled.attempts.expect(request, call)
    begin = multicallable if call.method.streams else multicallable.future
    return begin(request, timeout=timeout, metadata=metadata)


def _check_health(pooled: PooledChannel, timeout: float | None) -> Any:
    check = pooled.channel.unary_unary("/grpc.health.v1.Health/Check")
    return check.future(b"", timeout=timeout, wait_for_ready=True)


def _one(rpc: Any) -> Iterator[Any]:
    """The answer of a unary call as a stream of one message. An interceptor may have put the answer in its place."""
    yield rpc.result() if hasattr(rpc, "result") else rpc
