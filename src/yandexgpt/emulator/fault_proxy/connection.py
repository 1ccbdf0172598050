"""One proxied connection of `wire`, with the faults that it plays."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from yandexgpt.emulator.fault_proxy import frames as h2
from yandexgpt.emulator.fault_proxy.event_loop import READ, Loop, Side
from yandexgpt.emulator.fault_proxy.faults import Fault

BACKLOG: Final = 256 * 1024
"""Bytes that may wait to be written to one side before the other side is no longer read."""
LINGER: Final = 1.0
"""Seconds that a peer is given to close its side after ours was."""
CANCEL: Final = 8
"""The HTTP/2 error code by which a call is cancelled at the server."""


class Call:
    """A call (an HTTP/2 stream) in flight and the fault it took; stream 0 stands for the connection."""

    def __init__(self, stream: int, fault: Fault | None) -> None:
        """Begin before the first message."""
        self.stream = stream
        self.fault = fault
        self.due: Fault | None = None
        self.dripping = False
        self.messages = 0
        self.counter = h2.MessageCounter()


class Link:
    """One connection of a client, the connection to the server that goes with it, and the faults between them."""

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        upstream: socket.socket,
        fault: Fault | None,
        *,
        take: Callable[[], Fault | None],
        record: Callable[[Fault, int], None],
        forget: Callable[[Link], None],
    ) -> None:
        """Join two sockets; `take` gives a new call its fault, `record` is told what was played on which stream."""
        self._loop, self._take, self._record, self._forget = loop, take, record, forget
        self._client, self._upstream = Side(loop, client, self._ready), Side(loop, upstream, self._ready)
        self._up, self._down = h2.FrameReader(), h2.FrameReader()
        self._early: bytearray | None = bytearray()  # the client's first bytes, until they tell what it speaks
        self._framed = False
        self._backlog: deque[h2.Frame] = deque()  # of the server's frames, those not yet passed on
        self._held_until = 0.0
        self._calls = {0: Call(0, fault)}
        self._newest = 0
        self._last_stream = h2.STREAM_MASK
        self._cut: set[int] = set()  # streams that were ended here, while the two ends may still speak of them
        self._stalled = self._ended = False

    def begin(self) -> None:
        """Start to pass things on."""
        self._reach("connect", self._calls[0])
        self._settle()

    def stall(self) -> None:
        """Swallow everything from now on; what was passed on before is still delivered."""
        self._stalled = True
        self._backlog.clear()
        self._settle()

    def end(self, *, rst: bool, flush: bool = True) -> None:
        """Close both sides, the client's by RST if asked for, after (or without) what is on its way to them."""
        self._ended = True
        self._backlog.clear()
        self._client.rst = rst
        if not flush:
            self._client.out.clear()
            self._upstream.out.clear()
        self._settle()

    def hurry(self) -> None:
        """Play the faults that wait for their seconds."""
        due = [(call.due, call) for call in self._calls.values() if call.due is not None]
        if due:
            self._held_until = 0.0
        for fault, call in due:
            self._play_due(fault, call)
        self._pump()

    def abort(self) -> None:
        """Close both sockets now."""
        self._client.close()
        self._upstream.close()
        self._forget(self)

    def calm(self) -> None:
        """Take back every fault; a connection that has swallowed something cannot go on and is broken."""
        for call in self._calls.values():
            call.fault = call.due = None
        self._client.pace, self._held_until = None, 0.0
        if self._stalled:
            self.end(rst=True)
        self._pump()

    def _ready(self, side: Side, events: int) -> None:
        if side.closed:  # by an earlier event of the same round
            return
        data, lost = b"", False
        try:
            if events & selectors.EVENT_WRITE:
                side.flush()
                if side.pace is not None:
                    self._loop.at(side.wakes, self._settle)
            if events & selectors.EVENT_READ:
                data = side.sock.recv(READ)
                lost = not data
        except BlockingIOError:
            pass
        except OSError:
            lost = True
        if lost:
            self._lose(side)
        elif data and not (self._stalled or self._ended):
            if side is self._client:
                self._from_client(data)
            else:
                self._from_upstream(data)
        self._settle()

    def _lose(self, side: Side) -> None:
        side.close()
        if side is self._client or not self._stalled:
            self._ended = True

    def _settle(self) -> None:
        """Ask for the events that matter now; close what has nothing left to do."""
        for side, other in ((self._client, self._upstream), (self._upstream, self._client)):
            if side.closed:
                continue
            if self._ended:
                self._wind_up(side)
            if not side.closed:
                ready = side is self._client or (self._early is None and not self._held)
                read = side.shut if self._ended else self._stalled or (ready and len(other.out) < BACKLOG)
                side.want(read)
        if self._client.closed and self._upstream.closed:
            self._forget(self)

    def _wind_up(self, side: Side) -> None:
        """Close a side for writing, or wholly, once all is written: a socket closed with bytes unread sends RST."""
        if side.out or side.shut:
            return
        if side.rst:
            side.close()
            return
        side.shut = True
        try:
            side.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it is not connected any more, or not yet
            side.close()
        else:
            self._loop.at(time.monotonic() + LINGER, lambda: self._give_up(side))

    def _give_up(self, side: Side) -> None:
        side.close()
        self._settle()

    @property
    def _held(self) -> bool:
        return time.monotonic() < self._held_until

    def _hold(self, seconds: float) -> None:
        """Pass nothing on to the client for some seconds; RST and GOAWAY of our own pass."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)
        self._loop.at(self._held_until, self._pump)

    def _from_client(self, data: bytes) -> None:
        if self._early is not None:
            self._early += data
            data, start = bytes(self._early), len(h2.PREFACE)
            self._framed = data[:start] == h2.PREFACE
            if not self._framed and h2.PREFACE.startswith(data):
                return
            self._early = None
            if self._framed:
                self._upstream.out += h2.PREFACE
                data = data[start:]
        for frame in self._up.feed(data) if self._framed else (h2.Frame(h2.OPAQUE, 0, 0, data),):
            if not (self._stalled or self._ended):
                self._request(frame)

    def _from_upstream(self, data: bytes) -> None:
        self._backlog.extend(self._down.feed(data) if self._framed else (h2.Frame(h2.OPAQUE, 0, 0, data),))
        self._pump()

    def _pump(self) -> None:
        while self._backlog and not (self._held or self._stalled or self._ended):
            self._respond(self._backlog.popleft())
        self._settle()

    def _request(self, frame: h2.Frame) -> None:
        """Pass on a frame of the client."""
        stream = frame.stream
        if frame.kind == h2.HEADERS and stream > self._newest:
            self._newest = stream
            if stream > self._last_stream:  # the client had not seen the GOAWAY yet
                self._upstream.out += frame.raw
                self._cancel(stream)
                return
            self._calls[stream] = Call(stream, self._take())
        if stream in self._cut:
            if frame.kind == h2.DATA:
                self._client.out += h2.window_update(len(frame.payload))
            return
        self._upstream.out += frame.raw
        if call := self._calls.get(stream):
            if frame.kind == h2.RST_STREAM:
                self._over(call)
            elif frame.end_stream:
                self._reach("request", call)

    def _respond(self, frame: h2.Frame) -> None:
        """Pass on a frame of the server, or the part of it that goes before a fault."""
        call = self._calls.get(frame.stream)
        if frame.stream in self._cut:
            if frame.kind == h2.DATA:  # what is dropped still counts in the connection's flow control
                self._upstream.out += h2.window_update(len(frame.payload))
            elif frame.kind == h2.HEADERS:  # and what a header block says is remembered for later ones (HPACK)
                self._client.out += frame.raw
            return
        if call is None:
            self._client.out += frame.raw
        elif frame.kind == h2.HEADERS and frame.end_stream:
            if self._reach("last", call):
                self._backlog.appendleft(frame)
                return
            self._client.out += frame.raw
            self._over(call)
            self._reach("end", call)
        elif frame.kind == h2.DATA:
            self._data(frame, call)
        else:
            self._client.out += frame.raw
            if frame.kind == h2.RST_STREAM:
                self._over(call)
            elif frame.kind == h2.HEADERS:
                self._reach(0, call)

    def _data(self, frame: h2.Frame, call: Call) -> None:
        if call.fault is not None:
            for end in call.counter.feed(frame.payload):
                call.messages += 1
                if call.messages == call.fault.after:
                    rest = frame.payload[end:]
                    if rest:
                        self._backlog.appendleft(h2.build(h2.DATA, frame.flags, frame.stream, rest))
                        frame = h2.build(h2.DATA, 0, frame.stream, frame.payload[:end])
                    self._client.out += frame.raw
                    self._reach(call.messages, call)
                    return
        self._client.out += frame.raw

    def _over(self, call: Call) -> None:
        self._calls.pop(call.stream, None)
        call.due = None
        if call.dripping:
            self._client.end_drip()

    def _cancel(self, stream: int) -> None:
        """End a call at the server, and drop what the two ends still say of it."""
        self._cut.add(stream)
        self._upstream.out += h2.rst_stream(stream, CANCEL)

    def _reach(self, point: str | int, call: Call) -> bool:
        """Play the call's fault if this is its point; tell whether it was, be it now or after its seconds."""
        fault = call.fault
        if fault is None or fault.after != point:
            return False
        call.fault = None
        if fault.seconds and fault.kind not in ("drip", "delay"):
            call.due = fault
            self._loop.at(time.monotonic() + fault.seconds, lambda: self._play_due(fault, call))
            self._hold(fault.seconds)
        else:
            self._play(fault, call)
        return True

    def _play_due(self, fault: Fault, call: Call) -> None:
        if call.due is fault and not (self._stalled or self._ended):
            call.due = None
            self._play(fault, call)
            self._settle()

    def _play(self, fault: Fault, call: Call) -> None:
        self._record(fault, call.stream)
        if fault.kind == "delay":
            self._hold(fault.seconds)
        elif fault.kind == "drip":
            call.dripping = True
            self._client.drip(fault.size, fault.seconds)
        elif fault.kind == "stall":
            self.stall()
        elif fault.kind == "break":
            self.end(rst=not fault.fin)
        elif fault.kind == "reset":
            self._client.out += h2.rst_stream(call.stream, fault.code)
            self._over(call)
            self._cancel(call.stream)
        else:
            self._goaway(fault)

    def _goaway(self, fault: Fault) -> None:
        self._last_stream = self._newest if fault.last_stream is None else fault.last_stream
        self._client.out += h2.goaway(self._last_stream, fault.code, fault.debug)
        for call in tuple(self._calls.values()):
            if call.stream > self._last_stream:
                self._over(call)
                self._cancel(call.stream)
        if fault.close:
            self.end(rst=False)
