"""An event loop in a background thread, in which the synchronous client makes many concurrent calls.

A thread per call would use several times the CPU time.
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
from yandexgpt._rpc.interceptors import aio_interceptors
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from yandexgpt._features.batch import Result
    from yandexgpt._request import Prompt
    from yandexgpt._rpc.batch_calls import BatchCalls
    from yandexgpt._rpc.invoker import Invoker

__all__ = ["BackgroundLoop"]

CANCEL_DRAIN_SECONDS = 0.05
"""How long the loop stays open after its calls were cancelled. gRPC delivers the remaining events of such calls to any
event loop of the process, and that one would log an error because this loop is closed."""


class _Registry(AsyncChannelRegistry):
    """Channels whose event loop runs in another thread. They are dropped before a fork only if it has ended."""

    background: BackgroundLoop

    def before_fork(self) -> bool:
        """Wait for the thread if it has been asked to stop."""
        return self.background.before_fork() or super().before_fork()


class BackgroundLoop:
    """An event loop in a thread, which makes the calls of one synchronous batch.

    Args:
        invoker: of the client; settings, retry budget and limiters are shared with it.
        calls: makes the calls.
    """

    def __init__(self, invoker: Invoker, calls: BatchCalls) -> None:
        self.results: SimpleQueue[Result | None] = SimpleQueue()
        """Results in the order of completion; None after the last one, when the loop has stopped."""
        self._calls = calls
        settings = dataclasses.replace(invoker.settings, interceptors=aio_interceptors(invoker.settings.interceptors))
        self._async_invoker = AsyncInvoker(settings, None)
        self._async_invoker.registry = registry = _Registry(settings)
        registry.background = self
        self._async_invoker.state = invoker.state
        self._submitted: deque[tuple[int, Prompt]] = deque()
        self._start_is_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_event = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread: StoppableThread | None = None
        self._stop_requested = self._loop_is_closed = False
        self._invoker = invoker
        self._batches = invoker.registry.batches

    def start(self) -> None:
        """Start the thread.

        Raises:
            ConfigurationError: it cannot be started.
        """
        self._batches[self] = self._invoker.state
        try:
            self._thread = StoppableThread("yandexgpt-many", self._run, self._stop)
        except ConfigurationError:
            self._loop.close()
            raise
        except BaseException:  # Ctrl-C: the thread may have been started or not
            self._stop()
            raise
        # The client may have been closed before this loop was in its registry.
        if self._invoker.closed or self._invoker.registry.closed:
            self.cancel()

    def check(self) -> None:
        """Refuse to continue in the child of a fork.

        Raises:
            ConfigurationError: the thread was started before a fork.
        """
        if self._thread is not None:
            self._thread.check()

    def before_fork(self) -> bool:
        """Return whether the thread runs, and so may be inside gRPC."""
        if self._thread is None:
            return False
        if self._stop_requested:
            self._thread.stop_and_join()
        return not self._loop_is_closed

    def submit(self, index: int, prompt: Prompt) -> None:
        """Start a call."""
        self._submitted.append((index, prompt))
        if not self._start_is_scheduled:  # one callback starts all calls submitted before it runs
            self._start_is_scheduled = True
            self._call_soon(self._start_calls)

    def close(self, *, wait: bool = True) -> None:
        """Cancel the calls in flight, and stop the thread.

        Args:
            wait: join the thread; False in a finalizer.
        """
        self._batches.pop(self, None)
        if self._thread is not None:
            (self._thread.stop_and_join if wait else self._thread.stop)()

    def cancel(self) -> None:
        """Stop because the client was closed; the calls in flight fail with the error for that."""
        self._async_invoker.closed = True
        self._stop()

    def _stop(self) -> None:
        self._stop_requested = True
        self._call_soon(self._stop_event.set)

    def _call_soon(self, function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the reader gets the None of the results
            self._loop.call_soon_threadsafe(function)

    def _start_calls(self) -> None:
        self._start_is_scheduled = False
        while self._submitted and not self._stop_event.is_set():
            task = self._loop.create_task(self._make_call(*self._submitted.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _make_call(self, index: int, prompt: Prompt) -> None:
        try:
            result = await self._calls.complete(self._async_invoker, index, prompt)
        except BaseException as error:
            if self._stop_event.is_set():
                raise
            # Anything else that ends the call, such as an interceptor, must produce a result: the reader waits for it.
            result = self._calls.failed_result(index, prompt, error)
        self.results.put(result)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            self._loop_is_closed = True
            if not interpreter_is_exiting():
                self.results.put(None)

    async def _main(self) -> None:
        await self._stop_event.wait()
        had_calls = bool(self._tasks)
        if self._async_invoker.closed:
            await self._async_invoker.close()
        else:
            for task in self._tasks:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._async_invoker.close()
        if had_calls:
            await asyncio.sleep(CANCEL_DRAIN_SECONDS)
