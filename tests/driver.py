"""One test body for both clients: adapters give an ``AsyncClient`` the blocking methods of a ``Client``.

A test body is written for the synchronous client, which needs no adapter. The adapters run each coroutine in an event
loop in another thread, and wait for its result. Calls from several threads are tasks of one loop.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

import yandexgpt

# Imported here, not on first use: CPython 3.11 fails if a finalizer reports an exception while pytest parses an import.
import yandexgpt._async.batch
import yandexgpt._features.batch
import yandexgpt._rpc.async_batch
import yandexgpt._rpc.batch
import yandexgpt._sync.batch
from yandexgpt._concurrency import threads as background
from yandexgpt.emulator import Emulator, RecordedRequest

if TYPE_CHECKING:
    import pytest  # not installed for the programs of tests/instrumented

PATIENCE = 30.0
"""Seconds after which an operation counts as hanging. No operation takes a tenth of it."""
FOREVER = 3600.0
FAST = yandexgpt.Retry(initial=0.01, maximum=0.02)
OVERLOOKS_RESETS = tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 80)
"""Whether gRPC may not notice a TCP reset that arrives together with data. epoll reports both at once; gRPC reads the
data and then waits for another report. Such an attempt lasts until its deadline. It depends on timing."""
WAKES_ALL_LOOPS = OVERLOOKS_RESETS
"""Whether gRPC wakes all event loops of the process for an event of one, and logs an error in the other loops."""
CALLS_PER_CONNECTION = 100 if tuple(map(int, grpc.__version__.split(".")[:2])) >= (1, 84) else 10
"""Number of calls on one connection before another is opened, see ``_rpc/channels.py``."""
_END: Any = object()
T = TypeVar("T")


class Clock:
    """A clock whose time changes only when a test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Loop:
    """An event loop in another thread. `close` fails if the loop reported an error or has tasks left."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop_errors: list[dict[str, Any]] = []
        self._loop.set_exception_handler(lambda _, context: self._loop_errors.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-loop")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(PATIENCE * 2)
        except TimeoutError:
            if not future.done():
                future.cancel()
                raise AssertionError(f"{coroutine} hangs") from None
            raise

    def log_every_step(self) -> None:
        self._loop.slow_callback_duration = 0.0

    def close(self) -> None:
        left = self.run(_tasks_left())
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert not left, left
        assert not unexpected(self._loop_errors), self._loop_errors


async def _tasks_left() -> list[str]:
    """The tasks that did not end after everything was closed."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    pending = (await asyncio.wait(tasks, timeout=5.0))[1] if tasks else set()
    return [str(task) for task in pending]


