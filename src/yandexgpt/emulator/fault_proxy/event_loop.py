"""The event loop of the fault proxy: one thread with sockets and timers."""

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

READ_SIZE: Final = 64 * 1024
"""Bytes to read from or write to a socket at once."""


class EventLoop:
    """A thread that handles socket events and timers, and runs functions for other threads."""

    def __init__(self, name: str) -> None:
        """Start the thread."""
        self.selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._ids = itertools.count()
        self._submitted: deque[tuple[Callable[[], object], threading.Event]] = deque()
        self._wake, self._waker = socket.socketpair()
        self.selector.register(self._wake, selectors.EVENT_READ, lambda _: self._wake.recv(READ_SIZE))
        self._open = True
        self._submit_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call_at(self, when: float, function: Callable[[], object]) -> None:
        """Call a function at a time of `time.monotonic`. Only for the thread of the loop."""
        heapq.heappush(self._timers, (when, next(self._ids), function))

    def run(self, function: Callable[[], object]) -> None:
        """Call a function in the thread of the loop and wait; raises RuntimeError when the loop is closed."""
        with self._submit_lock:
            self._submit(function)

    def close(self, last: Callable[[], object]) -> None:
        """Call a last function and end the thread. A second call does nothing."""
        with self._submit_lock:
            if self._open and self._thread.is_alive():  # a forked child does not have the thread

                def stop() -> None:
                    last()
                    self._open = False

                self._submit(stop)
                self._thread.join()
                self.selector.close()
                self._wake.close()
                self._waker.close()

    def _submit(self, function: Callable[[], object]) -> None:
        if not (self._open and self._thread.is_alive()):
            raise RuntimeError("the proxy is closed")
        done = threading.Event()
        self._submitted.append((function, done))
        self._waker.send(b"\0")
        done.wait()

    def _run(self) -> None:
        while self._open:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, events in self.selector.select(timeout):
                key.data(events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
            while self._submitted:
                function, done = self._submitted.popleft()
                try:
                    function()
                finally:
                    done.set()


class BufferedSocket:
    """One of the two sockets of a proxied connection, with its write buffer."""

    def __init__(self, loop: EventLoop, sock: socket.socket, on_event: Callable[[BufferedSocket, int], None]) -> None:
        """Take ownership of a socket; `on_event` is called with its events."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.out = bytearray()
        self.pace: tuple[int, float] | None = None
        self.paced_to: int | None = None
        self.next_write = 0.0
        self.rst = self.shut = self.closed = False
        self._loop = loop
        self._on_event = on_event
        self._sent = 0
        self._selected = 0

    def drip(self, size: int, seconds: float) -> None:
        """Write at most `size` bytes each `seconds` from now on."""
        self.pace, self.paced_to = (size, seconds), None

    def end_drip(self) -> None:
        """Return to full speed when the current buffer is written."""
        self.paced_to = self._sent + len(self.out)

    def flush(self) -> None:
        """Write as much as the socket accepts; raises OSError when the connection is broken."""
        size, seconds = self.pace or (READ_SIZE, 0.0)
        sent = self.sock.send(self.out[:size])
        del self.out[:sent]
        self._sent += sent
        self.next_write = time.monotonic() + seconds
        if self.paced_to is not None and self._sent >= self.paced_to:
            self.pace, self.paced_to, self.next_write = None, None, 0.0

    def select(self, *, read: bool) -> None:
        """Wait for readable data if `read`, and for writability if there is data to write now."""
        write = bool(self.out) and (self.pace is None or time.monotonic() >= self.next_write)
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        if events != self._selected:
            if self._selected:
                self._loop.selector.unregister(self.sock)
            if events:
                self._loop.selector.register(self.sock, events, lambda ready: self._on_event(self, ready))
            self._selected = events

    def close(self) -> None:
        """Close the socket and discard the buffer."""
        if not self.closed:
            self.out.clear()
            self.select(read=False)
            self.closed = True
            if self.rst:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()
