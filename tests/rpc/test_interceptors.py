"""User interceptors: with any object that they return, calls work, end and report their status."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from driver import FOREVER, PATIENCE, Background, ClientFactory, deadline_of, partial_of, stall_after, until

import yandexgpt
from yandexgpt.emulator import Emulator


class Delegates(grpc.UnaryStreamClientInterceptor):
    """Returns a generator, as OpenTelemetry does: nothing is sent before the first message is read."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        yield from continuation(client_call_details, request)


class Yields(grpc.UnaryStreamClientInterceptor):
    """Returns a generator, as py-grpc-prometheus does: the request is sent immediately."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        response = continuation(client_call_details, request)

        def messages() -> Iterator[Any]:
            for message in response:  # noqa: UP028  (not `yield from`, behind which the call could be seen)
                yield message

        return messages()


class Wraps(grpc.UnaryStreamClientInterceptor):
    """Returns an object that is only an iterator."""

    class Response:
        def __init__(self, response: Any) -> None:
            self._response = response

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return next(self._response)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self.Response(continuation(client_call_details, request))


class Rewrites(grpc.UnaryStreamClientInterceptor):
    """Passes on a new request object."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details, type(request).FromString(request.SerializeToString()))


class Watches(grpc.UnaryStreamClientInterceptor):
    """Records the status of each call, as instrumentations do."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        response = continuation(client_call_details, request)
        response.add_done_callback(lambda call: self.codes.append(call.code().name))
        return response


class AsyncYields(grpc.aio.UnaryStreamClientInterceptor):
    """Returns an asynchronous generator that signals its end."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.over = asyncio.Event()

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        response = await continuation(client_call_details, request)

        async def messages() -> AsyncIterator[Any]:
            self.begun += 1
            try:
                async for message in response:
                    yield message
            finally:
                self.ended += 1
                self.over.set()

        return messages()


