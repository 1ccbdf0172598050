"""Listening sockets: addresses and free ports."""

from __future__ import annotations

import socket

__all__ = ["address", "bind", "check_free", "connectable_host", "is_any_address"]

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here


def address(host: str, port: int) -> str:
    """``host:port``; an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connectable_host(host: str) -> str:
    """The host that a client on this machine can connect to if the server listens on `host`."""
    return _ANY_ADDRESS.get(host, host)


def is_any_address(host: str) -> bool:
    """Whether `host` is the wildcard address, which means all addresses of this machine."""
    return host in _ANY_ADDRESS


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address. It does not listen yet.

    Raises:
        OSError: the address cannot be bound; ``filename`` is the address.
    """
    family, kind, protocol, _, resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(resolved)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, error.strerror, address(host, port)) from None
    return bound


def check_free(host: str, port: int) -> None:
    """Bind the address and close the socket. gRPC would log a traceback if the address is in use.

    Raises:
        OSError: the address cannot be bound; ``filename`` is the address.
    """
    bind(host, port).close()
