"""What gRPC raised, as one of the exceptions of :mod:`yandexgpt.errors`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from yandexgpt._retry import over_size_limit, pushback_seconds
from yandexgpt.errors import (
    APIError,
    AuthenticationError,
    CancelledError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalServerError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    UnavailableError,
    UnimplementedError,
)

if TYPE_CHECKING:
    import grpc

    from yandexgpt._models import Completion

__all__ = [
    "FailedCall",
    "closed_meanwhile",
    "code_of",
    "decode_details",
    "details_of",
    "error_class",
    "from_rpc_error",
    "initial_metadata_of",
    "metadata_dict",
    "trailing_metadata_of",
]

logger = logging.getLogger("yandexgpt")

_BY_CODE: dict[str, type[APIError]] = {
    "INVALID_ARGUMENT": InvalidArgumentError,
    "UNAUTHENTICATED": AuthenticationError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "NOT_FOUND": NotFoundError,
    "FAILED_PRECONDITION": FailedPreconditionError,
    "RESOURCE_EXHAUSTED": QuotaExceededError,
    "UNAVAILABLE": UnavailableError,
    "INTERNAL": InternalServerError,
    "UNIMPLEMENTED": UnimplementedError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "CANCELLED": CancelledError,
}


class FailedCall(Protocol):
    """What gRPC's own errors tell of a failed call, synchronous and not. Others' errors may lack any of it."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def initial_metadata(self) -> Any: ...
    def trailing_metadata(self) -> Any: ...


# Those that speak of the answer; the others mean the request.
_ANSWER_WORDS = ("CLIENT: Received", "SERVER: Sent", "trying to send message")


def from_rpc_error(
    error: Any,
    *,
    request_id: str | None,
    endpoint: str,
    attempts: int,
    elapsed: float,
    partial: Completion | None = None,
) -> APIError:
    """Map what gRPC raised to the error tree; the caller raises it ``from`` the original.

    Args:
        error: what a stub, or an interceptor, has raised: of what gRPC's own errors can tell any part may be missing.
        request_id, endpoint, attempts, elapsed, partial: of the call, as in :class:`~yandexgpt.APIError`.
    """
    metadata = {**metadata_dict(initial_metadata_of(error)), **metadata_dict(trailing_metadata_of(error))}
    details = decode_details(metadata.get("grpc-status-details-bin"))
    code, message = code_of(error), details_of(error)
    return error_class(code, message)(
        message,
        code=code,
        details=details,
        request_id=request_id,
        server_request_id=metadata.get("x-request-id"),
        trace_id=metadata.get("x-server-trace-id"),
        endpoint=endpoint,
        attempts=attempts,
        elapsed=elapsed,
        partial=partial,
        retry_after=_retry_after(details, metadata.get("grpc-retry-pushback-ms")),
    )


def code_of(error: Any) -> grpc.StatusCode:
    """The status code of what gRPC, or an interceptor, has raised; UNKNOWN if it has none.

    An interceptor may raise a bare ``grpc.RpcError``; and ``grpc.aio`` raises KeyError at a number that is no code.
    """
    import grpc

    code = _told(error, "code")
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def details_of(error: Any) -> str:
    """The message of what gRPC, or an interceptor, has raised; where it cannot tell, the exception's own text."""
    details = _told(error, "details")
    if isinstance(details, bytes):
        details = details.decode("utf-8", "replace")
    if isinstance(details, str):
        return details
    # Not the text of an error that has details, only none to tell: it repeats the code, over several lines.
    return "" if callable(getattr(type(error), "details", None)) else str(error)


def initial_metadata_of(error: Any) -> tuple[tuple[str, Any], ...]:
    """The metadata that came before the answer; empty if none came, or the error cannot tell."""
    return _pairs(_told(error, "initial_metadata"))


def trailing_metadata_of(error: Any) -> tuple[tuple[str, Any], ...]:
    """The metadata that came after the answer; empty if none came, or the error cannot tell."""
    return _pairs(_told(error, "trailing_metadata"))


def _told(error: Any, name: str) -> Any:
    """What the error says when asked by name; None if it does not know."""
    try:
        told = getattr(error, name, None)
        return told() if callable(told) else told
    except Exception:  # it is foreign code, and must not hide the error that it is asked about
        logger.debug("%s.%s() failed", type(error).__name__, name, exc_info=True)
        return None


def _pairs(metadata: Any) -> tuple[tuple[str, Any], ...]:
    if isinstance(metadata, Mapping):
        metadata = metadata.items()
    if not isinstance(metadata, Iterable):
        return ()
    return tuple((pair[0], pair[1]) for pair in metadata if isinstance(pair, tuple) and len(pair) == 2)


def closed_meanwhile(endpoint: str) -> CancelledError:
    """The client was closed between two calls of somebody who waits for an operation."""
    import grpc

    message = "the client was closed while an operation was waited for, which goes on at the service"
    return CancelledError(message, code=grpc.StatusCode.CANCELLED, endpoint=endpoint)


def error_class(code: grpc.StatusCode, message: str = "") -> type[APIError]:
    """The class for a gRPC status code, and for what is over a size limit, which has the code of a quota."""
    if code.name == "RESOURCE_EXHAUSTED" and over_size_limit(message):
        return InternalServerError if _answer_is_over(message) else InvalidArgumentError
    return _BY_CODE.get(code.name, APIError)


def _answer_is_over(message: str) -> bool:
    if "metadata size exceeds" in message:
        # gRPC lists the headers if there is one list. Without it nothing tells; but no server of another make than
        # gRPC's core has these words, so most likely they are our own core's, about what it has received.
        return ":path:" not in message
    return any(words in message for words in _ANSWER_WORDS)


def metadata_dict(metadata: Any) -> dict[str, Any]:
    """The last value of each key of gRPC metadata, which may be None before it has come."""
    return {key: value for key, value in metadata or ()}  # noqa: C416  (dict() of aio's metadata gives the first)


def decode_details(status_bytes: object) -> tuple[Any, ...]:
    """The details in a serialized ``google.rpc.Status``; a type that this process does not know stays an ``Any``."""
    if not isinstance(status_bytes, bytes) or not status_bytes:
        return ()
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

    known = {
        descriptor.full_name: getattr(error_details_pb2, name)
        for name, descriptor in error_details_pb2.DESCRIPTOR.message_types_by_name.items()
    }

    def decoded(detail: Any) -> Any:
        kind = known.get(detail.TypeName())
        try:
            return detail if kind is None else kind.FromString(detail.value)
        except DecodeError:
            return detail

    # The status itself has come through; details that cannot be read must not hide it.
    try:
        return tuple(map(decoded, status_pb2.Status.FromString(status_bytes).details))
    except DecodeError:
        return ()


def _retry_after(details: tuple[Any, ...], pushback_ms: Any) -> float | None:
    for detail in details:
        if detail.DESCRIPTOR.full_name == "google.rpc.RetryInfo":
            if not detail.HasField("retry_delay"):
                continue
            delay = detail.retry_delay
            return max(0.0, float(delay.seconds + delay.nanos / 1e9))
    return pushback_seconds(pushback_ms)
