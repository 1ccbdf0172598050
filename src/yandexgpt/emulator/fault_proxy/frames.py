"""HTTP/2 frames (RFC 9113) and gRPC messages, as far as the fault proxy needs them."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0x0
HEADERS: Final = 0x1
RST_STREAM: Final = 0x3
PUSH_PROMISE: Final = 0x5
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
OPAQUE: Final = -1
"""The kind of data from a connection that is not plaintext HTTP/2."""

END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4

FRAME_HEADER: Final = 9
MESSAGE_HEADER: Final = 5
STREAM_MASK: Final = 0x7FFFFFFF


class Frame(NamedTuple):
    """A complete frame. A header block includes its CONTINUATION frames.

    No other frame may stand between the frames of a header block. Padding is not parsed; gRPC does not send it.
    """

    kind: int
    flags: int
    stream: int
    raw: bytes

    @property
    def payload(self) -> bytes:
        """The data after the frame header."""
        return self.raw[FRAME_HEADER:]

    @property
    def end_stream(self) -> bool:
        """Whether the frame has the flag END_STREAM."""
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)


def build(kind: int, flags: int, stream: int, payload: bytes) -> Frame:
    """Build a frame. A payload has at most 2**24 - 1 bytes."""
    header = struct.pack("!IBI", len(payload) << 8 | kind, flags, stream)
    return Frame(kind, flags, stream, header + payload)


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame with an HTTP/2 error code."""
    return build(RST_STREAM, 0, stream, struct.pack("!I", code)).raw


def goaway(last_stream: int, code: int, debug: bytes) -> bytes:
    """A GOAWAY frame: streams above `last_stream` are not served."""
    return build(GOAWAY, 0, 0, struct.pack("!II", last_stream, code) + debug).raw


def window_update(size: int) -> bytes:
    """A WINDOW_UPDATE frame for the whole connection; empty for size 0."""
    return build(WINDOW_UPDATE, 0, 0, struct.pack("!I", size)).raw if size else b""


class FrameReader:
    """Splits one direction of a connection (after the preface) into frames."""

    def __init__(self) -> None:
        """Start at a frame boundary."""
        self._buffer = bytearray()
        self._block: Frame | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """Add received bytes; return the frames that are complete now."""
        buffer, frames, start = self._buffer, [], 0
        buffer += data
        while len(buffer) - start >= FRAME_HEADER:
            head, flags, stream = struct.unpack_from("!IBI", buffer, start)
            end = start + FRAME_HEADER + (head >> 8)
            if len(buffer) < end:
                break
            frame = Frame(head & 0xFF, flags, stream & STREAM_MASK, bytes(buffer[start:end]))
            start = end
            if (block := self._block) is not None:
                frame = block._replace(flags=block.flags | flags & END_HEADERS, raw=block.raw + frame.raw)
            if frame.kind in (HEADERS, PUSH_PROMISE) and not frame.flags & END_HEADERS:
                self._block = frame
            else:
                self._block = None
                frames.append(frame)
        del buffer[:start]
        return frames


class MessageCounter:
    """Finds the ends of gRPC messages (a flag, a length of four bytes, a body) in one direction of a stream."""

    def __init__(self) -> None:
        """Start at a message boundary."""
        self._header = bytearray()
        self._body = 0

    def feed(self, data: bytes) -> list[int]:
        """Add the payload of the next DATA frame; return the offset after each message that ends in it."""
        ends, at = [], 0
        while at < len(data):
            if len(self._header) < MESSAGE_HEADER:
                taken = data[at : at + MESSAGE_HEADER - len(self._header)]
                self._header += taken
                at += len(taken)
                if len(self._header) < MESSAGE_HEADER:
                    break
                self._body = int.from_bytes(self._header[1:], "big")
            step = min(self._body, len(data) - at)
            self._body -= step
            at += step
            if not self._body:
                self._header.clear()
                ends.append(at)
        return ends
