"""Makes calls of all kinds for a long time, against a service that fails at random, and checks that nothing leaks.

    python scripts/soak.py [--seconds N] [--seed N] [--only NAMES] [--calm]

One process makes calls of all kinds with both clients, from threads, tasks and short-lived event loops: whole answers;
streams that are read to the end, left early, dropped, or closed by another thread or task; cancelled tasks; tools,
``complete_many``, chats and operations; clients that are opened and closed. The emulator runs in a separate process. It
and a proxy in front of it refuse and break connections, end streams with errors, stall, and delay data. At regular
intervals the faults are turned off, all calls end, and figures are taken. The exit code is 1

- if at the end a figure is not as it was after the warm-up: memory, threads, descriptors, sockets, calls in flight at
  the emulator, free slots of ``max_concurrency``;
- if a call hung, an answer was wrong, or an undocumented exception was raised.

Linux only: the figures are read from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import json
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc

import yandexgpt
from yandexgpt import errors

TIMEOUT = 2.0  # timeout of a call in seconds
PLACES = 3  # max_concurrency of each client
THREADS, TASKS = 4, 6  # number of threads and tasks that make calls
BETWEEN_LOOPS = 0.5  # average seconds between two short-lived event loops
ABANDONED = 0.2  # the share of short-lived event loops that are closed in the middle of a stream
HANGS = 30.0  # seconds after which a call counts as hung
SETTLES = 10.0  # seconds within which sockets must be closed and calls must have ended at the emulator
WARM_UP = 0.2  # the share of the time before the memory is compared
GROWN_MB = 8.0  # maximum growth of the memory from then to the end
LOOP_BYTES = 6000  # that grpc.aio keeps for each event loop that has used it, while any of its channels is open
CANCELLED_BYTES = 1500  # that grpc.aio leaks, on average, if a task is cancelled during a call
MORE = 3  # additional threads and descriptors allowed at the end, because gRPC's thread pools vary
WINDOWS = 20  # the number of times that figures are taken
RETRY = yandexgpt.Retry(attempts=3, initial=0.02, maximum=0.1)
WORDS = ("озеро", "река", "море", "остров", "гора", "лес", "поле", "берег")


# The service


def emulate() -> None:
    """The emulator's process: prints its address, then answers each line of standard input with its figures."""
    from yandexgpt.emulator import Emulator, FaultProxy

    with Emulator(delay=0.002, operation_time=0.02) as emulator, FaultProxy(emulator.endpoint) as proxy:
        print(json.dumps({"endpoint": proxy.endpoint}), flush=True)
        bad, lock = threading.Event(), threading.Lock()

        def calm() -> None:
            proxy.clear()
            emulator.clear()

        def torment() -> None:
            while bad.wait():
                with lock:
                    if bad.is_set():
                        calm()
                        for fault in random.choices(faults(emulator, proxy), k=random.randrange(4)):
                            fault()
                time.sleep(random.uniform(0.05, 0.3))

        threading.Thread(target=torment, daemon=True).start()
        for line in sys.stdin:
            with lock:
                if line == "bad\n":
                    bad.set()
                elif line == "good\n":
                    bad.clear()
                    calm()
            figures = {"in_flight": emulator.in_flight, "faults": len(proxy.faults_played)}
            print(json.dumps(figures), flush=True)


def faults(emulator: Any, proxy: Any) -> list[Callable[[], None]]:
    """The faults that may be played in the next calls."""
    from yandexgpt.emulator import ErrorCode, Fault

    statuses: list[dict[str, Any]] = [
        {"code": "UNAVAILABLE"},
        {"code": "UNAVAILABLE", "times": 4},
        {"code": "UNAVAILABLE", "after": 1},
        {"code": "INTERNAL", "after": 2},
        {"code": "RESOURCE_EXHAUSTED", "retry_after": 0.02},
        {"code": "UNAUTHENTICATED"},
        {"code": "UNAVAILABLE", "after": 1, "delay": 5.0},  # a stalled stream
        {"code": "UNAVAILABLE", "delay": 0.3},
    ]
    wire = [
        Fault("break"),
        Fault("break", 1),
        Fault("break", 2, fin=True),
        Fault("break", "connect"),
        Fault("reset", 1, code=ErrorCode.INTERNAL_ERROR),
        Fault("reset", code=ErrorCode.REFUSED_STREAM),
        Fault("goaway"),
        Fault("goaway", 1, close=True),
        Fault("stall"),
        Fault("stall", 1),
        Fault("delay", 1, seconds=0.2),
        Fault("drip", seconds=0.002, size=32),
        Fault("refuse", seconds=0.05),
    ]
    return [
        *(partial(emulator.fail, **status) for status in statuses),
        *(partial(proxy.inject, fault) for fault in wire),
    ]


