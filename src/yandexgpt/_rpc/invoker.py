"""How the synchronous client makes its calls: everything about a call that waits."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import grpc

from yandexgpt import errors
from yandexgpt._checks import Metadata
from yandexgpt._concurrency import fork_safety as forks
from yandexgpt._concurrency.threads import Alarm
from yandexgpt._concurrency.weak_registry import Holders
from yandexgpt._config import UNSET, Endpoint, Settings, Unset
from yandexgpt._rpc import failures
from yandexgpt._rpc.call import CallFactory
from yandexgpt._rpc.channels import (
    FAILURES,
    SINGLE_THREADED,
    Attempts,
    ChannelPool,
    check_interceptors,
    free,
    give_up,
    inherited,
    open_channel,
    received,
    replaced,
    underlying,
    went_silent,
)
from yandexgpt._rpc.failures import code_of
from yandexgpt._rpc.iam import IamExchange
from yandexgpt._rpc.methods import GENERATE, TOKENIZE_PROMPT
from yandexgpt._rpc.raw import Raw
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from yandexgpt._checks import Metadata
    from yandexgpt._concurrency.limiter import Limiter
    from yandexgpt._rpc.batch import Engine
    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.channels import PooledChannel
    from yandexgpt._rpc.methods import Method

__all__ = ["Driver"]

RECHECK_SECONDS = 0.5
"""How long a call waits for others at a time before it looks again: who is collected wakes nobody."""


class Connection(forks.Forkable):
    """What a client shares with those that come of it by ``with_options``: its channels, and the calls on them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pools: dict[Endpoint, ChannelPool] = {}
        self.closed = False
        self.calls: Holders[Call] = Holders()
        self.pauses: dict[Alarm, CallFactory] = {}
        self.batches: dict[Engine, CallFactory] = {}
        self.raw_channels: list[grpc.Channel] = []
        forks.register(self)

    def before_fork(self) -> bool:
        return bool(self.calls)

    def after_fork(self) -> None:
        """The parent's calls and channels are not the child's."""
        for call in self.calls:
            call.interrupt = None  # gRPC's own locks may be held by a thread that the child does not have
        self.calls = Holders()
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

    def wait(self, call: Call, alarm: Alarm, timeout: float | None) -> bool:
        """Wait until the alarm is set, or the call is cancelled.

        Raises:
            CancelledError: the call was cancelled.
        """
        call.interrupt = alarm.set
        is_set = not call.cancelled and alarm.wait(timeout)
        call.interrupt = None
        if call.cancelled:
            raise call.ended_here()
        return is_set

    def cancel(self, factory: CallFactory | None = None) -> None:
        """End the calls that are under way, and the waits between calls, or those of one client."""
        for call in self.calls:
            if factory is None or call.factory is factory:
                call.cancel()
        for alarm in list(self.pauses):
            if factory is None or self.pauses.get(alarm) is factory:
                alarm.set()
        for batch in list(self.batches):
            if factory is None or self.batches.get(batch) is factory:
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


