"""Converts exceptions of gRPC to the exceptions of :mod:`yandexgpt.errors`."""

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
    "client_closed_error",
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
    """The methods of gRPC's errors, of both kinds of call. Errors that interceptors raise may lack any of them."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def initial_metadata(self) -> Any: ...
    def trailing_metadata(self) -> Any: ...


# Parts of gRPC's messages about an answer that is too large. All other messages are about a request.
_ANSWER_TOO_LARGE = ("CLIENT: Received", "SERVER: Sent", "trying to send message")


def from_rpc_error(
    error: Any,
    *,
    request_id: str | None,
    endpoint: str,
    attempts: int,
    elapsed: float,
    partial: Completion | None = None,
) -> APIError:
    """Convert an exception of gRPC to the error tree. The caller raises the result ``from`` the original.

    Args:
        error: the exception that a stub or an interceptor has raised. It may lack any method of gRPC's errors.
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
    """Return the status code of an exception of gRPC or of an interceptor; UNKNOWN if it has none.

    An interceptor may raise a bare ``grpc.RpcError``. ``grpc.aio`` raises KeyError for a number that is no status code.
    """
    import grpc

    code = _attribute_of(error, "code")
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def details_of(error: Any) -> str:
    """Return the message of an exception of gRPC or of an interceptor; without details, the text of the exception."""
    details = _attribute_of(error, "details")
    if isinstance(details, bytes):
        details = details.decode("utf-8", "replace")
    if isinstance(details, str):
        return details
    # The text is not used if the error has a details method that returned nothing: it only repeats the code, in several
    # lines.
    return "" if callable(getattr(type(error), "details", None)) else str(error)


def initial_metadata_of(error: Any) -> tuple[tuple[str, Any], ...]:
    """Return the initial metadata of an error; empty if there is none."""
    return _pairs(_attribute_of(error, "initial_metadata"))


def trailing_metadata_of(error: Any) -> tuple[tuple[str, Any], ...]:
    """Return the trailing metadata of an error; empty if there is none."""
    return _pairs(_attribute_of(error, "trailing_metadata"))


def _attribute_of(error: Any, name: str) -> Any:
    """Return the value of an attribute or method of an error; None if there is none, or it fails."""
    try:
        value = getattr(error, name, None)
        return value() if callable(value) else value
    except Exception:  # code of an interceptor, whose failure must not hide the error itself
        logger.debug("%s.%s() failed", type(error).__name__, name, exc_info=True)
        return None


def _pairs(metadata: Any) -> tuple[tuple[str, Any], ...]:
    if isinstance(metadata, Mapping):
        metadata = metadata.items()
    if not isinstance(metadata, Iterable):
        return ()
    return tuple((pair[0], pair[1]) for pair in metadata if isinstance(pair, tuple) and len(pair) == 2)


def client_closed_error(endpoint: str) -> CancelledError:
    """Return the error for a wait for an operation during which the client was closed, between two calls."""
    import grpc

    message = "the client was closed while an operation was waited for, which goes on at the service"
    return CancelledError(message, code=grpc.StatusCode.CANCELLED, endpoint=endpoint)


def error_class(code: grpc.StatusCode, message: str = "") -> type[APIError]:
    """Return the class for a status code. A message over a size limit has the code of an exceeded quota."""
    if code.name == "RESOURCE_EXHAUSTED" and over_size_limit(message):
        return InternalServerError if _answer_is_too_large(message) else InvalidArgumentError
    return _BY_CODE.get(code.name, APIError)


def _answer_is_too_large(message: str) -> bool:
    if "metadata size exceeds" in message:
        # gRPC lists the headers if it has one list of them. Without the list, the request and the answer cannot be
        # distinguished. But only gRPC's core uses this message, so most likely it is from the core of this process,
        # about metadata that it has received.
        return ":path:" not in message
    return any(part in message for part in _ANSWER_TOO_LARGE)


def metadata_dict(metadata: Any) -> dict[str, Any]:
    """Return the last value of each key of gRPC metadata, which is None before it is received."""
    return {key: value for key, value in metadata or ()}  # noqa: C416  (dict() of grpc.aio's metadata has the first value)


def decode_details(status_bytes: object) -> tuple[Any, ...]:
    """Return the details in a serialized ``google.rpc.Status``. Those of an unknown type remain an ``Any``."""
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

    # The status itself is known; details that cannot be parsed must not hide it.
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
