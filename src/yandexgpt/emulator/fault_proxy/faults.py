"""The faults that the fault proxy can inject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

__all__ = ["ErrorCode", "Fault", "Played"]

Kind = Literal["refuse", "stall", "break", "goaway", "reset", "drip", "delay"]
Point = Literal["connect", "request", "last", "end"]


class ErrorCode:
    """The HTTP/2 error codes that matter for a client (RFC 9113, section 7)."""

    NO_ERROR: Final = 0
    INTERNAL_ERROR: Final = 2
    REFUSED_STREAM: Final = 7
    CANCEL: Final = 8
    ENHANCE_YOUR_CALM: Final = 11


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, and where.

    kind: what happens.
        "refuse": connections are refused, until `seconds` have passed (0: until `accept` or `clear`).
        "stall": from the point on, the connection swallows everything in both directions and stays open.
        "break": the TCP connection is broken: by RST, or with `fin=True` closed in order.
        "goaway": a GOAWAY frame goes to the client, with `code`, `debug`, `last_stream`; with `close=True` the
            connection is closed after it.
        "reset": a RST_STREAM frame with `code` goes to the client, and the call is cancelled at the server.
        "drip": from the point to the end of the call (after "connect": of the connection), the client gets at most
            `size` bytes each `seconds`.
        "delay": what the client is to get is held back by `seconds`.
    after: the point. "connect": the TCP connection is accepted and nothing was said. "request": the whole request went
        to the server, and no answer to the client. A number N: the client was sent the response's headers and N
        messages; a DATA frame that holds more is split. "last": every message was sent, and the trailers were not.
        "end": the trailers were sent. Faults "after connect" meet connections, all others calls. Means nothing to
        "refuse"; "goaway" and "reset" have no "connect".
    seconds: for "refuse", "drip" and "delay" see there; for the others the time from the point to the fault, in which
        the client is sent nothing more, and can read what it was sent before; `FaultProxy.play` ends that time.
    code: HTTP/2 error code for "goaway" and "reset", see `ErrorCode`.
    last_stream: for "goaway", the last stream that is still served; None: every one there is (a graceful end). Calls
        above it are cancelled at the server.
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
        """Refuse what cannot be played; raises ValueError."""
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
    """A fault that did happen: to which connection (counted from 1; 0: none) and HTTP/2 stream (0: none)."""

    fault: Fault
    connection: int
    stream: int
