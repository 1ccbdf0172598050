"""How the synchronous client makes its calls: everything about a call that waits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from yandexgpt import background, errors, failures, forks
from yandexgpt.calls import CallFactory
from yandexgpt.checks import Metadata
from yandexgpt.completion import ReceivedMetadata
from yandexgpt.errors import ConfigurationError
from yandexgpt.iam import IamExchange
from yandexgpt.methods import GENERATE, TOKENIZE_PROMPT
from yandexgpt.raw import Raw, with_metadata
from yandexgpt.settings import UNSET, Endpoint, Settings, Unset
from yandexgpt.transport import Lanes, inherited, open_channel, went_silent

if TYPE_CHECKING:
    from yandexgpt.batch import Engine
    from yandexgpt.calls import Call
    from yandexgpt.checks import Metadata
    from yandexgpt.line import Line
    from yandexgpt.methods import Method

__all__ = ["Driver"]


class Connection(forks.Forkable):
    """What a client shares with those that come of it by ``with_options``: its channels, and the calls on them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lanes: dict[Endpoint, Lanes] = {}
        self.closed = False
        self.calls: set[Call] = set()
        self.pauses: dict[threading.Event, CallFactory] = {}
        self.batches: dict[Engine, CallFactory] = {}
        self.raw_channels: list[grpc.Channel] = []
        forks.register(self)

    def before_fork(self) -> bool:
        return bool(self.calls)

    def after_fork(self) -> None:
        """The parent's calls and channels are not the child's."""
        for call in self.calls:
            call.interrupt = None  # a thread that the child does not have may hold the lock that it needs
        self.calls = set()
        self.pauses = {}
        self.batches = {}
        inherited.extend(self.raw_channels)
        self.raw_channels = []

    def lanes(self, endpoint: Endpoint) -> Lanes:
        """The connections to an endpoint."""
        lanes = self._lanes.get(endpoint)
        if lanes is None:
            settings = self._settings
            opened = Lanes(partial(open_channel, endpoint, settings.channel_options, settings.interceptors))
            lanes = self._lanes.setdefault(endpoint, opened)
        return lanes

    def wait(self, call: Call, event: threading.Event, timeout: float | None) -> bool:
        """Wait for the event, or for the end of the call by somebody else's hand.

        Raises:
            CancelledError: the call was cancelled.
        """
        call.interrupt = event.set
        if not call.cancelled:
            background.wait(event, timeout)
        call.interrupt = None
        if call.cancelled:
            raise call.ended_here()
        return event.is_set()

    def cancel(self, factory: CallFactory | None = None) -> None:
        """End the calls that are under way, and the waits between calls, or those of one client."""
        for call in list(self.calls):
            if factory is None or call.factory is factory:
                call.cancel()
        for event, its in list(self.pauses.items()):
            if factory is None or its is factory:
                event.set()
        for batch, its in list(self.batches.items()):
            if factory is None or its is factory:
                batch.cancel()

    def close(self) -> None:
        """End the calls that are under way, and the connections."""
        self.closed = True
        self.cancel()
        channels = [channel for lanes in list(self._lanes.values()) for channel in lanes.drain()]
        for channel in (*channels, *self.raw_channels):
            channel.close()
        self.raw_channels.clear()


