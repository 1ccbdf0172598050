"""The clients that are compared, each making the same call its own way.

Every one builds its request anew for each call and reads the text of each message that comes; ours reads the deltas
too, which the others would have to compute.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import grpc.experimental

import yandexgpt
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_common_pb2 import CompletionOptions, Message
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionRequest,
)
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2_grpc import (
    TextGenerationServiceStub,
)

FOLDER = "b1g0123456789abcdefg"
KEY = "a-key-of-a-service-account"
MODEL = "yandexgpt-lite"
SYSTEM = "Ты отвечаешь коротко."
PROMPT = "Расскажи о Байкале."
TEMPERATURE = 0.3
MAX_TOKENS = 500
TIMEOUT_SECONDS = 60.0

Options = tuple[tuple[str, Any], ...]
NO_RETRIES: Options = (("grpc.enable_retries", 0),)
"""Retries cost some 10 us a call, used or not."""
BEST: Options = ((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1), *NO_RETRIES)
METADATA = (("authorization", f"Api-Key {KEY}"), ("x-folder-id", FOLDER))

Run = Callable[[int], str]
"""Makes that many calls, one after another, and returns the text of the last answer."""


def request(*, stream: bool) -> CompletionRequest:
    """As the documentation builds it."""
    return CompletionRequest(
        model_uri=f"gpt://{FOLDER}/{MODEL}",
        completion_options=CompletionOptions(
            stream=stream, temperature={"value": TEMPERATURE}, max_tokens={"value": MAX_TOKENS}
        ),
        messages=[Message(role="system", text=SYSTEM), Message(role="user", text=PROMPT)],
    )


def alike() -> dict[str, Any]:
    """What our client sends with every call besides: a deadline, and its id and attempt in the metadata."""
    own = (("x-client-request-id", str(uuid.uuid4())), ("x-client-attempt", "1"))
    return {"timeout": TIMEOUT_SECONDS, "metadata": (*METADATA, *own)}


def plain() -> dict[str, Any]:
    """What the documentation sends with every call."""
    return {"metadata": METADATA}


def raw(target: str, *, stream: bool, options: Options, around: Callable[[], Any]) -> Run:
    """The generated stub."""
    channel = grpc.insecure_channel(target, options)
    stub = TextGenerationServiceStub(channel)

    def run(calls: int) -> str:
        text = ""
        for _ in range(calls):
            for response in stub.Completion(request(stream=stream), **around()):
                text = response.alternatives[0].message.text
        return text

    run.channel = channel  # type: ignore[attr-defined]  # a stub alone does not keep its channel alive
    return run


def raw_aio(target: str, *, stream: bool, options: Options, around: Callable[[], Any]) -> Run:
    """The generated stub on ``grpc.aio``."""
    loop = asyncio.new_event_loop()

    async def connect() -> Any:
        return TextGenerationServiceStub(grpc.aio.insecure_channel(target, options))

    stub = loop.run_until_complete(connect())

    async def run(calls: int) -> str:
        text = ""
        for _ in range(calls):
            async for response in stub.Completion(request(stream=stream), **around()):
                text = response.alternatives[0].message.text
        return text

    return lambda calls: loop.run_until_complete(run(calls))


def options(target: str) -> dict[str, Any]:
    """How our clients are set up."""
    return {
        "folder_id": FOLDER,
        "credentials": KEY,
        "model": MODEL,
        "endpoint": target,
        "tls": False,
        "timeout": TIMEOUT_SECONDS,
    }


ASKED: dict[str, Any] = {"system": SYSTEM, "temperature": TEMPERATURE, "max_tokens": MAX_TOKENS}


def ours_complete(target: str) -> Run:
    """``Client.complete``."""
    client = yandexgpt.Client(**options(target))

    def run(calls: int) -> str:
        text = ""
        for _ in range(calls):
            text = client.complete(PROMPT, **ASKED).text
        return text

    return run


def ours_stream(target: str) -> Run:
    """``Client.stream``."""
    client = yandexgpt.Client(**options(target))

    def run(calls: int) -> str:
        text = ""
        for _ in range(calls):
            with client.stream(PROMPT, **ASKED) as stream:
                for chunk in stream:
                    text = chunk.text
                    _ = chunk.delta
        return text

    return run


def ours_complete_aio(target: str) -> Run:
    """``AsyncClient.complete``."""
    loop = asyncio.new_event_loop()
    client = yandexgpt.AsyncClient(**options(target))

    async def run(calls: int) -> str:
        text = ""
        for _ in range(calls):
            text = (await client.complete(PROMPT, **ASKED)).text
        return text

    return lambda calls: loop.run_until_complete(run(calls))


def ours_stream_aio(target: str) -> Run:
    """``AsyncClient.stream``."""
    loop = asyncio.new_event_loop()
    client = yandexgpt.AsyncClient(**options(target))

    async def run(calls: int) -> str:
        text = ""
        for _ in range(calls):
            async with client.stream(PROMPT, **ASKED) as stream:
                async for chunk in stream:
                    text = chunk.text
                    _ = chunk.delta
        return text

    return lambda calls: loop.run_until_complete(run(calls))


def raw_clients(*, stream: bool) -> dict[str, Callable[[str], Run]]:
    """The stub in its synchronous variants."""
    return {
        "naive": lambda target: raw(target, stream=stream, options=(), around=plain),
        "best": lambda target: raw(target, stream=stream, options=BEST, around=plain),
        "alike": lambda target: raw(target, stream=stream, options=BEST, around=alike),
    }


def raw_aio_clients(*, stream: bool) -> dict[str, Callable[[str], Run]]:
    """The stub in its asynchronous variants."""
    return {
        "naive": lambda target: raw_aio(target, stream=stream, options=(), around=plain),
        "best": lambda target: raw_aio(target, stream=stream, options=NO_RETRIES, around=plain),
        "alike": lambda target: raw_aio(target, stream=stream, options=NO_RETRIES, around=alike),
    }


CLIENTS: dict[str, dict[str, Callable[[str], Run]]] = {
    "complete": {**raw_clients(stream=False), "ours": ours_complete},
    "stream": {**raw_clients(stream=True), "ours": ours_stream},
    "complete-aio": {**raw_aio_clients(stream=False), "ours": ours_complete_aio},
    "stream-aio": {**raw_aio_clients(stream=True), "ours": ours_stream_aio},
}
"""By question, by variant: a function from the server's address to a client."""
