"""What can go wrong, as exceptions.

::

    YandexGPTError
    ├── ConfigurationError (ValueError)          nothing was sent
    ├── RevisedError                             Stream.text() only: shown text was taken back
    └── APIError                                 the call failed
        ├── InvalidArgumentError    INVALID_ARGUMENT      mend the request
        ├── AuthenticationError     UNAUTHENTICATED       the credential is wrong or has expired
        ├── PermissionDeniedError   PERMISSION_DENIED     a role is missing
        ├── NotFoundError           NOT_FOUND
        ├── FailedPreconditionError FAILED_PRECONDITION
        ├── QuotaExceededError      RESOURCE_EXHAUSTED    wait, or ask for more
        ├── UnavailableError        UNAVAILABLE           out of reach for now
        ├── InternalServerError     INTERNAL              the service's fault
        ├── UnimplementedError      UNIMPLEMENTED
        ├── DeadlineExceededError   DEADLINE_EXCEEDED     (also a TimeoutError)
        ├── CancelledError          CANCELLED             the service, or `close()`, ended the call
        └── (any other code: APIError itself)

:func:`from_rpc_error` is the only place that turns a ``grpc.RpcError`` into one of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from yandexgpt.completion import Completion

__all__ = [
    "APIError",
    "AuthenticationError",
    "CancelledError",
    "ConfigurationError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalServerError",
    "InvalidArgumentError",
    "NotFoundError",
    "PermissionDeniedError",
    "QuotaExceededError",
    "RevisedError",
    "UnavailableError",
    "UnimplementedError",
    "YandexGPTError",
]


class YandexGPTError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(YandexGPTError, ValueError):
    """The client cannot work as it was set up: nothing was sent."""


class RevisedError(YandexGPTError):
    """The service took back text that :meth:`Stream.text` had already handed out.

    Attributes:
        text: the answer as the service now has it.
        keep: how many characters of what was handed out still stand.
    """

    def __init__(self, text: str, keep: int) -> None:
        super().__init__(text, keep)
        self.text = text
        self.keep = keep

    def __str__(self) -> str:
        return (
            f"the service revised the answer after its first {self.keep} characters, which were already handed out; "
            "iterate over the stream itself to follow revisions, or use text(holdback=...) to make them rarer"
        )


class APIError(YandexGPTError):
    """A call that failed, at the service or on the way to it.

    Attributes:
        code: the gRPC status code (``grpc.StatusCode``).
        message: the service's own words, on one line.
        details: decoded ``google.rpc`` details (``RequestInfo``, ``BadRequest``, ``QuotaFailure``, ``RetryInfo``,
            ``ErrorInfo``, ...); a type this process does not know stays a ``google.protobuf.Any``.
        request_id: the client's own id of the call (``x-client-request-id``), known even after a timeout.
        server_request_id, trace_id: the service's ids (``x-request-id``, ``x-server-trace-id``), if it sent them.
        endpoint: ``host:port`` that was called.
        attempts: how many times the call was sent.
        elapsed: seconds from the start of the call to this error.
        partial: the last whole :class:`~yandexgpt.Completion` seen before a stream broke, or None.
        retry_after: seconds after which the service invites another try, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        details: tuple[Any, ...] = (),
        request_id: str | None = None,
        server_request_id: str | None = None,
        trace_id: str | None = None,
        endpoint: str | None = None,
        attempts: int = 0,
        elapsed: float = 0.0,
        partial: Completion | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.code = code
        self.details = details
        self.request_id = request_id
        self.server_request_id = server_request_id
        self.trace_id = trace_id
        self.endpoint = endpoint
        self.attempts = attempts
        self.elapsed = elapsed
        self.partial = partial
        self.retry_after = retry_after

    def __str__(self) -> str:
        where = f" from {self.endpoint}" if self.endpoint else ""
        facts = [f"{self.attempts} attempt{'' if self.attempts == 1 else 's'} in {self.elapsed:.2f} s"]
        if self.request_id:
            facts.insert(0, f"request id {self.request_id}")
        if self.server_request_id:
            facts.append(f"server request id {self.server_request_id}")
        advice = f"; {_ADVICE[self.code.name]}" if self.code.name in _ADVICE else ""
        return f"{self.code.name}{where}: {self.message or 'no message'} ({', '.join(facts)}){advice}"

    def __reduce__(self) -> tuple[Callable[..., APIError], tuple[Any, ...]]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[APIError], args: tuple[Any, ...], state: dict[str, Any]) -> APIError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class InvalidArgumentError(APIError):
    """The request is malformed: model URI, options, or a prompt that is too long."""


class AuthenticationError(APIError):
    """The credential is wrong or has expired."""


class PermissionDeniedError(APIError):
    """The account lacks a role for this folder (``ai.languageModels.user``)."""


class NotFoundError(APIError):
    """There is no such thing at the service (any more)."""


class FailedPreconditionError(APIError):
    """The service is not in a state that allows the call."""


class QuotaExceededError(APIError):
    """A quota is used up, or a message is over the size limit."""


class UnavailableError(APIError):
    """The service could not be reached, or is out of order for now."""


class InternalServerError(APIError):
    """The service, or the connection to it, broke in a way that is not the request's fault."""


class UnimplementedError(APIError):
    """The service does not know this call."""


class DeadlineExceededError(APIError, TimeoutError):
    """The deadline (``timeout``) passed."""


class CancelledError(APIError):
    """The call was ended by the service or by ``close()``. (A cancelled task raises ``asyncio.CancelledError``.)"""


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

# One clause of advice a person can act on; the rest of the codes speak for themselves.
_ADVICE = {
    "UNAUTHENTICATED": "check the API key or token",
    "PERMISSION_DENIED": "check the folder id and that the account has the role ai.languageModels.user in it",
    "UNAVAILABLE": "check the endpoint, TLS settings and the network",
    "DEADLINE_EXCEEDED": "pass a longer timeout",
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
    details = _decode_details(metadata.get("grpc-status-details-bin"))
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


def not_connected(endpoint: str, elapsed: float) -> UnavailableError:
    """No connection could be opened in time."""
    import grpc

    message = "no connection could be opened"
    return UnavailableError(message, code=grpc.StatusCode.UNAVAILABLE, endpoint=endpoint, elapsed=elapsed)


def error_class(code: grpc.StatusCode) -> type[APIError]:
    """The class for a gRPC status code."""
    return _BY_CODE.get(code.name, APIError)


def metadata_dict(metadata: Any) -> dict[str, Any]:
    """The last value of each key of gRPC metadata, which may be None before it has come."""
    return dict(metadata) if metadata else {}


def _decode_details(status_bytes: bytes | None) -> tuple[Any, ...]:
    if not status_bytes:
        return ()
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

    known = {
        descriptor.full_name: getattr(error_details_pb2, name)
        for name, descriptor in error_details_pb2.DESCRIPTOR.message_types_by_name.items()
    }
    try:
        packed = status_pb2.Status.FromString(status_bytes).details
        return tuple(
            known[name].FromString(detail.value) if (name := detail.TypeName()) in known else detail
            for detail in packed
        )
    except DecodeError:
        # The status itself has come through; details that cannot be read must not hide it.
        return ()


def _retry_after(details: tuple[Any, ...], pushback_ms: str | None) -> float | None:
    for detail in details:
        if detail.DESCRIPTOR.full_name == "google.rpc.RetryInfo":
            delay = detail.retry_delay
            return float(delay.seconds + delay.nanos / 1e9)
    if pushback_ms is not None and pushback_ms.lstrip("-").isdigit() and int(pushback_ms) >= 0:
        return int(pushback_ms) / 1000
    return None
