"""Opens channels: their options and credentials, and workarounds for gevent and forks."""

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
from yandexgpt._rpc.grpc_call import CAN_FREE_RPC
from yandexgpt._rpc.interceptors import (
    AsyncInnermostStream,
    AsyncInnermostUnary,
    AttemptRegistry,
    Innermost,
    aio_interceptors,
    sync_interceptors,
)
from yandexgpt._version import __version__
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from yandexgpt._endpoint import Endpoint

__all__ = [
    "SINGLE_THREADED",
    "STREAMS_PER_CHANNEL",
    "channels_of_parent",
    "check_aio",
    "grpc_channel",
    "keep_grpc_core_alive",
    "open_aio_channel",
    "open_channel",
]

_SCALES_CONNECTIONS = tuple(map(int, grpc.__version__.split(".")[:2])) >= (1, 84)
"""Whether gRPC opens another connection when the server allows no further stream on the first. Before gRPC 1.84, a call
waits for a free stream without any notice, and the client cannot read how many streams the server allows."""


_CONNECTIONS_PER_CHANNEL = 10


STREAMS_PER_CHANNEL = 100 if _SCALES_CONNECTIONS else 10
"""The maximum number of calls in flight on one channel; for more, another channel is opened. HTTP/2 servers commonly
allow 100 streams per connection. If a server allows fewer, and gRPC does not open more connections, calls would wait
for each other."""


_DEFAULT_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Each channel has its own connection: otherwise two channels to one address would share a subchannel.
    ("grpc.use_local_subchannel_pool", 1),
    # This package retries calls itself (yandexgpt.Retry). Retries by gRPC, configured in DNS or not, must not multiply
    # them.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.service_config", f'{{"connectionScaling": {{"maxConnectionsPerSubchannel": {_CONNECTIONS_PER_CHANNEL}}}}}'),
    # A ping detects a dead peer, but only during calls and no more often than strict servers allow.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # After an outage gRPC would back off for up to 120 s, longer than calls are retried. The backoff of the retries
    # already limits the load on the service, and one connection attempt per second costs next to nothing.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Protection against a faulty peer: answers are far smaller. The default of gRPC is 4 MB, and each message of a
    # stream holds the whole text so far.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.primary_user_agent", f"yandexgpt-python/{__version__}"),
)


SINGLE_THREADED = grpc.experimental.ChannelOptions.SingleThreadedUnaryStream


channels_of_parent: list[Any] = []
"""Channels that the child of a fork inherited from its parent. Closing them would wait for threads that exist only in
the parent, so they are kept alive, and not used, until the process exits."""


def keep_grpc_core_alive() -> None:
    """Prevent gRPC from shutting down its core when the last channel is freed.

    gRPC shuts it down in a new thread. If a fork happens at that moment, the child waits for that thread forever.
    """
    if not _core_keeper:
        _core_keeper.append(grpc.insecure_channel("localhost:1"))  # never connected


_core_keeper: list[grpc.Channel] = []


def open_channel(
    endpoint: Endpoint,
    options: Sequence[tuple[str, Any]],
    attempts: AttemptRegistry,
    interceptors: Sequence[Any] = (),
) -> Any:
    """Open a synchronous channel.

    Args:
        attempts: maps requests to calls, for the interceptor of this package below the other interceptors.
        interceptors: of either kind; the synchronous ones are used.

    Raises:
        ConfigurationError: the PEM bundle cannot be read; or gevent has patched threading, but gRPC is not set up
            for it.
    """
    _check_gevent()
    merged = _merged_options(endpoint, options)
    # With this option the thread that reads a stream also drives it; otherwise gRPC starts a thread per call. It is not
    # used if there are interceptors or instrumentation between this package and gRPC: code() of such a call raises
    # before its end, and the call must be freed explicitly. It is not used under gevent either, where each reader would
    # occupy a thread of its pool.
    # gRPC enables the option if it is present, whatever its value.
    single_threaded = merged.pop(SINGLE_THREADED, 1) and CAN_FREE_RPC and not _grpc_uses_gevent()
    chain = list(sync_interceptors(interceptors))
    if single_threaded and not chain:
        channel = _create(endpoint, {**merged, SINGLE_THREADED: 1})
        if type(channel) is _channel.Channel:
            return channel
        channel.close()  # instrumentation has replaced gRPC's channel
    channel = _create(endpoint, merged)
    innermost = Innermost(attempts)
    if type(channel) is _channel.Channel or not _insert_below_wrappers(channel, innermost):
        chain = [*chain, innermost] if chain else []
    return grpc.intercept_channel(channel, *chain) if chain else channel


