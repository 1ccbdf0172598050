"""The answers that the benchmark's server gives: what the service would send, serialised ahead."""

from __future__ import annotations

from collections.abc import Callable

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_common_pb2 import Alternative, ContentUsage, Message
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionResponse,
)

PARTIALS = 100
CHARACTERS = 1_100
"""Of the whole answer: some 2 KB, since Cyrillic takes two bytes a letter."""
WORDS = "Байкал — самое глубокое озеро на планете, и вода в нём прозрачна на сорок метров. "
TEXT = (WORDS * (CHARACTERS // len(WORDS) + 1))[:CHARACTERS]


def message(text: str, *, final: bool) -> bytes:
    """A message of the service with this text."""
    status = Alternative.ALTERNATIVE_STATUS_FINAL if final else Alternative.ALTERNATIVE_STATUS_PARTIAL
    response = CompletionResponse(
        alternatives=[Alternative(message=Message(role="assistant", text=text), status=status)],
        usage=ContentUsage(input_text_tokens=20, completion_tokens=len(text) // 4, total_tokens=20 + len(text) // 4),
        model_version="23.10.2024",
    )
    return response.SerializeToString()


def whole() -> list[bytes]:
    """One message with the whole answer."""
    return [message(TEXT, final=True)]


def growing() -> list[bytes]:
    """Partials, each with the whole text so far, the last of them final."""
    return [message(TEXT[: CHARACTERS * n // PARTIALS], final=n == PARTIALS) for n in range(1, PARTIALS + 1)]


ANSWERS: dict[str, Callable[[], list[bytes]]] = {"whole": whole, "growing": growing}