class AsyncPasses(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(client_call_details, request)


KINDS = [
    ("sync", Delegates),
    ("sync", Yields),
    ("sync", Wraps),
    ("sync", Rewrites),
    ("sync", Watches),
    ("async", AsyncYields),
    ("async", AsyncPasses),
]


@pytest.fixture(params=KINDS, ids=[kind.__name__ for _, kind in KINDS])
def client(request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[Any]:
    kind, interceptor = request.param
    factory = ClientFactory(kind)
    yield factory.client(emulator, interceptors=[interceptor()])
    factory.close()
    until(lambda: emulator.in_flight == 0)


def test_calls_work_with_the_interceptor(client: Any, emulator: Emulator) -> None:
    completion = client.complete("раз два")
    assert completion.text == "раз два"
    with client.stream("раз два") as stream:
        assert [chunk.text for chunk in stream] == ["раз", "раз два", "раз два"]
    assert list(client.stream("раз два").text()) == ["раз", " два"]
    assert client.count_tokens("раз два") > 0
    assert client.submit("раз два").wait().text == "раз два"


def test_server_request_id_is_read(client: Any, emulator: Emulator) -> None:
    completion = client.complete("раз два")
    assert completion.server_request_id == emulator.requests[0].server_request_id


def test_failed_attempt_is_retried(client: Any, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE", retry_after=0.0)
    assert client.complete("раз два").text == "раз два"
    assert len(emulator.requests) == 2


def test_error_during_a_stream_has_the_partial_answer(client: Any, emulator: Emulator) -> None:
    emulator.fail("NOT_FOUND", "нет такого", after=1)
    with pytest.raises(yandexgpt.NotFoundError, match="нет такого") as caught:
        client.stream("раз два").finish()
    assert partial_of(caught.value).text == "раз"
    assert caught.value.server_request_id == emulator.requests[0].server_request_id


def test_deadline_ends_a_call(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 0)
    with pytest.raises(yandexgpt.DeadlineExceededError):
        client.complete("раз два", timeout=0.2)
    emulator.clear()  # on a busy machine, the call may end before it is sent
    stall_after(emulator, 1)
    with pytest.raises(yandexgpt.DeadlineExceededError) as caught:
        client.stream("раз два", timeout=3.0).finish()
    assert partial_of(caught.value).text == "раз"


def test_leaving_a_stream_early_cancels_the_call(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 1)
    with client.stream("раз два", timeout=None) as stream:
        assert next(stream).text == "раз"
    assert emulator.requests[0].wait(PATIENCE) == "CANCELLED"


@pytest.mark.parametrize("after", [0, 1])
def test_close_cancels_a_read(client: Any, emulator: Emulator, after: int) -> None:
    stall_after(emulator, after)
    stream = client.stream("раз два", timeout=None)
    reader = Background(lambda: [chunk.text for chunk in stream])
    emulator.wait_for_requests(1)
    until(lambda: emulator.requests[0].sent == after)
    stream.close()
    assert type(reader.error()) is yandexgpt.CancelledError
    assert emulator.requests[0].wait(PATIENCE) == "CANCELLED"


def test_client_close_cancels_a_call(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 0)
    call = Background(client.complete, "раз два", timeout=None)
    emulator.wait_for_requests(1)
    client.close()
    assert type(call.error()) is yandexgpt.CancelledError
    assert emulator.requests[0].wait(PATIENCE) == "CANCELLED"


def test_stubs_work_with_the_interceptor(emulator: Emulator) -> None:
    with emulator.client(interceptors=[Delegates()]) as client:
        request = yandexgpt.load_request(
            {"modelUri": "gpt://b1g0/yandexgpt-lite", "messages": [{"role": "user", "text": "раз"}]}
        )
        answers = list(client.raw.text_generation.Completion(request, timeout=PATIENCE))
        assert answers[-1].alternatives[0].message.text == "раз"


def test_interceptor_gets_the_status_of_each_call(emulator: Emulator) -> None:
    watch = Watches()
    with emulator.client(interceptors=[watch], retry=yandexgpt.Retry.none()) as client:
        client.complete("раз два")
        emulator.fail("NOT_FOUND")
        with pytest.raises(yandexgpt.NotFoundError):
            client.complete("раз два")
        stall_after(emulator, 1)
        with client.stream("раз два") as stream:
            next(stream)
        until(lambda: len(watch.codes) == 3)
    assert watch.codes == ["OK", "NOT_FOUND", "CANCELLED"]


@pytest.mark.parametrize("dropped", [False, True])
def test_generator_of_an_interceptor_ends_with_the_stream(emulator: Emulator, dropped: bool) -> None:
    watch = AsyncYields()

    async def main() -> None:
        async with emulator.async_client(interceptors=[watch]) as client:
            stall_after(emulator, 1)
            stream = client.stream("раз два")
            await anext(stream)
            if dropped:
                del stream
                await watch.over.wait()
            else:
                await stream.close()
            assert watch.ended == watch.begun == 1

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


# Time and blocking


class Meets(grpc.UnaryStreamClientInterceptor):
    """Continues when the expected number of calls have entered it concurrently."""

    def __init__(self, number: int) -> None:
        self._barrier = threading.Barrier(number)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self._barrier.wait(PATIENCE)
        return continuation(client_call_details, request)


def test_interceptors_of_several_threads_run_concurrently(emulator: Emulator) -> None:
    with emulator.client(interceptors=[Meets(8)], timeout=None) as client:
        calls = [Background(client.complete, "раз") for _ in range(8)]
        assert [call.result().text for call in calls] == ["раз"] * 8


class Asks(grpc.UnaryStreamClientInterceptor):
    """Makes another call with the same client, for example to check the prompt."""

    client: yandexgpt.Client

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        if request.messages[0].text != "проверь":
            assert self.client.complete("проверь").text == "проверь"
        return continuation(client_call_details, request)


def test_interceptor_may_call_the_same_client(emulator: Emulator) -> None:
    interceptor = Asks()
    with emulator.client(interceptors=[interceptor]) as client:
        interceptor.client = client
        assert client.complete("раз").text == "раз"


class Closes(grpc.UnaryStreamClientInterceptor):
    client: yandexgpt.Client

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.client.close()
        return continuation(client_call_details, request)


def test_interceptor_may_close_the_client(emulator: Emulator) -> None:
    interceptor = Closes()
    interceptor.client = client = emulator.client(interceptors=[interceptor])
    with pytest.raises(yandexgpt.CancelledError):
        client.complete("раз")


class Holds(grpc.UnaryStreamClientInterceptor):
    """Blocks calls until the test releases them."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.entered.set()
        assert self.go.wait(PATIENCE)
        return continuation(client_call_details, request)


def test_blocked_interceptor_does_not_block_close(emulator: Emulator) -> None:
    holds = Holds()
    client = emulator.client(interceptors=[holds], timeout=None)
    call = Background(client.complete, "раз")
    assert holds.entered.wait(PATIENCE)
    client.close()
    holds.go.set()
    assert type(call.error()) is yandexgpt.CancelledError


class Takes(grpc.UnaryStreamClientInterceptor):
    """Uses the given number of seconds of every call."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            pass
        return continuation(client_call_details, request)


def test_deadline_covers_the_time_of_interceptors(emulator: Emulator) -> None:
    with emulator.client(interceptors=[Takes(0.3)]) as client:
        stall_after(emulator, 0)
        with pytest.raises(yandexgpt.DeadlineExceededError):
            client.complete("раз", timeout=1.0)
        assert deadline_of(emulator.requests[0]) < 0.8


def test_nothing_is_sent_if_the_deadline_passes_in_an_interceptor(emulator: Emulator) -> None:
    with emulator.client(interceptors=[Takes(0.3)], retry=yandexgpt.Retry.none()) as client:
        with pytest.raises(yandexgpt.DeadlineExceededError, match="the deadline passed in an interceptor"):
            client.complete("раз", timeout=0.1)
        client.complete("раз", timeout=PATIENCE)
    assert len(emulator.requests) == 1


class AsyncHolds(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        await asyncio.sleep(FOREVER)


def test_endless_interceptor_ends_at_the_deadline(emulator: Emulator) -> None:
    async def main() -> None:
        async with emulator.async_client(interceptors=[AsyncHolds()]) as client:
            with pytest.raises(yandexgpt.DeadlineExceededError, match="in an interceptor"):
                await client.complete("раз", timeout=0.2)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


class AsyncWaits(grpc.aio.UnaryStreamClientInterceptor):
    """Waits in the returned generator, but not for gRPC.

    Args:
        where: "between" waits after a message, "after" waits after the last message.
    """

    def __init__(self, where: str) -> None:
        self._where = where

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        response = await continuation(client_call_details, request)

        async def messages() -> AsyncIterator[Any]:
            try:
                async for message in response:
                    yield message
                    if self._where == "between":
                        await asyncio.sleep(FOREVER)
            finally:
                if self._where != "between":
                    await asyncio.sleep(FOREVER)

        return messages()


@pytest.mark.parametrize("where", ["between", "after"])
def test_wait_in_the_generator_of_an_interceptor_ends_at_the_deadline(emulator: Emulator, where: str) -> None:
    async def main() -> None:
        client = emulator.async_client(interceptors=[AsyncWaits(where)])
        with pytest.raises(yandexgpt.DeadlineExceededError, match="in an interceptor"):
            await client.complete("раз два", timeout=0.2)
        with pytest.raises(yandexgpt.DeadlineExceededError, match="in an interceptor"):
            await client.stream("раз два", timeout=0.2).finish()
        await client.close()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    until(lambda: emulator.in_flight == 0)


@pytest.mark.parametrize("where", ["between", "after"])
def test_leaving_a_stream_does_not_wait_for_an_interceptor(emulator: Emulator, where: str) -> None:
    async def main() -> None:
        client = emulator.async_client(interceptors=[AsyncWaits(where)])
        async with client, client.stream("раз два", timeout=None) as stream:
            await anext(stream)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    until(lambda: emulator.in_flight == 0)


def test_client_close_cancels_a_wait_in_an_interceptor(emulator: Emulator) -> None:
    async def main() -> None:
        client = emulator.async_client(interceptors=[AsyncWaits("between")])
        reading = asyncio.create_task(client.complete("раз два", timeout=None))
        await asyncio.to_thread(emulator.wait_for_requests, 1)
        await client.close()
        with pytest.raises(yandexgpt.CancelledError):
            await reading

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@pytest.mark.parametrize("interceptors", [[], [AsyncPasses], [AsyncYields]], ids=["none", "passes", "yields"])
def test_earlier_suppressed_cancellation_of_a_task_does_not_affect_calls(
    emulator: Emulator, interceptors: list[Any]
) -> None:
    async def main() -> None:
        async with emulator.async_client(interceptors=[each() for each in interceptors]) as client:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            async with client.stream("раз два три") as stream:
                await anext(stream)
            stall_after(emulator, 0)
            closing = client.with_options(timeout=None)
            asyncio.get_running_loop().call_later(0.05, lambda: tasks.append(asyncio.create_task(closing.close())))
            with pytest.raises(yandexgpt.CancelledError):
                await closing.complete("раз")
            await asyncio.wait(tasks)

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(asyncio.wait_for(main(), PATIENCE))


# Errors of interceptors


class Fails(grpc.UnaryStreamClientInterceptor):
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        raise self._error


class AsyncFails(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        raise self._error


def failing(factory: ClientFactory, error: BaseException) -> Any:
    return Fails(error) if factory.kind == "sync" else AsyncFails(error)


def test_plain_rpc_error_is_an_api_error(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, interceptors=[failing(factory, grpc.RpcError("не пущу"))])
    with pytest.raises(yandexgpt.APIError, match="не пущу") as caught:
        client.complete("раз")
    assert caught.value.code is grpc.StatusCode.UNKNOWN


def test_other_error_is_raised_unchanged(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, interceptors=[failing(factory, ZeroDivisionError("ой"))])
    with pytest.raises(ZeroDivisionError, match="ой"):
        client.complete("раз")


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_interceptor_that_raises_cancelled_error_does_not_block_a_batch(
    factory: ClientFactory, emulator: Emulator, on_error: Any
) -> None:
    client = factory.client(emulator, interceptors=[AsyncFails(asyncio.CancelledError())])
    results = Background(lambda: list(client.complete_many(["раз", "два"], on_error=on_error)))
    error = results.error()
    if on_error == "raise":
        assert type(error) is yandexgpt.CancelledError
    else:
        assert [type(result.error) for result in results.result()] == [yandexgpt.CancelledError] * 2


# Kinds of interceptors and clients


class Unary(grpc.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen.append(client_call_details.method.rpartition("/")[2])
        return continuation(client_call_details, request)


class AsyncUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.seen: list[str] = []

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen.append(client_call_details.method.decode().rpartition("/")[2])
        return await continuation(client_call_details, request)


def test_unary_interceptor_is_called_for_unary_calls(factory: ClientFactory, emulator: Emulator) -> None:
    interceptor = Unary() if factory.kind == "sync" else AsyncUnary()
    client = factory.client(emulator, interceptors=[interceptor])
    client.tokenize("раз")
    operation = client.submit("раз")
    operation.cancel()
    operation.refresh()
    client.complete("раз")
    assert interceptor.seen == ["Tokenize", "Completion", "Cancel", "Get"]


class Answers(grpc.UnaryUnaryClientInterceptor):
    """Returns the response instead of the call."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details, request).result()


def test_unary_interceptor_may_return_the_response(emulator: Emulator) -> None:
    with emulator.client(interceptors=[Answers()]) as client:
        assert client.count_tokens("раз") > 0


class Streams(grpc.StreamStreamClientInterceptor):
    """An interceptor of stream-stream calls, which the service does not have."""

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        raise AssertionError


@pytest.mark.parametrize("wrong", [object(), Delegates, AsyncPasses, Streams(), lambda *_: None])
def test_invalid_interceptor_is_rejected_immediately(factory: ClientFactory, emulator: Emulator, wrong: Any) -> None:
    with pytest.raises(yandexgpt.ConfigurationError, match=r"interceptors\[0\] must be a .*grpc.aio.Unary"):
        factory.client(emulator, interceptors=[wrong])
    client = factory.client(emulator)
    with pytest.raises(yandexgpt.ConfigurationError, match=r"interceptors\[0\]"):
        client.with_options(interceptors=[wrong])


def test_async_client_rejects_sync_interceptors(emulator: Emulator) -> None:
    with pytest.raises(yandexgpt.ConfigurationError, match=r"interceptors\[1\] must be a grpc.aio"):
        emulator.async_client(interceptors=[AsyncPasses(), Delegates()])


def test_sync_client_accepts_both_kinds_and_complete_many_needs_the_async_one(emulator: Emulator) -> None:
    watch, unary = AsyncYields(), Unary()
    with emulator.client(interceptors=[watch, unary]) as client:
        assert client.complete("раз").text == "раз"
        assert watch.begun == 0
        assert [result.completion.text for result in client.complete_many(["раз", "два"])] == ["раз", "два"]
        assert watch.begun == watch.ended == 2
    client = emulator.client(interceptors=[unary])
    with pytest.raises(yandexgpt.ConfigurationError, match=r"complete_many.* asynchronous"):
        client.complete_many(["раз"])
