"""The server of the benchmark: preserialised answers, at a few tens of microseconds a call.

A server written with grpcio costs more than the clients measured here, so that they would wait for it. This one knows
only as much HTTP/2 as a gRPC client needs: it parses no request and no header, and every port has one answer, whose
messages leave one frame each, as fast as flow control lets them.

Started by ``run.py``: prints its ports as a line of JSON, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from answers import ANSWERS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x8
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_BYTES = 16_384
DEFAULT_WINDOW_BYTES = 65_535
LARGEST_WINDOW_BYTES = 2**31 - 1


def literal(name: str, value: str) -> bytes:
    """A header in HPACK that refers to no table."""
    return b"".join([b"\x00", bytes([len(name)]), name.encode(), bytes([len(value)]), value.encode()])


HEADER_BLOCK = b"\x88" + literal("content-type", "application/grpc") + literal("x-request-id", "0" * 36)  # :status 200
TRAILER_BLOCK = literal("grpc-status", "0")


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


@dataclass
class Reply:
    """What is still to be sent on a stream."""

    messages: Sequence[bytes]
    window: int
    index: int = 0
    offset: int = 0


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, messages: Sequence[bytes]) -> None:
        self._messages = messages
        self._received = bytearray()
        self._greeted = False
        self._replies: dict[int, Reply] = {}
        self._window = DEFAULT_WINDOW_BYTES
        self._initial_window = DEFAULT_WINDOW_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, and let the client send as many requests as it likes."""
        self._transport = cast("asyncio.Transport", transport)
        credit = struct.pack(">I", LARGEST_WINDOW_BYTES - DEFAULT_WINDOW_BYTES)
        self._transport.write(frame(SETTINGS, 0, 0, b"") + frame(WINDOW_UPDATE, 0, 0, credit))

    def data_received(self, data: bytes) -> None:
        """Handle the frames that are whole, then send what may be sent."""
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
        for stream_id in list(self._replies):
            self._pump(stream_id, out)
        if out:
            self._transport.write(b"".join(out))

    def _handle(self, kind: int, flags: int, stream_id: int, payload: bytearray, out: list[bytes]) -> None:
        if kind in (HEADERS, DATA):
            if flags & END_STREAM:
                self._replies[stream_id] = Reply(self._messages, self._initial_window)
                out.append(frame(HEADERS, END_HEADERS, stream_id, HEADER_BLOCK))
        elif kind == WINDOW_UPDATE:
            (credit,) = struct.unpack(">I", payload)
            if stream_id == 0:
                self._window += credit
            elif reply := self._replies.get(stream_id):
                reply.window += credit
        elif kind == RST_STREAM:
            self._replies.pop(stream_id, None)
        elif kind == PING and not flags & ACK:
            out.append(frame(PING, ACK, 0, bytes(payload)))
        elif kind == SETTINGS and not flags & ACK:
            for setting, value in struct.iter_unpack(">HI", payload):
                if setting == INITIAL_WINDOW_SIZE:
                    for reply in self._replies.values():
                        reply.window += value - self._initial_window
                    self._initial_window = value
            out.append(frame(SETTINGS, ACK, 0, b""))

    def _pump(self, stream_id: int, out: list[bytes]) -> None:
        reply = self._replies[stream_id]
        while reply.index < len(reply.messages):
            message = reply.messages[reply.index]
            size = min(len(message) - reply.offset, MAX_FRAME_BYTES, self._window, reply.window)
            if size <= 0:
                return
            out.append(frame(DATA, 0, stream_id, message[reply.offset : reply.offset + size]))
            self._window -= size
            reply.window -= size
            reply.offset += size
            if reply.offset == len(message):
                reply.index, reply.offset = reply.index + 1, 0
        out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, TRAILER_BLOCK))
        del self._replies[stream_id]


async def serve() -> None:
    """A port for each answer, until standard input ends."""
    loop = asyncio.get_running_loop()
    ports = {}
    for name, make in ANSWERS.items():
        # In front of each message gRPC puts a byte for compression (none) and its length.
        messages = [struct.pack(">BI", 0, len(message)) + message for message in make()]
        server = await loop.create_server(lambda messages=messages: Connection(messages), "127.0.0.1", 0)  # type: ignore[misc]
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    stop = asyncio.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve())
