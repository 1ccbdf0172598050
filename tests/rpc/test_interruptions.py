"""Garbage collection, signal handlers, Ctrl-C and other threads at any time: nothing hangs, nothing is lost, and the
reader of a closed stream gets an error."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from typing import Any

import pytest
from driver import FAST, FOREVER, PATIENCE, Background, run_loop, stall_after
from programs import run

import yandexgpt
from yandexgpt.emulator import Emulator

# Garbage collection

COLLECTED = """
class Gone(Exception):
    pass

BEGIN = {
    "stream": lambda client: client.stream("раз два три"),
    "latest": lambda client: client.stream("раз два три", latest=True),
    "many": lambda client: client.complete_many(["раз", "два", "три"], concurrency=2),
    "chat": lambda client: client.chat().stream("раз два три"),
}

def drop(client):
    "Leave a partly read object in a reference cycle: the error refers to this frame, and the frame to the error."
    try:
        iterator = BEGIN[sys.argv[2]](client)
        for _ in iterator:
            raise Gone
    except Gone as error:
        kept = error

def complete(client):
    assert client.complete("раз два").text == "раз два"

def stream(client):
    with client.stream("раз два") as stream:
        assert stream.finish().text == "раз два"

def half(client):
    with client.stream("раз два") as stream:
        next(stream)

def many(client):
    assert [result.completion.text for result in client.complete_many(["раз", "два"])] == ["раз", "два"]

def close(client):
    other = client.with_options(metadata=[("x-other", "1")])
    other.complete("раз")
    other.close()
    with yandexgpt.Client() as another:
        another.complete("раз")

collections = 0

def note(phase, info):
    global collections
    collections += phase == "start"

gc.callbacks.append(note)
client = yandexgpt.Client(timeout=20.0, max_concurrency=int(sys.argv[4]))
moments = 0
slowest = 0.0
for probe in (complete, stream, half, many, close):
    step = int(sys.argv[3])
    for n in range(random.randint(1, step), 10_000, step):
        gc.collect()
        gc.disable()
        drop(client)
        gc.set_threshold(gc.get_count()[0] + n)  # the collection runs at the n-th allocation from here
        collections = 0
        began = time.monotonic()
        gc.enable()
        probe(client)
        gc.disable()
        slowest = max(slowest, time.monotonic() - began)
        if not collections:
            break
        moments += 1
gc.collect()
until_quiet()
print(moments, slowest)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["2", "8"])
@pytest.mark.parametrize("kind", ["stream", "latest", "many", "chat"])
def test_garbage_collection_at_any_allocation_finalizes_partly_read_streams(
    emulator: Emulator, kind: str, limit: str
) -> None:
    moments, slowest = run(COLLECTED, emulator, kind, "5", limit, limit=100.0).split()
    assert int(moments) > 50
    assert float(slowest) < 5.0


CYCLES = """
class Gone(Exception):
    pass

def left(client):
    stream = client.stream("раз два три")
    try:
        for chunk in stream:
            raise Gone
    except Gone as error:
        kept = error
    assert client.complete("hi").text == "hi"

gc.set_threshold(1)
client = yandexgpt.Client()
for _ in range(300):
    left(client)
"""


@pytest.mark.slow
def test_partly_read_streams_in_reference_cycles_do_not_affect_later_calls(emulator: Emulator) -> None:
    run(CYCLES, emulator)
    run(CYCLES.replace("gc.set_threshold(1)", ""), emulator)


# Signal handlers

