"""``complete_many``: every prompt has a result, prompts are read only as needed, and no call or thread is exited."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import gc
import itertools
import pickle
import signal
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest
from driver import (
    CALLS_PER_CONNECTION,
    FOREVER,
    PATIENCE,
    Background,
    ClientFactory,
    deadline_of,
    output_of,
    program,
    run_loop,
    stall_after,
    until,
    without_fork_messages,
)
from hypothesis import given
from hypothesis import strategies as st

import yandexgpt
from yandexgpt import Retry
from yandexgpt._features.batch import ResultBuffer
from yandexgpt.emulator import Emulator

SOON = 15.0
THREAD = "yandexgpt-many"


@pytest.fixture(autouse=True)
def _check_nothing_is_left(emulator: Emulator) -> Iterator[None]:
    yield
    until(lambda: emulator.in_flight == 0)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == THREAD])


class Prompts:
    """An iterable of `number` prompts that counts how many were read."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        for index in range(self._number):
            self.read += 1
            yield f"вопрос {index}"


def texts(results: Iterable[yandexgpt.Result]) -> list[str]:
    return [result.completion.text for result in results]


def outcomes(emulator: Emulator) -> list[str]:
    return [request.wait(SOON) for request in emulator.requests]


def prompt_of(request: Any) -> str:
    return str(request.message.messages[-1].text)


# The result buffer


@given(st.integers(1, 5), st.booleans(), st.integers(0, 30), st.randoms(use_true_random=False))
def test_result_buffer_limits_and_orders_results(concurrency: int, ordered: bool, prompts: int, chance: Any) -> None:
    window = ResultBuffer(concurrency, ordered=ordered)
    under_way: list[int] = []
    finished: list[int] = []
    handed_out: list[int] = []
    read = 0
    while len(handed_out) < prompts:
        steps = []
        if window.has_capacity and read < prompts:
            steps.append("read")
        if under_way:
            steps.append("finish")
        if (ready := [index for index in finished if index not in handed_out]) and (
            not ordered or len(handed_out) in ready
        ):
            steps.append("hand out")
        assert steps, "it is stuck"
        step = chance.choice(steps)
        if step == "read":
            under_way.append(window.add_prompt())
            assert under_way[-1] == read
            read += 1
        elif step == "finish":
            finished.append(under_way.pop(chance.randrange(len(under_way))))
            window.add_result(yandexgpt.Result(finished[-1], "", ValueError()))
        else:
            result = window.pop()
            assert result is not None
            handed_out.append(result.index)
        assert window.in_flight == len(under_way) <= concurrency
        assert read - len(handed_out) <= 2 * concurrency
        assert window.empty == (read == len(handed_out))
    assert window.pop() is None
    assert handed_out == (sorted(handed_out) if ordered else finished)
    assert sorted(handed_out) == list(range(prompts))


def test_result_is_immutable_and_can_be_copied_and_pickled() -> None:
    result = yandexgpt.Result(3, "раз", ValueError("почему"))
    with pytest.raises(ValueError, match="почему"):
        _ = result.completion
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.index = 4  # type: ignore[misc]
    assert not hasattr(result, "__dict__")
    assert copy.copy(result) == result
    again = pickle.loads(pickle.dumps(result))
    assert (again.index, again.prompt, str(again.error)) == (3, "раз", "почему")


