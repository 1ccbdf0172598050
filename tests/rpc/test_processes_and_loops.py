"""Forks, event loops, threads, and more streams than one connection allows."""

from __future__ import annotations

import asyncio
import math
import random
import sys
import threading
import time
from collections import Counter
from typing import Any

import pytest
from driver import (
    OVERLOOKS_RESETS,
    PATIENCE,
    Background,
    ClientFactory,
    in_threads,
    output_of,
    program,
    run_loop,
    unexpected,
    until,
    without_fork_messages,
)

import yandexgpt
from yandexgpt import Retry
from yandexgpt._rpc.channels import STREAMS_PER_CHANNEL
from yandexgpt.emulator import Emulator, ErrorCode, Fault, FaultProxy

# Forks

FORK = """
import asyncio, gc, os, signal, sys, threading
import yandexgpt

TIMES = 20

def fork(in_child, *, bare=True):
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(15)  # kills a child that hangs
    try:
        in_child()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    if bare:
        os._exit(0)
    sys.exit(0)

def ended_well(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

signal.alarm(55)
"""

SYNC_USE = """
client = yandexgpt.Client(timeout=10.0)
def use(text="раз два"):
    assert client.complete(text).text == text
    with client.stream(text) as stream:
        assert stream.finish().text == text
"""

ASYNC_USE = """
client = yandexgpt.AsyncClient(timeout=10.0)
async def main(text="раз два"):
    assert (await client.complete(text)).text == text
    async with client.stream(text) as stream:
        assert (await stream.finish()).text == text
def use():
    asyncio.run(main())
"""

BOTH_USE = """
sync_client = yandexgpt.Client(timeout=10.0)
async_client = yandexgpt.AsyncClient(timeout=10.0)
async def main():
    assert (await async_client.complete("раз")).text == "раз"
def use():
    asyncio.run(main())
    assert sync_client.complete("раз").text == "раз"
"""

PARENT_FIRST = """
use()
for _ in range(TIMES):
    go, ready = os.pipe()
    pid = fork(lambda: (os.read(go, 1), use()))
    use()
    os.write(ready, b"!")
    ended_well(pid)
    os.close(go), os.close(ready)
use()
print("well")
"""

CHILD_FIRST = """
use()
for _ in range(TIMES):
    ended_well(fork(use))
    use()
print("well")
"""

AT_ONCE = """
use()
for _ in range(TIMES):
    pid = fork(use)
    use()
    ended_well(pid)
print("well")
"""


def check_program(source: str, emulator: Emulator) -> None:
    code, out, err = output_of(program(source, emulator), 60.0)
    # gRPC logs lines when a fork happens during a call.
    err = without_fork_messages(err)
    assert (code, out, err) == (0, "well\n", ""), err


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(PARENT_FIRST, id="parent first", marks=pytest.mark.slow),
        pytest.param(CHILD_FIRST, id="child first", marks=pytest.mark.slow),
        pytest.param(AT_ONCE, id="at once"),
    ],
)
@pytest.mark.parametrize("use", [SYNC_USE, ASYNC_USE, BOTH_USE], ids=["sync", "async", "both"])
def test_parent_and_child_work_after_a_fork(emulator: Emulator, use: str, order: str) -> None:
    check_program(FORK + use + order, emulator)


@pytest.mark.parametrize("use", [SYNC_USE, ASYNC_USE], ids=["sync", "async"])
def test_forked_children_exit_without_errors(emulator: Emulator, use: str) -> None:
    source = """
use()
for number in range(5):
    ended_well(fork(use, bare=False))
    ended_well(fork(lambda: None, bare=False))
print("well")
"""
    code, out, err = output_of(program(FORK + use + source, emulator), 60.0)
    assert (code, out, err) == (0, "well\n", ""), err


REFUSED = """
def refused():
    for call in (client.complete, client.stream):
        try:
            call("раз")
        except yandexgpt.ConfigurationError as error:
            assert "forked while calls were in flight" in str(error)
        else:
            raise AssertionError("not rejected")
"""


def test_fork_during_a_stream_is_an_error_in_the_child_and_the_parent_continues(emulator: Emulator) -> None:
    source = """
use()
stream = client.stream("раз два три")
next(stream)
ended_well(fork(lambda: (refused(), client.close()), bare=False))
ended_well(fork(client.close, bare=False))
ended_well(fork(stream.close, bare=False))
ended_well(fork(lambda: None, bare=False))
assert stream.finish().text == "раз два три"
use()
ended_well(fork(use, bare=False))
print("well")
"""
    check_program(FORK + SYNC_USE + REFUSED + source, emulator)
    assert len({request.peer for request in emulator.requests}) == 2


