"""What gRPC raised, as one of the exceptions of :mod:`yandexgpt.errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

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

    from yandexgpt.completion import Completion

__all__ = [
    "FailedCall",
    "closed_meanwhile",
    "decode_details",
    "error_class",
    "from_rpc_error",
    "metadata_dict",
    "pushback_seconds",
]

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
    """What is read of a failed call: what stubs raise has it, synchronous and not."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def initial_metadata(self) -> Any: ...
    def trailing_metadata(self) -> Any: ...


def from_rpc_error(
    error: FailedCall,
    *,
    request_id: str | None,
    endpoint: str,
    attempts: int,
    elapsed: float,
    partial: Completion | None = None,
) -> APIError:
    """Map what gRPC raised to the error tree; the caller raises it ``from`` the original."""
    metadata = {**metadata_dict(error.initial_metadata()), **metadata_dict(error.trailing_metadata())}
    details = decode_details(metadata.get("grpc-status-details-bin"))
    code = error.code()
    return error_class(code)(
        error.details() or "",
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


def closed_meanwhile(endpoint: str) -> CancelledError:
    """The client was closed between two calls of somebody who waits for an operation."""
    import grpc

    message = "the client was closed while an operation was waited for, which goes on at the service"
    return CancelledError(message, code=grpc.StatusCode.CANCELLED, endpoint=endpoint)


def error_class(code: grpc.StatusCode) -> type[APIError]:
    """The class for a gRPC status code."""
    return _BY_CODE.get(code.name, APIError)


def metadata_dict(metadata: Any) -> dict[str, Any]:
    """The last value of each key of gRPC metadata, which may be None before it has come."""
    return {key: value for key, value in metadata or ()}  # noqa: C416  (dict() of aio's metadata gives the first)


def decode_details(status_bytes: bytes | None) -> tuple[Any, ...]:
    """The details in a serialized ``google.rpc.Status``; a type that this process does not know stays an ``Any``."""
    if not status_bytes:
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


def _retry_after(details: tuple[Any, ...], pushback_ms: str | None) -> float | None:
    for detail in details:
        if detail.DESCRIPTOR.full_name == "google.rpc.RetryInfo":
            if not detail.HasField("retry_delay"):
                continue
            delay = detail.retry_delay
            return max(0.0, float(delay.seconds + delay.nanos / 1e9))
    return pushback_seconds(pushback_ms)


def pushback_seconds(pushback_ms: str | None) -> float | None:
    """Seconds that ``grpc-retry-pushback-ms`` (a signed 32-bit integer) asks for; None if it asks not to retry."""
    if pushback_ms is None or not (pushback_ms.isascii() and pushback_ms.isdigit() and len(pushback_ms) <= 10):
        return None
    return int(pushback_ms) / 1000