# Both clients


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 4, 100])
def test_every_prompt_has_its_result(client: Any, emulator: Emulator, concurrency: int, ordered: bool) -> None:
    prompts = Prompts(40)
    results = list(client.complete_many(prompts, concurrency=concurrency, ordered=ordered))
    for result in results:
        assert result.prompt == result.completion.text == f"вопрос {result.index}"
        assert result.error is None
    indexes = [result.index for result in results]
    assert indexes == list(range(40)) if ordered else sorted(indexes) == list(range(40))
    assert prompts.read == 40
    assert emulator.peak_in_flight <= concurrency
    assert len({result.completion.request_id for result in results}) == 40
    assert len({request.peer for request in emulator.requests}) <= max(1, 40 // CALLS_PER_CONNECTION)


def test_empty_prompts_give_no_results(client: Any, emulator: Emulator) -> None:
    results = client.complete_many([])
    assert list(results) == []
    assert list(results) == []
    assert emulator.requests == []


def test_options_are_those_of_complete(client: Any, emulator: Emulator) -> None:
    tools = ({"name": name, "parameters": {}} for name in ["now"])
    results = client.complete_many(
        ["раз", [{"role": "user", "text": "два"}]],
        system="Кратко.",
        model="yandexgpt",
        temperature=0.5,
        tools=tools,
        tool_choice="none",
        timeout=70.0,
        metadata=[("x-mine", "1")],
        request_id="сто".encode().hex(),
    )
    assert len(list(results)) == 2
    for request in emulator.requests:
        assert request.message.model_uri == "gpt://emulator/yandexgpt"
        assert [message.role for message in request.message.messages] == ["system", "user"]
        assert request.message.completion_options.temperature.value == 0.5
        assert [tool.function.name for tool in request.message.tools] == ["now"]
        assert 60.0 < deadline_of(request) <= 71.0
        assert request.metadata["x-mine"] == "1"
    ids = {request.metadata["x-client-request-id"] for request in emulator.requests}
    assert ids == {f"{'сто'.encode().hex()}-{index}" for index in range(2)}


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"concurrency": 0}, ValueError, "concurrency"),
        ({"concurrency": True}, ValueError, "concurrency"),
        ({"on_error": "ignore"}, ValueError, "on_error must be 'raise' or 'return', got 'ignore'"),
        ({"temperature": 5}, ValueError, "temperature"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"metadata": [("X", "1")]}, ValueError, "metadata"),
        ({"max_context_tokens": 0}, ValueError, "max_context_tokens"),
        ({"request_id": ""}, ValueError, "request_id"),
        ({"tools": 5}, ValueError, "tools"),
        ({"tool_choice": "now", "tools": []}, ValueError, "tool_choice"),
        ({"temprature": 0.5}, TypeError, "unexpected keyword argument 'temprature'"),
    ],
)
def test_invalid_argument_is_rejected_immediately(client: Any, arguments: Any, kind: Any, words: str) -> None:
    prompts = Prompts(3)
    with pytest.raises(kind, match=words):
        client.complete_many(prompts, **arguments)
    assert prompts.read == 0


@pytest.mark.parametrize(("prompts", "kind"), [("раз", ValueError), ({"a": 1}, ValueError), (5, TypeError)])
def test_prompts_of_a_wrong_type_are_rejected(client: Any, prompts: Any, kind: Any) -> None:
    with pytest.raises(kind, match="prompts must be an iterable of prompts"):
        client.complete_many(prompts)


def test_complete_many_of_a_closed_client_is_an_error(client: Any) -> None:
    client.close()
    with pytest.raises(yandexgpt.ConfigurationError, match="the client is closed"):
        client.complete_many(["раз"])


def test_ready_requests_may_have_their_own_model_and_tools(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, folder_id=None)
    request = yandexgpt.CompletionRequest(model_uri="gpt://f/m", messages=[{"role": "user", "text": "раз"}])
    request.tools.add().function.name = "now"
    assert len(list(client.complete_many([request], tool_choice="now"))) == 1
    assert emulator.requests[0].message.tool_choice.function_name == "now"


def test_prompts_are_read_only_as_needed(client: Any, emulator: Emulator) -> None:
    prompts = Prompts(1000)
    results = client.complete_many(prompts, concurrency=3)
    assert prompts.read == 0
    for number in range(1, 20):
        assert next(results).index == number - 1
        until(lambda: emulator.in_flight == 0)
        assert prompts.read <= number + 6
    results.close()
    assert prompts.read <= 25
    assert list(results) == []


def test_prompts_may_be_an_endless_iterable(client: Any) -> None:
    with client.complete_many(str(number) for number in itertools.count()) as results:
        assert texts(itertools.islice(results, 30)) == [str(number) for number in range(30)]


@pytest.mark.parametrize("ordered", [True, False])
def test_slow_call_does_not_block_the_others(client: Any, emulator: Emulator, ordered: bool) -> None:
    stall_after(emulator, 0)
    prompts = Prompts(1000)
    results = client.complete_many(prompts, concurrency=3, ordered=ordered)
    if not ordered:
        assert len(texts(itertools.islice(results, 100))) == 100
        assert emulator.in_flight >= 1
        results.close()
        return
    seen: list[int] = []
    reader = Background(lambda: seen.extend(result.index for result in results))
    emulator.wait_for_requests(6)  # the slow call, and five that started after it
    running: list[Any] = []

    def only_one_runs() -> bool:
        running[:] = [request for request in emulator.requests if request.outcome is None]
        return len(running) == 1

    until(only_one_runs)
    index = int(prompt_of(running[0]).split()[1])
    until(lambda: seen == list(range(index)) and prompts.read == index + 6)
    results.close()
    assert isinstance(reader.error(), yandexgpt.CancelledError)
    assert prompts.read == index + 6


