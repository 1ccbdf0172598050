"""Server-sent events: the format, and a response that streams them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Protocol

from yandexgpt._models import CompletionResponse
from yandexgpt.emulator.http_api.disconnect import StreamedResponse
from yandexgpt.emulator.http_api.grpc_client import CallFailed

__all__ = ["EventStream", "EventWriter", "event"]


class EventWriter(Protocol):
    """Converts a stream of messages to events."""

    def start(self) -> Iterable[bytes]:
        """The events before the first message."""

    def push(self, message: CompletionResponse) -> Iterable[bytes]:
        """The events for a message."""

    def end(self) -> Iterable[bytes]:
        """The events after a complete stream."""

    def fail(self, failed: CallFailed) -> Iterable[bytes]:
        """The events after a failed stream."""


def event(data: Any, name: str | None = None) -> bytes:
    """A server-sent event with a JSON value, or with a literal such as ``[DONE]``."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return (f"data: {text}\n\n" if name is None else f"event: {name}\ndata: {text}\n\n").encode()


class EventStream(StreamedResponse):
    """A response that sends the messages of a gRPC call as server-sent events.

    Args:
        messages, headers: see :class:`~yandexgpt.emulator.http_api.disconnect.StreamedResponse`.
        first: the first message.
        writer: converts messages to events.
    """

    def __init__(
        self,
        messages: AsyncGenerator[CompletionResponse, None],
        first: CompletionResponse,
        writer: EventWriter,
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
        except CallFailed as failed:
            yield b"".join(writer.fail(failed))
        else:
            yield b"".join(writer.end())
