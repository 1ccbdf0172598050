"""User-defined interceptors that return another object than gRPC's call. All checks run with each of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from matrix import CHECKS, Reporter, Spans, World, complete_many, complete_many_closed_early, run

import yandexgpt

SYNCHRONOUS = [check for check in CHECKS if check not in (complete_many, complete_many_closed_early)]
SLOW_SECONDS = 0.5


class Yields(grpc.UnaryStreamClientInterceptor):
    """Returns a generator of the messages."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        for message in continuation(client_call_details, request):  # noqa: UP028  (not `yield from`: the call is hidden)
            yield message


class Wraps(grpc.UnaryStreamClientInterceptor):
    """Returns an object without cancel, code and metadata."""

    class Response:
        def __init__(self, response: Any) -> None:
            self._response = response

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return next(self._response)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self.Response(continuation(client_call_details, request))


class Slow(grpc.UnaryStreamClientInterceptor, grpc.UnaryUnaryClientInterceptor):
    """Sleeps before each call."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        time.sleep(SLOW_SECONDS)
        return continuation(client_call_details, request)

    intercept_unary_unary = intercept_unary_stream


class Gathers(grpc.UnaryStreamClientInterceptor):
    """Reads all messages and the status before it returns them."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        response = continuation(client_call_details, request)
        messages = list(response)
        assert response.code() is grpc.StatusCode.OK
        return iter(messages)


class ReadsTheCode(grpc.UnaryStreamClientInterceptor):
    """Waits for the status before any message is read. In gRPC this works only for a call without messages."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        response = continuation(client_call_details, request)
        assert response.code() is not grpc.StatusCode.OK
        return response


class AsyncYields(grpc.aio.UnaryStreamClientInterceptor):
    """Returns an asynchronous generator of the messages."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        response = await continuation(client_call_details, request)

        async def messages() -> AsyncIterator[Any]:
            async for message in response:
                yield message

        return messages()


class AsyncWraps(grpc.aio.UnaryStreamClientInterceptor):
    """Returns an object without cancel, code and metadata."""

    class Response:
        def __init__(self, response: Any) -> None:
            self._messages = aiter(response)

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            return await anext(self._messages)

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self.Response(await continuation(client_call_details, request))


def main() -> None:
    reporter = Reporter()
    for kind, interceptors in (
        ("sync", [Yields()]),
        ("sync", [Wraps()]),
        ("sync", [Yields(), Wraps(), AsyncYields()]),
        ("async", [AsyncYields()]),
        ("async", [AsyncWraps()]),
        ("async", [AsyncWraps(), AsyncYields()]),
    ):
        names = ", ".join(type(each).__name__ for each in interceptors)
        asynchronous = any(isinstance(each, grpc.aio.ClientInterceptor) for each in interceptors)
        world = World(kind, Spans(), {"interceptors": interceptors}, name=f"{kind}, {names}:")
        run(reporter, world, CHECKS if asynchronous else SYNCHRONOUS)
    for check in (slow, gathers, reads_the_code):
        reporter.check(check.__name__.replace("_", " "), check, World("sync", Spans()))
    reporter.exit()


def slow(world: World) -> None:
    """The time in an interceptor counts toward the deadline."""
    with world.client(interceptors=[Slow()]) as client:
        assert client.complete("раз").text == "раз"
        assert client.count_tokens("раз") > 0
        began = time.monotonic()
        try:
            client.complete("silent", timeout=2 * SLOW_SECONDS)
        except yandexgpt.DeadlineExceededError:
            took = time.monotonic() - began
            assert took < 2.8 * SLOW_SECONDS, f"{2 * SLOW_SECONDS} s took {took:.2f} s"


def gathers(world: World) -> None:
    """An interceptor that reads all messages works for an answer and for an error."""
    with world.client(interceptors=[Gathers()]) as client:
        answer = client.complete("раз два")
        assert answer.text == "раз два"
        (call,) = world.desk.seen(answer.request_id)
        assert answer.server_request_id == call["server_request_id"]
        try:
            client.complete("refused")
        except yandexgpt.InvalidArgumentError as failed:
            assert failed.server_request_id, vars(failed)  # noqa: PT017


def reads_the_code(world: World) -> None:
    """An interceptor can read the status of a failed call before its messages."""
    with world.client(interceptors=[ReadsTheCode()]) as client:
        try:
            client.complete("refused")
        except yandexgpt.InvalidArgumentError:
            return
        raise AssertionError("it was answered")


if __name__ == "__main__":
    main()
