"""Measures the steps of yandexgpt without gRPC's own work: the lowest time of each, in microseconds.

    python bench/steps.py

Prints JSON, for ``run.py``. Steps are timed in a tight loop. Between two calls of gRPC, when the CPU caches contain the
data of gRPC and the kernel, they take about twice as long.
"""

from __future__ import annotations

import json
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from typing import Any

from answers import message
from clients_ours import ASKED, options
from clients_raw import alike, request
from texts import LONG, PROMPT, TEXT

import yandexgpt
from yandexgpt._chunks import StreamState
from yandexgpt._models import Completion, CompletionResponse
from yandexgpt._request import build_request
from yandexgpt._rpc.call import CallOptions
from yandexgpt._rpc.methods import TextGenerationService

PRECISION = (200, 100)
"""The iterations of a loop, and the number of loops. The fastest loop counts."""
QUICK_PRECISION = (5, 2)


class NoCall:
    """Replaces a call of gRPC: the answer is available immediately."""

    def __init__(self, messages: list[CompletionResponse]) -> None:
        self._messages = messages

    def __call__(self, *_: Any, **__: Any) -> NoCall:
        return self

    def __iter__(self) -> Iterator[CompletionResponse]:
        return iter(self._messages)

    def initial_metadata(self) -> tuple[()]:
        """No metadata."""
        return ()

    trailing_metadata = initial_metadata

    def cancel(self) -> None:
        """Does nothing."""


def without_grpc(messages: list[CompletionResponse]) -> yandexgpt.Client:
    """A client whose calls do not reach gRPC. This uses private parts of the package, for measurements only."""
    client = yandexgpt.Client(**options("127.0.0.1:1"))
    invoker = client._invoker
    holder = invoker.begin(TextGenerationService.Completion, "-", CallOptions())
    invoker.registry.pool(invoker.settings.endpoint).acquire(holder)._multicallables[
        TextGenerationService.Completion
    ] = NoCall(messages)
    return client


def steps() -> dict[str, tuple[Callable[[], Any], int]]:
    """By name of the step: a function, and the number of chunks that its time is divided by."""
    whole = CompletionResponse.FromString(message(TEXT, final=True)[5:])
    last = CompletionResponse.FromString(message(LONG, final=True)[5:])
    before = CompletionResponse.FromString(message(LONG[:-11], final=False)[5:])
    number = 1_000
    client, streaming = without_grpc([whole]), without_grpc([before] * (number - 1) + [last])
    invoker = client._invoker
    raw_call = NoCall([whole])

    def ours() -> str:
        return client.complete(PROMPT, **ASKED).text

    def by_hand() -> str:
        text = ""
        for response in raw_call(request(stream=False), **alike()):
            text = response.alternatives[0].message.text
        return text

    def read_chunks() -> None:
        for chunk in streaming.stream(PROMPT, **ASKED):
            _ = chunk.text
            _ = chunk.delta

    def pass_chunks() -> None:
        for _ in streaming.stream(PROMPT, **ASKED):
            pass

    def fold() -> None:
        state = StreamState()
        state.next(before)
        chunk = state.next(last)
        _ = chunk.text
        _ = chunk.delta

    def build() -> Any:
        return build_request(PROMPT, folder_id="b1g", default_model="yandexgpt", stream=False, **ASKED)

    def begin() -> Any:
        return invoker.begin(TextGenerationService.Completion, "gpt://b1g/yandexgpt", CallOptions())

    call = begin()
    return {
        "complete(), all of it but gRPC": (ours, 1),
        "the same by hand, on the raw stub": (by_hand, 1),
        "- build the request": (build, 1),
        "- the same by hand": (lambda: request(stream=False), 1),
        "- begin the call: deadline, request id": (begin, 1),
        "- the attempt's metadata": (lambda: call.attempt("Api-Key key"), 1),
        "- wrap the answer, read its text": (lambda: Completion(whole).text, 1),
        "- read the text raw": (lambda: whole.alternatives[0].message.text, 1),
        "a chunk of a stream, handed on unread": (pass_chunks, number),
        "a chunk of 20 KB, text and delta read": (read_chunks, number),
        "- read the text of 20 KB raw": (lambda: last.alternatives[0].message.text, 1),
        "- fold two partials of 20 KB, each read once": (fold, 2),
    }


def main(*arguments: str) -> None:
    """Measure and print."""
    turns, loops = QUICK_PRECISION if "--quick" in arguments else PRECISION
    found = {}
    for name, (step, share) in steps().items():
        each = max(1, turns // share)
        least = min(timeit.repeat(step, number=each, repeat=loops, timer=time.process_time))
        found[name] = least / each / share * 1e6
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
