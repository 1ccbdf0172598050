"""Answers over HTTP: whole or as server-sent events, and given up when the client goes away."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from yandexgpt.completion import CompletionResponse
from yandexgpt.emulator.http_api.disconnect import CLIENT_CLOSED_REQUEST, LARGEST_BODY, Growing, unless_gone
from yandexgpt.emulator.http_api.grpc_client import Refused
from yandexgpt.emulator.http_api.openai.errors import Problem, of_refused

__all__ = ["EventStream", "Writer", "endpoint", "event"]


class Writer(Protocol):
    """What makes the events of a stream of the service's messages."""

    def start(self) -> Iterable[bytes]:
        """Before the first message."""

    def push(self, message: CompletionResponse) -> Iterable[bytes]:
        """For a message."""

    def end(self) -> Iterable[bytes]:
        """When the stream has ended well."""

    def fail(self, refused: Refused) -> Iterable[bytes]:
        """When it has not."""


def event(data: Any, name: str | None = None) -> bytes:
    """A server-sent event: a JSON value, or a word such as ``[DONE]``."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return (f"data: {text}\n\n" if name is None else f"event: {name}\ndata: {text}\n\n").encode()


def endpoint(
    handle: Callable[[Request, bytes], Coroutine[Any, Any, Response]], parameters: dict[str, str] | None = None
) -> Callable[[Request], Awaitable[Response]]:
    """The handler of a route: problems become answers, and a client that goes away cancels it.

    Args:
        handle: what answers a request with its body.
        parameters: as for :func:`~yandexgpt.emulator.http_api.openai.errors.of_refused`.
    """

    async def answer(request: Request) -> Response:
        try:
            body = await _body(request)
            return await unless_gone(request.receive, handle(request, body))
        except Problem as problem:
            return problem.response()
        except Refused as refused:
            return of_refused(refused, parameters).response()
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    return answer


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY:
            raise Problem(413, f"the body is larger than {LARGEST_BODY} bytes", code="too_large")
    return bytes(body)


class EventStream(Growing):
    """Server-sent events made of a stream of the service's messages.

    Args:
        messages, headers: as for :class:`~yandexgpt.emulator.http_api.disconnect.Growing`.
        first: the first message.
        writer: what makes the events.
    """

    def __init__(
        self,
        messages: AsyncGenerator[CompletionResponse, None],
        first: CompletionResponse,
        writer: Writer,
        headers: dict[str, str],
    ) -> None:
        super().__init__(messages, {"cache-control": "no-cache", **headers}, "text/event-stream")
        self._first = first
        self._writer = writer

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        writer = self._writer
        yield b"".join((*writer.start(), *writer.push(self._first)))
        try:
            async for message in self.messages:
                yield b"".join(writer.push(message))
        except Refused as refused:
            yield b"".join(writer.fail(refused))
        else:
            yield b"".join(writer.end())
