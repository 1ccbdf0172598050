"""How channels are opened: their options, their credentials, and what gevent and forks demand."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.experimental
from grpc import _channel
from grpc._cython import cygrpc

from yandexgpt._concurrency import fork_safety
from yandexgpt._endpoint import is_loopback
from yandexgpt._rpc.grpc_call import CAN_FREE
from yandexgpt._rpc.interceptors import (
    AsyncInnermostStream,
    AsyncInnermostUnary,
    Attempts,
    Innermost,
    asynchronous,
    synchronous,
)
from yandexgpt._version import __version__
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from yandexgpt._endpoint import Endpoint

__all__ = [
    "SINGLE_THREADED",
    "STREAMS_PER_CHANNEL",
    "check_aio",
    "grpc_channel",
    "inherited",
    "keep_core",
    "open_aio_channel",
    "open_channel",
]

_SCALES = tuple(map(int, grpc.__version__.split(".")[:2])) >= (1, 84)
"""Whether gRPC opens another connection when the server allows no further stream on the first. Before, calls wait for
a stream, in silence, and nobody is told how many streams the server allows."""


_CONNECTIONS_PER_CHANNEL = 10


STREAMS_PER_CHANNEL = 100 if _SCALES else 10
"""Calls that go over one channel at a time; for more, another is opened. HTTP/2 servers commonly allow 100 streams a
connection; where a server allows fewer, and gRPC cannot help, calls would wait behind each other."""


_DEFAULT_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Connections are ours: two channels to one address do not end up on one connection.
    ("grpc.use_local_subchannel_pool", 1),
    # Retries are ours too (yandexgpt.retry): gRPC's own, configured from DNS or not, must not multiply them.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.service_config", f'{{"connectionScaling": {{"maxConnectionsPerSubchannel": {_CONNECTIONS_PER_CHANNEL}}}}}'),
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


SINGLE_THREADED = grpc.experimental.ChannelOptions.SingleThreadedUnaryStream


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


def open_channel(
    endpoint: Endpoint,
    options: Sequence[tuple[str, Any]],
    attempts: Attempts,
    interceptors: Sequence[Any] = (),
) -> Any:
    """A synchronous channel.

    Args:
        attempts: what makes the calls behind interceptors known to those who make them.
        interceptors: of either kind; the synchronous ones are used.

    Raises:
        ConfigurationError: the PEM bundle cannot be read; or gevent's threads are in use, and gRPC does not know.
    """
    _check_gevent()
    merged = _options(endpoint, options)
    # Streams are then driven by the thread that reads them, rather than by a thread for each call. Only where nobody
    # stands between this package and gRPC: such a call raises in code() before its end, and is to be freed by hand. Nor
    # under gevent, where each reader would hold a thread of its pool.
    # The option's mere presence turns it on, whatever its value.
    single_threaded = merged.pop(SINGLE_THREADED, 1) and CAN_FREE and not _gevent_is_known()
    own = list(synchronous(interceptors))
    if single_threaded and not own:
        channel = _open(endpoint, {**merged, SINGLE_THREADED: 1})
        if type(channel) is _channel.Channel:
            return channel
        channel.close()  # instrumentation has put itself in gRPC's place
    channel = _open(endpoint, merged)
    innermost = Innermost(attempts)
    if type(channel) is _channel.Channel or not _put_below(channel, innermost):
        own = [*own, innermost] if own else []
    return grpc.intercept_channel(channel, *own) if own else channel


def _put_below(channel: Any, innermost: Innermost) -> bool:
    """Put an interceptor below those of an instrumentation, which has wrapped the channel before we get it.

    Returns:
        Whether it could be done: the wrappers known have gRPC's channel in ``_channel``, and read it for each call.
    """
    wrapper, inner = channel, getattr(channel, "_channel", None)
    while inner is not None and type(inner) is not _channel.Channel:
        wrapper, inner = inner, getattr(inner, "_channel", None)
    if inner is None:
        return False
    wrapper._channel = grpc.intercept_channel(inner, innermost)
    return True


def grpc_channel(channel: Any) -> Any:
    """gRPC's own channel, behind its wrappers; None if there is none, or it is not known."""
    while channel is not None and type(channel) is not _channel.Channel:
        channel = getattr(channel, "_channel", None)
    return channel


def _gevent_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _gevent_is_known() -> bool:
    return bool(getattr(cygrpc, "g_gevent_activated", True)) and "gevent" in sys.modules


def _check_gevent() -> None:
    if _gevent_patched() and not _gevent_is_known():
        raise ConfigurationError(
            "gevent has patched threading, and gRPC does not know: call grpc.experimental.gevent.init_gevent() after "
            "gevent.monkey.patch_all()"
        )


def check_aio() -> None:
    """Refuse to use ``grpc.aio`` where it hangs.

    Raises:
        ConfigurationError: gevent has patched threading, and grpc.aio needs a thread that is one.
    """
    if _gevent_patched():
        raise ConfigurationError(
            "gevent has patched threading, and grpc.aio, which AsyncClient and complete_many() use, hangs then: make "
            "calls by Client.complete() in greenlets, such as gevent.pool.Pool(10).imap_unordered(client.complete, ...)"
        )


def _open(endpoint: Endpoint, options: dict[str, Any]) -> Any:
    credentials = _channel_credentials(endpoint)
    if credentials is None:
        return grpc.insecure_channel(endpoint.target, tuple(options.items()))
    return grpc.secure_channel(endpoint.target, credentials, tuple(options.items()))


def open_aio_channel(
    endpoint: Endpoint,
    options: Sequence[tuple[str, Any]],
    attempts: Attempts,
    interceptors: Sequence[Any] = (),
) -> Any:
    """A channel of the running event loop. Of the interceptors the asynchronous ones are used.

    Raises:
        ConfigurationError: the PEM bundle cannot be read; or as for :func:`check_aio`.
    """
    check_aio()
    fork_safety.collect_garbage_before_fork()  # calls behind interceptors are in cycles, and keep gRPC's thread busy
    merged = tuple(_options(endpoint, options).items())
    credentials = _channel_credentials(endpoint)
    own = [*asynchronous(interceptors)]
    if own:
        own += [AsyncInnermostUnary(attempts), AsyncInnermostStream(attempts)]
    if credentials is None:
        return grpc.aio.insecure_channel(endpoint.target, merged, interceptors=own)
    return grpc.aio.secure_channel(endpoint.target, credentials, merged, interceptors=own)


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
