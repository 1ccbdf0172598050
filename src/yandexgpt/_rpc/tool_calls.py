"""Makes the tool calls of one answer concurrently: in threads or in tasks."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Iterable
from concurrent import futures
from typing import TYPE_CHECKING, Any

from yandexgpt._concurrency.threads import SIGNAL_CHECK_INTERVAL
from yandexgpt._features.tool_loop import failure_result, success_result
from yandexgpt._messages import ToolResult

if TYPE_CHECKING:
    from yandexgpt._features.tool_loop import ToolLoop
    from yandexgpt._messages import ToolCall

__all__ = ["call_tools", "call_tools_async"]

logger = logging.getLogger("yandexgpt")

_MAX_THREADS = 8
"""How many calls of one answer a synchronous client makes at once. Functions mostly wait, and an answer rarely has more
calls."""


def call_tools(loop: ToolLoop, calls: Iterable[ToolCall]) -> list[ToolResult]:
    """Make the calls of one answer in threads, and return their results in order.

    If no thread can be started, because the interpreter is exiting, the calls are made one by one in this thread.
    """
    jobs = [(call, contextvars.copy_context(), futures.Future[ToolResult]()) for call in calls]
    queue = deque(jobs)

    def work() -> None:
        while queue:
            try:
                call, context, result = queue.popleft()
            except IndexError:  # another thread has taken the last one
                return
            try:
                result.set_result(context.run(_call_tool, loop, call))
            except BaseException as error:  # noqa: BLE001  (SystemExit, for example, is raised in the caller)
                result.set_exception(error)

    try:
        for number in range(min(_MAX_THREADS, len(jobs))):
            if not _try_start(threading.Thread(target=work, name=f"yandexgpt-tool_{number}")):
                if number == 0:
                    work()
                break
        results = []
        for _, _, result in jobs:
            while not futures.wait([result], SIGNAL_CHECK_INTERVAL).done:
                pass
            results.append(result.result())
        return results
    finally:
        queue.clear()


def _try_start(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError as error:
        logger.info("no thread can be started for tool calls, so the calling thread makes them: %s", error)
        return False
    return True


def _call_tool(loop: ToolLoop, call: ToolCall) -> ToolResult:
    begun = loop.start(call)
    if isinstance(begun, ToolResult):
        return begun
    try:
        return asyncio.run(_await_result(call, begun))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (only the function itself can raise it)
        return failure_result(call, error)


async def call_tools_async(loop: ToolLoop, calls: Iterable[ToolCall]) -> list[ToolResult]:
    """Make the calls of one answer, each in a task, and return their results in order.

    A synchronous function is called in a thread. If the task is cancelled, the function still runs to its end.
    """

    async def make_call(call: ToolCall) -> ToolResult:
        begun = loop.start(call) if loop.starts_without_blocking(call) else await _begin_in_thread(loop, call)
        return begun if isinstance(begun, ToolResult) else await _await_result(call, begun)

    tasks = {asyncio.ensure_future(make_call(call)): call for call in calls}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        # If a task is cancelled, the function itself has raised CancelledError: a cancellation by the caller would have
        # ended the wait above.
        return [
            failure_result(call, asyncio.CancelledError()) if task.cancelled() else task.result()
            for task, call in tasks.items()
        ]
    finally:
        for task in tasks:
            task.cancel()


async def _begin_in_thread(loop: ToolLoop, call: ToolCall) -> ToolResult | Awaitable[Any]:
    """Begin the call in a thread, or in this one if none can be started because the interpreter is exiting."""
    begun: futures.Future[ToolResult | Awaitable[Any]] = futures.Future()
    permits = deque([None])

    def begin() -> None:
        try:
            permits.pop()
        except IndexError:  # begun below: the executor ran it although it had failure_result to start a thread
            return
        try:
            begun.set_result(loop.start(call))
        except BaseException as error:  # noqa: BLE001  (SystemExit, for example, is raised in the caller)
            begun.set_exception(error)

    try:
        await asyncio.to_thread(begin)
    except RuntimeError as error:
        logger.info("no thread can be started for a tool call, so the thread of the event loop makes it: %s", error)
        begin()
    return await asyncio.wrap_future(begun)


async def _await_result(call: ToolCall, result: Awaitable[Any]) -> ToolResult:
    """Wait for the result of an asynchronous function."""
    try:
        return success_result(call, await result)
    except Exception as error:  # noqa: BLE001  (the model gets the error as the result)
        return failure_result(call, error)