class Service:
    """The emulator's process, for the process of the clients."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout
        self.endpoint: str = json.loads(process.stdout.readline())["endpoint"]

    def tell(self, word: str) -> dict[str, int]:
        """Turn the faults on ("bad") or off ("good"), or neither (""); return the figures of the emulator."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        figures: dict[str, int] = json.loads(self._process.stdout.readline())
        return figures


@contextmanager
def service(seed: int) -> Iterator[Service]:
    """Run the emulator in a separate process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--emulate", "--seed", str(seed)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Service(process)
    finally:
        process.kill()
        process.communicate()


# The actions


def question() -> str:
    """A prompt. Its answer is the same text, word by word."""
    return " ".join(random.choices(WORDS, k=random.randint(2, 8)))


def right(answer: str, text: str) -> None:
    """Check that an answer is the whole answer of its own call."""
    if answer != text:
        raise AssertionError(f"asked {text!r}, answered {answer!r}")


@yandexgpt.tool(name="depth", description="how deep", parameters={"type": "object", "properties": {}})
def depth() -> str:
    """A function that the model may call."""
    return "1642"


def soon(function: Callable[[], Any]) -> threading.Thread:
    """Call a function in another thread, after a short random time."""
    thread = threading.Timer(random.uniform(0, 0.02), function)
    thread.start()
    return thread


class Sync:
    """The actions of threads with a ``Client``."""

    def __init__(self, endpoint: str) -> None:
        self._options = options(endpoint)
        self.client = yandexgpt.Client(**self._options)

    def complete(self) -> None:
        text = question()
        right(self.client.complete(text).text, text)

    def whole(self) -> None:
        text = question()
        with self.client.stream(text) as stream:
            right(stream.finish().text, text)

    def pieces(self) -> None:
        text = question()
        right("".join(self.client.stream(text).text()), text)

    def left(self) -> None:
        with self.client.stream(question()) as stream:
            next(stream)

    def dropped(self) -> None:
        for _ in self.client.stream(question()):
            break

    def in_a_cycle(self) -> None:
        try:
            stream = self.client.stream(question())
            for _ in stream:
                raise KeyError
        except KeyError as error:
            kept = error  # noqa: F841  (it makes a reference cycle with this frame)

    def latest(self) -> None:
        text = question()
        right(self.client.stream(text, latest=True).finish().text, text)

    def latest_left(self) -> None:
        with self.client.stream(question(), latest=True) as stream:
            next(stream)

    def closed_by_another(self) -> None:
        stream = self.client.stream(question())
        closer = soon(stream.close)
        with contextlib.suppress(errors.YandexGPTError):
            for _ in stream:
                time.sleep(random.uniform(0, 0.005))
        closer.join()

    def late(self) -> None:
        self.client.complete(question(), timeout=random.uniform(0.0005, 0.02))

    def chat(self) -> None:
        chat = self.client.chat()
        for _ in range(2):
            text = question()
            right(chat.send(text).text, text)
        with chat.stream(question()) as stream:
            next(stream)

    def tools(self) -> None:
        right(self.client.run_tools(question(), [depth], tool_choice="required").text, "1642")

    def many(self) -> None:
        texts = [question() for _ in range(6)]
        for result in self.client.complete_many(texts, concurrency=3, on_error="return"):
            if result.completion is not None:
                right(result.completion.text, texts[result.index])

    def many_left(self) -> None:
        with self.client.complete_many((question() for _ in range(6)), concurrency=2) as results:
            next(results)

    def operation(self) -> None:
        text = question()
        operation = self.client.submit(text)
        if random.random() < 0.5:
            operation.cancel()
        else:
            right(operation.wait(timeout=TIMEOUT).text, text)

    def count(self) -> None:
        self.client.count_tokens(question())

    def another_client(self) -> None:
        client = yandexgpt.Client(**self._options)
        client.complete(question())
        next(client.stream(question()))
        if random.random() < 0.5:
            client.close()

    def client_closed_by_another(self) -> None:
        client = yandexgpt.Client(**self._options)
        closer = soon(client.close)
        with contextlib.suppress(errors.YandexGPTError):
            while True:
                client.complete(question())
        closer.join()


class Async:
    """The actions of tasks with an ``AsyncClient``."""

    def __init__(self, endpoint: str) -> None:
        self._options = options(endpoint)
        self.client = yandexgpt.AsyncClient(**self._options)

    async def complete(self) -> None:
        text = question()
        right((await self.client.complete(text)).text, text)

    async def whole(self) -> None:
        text = question()
        async with self.client.stream(text) as stream:
            right((await stream.finish()).text, text)

    async def pieces(self) -> None:
        text = question()
        right("".join([piece async for piece in self.client.stream(text).text()]), text)

    async def left(self) -> None:
        async with self.client.stream(question()) as stream:
            await anext(stream)

    async def dropped(self) -> None:
        async for _ in self.client.stream(question()):
            break

    async def latest(self) -> None:
        text = question()
        right((await self.client.stream(text, latest=True).finish()).text, text)

    async def latest_left(self) -> None:
        async with self.client.stream(question(), latest=True) as stream:
            await anext(stream)

    async def closed_by_another(self) -> None:
        stream = self.client.stream(question())

        async def close() -> None:
            await asyncio.sleep(random.uniform(0, 0.02))
            await stream.close()

        closer = asyncio.create_task(close())
        with contextlib.suppress(errors.YandexGPTError):
            async for _ in stream:
                await asyncio.sleep(random.uniform(0, 0.005))
        await closer

    async def cancelled(self) -> None:
        work = random.choice((self.complete, self.whole, self.latest, self.many, self.tools, self.operation))
        task = asyncio.create_task(work())
        await asyncio.sleep(random.uniform(0, 0.02))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def late(self) -> None:
        await self.client.complete(question(), timeout=random.uniform(0.0005, 0.02))

    async def chat(self) -> None:
        chat = self.client.chat()
        for _ in range(2):
            text = question()
            right((await chat.send(text)).text, text)
        async with chat.stream(question()) as stream:
            await anext(stream)

    async def tools(self) -> None:
        right((await self.client.run_tools(question(), [depth], tool_choice="required")).text, "1642")

    async def many(self) -> None:
        texts = [question() for _ in range(6)]
        async for result in self.client.complete_many(texts, concurrency=3, on_error="return"):
            if result.completion is not None:
                right(result.completion.text, texts[result.index])

    async def many_left(self) -> None:
        async with self.client.complete_many((question() for _ in range(6)), concurrency=2) as results:
            await anext(results)

    async def operation(self) -> None:
        text = question()
        operation = await self.client.submit(text)
        if random.random() < 0.5:
            await operation.cancel()
        else:
            right((await operation.wait(timeout=TIMEOUT)).text, text)

    async def count(self) -> None:
        await self.client.count_tokens(question())

    async def another_client(self) -> None:
        async with yandexgpt.AsyncClient(**self._options) as client:
            await client.complete(question())
            stream = client.stream(question())
            await anext(stream)


class Roaming:
    """The actions of short-lived event loops with one ``AsyncClient``."""

    def __init__(self, endpoint: str) -> None:
        self.client = yandexgpt.AsyncClient(**options(endpoint))

    def run(self) -> None:
        """Use the client in a new event loop.

        A random time passes before it, because grpc.aio keeps some memory for each loop: see :data:`LOOP_BYTES`.
        """
        time.sleep(random.uniform(0, 2 * BETWEEN_LOOPS))
        if random.random() < ABANDONED:
            self._abandon()
        else:
            asyncio.run(self._complete())

    async def _complete(self) -> None:
        text = question()
        right((await self.client.complete(text)).text, text)

    def _abandon(self) -> None:
        """Close an event loop in the middle of a stream, without ``shutdown_asyncgens``."""
        loop = asyncio.new_event_loop()
        try:
            stream = loop.run_until_complete(self._half())
        finally:
            loop.close()
        del stream

    async def _half(self) -> Any:
        stream = self.client.stream(question())
        await anext(stream)
        return stream


def options(endpoint: str) -> dict[str, Any]:
    """The arguments of the clients."""
    return {
        "folder_id": "b1g",
        "credentials": "a-key",
        "endpoint": endpoint,
        "tls": False,
        "timeout": TIMEOUT,
        "attempt_timeout": TIMEOUT / 2,
        "max_concurrency": PLACES,
        "retry": RETRY,
    }


def deeds(of: Any, only: Sequence[str]) -> list[Callable[[], Any]]:
    """The actions of an object.

    Args:
        of: an instance of one of the classes above.
        only: names such as ``"Sync.left"``; empty: all actions.
    """
    found = [getattr(of, name) for name in vars(type(of)) if not name.startswith("_")]
    return [deed for deed in found if not only or deed.__qualname__ in only]


# The workers, and what is counted


@dataclass
class Tally:
    """The outcomes of the actions. Thread-safe."""

    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, what: str, error: BaseException | None) -> None:
        """Count an action, and its error if it failed."""
        with self.lock:
            self.done[what] += 1
            if isinstance(error, errors.YandexGPTError) and not isinstance(error, errors.ConfigurationError):
                self.failed[type(error).__name__] += 1
            elif error is not None:
                self.wrong(f"{what}: {type(error).__name__}: {error}", error)

    def wrong(self, what: str, error: BaseException | None = None) -> None:
        """Count an event that must not happen."""
        with self.lock:
            kind = what[:120]
            self.unexpected[kind] += 1
            if error is not None:
                self.first.setdefault(kind, "".join(traceback.format_exception(error)))


class Workers:
    """Threads and tasks that repeat random actions until they are told to rest."""

    def __init__(self, endpoint: str, tally: Tally, only: Sequence[str]) -> None:
        self.sync, self.asynchronous, self.roaming = Sync(endpoint), Async(endpoint), Roaming(endpoint)
        self._tally = tally
        self._go, self._over = threading.Event(), False
        self._busy: dict[int, str] = {}
        self.loop = asyncio.new_event_loop()
        self._host = threading.Thread(target=self.loop.run_forever, name="soak-loop")
        self._host.start()
        self._threads = [
            threading.Thread(target=self._thread, args=(todo,), name="soak-worker", daemon=True)
            for of in (*[self.sync] * THREADS, self.roaming)
            if (todo := deeds(of, only))
        ]
        for thread in self._threads:
            thread.start()
        todo = deeds(self.asynchronous, only)
        self._tasks = [
            asyncio.run_coroutine_threadsafe(self._task(number, todo), self.loop) for number in range(TASKS) if todo
        ]

    def _thread(self, todo: Sequence[Callable[[], Any]]) -> None:
        me = threading.get_ident()
        while not self._over:
            if not self._go.wait(0.1):
                continue
            deed = random.choice(todo)
            self._busy[me] = deed.__qualname__
            error: BaseException | None = None
            try:
                if self._go.is_set():
                    deed()
            except BaseException as caught:  # noqa: BLE001  (any exception is counted)
                error = caught
            self._tally.add(deed.__qualname__, error)
            del self._busy[me], error

    async def _task(self, number: int, todo: Sequence[Callable[[], Awaitable[None]]]) -> None:
        while not self._over:
            if not self._go.is_set():
                await asyncio.sleep(0.05)
                continue
            deed = random.choice(todo)
            self._busy[number] = deed.__qualname__
            error: BaseException | None = None
            try:
                await deed()
            except BaseException as caught:  # noqa: BLE001  (any exception is counted)
                error = caught
            self._tally.add(deed.__qualname__, error)
            del self._busy[number], error

    def work(self) -> None:
        """Start or resume the actions."""
        self._go.set()

    def rest(self) -> bool:
        """Start no further actions, and wait for those running; return whether they ended in time."""
        self._go.clear()
        if until(lambda: not self._busy, HANGS):
            return True
        self._tally.wrong(f"hangs: {', '.join(sorted(self._busy.values()))}")
        faulthandler.dump_traceback(all_threads=True)
        for task in asyncio.all_tasks(self.loop):
            task.print_stack()
        return False

    def places(self) -> None:
        """Check that no slot of ``max_concurrency`` is lost: each client must run this number of streams at once."""
        gc.collect()  # streams that were dropped in reference cycles hold their slots until then
        both, well = threading.Barrier(PLACES, timeout=SETTLES), list[bool]()

        def hold() -> None:
            with self.sync.client.stream(question(), timeout=SETTLES) as stream:
                next(stream)
                both.wait()
            well.append(True)

        threads = [threading.Thread(target=hold) for _ in range(PLACES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(well) < PLACES:
            self._tally.wrong("places: of the Client are lost")
        for name, run, client in (
            ("AsyncClient", self.run, self.asynchronous.client),
            ("AsyncClient of many loops", asyncio.run, self.roaming.client),
        ):
            try:
                run(hold_async(client))
            except errors.YandexGPTError as error:  # noqa: PERF203
                self._tally.wrong(f"places: of the {name} are lost", error)

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in the event loop of the tasks."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(HANGS)

    def end(self) -> None:
        """Close everything."""
        self._over = True
        for thread in self._threads:
            thread.join(HANGS)
        for task in self._tasks:
            task.result(HANGS)
        self.sync.client.close()
        self.run(self.asynchronous.client.close())
        asyncio.run(self.roaming.client.close())
        self.run(self.loop.shutdown_asyncgens())
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._host.join(HANGS)
        self.loop.close()


async def hold_async(client: yandexgpt.AsyncClient) -> None:
    """Open as many streams at once as there are slots."""
    streams = [client.stream(question(), timeout=SETTLES) for _ in range(PLACES)]
    for stream in streams:
        await anext(stream)
    for stream in streams:
        await stream.close()


@contextmanager
def overheard(tally: Tally) -> Iterator[None]:
    """Count the errors that threads, finalizers and event loops report."""
    threading.excepthook = lambda given: tally.wrong(f"a thread: {given.exc_type.__name__}", given.exc_value)
    sys.unraisablehook = lambda given: tally.wrong(
        f"{given.err_msg or 'ignored'}: {given.exc_value!r}", given.exc_value
    )
    logger, handler = logging.getLogger("asyncio"), logging.Handler(logging.ERROR)

    def complain(record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        # Loops are closed with tasks in them. gRPC's events for a closed loop reach another loop, which logs them.
        abandoned = "was destroyed but it is pending" in record.getMessage() or "Event loop is closed" in str(error)
        if not (abandoned or isinstance(error, BlockingIOError)):
            tally.wrong(f"asyncio: {record.getMessage()[:60]}: {error!r}", error)

    handler.emit = complain  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        threading.excepthook, sys.unraisablehook = threading.__excepthook__, sys.__unraisablehook__


# The figures


@dataclass(frozen=True)
class Figures:
    """The figures of this process at rest."""

    seconds: float
    calls: int
    failed: int
    unexpected: int
    memory: float  # MB
    threads: int
    descriptors: int
    sockets: int
    in_flight: int
    faults: int
    grpc_keeps: float  # MB, about

    def row(self) -> str:
        """The figures as a line of the table."""
        return (
            f"{self.seconds:7.0f} {self.calls:8d} {self.failed:8d} {self.unexpected:10d} {self.memory:8.1f} "
            f"{self.threads:7d} {self.descriptors:11d} {self.sockets:7d} {self.in_flight:9d} {self.faults:7d}"
        )


HEAD = "seconds    calls   failed unexpected   MB RSS threads descriptors sockets in flight  faults"


def take(began: float, tally: Tally, its: Service) -> Figures:
    """Take the figures, after all calls have ended at the emulator."""
    gc.collect()
    until(lambda: its.tell("")["in_flight"] == 0, SETTLES)
    gc.collect()
    answer = its.tell("")
    with tally.lock:
        return Figures(
            time.monotonic() - began,
            tally.done.total(),
            tally.failed.total(),
            tally.unexpected.total(),
            memory() / 1e6,
            threads(),
            entries("/proc/self/fd"),
            sockets(its.endpoint),
            answer["in_flight"],
            answer["faults"],
            sum(LOOP_BYTES * tally.done[what] for what in ("Sync.many", "Sync.many_left", "Roaming.run")) / 1e6
            + CANCELLED_BYTES * tally.done["Async.cancelled"] / 1e6,
        )


def memory() -> int:
    """The memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def entries(directory: str) -> int:
    """The number of entries of a directory."""
    return sum(1 for _ in Path(directory).iterdir())


