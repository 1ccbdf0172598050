"""Connections: how channels are made, and which of them a call goes over."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.experimental

from yandexgpt import forks
from yandexgpt._version import __version__
from yandexgpt.errors import ConfigurationError
from yandexgpt.settings import Endpoint, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from yandexgpt.methods import Method

__all__ = ["Lane", "Lanes", "inherited", "keep_core", "open_aio_channel", "open_channel", "went_silent"]

STREAMS_PER_CONNECTION = 100
"""Calls that go over one connection at a time; for more, another is opened. HTTP/2 servers commonly allow 100 streams
a connection, and gRPC makes further calls wait in line, or has them reset, rather than open a second connection."""

_DEFAULT_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Connections are ours: two channels to one address do not end up on one connection.
    ("grpc.use_local_subchannel_pool", 1),
    # Retries are ours too (yandexgpt.retry): gRPC's own, configured from DNS or not, must not multiply them.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A dead peer is noticed by a ping, but only during calls and no more often than strict servers allow.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # After an outage gRPC would stay away for up to 120 s, longer than calls are retried; it is the retries' own
    # backoff that spares the service, and a connection attempt a second costs nobody anything.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # An answer is far smaller; the limit is against a peer gone mad (gRPC's own is 4 MB, and counts the whole text).
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.primary_user_agent", f"yandexgpt-python/{__version__}"),
)


class Lane:
    """A connection, with the number of calls that are on it."""

    __slots__ = ("_multicallables", "channel", "in_flight")

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.in_flight = 0
        self._multicallables: dict[Method, Any] = {}

    def multicallable(self, method: Method) -> Any:
        """What makes calls of a method on this connection.

        Every method is read as a stream: on the wire a unary answer is a stream of one message, and so there is one way
        to wait for an answer, to cancel it and to see how it ended.
        """
        multicallable = self._multicallables.get(method)
        if multicallable is None:
            stub = method.stub(_Streaming(self.channel))
            multicallable = self._multicallables[method] = getattr(stub, method.name)
        return multicallable


class _Streaming:
    """A channel to make stubs with whose unary methods stream."""

    def __init__(self, channel: Any) -> None:
        self.unary_unary = self.unary_stream = channel.unary_stream


class Lanes(forks.Forkable):
    """The connections to one endpoint: a call takes the first that has room, and another is opened if none has.

    Filling the first before the second lets connections that a burst has opened fall idle again.

    Attributes:
        closed: whether the channels are closed, or about to be.
        lock: held while that changes. A call on a closed channel of gRPC's single-threaded kind crashes the process,
            so synchronous calls are begun under it.
    """

    def __init__(self, open_lane: Callable[[], Any]) -> None:
        self._open = open_lane
        self._lanes: list[Lane] = []
        self.closed = False
        self.lock = threading.Lock()
        forks.register(self)

    def after_fork(self) -> None:
        """The parent's connections are not the child's, which opens its own."""
        inherited.extend(lane.channel for lane in self._lanes)
        self._lanes = []
        self.lock = threading.Lock()

    def take(self) -> Lane:
        """A connection with room, to be given back.

        Raises:
            ConfigurationError: the client was closed.
        """
        with self.lock:
            if self.closed:
                raise ConfigurationError("the client is closed")
            for lane in self._lanes:
                if lane.in_flight < STREAMS_PER_CONNECTION:
                    lane.in_flight += 1
                    return lane
            lane = Lane(self._open())
            lane.in_flight = 1
            self._lanes.append(lane)
            return lane

    def give(self, lane: Lane) -> None:
        """The call is over."""
        with self.lock:
            lane.in_flight -= 1

    def retire(self, lane: Lane) -> None:
        """Send no further calls over a connection; it closes when those on it have ended."""
        with self.lock:
            if lane in self._lanes:
                self._lanes.remove(lane)

    def drain(self) -> list[Any]:
        """The channels, to be closed; none of them is used again."""
        with self.lock:
            self.closed = True
            lanes, self._lanes = self._lanes, []
        return [lane.channel for lane in lanes]


def went_silent(error: Any) -> bool:
    """Whether a call ended at its deadline without a sign of life from the peer.

    Its connection may be dead without anybody having been told; only a keepalive, a minute later, would find out.
    """
    return error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not error.initial_metadata()


inherited: list[Any] = []
"""Channels that a forked child has inherited. Closing them there would wait for threads that exist only in the
parent, so they are kept, untouched, to the end of the process."""


def keep_core() -> None:
    """Keep gRPC itself from shutting down when its last channel goes.

    It would do so in a thread of its own, and a fork in that moment would leave the child waiting for that thread.
    """
    if not _core:
        _core.append(grpc.insecure_channel("localhost:1"))  # never connected


_core: list[grpc.Channel] = []


def open_channel(endpoint: Endpoint, options: Sequence[tuple[str, Any]], interceptors: Sequence[Any] = ()) -> Any:
    """A synchronous channel.

    Raises:
        ConfigurationError: the PEM bundle cannot be read.
    """
    merged = _options(endpoint, options)
    # Streams are then driven by the thread that reads them: less than half the CPU of gRPC's default, a thread a call.
    # The option's mere presence turns it on, whatever its value.
    single_threaded = grpc.experimental.ChannelOptions.SingleThreadedUnaryStream
    if merged.pop(single_threaded, True):
        merged[single_threaded] = 1
    credentials = _channel_credentials(endpoint)
    if credentials is None:
        channel = grpc.insecure_channel(endpoint.target, tuple(merged.items()))
    else:
        channel = grpc.secure_channel(endpoint.target, credentials, tuple(merged.items()))
    return grpc.intercept_channel(channel, *interceptors) if interceptors else channel


def open_aio_channel(endpoint: Endpoint, options: Sequence[tuple[str, Any]], interceptors: Sequence[Any] = ()) -> Any:
    """A channel of the running event loop.

    Raises:
        ConfigurationError: the PEM bundle cannot be read.
    """
    merged = tuple(_options(endpoint, options).items())
    credentials = _channel_credentials(endpoint)
    if credentials is None:
        return grpc.aio.insecure_channel(endpoint.target, merged, interceptors=list(interceptors))
    return grpc.aio.secure_channel(endpoint.target, credentials, merged, interceptors=list(interceptors))


def _options(endpoint: Endpoint, options: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    merged = dict(_DEFAULT_OPTIONS)
    if is_loopback(endpoint.target):
        merged["grpc.enable_http_proxy"] = 0  # a proxy would look for the address on its own machine
    merged.update(options)
    return merged


def _channel_credentials(endpoint: Endpoint) -> grpc.ChannelCredentials | None:
    if endpoint.tls is False:
        return None
    if endpoint.tls is True:
        return grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(root_certificates=Path(endpoint.tls).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"tls: {endpoint.tls}: {error.strerror or error}") from error
