"""``complete_many``: a call for each of many prompts, a bounded number of them at a time.

Both clients make the calls in an event loop, as so many tasks: the asynchronous one in its own, the synchronous one in
a loop in one background thread, over a connection of its own. A thread per call would cost several times the CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Mapping
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import grpc

from yandexgpt.aio import AsyncClient
from yandexgpt.aio_driver import AsyncConnection, AsyncDriver
from yandexgpt.background import Worker, exiting
from yandexgpt.checks import check_metadata
from yandexgpt.errors import CancelledError, YandexGPTError
from yandexgpt.methods import GENERATE
from yandexgpt.options import ManyOptions
from yandexgpt.request import Prompt, build_request, positive_int
from yandexgpt.settings import UNSET, Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import AsyncGeneratorType, TracebackType

    from typing_extensions import Self

    from yandexgpt.client import Client
    from yandexgpt.completion import Completion
    from yandexgpt.driver import Driver

__all__ = ["AsyncPrompts", "AsyncResults", "OnError", "Plan", "Prompts", "Result", "Results", "Window"]

OnError = Literal["raise", "return"]
Prompts = Iterable[Prompt]
AsyncPrompts = Iterable[Prompt] | AsyncIterable[Prompt]

READ_AHEAD = 2
"""How many times ``concurrency`` prompts may be read and not handed out: those under way, and as many answers that wait
for one which takes longer, or for a reader who does."""

SETTLING_SECONDS = 0.05
"""How long a loop whose calls were cancelled waits before it closes. What gRPC still has to say of them would reach
another loop of the process, which complains that this one is closed."""

_NO_MORE: Any = object()
_OF_A_PROMPT = (YandexGPTError, ValueError, TypeError)
"""What a result can carry: a failed call, or a prompt that none can be made of."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What became of one prompt.

    Attributes:
        index: the prompt's place among the prompts, from 0.
        prompt: the prompt itself, as it was given.
        error: why there is no answer; None if there is one.
    """

    index: int
    prompt: Prompt
    error: Exception | None
    _completion: Completion | None = None

    @property
    def completion(self) -> Completion:
        """The answer.

        Raises:
            APIError, ValueError, TypeError: :attr:`error`, if there is none.
        """
        if self.error is not None:
            raise self.error
        return cast("Completion", self._completion)


class Window:
    """Which results may be handed out, and whether another prompt may be read. Pure.

    Args:
        concurrency: how many prompts may be under way at once.
        ordered: whether results leave in the order of their prompts, or as they come.
    """

    def __init__(self, concurrency: int, *, ordered: bool) -> None:
        self._concurrency = concurrency
        self._ordered = ordered
        self._ready: dict[int, Result] = {}
        self._taken = 0
        self._handed_out = 0
        self.under_way = 0

    @property
    def room(self) -> bool:
        """Whether another prompt may be read."""
        return self.under_way < self._concurrency and self._taken - self._handed_out < READ_AHEAD * self._concurrency

    @property
    def empty(self) -> bool:
        """Whether everything that was read has been handed out."""
        return self._taken == self._handed_out

    def take(self) -> int:
        """A prompt was read. Returns its index."""
        index = self._taken
        self._taken += 1
        self.under_way += 1
        return index

    def finished(self, result: Result) -> None:
        """A prompt has its result."""
        self.under_way -= 1
        self._ready[result.index] = result

    def pop(self) -> Result | None:
        """The next result to hand out, if it is there."""
        index = self._handed_out if self._ordered else next(iter(self._ready), -1)
        result = self._ready.pop(index, None)
        if result is not None:
            self._handed_out += 1
        return result


class Plan:
    """What is to be done: the arguments of ``complete_many``, checked.

    Raises:
        ValueError: an argument has an impossible value.
        TypeError: there is no such option, or the prompts are none.
        ConfigurationError: the client is closed.
    """

    def __init__(
        self,
        client: Client | AsyncClient,
        prompts: AsyncPrompts,
        concurrency: int,
        ordered: bool,
        on_error: OnError,
        options: Mapping[str, Any],
        iterables: tuple[type, ...],
    ) -> None:
        self.client = client
        self.driver: Driver | AsyncDriver = client._driver
        self.prompts = prompts
        self.ordered = ordered
        if isinstance(prompts, str | Mapping):
            raise ValueError(f"prompts must be an iterable of prompts, got one {type(prompts).__name__}")
        if not isinstance(prompts, iterables):
            raise TypeError(f"prompts must be an iterable of prompts, got {type(prompts).__name__}")
        limit = self.driver.settings.max_concurrency
        concurrency = positive_int("concurrency", concurrency)
        # Whoever waited in line would only use up its deadline there.
        self.concurrency = concurrency if limit is None else min(concurrency, limit)
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error must be 'raise' or 'return', got {on_error!r}")
        self._returns_errors = on_error == "return"
        self._options = dict(options)
        if unknown := sorted(options.keys() - ManyOptions.__annotations__.keys()):
            raise TypeError(f"complete_many() got an unexpected keyword argument {unknown[0]!r}")
        self._check_options()
        self._request_id = self._options.pop("request_id", None)

    def _check_options(self) -> None:
        """Refuse at once what no prompt could be sent with; what can be iterated over once only, keep."""
        options = self._options
        if isinstance(options.get("tools"), Iterable):
            options["tools"] = tuple(options["tools"])
        if "metadata" in options:
            options["metadata"] = check_metadata(options["metadata"])
        of_call = {name: options.get(name, UNSET) for name in ("timeout", "attempt_timeout")}
        call = self.driver.begin(
            GENERATE, "-", metadata=options.get("metadata", ()), request_id=options.get("request_id"), **of_call
        )
        call.must_fit(options.get("max_context_tokens"))
        of_model = {
            name: value
            for name, value in options.items()
            if name not in ("timeout", "attempt_timeout", "metadata", "request_id", "max_context_tokens")
        }
        if options.get("tools") is None and options.get("tool_choice") not in ("none", "auto", "required"):
            of_model.pop("tool_choice", None)  # it may be the name of a tool of a ready request
        settings: Settings = self.driver.settings
        folder_id = settings.folder_id or "-"  # ready requests need none
        build_request("-", folder_id=folder_id, default_model=settings.model, stream=False, **of_model)

    def window(self) -> Window:
        """Nothing read yet."""
        return Window(self.concurrency, ordered=self.ordered)

    async def answer(self, client: AsyncClient, index: int, prompt: Prompt) -> Result:
        """Make the call for a prompt."""
        request_id = None if self._request_id is None else f"{self._request_id}-{index}"
        try:
            completion = await client.complete(prompt, request_id=request_id, **self._options)
        except Exception as error:  # noqa: BLE001  (it is raised where its result would be handed out)
            return Result(index, prompt, error)
        return Result(index, prompt, None, completion)

    def checked(self, result: Result) -> Result:
        """The result, if it is one that may be handed out.

        Raises:
            APIError, ValueError, TypeError: of the prompt, if errors are to be raised.
        """
        error = result.error
        if error is None or (self._returns_errors and isinstance(error, _OF_A_PROMPT)):
            return result
        raise error

    def closed_meanwhile(self) -> CancelledError:
        """For a reader whose results were closed by somebody else."""
        return CancelledError(
            "the results were closed while they were read",
            code=grpc.StatusCode.CANCELLED,
            endpoint=self.driver.settings.endpoint.target,
        )


class _Connection(AsyncConnection):
    """A connection that cannot be let go of before a fork, as others are: its loop goes on in another thread."""

    def before_fork(self) -> bool:
        return not self.closed


class Engine:
    """An event loop in a thread, which makes the calls of one synchronous batch.

    Args:
        driver: of the client whose calls they are; settings, retry budget and line are shared with it.
        answer: makes one call, with a client of the loop.
    """

    def __init__(self, driver: Driver, answer: Callable[[AsyncClient, int, Prompt], Any]) -> None:
        self.done: SimpleQueue[Result | None] = SimpleQueue()
        """Results as they come; None when the engine has ended."""
        self._answer = answer

        self._native = AsyncDriver(driver.settings, None)
        self._native.connection = _Connection(driver.settings)
        self._native.calls = driver.calls
        self._client = AsyncClient.__new__(AsyncClient)
        self._client._driver = self._native
        self._inbox: deque[tuple[int, Prompt]] = deque()
        self._told = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        try:
            self._worker = Worker("yandexgpt-many", self._run, self._stop)
        except BaseException:
            self._loop.close()
            raise
        self._batches = driver.connection.batches
        self._batches[self] = driver.calls

    def check(self) -> None:
        """Refuse to go on in the child of a fork.

        Raises:
            ConfigurationError: this is one.
        """
        self._worker.check()

    def submit(self, index: int, prompt: Prompt) -> None:
        """Begin a call."""
        self._inbox.append((index, prompt))
        if not self._told:  # one word for all that come before it is heard
            self._told = True
            self._tell(self._begin)

    def end(self) -> None:
        """Cancel what is under way, and end the thread."""
        self._batches.pop(self, None)
        self._worker.end()

    def cancel(self) -> None:
        """The client was closed: end, and let the calls that are under way say why they did."""
        self._native.closed = True
        self._stop()

    def _stop(self) -> None:
        self._tell(self._stopped.set)

    def _tell(self, function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: whoever waits gets the None
            self._loop.call_soon_threadsafe(function)

    def _begin(self) -> None:
        self._told = False
        while self._inbox and not self._stopped.is_set():
            task = self._loop.create_task(self._make(*self._inbox.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _make(self, index: int, prompt: Prompt) -> None:
        self.done.put(await self._answer(self._client, index, prompt))

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            if not exiting():
                self.done.put(None)

    async def _main(self) -> None:
        await self._stopped.wait()
        given_up = bool(self._tasks)
        if self._native.closed:
            await self._native.close()
        else:
            for task in self._tasks:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._native.close()
        if given_up:
            await asyncio.sleep(SETTLING_SECONDS)


class _Run:
    """A synchronous batch under way."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.engine: Engine | None = None
        self.closed = False

    def results(self) -> Generator[Result, None, None]:
        """The results, while prompts are read as far as they may be."""
        plan, window = self.plan, self.plan.window()
        prompts = iter(cast("Prompts", plan.prompts))
        exhausted = False
        broken: Exception | None = None
        try:
            while True:
                self._collect(window)
                try:
                    while window.room and not exhausted:
                        prompt = next(prompts, _NO_MORE)
                        if prompt is _NO_MORE:
                            exhausted = True
                        else:
                            plan.driver.check_open()
                            self._engine().submit(window.take(), prompt)
                except Exception as error:  # noqa: BLE001  (it is raised when those before it are handed out)
                    exhausted = True
                    broken = error
                if (result := window.pop()) is not None:
                    yield plan.checked(result)
                elif not window.empty:
                    self._wait(window)
                elif exhausted:
                    break
        finally:
            if self.engine is not None:
                self.engine.end()
        if broken is not None:
            try:
                raise broken
            finally:
                del broken  # it refers to this frame

    def close(self) -> None:
        """From any thread."""
        self.closed = True
        if self.engine is not None:
            self.engine.end()

    def _engine(self) -> Engine:
        """What makes the calls, from the first of them on.

        Raises:
            CancelledError: the results were closed.
        """
        if self.closed:
            raise self.plan.closed_meanwhile()
        if self.engine is None:
            self.engine = Engine(cast("Driver", self.plan.driver), self.plan.answer)
        self.engine.check()
        return self.engine

    def _collect(self, window: Window) -> None:
        """Take in what has come."""
        if self.engine is not None:
            with contextlib.suppress(Empty):
                while True:
                    self._take_in(self.engine.done.get_nowait(), window)

    def _wait(self, window: Window) -> None:
        """Wait for something to come."""
        assert self.engine is not None  # noqa: S101  (it is there since the first prompt)
        self.engine.check()
        self._take_in(self.engine.done.get(), window)

    def _take_in(self, result: Result | None, window: Window) -> None:
        if result is not None:
            window.finished(result)
        elif window.under_way:
            raise self.plan.closed_meanwhile()