def test_client_close_in_a_child_does_not_affect_the_parent(emulator: Emulator) -> None:
    source = """
use()
for _ in range(5):
    ended_well(fork(lambda: (use(), client.close()), bare=False))
    ended_well(fork(client.close, bare=False))
    use()
print("well")
"""
    check_program(FORK + SYNC_USE + source, emulator)
    assert len({request.peer for request in emulator.requests}) == 6


def test_fork_after_streams_were_closed_early(emulator: Emulator) -> None:
    source = """
def give_up():
    with client.stream("раз два три") as stream:
        next(stream)
for _ in range(TIMES):
    give_up()
    ended_well(fork(use))
    give_up()
use()
print("well")
"""
    check_program(FORK + SYNC_USE + source, emulator)


def test_fork_in_a_forked_child(emulator: Emulator) -> None:
    source = """
use()
ended_well(fork(lambda: (use(), ended_well(fork(use)), use())))
use()
print("well")
"""
    check_program(FORK + SYNC_USE + source, emulator)
    assert len({request.peer for request in emulator.requests}) == 3


def test_fork_during_calls_of_other_threads(emulator: Emulator) -> None:
    source = """
use()
stop = threading.Event()
def go_on():
    while not stop.is_set():
        try:
            assert busy.complete("раз два").text == "раз два"
        except (yandexgpt.DeadlineExceededError, yandexgpt.InternalServerError):
            pass  # the child may have read the answer: gRPC skips its fork handlers while one of its threads is busy
busy = client.with_options(timeout=1.0)
def use_or_be_refused():
    try:
        use()
    except yandexgpt.ConfigurationError:
        refused()
threads = [threading.Thread(target=go_on, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(TIMES):
    ended_well(fork(use_or_be_refused))
stop.set()
for thread in threads:
    thread.join()
ended_well(fork(use))
use()
print("well")
"""
    check_program(FORK + SYNC_USE + REFUSED + source, emulator)


def test_fork_while_calls_are_queued(emulator: Emulator) -> None:
    source = """
client = client.with_options(max_concurrency=1)
stream = client.stream("раз два три")
next(stream)
waiting = threading.Thread(target=use, daemon=True)
waiting.start()
ended_well(fork(refused))
assert stream.finish().text == "раз два три"
waiting.join()
ended_well(fork(use))
use()
print("well")
"""
    check_program(FORK + SYNC_USE + REFUSED + source, emulator)


def test_fork_after_use_of_the_stubs(emulator: Emulator) -> None:
    source = """
request = yandexgpt.load_request({
    "modelUri": "gpt://f/yandexgpt", "completionOptions": {}, "messages": [{"role": "user", "text": "раз"}]
})
def use():
    (answer,) = client.raw.text_generation.Completion(request, timeout=10.0)
    assert answer.alternatives[0].message.text == "раз"
use()
for _ in range(5):
    ended_well(fork(use, bare=False))
    use()
print("well")
"""
    check_program(FORK + SYNC_USE + source, emulator)


def test_fork_after_use_of_the_async_stubs(emulator: Emulator) -> None:
    source = """
request = yandexgpt.load_request({
    "modelUri": "gpt://f/yandexgpt", "completionOptions": {}, "messages": [{"role": "user", "text": "раз"}]
})
async def raw():
    async for answer in client.raw.text_generation.Completion(request, timeout=10.0):
        assert answer.alternatives[0].message.text == "раз"
def use():
    asyncio.run(raw())
use()
for _ in range(5):
    ended_well(fork(use))
    use()
print("well")
"""
    check_program(FORK + ASYNC_USE + source, emulator)


def test_fork_inside_a_running_loop(emulator: Emulator) -> None:
    source = """
sync_client = yandexgpt.Client(timeout=10.0)
def in_child():
    assert sync_client.complete("раз").text == "раз"
async def outer():
    await main()
    for _ in range(5):
        ended_well(fork(in_child))
        await main()
sync_client.complete("раз")
asyncio.run(outer())
print("well")
"""
    check_program(FORK + ASYNC_USE + source, emulator)


def test_pool_workers_use_the_inherited_client(emulator: Emulator) -> None:
    source = """
import multiprocessing
import yandexgpt
client = yandexgpt.Client(timeout=10.0)
def use(number):
    return client.complete(f"вызов {number}").text
use(0)
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert pool.map(use, range(30)) == [f"вызов {number}" for number in range(30)]
    use(0)
print("well")
"""
    check_program(source, emulator)


