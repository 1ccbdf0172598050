"""Answers over HTTP: whole or as server-sent events, and given up when the client goes away."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from yandexgpt.completion import CompletionResponse
from yandexgpt.emulator.gateway.core import Refused
from yandexgpt.emulator.gateway.openai.errors import Problem, of_refused
from yandexgpt.emulator.gateway.presence import unless_gone

__all__ = ["EventStream", "Writer", "endpoint", "event"]

_LARGEST_BODY = 16 * 2**20
"""Bytes, as on the REST face."""
_CLIENT_CLOSED_REQUEST = 499
"""For a log only: nobody is there to read it."""


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
        parameters: as for :func:`~yandexgpt.emulator.gateway.openai.errors.of_refused`.
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
            return Response(status_code=_CLIENT_CLOSED_REQUEST)

    return answer


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _LARGEST_BODY:
            raise Problem(413, f"the body is larger than {_LARGEST_BODY} bytes", code="too_large")
    return bytes(body)


class EventStream(Response):
    """Server-sent events made of a stream of the service's messages; a client that goes away ends that.

    Args:
        messages: the stream, of which the first message was taken: what comes before it is told by an HTTP status.
        first: that message.
        writer: what makes the events.
        headers: HTTP headers.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        messages: AsyncGenerator[CompletionResponse, None],
        first: CompletionResponse,
        writer: Writer,
        headers: dict[str, str],
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", **headers})
        del self.headers["content-length"]
        self._messages = messages
        self._first = first
        self._writer = writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        async with aclosing(self._messages):
            try:
                await unless_gone(receive, self._send(send))
            except (ClientDisconnect, OSError):
                return  # newer versions of ASGI raise an OSError in `send`

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._events()) as events:
            async for written in events:
                if body := b"".join(written):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncGenerator[Iterable[bytes], None]:
        yield self._writer.start()
        yield self._writer.push(self._first)
        try:
            async for message in self._messages:
                yield self._writer.push(message)
        except Refused as refused:
            yield self._writer.fail(refused)
        else:
            yield self._writer.end()
