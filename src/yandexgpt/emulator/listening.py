"""Where the emulator listens: addresses, free ports, and the certificates it serves TLS with."""

from __future__ import annotations

import socket

__all__ = ["address", "bind", "check_free", "connectable_host", "is_any_address"]

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound


def address(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connectable_host(host: str) -> str:
    """The host by which a client on this machine reaches what listens on `host`."""
    return _ANY_ADDRESS.get(host, host)


def is_any_address(host: str) -> bool:
    """Whether `host` means every address of this machine."""
    return host in _ANY_ADDRESS


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, to be listened on.

    Raises:
        OSError: it cannot be; ``filename`` is the address.
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
    """Try the address first, because gRPC prints a trace of its own on the way to its error.

    Raises:
        OSError: it cannot be listened on; ``filename`` is the address.
    """
    bind(host, port).close()
