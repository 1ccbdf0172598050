"""The REST API: the HTTP paths of the methods, from the annotations of the interface."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2  # type: ignore[import-untyped]
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionRequest,
)
from yandexgpt._proto.yandex.cloud.operation.operation_pb2 import Operation
from yandexgpt.emulator.http_api import openapi
from yandexgpt.emulator.http_api.disconnect import (
    CLIENT_CLOSED_REQUEST,
    LARGEST_BODY,
    StreamedResponse,
    cancel_on_disconnect,
)
from yandexgpt.emulator.http_api.error_response import error_response, from_call_failed, from_invalid_request
from yandexgpt.emulator.http_api.grpc_client import CallFailed, GrpcClient
from yandexgpt.emulator.http_api.json_validation import InvalidRequest
from yandexgpt.emulator.http_api.transcoding import Binding, bindings, dump, to_dict

__all__ = ["http_error", "routes"]

_FORWARDED_HEADERS = (
    "authorization",
    "x-folder-id",
    "x-data-logging-enabled",
    "x-client-request-id",
    "x-client-trace-id",
    "idempotency-key",
)
_IDS = ("x-request-id", "x-server-trace-id")
_PRINTABLE = re.compile(r"[ -~]*")
_JSON = re.compile(r"(?:application/(?:json|[\w.-]+\+json|x-www-form-urlencoded)|text/plain)\s*(?:;.*)?", re.IGNORECASE)
"""Media types that are read as JSON. curl and other clients send some of these by default."""
_NDJSON = "application/x-ndjson"
_CODES = {404: grpc.StatusCode.NOT_FOUND, 405: grpc.StatusCode.UNIMPLEMENTED, 500: grpc.StatusCode.INTERNAL}


def routes() -> list[Route]:
    """A route for each HTTP binding of each method, and one for the OpenAPI document."""
    return [
        Route("/openapi.json", _describe),
        *(Route(binding.path, _endpoint(binding), methods=[binding.verb]) for binding in bindings()),
    ]


def http_error(request: Request, error: HTTPException) -> Response:
    """The response to a request without a method: a wrong path, verb, media type or size."""
    message = f"{request.method} {request.url.path}: {error.detail}"
    code = _CODES.get(error.status_code, grpc.StatusCode.INVALID_ARGUMENT)
    status = status_pb2.Status(code=code.value[0], message=message)
    return error_response(error.status_code, status, dict(error.headers or {}))


async def _describe(request: Request) -> Response:
    return Response(dump(openapi.document(str(request.base_url))), media_type="application/json")


def _endpoint(binding: Binding) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            body = await _body(request)
            message = binding.request(request.path_params, request.query_params.multi_items(), body)
            return await cancel_on_disconnect(request.receive, _answer(request, binding, message))
        except InvalidRequest as invalid:
            return from_invalid_request(invalid)
        except CallFailed as failed:
            return from_call_failed(failed)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    return answer


async def _answer(request: Request, binding: Binding, message: Message) -> Response:
    grpc_client: GrpcClient = request.app.state.grpc_client
    received: dict[str, str] = {}
    call = (binding.full_name, message, binding.response_type, _metadata(request))
    if isinstance(message, CompletionRequest) and binding.method.server_streaming and message.completion_options.stream:
        messages = grpc_client.stream(*call, received=received)
        first = await anext(messages, None)
        media_type = _NDJSON if _NDJSON in request.headers.get("accept", "") else "application/json"
        return _JsonLines(messages, first, _ids(received), media_type)
    response = await grpc_client.unary(*call, received=received)
    data = to_dict(response)
    if isinstance(response, Operation) and not response.done:
        data.setdefault("metadata", None)
    content = dump({"result": data} if binding.method.server_streaming else data)
    return Response(content, 200, _ids(received), media_type="application/json")


def _ids(received: dict[str, str]) -> dict[str, str]:
    return {name: received[name] for name in _IDS if name in received}


async def _body(request: Request) -> bytes:
    """The body of a request; empty for GET and HEAD.

    Raises:
        HTTPException: its type is not supported, or it is too large.
    """
    kind = request.headers.get("content-type")
    if request.method in ("GET", "HEAD"):
        return b""
    if kind and not _JSON.fullmatch(kind):
        raise HTTPException(415, f"a body of type {kind!r} is not read; send application/json")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"the body is larger than {LARGEST_BODY} bytes")
    return bytes(body)


def _metadata(request: Request) -> list[tuple[str, str]]:
    metadata = [("x-emulator-face", "rest")]
    for name in _FORWARDED_HEADERS:
        for value in request.headers.getlist(name):
            if not _PRINTABLE.fullmatch(value):
                raise InvalidRequest(f"the header {name}", "it holds a character that is not printable ASCII")
            metadata.append((name, value))
    return metadata


class _JsonLines(StreamedResponse):
    """A stream of messages as lines of ``{"result": ...}``. An error is the last line.

    Args:
        messages, headers, media_type: see :class:`StreamedResponse`.
        first: the first message; None if there is none.
    """

    def __init__(
        self, messages: AsyncGenerator[Message, None], first: Message | None, headers: dict[str, str], media_type: str
    ) -> None:
        super().__init__(messages, headers, media_type)
        self._first = first

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        if self._first is not None:
            yield _line({"result": to_dict(self._first)})
        try:
            async for message in self.messages:
                yield _line({"result": to_dict(message)})
        except CallFailed as failed:
            yield _line({"error": to_dict(failed.status)})


def _line(value: dict[str, Any]) -> bytes:
    return dump(value) + b"\n"