HANDLED = """
PACKAGE = os.path.dirname(yandexgpt.__file__) + os.sep

class AtLine:
    "Runs a signal handler before the n-th line of the package that the main thread runs."

    def __init__(self, n, handler):
        self.n, self.handler, self.lines, self.where = n, handler, 0, None

    def __call__(self, frame, event, argument):
        return self.line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def line(self, frame, event, argument):
        if event == "line":
            self.lines += 1
            if self.lines == self.n:
                self.where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
                self.handler(signal.SIGUSR1, frame)
        return self.line

def complete(now):
    now.client.complete("раз два")

def stream(now):
    with now.client.stream("раз два") as now.stream:
        for _ in now.stream:
            pass

def half(now):
    with now.client.chat().stream("раз два три") as now.stream:
        next(now.stream, None)

def latest(now):
    with now.client.stream("раз два три", latest=True) as now.stream:
        for _ in now.stream:
            pass

def many(now):
    with now.client.complete_many(["раз", "два", "три"], concurrency=2) as now.results:
        for _ in now.results:
            pass

class Now:
    "A client, the object that is read, and partly read objects of other readers."

    def __init__(self):
        self.client = yandexgpt.Client(timeout=20.0, max_concurrency=8)
        self.others = []
        self.stream = self.results = None
        if sys.argv[2] in ("stream.close", "collect"):
            self.others.append(self.client.stream("раз два три"))
        if sys.argv[2] == "results.close":
            self.others.append(self.client.complete_many(["раз", "два", "три"], concurrency=1))
        for other in self.others:
            next(other)

    def handler(self, number, frame):
        if sys.argv[2] == "client.close":
            self.client.close()
        elif sys.argv[2] == "client.complete":
            assert self.client.complete("вдруг").text == "вдруг"
        elif sys.argv[2] == "collect":
            self.others.append(self.others)
            del self.others
            gc.collect()
        elif sys.argv[2] == "raise":
            raise KeyboardInterrupt
        else:
            for each in (self.stream, self.results, *self.others):
                if each is not None:
                    each.close()

def run(scenario, n):
    "Return the number of lines, and the line where the handler ran."
    now = Now()
    at = AtLine(n, now.handler)
    try:
        sys.settrace(at)
        try:
            scenario(now)
        finally:
            sys.settrace(None)
    except (errors.YandexGPTError, KeyboardInterrupt, StopIteration) as error:
        # An object closed by the handler raises, or ends, since its reader closed it. No other error is allowed.
        closed = (errors.CancelledError, errors.ConfigurationError, StopIteration)
        expected = {"raise": KeyboardInterrupt}.get(sys.argv[2], closed)
        assert isinstance(error, expected), (at.where, error)
        assert sys.argv[2] not in ("collect", "client.complete"), (at.where, error)
    now.client.close()
    return at.lines, at.where

gc.disable()
ran = set()
for scenario in (complete, stream, half, latest, many):
    run(scenario, 0)  # lines that only the first call runs are not counted
    lines = run(scenario, 0)[0]
    step = max(1, lines // int(sys.argv[3]))
    for n in range(1 + random.randrange(step), lines + 1, step):
        ran.add((scenario.__name__, run(scenario, n)[1]))
        if len(ran) % 50 == 0:
            gc.collect()
            with yandexgpt.Client(timeout=20.0) as fresh:
                assert fresh.complete("раз").text == "раз"
gc.collect()
until_quiet()
print(len(ran))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "handler", ["client.close", "stream.close", "results.close", "client.complete", "collect", "raise"]
)
def test_signal_handler_at_any_line(emulator: Emulator, handler: str) -> None:
    silent = handler != "raise"  # an object interrupted in its constructor may warn that it was not closed
    lines = "15" if handler == "results.close" else "40"  # lines per scenario; batches are slow
    assert int(run(HANDLED, emulator, handler, lines, limit=100.0, silent=silent)) > 50


# Ctrl-C

INTERRUPTED = """
client = yandexgpt.Client(max_concurrency=2, timeout=20.0, retry=yandexgpt.Retry(attempts=1))
armed = False

def ring(number, frame):
    if not armed:
        return
    # If gRPC is interrupted exactly here, its lock stays held and blocks other threads, with its own stubs too.
    if not (frame.f_code in LOCKING and "/grpc/" in frame.f_back.f_code.co_filename):
        raise KeyboardInterrupt

LOCKING = (threading.Condition.__enter__.__code__, threading.Condition.__exit__.__code__)

def complete():
    client.complete("раз два")

def stream():
    with client.stream("раз два") as stream:
        stream.finish()

def half():
    with client.stream("раз два") as stream:
        next(stream)

def dropped():
    next(client.stream("раз два"))

def many():
    with client.complete_many(["раз", "два", "три"], concurrency=2) as results:
        next(results)

def waiting():
    "Queued behind two other calls."
    with client.stream("раз два") as first, client.stream("раз два") as second:
        next(first)
        next(second)
        try:
            client.complete("раз", timeout=0.002)
        except errors.DeadlineExceededError:
            pass

