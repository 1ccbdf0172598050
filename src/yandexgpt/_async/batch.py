"""``complete_many`` of the asynchronous client: a call for each of many prompts, a bounded number of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, cast

from yandexgpt._concurrency.closing import AsyncClosing
from yandexgpt._rpc.async_invoker import times_cancelled

if TYPE_CHECKING:
    from types import AsyncGeneratorType, TracebackType

    from typing_extensions import Self

    from yandexgpt._async.client import AsyncClient
    from yandexgpt._features.batch import AsyncPrompts, Plan, Result
    from yandexgpt._request import Prompt

__all__ = ["AsyncResults"]


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
                plan.check_open(window)
                task = asyncio.ensure_future(self._answer(window.take(), prompt))
                self._tasks.add(task)
                task.add_done_callback(self._finished)
                if plan.may_block:
                    await asyncio.sleep(0)  # what is ready is handed out before a prompt is read that takes its time
                while not window.room or (plan.may_block and window.ready):
                    room.clear()
                    await room.wait()
        except BaseException as error:  # noqa: BLE001  (it is raised when those before it are handed out)
            self._broken = error
        finally:
            self._exhausted = True
            self._changed.set()

    async def _answer(self, index: int, prompt: Prompt) -> Result:
        try:
            return await self._plan.answer(self._client, index, prompt)
        except asyncio.CancelledError as error:
            if self._closed or times_cancelled():
                raise
            return self._plan.given_up(index, prompt, error)  # an interceptor's doing

    def _finished(self, task: asyncio.Task[Result]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # not by whoever waits for it: by the end of the loop
            self._closed = True
        elif (error := task.exception()) is not None:  # no Exception: those are in the result
            self._broken = error
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
        self._plan = plan
        self._run = _AsyncRun(plan)
        self._results = self._run.results()
        self._closing = AsyncClosing()
        self._over = False

    async def close(self) -> None:
        """Cancel what is under way. Idempotent; another task that reads gets a ``CancelledError``."""
        if not self._over:
            self._closing.closed()
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
            CancelledError: another task has closed the results.
            Exception: whatever the iterable of prompts raised.
        """
        self._closing.reads()
        try:
            return await self._results.__anext__()
        except StopAsyncIteration:
            if self._closing.cuts_off():
                raise self._plan.closed_meanwhile() from None
            self._over = True
            raise


async def _each(prompts: AsyncPrompts) -> AsyncIterator[Prompt]:
    if isinstance(prompts, AsyncIterable):
        async for prompt in prompts:
            yield prompt
    else:
        for prompt in prompts:
            yield prompt