# Loops


async def once(client: yandexgpt.AsyncClient, text: str) -> list[str]:
    async with client.stream(text) as stream:
        pieces = [piece async for piece in stream.text()]
    return [(await client.complete(text)).text, "".join(pieces)]


def test_client_works_in_several_loops_in_sequence(emulator: Emulator) -> None:
    client = emulator.async_client()
    for number in range(5):
        assert asyncio.run(once(client, f"раз {number}")) == [f"раз {number}"] * 2
    peers = [request.peer for request in emulator.requests]
    assert len(set(peers)) == 5
    asyncio.run(client.close())
    with pytest.raises(yandexgpt.ConfigurationError, match="closed"):
        asyncio.run(once(client, "раз"))


def test_client_can_be_closed_in_another_loop(emulator: Emulator) -> None:
    client = emulator.async_client()
    asyncio.run(once(client, "раз"))

    async def main() -> None:
        async with client:
            await once(client, "два")

    asyncio.run(main())
    asyncio.run(client.close())


def test_queued_calls_of_an_ended_loop_leave_the_queue(emulator: Emulator) -> None:
    source = """
import asyncio, yandexgpt
client = yandexgpt.AsyncClient(max_concurrency=1, timeout=10.0)
kept = []
async def leaves_a_stream_open():
    kept.append(stream := client.stream("раз два"))
    await anext(stream)
    kept.append(asyncio.create_task(client.complete("два")))
    await asyncio.sleep(0)
asyncio.run(leaves_a_stream_open())
async def uses():
    assert (await client.complete("три")).text == "три"
asyncio.run(uses())
print("well")
"""
    code, out, _ = output_of(program(source, emulator))
    assert (code, out) == (0, "well\n")
    assert [request.message.messages[0].text for request in emulator.requests] == ["раз два", "три"]


MANY_LOOPS = """
import asyncio, gc, os, time, weakref
import yandexgpt
client = yandexgpt.AsyncClient(timeout=10.0)
loops = []
async def main():
    loops.append(weakref.ref(asyncio.get_running_loop()))
    await client.complete("раз")
    async with client.stream("раз два") as stream:
        await anext(stream)
def files():
    gc.collect()
    return len(os.listdir("/dev/fd"))
"""


def test_ended_loops_leave_no_connection(emulator: Emulator) -> None:
    source = """
for _ in range(3):
    asyncio.run(main())
before = files()
for _ in range(20):
    asyncio.run(main())
end = time.monotonic() + 15.0
while files() > before + 3 and time.monotonic() < end:
    time.sleep(0.01)
print(files() <= before + 3)
"""
    code, out, _ = output_of(program(MANY_LOOPS + source, emulator))
    assert (code, out) == (0, "True\n")


def test_loop_that_ends_after_a_cancellation_does_not_affect_the_next(emulator: Emulator) -> None:
    source = """
for _ in range(60):
    asyncio.run(main())
asyncio.run(client.close())
print("well")
"""
    assert output_of(program(MANY_LOOPS + source, emulator)) == (0, "well\n", "")


def test_several_loops_in_several_threads(emulator: Emulator) -> None:
    client = emulator.async_client()
    loop_errors: list[Any] = []

    def run(number: int) -> list[list[str]]:
        async def main() -> list[list[str]]:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
            return await asyncio.gather(*(once(client, f"поток {number} вызов {each}") for each in range(10)))

        return [answer for _ in range(3) for answer in asyncio.run(main())]

    answers = in_threads(4, run)
    assert answers == [[[f"поток {n} вызов {each}"] * 2 for _ in range(3) for each in range(10)] for n in range(4)]
    assert unexpected(loop_errors) == []
    asyncio.run(client.close())


def test_max_concurrency_applies_across_loops(emulator: Emulator) -> None:
    client = emulator.async_client(max_concurrency=2)
    in_threads(4, lambda number: asyncio.run(_many(client, number)))
    assert emulator.peak_in_flight <= 2
    assert len(emulator.requests) == 40


async def _many(client: yandexgpt.AsyncClient, number: int) -> None:
    answers = await asyncio.gather(*(client.complete(f"{number} {each}") for each in range(10)))
    assert [answer.text for answer in answers] == [f"{number} {each}" for each in range(10)]