def test_max_concurrency_applies(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, max_concurrency=2)
    prompts = Prompts(20)
    others = Background(lambda: texts(client.complete_many(Prompts(20), concurrency=8)))
    assert len(texts(client.complete_many(prompts, concurrency=8))) == 20
    assert len(others.result()) == 20
    assert emulator.peak_in_flight <= 2


def test_calls_are_retried(client: Any, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE", times=3)
    assert len(texts(client.complete_many(Prompts(10), concurrency=2))) == 10
    assert len(emulator.requests) == 13


def test_every_prompt_has_its_own_deadline(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 0, times=2)
    results = list(client.complete_many(Prompts(4), timeout=2.5, concurrency=2, on_error="return"))
    kinds = [type(result.error) for result in results]
    assert kinds == [yandexgpt.DeadlineExceededError] * 2 + [type(None)] * 2


def test_retry_budget_of_the_client_applies(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=Retry(initial=0.01, maximum=0.02, budget=4))
    emulator.fail("UNAVAILABLE", times=30)
    errors = [each.error for each in client.complete_many(Prompts(5), concurrency=1, on_error="return")]
    assert sum(error.attempts for error in errors) < 10
    with pytest.raises(yandexgpt.UnavailableError) as caught:
        client.complete("раз")
    assert caught.value.attempts == 1


BAD: list[Any] = ["раз", "", "два", None, [], "три"]
KINDS = [None, ValueError, None, TypeError, ValueError, None]


@pytest.mark.parametrize("ordered", [True, False])
def test_invalid_prompts_are_returned_as_errors(client: Any, emulator: Emulator, ordered: bool) -> None:
    results = list(client.complete_many(BAD, on_error="return", ordered=ordered))
    results.sort(key=lambda result: result.index)
    assert [type(result.error) if result.error else None for result in results] == KINDS
    assert [result.prompt for result in results] == BAD
    assert [result.completion.text for result in results if not result.error] == ["раз", "два", "три"]
    with pytest.raises(TypeError):
        _ = results[3].completion


def test_failed_calls_are_returned_as_errors(client: Any, emulator: Emulator) -> None:
    emulator.fail("INVALID_ARGUMENT", times=3)
    results = list(client.complete_many(Prompts(10), on_error="return", concurrency=2))
    failed = [result.error for result in results if result.error]
    assert [type(error) for error in failed] == [yandexgpt.InvalidArgumentError] * 3
    assert {error.request_id for error in failed} == {
        request.metadata["x-client-request-id"] for request in emulator.requests if request.wait(SOON) != "OK"
    }


def test_raised_error_comes_in_order_and_cancels_the_other_calls(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 0)
    results = client.complete_many(["", "раз", "два"], concurrency=3)
    with pytest.raises(ValueError, match="prompt must not be empty"):
        next(results)
    until(lambda: emulator.in_flight == 0)
    assert {request.wait(SOON) for request in emulator.requests} <= {"CANCELLED", "OK"}
    assert list(results) == []


def test_error_is_raised_after_earlier_results(client: Any, emulator: Emulator) -> None:
    results = client.complete_many(["раз", "два", "", "три"])
    assert texts(itertools.islice(results, 2)) == ["раз", "два"]
    with pytest.raises(ValueError, match="prompt must not be empty"):
        next(results)
    assert list(results) == []


def test_failed_call_is_raised(client: Any, emulator: Emulator) -> None:
    emulator.fail("PERMISSION_DENIED")
    with pytest.raises(yandexgpt.PermissionDeniedError):
        list(client.complete_many(Prompts(50), concurrency=2))
    assert len(emulator.requests) < 50


class BrokenPromptsError(Exception):
    pass


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_error_of_the_prompts_iterable_is_raised(client: Any, on_error: Any) -> None:
    def prompts() -> Iterator[str]:
        yield "раз"
        yield "два"
        raise BrokenPromptsError

    results = client.complete_many(prompts(), on_error=on_error)
    assert [next(results).prompt, next(results).prompt] == ["раз", "два"]
    with pytest.raises(BrokenPromptsError):
        next(results)
    assert list(results) == []


def test_unexpected_error_is_raised_even_with_on_error_return(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError

    results = client.complete_many(["раз"], on_error="return")
    monkeypatch.setattr("yandexgpt._features.batch.build_request", broken)
    with pytest.raises(ZeroDivisionError):
        next(results)


# Close and garbage collection


def test_close_cancels_active_calls(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 0, times=3)
    results = client.complete_many(Prompts(100), concurrency=3, timeout=None)
    reader = Background(next, results)
    emulator.wait_for_requests(3)
    results.close()
    assert isinstance(reader.error(), yandexgpt.CancelledError)
    assert [request.wait(SOON) for request in emulator.requests] == ["CANCELLED"] * 3
    results.close()
    assert list(results) == []


def exited(results: Any) -> None:
    with pytest.raises(ZeroDivisionError), results:
        raise ZeroDivisionError


@pytest.mark.parametrize("end_early", [lambda results: results.close(), exited])
def test_close_and_exit_cancel_active_calls(client: Any, emulator: Emulator, end_early: Any) -> None:
    results, reader = stalled(client, emulator)
    end_early(results)
    assert isinstance(reader.error(), yandexgpt.CancelledError)
    assert sorted(outcomes(emulator)) == ["CANCELLED", "CANCELLED", "INVALID_ARGUMENT"]


def stalled(client: Any, emulator: Emulator) -> tuple[Any, Background]:
    """Results that another thread reads: one was returned, and two calls never end."""
    emulator.fail("INVALID_ARGUMENT")
    stall_after(emulator, 0, times=2)
    results = client.complete_many(Prompts(100), concurrency=2, ordered=False, on_error="return", timeout=None)
    assert isinstance(next(results).error, yandexgpt.InvalidArgumentError)
    reader = Background(next, results)
    emulator.wait_for_requests(3)
    return results, reader


def test_client_close_cancels_active_calls(client: Any, emulator: Emulator) -> None:
    results, reader = stalled(client, emulator)
    client.close()
    assert isinstance(reader.result().error, yandexgpt.CancelledError)
    with pytest.raises(yandexgpt.ConfigurationError, match="the client is closed"):
        list(results)
    assert sorted(outcomes(emulator)) == ["CANCELLED", "CANCELLED", "INVALID_ARGUMENT"]


def test_close_of_a_derived_client_cancels_its_calls(client: Any, emulator: Emulator) -> None:
    other = client.with_options(timeout=None)
    _, reader = stalled(other, emulator)
    other.close()
    assert isinstance(reader.result().error, yandexgpt.CancelledError)
    assert client.complete("раз").text == "раз"


@pytest.mark.parametrize("cycle", [False, True])
def test_garbage_collection_cancels_active_calls(client: Any, emulator: Emulator, cycle: bool) -> None:
    emulator.fail("INVALID_ARGUMENT")
    stall_after(emulator, 0, times=2)
    results = client.complete_many(Prompts(100), concurrency=2, ordered=False, on_error="return", timeout=None)
    next(results)
    emulator.wait_for_requests(2)
    if cycle:
        around: list[Any] = [results]
        around.append(around)
        del around
    del results
    gc.collect()
    assert set(outcomes(emulator)) <= {"CANCELLED", "INVALID_ARGUMENT"}


def test_unread_results_make_no_call(client: Any, emulator: Emulator) -> None:
    client.complete_many(Prompts(3))
    gc.collect()
    assert emulator.requests == []


def test_exhausted_results_leave_no_thread(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yandexgpt._concurrency.threads.JOIN_TIMEOUT", PATIENCE)
    with emulator.client() as client:
        before = set(threading.enumerate())
        results = client.complete_many(Prompts(10))
        assert len(list(results)) == 10
        assert not [thread for thread in set(threading.enumerate()) - before if thread.name == THREAD]


def test_prompts_are_read_by_the_thread_that_iterates(emulator: Emulator) -> None:
    seen = set()

    def prompts() -> Iterator[str]:
        for number in range(20):
            seen.add(threading.current_thread())
            yield str(number)

    with emulator.client() as client:
        assert len(list(client.complete_many(prompts(), concurrency=2))) == 20
    assert seen == {threading.current_thread()}


def test_slowly_arriving_prompts_are_started_immediately(emulator: Emulator) -> None:
    def prompts() -> Iterator[str]:
        yield "раз"
        assert emulator.wait_for_requests(1, PATIENCE)[0].wait() == "OK"
        yield "два"

    with emulator.client() as client:
        assert texts(client.complete_many(prompts())) == ["раз", "два"]


def test_async_iterable_is_rejected_by_the_sync_client(emulator: Emulator) -> None:
    async def prompts() -> AsyncIterator[str]:
        yield "раз"

    with emulator.client() as client, pytest.raises(TypeError, match="got async_generator"):
        client.complete_many(prompts())  # type: ignore[arg-type]


def test_failed_thread_start_is_an_error(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with emulator.client() as client:
        results = client.complete_many(["раз"])
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no threads")))
            with pytest.raises(yandexgpt.ConfigurationError, match="no threads"):
                next(results)
        assert texts(client.complete_many(["раз"])) == ["раз"]


# Tasks


def test_prompts_may_be_an_async_iterable(emulator: Emulator) -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def prompts() -> AsyncIterator[str]:
            yield "раз"
            await release.wait()
            yield "два"

        async with emulator.async_client() as client, client.complete_many(prompts()) as results:
            assert (await anext(results)).prompt == "раз"  # before the next prompt is available
            release.set()
            assert [result.prompt async for result in results] == ["два"]

    run_loop(main)


def test_task_cancellation_cancels_active_calls(emulator: Emulator) -> None:
    async def main() -> None:
        stall_after(emulator, 0, times=3)
        ended = False

        async def prompts() -> AsyncIterator[str]:
            nonlocal ended
            try:
                for prompt in Prompts(3):
                    yield prompt
                await asyncio.Event().wait()
            finally:
                ended = True

        async with emulator.async_client() as client:
            results = client.complete_many(prompts())
            task = asyncio.create_task(anext(results))
            await asyncio.to_thread(emulator.wait_for_requests, 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended
            for request in emulator.requests:
                assert await asyncio.to_thread(request.wait, SOON) == "CANCELLED"

    run_loop(main)


def test_aclosing_and_break_cancel_active_calls(emulator: Emulator) -> None:
    async def main() -> None:
        async with emulator.async_client() as client:
            async with contextlib.aclosing(client.complete_many(Prompts(100))) as results:
                async for _ in results:
                    break
            async for _ in client.complete_many(Prompts(100)):
                break
            gc.collect()

    run_loop(main)


def test_calls_cancelled_by_other_code_are_errors(emulator: Emulator) -> None:
    async def main() -> None:
        stall_after(emulator, 0)
        async with emulator.async_client() as client:
            results = client.complete_many(["раз"])
            reader = asyncio.create_task(anext(results))
            await asyncio.to_thread(emulator.wait_for_requests, 1)
            for task in asyncio.all_tasks() - {reader, asyncio.current_task()}:
                task.cancel()
            with pytest.raises(yandexgpt.CancelledError):
                await reader

    run_loop(main)


def test_client_works_in_several_loops(emulator: Emulator) -> None:
    client = emulator.async_client()

    async def main() -> None:
        assert len([each async for each in client.complete_many(Prompts(10))]) == 10

    run_loop(main)
    run_loop(main)
    asyncio.run(client.close())


# Whole programs

LOOP = """
import sys, yandexgpt
client = yandexgpt.Client(timeout=None)
def prompts():
    while True:
        yield "раз"
for result in client.complete_many(prompts(), concurrency=3):
    print(result.completion.text, flush=True)
"""


def test_ctrl_c_cancels_active_calls(emulator: Emulator) -> None:
    emulator.reply("раз", delay=FOREVER, times=1000)
    process = program(LOOP, emulator)
    emulator.wait_for_requests(3, PATIENCE)
    process.send_signal(signal.SIGINT)
    for request in emulator.requests:
        assert request.wait(SOON) == "CANCELLED"
    code, out, err = output_of(process)
    assert code in (-signal.SIGINT, 130)
    assert out == ""
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    for noise in ("Exception ignored", "never awaited", "RpcError", "E0000", "Task", "Exception in"):
        assert noise not in err


EXITS = {
    "kept in the module": """
results = client.complete_many(["раз"] * 100, concurrency=3)
print(next(results).completion.text)
""",
    "the client closed": """
with client:
    results = client.complete_many(["раз"] * 100, concurrency=3)
    print(next(results).completion.text)
""",
    "read in a daemon thread": """
import threading
first = threading.Event()
def read():
    for result in client.complete_many(["раз"] * 100, concurrency=1):
        print(result.completion.text)
        break
    results = client.complete_many(["раз"] * 100, concurrency=1)
    first.set()
    stall(results)
def stall(results):
    for result in results:
        pass
threading.Thread(target=read, daemon=True).start()
first.wait()
""",
    "several in sequence, each exited early": """
for _ in range(30):
    for result in client.complete_many(["раз"] * 100, concurrency=8):
        break
print(result.completion.text)
""",
    "asynchronous, kept in the module": """
import asyncio
client = yandexgpt.AsyncClient()
results = client.complete_many(["раз"] * 100, concurrency=3)
async def main():
    print((await anext(results)).completion.text)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("case", EXITS)
def test_interpreter_exit_prints_nothing(emulator: Emulator, case: str) -> None:
    source = "import yandexgpt\nclient = yandexgpt.Client()\n" + EXITS[case]
    code, out, err = output_of(program(source, emulator))
    assert (code, out, without_fork_messages(err)) == (0, "раз\n", "")


# Order of reads, and close by others


@pytest.mark.parametrize("concurrency", [1, 3])
def test_completed_result_is_returned_before_the_next_prompt_is_read(emulator: Emulator, concurrency: int) -> None:
    got: list[str] = []

    def prompts() -> Iterator[str]:
        for number in range(12):
            assert len(got) > number - concurrency
            yield str(number)

    with emulator.client() as client:
        for result in client.complete_many(prompts(), concurrency=concurrency, ordered=False):
            got.append(result.completion.text)  # noqa: PERF401  (`prompts` reads `got` during the loop)
    assert sorted(got) == sorted(map(str, range(12)))


@pytest.mark.parametrize("concurrency", [1, 3])
def test_completed_result_is_returned_to_a_task_before_the_next_prompt_is_read(
    emulator: Emulator, concurrency: int
) -> None:
    got: list[str] = []

    def prompts() -> Iterator[str]:
        for number in range(12):
            assert len(got) > number - concurrency
            yield str(number)

    async def main() -> None:
        async with emulator.async_client() as client:
            async for result in client.complete_many(prompts(), concurrency=concurrency, ordered=False):
                got.append(result.completion.text)  # noqa: PERF401  (as above)

    run_loop(main)
    assert sorted(got) == sorted(map(str, range(12)))


def test_async_prompts_may_wait_for_earlier_results(emulator: Emulator) -> None:
    async def main() -> list[str]:
        got: asyncio.Queue[str] = asyncio.Queue()

        async def prompts() -> AsyncIterator[str]:
            yield "раз"
            yield await got.get() + " два"
            yield await got.get() + " три"

        texts = []
        async with emulator.async_client() as client:
            async for result in client.complete_many(prompts(), concurrency=10):
                texts.append(result.completion.text)
                got.put_nowait(texts[-1])
        return texts

    assert run_loop(main) == ["раз", "раз два", "раз два три"]


def test_close_by_another_thread_between_results_raises_in_the_reader(emulator: Emulator) -> None:
    with emulator.client() as client:
        results = client.complete_many(Prompts(50), concurrency=3)
        reader = Background(lambda: [next(results), Background(results.close).result(), *results])
        assert type(reader.error()) is yandexgpt.CancelledError


def test_close_by_another_task_between_results_raises_in_the_reader(emulator: Emulator) -> None:
    async def main() -> None:
        async with emulator.async_client() as client:
            results = client.complete_many(Prompts(50), concurrency=3)
            await anext(results)
            await asyncio.create_task(results.close())
            with pytest.raises(yandexgpt.CancelledError):
                await anext(results)

    run_loop(main)


def test_close_by_the_reader_ends_the_iteration(client: Any) -> None:
    results = client.complete_many(Prompts(50), concurrency=3)
    next(results)
    results.close()
    assert list(results) == []


@pytest.mark.parametrize("close", ["results", "client"])
def test_close_during_the_start_of_the_background_thread(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, close: str
) -> None:
    stall_after(emulator, 0, times=3)
    client = emulator.client(timeout=None)
    results = client.complete_many(Prompts(3), concurrency=3)
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == THREAD:
            Background(results.close if close == "results" else client.close).result()

    monkeypatch.setattr(threading.Thread, "start", started)
    reader = Background(next, results)
    assert isinstance(reader.error(), yandexgpt.CancelledError | yandexgpt.ConfigurationError)
