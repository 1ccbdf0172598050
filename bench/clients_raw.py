"""The stub that gRPC generates: as in the documentation, and with the fastest settings."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import grpc.experimental
from paced import ROWS
from runs import Run, in_loop, in_threads, one_by_one
from texts import FOLDER, KEY, MAX_TOKENS, MODEL, PROMPT, SYSTEM, TEMPERATURE, TIMEOUT_SECONDS

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_common_pb2 import CompletionOptions, Message
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionRequest,
    CompletionResponse,
)
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2_grpc import (
    TextGenerationServiceStub,
)

Options = tuple[tuple[str, Any], ...]
Around = Callable[[], dict[str, Any]]
NO_RETRIES: Options = (("grpc.enable_retries", 0),)
"""gRPC's retries cost some 10 us per call, also if no call is retried."""
BEST: Options = ((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1), *NO_RETRIES)
METADATA = (("authorization", f"Api-Key {KEY}"), ("x-folder-id", FOLDER))


def request(*, stream: bool) -> CompletionRequest:
    """A new request, built as in the documentation."""
    return CompletionRequest(
        model_uri=f"gpt://{FOLDER}/{MODEL}",
        completion_options=CompletionOptions(
            stream=stream, temperature={"value": TEMPERATURE}, max_tokens={"value": MAX_TOKENS}
        ),
        messages=[Message(role="system", text=SYSTEM), Message(role="user", text=PROMPT)],
    )


def plain() -> dict[str, Any]:
    """The arguments of a call in the documentation."""
    return {"metadata": METADATA}


def alike() -> dict[str, Any]:
    """The arguments of a call as our client sends it: also a deadline, and the call id and attempt in the metadata."""
    own = (("x-client-request-id", str(uuid.uuid4())), ("x-client-attempt", "1"))
    return {"timeout": TIMEOUT_SECONDS, "metadata": (*METADATA, *own)}


def caller(target: str, *, stream: bool, options: Options, around: Around) -> Callable[[], str]:
    """A call of the stub; the text of each message is read."""
    channel = grpc.insecure_channel(target, options)
    stub = TextGenerationServiceStub(channel)

    def call() -> str:
        text = ""
        for response in stub.Completion(request(stream=stream), **around()):
            text = response.alternatives[0].message.text
        return text

    call.channel = channel  # type: ignore[attr-defined]  # a stub alone does not keep its channel alive
    return call


def aio_caller(target: str, *, stream: bool, options: Options, around: Around) -> Callable[[], Awaitable[str]]:
    """A call of the stub on ``grpc.aio``."""
    stub: Any = TextGenerationServiceStub(grpc.aio.insecure_channel(target, options))

    async def call() -> str:
        text = ""
        async for response in stub.Completion(request(stream=stream), **around()):
            text = response.alternatives[0].message.text
        return text

    return call


def sync(*, stream: bool) -> dict[str, Callable[[str], Run]]:
    """The synchronous variants of the stub."""
    ways: dict[str, tuple[Options, Around]] = {"naive": ((), plain), "best": (BEST, plain), "alike": (BEST, alike)}
    return {
        name: lambda target, options=options, around=around: one_by_one(  # type: ignore[misc]
            caller(target, stream=stream, options=options, around=around)
        )
        for name, (options, around) in ways.items()
    }


def closed_early(target: str, *, options: Options) -> Run:
    """A stream that is cancelled after its first message."""
    channel = grpc.insecure_channel(target, options)
    stub = TextGenerationServiceStub(channel)

    def call() -> str:
        responses = stub.Completion(request(stream=True), **alike())
        text: str = next(responses).alternatives[0].message.text
        responses.cancel()
        return text

    call.channel = channel  # type: ignore[attr-defined]  # a stub alone does not keep its channel alive
    return one_by_one(call)


def aio(*, stream: bool) -> dict[str, Callable[[str], Run]]:
    """The asynchronous variants of the stub."""
    ways: dict[str, tuple[Options, Around]] = {
        "naive": ((), plain),
        "best": (NO_RETRIES, plain),
        "alike": (NO_RETRIES, alike),
    }
    return {
        name: lambda target, options=options, around=around: in_loop(  # type: ignore[misc]
            partial(aio_caller, target, stream=stream, options=options, around=around)
        )
        for name, (options, around) in ways.items()
    }


def naive_threads(target: str, *, stream: bool, at_once: int, queued: bool = False) -> Run:
    """The stub as documented, in threads."""
    return in_threads(caller(target, stream=stream, options=(), around=plain), at_once, queued=queued)


def naive_aio_at_once(target: str, *, stream: bool, at_once: int | None) -> Run:
    """The stub as documented, in tasks."""
    return in_loop(partial(aio_caller, target, stream=stream, options=(), around=plain), at_once)


def unary_aio_at_once(target: str) -> Run:
    """A call as if the method did not stream: half the work for gRPC, which waits forever if there is a second message.

    So it is for measurements only.
    """

    def make() -> Callable[[], Awaitable[str]]:
        channel = grpc.aio.insecure_channel(target)
        completion = channel.unary_unary(
            "/yandex.cloud.ai.foundation_models.v1.TextGenerationService/Completion",
            request_serializer=CompletionRequest.SerializeToString,
            response_deserializer=CompletionResponse.FromString,
        )

        async def call() -> str:
            response = await completion(request(stream=False), **plain())
            return str(response.alternatives[0].message.text)

        return call

    return in_loop(make, 32)


STREAMS: dict[str, Callable[[str], Run]] = {"naive": partial(naive_aio_at_once, stream=True, at_once=None)}
NAIVE_AT_ONCE: dict[str, Callable[..., Run]] = {"threads": naive_threads, "tasks": naive_aio_at_once}
CLIENTS: dict[str, dict[str, Callable[[str], Run]]] = {
    "complete": sync(stream=False),
    "stream": sync(stream=True),
    "long": sync(stream=True),
    "early": {"naive": partial(closed_early, options=()), "best": partial(closed_early, options=BEST)},
    "complete-aio": aio(stream=False),
    "stream-aio": aio(stream=True),
    "many": {
        "naive": partial(naive_threads, stream=False, at_once=32, queued=True),
        "naive-aio": partial(naive_aio_at_once, stream=False, at_once=32),
        "unary-aio": unary_aio_at_once,
    },
    "crowd": STREAMS,
    "memory": STREAMS,
    **{row.key: {"naive": partial(NAIVE_AT_ONCE[row.workers], stream=row.stream, at_once=row.at_once)} for row in ROWS},
}
"""By question and variant: a function that takes the server's address and returns a run."""