def run_loop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main` in a new event loop. Fail if a task is left, or if the loop reported an error."""
    loop_errors: list[dict[str, Any]] = []

    async def guarded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
        result = await main()
        left = await _tasks_left()
        assert not left, left
        return result

    result = asyncio.run(guarded())
    assert not unexpected(loop_errors), loop_errors
    return result


def details_of(error: grpc.RpcError) -> str:
    """The message of the status of a failed call. Every failed call has one."""
    details = error.details()
    assert details is not None
    return details


def without_fork_messages(err: str) -> str:
    """The standard error of a program without the lines that gRPC logs when a fork happens during a call."""
    notes = ("skipping fork() handlers\n", "before absl::InitializeLog() is called are written to STDERR\n")
    if WAKES_ALL_LOOPS:
        err = re.sub(
            r"Exception in callback PollerCompletionQueue._handle_events.*?\nBlockingIOError: .*?\n",
            "",
            err,
            flags=re.DOTALL,
        )
    return "".join(line for line in err.splitlines(keepends=True) if not line.endswith(notes))


def unexpected(loop_errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The errors of event loops, without those that gRPC causes and that harm nothing.

    grpcio below 1.80 causes BlockingIOError if there are several event loops. And gRPC passes an event of a loop that
    was closed to another loop, which then reports that the first one is closed.
    """
    harmless = [
        context
        for context in loop_errors
        if isinstance(error := context.get("exception"), BlockingIOError) or str(error) == "Event loop is closed"
    ]
    return [context for context in loop_errors if context not in harmless]


class BlockingStream:
    """An ``AsyncStream`` with the methods of a ``Stream``."""

    def __init__(self, loop: Loop, stream: yandexgpt.AsyncStream) -> None:
        self._loop = loop
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def finish(self) -> yandexgpt.Completion:
        return self._loop.run(self._stream.finish())

    def text(self, *, holdback: int = 0) -> Iterator[str]:
        return BlockingIterator(self._loop, self._stream.text(holdback=holdback))

    def close(self) -> None:
        self._loop.run(self._stream.close())

    def __enter__(self) -> BlockingStream:
        self._loop.run(self._stream.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._loop.run(self._stream.__aexit__(*error))

    def __iter__(self) -> BlockingStream:
        return self

    def __next__(self) -> yandexgpt.Chunk:
        return _next(self._loop, self._stream)


class BlockingIterator:
    """A blocking iterator over an asynchronous iterator."""

    def __init__(self, loop: Loop, iterator: Any) -> None:
        self._loop = loop
        self._iterator = iterator

    def __iter__(self) -> BlockingIterator:
        return self

    def __next__(self) -> Any:
        return _next(self._loop, self._iterator)


class BlockingResults(BlockingIterator):
    """``AsyncResults`` with the methods of ``Results``."""

    def close(self) -> None:
        self._loop.run(self._iterator.close())

    def __enter__(self) -> BlockingResults:
        self._loop.run(self._iterator.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._loop.run(self._iterator.__aexit__(*error))


def _next(loop: Loop, iterator: AsyncIterator[T]) -> T:
    async def step() -> T:
        return await anext(iterator, _END)

    item = loop.run(step())
    if item is _END:
        raise StopIteration
    return item


class BlockingMethods:
    """An object of the asynchronous client, with blocking methods."""

    def __init__(self, loop: Loop, inner: Any) -> None:
        self._loop = loop
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(value):
            return value
        return lambda *arguments, **options: self._loop.run(value(*arguments, **options))


class BlockingChat(BlockingMethods):
    """An ``AsyncChat`` with the methods of a ``Chat``."""

    def stream(self, text: Any, **options: Any) -> BlockingStream:
        return BlockingStream(self._loop, self._inner.stream(text, **options))

    def __repr__(self) -> str:
        return repr(self._inner)


class BlockingOperation:
    """An ``AsyncOperation`` with the methods of an ``Operation``."""

    def __init__(self, loop: Loop, operation: yandexgpt.AsyncOperation) -> None:
        self._loop = loop
        self.inner = operation

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def refresh(self, **options: Any) -> BlockingOperation:
        assert self._loop.run(self.inner.refresh(**options)) is self.inner
        return self

    def cancel(self, **options: Any) -> BlockingOperation:
        assert self._loop.run(self.inner.cancel(**options)) is self.inner
        return self

    def wait(self, *arguments: Any, **options: Any) -> yandexgpt.Completion:
        return self._loop.run(self.inner.wait(*arguments, **options))

    def __repr__(self) -> str:
        return repr(self.inner).removeprefix("Async")

    def __eq__(self, other: object) -> bool:
        return self.inner == getattr(other, "inner", other)

    def __hash__(self) -> int:
        return hash(self.inner)

    def __reduce__(self) -> Any:
        return self.inner.__reduce__()


class BlockingClient:
    """An ``AsyncClient`` with the methods of a ``Client``."""

    def __init__(self, loop: Loop, client: yandexgpt.AsyncClient) -> None:
        self._loop = loop
        self._client = client

    def complete(self, prompt: Any, **options: Any) -> yandexgpt.Completion:
        return self._loop.run(self._client.complete(prompt, **options))

    def stream(self, prompt: Any, **options: Any) -> BlockingStream:
        return BlockingStream(self._loop, self._client.stream(prompt, **options))

    def complete_many(self, prompts: Any, **options: Any) -> BlockingResults:
        return BlockingResults(self._loop, self._client.complete_many(prompts, **options))

    def submit(self, prompt: Any, **options: Any) -> BlockingOperation:
        return BlockingOperation(self._loop, self._loop.run(self._client.submit(prompt, **options)))

    def operation(self, operation_id: Any) -> BlockingOperation:
        return BlockingOperation(self._loop, self._client.operation(operation_id))

    def wait_all(self, operations: Any, *arguments: Any, **options: Any) -> Iterator[BlockingOperation]:
        given = list(operations)
        iterator = self._client.wait_all((getattr(each, "inner", each) for each in given), *arguments, **options)
        ended = BlockingIterator(self._loop, iterator)
        return (next(each for each in given if each.inner is operation) for operation in ended)

    def tokenize(self, prompt: Any, **options: Any) -> tuple[yandexgpt.Token, ...]:
        return self._loop.run(self._client.tokenize(prompt, **options))

    def count_tokens(self, prompt: Any, **options: Any) -> int:
        return self._loop.run(self._client.count_tokens(prompt, **options))

    @property
    def responses(self) -> BlockingMethods:
        return BlockingMethods(self._loop, self._client.responses)

    def chat(self, **options: Any) -> BlockingChat:
        return BlockingChat(self._loop, self._client.chat(**options))

    def chat_from_dict(self, data: Any) -> BlockingChat:
        """``AsyncChat.from_dict`` with a blocking result."""
        return BlockingChat(self._loop, yandexgpt.AsyncChat.from_dict(self._client, data))

    def run_tools(self, prompt: Any, tools: Any, **options: Any) -> yandexgpt.Completion:
        return self._loop.run(self._client.run_tools(prompt, tools, **options))

    def parse(self, prompt: Any, answer_type: Any, **options: Any) -> Any:
        return self._loop.run(self._client.parse(prompt, answer_type, **options))

    @property
    def raw(self) -> Any:
        async def get() -> Any:
            return self._client.raw

        return self._loop.run(get())

    def connect(self, timeout: float | None = None) -> None:
        self._loop.run(self._client.connect(timeout))

    def with_options(self, **options: Any) -> BlockingClient:
        return BlockingClient(self._loop, self._client.with_options(**options))

    def close(self) -> None:
        self._loop.run(self._client.close())

    def __enter__(self) -> BlockingClient:
        self._loop.run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.run(self._client.__aexit__(kind, error, traceback))

    def __repr__(self) -> str:
        return repr(self._client)

    def __reduce__(self) -> Any:
        return self._client.__reduce__()


class ClientFactory:
    """Makes clients of one kind and closes them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._loop = Loop() if kind == "async" else None
        self._clients: list[Any] = []

    def make(self, **arguments: Any) -> Any:
        """A client with only these arguments."""
        client: Any
        if self._loop is None:
            client = yandexgpt.Client(**arguments)
        else:
            client = BlockingClient(self._loop, yandexgpt.AsyncClient(**arguments))
        self._clients.append(client)
        return client

    def client(self, emulator: Emulator, **arguments: Any) -> Any:
        """A client of the emulator, as ``Emulator.client`` makes it, with short delays between retries."""
        arguments = {"retry": FAST, **arguments}
        client: Any
        if self._loop is None:
            client = emulator.client(**arguments)
        else:
            client = BlockingClient(self._loop, emulator.async_client(**arguments))
        self._clients.append(client)
        return client

    def result_of(self, call: Callable[[], Any]) -> Any:
        """The result of a stub of ``client.raw``, awaited in the loop of an asynchronous client."""
        if self._loop is None:
            return call()

        async def main() -> Any:
            return await call()

        return self._loop.run(main())

    def log_every_step(self) -> None:
        """Make asyncio in debug mode log every step of a task."""
        if self._loop is not None:
            self._loop.log_every_step()

    def close(self) -> None:
        try:
            for client in self._clients:
                client.close()
        finally:
            self._clients.clear()
            if self._loop is not None:
                self._loop.close()


class Background:
    """A function that runs in another thread. Its result or its error can be waited for."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self._future: Future[Any] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(function, arguments, options), name="test-background", daemon=True
        )
        self._thread.start()

    def _run(self, function: Callable[..., Any], arguments: Any, options: Any) -> None:
        try:
            self._future.set_result(function(*arguments, **options))
        except BaseException as error:  # noqa: BLE001  (`result` and `error` report it)
            self._future.set_exception(error)

    def until_blocked(self) -> Background:
        """Return when the thread blocks: in the queue of a limiter, for a token, or in a delay."""
        until(lambda: self._future.done() or _waits(sys._current_frames().get(self._thread.ident or 0)))
        return self

    def result(self, patience: float = PATIENCE) -> Any:
        return self._future.result(patience)

    def error(self, patience: float = PATIENCE) -> BaseException | None:
        return self._future.exception(patience)


def _waits(frame: Any) -> bool:
    where = (threading.__file__, background.__file__)
    return frame is not None and frame.f_code.co_name == "wait" and frame.f_code.co_filename in where


def until(condition: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Poll until the condition is true. Fail after `patience` seconds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never comes true"
        time.sleep(0.001)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[], T]) -> T:
    """The result of ``make``, which only one of the pytest-xdist processes calls."""
    shared = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    made, begun = shared / f"{name}.made", shared / f"{name}.begun"
    try:
        begun.open("x").close()
    except FileExistsError:
        until(made.exists, PATIENCE * 4)
    else:
        part = shared / f"{name}.part"
        part.write_bytes(pickle.dumps(make()))
        part.rename(made)
    result: T = pickle.loads(made.read_bytes())
    return result


def in_threads(number: int, function: Callable[[int], Any]) -> list[Any]:
    """``function(0)`` to ``function(number - 1)``, each in a thread, all started at the same time."""
    start = threading.Barrier(number)

    def one(index: int) -> Any:
        start.wait(PATIENCE)
        return function(index)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


def stall_after(emulator: Emulator, partials: int, *, times: int = 1) -> None:
    """Let the next calls send this number of partials of "раз два три", and then nothing."""
    if partials:
        emulator.reply("раз два три", partials=["раз", "раз два"], times=times)
    emulator.fail("UNAVAILABLE", after=partials, delay=FOREVER, times=times)


def deadline_of(request: RecordedRequest) -> float:
    """Seconds from the arrival of the request to its deadline. Fail if it has no deadline."""
    assert request.deadline is not None
    return request.deadline


def partial_of(error: yandexgpt.APIError) -> yandexgpt.Completion:
    """The part of the answer received before the error. Fail if there is none."""
    assert error.partial is not None
    return error.partial


def calls_of(client: Any) -> Any:
    """The calls in flight of a client and of all clients that share its connection."""
    return getattr(client, "_client", client)._invoker.registry.in_flight


def subprocess_environment() -> dict[str, str]:
    """The environment for subprocesses, without the variables of coverage.

    Coverage takes a third of the time of a short program, allocates memory, and keeps its lock after an interrupt.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def program(source: str, emulator: Emulator, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program in another process, with the environment of the emulator."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", source, *arguments],
        env={**subprocess_environment(), **emulator.environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen[str], timeout: float = PATIENCE) -> tuple[int, str, str]:
    """Exit code, standard output and standard error. A process that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the process hangs; it wrote {out!r} and {err!r}") from None
    return process.returncode, out, err
