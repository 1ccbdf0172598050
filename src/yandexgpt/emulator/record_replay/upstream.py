"""gRPC channels to the upstream service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from yandexgpt._endpoint import Endpoint, is_loopback
from yandexgpt._version import __version__

__all__ = ["Upstream"]

_CALLS_PER_CHANNEL = 10
"""A server limits the concurrent streams of a connection. gRPC would queue further calls without an error."""
_OPTIONS: tuple[tuple[str, str | int], ...] = (
    # Without this option, channels to the same address share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    # The client of the emulator decides about retries.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # gRPC waits up to 120 s before it reconnects after an outage; the clients' retries are shorter.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.primary_user_agent", f"yandexgpt-python/{__version__}"),
)


class Upstream:
    """The channels to one endpoint. Thread-safe.

    Args:
        endpoint: the address, and whether to use TLS.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._calls: dict[grpc.Channel, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A channel for one call: the first channel with capacity, or a new one."""
        with self._lock:
            channel = next((each for each, calls in self._calls.items() if calls < _CALLS_PER_CHANNEL), None)
            if channel is None:
                channel = self._open()
            self._calls[channel] = self._calls.get(channel, 0) + 1
        try:
            yield channel
        finally:
            with self._lock:
                if channel in self._calls:
                    self._calls[channel] -= 1

    def close(self) -> None:
        """Close all channels."""
        with self._lock:
            channels, self._calls = list(self._calls), {}
        for channel in channels:
            channel.close()

    def _open(self) -> grpc.Channel:
        target, tls = self._endpoint.target, self._endpoint.tls
        # A proxy would connect to the loopback address of its own machine.
        options = (*_OPTIONS, ("grpc.enable_http_proxy", 0)) if is_loopback(target) else _OPTIONS
        if tls is False:
            return grpc.insecure_channel(target, options)
        root_certificates = Path(tls).read_bytes() if isinstance(tls, str) else None
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(root_certificates), options)
