"""The thread under `wire`, with its sockets and timers."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

READ: Final = 64 * 1024
"""Bytes asked of a socket, or given to it, at once."""


class Loop:
    """A thread that waits for sockets and timers, and does what other threads order."""

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self.selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._ids = itertools.count()
        self._orders: deque[tuple[Callable[[], object], threading.Event]] = deque()
        self._wake, self._waker = socket.socketpair()
        self.selector.register(self._wake, selectors.EVENT_READ, lambda _: self._wake.recv(READ))
        self._open = True
        self._one = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def at(self, when: float, what: Callable[[], object]) -> None:
        """Do it at a moment of `time.monotonic`; to be called in the loop's thread."""
        heapq.heappush(self._timers, (when, next(self._ids), what))

    def do(self, what: Callable[[], object]) -> None:
        """Do it in the loop's thread and wait for that; raises RuntimeError when the loop is closed."""
        with self._one:
            self._order(what)

    def close(self, last: Callable[[], object]) -> None:
        """Do a last thing and end the thread; may be called again."""
        with self._one:
            if self._open and self._thread.is_alive():  # a forked child has no such thread

                def stop() -> None:
                    last()
                    self._open = False

                self._order(stop)
                self._thread.join()
                self.selector.close()
                self._wake.close()
                self._waker.close()

    def _order(self, what: Callable[[], object]) -> None:
        if not (self._open and self._thread.is_alive()):
            raise RuntimeError("the proxy is closed")
        done = threading.Event()
        self._orders.append((what, done))
        self._waker.send(b"\0")
        done.wait()

    def _run(self) -> None:
        while self._open:
            pause = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, events in self.selector.select(pause):
                key.data(events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
            while self._orders:
                what, done = self._orders.popleft()
                try:
                    what()
                finally:
                    done.set()


class Side:
    """One of the two sockets of a connection, and what waits to be written to it."""

    def __init__(self, loop: Loop, sock: socket.socket, ready: Callable[[Side, int], None]) -> None:
        """Take over a socket; `ready` is told of its events."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.out = bytearray()
        self.pace: tuple[int, float] | None = None
        self.paced_to: int | None = None
        self.wakes = 0.0
        self.rst = self.shut = self.closed = False
        self._loop = loop
        self._ready = ready
        self._sent = 0
        self._wanted = 0

    def drip(self, size: int, seconds: float) -> None:
        """Write at most `size` bytes each `seconds` from now on."""
        self.pace, self.paced_to = (size, seconds), None

    def end_drip(self) -> None:
        """Go back to full speed once all that waits now is written."""
        self.paced_to = self._sent + len(self.out)

    def flush(self) -> None:
        """Write what the socket takes; raises OSError when it is broken."""
        size, seconds = self.pace or (READ, 0.0)
        sent = self.sock.send(self.out[:size])
        del self.out[:sent]
        self._sent += sent
        self.wakes = time.monotonic() + seconds
        if self.paced_to is not None and self._sent >= self.paced_to:
            self.pace, self.paced_to, self.wakes = None, None, 0.0

    def want(self, read: bool) -> None:
        """Wait for what can be done now: reading if asked for, and writing if there is something to write."""
        write = bool(self.out) and (self.pace is None or time.monotonic() >= self.wakes)
        wanted = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        if wanted != self._wanted:
            if self._wanted:
                self._loop.selector.unregister(self.sock)
            if wanted:
                self._loop.selector.register(self.sock, wanted, lambda events: self._ready(self, events))
            self._wanted = wanted

    def close(self) -> None:
        """Close the socket; what waits to be written is lost."""
        if not self.closed:
            self.out.clear()
            self.want(read=False)
            self.closed = True
            if self.rst:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()