def test_client_close_cancels_its_calls_in_every_loop(emulator: Emulator) -> None:
    client = emulator.async_client()
    emulator.fail("UNAVAILABLE", after=1, delay=3600.0, times=3)
    errors: list[Any] = []

    def run() -> None:
        async def main() -> None:
            try:
                await client.stream("раз два").finish()
            except yandexgpt.CancelledError as error:
                errors.append(error)

        run_loop(main)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    emulator.wait_for_requests(3)
    until(lambda: all(request.sent for request in emulator.requests))
    asyncio.run(client.close())
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert len(errors) == 3
    assert [request.wait() for request in emulator.requests] == ["CANCELLED"] * 3


# Threads

# A fault for one call also breaks the connection of other calls.
OVERLOOKED = {"DEADLINE_EXCEEDED"} if OVERLOOKS_RESETS else set()
CODES = ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND", "CANCELLED"]
FAULTS = [
    Fault("break", after="request"),
    Fault("break", after=1, seconds=0.1),
    Fault("break", after="last", fin=True),
    Fault("reset", after="request", code=ErrorCode.REFUSED_STREAM),
    Fault("reset", after=1, seconds=0.1, code=ErrorCode.INTERNAL_ERROR),
    Fault("goaway", after="request", close=True),
    Fault("delay", after=0, seconds=0.02),
]


@pytest.mark.slow
def test_eight_threads_share_a_client_through_two_thousand_calls_with_faults(factory: ClientFactory) -> None:
    chance = random.Random(20261120)
    outcomes: Counter[str] = Counter()
    with Emulator() as emulator, FaultProxy(upstream=emulator.endpoint) as proxy:
        client = factory.client(emulator, endpoint=proxy.endpoint, retry=Retry(initial=0.01, maximum=0.05, budget=None))

        def work(thread: int) -> None:
            for number in range(250):
                text = f"поток {thread} вызов {number} из многих"
                dice = chance.random()
                if dice < 0.1:
                    emulator.fail(chance.choice(CODES), after=chance.choice([0, 0, 2]), times=chance.choice([1, 3]))
                elif dice < 0.13:
                    proxy.inject(chance.choice(FAULTS))
                outcomes[one_call(client, text, streamed=number % 2 == 1)] += 1

        in_threads(8, work)
        client.close()
        assert sum(outcomes.values()) == 2000
        assert outcomes["answered"] > 1000
        assert len(outcomes) > 3
        until(lambda: emulator.in_flight == 0)
    print(factory.kind, dict(outcomes))


def one_call(client: Any, text: str, *, streamed: bool) -> str:
    shown = ""
    try:
        if streamed:
            with client.stream(text, timeout=10.0) as stream:
                for chunk in stream:
                    shown = shown[: chunk.keep] + chunk.delta
                completion = stream.completion
            assert shown == completion.text
        else:
            completion = client.complete(text, timeout=10.0)
    except yandexgpt.APIError as error:
        failure = error
    else:
        assert completion.text == text
        return "answered"
    assert failure.code.name in {*CODES, "UNKNOWN", *OVERLOOKED}
    assert failure.request_id
    assert 1 <= failure.attempts <= 4
    assert text.startswith(shown)
    if shown:
        assert failure.partial is not None
        assert failure.partial.text == shown
    else:
        assert failure.partial is None or text.startswith(failure.partial.text)
    return failure.code.name


# More streams than one connection allows