def threads() -> int:
    """The number of threads of this process, including gRPC's."""
    return entries("/proc/self/task")


def sockets(endpoint: str) -> int:
    """The number of connections of this process to an endpoint."""
    port, own = int(endpoint.rpartition(":")[2]), set[str]()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed in the meantime
            own.add(str(descriptor.readlink()))
    rows = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]
    ]
    return sum(int(row[2].rpartition(":")[2], 16) == port and f"socket:[{row[9]}]" in own for row in rows)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition; return whether it became true within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def child_works(endpoint: str) -> bool:
    """Whether a fork of this process can make calls. It cannot if a call is still registered as in flight."""
    pid = os.fork()
    if not pid:
        signal.alarm(15)
        try:
            with yandexgpt.Client(**options(endpoint)) as client:
                client.complete(question())
        except BaseException:  # noqa: BLE001  (it is printed, and reported by the exit code)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def soak(seconds: float, its: Service, only: Sequence[str], *, calm: bool) -> tuple[list[Figures], Tally, list[str]]:
    """Work and rest in turn; return the figures, the outcomes of the actions, and the errors."""
    tally, figures, wrong = Tally(), list[Figures](), list[str]()
    workers = Workers(its.endpoint, tally, only)
    began = time.monotonic()
    print(HEAD)
    with overheard(tally):
        while time.monotonic() < began + seconds:
            its.tell("good" if calm else "bad")
            workers.work()
            time.sleep(seconds / WINDOWS)
            if not workers.rest():
                return figures, tally, ["a call hung"]
            its.tell("good")
            workers.places()
            figures.append(take(began, tally, its))
            print(figures[-1].row(), flush=True)
        workers.end()
        del workers
        gc.collect()
        if not until(lambda: gc.collect() >= 0 and not sockets(its.endpoint), SETTLES):
            wrong.append(f"{sockets(its.endpoint)} sockets are open although every client was closed")
        if not child_works(its.endpoint):
            wrong.append("a fork of the process cannot make calls")
        gc.collect()
        figures.append(take(began, tally, its))
        print(figures[-1].row() + "  (all closed)", flush=True)
    return figures, tally, wrong + judge(figures, tally)


