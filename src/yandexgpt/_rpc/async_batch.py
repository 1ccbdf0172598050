"""``complete_many``: a call for each of many prompts, a bounded number of them at a time; asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING

from yandexgpt._concurrency.event_loops import times_cancelled
from yandexgpt._rpc.batch_calls import BatchCalls

if TYPE_CHECKING:
    from yandexgpt._features.batch import AsyncPrompts, BatchOptions, Result
    from yandexgpt._request import Prompt
    from yandexgpt._rpc.async_invoker import AsyncInvoker
    from yandexgpt.errors import CancelledError

__all__ = ["AsyncBatch"]


class AsyncBatch:
    """An asynchronous batch under way: one task reads its prompts, and each of its calls is made by a task."""

    iterables = (Iterable, AsyncIterable)

    def __init__(self, invoker: AsyncInvoker, options: BatchOptions) -> None:
        self._invoker = invoker
        self._options = options
        self._calls = BatchCalls(invoker, options)
        self.cancelled = False
        self._buffer = options.buffer()
        self._tasks: set[asyncio.Task[Result]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._exhausted = False
        self._broken: BaseException | None = None

    async def results(self) -> AsyncGenerator[Result, None]:
        """The results, while prompts are read as far as they may be."""
        options, buffer = self._options, self._buffer
        self._feeder = asyncio.ensure_future(self._feed())
        try:
            while True:
                if (result := buffer.pop()) is not None:
                    self._room.set()
                    yield options.handed_out(result)
                elif self.cancelled:
                    raise self._calls.closed_meanwhile()
                elif self._exhausted and buffer.empty:
                    break
                else:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self.cancel()
            await asyncio.wait({self._feeder, *self._tasks})
        broken, self._broken = self._broken, None
        if broken is not None:
            try:
                raise broken
            finally:
                del broken  # it refers to this frame

    def cancel(self) -> None:
        """Cancel what is under way."""
        self.cancelled = True
        self._changed.set()
        if self._feeder is not None:
            self._feeder.cancel()
        for task in self._tasks:
            task.cancel()

    async def _feed(self) -> None:
        """Read the prompts, as far as they may be, and begin their calls."""
        options, buffer, room = self._options, self._buffer, self._room
        try:
            async for prompt in _each(options.prompts):
                self._calls.check_open(buffer)
                task = asyncio.ensure_future(self._answer_or_give_up(buffer.take(), prompt))
                self._tasks.add(task)
                task.add_done_callback(self._finished)
                if options.may_block:
                    await asyncio.sleep(0)  # what is ready is handed out before a prompt is read that takes its time
                while not buffer.has_capacity or (options.may_block and buffer.ready):
                    room.clear()
                    await room.wait()
        except BaseException as error:  # noqa: BLE001  (it is raised when those before it are handed out)
            self._broken = error
        finally:
            self._exhausted = True
            self._changed.set()

    async def _answer_or_give_up(self, index: int, prompt: Prompt) -> Result:
        try:
            return await self._calls.answer(self._invoker, index, prompt)
        except asyncio.CancelledError as error:
            if self.cancelled or times_cancelled():
                raise
            return self._calls.given_up(index, prompt, error)  # an interceptor's doing

    def _finished(self, task: asyncio.Task[Result]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # not by whoever waits for it: by the end of the loop
            self.cancelled = True
        elif (error := task.exception()) is not None:  # no Exception: those are in the result
            self._broken = error
            self.cancelled = True
        else:
            self._buffer.finished(task.result())
            self._room.set()
        self._changed.set()

    def closed_meanwhile(self) -> CancelledError:
        """For a reader whose results were closed by somebody else."""
        return self._calls.closed_meanwhile()


async def _each(prompts: AsyncPrompts) -> AsyncIterator[Prompt]:
    if isinstance(prompts, AsyncIterable):
        async for prompt in prompts:
            yield prompt
    else:
        for prompt in prompts:
            yield prompt
