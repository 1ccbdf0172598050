"""The answers of the benchmark's servers: messages as the service sends them, serialized in advance."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from paced import PACES
from texts import HURRY, LONG, MANY_PARTIALS, MODEL, PARTIALS, TEXT, growing, pieces

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_common_pb2 import Alternative, ContentUsage, Message
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionResponse,
)


@dataclass(frozen=True)
class Answer:
    """The framed messages of a stream, and the delay before each of them."""

    messages: list[bytes]
    every: float = 0.0
    """Seconds before each message; 0: all messages at once, as fast as flow control allows."""


def message(text: str, *, final: bool) -> bytes:
    """A message of the service with this text, in gRPC's framing: the compression flag (0), the length, the message."""
    status = Alternative.ALTERNATIVE_STATUS_FINAL if final else Alternative.ALTERNATIVE_STATUS_PARTIAL
    body = CompletionResponse(
        alternatives=[Alternative(message=Message(role="assistant", text=text), status=status)],
        usage=ContentUsage(input_text_tokens=20, completion_tokens=len(text) // 4, total_tokens=20 + len(text) // 4),
        model_version="23.10.2024",
    ).SerializeToString()
    return struct.pack(">BI", 0, len(body)) + body


def partials(text: str, number: int) -> list[bytes]:
    """The messages of a stream whose last message contains this text."""
    return [message(part, final=n == number) for n, part in enumerate(growing(text, number), 1)]


def grpc_answers() -> dict[str, Answer]:
    """The answers of the gRPC server, by the name of the port."""
    return {
        "whole": Answer([message(TEXT, final=True)]),
        "growing": Answer(partials(TEXT, PARTIALS)),
        "long": Answer(partials(LONG, MANY_PARTIALS)),
        "paced": Answer(partials(TEXT, PARTIALS), every=0.020 / HURRY),
        "seconds": Answer(partials(TEXT, 4), every=1.0 / HURRY),
        "ahead": Answer(partials(LONG, PARTIALS), every=0.005 / HURRY),
    }


def python_answers() -> dict[str, Answer]:
    """The answers of the server in Python, by the name of the port."""
    return {
        f"python-{name}": Answer(partials(TEXT, pace.chunks), every=pace.every / HURRY) for name, pace in PACES.items()
    }


def http_answers() -> dict[str, bytes]:
    """The whole responses of the OpenAI-compatible HTTP server, by the name of the port."""
    usage = {"prompt_tokens": 20, "completion_tokens": len(TEXT) // 4, "total_tokens": 20 + len(TEXT) // 4}
    common = {"id": "chatcmpl-0", "created": 1_700_000_000, "model": MODEL}
    said = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    body = json.dumps({**common, "object": "chat.completion", "choices": [said], "usage": usage}, ensure_ascii=False)
    whole = body.encode()
    events = []
    for n, piece in enumerate(pieces(TEXT, PARTIALS), 1):
        choice = {"index": 0, "delta": {"content": piece}, "finish_reason": "stop" if n == PARTIALS else None}
        event = json.dumps({**common, "object": "chat.completion.chunk", "choices": [choice]}, ensure_ascii=False)
        events.append(f"data: {event}\n\n".encode())
    events.append(b"data: [DONE]\n\n")
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"
    head = "HTTP/1.1 200 OK\r\ncontent-type: {}; charset=utf-8\r\nx-request-id: 0\r\n{}\r\n\r\n"
    return {
        "http-whole": head.format("application/json", f"content-length: {len(whole)}").encode() + whole,
        "http-growing": head.format("text/event-stream", "transfer-encoding: chunked").encode() + chunked,
    }
