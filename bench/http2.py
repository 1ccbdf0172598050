"""As much of HTTP/2 as a gRPC client needs: no request and no header is parsed, and every call gets the same messages.

A server that uses grpcio takes more CPU time than the measured clients, so they would wait for it. This server sends
each message in a separate frame: as fast as flow control allows, or at fixed intervals.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from answers import Answer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x8
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_BYTES = 16_384
DEFAULT_WINDOW_BYTES = 65_535
LARGEST_WINDOW_BYTES = 2**31 - 1
PHASES = 4
"""Streams with fixed intervals are divided into this number of groups, which are due one after another."""


def literal(name: str, value: str) -> bytes:
    """A header in HPACK without references to a table."""
    return b"".join([b"\x00", bytes([len(name)]), name.encode(), bytes([len(value)]), value.encode()])


HEADER_BLOCK = b"\x88" + literal("content-type", "application/grpc") + literal("x-request-id", "0" * 36)  # :status 200
TRAILER_BLOCK = literal("grpc-status", "0")


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


@dataclass
class Reply:
    """The messages that are still to be sent on a stream."""

    messages: Sequence[bytes]
    window: int
    due: int
    """The number of messages that may be sent by now."""
    phase: int
    """The group of the stream, if messages are sent at fixed intervals."""
    index: int = 0
    offset: int = 0


class Connection(asyncio.Protocol):
    """The connection of one client."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._turn = 0
        self._received = bytearray()
        self._greeted = False
        self._replies: dict[int, Reply] = {}
        self._ready: dict[int, None] = {}
        """The streams with data to send, as soon as the flow-control windows allow it."""
        self._window = DEFAULT_WINDOW_BYTES
        self._initial_window = DEFAULT_WINDOW_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the settings and the largest connection window, so that requests need no further window updates."""
        self._transport = cast("asyncio.Transport", transport)
        credit = struct.pack(">I", LARGEST_WINDOW_BYTES - DEFAULT_WINDOW_BYTES)
        self._transport.write(frame(SETTINGS, 0, 0, b"") + frame(WINDOW_UPDATE, 0, 0, credit))
        if self._answer.every:
            self._pacing = asyncio.ensure_future(self._pace())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Stop sending: the client has disconnected."""
        if self._answer.every:
            self._pacing.cancel()

    def data_received(self, data: bytes) -> None:
        """Handle the complete frames, then send what the windows allow."""
        received = self._received
        received += data
        at = 0
        if not self._greeted:
            if len(received) < len(PREFACE):
                return
            at = len(PREFACE)
            self._greeted = True
        out: list[bytes] = []
        while len(received) - at >= 9:
            end = at + 9 + int.from_bytes(received[at : at + 3], "big")
            if end > len(received):
                break
            stream_id = int.from_bytes(received[at + 5 : at + 9], "big")
            self._handle(received[at + 3], received[at + 4], stream_id, received[at + 9 : end], out)
            at = end
        del received[:at]
        for stream_id in list(self._ready):
            self._pump(stream_id, out)
        if out:
            self._transport.write(b"".join(out))

    def _handle(self, kind: int, flags: int, stream_id: int, payload: bytearray, out: list[bytes]) -> None:
        if kind in (HEADERS, DATA):
            if flags & END_STREAM:
                messages = self._answer.messages
                due = 0 if self._answer.every else len(messages)
                phase = (stream_id // 2) % PHASES
                self._replies[stream_id] = Reply(messages, self._initial_window, due, phase)
                if due:
                    self._ready[stream_id] = None
                out.append(frame(HEADERS, END_HEADERS, stream_id, HEADER_BLOCK))
        elif kind == WINDOW_UPDATE:
            (credit,) = struct.unpack(">I", payload)
            if stream_id == 0:
                self._window += credit
            elif reply := self._replies.get(stream_id):
                reply.window += credit
        elif kind == RST_STREAM:
            self._replies.pop(stream_id, None)
            self._ready.pop(stream_id, None)
        elif kind == PING and not flags & ACK:
            out.append(frame(PING, ACK, 0, bytes(payload)))
        elif kind == SETTINGS and not flags & ACK:
            for setting, value in struct.iter_unpack(">HI", payload):
                if setting == INITIAL_WINDOW_SIZE:
                    for reply in self._replies.values():
                        reply.window += value - self._initial_window
                    self._initial_window = value
            out.append(frame(SETTINGS, ACK, 0, b""))

    async def _pace(self) -> None:
        """Send each stream its next message at fixed intervals, one group of streams after another.

        A late turn does not delay the next ones.
        """
        began, step = time.monotonic(), self._answer.every / PHASES
        while True:
            await asyncio.sleep(max(0.0, began + (self._turn + 1) * step - time.monotonic()))
            self._turn += 1
            out: list[bytes] = []
            phase = self._turn % PHASES
            for stream_id, reply in list(self._replies.items()):
                if reply.phase == phase:
                    reply.due += 1
                    self._pump(stream_id, out)
            if out:
                self._transport.write(b"".join(out))

    def _pump(self, stream_id: int, out: list[bytes]) -> None:
        reply = self._replies[stream_id]
        while reply.index < min(reply.due, len(reply.messages)):
            message = reply.messages[reply.index]
            size = min(len(message) - reply.offset, MAX_FRAME_BYTES, self._window, reply.window)
            if size <= 0:
                self._ready[stream_id] = None
                return
            out.append(frame(DATA, 0, stream_id, message[reply.offset : reply.offset + size]))
            self._window -= size
            reply.window -= size
            reply.offset += size
            if reply.offset == len(message):
                reply.index, reply.offset = reply.index + 1, 0
        self._ready.pop(stream_id, None)
        if reply.index == len(reply.messages):
            out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, TRAILER_BLOCK))
            del self._replies[stream_id]
