"""One proxied connection: it forwards HTTP/2 frames and plays the faults of its streams."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from yandexgpt.emulator.fault_proxy import frames as h2
from yandexgpt.emulator.fault_proxy.event_loop import READ_SIZE, BufferedSocket, EventLoop
from yandexgpt.emulator.fault_proxy.faults import ErrorCode, Fault

MAX_BUFFERED: Final = 256 * 1024
"""Bytes that may wait to be written to one side. Above this number, the other side is not read."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds in which a peer has to close the connection after the proxy has shut down its side."""


class Stream:
    """An HTTP/2 stream (a gRPC call) and its fault. Stream 0 is the connection."""

    def __init__(self, stream_id: int, fault: Fault | None) -> None:
        """The stream has no messages yet."""
        self.id = stream_id
        self.fault = fault
        self.scheduled: Fault | None = None
        self.dripping = False
        self.messages = 0
        self.counter = h2.MessageCounter()


class ProxiedConnection:
    """The connection of a client, the matching connection to the server, and the faults between them."""

    def __init__(
        self,
        loop: EventLoop,
        client: socket.socket,
        upstream: socket.socket,
        fault: Fault | None,
        *,
        next_fault: Callable[[], Fault | None],
        on_played: Callable[[Fault, int], None],
        on_closed: Callable[[ProxiedConnection], None],
    ) -> None:
        """Connect two sockets.

        Args:
            loop: the event loop.
            client: the socket of the client.
            upstream: the socket of the server.
            fault: the fault of the connection itself.
            next_fault: returns the fault of a new stream.
            on_played: is called with each fault that was played and its stream id.
            on_closed: is called when both sockets are closed.
        """
        self._loop, self._next_fault, self._on_played, self._on_closed = loop, next_fault, on_played, on_closed
        self._client = BufferedSocket(loop, client, self._on_event)
        self._upstream = BufferedSocket(loop, upstream, self._on_event)
        self._client_frames, self._server_frames = h2.FrameReader(), h2.FrameReader()
        self._first_bytes: bytearray | None = bytearray()  # of the client; None once the protocol is known
        self._is_http2 = False
        self._pending: deque[h2.Frame] = deque()  # frames of the server that were not forwarded yet
        self._held_until = 0.0
        self._streams = {0: Stream(0, fault)}
        self._newest_stream = 0
        self._last_stream = h2.STREAM_MASK
        self._cancelled: set[int] = set()  # streams that the proxy ended; both peers may still send frames for them
        self._stalled = self._ended = False

    def start(self) -> None:
        """Start to forward."""
        self._reach("connect", self._streams[0])
        self._update()

    def stall(self) -> None:
        """Discard all data from now on. Data that was forwarded before is still delivered."""
        self._stalled = True
        self._pending.clear()
        self._update()

    def end(self, *, rst: bool, flush: bool = True) -> None:
        """Close both sides.

        Args:
            rst: close the client's side with a TCP RST.
            flush: first write the buffered data.
        """
        self._ended = True
        self._pending.clear()
        self._client.rst = rst
        if not flush:
            self._client.out.clear()
            self._upstream.out.clear()
        self._update()

    def play_scheduled(self) -> None:
        """Play now the faults that wait for their `seconds`."""
        scheduled = [(stream.scheduled, stream) for stream in self._streams.values() if stream.scheduled is not None]
        if scheduled:
            self._held_until = 0.0
        for fault, stream in scheduled:
            self._play_scheduled(fault, stream)
        self._forward_pending()

    def abort(self) -> None:
        """Close both sockets immediately."""
        self._client.close()
        self._upstream.close()
        self._on_closed(self)

    def clear_faults(self) -> None:
        """Remove all faults. A stalled connection has lost data, so it is broken."""
        for stream in self._streams.values():
            stream.fault = stream.scheduled = None
        self._client.pace, self._held_until = None, 0.0
        if self._stalled:
            self.end(rst=True)
        self._forward_pending()

    def _on_event(self, side: BufferedSocket, events: int) -> None:
        if side.closed:  # by an earlier event of the same iteration
            return
        data, closed = b"", False
        try:
            if events & selectors.EVENT_WRITE:
                side.flush()
                if side.pace is not None:
                    self._loop.call_at(side.next_write, self._update)
            if events & selectors.EVENT_READ:
                data = side.sock.recv(READ_SIZE)
                closed = not data
        except BlockingIOError:
            pass
        except OSError:
            closed = True
        if closed:
            self._on_peer_closed(side)
        elif data and not (self._stalled or self._ended):
            if side is self._client:
                self._on_client_data(data)
            else:
                self._on_server_data(data)
        self._update()

    def _on_peer_closed(self, side: BufferedSocket) -> None:
        side.close()
        if side is self._client or not self._stalled:
            self._ended = True

    def _update(self) -> None:
        """Select the events to wait for. Close the sockets that are finished."""
        for side, other in ((self._client, self._upstream), (self._upstream, self._client)):
            if side.closed:
                continue
            if self._ended:
                self._close_gracefully(side)
            if not side.closed:
                ready = side is self._client or (self._first_bytes is None and not self._held)
                read = side.shut if self._ended else self._stalled or (ready and len(other.out) < MAX_BUFFERED)
                side.select(read=read)
        if self._client.closed and self._upstream.closed:
            self._on_closed(self)

    def _close_gracefully(self, side: BufferedSocket) -> None:
        """Shut down a side for writing when its buffer is empty. (To close a socket with unread data sends RST.)"""
        if side.out or side.shut:
            return
        if side.rst:
            side.close()
            return
        side.shut = True
        try:
            side.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it is not connected
            side.close()
        else:
            self._loop.call_at(time.monotonic() + CLOSE_TIMEOUT, lambda: self._force_close(side))

    def _force_close(self, side: BufferedSocket) -> None:
        side.close()
        self._update()

    @property
    def _held(self) -> bool:
        return time.monotonic() < self._held_until

    def _hold(self, seconds: float) -> None:
        """Forward nothing to the client for some seconds. RST_STREAM and GOAWAY of the proxy are still sent."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)
        self._loop.call_at(self._held_until, self._forward_pending)

    def _on_client_data(self, data: bytes) -> None:
        if self._first_bytes is not None:
            self._first_bytes += data
            data, start = bytes(self._first_bytes), len(h2.PREFACE)
            self._is_http2 = data[:start] == h2.PREFACE
            if not self._is_http2 and h2.PREFACE.startswith(data):
                return
            self._first_bytes = None
            if self._is_http2:
                self._upstream.out += h2.PREFACE
                data = data[start:]
        for frame in self._split(self._client_frames, data):
            if not (self._stalled or self._ended):
                self._forward_to_server(frame)

    def _on_server_data(self, data: bytes) -> None:
        self._pending.extend(self._split(self._server_frames, data))
        self._forward_pending()

    def _split(self, reader: h2.FrameReader, data: bytes) -> list[h2.Frame]:
        return reader.feed(data) if self._is_http2 else [h2.Frame(h2.OPAQUE, 0, 0, data)]

    def _forward_pending(self) -> None:
        while self._pending and not (self._held or self._stalled or self._ended):
            self._forward_to_client(self._pending.popleft())
        self._update()

    def _forward_to_server(self, frame: h2.Frame) -> None:
        if frame.kind == h2.HEADERS and frame.stream > self._newest_stream:
            self._newest_stream = frame.stream
            if frame.stream > self._last_stream:  # the client has not seen the GOAWAY yet
                self._upstream.out += frame.raw
                self._cancel(frame.stream)
                return
            self._streams[frame.stream] = Stream(frame.stream, self._next_fault())
        if frame.stream in self._cancelled:
            if frame.kind == h2.DATA:
                self._client.out += h2.window_update(len(frame.payload))
            return
        self._upstream.out += frame.raw
        if stream := self._streams.get(frame.stream):
            if frame.kind == h2.RST_STREAM:
                self._remove(stream)
            elif frame.end_stream:
                self._reach("request", stream)

    def _forward_to_client(self, frame: h2.Frame) -> None:
        """Forward a frame, or the part of it before a fault."""
        stream = self._streams.get(frame.stream)
        if frame.stream in self._cancelled:
            if frame.kind == h2.DATA:  # discarded data counts in the flow control of the connection
                self._upstream.out += h2.window_update(len(frame.payload))
            elif frame.kind == h2.HEADERS:  # a header block changes the HPACK state of the connection
                self._client.out += frame.raw
            return
        if stream is None:
            self._client.out += frame.raw
        elif frame.kind == h2.HEADERS and frame.end_stream:
            if self._reach("last", stream):
                self._pending.appendleft(frame)
                return
            self._client.out += frame.raw
            self._remove(stream)
            self._reach("end", stream)
        elif frame.kind == h2.DATA:
            self._forward_data(frame, stream)
        else:
            self._client.out += frame.raw
            if frame.kind == h2.RST_STREAM:
                self._remove(stream)
            elif frame.kind == h2.HEADERS:
                self._reach(0, stream)

    def _forward_data(self, frame: h2.Frame, stream: Stream) -> None:
        if stream.fault is not None:
            for end in stream.counter.feed(frame.payload):
                stream.messages += 1
                if stream.messages == stream.fault.after:
                    rest = frame.payload[end:]
                    if rest:
                        self._pending.appendleft(h2.build(h2.DATA, frame.flags, frame.stream, rest))
                        frame = h2.build(h2.DATA, 0, frame.stream, frame.payload[:end])
                    self._client.out += frame.raw
                    self._reach(stream.messages, stream)
                    return
        self._client.out += frame.raw

    def _remove(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        stream.scheduled = None
        if stream.dripping:
            self._client.end_drip()

    def _cancel(self, stream_id: int) -> None:
        """Cancel a stream at the server. Discard further frames of both peers for it."""
        self._cancelled.add(stream_id)
        self._upstream.out += h2.rst_stream(stream_id, ErrorCode.CANCEL)

    def _reach(self, point: str | int, stream: Stream) -> bool:
        """Play or schedule the fault of the stream, if this is its point. Return whether it is."""
        fault = stream.fault
        if fault is None or fault.after != point:
            return False
        stream.fault = None
        if fault.seconds and fault.kind not in ("drip", "delay"):
            stream.scheduled = fault
            self._loop.call_at(time.monotonic() + fault.seconds, lambda: self._play_scheduled(fault, stream))
            self._hold(fault.seconds)
        else:
            self._play(fault, stream)
        return True

    def _play_scheduled(self, fault: Fault, stream: Stream) -> None:
        if stream.scheduled is fault and not (self._stalled or self._ended):
            stream.scheduled = None
            self._play(fault, stream)
            self._update()

    def _play(self, fault: Fault, stream: Stream) -> None:
        self._on_played(fault, stream.id)
        if fault.kind == "delay":
            self._hold(fault.seconds)
        elif fault.kind == "drip":
            stream.dripping = True
            self._client.drip(fault.size, fault.seconds)
        elif fault.kind == "stall":
            self.stall()
        elif fault.kind == "break":
            self.end(rst=not fault.fin)
        elif fault.kind == "reset":
            self._client.out += h2.rst_stream(stream.id, fault.code)
            self._remove(stream)
            self._cancel(stream.id)
        else:
            self._goaway(fault)

    def _goaway(self, fault: Fault) -> None:
        self._last_stream = self._newest_stream if fault.last_stream is None else fault.last_stream
        self._client.out += h2.goaway(self._last_stream, fault.code, fault.debug)
        for stream in tuple(self._streams.values()):
            if stream.id > self._last_stream:
                self._remove(stream)
                self._cancel(stream.id)
        if fault.close:
            self.end(rst=False)
