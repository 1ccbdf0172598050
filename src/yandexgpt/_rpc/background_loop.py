"""An event loop in a background thread: how the synchronous client makes many calls at once.

A thread per call would cost several times the CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING

from yandexgpt._concurrency.threads import StoppableThread, interpreter_is_exiting
from yandexgpt._rpc.async_invoker import AsyncInvoker
from yandexgpt._rpc.async_registry import AsyncChannelRegistry
from yandexgpt._rpc.interceptors import asynchronous
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from yandexgpt._features.batch import Result
    from yandexgpt._request import Prompt
    from yandexgpt._rpc.batch_calls import BatchCalls
    from yandexgpt._rpc.invoker import Invoker

__all__ = ["BackgroundLoop"]

SETTLING_SECONDS = 0.05
"""How long a loop whose calls were cancelled waits before it closes. What gRPC still has to say of them would reach
another loop of the process, which complains that this one is closed."""


class _Registry(AsyncChannelRegistry):
    """Channels that cannot be let go of before a fork, as others are: its loop goes on in another thread."""

    background: BackgroundLoop

    def before_fork(self) -> bool:
        """Wait for the thread if it is about to end."""
        return self.background.before_fork()


class BackgroundLoop:
    """An event loop in a thread, which makes the calls of one synchronous batch.

    Args:
        invoker: of the client whose calls they are; settings, retry budget and limiters are shared with it.
        calls: makes them.
    """

    def __init__(self, invoker: Invoker, calls: BatchCalls) -> None:
        self.done: SimpleQueue[Result | None] = SimpleQueue()
        """Results as they come; None when the loop has ended."""
        self._calls = calls
        settings = dataclasses.replace(invoker.settings, interceptors=asynchronous(invoker.settings.interceptors))
        self._native = AsyncInvoker(settings, None)
        self._native.registry = registry = _Registry(settings)
        registry.background = self
        self._native.state = invoker.state
        self._inbox: deque[tuple[int, Prompt]] = deque()
        self._told = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._worker: StoppableThread | None = None
        self._ending = self._ended = False
        self._invoker = invoker
        self._batches = invoker.registry.batches

    def start(self) -> None:
        """Start the thread.

        Raises:
            ConfigurationError: it cannot be started.
        """
        self._batches[self] = self._invoker.state
        try:
            self._worker = StoppableThread("yandexgpt-many", self._run, self._stop)
        except ConfigurationError:
            self._loop.close()
            raise
        except BaseException:  # Ctrl-C: the thread may run, or not
            self._stop()
            raise
        if self._invoker.closed or self._invoker.registry.closed:  # meanwhile, and perhaps before this was known
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
            self._worker.stop_and_join()
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
            (self._worker.stop_and_join if wait else self._worker.stop)()

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
            result = await self._calls.answer(self._native, index, prompt)
        except BaseException as error:
            if self._stopped.is_set():
                raise
            # Whatever else ends the call, such as an interceptor: the reader, who waits, is told.
            result = self._calls.given_up(index, prompt, error)
        self.done.put(result)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            self._ended = True
            if not interpreter_is_exiting():
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