signal.signal(signal.SIGALRM, ring)
# No other thread uses the client meanwhile: an interrupt inside gRPC may leave a lock of the channel held, which blocks
# all threads except the interrupted one.
interrupts = 0
for use in (complete, stream, half, dropped, many, waiting):
    took = []
    for _ in range(20):
        began = time.perf_counter()
        use()
        took.append(time.perf_counter() - began)
    usual = sorted(took)[10]
    for _ in range(int(sys.argv[2]) // (4 if use is many else 1)):
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1.2 * usual))
            use()
            armed = False
        except KeyboardInterrupt:
            interrupts += 1
        armed = False
gc.collect()
until_quiet()

# The limiter still has all its slots.
both = threading.Barrier(2, timeout=10.0)
failures = []

def hold():
    try:
        with client.stream("раз два три", timeout=10.0) as stream:
            next(stream)
            both.wait()
            try:  # and no more
                client.complete("третий", timeout=0.2)
            except errors.DeadlineExceededError:
                pass
            else:
                failures.append("one slot too many")
            both.wait()
    except Exception as error:
        failures.append(error)

threads = [threading.Thread(target=hold) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
until_quiet()
in_child(complete)
client.close()
print(interrupts)
"""


@pytest.mark.slow
def test_ctrl_c_at_any_time_loses_no_slot_and_leaves_no_call(emulator: Emulator) -> None:
    assert int(run(INTERRUPTED, emulator, "400", limit=150.0, silent=False)) > 500


STARTED = """
def ring(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, ring)
client = yandexgpt.Client(timeout=None)
for _ in range(int(sys.argv[2])):
    try:
        # Repeated, because an exception in a finalizer is ignored.
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 0.002), 1.0)
        client.complete("раз")
    except KeyboardInterrupt:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
gc.collect()
until_quiet()
"""


@pytest.mark.slow
def test_ctrl_c_at_the_start_of_a_call_leaves_no_call_at_the_server(emulator: Emulator) -> None:
    """At bae2c99, one of fifteen calls stayed active: gRPC had started it, and the client could not cancel it."""
    emulator.fail("UNAVAILABLE", delay=FOREVER, times=1000)
    run(STARTED, emulator, "150", limit=100.0, silent=False)


NEWEST = """
class AtLine:
    "Raises before the n-th line of the package that the main thread runs."

    def __init__(self, n):
        self.n = n

    def __call__(self, frame, event, argument):
        return self.line if os.path.dirname(yandexgpt.__file__) in frame.f_code.co_filename else None

    def line(self, frame, event, argument):
        if event == "line":
            self.n -= 1
            if self.n == 0:
                raise KeyboardInterrupt
        return self.line

def read():
    with client.stream("раз два три", latest=True, timeout=None) as stream:
        next(stream)

client = yandexgpt.Client(max_concurrency=2)
at = AtLine(0)
for n in range(1, 10_000, 4):
    at = AtLine(n)
    try:
        sys.settrace(at)
        read()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    if at.n > 0:
        break
