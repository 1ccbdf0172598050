"""Work that is given up when the client who wanted it goes away, and answers that grow while it is there."""

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
"""Bytes of a request; four times what the gRPC face takes, as JSON says in many what protobuf says in one."""
CLIENT_CLOSED_REQUEST = 499
"""The HTTP status for a log only: nobody is there to read it."""

_T = TypeVar("_T")


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """Do the work; when the client has gone, cancel it.

    Args:
        receive: the request's, whose body was read: what still comes can only be the end.
        work: it.

    Raises:
        ClientDisconnect: the client has gone.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, watching):
            task.cancel()
        # Whatever they still have to say is said to nobody, and nobody complains of it.
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class StreamedResponse(Response):
    """An answer that is sent as the messages of a call come; a client who goes away cancels the call.

    Args:
        messages: the call's, but for the first: what fails before that has an HTTP status of its own.
        headers: HTTP headers.
        media_type: that of the body.
    """

    def __init__(self, messages: AsyncGenerator[Any, None], headers: dict[str, str], media_type: str) -> None:
        super().__init__(headers=headers, media_type=media_type)
        del self.headers["content-length"]
        self.messages = messages

    @abstractmethod
    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The pieces of the body."""

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
