"""Errors in OpenAI's format: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from starlette.responses import Response

from yandexgpt.emulator.http_api.error_response import http_status, retry_after
from yandexgpt.emulator.http_api.grpc_client import CallFailed

__all__ = ["ApiError", "bad_request", "from_call_failed", "generation_error", "json_response"]

_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid_value",
    grpc.StatusCode.UNAUTHENTICATED: "invalid_api_key",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "rate_limit_exceeded",
}
"""OpenAI's error codes; for other statuses, the name of the gRPC status."""
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500
_PARAMETERS = {
    "model_uri": "model",
    "completion_options.temperature": "temperature",
    "completion_options.max_tokens": "max_tokens",
    "tool_choice.mode": "tool_choice",
    "tool_choice.function_name": "tool_choice",
}
"""Parameter names for fields of the gRPC request; other fields keep their names."""
_GENERATION_CODES = {"RESOURCE_EXHAUSTED": "rate_limit_exceeded", "INVALID_ARGUMENT": "invalid_prompt"}


class ApiError(Exception):
    """An error response.

    Args:
        status: the HTTP status.
        message: the error message.
        param: the invalid parameter, or None.
        code: OpenAI's error code.
        headers: further HTTP headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": _kind(status), "param": param, "code": code}}
        self.headers = {"x-request-id": str(uuid.uuid4()), **(headers or {})}

    def response(self) -> Response:
        """The HTTP response."""
        return json_response(self.body, status=self.status, headers=self.headers)


def _kind(status: int) -> str:
    """OpenAI's ``type`` of an error."""
    if status >= _SERVER_ERRORS:
        return "server_error"
    return "requests" if status == _TOO_MANY_REQUESTS else "invalid_request_error"


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response with a JSON value."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(content, status, headers, media_type="application/json")


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """The error for an invalid request."""
    return ApiError(400, message, param=param, code=code)


def from_call_failed(failed: CallFailed, parameters: dict[str, str] | None = None) -> ApiError:
    """The error for a failed gRPC call.

    Args:
        failed: the failed call.
        parameters: parameter names that differ from the usual ones, by the field of the gRPC request.
    """
    headers: dict[str, str] = {}
    if failed.request_id is not None:
        headers["x-request-id"] = failed.request_id
    seconds = retry_after(failed.status)
    if seconds is not None:
        headers["retry-after"] = str(max(0, math.ceil(seconds)))
        headers["retry-after-ms"] = str(max(0, math.ceil(seconds * 1000)))
    field = _first_field(failed)
    param = None if field is None else {**_PARAMETERS, **(parameters or {})}.get(field, field)
    code = _CODES.get(failed.code, failed.code.name.lower())
    message = failed.message or failed.code.name
    return ApiError(http_status(failed.code), message, param=param, code=code, headers=headers)


def _first_field(failed: CallFailed) -> str | None:
    """The first invalid field of the gRPC request, if the status names one."""
    for detail in failed.status.details:
        found = error_details_pb2.BadRequest()
        if detail.Unpack(found):
            return next((violation.field for violation in found.field_violations), None)
    return None


def generation_error(status_name: str, message: str) -> dict[str, str]:
    """The ``error`` field of a failed response. OpenAI's client knows only a few codes for it.

    Args:
        status_name: the name of the gRPC status code.
        message: the error message.
    """
    return {"code": _GENERATION_CODES.get(status_name, "server_error"), "message": message}
