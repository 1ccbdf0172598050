"""The layers of yandexgpt: each variant does more than the one before, and the difference is the cost of a layer.

The variants use private parts of the package, for measurements only.
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
    """The raw stub's request, sent by our invoker: arguments are not checked, and the answer is not wrapped."""
    made = yandexgpt.Client(**options(target))._invoker

    def call() -> str:
        asked = request(stream=False)
        answer = made.unary(TextGenerationService.Completion, asked, CallOptions()).message
        return str(answer.alternatives[0].message.text)

    return one_by_one(call)


def messages(target: str) -> Run:
    """The messages of a stream; their text is read from the protobuf message."""
    client = yandexgpt.Client(**options(target))

    def call() -> str:
        text = ""
        with client.stream(PROMPT, **ASKED) as chunks:
            for response in chunks._messages:
                text = response.alternatives[0].message.text
        return text

    return one_by_one(call)


def unread(target: str) -> Run:
    """The chunks of a stream; only the text of the last one is read."""
    client = yandexgpt.Client(**options(target))

    def call() -> str:
        with client.stream(PROMPT, **ASKED) as chunks:
            for chunk in chunks:
                last = chunk
        return last.text

    return one_by_one(call)


def text_only(target: str) -> Run:
    """The chunks of a stream; their text is read, and not their delta."""
    client = yandexgpt.Client(**options(target))

    def call() -> str:
        text = ""
        with client.stream(PROMPT, **ASKED) as chunks:
            for chunk in chunks:
                text = chunk.text
        return text

    return one_by_one(call)


def messages_aio(target: str) -> Run:
    """The messages of an asynchronous stream; their text is read from the protobuf message."""

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
    """The chunks of an asynchronous stream; only the text of the last one is read."""

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
"""By question and variant: a function that takes the server's address and returns a run."""
