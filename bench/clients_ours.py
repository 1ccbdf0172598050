"""yandexgpt. Of each chunk, the text and the delta are read; with the raw stub, the delta would have to be computed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from paced import ROWS
from runs import Run, in_loop, in_threads, one_by_one
from texts import FOLDER, HURRY, KEY, MAX_TOKENS, MODEL, PROMPT, SYSTEM, TEMPERATURE, TIMEOUT_SECONDS

import yandexgpt

ASKED: dict[str, Any] = {"system": SYSTEM, "temperature": TEMPERATURE, "max_tokens": MAX_TOKENS}
READING_SECONDS = 0.025 / HURRY
"""The time that the slow reader takes for each chunk."""


def options(target: str) -> dict[str, Any]:
    """The arguments of the clients."""
    return {
        "folder_id": FOLDER,
        "credentials": KEY,
        "model": MODEL,
        "endpoint": target,
        "tls": False,
        "timeout": TIMEOUT_SECONDS,
    }


def complete(target: str, *, at_once: int = 0) -> Run:
    """``Client.complete``.

    Args:
        at_once: the number of threads; 0: the current thread makes the calls.
    """
    client = yandexgpt.Client(**options(target))

    def call() -> str:
        return client.complete(PROMPT, **ASKED).text

    return in_threads(call, at_once) if at_once else one_by_one(call)


def stream(target: str, *, at_once: int = 0, reading: float = 0.0, **how: Any) -> Run:
    """``Client.stream``.

    Args:
        at_once: as for :func:`complete`.
        reading: seconds that the reader takes for each chunk.
        how: further arguments of ``stream``.
    """
    client = yandexgpt.Client(**options(target))

    def call() -> str:
        text = ""
        with client.stream(PROMPT, **ASKED, **how) as chunks:
            for chunk in chunks:
                text = chunk.text
                _ = chunk.delta
                if reading:
                    time.sleep(reading)
        return text

    return in_threads(call, at_once) if at_once else one_by_one(call)


def closed_early(target: str) -> Run:
    """``Client.stream``, closed after its first chunk."""
    client = yandexgpt.Client(**options(target))

    def call() -> str:
        with client.stream(PROMPT, **ASKED) as chunks:
            return next(chunks).text

    return one_by_one(call)


def complete_aio(target: str, *, at_once: int = 1) -> Run:
    """``AsyncClient.complete``."""

    def make() -> Callable[[], Awaitable[str]]:
        client = yandexgpt.AsyncClient(**options(target))

        async def call() -> str:
            return (await client.complete(PROMPT, **ASKED)).text

        return call

    return in_loop(make, at_once)


def stream_aio(target: str, *, at_once: int | None = 1, reading: float = 0.0, **how: Any) -> Run:
    """``AsyncClient.stream``."""

    def make() -> Callable[[], Awaitable[str]]:
        client = yandexgpt.AsyncClient(**options(target))

        async def call() -> str:
            text = ""
            async with client.stream(PROMPT, **ASKED, **how) as chunks:
                async for chunk in chunks:
                    text = chunk.text
                    _ = chunk.delta
                    if reading:
                        await asyncio.sleep(reading)
            return text

        return call

    return in_loop(make, at_once)


def complete_many(target: str) -> Run:
    """``Client.complete_many``."""
    client: Any = yandexgpt.Client(**options(target))

    def run(calls: int, times: list[float]) -> str:  # noqa: ARG001 - the time of each call is not known
        text = ""
        for result in client.complete_many((PROMPT for _ in range(calls)), concurrency=32, **ASKED):
            text = answer(result)
        return text

    return run


def complete_many_aio(target: str) -> Run:
    """``AsyncClient.complete_many``."""
    loop = asyncio.new_event_loop()
    client: Any = yandexgpt.AsyncClient(**options(target))

    async def run(calls: int) -> str:
        text = ""
        async for result in client.complete_many((PROMPT for _ in range(calls)), concurrency=32, **ASKED):
            text = answer(result)
        return text

    return lambda calls, times: loop.run_until_complete(run(calls))  # noqa: ARG005


def answer(result: Any) -> str:
    """The text of one result of ``complete_many``."""
    return str((getattr(result, "completion", None) or result).text)


STREAMS: dict[str, Callable[[str], Run]] = {"ours": partial(stream_aio, at_once=None)}
AT_ONCE: dict[tuple[str, bool], Callable[..., Run]] = {
    ("threads", False): complete,
    ("threads", True): stream,
    ("tasks", False): complete_aio,
    ("tasks", True): stream_aio,
}
CLIENTS: dict[str, dict[str, Callable[[str], Run]]] = {
    "complete": {"ours": complete},
    "stream": {"ours": stream},
    "long": {"ours": stream},
    "early": {"ours": closed_early},
    "complete-aio": {"ours": complete_aio},
    "stream-aio": {"ours": stream_aio},
    "many": {
        "ours": complete_many,
        "ours-aio": complete_many_aio,
        "ours-tasks": partial(complete_aio, at_once=32),
    },
    "crowd": STREAMS,
    "memory": STREAMS,
    "slow": {
        "all": partial(stream, reading=READING_SECONDS),
        "latest": partial(stream, reading=READING_SECONDS, latest=True),
    },
    "slow-aio": {
        "all": partial(stream_aio, reading=READING_SECONDS),
        "latest": partial(stream_aio, reading=READING_SECONDS, latest=True),
    },
    **{row.key: {"ours": partial(AT_ONCE[row.workers, row.stream], at_once=row.at_once)} for row in ROWS},
}
"""By question and variant: a function that takes the server's address and returns a run."""
