"""Detects HTTP clients that disconnect, and cancels their work; a response that streams the messages of a gRPC call."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["CLIENT_CLOSED_REQUEST", "LARGEST_BODY", "StreamedResponse", "cancel_on_disconnect"]

LARGEST_BODY = 16 * 1024 * 1024
"""Maximum size of a request in bytes: four times the limit of gRPC, because JSON is longer than protobuf."""
CLIENT_CLOSED_REQUEST = 499
"""The HTTP status for logs. The client has disconnected and does not receive it."""

_T = TypeVar("_T")


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """Await a coroutine; cancel it when the client disconnects.

    Args:
        receive: the ``receive`` function of the request. Its body was read, so only the disconnect can follow.
        work: the coroutine.

    Raises:
        ClientDisconnect: the client has disconnected.
    """
    work_task = asyncio.ensure_future(work)
    disconnect_task = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait([work_task, disconnect_task], return_when=asyncio.FIRST_COMPLETED)
        if work_task.done():
            return work_task.result()
        raise ClientDisconnect
    finally:
        for task in (work_task, disconnect_task):
            task.cancel()
        # Wait for both tasks; ignore their results and errors.
        await asyncio.gather(work_task, disconnect_task, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class StreamedResponse(Response):
    """A response that sends the messages of a gRPC call when they arrive. When the client disconnects, the call is
    cancelled.

    Args:
        messages: the messages of the call after the first one. An error before the first message has an HTTP status.
        headers: HTTP headers.
        media_type: the media type of the body.
    """

    def __init__(self, messages: AsyncGenerator[Any, None], headers: dict[str, str], media_type: str) -> None:
        super().__init__(headers=headers, media_type=media_type)
        del self.headers["content-length"]
        self.messages = messages

    @abstractmethod
    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The parts of the body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        async with aclosing(self.messages):
            try:
                await cancel_on_disconnect(receive, self._send(send))
            except (ClientDisconnect, OSError):
                return  # newer versions of ASGI raise an OSError in `send`

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                if piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
