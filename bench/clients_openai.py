"""openai's client, in a separate environment, against an HTTP server with the same texts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from openai import AsyncOpenAI, OpenAI
from runs import Run, in_loop, one_by_one
from texts import FOLDER, KEY, MAX_TOKENS, MODEL, PROMPT, SYSTEM, TEMPERATURE, TIMEOUT_SECONDS

MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
ASKED: dict[str, Any] = {
    "model": f"gpt://{FOLDER}/{MODEL}",
    "messages": MESSAGES,
    "temperature": TEMPERATURE,
    "max_tokens": MAX_TOKENS,
}


def client(kind: Callable[..., Any], target: str) -> Any:
    """A client of the service's OpenAI-compatible interface."""
    return kind(base_url=f"http://{target}/v1", api_key=KEY, project=FOLDER, timeout=TIMEOUT_SECONDS)


def complete(target: str) -> Run:
    """``chat.completions.create``."""
    create = client(OpenAI, target).chat.completions.create
    return one_by_one(lambda: create(**ASKED).choices[0].message.content)


def stream(target: str) -> Run:
    """The same, streamed. The pieces are joined, so that the text so far is available after each chunk."""
    create = client(OpenAI, target).chat.completions.create

    def call() -> str:
        text = ""
        for chunk in create(**ASKED, stream=True):
            text += chunk.choices[0].delta.content
        return text

    return one_by_one(call)


def complete_aio(target: str, *, at_once: int = 1) -> Run:
    """The asynchronous client."""

    def make() -> Callable[[], Awaitable[str]]:
        create = client(AsyncOpenAI, target).chat.completions.create

        async def call() -> str:
            return str((await create(**ASKED)).choices[0].message.content)

        return call

    return in_loop(make, at_once)


def stream_aio(target: str) -> Run:
    """The asynchronous client, streamed."""

    def make() -> Callable[[], Awaitable[str]]:
        create = client(AsyncOpenAI, target).chat.completions.create

        async def call() -> str:
            text = ""
            async with await create(**ASKED, stream=True) as chunks:
                async for chunk in chunks:
                    text += chunk.choices[0].delta.content
            return text

        return call

    return in_loop(make)


CLIENTS: dict[str, dict[str, Callable[[str], Run]]] = {
    "complete": {"openai": complete},
    "stream": {"openai": stream},
    "complete-aio": {"openai": complete_aio},
    "stream-aio": {"openai": stream_aio},
    "many": {"openai": partial(complete_aio, at_once=32)},
}
"""By question and variant: a function that takes the server's address and returns a run."""