class Driver:
    """Makes the calls of one client.

    Args:
        settings: the client's.
        parent: the driver of the client that this one came from by ``with_options``; what did not change is shared.
    """

    def __init__(self, settings: Settings, parent: Driver | None) -> None:
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
        event = threading.Event()
        self.connection.pauses[event] = self.calls
        try:
            if not (self.closed or self.connection.closed):
                background.wait(event, seconds)
        finally:
            self.connection.pauses.pop(event, None)
        if self.closed or self.connection.closed:
            raise failures.closed_meanwhile(self.settings.operation_endpoint.target)

    def connect(self, timeout: float | None) -> None:
        """Open the connection to the service, by asking it for its health; whatever it answers, it is there.

        Raises:
            UnavailableError: it was not open in time.
        """
        call = self.begin(GENERATE, "connect", UNSET if timeout is None else timeout)
        lanes = self.connection.lanes(call.endpoint)
        lane = lanes.take()
        self.connection.calls.add(call)
        try:
            with lanes.lock:
                if lanes.closed:
                    raise call.ended_here()
                rpc = lane.channel.unary_stream("/grpc.health.v1.Health/Check")(
                    b"", timeout=call.remaining(), wait_for_ready=True
                )
            call.interrupt = rpc.cancel
            try:
                for _ in rpc:
                    pass
            except grpc.RpcError as error:
                if call.cancelled:
                    raise call.ended_here() from error
                if error.code().name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    raise call.not_connected() from error
        finally:
            self.connection.calls.discard(call)
            lanes.give(lane)

    def raw(self) -> Raw:
        """The generated stubs for this process."""
        self.check_open()
        here = os.getpid()  # a forked child needs channels of its own
        if self._raw is None or self._raw[0] != here:
            self._raw = here, Raw(self.settings, self._open_raw_channel)
        return self._raw[1]

    def unary(self, call: Call, request: Any) -> Any:
        """The one message of a call that has one."""
        for _ in self.responses(call, request):
            pass
        return call.answer

    def responses(self, call: Call, request: Any) -> Generator[Any, None, None]:
        """The messages of a call: attempts, until one of them has handed something out."""
        self.check_open()
        connection, method = self.connection, call.method
        lanes = connection.lanes(call.endpoint)
        line = self.calls.line_of(method)
        connection.calls.add(call)
        try:
            if call.max_context_tokens is not None:
                self._count(call, request)
            if line is not None:
                self._get_in_line(line, call)
            try:
                while True:
                    delay: float | None
                    authorization = self._authorization(call)
                    if isinstance(authorization, str):
                        if method.paced and (turn := call.turn()):
                            connection.wait(call, threading.Event(), turn)
                        lane = lanes.take()
                        rpc: Any = None
                        last: Any = None
                        try:
                            timeout, sent = call.attempt(authorization)
                            with lanes.lock:
                                if lanes.closed:
                                    raise call.ended_here()
                                rpc = lane.multicallable(method)(request, timeout=timeout, metadata=sent)
                            call.interrupt = rpc.cancel
                            if call.cancelled:
                                rpc.cancel()
                            for last in rpc:
                                if not call.first_message_at:
                                    call.first_message_at = time.monotonic()
                                yield last
                            received = ReceivedMetadata(rpc.initial_metadata(), rpc.trailing_metadata())
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
                    connection.wait(call, threading.Event(), delay)
            finally:
                if line is not None:
                    line.leave()
        finally:
            connection.calls.discard(call)

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
        event = threading.Event()
        header.add_done_callback(lambda _: event.set())
        if not self.connection.wait(call, event, call.remaining()):
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

    def _get_in_line(self, line: Line, call: Call) -> None:
        """Wait for a place in it."""
        event = threading.Event()
        waiter = line.enter(event.set)
        if waiter is None:
            return
        try:
            if not self.connection.wait(call, event, call.remaining()):
                raise call.expired(f"in line, behind {self.calls.ahead_of(call.method)}")
        except BaseException:
            line.abandon(waiter)
            raise

    def _open_raw_channel(self, endpoint: Endpoint) -> grpc.Channel:
        channel = open_channel(endpoint, self.settings.channel_options, self.settings.interceptors)
        self.connection.raw_channels.append(channel)
        return grpc.intercept_channel(channel, _Authorize(self))

    def raw_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        call = self.begin(GENERATE, "raw")
        self.connection.calls.add(call)
        try:
            authorization = self._authorization(call)
        finally:
            self.connection.calls.discard(call)
        if not isinstance(authorization, str):
            raise authorization
        self.check_open()  # the wait may have been long, and a call on a closed channel crashes the process
        return call.attempt(authorization).metadata


class _Authorize(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the client's metadata to the calls of the raw stubs."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(with_metadata(client_call_details, self._driver.raw_metadata()), request)

    intercept_unary_stream = intercept_unary_unary
