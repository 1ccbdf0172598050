"""The asynchronous ``complete_many``: one call per prompt, with limited concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

from yandexgpt._concurrency.event_loops import cancel_and_wait, threadsafe_callback, times_cancelled
from yandexgpt._rpc.batch_calls import BatchCalls

if TYPE_CHECKING:
    from yandexgpt._features.batch import AsyncPrompts, BatchOptions, Result
    from yandexgpt._request import Prompt
    from yandexgpt._rpc.async_invoker import AsyncInvoker
    from yandexgpt.errors import CancelledError

__all__ = ["AsyncBatch"]


class AsyncBatch:
    """A running asynchronous batch: one task reads the prompts, and one task per prompt makes its call."""

    iterables = (Iterable, AsyncIterable)

    def __init__(self, invoker: AsyncInvoker, options: BatchOptions) -> None:
        self._invoker = invoker
        self._options = options
        self._calls = BatchCalls(invoker, options)
        self.cancelled = False
        self._buffer = options.new_buffer()
        self._tasks: set[asyncio.Task[Result]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._cancel_in_loop: Callable[[], object] | None = None
        self._changed = asyncio.Event()
        self._may_have_capacity = asyncio.Event()
        self._exhausted = False
        self._error: BaseException | None = None

    async def results(self) -> AsyncGenerator[Result, None]:
        """Yield the results, while prompts are read as far as the buffer has capacity."""
        options, buffer = self._options, self._buffer
        self._cancel_in_loop = threadsafe_callback(self._cancel_tasks)
        self._feeder = asyncio.ensure_future(self._feed())
        try:
            while True:
                if (result := buffer.pop()) is not None:
                    self._may_have_capacity.set()
                    yield options.check_result(result)
                elif self.cancelled:
                    raise self._calls.closed_error()
                elif self._exhausted and buffer.empty:
                    break
                else:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self.cancelled = True
            await cancel_and_wait({self._feeder, *self._tasks})
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame: a reference cycle

    def cancel(self) -> None:
        """Cancel the calls in flight, from any thread.

        Raises:
            RuntimeError: their event loop is closed.
        """
        self.cancelled = True
        if self._cancel_in_loop is not None:
            self._cancel_in_loop()

    def _cancel_tasks(self) -> None:
        self._changed.set()
        if self._feeder is not None:
            self._feeder.cancel()
        for task in self._tasks:
            task.cancel()

    async def _feed(self) -> None:
        """Read the prompts, as far as the buffer has capacity, and start their calls."""
        options, buffer, may_have_capacity = self._options, self._buffer, self._may_have_capacity
        try:
            async for prompt in _iterate(options.prompts):
                self._calls.check_open(buffer)
                task = asyncio.ensure_future(self._make_call(buffer.add_prompt(), prompt))
                self._tasks.add(task)
                task.add_done_callback(self._call_done)
                if options.may_block:
                    await asyncio.sleep(
                        0
                    )  # finished results are yielded before the next prompt is read, which may block
                while not buffer.has_capacity or (options.may_block and buffer.ready):
                    may_have_capacity.clear()
                    await may_have_capacity.wait()
        except BaseException as error:  # noqa: BLE001  (raised after the results before it were yielded)
            self._error = error
        finally:
            self._exhausted = True
            self._changed.set()

    async def _make_call(self, index: int, prompt: Prompt) -> Result:
        try:
            return await self._calls.complete(self._invoker, index, prompt)
        except asyncio.CancelledError as error:
            if self.cancelled or times_cancelled():
                raise
            return self._calls.failed_result(index, prompt, error)  # raised by an interceptor

    def _call_done(self, task: asyncio.Task[Result]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # not by the reader: the event loop is being shut down
            self.cancelled = True
        elif (error := task.exception()) is not None:  # only a BaseException: an Exception is in the result
            self._error = error
            self.cancelled = True
        else:
            self._buffer.add_result(task.result())
            self._may_have_capacity.set()
        self._changed.set()

    def closed_error(self) -> CancelledError:
        """Return the error for a reader whose results were closed by another task."""
        return self._calls.closed_error()


async def _iterate(prompts: AsyncPrompts) -> AsyncIterator[Prompt]:
    if isinstance(prompts, AsyncIterable):
        async for prompt in prompts:
            yield prompt
    else:
        for prompt in prompts:
            yield prompt
