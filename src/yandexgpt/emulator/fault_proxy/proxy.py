"""A TCP proxy in front of a gRPC server that plays network faults at exact points of a call.

    with FaultProxy(upstream=emulator.endpoint) as proxy:
        client = yandexgpt.Client(endpoint=proxy.endpoint, ...)
        proxy.inject(Fault("break", after=2))       # the connection of the next call breaks after two messages
        ...
        assert proxy.faults_played                  # the fault was played

The proxy parses the frames of plaintext HTTP/2, so a fault can be played at a point of a call. It cannot parse other
connections (TLS). For these, only faults with `after="connect"`, `break_all` and `stall_all` work.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from yandexgpt.emulator.fault_proxy.connection import ProxiedConnection
from yandexgpt.emulator.fault_proxy.event_loop import EventLoop
from yandexgpt.emulator.fault_proxy.faults import Fault, Played

LISTEN_BACKLOG: Final = 128
"""Connections that may wait to be accepted."""


class FaultProxy:
    """A TCP proxy on a free loopback port. It forwards all data and plays the injected faults.

    It runs in one thread, from the constructor to `close`. All methods may be called from any thread. A method returns
    when its effect is complete. After `close`, methods raise RuntimeError.
    """

    def __init__(self, upstream: str) -> None:
        """Listen, and forward connections to `upstream` ("host:port"); raises OSError if the host has no address."""
        host, _, port = upstream.rpartition(":")
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        self._family, self._upstream = found[0][0], found[0][4]
        self._reserved = _bound_socket(0)  # reserves the port; without a listener, connections to it are refused
        self._port: int = self._reserved.getsockname()[1]
        self._listener: socket.socket | None = None
        self._refusing: Fault | None = None
        self._queue: list[_QueuedFault] = []
        self._proxied: set[ProxiedConnection] = set()
        self._connections = 0
        self._played: list[Played] = []
        self._loop = EventLoop("yandexgpt-fault-proxy")
        self.accept()

    def __enter__(self) -> FaultProxy:
        """Return the proxy."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close the proxy."""
        self.close()

    @property
    def endpoint(self) -> str:
        """The address for clients: "host:port"."""
        return f"127.0.0.1:{self._port}"

    @property
    def connections(self) -> int:
        """The number of connections accepted so far."""
        return self._connections

    @property
    def faults_played(self) -> tuple[Played, ...]:
        """The faults played so far, in order."""
        return tuple(self._played)

    def inject(self, fault: Fault, times: int | None = 1) -> None:
        """Play a fault on the next `times` connections or calls (None: on all until `clear`).

        Faults wait in two queues: one for connections and one for calls. A new connection or call takes the first fault
        of its queue. The fault is used up even if the call ends before the point of the fault. "refuse" starts
        immediately. Raises ValueError for `times` below 1.
        """
        if times is not None and times < 1:
            raise ValueError(f"times must be >= 1 or None, not {times!r}")
        if fault.kind == "refuse":
            self._loop.run(lambda: self._refuse(fault))
        else:
            self._loop.run(lambda: self._queue.append(_QueuedFault(fault, times)))

    def play(self) -> int:
        """Play now all faults whose point is reached and that wait for their `seconds`; return their number."""
        counts: list[int] = []

        def play_scheduled() -> None:
            before = len(self._played)
            self._for_each_connection(ProxiedConnection.play_scheduled)
            counts.append(len(self._played) - before)

        self._loop.run(play_scheduled)
        return counts[0]

    def accept(self) -> None:
        """Accept connections again, on the same port, after "refuse"."""
        self._loop.run(self._listen)

    def clear(self) -> None:
        """Remove the queued faults, accept connections, end drips and delays, and break stalled connections."""
        self._loop.run(self._clear)

    def break_all(self, *, fin: bool = False) -> None:
        """Break all connections immediately: by RST, or with `fin=True` by FIN."""
        self._loop.run(lambda: self._for_each_connection(lambda connection: connection.end(rst=not fin, flush=False)))

    def stall_all(self) -> None:
        """Make all connections discard all data from now on."""
        self._loop.run(lambda: self._for_each_connection(ProxiedConnection.stall))

    def close(self) -> None:
        """Close all connections and end the thread. A second call does nothing."""
        self._loop.close(self._shut_down)

    def _shut_down(self) -> None:
        self._stop_listening()
        self._reserved.close()
        self._for_each_connection(ProxiedConnection.abort)

    def _clear(self) -> None:
        self._queue.clear()
        self._listen()
        self._for_each_connection(ProxiedConnection.clear_faults)

    def _for_each_connection(self, function: Callable[[ProxiedConnection], None]) -> None:
        for connection in tuple(self._proxied):
            function(connection)

    def _refuse(self, fault: Fault) -> None:
        self._stop_listening()
        self._played.append(Played(fault, 0, 0))
        self._refusing = fault
        if fault.seconds:
            self._loop.call_at(time.monotonic() + fault.seconds, lambda: self._end_refuse(fault))

    def _end_refuse(self, fault: Fault) -> None:
        if self._refusing is fault:  # and not a later fault
            self._listen()

    def _listen(self) -> None:
        self._refusing = None
        if self._listener is None:
            self._listener = listener = _bound_socket(self._port)
            listener.setblocking(False)
            listener.listen(LISTEN_BACKLOG)
            self._loop.selector.register(listener, selectors.EVENT_READ, lambda _: self._accept(listener))

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        """Accept a connection and connect to the server for it."""
        try:
            client, _address = listener.accept()
        except OSError:  # the client has closed it already
            return
        upstream = socket.socket(self._family, socket.SOCK_STREAM)
        upstream.setblocking(False)
        upstream.connect_ex(self._upstream)  # an error is reported when the socket is read
        self._connections += 1
        number = self._connections
        connection = ProxiedConnection(
            self._loop,
            client,
            upstream,
            self._next_fault(connect=True),
            next_fault=lambda: self._next_fault(connect=False),
            on_played=lambda fault, stream: self._played.append(Played(fault, number, stream)),
            on_closed=self._proxied.discard,
        )
        self._proxied.add(connection)
        connection.start()

    def _next_fault(self, *, connect: bool) -> Fault | None:
        for queued in self._queue:
            if (queued.fault.after == "connect") is connect:
                if queued.times is not None:
                    queued.times -= 1
                    if not queued.times:
                        self._queue.remove(queued)
                return queued.fault
        return None


@dataclass(eq=False)
class _QueuedFault:
    """A fault, and for how many more connections or calls it is (None: for all)."""

    fault: Fault
    times: int | None


def _bound_socket(port: int) -> socket.socket:
    """A socket bound to a loopback port. Other sockets of this process may be bound to the same port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
