"""A server that sends given HTTP/2 frames or bytes, in place of a gRPC service that is broken or is not gRPC."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType

from yandexgpt.emulator.fault_proxy import frames as h2

SETTINGS, CONTINUATION, ACK = 0x4, 0x9, 0x1
MAX_FRAME = 16_384
EMPTY_MESSAGE = struct.pack("!BI", 0, 0)

Answer = Callable[[int], bytes]
"""A function from the stream number to the bytes to send."""


def literal(name: str, value: str) -> bytes:
    """A literal HPACK header without a reference to a table."""
    return b"\x00" + b"".join(_length(len(text)) + text.encode() for text in (name, value))


def _length(number: int) -> bytes:
    if number < 127:
        return bytes([number])
    out, number = b"\x7f", number - 127
    while number >= 128:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


HEADERS = literal(":status", "200") + literal("content-type", "application/grpc")
TRAILERS = literal("grpc-status", "0")


def headers(stream: int, block: bytes, *, end: bool = False) -> bytes:
    """A header block in one HEADERS frame and, if needed, CONTINUATION frames."""
    parts = [block[start : start + MAX_FRAME] for start in range(0, len(block), MAX_FRAME)]
    frames = []
    for index, part in enumerate(parts):
        flags = (h2.END_HEADERS if index == len(parts) - 1 else 0) | (h2.END_STREAM if end and index == 0 else 0)
        frames.append(h2.build(CONTINUATION if index else h2.HEADERS, flags, stream, part).raw)
    return b"".join(frames)


def data(stream: int, payload: bytes, *, end: bool = False) -> bytes:
    """A DATA frame."""
    return h2.build(h2.DATA, h2.END_STREAM if end else 0, stream, payload).raw


class Peer:
    """Reads requests and answers each with the same bytes.

    Args:
        answer: gives the bytes to send after a complete request.
        close: close the connection after the answer.
        greet: send HTTP/2 SETTINGS first. If false, a new connection gets only `answer`, with stream number 0.
    """

    def __init__(self, answer: Answer, *, close: bool = False, greet: bool = True) -> None:
        self._answer, self._close, self._greet = answer, close, greet
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests = 0
        """Number of answered requests; without `greet`, of answered connections."""
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Peer:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):  # the client closed it first
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._sockets.append(accepted)
            self._start(self._serve, accepted)

    def _serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has disconnected, or the test has ended
            if not self._greet:
                self.requests += 1
                accepted.sendall(self._answer(0))
                accepted.recv(1 << 16)
                accepted.shutdown(socket.SHUT_RDWR)
                return
            accepted.sendall(h2.build(SETTINGS, 0, 0, b"").raw)
            reader, preface = h2.FrameReader(), len(h2.PREFACE)
            while received := accepted.recv(1 << 16):
                skipped = min(preface, len(received))
                preface -= skipped
                for frame in reader.feed(received[skipped:]):
                    if frame.kind == SETTINGS and not frame.flags & ACK:
                        accepted.sendall(h2.build(SETTINGS, ACK, 0, b"").raw)
                    elif frame.end_stream:
                        self.requests += 1
                        accepted.sendall(self._answer(frame.stream))
                        if self._close:
                            accepted.shutdown(socket.SHUT_RDWR)
