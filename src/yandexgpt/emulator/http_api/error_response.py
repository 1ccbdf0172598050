"""Converts errors to HTTP responses of the REST API: a status code, headers, and ``google.rpc.Status`` as JSON."""

from __future__ import annotations

import math

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from starlette.responses import Response

from yandexgpt.emulator.http_api.grpc_client import CallFailed
from yandexgpt.emulator.http_api.json_validation import InvalidRequest
from yandexgpt.emulator.http_api.transcoding import dump, to_dict

__all__ = ["error_response", "from_call_failed", "from_invalid_request", "http_status", "retry_after"]

_CODE = grpc.StatusCode
_HTTP_STATUSES = {
    _CODE.CANCELLED: 499,
    _CODE.INVALID_ARGUMENT: 400,
    _CODE.DEADLINE_EXCEEDED: 504,
    _CODE.NOT_FOUND: 404,
    _CODE.ALREADY_EXISTS: 409,
    _CODE.PERMISSION_DENIED: 403,
    _CODE.RESOURCE_EXHAUSTED: 429,
    _CODE.FAILED_PRECONDITION: 400,
    _CODE.ABORTED: 409,
    _CODE.OUT_OF_RANGE: 400,
    _CODE.UNIMPLEMENTED: 501,
    _CODE.UNAVAILABLE: 503,
    _CODE.UNAUTHENTICATED: 401,
}
"""The mapping of ``google/rpc/code.proto``; all other codes are 500."""


def http_status(code: grpc.StatusCode) -> int:
    """The HTTP status for a gRPC status other than OK."""
    return _HTTP_STATUSES.get(code, 500)


def retry_after(status: status_pb2.Status) -> float | None:
    """The seconds in the ``RetryInfo`` detail of the status; None without one."""
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.ToNanoseconds() / 1e9)
    return None


def error_response(http: int, status: status_pb2.Status, headers: dict[str, str] | None = None) -> Response:
    """A response for a status.

    Args:
        http: the HTTP status.
        status: the body; its ``RetryInfo`` is sent as the header ``Retry-After`` too.
        headers: further headers.
    """
    headers = dict(headers or {})
    seconds = retry_after(status)
    if seconds is not None:
        headers["retry-after"] = str(max(0, math.ceil(seconds)))
    return Response(dump(to_dict(status)), http, headers, media_type="application/json")


def from_call_failed(failed: CallFailed) -> Response:
    """The response for a failed gRPC call."""
    headers = {} if failed.request_id is None else {"x-request-id": failed.request_id}
    return error_response(http_status(failed.code), failed.status, headers)


def from_invalid_request(invalid: InvalidRequest) -> Response:
    """The response for a request that cannot be translated."""
    status = status_pb2.Status(code=_CODE.INVALID_ARGUMENT.value[0], message=str(invalid))
    if invalid.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=invalid.field, description=invalid.problem)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return error_response(400, status)
