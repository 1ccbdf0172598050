"""HTTP endpoints: they read the request body, convert errors to responses, and detect disconnected clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from yandexgpt.emulator.http_api.disconnect import CLIENT_CLOSED_REQUEST, LARGEST_BODY, cancel_on_disconnect
from yandexgpt.emulator.http_api.grpc_client import CallFailed
from yandexgpt.emulator.http_api.openai.errors import ApiError, from_call_failed

__all__ = ["endpoint"]


def endpoint(
    handle: Callable[[Request, bytes], Coroutine[Any, Any, Response]], parameters: dict[str, str] | None = None
) -> Callable[[Request], Awaitable[Response]]:
    """The handler of a route. It converts errors to responses, and is cancelled when the client disconnects.

    Args:
        handle: gets a request with its body, and returns the response.
        parameters: see :func:`~yandexgpt.emulator.http_api.openai.errors.from_call_failed`.
    """

    async def answer(request: Request) -> Response:
        try:
            body = await _body(request)
            return await cancel_on_disconnect(request.receive, handle(request, body))
        except ApiError as error:
            return error.response()
        except CallFailed as failed:
            return from_call_failed(failed, parameters).response()
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    return answer


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY:
            raise ApiError(413, f"the body is larger than {LARGEST_BODY} bytes", code="too_large")
    return bytes(body)
