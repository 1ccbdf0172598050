"""yandex-ai-studio-sdk, in a separate environment. This module must not import yandexgpt.

``service_map`` names the server, so that the SDK makes no discovery call. ``verify=False`` turns TLS off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from runs import Run, in_loop, one_by_one
from texts import FOLDER, KEY, MAX_TOKENS, MODEL, PROMPT, SYSTEM, TEMPERATURE, TIMEOUT_SECONDS
from yandex_ai_studio_sdk import AIStudio, AsyncAIStudio
from yandex_ai_studio_sdk.auth import APIKeyAuth

MESSAGES = [{"role": "system", "text": SYSTEM}, {"role": "user", "text": PROMPT}]


def model(kind: Callable[..., Any], target: str) -> Any:
    """A model, configured as in the documentation of the SDK."""
    sdk = kind(
        folder_id=FOLDER,
        auth=APIKeyAuth(KEY),
        endpoint=None,
        service_map={"ai-foundation-models": target},
        verify=False,
    )
    return sdk.models.completions(MODEL).configure(temperature=TEMPERATURE, max_tokens=MAX_TOKENS)


def complete(target: str) -> Run:
    """``model.run``."""
    asked = model(AIStudio, target)
    return one_by_one(lambda: asked.run(MESSAGES, timeout=TIMEOUT_SECONDS).text)


def stream(target: str) -> Run:
    """``model.run_stream``."""
    asked = model(AIStudio, target)

    def call() -> str:
        text = ""
        for result in asked.run_stream(MESSAGES, timeout=TIMEOUT_SECONDS):
            text = result.text
        return text

    return one_by_one(call)


def complete_aio(target: str, *, at_once: int = 1) -> Run:
    """``model.run`` of the asynchronous SDK."""

    def make() -> Callable[[], Awaitable[str]]:
        asked = model(AsyncAIStudio, target)

        async def call() -> str:
            return str((await asked.run(MESSAGES, timeout=TIMEOUT_SECONDS)).text)

        return call

    return in_loop(make, at_once)


def stream_aio(target: str, *, at_once: int | None = 1) -> Run:
    """``model.run_stream`` of the asynchronous SDK."""

    def make() -> Callable[[], Awaitable[str]]:
        asked = model(AsyncAIStudio, target)

        async def call() -> str:
            text = ""
            async for result in asked.run_stream(MESSAGES, timeout=TIMEOUT_SECONDS):
                text = result.text
            return text

        return call

    return in_loop(make, at_once)


STREAMS: dict[str, Callable[[str], Run]] = {"sdk": partial(stream_aio, at_once=None)}
CLIENTS: dict[str, dict[str, Callable[[str], Run]]] = {
    "complete": {"sdk": complete},
    "stream": {"sdk": stream},
    "long": {"sdk": stream},
    "complete-aio": {"sdk": complete_aio},
    "stream-aio": {"sdk": stream_aio},
    "many": {"sdk": partial(complete_aio, at_once=32)},
    "crowd": STREAMS,
    "memory": STREAMS,
}
"""By question and variant: a function that takes the server's address and returns a run."""