gc.collect()
until_quiet()
print(n, sum(thread.name == "yandexgpt-latest" for thread in threading.enumerate()))
"""


def test_ctrl_c_at_any_line_leaves_no_reading_thread(emulator: Emulator) -> None:
    """At bae2c99, one of fourteen interrupts left a thread, during the close of a stream."""
    stall_after(emulator, 1, times=1000)
    lines, left = run(NEWEST, emulator, limit=100.0, silent=False).split()
    assert int(lines) > 100
    assert left == "0"


# Other threads and tasks

READ = ["stream", "text", "latest", "chat", "many", "many, unordered"]
PROMPTS = [f"вопрос {n}" for n in range(50)]


def opened(client: Any, kind: str) -> tuple[Any, Any]:
    """The iterator to read, and the object to close."""
    if kind.startswith("many"):
        results = client.complete_many(PROMPTS, concurrency=2, ordered=kind == "many")
        return results, results
    if kind == "chat":
        stream = client.chat().stream("раз два три")
    else:
        stream = client.stream("раз два три", latest=kind == "latest")
    return (stream.text() if kind == "text" else stream), stream


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("closed", ["itself", "client"])
def test_close_by_another_thread_between_reads_raises_in_the_reader(emulator: Emulator, kind: str, closed: str) -> None:
    if not kind.startswith("many"):
        stall_after(emulator, 1)
    with emulator.client() as client:
        reader, closer = opened(client, kind)
        next(reader)
        Background(client.close if closed == "client" else closer.close).result()
        with pytest.raises(yandexgpt.CancelledError):
            for _ in reader:
                pass


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("closed", ["itself", "client"])
@pytest.mark.parametrize("limited", [False, True], ids=["", "wait_for"])
def test_close_by_another_task_between_reads_raises_in_the_reader(
    emulator: Emulator, kind: str, closed: str, limited: bool
) -> None:
    """Before Python 3.12, ``asyncio.wait_for`` makes a task for each step."""
    if not kind.startswith("many"):
        stall_after(emulator, 1)

    async def main() -> None:
        async with emulator.async_client() as client:
            reader, closer = opened(client, kind)
            started, gone = asyncio.Event(), asyncio.Event()

            async def step() -> Any:
                return await (asyncio.wait_for(anext(reader), PATIENCE) if limited else anext(reader))

            async def read() -> None:
                await step()
                started.set()
                await gone.wait()
                while True:
                    await step()

            reading = asyncio.create_task(read())
            await started.wait()
            await asyncio.create_task(client.close() if closed == "client" else closer.close())
            gone.set()
            with pytest.raises(yandexgpt.CancelledError):
                await reading

    run_loop(main)


@pytest.mark.parametrize("kind", READ)
def test_close_by_the_reading_task_ends_the_iteration(emulator: Emulator, kind: str) -> None:
    async def main() -> None:
        async with emulator.async_client() as client:
            reader, closer = opened(client, kind)
            await anext(reader)
            await closer.close()
            assert [each async for each in reader] == []

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["stream", "text", "latest", "chat", "many"])
def test_close_by_another_thread_during_reads_raises_or_ends(emulator: Emulator, kind: str) -> None:
    with emulator.client() as client:
        client.complete("раз")
        for n in range(10 if kind == "many" else 150):
            reader, closer = opened(client, kind)
            next(reader)
            closing = threading.Timer(n % 10 * 0.0001, closer.close)
            closing.start()
            with contextlib.suppress(yandexgpt.CancelledError):  # or the stream has ended
                for _ in reader:
                    pass
            closing.join()


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kind", READ)
def test_close_in_another_loop_between_reads_ends_at_once(emulator: Emulator, kind: str, debug: bool) -> None:
    async def main() -> None:
        async with emulator.async_client() as client:
            reader, closer = opened(client, kind)
            await anext(reader)
            closing = Background(lambda: asyncio.run(closer.close(), debug=debug))
            await asyncio.to_thread(closing.result)
            with pytest.raises(yandexgpt.CancelledError):
                async for _ in reader:
                    pass

    run_loop(main)


def test_close_in_another_loop_wakes_the_reader_of_results(emulator: Emulator) -> None:
    opened_results: list[Any] = []
    read_one = threading.Event()

    async def prompts() -> Any:
        yield "раз"
        await asyncio.Event().wait()

    async def read() -> None:
        async with emulator.async_client() as client:
            opened_results.append(client.complete_many(prompts()))
            await anext(opened_results[0])
            asyncio.get_running_loop().call_soon(read_one.set)  # runs when the next read waits
            with pytest.raises(yandexgpt.CancelledError):
                await anext(opened_results[0])

    reader = Background(lambda: asyncio.run(read()))
    assert read_one.wait(PATIENCE)
    asyncio.run(opened_results[0].close())
    reader.result(PATIENCE)


def test_interrupt_at_the_end_of_a_retried_call_releases_its_slot(emulator: Emulator) -> None:
    def interrupt(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name == "release" and frame.f_code.co_filename.endswith("limiter.py"):
            sys.settrace(None)
            raise KeyboardInterrupt

    with emulator.client(max_concurrency=1, timeout=PATIENCE, retry=FAST) as client:
        emulator.fail("UNAVAILABLE")
        gc.disable()
        try:
            sys.settrace(interrupt)
            with pytest.raises(KeyboardInterrupt):
                client.complete("раз")
            assert client.complete("два", timeout=5.0).text == "два"
        finally:
            sys.settrace(None)
            gc.enable()