def judge(figures: Sequence[Figures], tally: Tally) -> list[str]:
    """The errors: figures that differ at the end from those after the warm-up, and unexpected events."""
    *rests, closed = figures
    warm = rests[round(len(rests) * WARM_UP) :]
    third = max(1, len(warm) // 3)
    first, last = warm[:third], warm[-third:]
    wrong = []
    grown = statistics.median(one.memory for one in last) - statistics.median(one.memory for one in first)
    calls = statistics.median(one.calls for one in last) - statistics.median(one.calls for one in first)
    minutes = (statistics.median(one.seconds for one in last) - statistics.median(one.seconds for one in first)) / 60
    slope = f"{grown / minutes:.1f} MB a minute, {grown * 1e6 / calls:.0f} bytes a call" if minutes and calls else ""
    grpc_keeps = statistics.median(one.grpc_keeps for one in last) - statistics.median(one.grpc_keeps for one in first)
    print(f"\nmemory after the warm-up: {grown:+.1f} MB ({slope}), of which gRPC's own, about: {grpc_keeps:.1f} MB")
    if grown - grpc_keeps > GROWN_MB:
        wrong.append(f"memory grew by {grown:.1f} MB")
    for name in ("threads", "descriptors", "sockets"):
        before = max(getattr(one, name) for one in first)
        after = min(getattr(one, name) for one in last)
        if after > before + MORE:
            wrong.append(f"{name}: {before} after the warm-up, {after} at the end")
    if closed.threads > min(one.threads for one in first):
        wrong.append(f"threads: {closed.threads} although everything was closed")
    wrong += [f"{one.in_flight} calls in flight at rest, after {one.seconds:.0f} s" for one in figures if one.in_flight]
    wrong += [f"{times} x {what}" for what, times in tally.unexpected.most_common()]
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the test; return 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="the approximate duration (default: 600)")
    parser.add_argument("--seed", type=int, default=None, help="seed of the random choices; timing affects them too")
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="only these actions, such as 'Sync.left Async.many'"
    )
    parser.add_argument("--calm", action="store_true", help="without faults, for comparison")
    parser.add_argument("--emulate", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    seed = random.randrange(2**32) if given.seed is None else given.seed
    random.seed(seed)
    if given.emulate:
        emulate()
        return 0
    if sys.platform != "linux":
        print("the figures are taken from /proc, which only Linux has")
        return 1
    print(f"{given.seconds:g} s, seed {seed}; grpcio {grpc.__version__}, Python {sys.version.split()[0]}")
    with service(seed) as its:
        figures, tally, wrong = soak(given.seconds, its, given.only.split(), calm=given.calm)
    print(f"{tally.done.total()} done: {', '.join(f'{what} {times}' for what, times in sorted(tally.done.items()))}")
    failed = ", ".join(f"{what} {times}" for what, times in tally.failed.most_common())
    print(f"{tally.failed.total()} failed as they may: {failed}")
    for text in tally.first.values():
        print(f"\n{text}")
    for each in wrong:
        print(f"WRONG: {each}")
    print("all as at the beginning" if figures and not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong or not figures else 0


if __name__ == "__main__":
    sys.exit(main())
