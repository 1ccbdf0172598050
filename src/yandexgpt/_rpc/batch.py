"""``complete_many`` of the synchronous client: a call for each of many prompts, a bounded number of them at a time.

The calls are made in an event loop in one background thread, as so many tasks, over a connection of its own. A thread
per call would cost several times the CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import Generator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from yandexgpt._async.client import AsyncClient
from yandexgpt._async.stream import close, is_running
from yandexgpt._concurrency.closing import Closing
from yandexgpt._concurrency.threads import SIGNALS_SEEN_WITHIN, Worker, exiting
from yandexgpt._rpc.async_invoker import AsyncConnection, AsyncDriver
from yandexgpt._rpc.channels import asynchronous, check_aio
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from yandexgpt._features.batch import Plan, Prompts, Result, Window
    from yandexgpt._request import Prompt
    from yandexgpt._rpc.invoker import Driver

__all__ = ["Results"]

SETTLING_SECONDS = 0.05
"""How long a loop whose calls were cancelled waits before it closes. What gRPC still has to say of them would reach
another loop of the process, which complains that this one is closed."""

_NO_MORE: Any = object()


class _Connection(AsyncConnection):
    """A connection that cannot be let go of before a fork, as others are: its loop goes on in another thread."""

    engine: Engine

    def before_fork(self) -> bool:
        """Wait for the thread if it is about to end."""
        return self.engine.before_fork()


class Engine:
    """An event loop in a thread, which makes the calls of one synchronous batch.

    Args:
        driver: of the client whose calls they are; settings, retry budget and line are shared with it.
        plan: makes one call, with a client of the loop.
    """

    def __init__(self, driver: Driver, plan: Plan) -> None:
        self.done: SimpleQueue[Result | None] = SimpleQueue()
        """Results as they come; None when the engine has ended."""
        self._plan = plan
        settings = dataclasses.replace(driver.settings, interceptors=asynchronous(driver.settings.interceptors))
        self._native = AsyncDriver(settings, None)
        self._native.connection = connection = _Connection(settings)
        connection.engine = self
        self._native.calls = driver.calls
        self._client = AsyncClient.__new__(AsyncClient)
        self._client._driver = self._native
        self._inbox: deque[tuple[int, Prompt]] = deque()
        self._told = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._worker: Worker | None = None
        self._ending = self._ended = False
        self._driver = driver
        self._batches = driver.connection.batches

    def start(self) -> None:
        """Start the thread.

        Raises:
            ConfigurationError: it cannot be started.
        """
        self._batches[self] = self._driver.calls
        try:
            self._worker = Worker("yandexgpt-many", self._run, self._stop)
        except ConfigurationError:
            self._loop.close()
            raise
        except BaseException:  # Ctrl-C: the thread may run, or not
            self._stop()
            raise
        if self._driver.closed or self._driver.connection.closed:  # meanwhile, and perhaps before this was known
            self.cancel()

    def check(self) -> None:
        """Refuse to go on in the child of a fork.

        Raises:
            ConfigurationError: this is one.
        """
        if self._worker is not None:
            self._worker.check()

    def before_fork(self) -> bool:
        """Whether the thread is there, and may be inside gRPC."""
        if self._worker is None:
            return False
        if self._ending:
            self._worker.end()
        return not self._ended

    def submit(self, index: int, prompt: Prompt) -> None:
        """Begin a call."""
        self._inbox.append((index, prompt))
        if not self._told:  # one word for all that come before it is heard
            self._told = True
            self._tell(self._begin)

    def end(self, *, wait: bool = True) -> None:
        """Cancel what is under way, and end the thread.

        Args:
            wait: for the end of the thread; not in a finalizer.
        """
        self._batches.pop(self, None)
        if self._worker is not None:
            (self._worker.end if wait else self._worker.stop)()

    def cancel(self) -> None:
        """The client was closed: end, and let the calls that are under way say why they did."""
        self._native.closed = True
        self._stop()

    def _stop(self) -> None:
        self._ending = True
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
        try:
            result = await self._plan.answer(self._client, index, prompt)
        except BaseException as error:
            if self._stopped.is_set():
                raise
            # Whatever else ends the call, such as an interceptor: the reader, who waits, is told.
            result = self._plan.given_up(index, prompt, error)
        self.done.put(result)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            self._ended = True
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

    def __del__(self) -> None:
        """Ctrl-C may have come before the results could end the engine."""
        if self.engine is not None:
            self.engine.end(wait=False)

    def results(self) -> Generator[Result, None, None]:
        """The results, while prompts are read as far as they may be."""
        plan, window = self.plan, self.plan.window()
        prompts = iter(cast("Prompts", plan.prompts))
        exhausted = False
        broken: Exception | None = None
        dropped = False
        try:
            while True:
                self._collect(window)
                # The source may take its time, or wait for what was handed out: what is ready goes first.
                may_read = window.room and not exhausted
                if (not may_read or plan.may_block) and (result := window.pop()) is not None:
                    yield plan.checked(result)
                elif may_read:
                    try:
                        prompt = next(prompts, _NO_MORE)
                        if prompt is _NO_MORE:
                            exhausted = True
                        else:
                            plan.check_open(window)
                            self._engine().submit(window.take(), prompt)
                    except Exception as error:  # noqa: BLE001  (it is raised when those before it are handed out)
                        exhausted = True
                        broken = error
                elif not window.empty:
                    self._wait(window)
                else:
                    break
        except GeneratorExit:
            dropped = not self.closed  # nobody has closed the results, so this is a finalizer, which must not wait
            raise
        finally:
            if self.engine is not None:
                self.engine.end(wait=not dropped)
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
            self.engine = Engine(cast("Driver", self.plan.driver), self.plan)
            self.engine.start()
            if self.closed:  # meanwhile: whoever closed it may not have seen the engine
                raise self.plan.closed_meanwhile()
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
        while True:
            self.engine.check()
            with contextlib.suppress(Empty):
                return self._take_in(self.engine.done.get(timeout=SIGNALS_SEEN_WITHIN), window)

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
        check_aio()
        interceptors = plan.driver.settings.interceptors
        if interceptors and not asynchronous(interceptors):
            raise ConfigurationError(
                "complete_many() makes its calls over grpc.aio, and the client's interceptors are synchronous: give "
                "asynchronous ones (grpc.aio.ClientInterceptor) among interceptors= as well"
            )
        self._run = _Run(plan)
        self._results = self._run.results()
        self._closing = Closing()
        self._over = False

    def close(self) -> None:
        """Cancel what is under way. Idempotent; another thread that reads gets a ``CancelledError``."""
        if not self._over:
            self._closing.closed()
        self._run.close()
        close(self._results)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        self._closing.begins()
        return self

    def __next__(self) -> Result:
        """The next result.

        Raises:
            APIError, ValueError, TypeError: of its prompt, with ``on_error="raise"``; the rest is cancelled.
            CancelledError: the results were closed while they were iterated over.
            Exception: whatever the iterable of prompts raised.
        """
        try:
            return next(self._results)
        except ValueError as error:
            if not (self._run.closed and is_running(error)):
                raise
            raise self._run.plan.closed_meanwhile() from error  # another thread is about to close them
        except StopIteration:
            if self._closing.cuts_off():
                raise self._run.plan.closed_meanwhile() from None
            self._over = True
            raise