@pytest.mark.slow
def test_250_streams_on_connections_limited_to_100_streams(factory: ClientFactory, gate: threading.Event) -> None:
    with Emulator(max_concurrent_streams=100) as emulator:
        client = factory.client(emulator, retry=Retry.none())
        partials = ["раз", "раз два", "раз два три"]
        emulator.reply("раз два три четыре", partials=partials, delay=0.25, times=250)
        client.connect()
        started = time.monotonic()
        streams = Background(in_threads, 250, lambda _: [chunk.text for chunk in client.stream("Привет")])
        until(lambda: emulator.in_flight == 250)
        gate.set()
        answers = streams.result()
        print(f"{factory.kind}: 250 one-second streams in {time.monotonic() - started:.2f} s")
        assert answers == [[*partials, "раз два три четыре"]] * 250
        assert emulator.peak_in_flight == 250
        each = STREAMS_PER_CHANNEL
        expected = Counter({each: 250 // each, 250 % each: 1} if 250 % each else {each: 250 // each})
        assert Counter(Counter(request.peer for request in emulator.requests).values()) == expected


def test_connections_opened_for_a_burst_are_reused(factory: ClientFactory, gate: threading.Event) -> None:
    with Emulator(max_concurrent_streams=100) as emulator:
        client = factory.client(
            emulator
        )  # with retries: a server may refuse a stream until it has removed an ended one
        for _ in range(3):
            gate.clear()
            emulator.reply("раз", times=130)
            answers = Background(in_threads, 130, lambda _: client.complete("Привет").text)
            until(lambda: emulator.in_flight == 130)
            gate.set()
            assert answers.result() == ["раз"] * 130
        assert len({request.peer for request in emulator.requests}) == math.ceil(130 / STREAMS_PER_CHANNEL)


@pytest.mark.parametrize(
    "use", [lambda client: client.complete("Привет").text, lambda client: "".join(client.stream("Привет").text())]
)
def test_no_call_is_queued_with_a_limit_of_10_streams_per_connection(
    factory: ClientFactory, gate: threading.Event, use: Any
) -> None:
    with Emulator(max_concurrent_streams=10) as emulator:
        client = factory.client(emulator, retry=Retry.none())
        emulator.reply("раз", times=50)
        answers = Background(in_threads, 50, lambda _: use(client))
        until(lambda: emulator.in_flight == 50)
        gate.set()
        assert answers.result() == ["раз"] * 50


def test_250_streams_in_one_loop() -> None:
    async def main(emulator: Emulator) -> list[str]:
        async with emulator.async_client(retry=Retry.none()) as client:
            return [
                completion.text
                for completion in await asyncio.gather(*(client.stream("Привет").finish() for _ in range(250)))
            ]

    with Emulator(max_concurrent_streams=100) as emulator:
        emulator.reply("раз два три", partials=["раз", "раз два"], delay=0.33, times=250)
        started = time.monotonic()
        assert asyncio.run(main(emulator)) == ["раз два три"] * 250
        print(f"one loop: 250 one-second streams in {time.monotonic() - started:.2f} s")
        assert len({request.peer for request in emulator.requests}) == math.ceil(250 / STREAMS_PER_CHANNEL)


@pytest.mark.xfail(
    sys.version_info < (3, 11), reason="gRPC keeps the calls alive: docs/deployment.md, Known limits", strict=True
)
def test_fork_after_loops_were_closed_during_streams(emulator: Emulator) -> None:
    source = (
        FORK
        + """
import yandexgpt
client = yandexgpt.AsyncClient(timeout=10.0)
kept = []
async def half():
    kept.append(client.stream("раз два три"))
    await anext(kept[-1])
for _ in range(3):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(half())
    loop.close()
async def use():
    assert (await client.complete("раз")).text == "раз"
ended_well(fork(lambda: asyncio.run(use())))
asyncio.run(use())
"""
    )
    code, _, err = output_of(program(source, emulator))
    assert code == 0, err


@pytest.mark.parametrize("kept", ["results", "results of a closed client"])
def test_fork_after_a_finished_batch_whose_results_are_kept(emulator: Emulator, kept: str) -> None:
    source = (
        FORK
        + """
import yandexgpt
client = yandexgpt.Client(timeout=10.0)
with client.complete_many(["раз", "два"]) as results:
    assert [result.completion.text for result in results] == ["раз", "два"]
if sys.argv[1] != "results":
    client.close()
def use():
    client = yandexgpt.Client(timeout=10.0)
    assert [result.completion.text for result in client.complete_many(["раз"] * 4)] == ["раз"] * 4
async def use_async():
    assert (await yandexgpt.AsyncClient(timeout=10.0).complete("раз")).text == "раз"
ended_well(fork(use))
ended_well(fork(lambda: asyncio.run(use_async())))
use()
"""
    )
    code, _, err = output_of(program(source, emulator, kept))
    assert code == 0, err


@pytest.mark.parametrize("kind", ["stream", "latest", "many"])
def test_close_after_the_event_loop_was_closed_is_silent(emulator: Emulator, kind: str) -> None:
    source = """
import asyncio, sys, yandexgpt
client = yandexgpt.AsyncClient(timeout=10.0)
OPEN = {
    "stream": lambda: client.stream("раз два три"),
    "latest": lambda: client.stream("раз два три", latest=True),
    "many": lambda: client.complete_many(["раз"] * 6, concurrency=2),
}
async def begin():
    opened = OPEN[sys.argv[1]]()
    await anext(opened)
    return opened
loop = asyncio.new_event_loop()
opened = loop.run_until_complete(begin())
loop.close()
async def close():
    await opened.close()
    assert (await client.complete("раз")).text == "раз"
    await client.close()
asyncio.run(close())
"""
    code, _, err = output_of(program(source, emulator, kind))
    assert code == 0, err
