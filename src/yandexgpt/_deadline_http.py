"""An HTTP connection with one deadline for connecting, sending and receiving. ``http.client`` limits each operation."""

from __future__ import annotations

import http.client
import socket
import time
from typing import Any

__all__ = ["DeadlineConnection"]


class DeadlineConnection(http.client.HTTPConnection):
    """An HTTP connection whose ``timeout`` is for all operations together, over all addresses of the host."""

    def connect(self) -> None:
        """Connect to the host.

        Raises:
            OSError: no address accepted the connection, or the time is over.
        """
        self.sock = _connect(self.host, self.port, self.timeout or 0.0)


class _DeadlineSocket(socket.socket):
    """A socket with one deadline for all its operations, instead of a timeout for each operation."""

    deadline = 0.0
    """A time of ``time.monotonic()``."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.set_remaining_timeout()
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self.set_remaining_timeout()
        super().sendall(*args, **kwargs)

    def set_remaining_timeout(self) -> None:
        """Set the timeout of the next operation to the time until the deadline.

        Raises:
            TimeoutError: the deadline has passed.
        """
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out")
        self.settimeout(remaining)


def _connect(host: str, port: int, timeout: float) -> _DeadlineSocket:
    """Connect to the first address of the host that accepts.

    Args:
        timeout: seconds for all addresses together, and for what is later sent and received (> 0).

    Raises:
        OSError: no address accepted the connection, or the time is over.
    """
    deadline: float | None = None
    failure = OSError("it has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        deadline = time.monotonic() + timeout if deadline is None else deadline
        connection = _DeadlineSocket(family, kind, protocol)
        connection.deadline = deadline
        try:
            connection.set_remaining_timeout()
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure
