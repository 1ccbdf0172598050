"""Error statuses in the form of the service: a gRPC status, with ``google.rpc`` details in the trailing metadata."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

__all__ = ["ErrorStatus", "abbreviated", "invalid_argument", "quota_exceeded", "retry_info", "unauthenticated"]

_VALUE_SHOWN = 80
"""Maximum length of a wrong value in an error message."""
_ROOM = 6 * 1024
"""Bytes for the violations of a request. Peers limit metadata to 8 KiB by default."""
STATUS_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class ErrorStatus:
    """A status other than OK, which ends a call.

    Attributes:
        code: any status code but ``OK``.
        message: the status message.
        details: ``google.rpc`` detail messages for ``grpc-status-details-bin``.
        metadata: further trailing metadata.
    """

    code: grpc.StatusCode
    message: str
    details: tuple[Message, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()

    def trailing_metadata(self, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
        """The trailing metadata; a ``RequestInfo`` with this request id is added to the details."""
        status = self.status(error_details_pb2.RequestInfo(request_id=request_id))
        return (*self.metadata, (STATUS_DETAILS_KEY, status.SerializeToString()))

    def status(self, *more_details: Message) -> status_pb2.Status:
        """The status as a ``google.rpc.Status``."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in (*self.details, *more_details):
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status


def abbreviated(value: str) -> str:
    """The ``repr`` of a wrong value for an error message. A long value is cut."""
    quoted = repr(value)
    return quoted if len(quoted) <= _VALUE_SHOWN else f"{quoted[:_VALUE_SHOWN]}..."


def _size(text: str) -> int:
    """Bytes of a text in the metadata: percent-encoded once (the status message) and in Base64 twice (the details)."""
    return len(quote(text)) + 3 * len(text.encode())


def unauthenticated(message: str) -> ErrorStatus:
    """The credential is missing or invalid."""
    return ErrorStatus(grpc.StatusCode.UNAUTHENTICATED, message)


def invalid_argument(violations: Iterable[tuple[str, str]]) -> ErrorStatus:
    """The request is invalid.

    Args:
        violations: pairs of a field path and a description. Those that do not fit into the metadata are left out.
    """
    pairs: list[tuple[str, str]] = []
    room = _ROOM
    for field, description in violations:
        room -= _size(f"{field}: {description}; ")
        if room < 0 and pairs:
            break
        pairs.append((field, description))
    details = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
            for field, description in pairs
        ]
    )
    message = "; ".join(f"{field}: {description}" for field, description in pairs)
    return ErrorStatus(grpc.StatusCode.INVALID_ARGUMENT, message, (details,))


def quota_exceeded(subject: str, description: str, *, retry_after: float | None = None) -> ErrorStatus:
    """A quota is exceeded; `retry_after` (seconds), if given, is sent as a ``RetryInfo``."""
    failure = error_details_pb2.QuotaFailure(
        violations=[error_details_pb2.QuotaFailure.Violation(subject=subject, description=description)]
    )
    details = (failure,) if retry_after is None else (failure, retry_info(retry_after))
    return ErrorStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, description, details)


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    """A detail message that tells the client when to retry."""
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(round(seconds * 1e9))
    return info