class Results:
    """The results of many prompts: an iterator of :class:`~yandexgpt.Result`, and a context manager.

    Nothing is sent before the first result is asked for. Leaving the ``with``, :meth:`close`, dropping the iterator and
    Ctrl-C cancel what is under way.
    """

    def __init__(self, plan: Plan) -> None:
        self._run = _Run(plan)
        self._results = self._run.results()

    def close(self) -> None:
        """Cancel what is under way. Idempotent; a thread that reads gets a ``CancelledError``."""
        self._run.close()
        if inspect.getgeneratorstate(self._results) != inspect.GEN_RUNNING:
            self._results.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Result:
        """The next result.

        Raises:
            APIError, ValueError, TypeError: of its prompt, with ``on_error="raise"``; the rest is cancelled.
            Exception: whatever the iterable of prompts raised.
        """
        return next(self._results)


class _AsyncRun:
    """An asynchronous batch under way."""

    def __init__(self, plan: Plan) -> None:
        self._client = cast("AsyncClient", plan.client)
        self._plan = plan
        self._window = plan.window()
        self._tasks: set[asyncio.Task[Result]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._exhausted = False
        self._broken: BaseException | None = None
        self._closed = False

    async def results(self) -> AsyncGenerator[Result, None]:
        """The results, while prompts are read as far as they may be."""
        plan, window = self._plan, self._window
        self._feeder = asyncio.ensure_future(self._feed())
        try:
            while True:
                if (result := window.pop()) is not None:
                    self._room.set()
                    yield plan.checked(result)
                elif self._closed:
                    raise plan.closed_meanwhile()
                elif self._exhausted and window.empty:
                    break
                else:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self.close()
            await asyncio.wait({self._feeder, *self._tasks})
        broken, self._broken = self._broken, None
        if broken is not None:
            try:
                raise broken
            finally:
                del broken  # it refers to this frame

    def close(self) -> None:
        """Cancel what is under way."""
        self._closed = True
        self._changed.set()
        if self._feeder is not None:
            self._feeder.cancel()
        for task in self._tasks:
            task.cancel()

    async def _feed(self) -> None:
        """Read the prompts, as far as they may be, and begin their calls."""
        plan, window, room = self._plan, self._window, self._room
        try:
            async for prompt in _each(plan.prompts):
                plan.driver.check_open()
                task = asyncio.ensure_future(plan.answer(self._client, window.take(), prompt))
                self._tasks.add(task)
                task.add_done_callback(self._finished)
                while not window.room:
                    room.clear()
                    await room.wait()
        except BaseException as error:  # noqa: BLE001  (it is raised when those before it are handed out)
            self._broken = error
        finally:
            self._exhausted = True
            self._changed.set()

    def _finished(self, task: asyncio.Task[Result]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # not by whoever waits for it: by the end of the loop
            self._closed = True
        else:
            self._window.finished(task.result())
            self._room.set()
        self._changed.set()


class AsyncResults:
    """The results of many prompts: an iterator of :class:`~yandexgpt.Result`, and a context manager.

    Nothing is sent before the first result is asked for. Leaving the ``with``, :meth:`close`, dropping the iterator and
    cancelling the task cancel what is under way.
    """

    def __init__(self, plan: Plan) -> None:
        self._run = _AsyncRun(plan)
        self._results = self._run.results()

    async def close(self) -> None:
        """Cancel what is under way. Idempotent; a task that reads gets a ``CancelledError``."""
        self._run.close()
        if not cast("AsyncGeneratorType[Result, None]", self._results).ag_running:
            await self._results.aclose()

    aclose = close
    """The same under the name that :func:`contextlib.aclosing` looks for."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        """The next result.

        Raises:
            APIError, ValueError, TypeError: of its prompt, with ``on_error="raise"``; the rest is cancelled.
            Exception: whatever the iterable of prompts raised.
        """
        return await self._results.__anext__()


async def _each(prompts: AsyncPrompts) -> AsyncIterator[Prompt]:
    if isinstance(prompts, AsyncIterable):
        async for prompt in prompts:
            yield prompt
    else:
        for prompt in prompts:
            yield prompt
