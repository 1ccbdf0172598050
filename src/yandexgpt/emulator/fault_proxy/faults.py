"""The faults that the fault proxy can play."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

__all__ = ["ErrorCode", "Fault", "Played"]

Kind = Literal["refuse", "stall", "break", "goaway", "reset", "drip", "delay"]
Point = Literal["connect", "request", "last", "end"]


class ErrorCode:
    """The HTTP/2 error codes that matter to a client (RFC 9113, section 7)."""

    NO_ERROR: Final = 0
    INTERNAL_ERROR: Final = 2
    REFUSED_STREAM: Final = 7
    CANCEL: Final = 8
    ENHANCE_YOUR_CALM: Final = 11


@dataclass(frozen=True)
class Fault:
    """A network fault, and the point of a connection or a call at which it is played.

    kind: the kind of the fault.
        "refuse": new connections are refused for `seconds` (0: until `accept` or `clear`).
        "stall": from the point on, the connection discards all data in both directions and stays open.
        "break": the TCP connection is broken: by RST, or with `fin=True` by FIN.
        "goaway": the client gets a GOAWAY frame with `code`, `debug` and `last_stream`. With `close=True` the
            connection is closed after it.
        "reset": the client gets a RST_STREAM frame with `code`, and the call is cancelled at the server.
        "drip": from the point to the end of the call (after "connect": of the connection), the client gets at most
            `size` bytes each `seconds`.
        "delay": all data for the client is delayed by `seconds`.
    after: the point. "connect": the TCP connection was accepted, and no data was sent. "request": the whole request was
        sent to the server, and no response to the client. A number N: the client was sent the response headers and N
        messages; a DATA frame with more messages is split. "last": all messages were sent, and the trailers were not.
        "end": the trailers were sent. Faults after "connect" are for connections, all other faults are for calls.
        "refuse" ignores `after`. "goaway" and "reset" cannot have "connect".
    seconds: for "refuse", "drip" and "delay" see above. For the other kinds, the time from the point to the fault. In
        this time the client gets no further data, and can read the data that was sent before. `FaultProxy.play` ends
        this time.
    code: HTTP/2 error code for "goaway" and "reset", see `ErrorCode`.
    last_stream: for "goaway", the last stream that is still served; None: all existing streams (a graceful shutdown).
        Calls with a higher stream id are cancelled at the server.
    """

    kind: Kind
    after: Point | int = "request"
    seconds: float = 0.0
    code: int = ErrorCode.NO_ERROR
    fin: bool = False
    close: bool = False
    last_stream: int | None = None
    debug: bytes = b""
    size: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError for a fault that cannot be played."""
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, not {self.kind!r}")
        if self.after not in get_args(Point) and not (isinstance(self.after, int) and self.after >= 0):
            raise ValueError(f"after must be {', '.join(get_args(Point))} or a number >= 0, not {self.after!r}")
        if self.after == "connect" and self.kind in ("goaway", "reset"):
            raise ValueError(f"{self.kind} cannot be played after 'connect': there is no HTTP/2 yet")
        if self.seconds < 0 or (self.kind in ("drip", "delay") and not self.seconds):
            raise ValueError(f"seconds cannot be {self.seconds!r} for {self.kind}")
        if self.size < 1:
            raise ValueError(f"size must be >= 1 bytes, not {self.size!r}")


class Played(NamedTuple):
    """A fault that was played, the number of its connection (from 1; 0: none) and its stream id (0: none)."""

    fault: Fault
    connection: int
    stream: int
