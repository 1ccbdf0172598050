"""A network that breaks on order: a TCP proxy in front of a gRPC server, with faults at exact points of a call.

    with FaultProxy(upstream=emulator.endpoint) as proxy:
        client = yandexgpt.Client(endpoint=proxy.endpoint, ...)
        proxy.inject(Fault("break", after=2))       # the next call loses its connection after two messages
        ...
        assert proxy.faults_played                  # it did happen

Plaintext HTTP/2 is understood frame by frame, so a fault may wait for a point of a call. Of any other connection
(TLS) only the beginning is known: there the faults with `after="connect"`, `break_all` and `stall_all` work.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from yandexgpt.emulator.fault_proxy.connection import Link
from yandexgpt.emulator.fault_proxy.event_loop import Loop
from yandexgpt.emulator.fault_proxy.faults import Fault, Played

LISTEN_BACKLOG: Final = 128
"""Connections that may wait to be accepted."""


class FaultProxy:
    """A TCP proxy on a free loopback port that passes everything on, save for the faults it was told to play.

    It runs from its making to `close`, in one thread of its own. All methods may be called from any thread; what they
    order is in force when they return, and after `close` they raise RuntimeError.
    """

    def __init__(self, upstream: str) -> None:
        """Listen, and pass connections on to `upstream`, a "host:port"; raises OSError for a host without address."""
        host, _, port = upstream.rpartition(":")
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        self._family, self._upstream = found[0][0], found[0][4]
        self._reserved = _bound(0)  # keeps the port ours, and refusing, while nobody listens
        self._port: int = self._reserved.getsockname()[1]
        self._listener: socket.socket | None = None
        self._refusal: Fault | None = None
        self._waiting: list[_Order] = []
        self._links: set[Link] = set()
        self._connections = 0
        self._played: list[Played] = []
        self._loop = Loop("yandexgpt-fault-proxy")
        self.accept()

    def __enter__(self) -> FaultProxy:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close it."""
        self.close()

    @property
    def endpoint(self) -> str:
        """Where a client is to connect: "host:port"."""
        return f"127.0.0.1:{self._port}"

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return self._connections

    @property
    def faults_played(self) -> tuple[Played, ...]:
        """What was really played so far, in order."""
        return tuple(self._played)

    def inject(self, fault: Fault, times: int | None = 1) -> None:
        """Play a fault on the next `times` connections or calls (None: on all until `clear`).

        Faults wait in line, one line for connections and one for calls; a connection or call takes the first of its
        line when it begins, and wears it out even if it ends before the point is reached. "refuse" begins at once.
        Raises ValueError for `times` below 1.
        """
        if times is not None and times < 1:
            raise ValueError(f"times must be >= 1 or None, not {times!r}")
        if fault.kind == "refuse":
            self._loop.do(lambda: self._refuse(fault))
        else:
            self._loop.do(lambda: self._waiting.append(_Order(fault, times)))

    def play(self) -> int:
        """Play now every fault that was reached and waits for its `seconds`; return how many were played."""
        counts: list[int] = []

        def hurry() -> None:
            before = len(self._played)
            self._each(Link.hurry)
            counts.append(len(self._played) - before)

        self._loop.do(hurry)
        return counts[0]

    def accept(self) -> None:
        """Accept connections again, on the same port, after "refuse"."""
        self._loop.do(self._listen)

    def clear(self) -> None:
        """Forget the faults in line, accept connections, end drips and delays, and break connections that stall."""
        self._loop.do(self._clear)

    def break_all(self, *, fin: bool = False) -> None:
        """Break every connection there is, at once: by RST, or with `fin=True` closed in order."""
        self._loop.do(lambda: self._each(lambda link: link.end(rst=not fin, flush=False)))

    def stall_all(self) -> None:
        """Let every connection there is swallow everything from now on."""
        self._loop.do(lambda: self._each(Link.stall))

    def close(self) -> None:
        """Close every connection and end the thread; may be called again."""
        self._loop.close(self._shut)

    def _shut(self) -> None:
        self._deafen()
        self._reserved.close()
        self._each(Link.abort)

    def _clear(self) -> None:
        self._waiting.clear()
        self._listen()
        self._each(Link.calm)

    def _each(self, what: Callable[[Link], None]) -> None:
        for link in tuple(self._links):
            what(link)

    def _refuse(self, fault: Fault) -> None:
        self._deafen()
        self._played.append(Played(fault, 0, 0))
        self._refusal = fault
        if fault.seconds:
            self._loop.at(time.monotonic() + fault.seconds, lambda: self._end_refusal(fault))

    def _end_refusal(self, fault: Fault) -> None:
        if self._refusal is fault:  # and no later one
            self._listen()

    def _listen(self) -> None:
        self._refusal = None
        if self._listener is None:
            self._listener = listener = _bound(self._port)
            listener.setblocking(False)
            listener.listen(LISTEN_BACKLOG)
            self._loop.selector.register(listener, selectors.EVENT_READ, lambda _: self._welcome(listener))

    def _deafen(self) -> None:
        if self._listener is not None:
            self._loop.selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _welcome(self, listener: socket.socket) -> None:
        """Take a connection in, and open the one to the server that goes with it."""
        try:
            client, _address = listener.accept()
        except OSError:  # it has gone already
            return
        upstream = socket.socket(self._family, socket.SOCK_STREAM)
        upstream.setblocking(False)
        upstream.connect_ex(self._upstream)  # a failure shows when the socket is read
        self._connections += 1
        number = self._connections
        link = Link(
            self._loop,
            client,
            upstream,
            self._take(connect=True),
            take=lambda: self._take(connect=False),
            record=lambda fault, stream: self._played.append(Played(fault, number, stream)),
            forget=self._links.discard,
        )
        self._links.add(link)
        link.begin()

    def _take(self, *, connect: bool) -> Fault | None:
        for order in self._waiting:
            if (order.fault.after == "connect") is connect:
                if order.times is not None:
                    order.times -= 1
                    if not order.times:
                        self._waiting.remove(order)
                return order.fault
        return None


@dataclass(eq=False)
class _Order:
    """A fault in line, and for how many connections or calls it still is."""

    fault: Fault
    times: int | None


def _bound(port: int) -> socket.socket:
    """Return a socket bound to a loopback port, which others of this process may be bound to as well."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