class Driver:
    """Makes the calls of one client.

    Args:
        settings: the client's.
        parent: the driver of the client that this one came from by ``with_options``; what did not change is shared.
    """

    def __init__(self, settings: Settings, parent: Driver | None) -> None:
        check_interceptors(settings.interceptors, for_aio=False)
        self.settings = settings
        self.calls: CallFactory = CallFactory(settings, parent.calls if parent else None)
        self.owns_connection = parent is None or parent.settings.connection != settings.connection
        self.connection: Connection = (
            Connection(settings) if parent is None or self.owns_connection else parent.connection
        )
        self.closed = False
        self._raw: tuple[int, Raw] | None = None

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

    def close(self) -> None:
        """End what is in flight and close the connection; if that is another client's, end the calls of this one."""
        self.closed = True
        if self.owns_connection:
            self.connection.close()
        else:
            self.connection.cancel(self.calls)

    def pause(self, seconds: float) -> None:
        """Wait between two calls; the end of the client ends the wait.

        Raises:
            CancelledError: the client was closed meanwhile.
        """
        alarm = Alarm()
        self.connection.pauses[alarm] = self.calls
        try:
            if not (self.closed or self.connection.closed):
                alarm.wait(seconds)
        finally:
            self.connection.pauses.pop(alarm, None)
        if self.closed or self.connection.closed:
            raise failures.closed_meanwhile(self.settings.operation_endpoint.target)

    def connect(self, timeout: float | None) -> None:
        """Open the connection to the service, by asking it for its health; whatever it answers, it is there.

        Raises:
            UnavailableError: it was not open in time.
        """
        call = self.begin(GENERATE, "connect", UNSET if timeout is None else timeout)
        self.connection.calls.add(call)
        pool = self.connection.pool(call.endpoint)
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
                raise call.ended_here() from error
            if code_of(error).name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise call.not_connected() from error
        finally:
            self._end_attempt(pool, pooled, call, None, rpc, ended=ended, reading=True)
            self.connection.calls.discard(call)

    def raw(self) -> Raw:
        """The generated stubs for this process."""
        self.check_open()
        here = os.getpid()  # a forked child needs channels of its own
        if self._raw is None or self._raw[0] != here:
            self._raw = here, Raw(self.settings, self.check_open, self._open_raw_channel)
        return self._raw[1]

    def unary(self, call: Call, request: Any) -> Any:
        """The one message of a call that has one."""
        for _ in self.responses(call, request):
            pass
        return call.answer

    def responses(self, call: Call, request: Any) -> Generator[Any, None, None]:
        """The messages of a call: attempts, until one of them has handed something out."""
        connection, method = self.connection, call.method
        limiter = self.calls.limiter_of(method)
        # Whatever is taken here is given back by the call's own name: also when an interrupt comes while it is taken.
        connection.calls.add(call)
        try:
            self.check_open()  # only now: whoever closes the client sees the call, or the call sees that it is closed
            pool = connection.pool(call.endpoint)
            if call.max_context_tokens is not None:
                self._count(call, request)
            if limiter is not None:
                self._acquire(limiter, call)
            while True:
                delay: float | None
                authorization = self._authorization(call)
                if isinstance(authorization, str):
                    if method.paced and (turn := call.turn()):
                        connection.wait(call, Alarm(), turn)
                    pooled: PooledChannel | None = None
                    rpc: Any = None
                    last: Any = None
                    reading = True
                    ended = False
                    try:
                        pooled = pool.acquire(call)
                        rpc = self._begin_attempt(pooled, call, request, authorization)
                        for last in rpc if method.generates else _one(rpc):
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
                            raise call.ended_here(last) from error
                        if pooled is not None and went_silent(error, last):
                            pool.evict(pooled)
                        delay = call.failed(cast("grpc.RpcError", error), last)
                        if delay is None:
                            return
                    except errors.APIError:
                        reading = False
                        raise
                    except BaseException as error:
                        call.abandoned(error)
                        raise
                    finally:
                        self._end_attempt(pool, pooled, call, request, rpc, ended=ended, reading=reading)
                else:
                    delay = call.token_failed(authorization)
                connection.wait(call, Alarm(), delay)
        finally:
            if limiter is not None:
                limiter.release(call)
            connection.calls.discard(call)

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
        call.interrupt = None
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
                pool.interrupted(pooled, call, streamed=call.method.generates and request is not None)

    def _authorization(self, call: Call) -> str | BaseException:
        """What to send as ``authorization``, or why there is nothing to send."""
        credentials = self.settings.credentials
        if credentials.header is not None:
            return credentials.header
        header = credentials.refresher.header(
            partial(credentials.fetch, IamExchange(self.settings)), refused=call.refused
        )
        if isinstance(header, str):
            return header
        alarm = Alarm()
        header.add_done_callback(lambda _: alarm.set())
        if not self.connection.wait(call, alarm, call.remaining()):
            raise call.expired("while waiting for a token")
        return header.exception() or header.result()

    def _count(self, call: Call, request: Any) -> None:
        """Count the prompt of a call before it is sent.

        Raises:
            PromptTooLongError: it does not fit.
        """
        counting = call.preceding(TOKENIZE_PROMPT)
        call.interrupt = counting.cancel
        if call.cancelled:
            counting.cancel()
        try:
            tokens = self.unary(counting, request).tokens
        finally:
            call.interrupt = None
        call.fits(request, len(tokens))

    def _acquire(self, limiter: Limiter, call: Call) -> None:
        """Wait until the call may be made."""
        alarm = Alarm()
        if limiter.acquire(call, alarm.set):
            return
        while not limiter.holds(call):
            left = call.remaining()
            if left == 0.0:
                raise call.expired(f"in line, behind {self.calls.ahead_of(call.method)}")
            self.connection.wait(call, alarm, RECHECK_SECONDS if left is None else min(left, RECHECK_SECONDS))

    def _open_raw_channel(self, endpoint: Endpoint) -> grpc.Channel:
        settings = self.settings
        plain = ((SINGLE_THREADED, 0), *settings.channel_options)  # calls of the other kind are to be freed by hand
        channel = open_channel(endpoint, plain, Attempts(), settings.interceptors)
        self.connection.raw_channels.append(channel)
        return grpc.intercept_channel(channel, _Authorize(self))

    def authorized(self, details: Any) -> dict[str, Any]:
        """The metadata of a raw call, with the client's, and the time that is left after a wait for a token."""
        limited = (details.timeout or 0.0) > 0.0  # what is not, gRPC refuses itself
        call = self.begin(GENERATE, "raw", details.timeout if limited else UNSET)
        self.connection.calls.add(call)
        try:
            self.check_open()
            authorization = self._authorization(call)
        finally:
            self.connection.calls.discard(call)
        if not isinstance(authorization, str):
            raise authorization
        self.check_open()  # the wait may have been long, and a call on a closed channel crashes the process
        metadata = (*(details.metadata or ()), *call.attempt(authorization).metadata)
        return {"metadata": metadata, "timeout": call.remaining() if limited else details.timeout}


class _Authorize(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the client's metadata to the calls of the raw stubs."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        authorized = self._driver.authorized(client_call_details)
        return continuation(replaced(client_call_details, **authorized), request)

    intercept_unary_stream = intercept_unary_unary


def _begin(pooled: PooledChannel, call: Call, request: Any, timeout: float | None, metadata: Any) -> Any:
    multicallable = pooled.multicallable(call.method)
    if pooled.attempts.watched:
        pooled.attempts.expect(request, call)
    begin = multicallable if call.method.generates else multicallable.future
    return begin(request, timeout=timeout, metadata=metadata)


def _check_health(pooled: PooledChannel, timeout: float | None) -> Any:
    check = pooled.channel.unary_unary("/grpc.health.v1.Health/Check")
    return check.future(b"", timeout=timeout, wait_for_ready=True)


def _one(rpc: Any) -> Iterator[Any]:
    """The answer of a unary call as a stream of one message. An interceptor may have put the answer in its place."""
    yield rpc.result() if hasattr(rpc, "result") else rpc
