"""Where the emulator listens: addresses, free ports, and the certificates it serves TLS with."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import grpc

from yandexgpt.emulator.certificates import issue

__all__ = ["TlsFiles", "address", "bind", "check_free", "reachable"]

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound


def address(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(host: str) -> str:
    """The host by which a client on this machine reaches what listens on `host`."""
    return _ANY_ADDRESS.get(host, host)


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


class TlsFiles:
    """A certificate for a host, signed by an authority of its own, in a temporary folder.

    Args:
        host: the name or address to be certified, besides localhost, 127.0.0.1, ::1 and the service's own hosts.

    Attributes:
        authority: the file that clients are to trust.
        certificate, key: the server's own.

    Raises:
        ImportError: the extra ``yandexgpt[emulator]`` is not installed.
    """

    def __init__(self, host: str) -> None:
        made = issue([] if host in _ANY_ADDRESS else [host])
        self._folder = tempfile.TemporaryDirectory(prefix="yandexgpt-emulator-")
        folder = Path(self._folder.name)
        self.authority, self.certificate, self.key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
        try:
            self.authority.write_bytes(made.authority)
            self.certificate.write_bytes(made.server)
            self.key.write_bytes(made.server_key)
        except BaseException:
            self.close()
            raise

    def credentials(self) -> grpc.ServerCredentials:
        """The certificate for a gRPC server."""
        return grpc.ssl_server_credentials([(self.key.read_bytes(), self.certificate.read_bytes())])

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()
