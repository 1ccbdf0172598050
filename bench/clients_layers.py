"""yandexgpt taken apart: each variant stops short of the next one, so that their differences are what a layer costs.

This reaches inside the package: it is for measuring only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from clients_ours import ASKED, complete, options, stream, stream_aio
from clients_raw import aio, request, sync
from runs import Run, in_loop, one_by_one
from texts import PROMPT

import yandexgpt
from yandexgpt._rpc.call import CallOptions
from yandexgpt._rpc.methods import TextGenerationService


def invoker(target: str) -> Run:
    """The raw stub's request, made by our invoker: no arguments are checked, no answer is wrapped."""
    made = yandexgpt.Client(**options(target))._invoker

    def call() -> str:
        asked = request(stream=False)
        answer = made.unary(TextGenerationService.Completion, asked, CallOptions()).message
        return str(answer.alternatives[0].message.text)

    return one_by_one(call)


def messages(target: str) -> Run:
    """The messages of a stream as they come, their text read raw."""
    client = yandexgpt.Client(**options(target))

    def call() -> str:
        text = ""
        with client.stream(PROMPT, **ASKED) as chunks:
            for response in chunks._messages:
                text = response.alternatives[0].message.text
        return text

    return one_by_one(call)


def unread(target: str) -> Run:
    """Chunks that nobody reads, but the last."""
    client = yandexgpt.Client(**options(target))

    def call() -> str:
        with client.stream(PROMPT, **ASKED) as chunks:
            for chunk in chunks:
                last = chunk
        return last.text

    return one_by_one(call)


def text_only(target: str) -> Run:
    """Chunks whose text is read, and no delta."""
    client = yandexgpt.Client(**options(target))

    def call() -> str:
        text = ""
        with client.stream(PROMPT, **ASKED) as chunks:
            for chunk in chunks:
                text = chunk.text
        return text

    return one_by_one(call)


def messages_aio(target: str) -> Run:
    """The messages of an asynchronous stream as they come, their text read raw."""

    def make() -> Callable[[], Awaitable[str]]:
        client = yandexgpt.AsyncClient(**options(target))

        async def call() -> str:
            text = ""
            async with client.stream(PROMPT, **ASKED) as chunks:
                async for response in chunks._messages:
                    text = response.alternatives[0].message.text
            return text

        return call

    return in_loop(make)


def unread_aio(target: str) -> Run:
    """Chunks of an asynchronous stream that nobody reads, but the last."""

    def make() -> Callable[[], Awaitable[str]]:
        client = yandexgpt.AsyncClient(**options(target))

        async def call() -> str:
            async with client.stream(PROMPT, **ASKED) as chunks:
                async for chunk in chunks:
                    last = chunk
            return last.text

        return call

    return in_loop(make)


CLIENTS: dict[str, dict[str, Callable[[str], Run]]] = {
    "layers": {"alike": sync(stream=False)["alike"], "invoker": invoker, "ours": complete},
    "layers-stream": {
        "best": sync(stream=True)["best"],
        "messages": messages,
        "unread": unread,
        "text": text_only,
        "ours": stream,
    },
    "layers-stream-aio": {
        "naive": aio(stream=True)["naive"],
        "messages": messages_aio,
        "unread": unread_aio,
        "ours": stream_aio,
    },
}
"""By question, by variant: a function from the server's address to a client."""