def _insert_below_wrappers(channel: Any, innermost: Innermost) -> bool:
    """Insert an interceptor below the wrappers of instrumentation, which has wrapped the channel when it was created.

    Returns:
        Whether it was inserted. Known wrappers have gRPC's channel in ``_channel``, which they read for each call.
    """
    wrapper, inner = channel, getattr(channel, "_channel", None)
    while inner is not None and type(inner) is not _channel.Channel:
        wrapper, inner = inner, getattr(inner, "_channel", None)
    if inner is None:
        return False
    wrapper._channel = grpc.intercept_channel(inner, innermost)
    return True


def grpc_channel(channel: Any) -> Any:
    """Return gRPC's channel, below its wrappers; None if there is none, or it is unknown."""
    while channel is not None and type(channel) is not _channel.Channel:
        channel = getattr(channel, "_channel", None)
    return channel


def _gevent_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _grpc_uses_gevent() -> bool:
    return bool(getattr(cygrpc, "g_gevent_activated", True)) and "gevent" in sys.modules


def _check_gevent() -> None:
    if _gevent_patched() and not _grpc_uses_gevent():
        raise ConfigurationError(
            "gevent has patched threading, and gRPC does not know: call grpc.experimental.gevent.init_gevent() after "
            "gevent.monkey.patch_all()"
        )


def check_aio() -> None:
    """Refuse to use ``grpc.aio`` where it would deadlock.

    Raises:
        ConfigurationError: gevent has patched threading, and grpc.aio needs a real thread.
    """
    if _gevent_patched():
        raise ConfigurationError(
            "gevent has patched threading, and grpc.aio, which AsyncClient and complete_many() use, hangs then: make "
            "calls by Client.complete() in greenlets, such as gevent.pool.Pool(10).imap_unordered(client.complete, ...)"
        )


def _create(endpoint: Endpoint, options: dict[str, Any]) -> Any:
    credentials = _channel_credentials(endpoint)
    if credentials is None:
        return grpc.insecure_channel(endpoint.target, tuple(options.items()))
    return grpc.secure_channel(endpoint.target, credentials, tuple(options.items()))


def open_aio_channel(
    endpoint: Endpoint,
    options: Sequence[tuple[str, Any]],
    attempts: AttemptRegistry,
    interceptors: Sequence[Any] = (),
) -> Any:
    """Open a channel in the running event loop. Of the interceptors the asynchronous ones are used.

    Raises:
        ConfigurationError: the PEM bundle cannot be read; or as for :func:`check_aio`.
    """
    check_aio()
    # Calls with interceptors are in reference cycles, and keep gRPC's thread running until they are freed.
    fork_safety.collect_garbage_before_fork()
    merged = tuple(_merged_options(endpoint, options).items())
    credentials = _channel_credentials(endpoint)
    chain = [*aio_interceptors(interceptors)]
    if chain:
        chain += [AsyncInnermostUnary(attempts), AsyncInnermostStream(attempts)]
    if credentials is None:
        return grpc.aio.insecure_channel(endpoint.target, merged, interceptors=chain)
    return grpc.aio.secure_channel(endpoint.target, credentials, merged, interceptors=chain)


def _merged_options(endpoint: Endpoint, options: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    merged = dict(_DEFAULT_OPTIONS)
    if is_loopback(endpoint.target):
        merged["grpc.enable_http_proxy"] = 0  # a proxy would resolve the loopback address to itself
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
