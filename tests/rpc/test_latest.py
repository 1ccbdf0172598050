"""``stream(..., latest=True)``: a slow reader gets the latest chunk, chunks give the answer, and nothing is exited."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driver import PATIENCE, Background, ClientFactory, output_of, program, run_loop, stall_after, until
from hypothesis import given
from hypothesis import strategies as st
from test_cancellation import EXITS, SOON, SYNC_BARE

import yandexgpt
from yandexgpt._models import CompletionResponse
from yandexgpt._rpc.conflate import LatestValue
from yandexgpt.emulator import Emulator

PARTIALS = ["раз", "раз два", "раз двадцать", "раз двадцать три", "раз два т\N{REPLACEMENT CHARACTER}"]
ANSWER = "раз два три"


@pytest.fixture(autouse=True)
def _check_nothing_is_left(emulator: Emulator) -> Iterator[None]:
    yield
    until(lambda: emulator.in_flight == 0)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "yandexgpt-latest"])


def all_sent(emulator: Emulator, number: int = 0) -> None:
    """Return when the call has ended at the server."""
    emulator.wait_for_requests(number + 1)
    emulator.requests[number].wait(PATIENCE)


def applied(chunks: Any) -> Iterator[str]:
    shown = ""
    for chunk in chunks:
        shown = shown[: chunk.keep] + chunk.delta
        assert shown == chunk.text
        yield shown


def test_slow_reader_gets_the_first_and_the_last_chunk(emulator: Emulator) -> None:
    emulator.reply(ANSWER, partials=PARTIALS)
    with emulator.client() as client:
        stream = client.stream("Привет", latest=True)
        shown = applied(stream)
        first = next(shown)
        until(lambda: not [thread for thread in threading.enumerate() if thread.name == "yandexgpt-latest"])
        assert first in {*PARTIALS, "раз два т", ANSWER}
        assert list(shown) == ([ANSWER] if first != ANSWER else [])
        assert stream.completion.text == ANSWER
        assert stream.completion.server_request_id


def test_slow_task_gets_the_first_and_the_last_chunk(emulator: Emulator) -> None:
    async def main() -> None:
        emulator.reply(ANSWER, partials=PARTIALS)
        async with emulator.async_client() as client:
            stream = client.stream("Привет", latest=True)
            first = await anext(stream)
            reading = asyncio.all_tasks() - {asyncio.current_task()}
            if reading:
                await asyncio.wait(reading, timeout=PATIENCE)
            chunks = [first, *[chunk async for chunk in stream]]
            assert len(chunks) <= 2
            assert list(applied(chunks))[-1] == ANSWER
            assert stream.completion.text == ANSWER

    run_loop(main)


def test_fast_reader_gets_chunks_as_they_arrive(client: Any, emulator: Emulator) -> None:
    emulator.reply(ANSWER, partials=PARTIALS, delay=0.05)
    seen = list(applied(client.stream("Привет", latest=True)))
    assert seen[-1] == ANSWER
    texts = [text.rstrip("\N{REPLACEMENT CHARACTER}") for text in [*PARTIALS, ANSWER]]
    assert [text for text in texts if text in seen] == seen


@pytest.mark.parametrize("read", [lambda stream: stream.finish().text, lambda stream: "".join(stream.text())])
def test_finish_and_text_give_the_whole_answer(client: Any, emulator: Emulator, read: Any) -> None:
    with client.stream(ANSWER, latest=True) as stream:
        assert read(stream) == ANSWER
    assert emulator.requests[0].wait(SOON) == "OK"


def test_incomplete_character_of_the_last_partial_is_returned_at_the_end(client: Any, emulator: Emulator) -> None:
    emulator.reply("", partials=["раз\N{REPLACEMENT CHARACTER}"], final=False)
    stream = client.stream("Привет", latest=True)
    assert list(applied(stream))[-1] == stream.completion.text == "раз\N{REPLACEMENT CHARACTER}"


def test_answer_of_one_message_is_one_chunk(client: Any, emulator: Emulator) -> None:
    emulator.reply(ANSWER, partials=[])
    assert [chunk.text for chunk in client.stream("Привет", latest=True)] == [ANSWER]


def test_stream_closed_before_reading_sends_nothing(client: Any, emulator: Emulator) -> None:
    stream = client.stream("Привет", latest=True)
    stream.close()
    assert list(stream) == []
    assert emulator.requests == []


def test_error_is_raised_after_the_latest_chunk(client: Any, emulator: Emulator) -> None:
    emulator.reply(ANSWER, partials=PARTIALS[:3])
    emulator.fail("UNAVAILABLE", after=3, delay=0.2)  # gRPC may drop messages that arrive together with an error
    stream = client.stream("Привет", latest=True)
    shown = [next(stream).text]
    all_sent(emulator)
    with pytest.raises(yandexgpt.UnavailableError) as caught:
        shown.extend(chunk.text for chunk in stream)
    assert shown[-1] == "раз двадцать"
    assert caught.value.partial is not None
    assert caught.value.partial.text == stream.partial.text == "раз двадцать"
    assert len(emulator.requests) == 1
    with pytest.raises(yandexgpt.YandexGPTError, match="the answer is not whole"):
        _ = stream.completion
    assert list(stream) == []


def test_error_before_the_first_chunk_is_retried(client: Any, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE")
    assert client.stream(ANSWER, latest=True).finish().text == ANSWER
    emulator.fail("INVALID_ARGUMENT")
    with pytest.raises(yandexgpt.InvalidArgumentError):
        next(client.stream(ANSWER, latest=True))


def test_unread_answer_of_a_closed_stream_is_not_available(client: Any, emulator: Emulator) -> None:
    emulator.reply(ANSWER, partials=PARTIALS)
    stream = client.stream("Привет", latest=True)
    next(stream)
    all_sent(emulator)
    until(lambda: not [each for each in threading.enumerate() if each.name == "yandexgpt-latest"])
    stream.close()
    assert list(stream) == []
    with pytest.raises(yandexgpt.YandexGPTError, match="the answer is not whole"):
        _ = stream.completion


def stalled_stream(client: Any, emulator: Emulator) -> Any:
    stall_after(emulator, 1)
    stream = client.stream(ANSWER, latest=True)
    assert next(stream).text == "раз"
    return stream


def closed(stream: Any) -> None:
    stream.close()
    stream.close()
    assert list(stream) == []
    assert stream.partial.text == "раз"


def exited(stream: Any) -> None:
    with pytest.raises(ZeroDivisionError), stream:
        raise ZeroDivisionError


def read_in_another_thread(stream: Any) -> None:
    reader = Background(next, stream)
    stream.close()
    assert isinstance(reader.error(), yandexgpt.CancelledError | StopIteration)


@pytest.mark.parametrize("end_early", [closed, exited, read_in_another_thread])
def test_early_end_cancels_the_call(client: Any, emulator: Emulator, end_early: Any) -> None:
    end_early(stalled_stream(client, emulator))
    assert emulator.requests[0].wait(SOON) == "CANCELLED"


def test_garbage_collected_stream_cancels_the_call(client: Any, emulator: Emulator) -> None:
    stream = stalled_stream(client, emulator)
    del stream
    gc.collect()
    assert emulator.requests[0].wait(SOON) == "CANCELLED"


def test_garbage_collected_reference_cycle_cancels_the_call(client: Any, emulator: Emulator) -> None:
    cycle: list[Any] = [stalled_stream(client, emulator)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert emulator.requests[0].wait(SOON) == "CANCELLED"


def test_client_close_cancels_the_stream(client: Any, emulator: Emulator) -> None:
    stream = stalled_stream(client, emulator)
    client.close()
    with pytest.raises(yandexgpt.CancelledError) as caught:
        next(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "раз"
    assert emulator.requests[0].wait(SOON) == "CANCELLED"


def test_task_cancellation_cancels_the_call(emulator: Emulator) -> None:
    async def main() -> None:
        stall_after(emulator, 1)
        async with emulator.async_client() as client:
            stream = client.stream(ANSWER, latest=True)
            assert (await anext(stream)).text == "раз"
            task = asyncio.create_task(stream.finish())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(emulator.requests[0].wait, SOON) == "CANCELLED"

    run_loop(main)


def test_chat_stream_can_return_only_the_latest_chunk(client: Any, emulator: Emulator) -> None:
    chat = client.chat()
    emulator.reply(ANSWER, partials=PARTIALS)
    with chat.stream("Раз", latest=True) as stream:
        assert list(applied(stream))[-1] == ANSWER
    assert [message.text for message in chat.messages] == ["Раз", ANSWER]
    emulator.reply(ANSWER, partials=PARTIALS)
    with chat.stream("Два", latest=True) as stream:
        next(stream)
        all_sent(emulator, 1)
    assert list(stream) == []
    assert len(chat.messages) == 2
    assert chat.send("Три").text == "Три"


@pytest.mark.slow
def test_many_fast_streams(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator)
    text = " ".join(map(str, range(300)))
    for number in range(30):
        stream = client.stream(text, latest=True)
        shown = applied(stream)
        first = next(shown)
        if number % 3 == 0:
            stream.close()
        else:
            assert [first, *shown][-1] == text
            assert stream.completion.text == text


@given(st.lists(st.sampled_from(["put", "take"]), max_size=30))
def test_the_last_message_is_never_lost(steps: list[str]) -> None:
    arrived = asyncio.Event()
    latest = LatestValue(arrived)
    given_: list[CompletionResponse] = []
    taken: list[CompletionResponse] = []
    for step in steps:
        if step == "put":
            given_.append(CompletionResponse(model_version=str(len(given_))))
            latest.put(given_[-1])
            assert arrived.is_set()
        elif latest.value:
            taken.append(latest.value.popleft())
            assert taken[-1] is given_[-1]
    assert len(latest.value) <= 1
    if given_:
        assert [*taken, *latest.value][-1] is given_[-1]


# Whole programs

SYNC = SYNC_BARE.replace('"раз два три"', '"раз два три", latest=True')
KEPT = {name: source.replace('"раз два три"', '"раз два три", latest=True') for name, source in EXITS.items()}


def test_ctrl_c_cancels_the_call(emulator: Emulator) -> None:
    stall_after(emulator, 1)
    process = program(SYNC, emulator)
    assert process.stdout is not None
    assert process.stdout.readline() == "раз\n"
    process.send_signal(signal.SIGINT)
    assert emulator.requests[0].wait(SOON) == "CANCELLED"
    code, _, err = output_of(process)
    assert code in (-signal.SIGINT, 130)
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert "Exception ignored" not in err


@pytest.mark.parametrize("case", KEPT)
def test_active_stream_does_not_delay_interpreter_exit(emulator: Emulator, case: str) -> None:
    stall_after(emulator, 1)
    assert output_of(program(KEPT[case], emulator)) == (0, "раз\n", "")
    assert emulator.requests[0].wait(SOON) == "CANCELLED"


def test_stream_in_a_forked_child_is_an_error(emulator: Emulator) -> None:
    source = """
import os, yandexgpt
with yandexgpt.Client(timeout=None) as client:
    stream = client.stream("раз два три", latest=True)
    next(stream)
    pid = os.fork()
    if not pid:
        try:
            next(stream)
        except yandexgpt.ConfigurationError as error:
            assert "fork" in str(error)
            stream.close()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    print("well")
"""
    stall_after(emulator, 1)
    code, out, _ = output_of(program(source, emulator))
    assert (code, out) == (0, "well\n")
