"""As much of HTTP/1.1 as an OpenAI client needs: every request gets the same response."""

from __future__ import annotations

import asyncio
import re
from typing import cast

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class HttpConnection(asyncio.Protocol):
    """The persistent connection of one client."""

    def __init__(self, response: bytes) -> None:
        self._response = response
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport. The server sends nothing before a request."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request that has arrived completely."""
        received = self._received
        received += data
        while (end := received.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(received, 0, end)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(received) < size:
                return
            del received[:size]
            self._transport.write(self._response)
