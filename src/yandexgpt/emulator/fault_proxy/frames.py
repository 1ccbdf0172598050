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
    """One frame as it stands on the wire; a header block comes as one, its CONTINUATION frames included.

    A block is kept whole because no other frame may stand inside it. Padding, which gRPC does not send, is not
    looked into.
    """

    kind: int
    flags: int
    stream: int
    raw: bytes

    @property
    def payload(self) -> bytes:
        """What follows the frame's header."""
        return self.raw[FRAME_HEADER:]

    @property
    def end_stream(self) -> bool:
        """Whether it is the last that its sender says on the stream."""
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)


def build(kind: int, flags: int, stream: int, payload: bytes) -> Frame:
    """Make a frame of its parts; a payload holds at most 2**24 - 1 bytes."""
    header = struct.pack("!IBI", len(payload) << 8 | kind, flags, stream)
    return Frame(kind, flags, stream, header + payload)


def rst_stream(stream: int, code: int) -> bytes:
    """Return a RST_STREAM frame with an HTTP/2 error code."""
    return build(RST_STREAM, 0, stream, struct.pack("!I", code)).raw


def goaway(last_stream: int, code: int, debug: bytes) -> bytes:
    """Return a GOAWAY frame: streams above `last_stream` are not going to be served."""
    return build(GOAWAY, 0, 0, struct.pack("!II", last_stream, code) + debug).raw


def window_update(size: int) -> bytes:
    """Return a WINDOW_UPDATE frame for the whole connection; empty where there is nothing to give back."""
    return build(WINDOW_UPDATE, 0, 0, struct.pack("!I", size)).raw if size else b""


class FrameReader:
    """Cuts one direction of a connection (after the preface) into frames, however its bytes are chopped."""

    def __init__(self) -> None:
        """Begin at the boundary of a frame."""
        self._buffer = bytearray()
        self._block: Frame | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes, of any number; return the frames that are whole now."""
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
    """Finds where gRPC messages (a flag, a length of four bytes, a body) end inside one direction of a stream."""

    def __init__(self) -> None:
        """Begin at the boundary of a message."""
        self._header = bytearray()
        self._body = 0

    def feed(self, data: bytes) -> list[int]:
        """Take the payload of the next DATA frame; return the offsets in it just past the end of each message."""
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
