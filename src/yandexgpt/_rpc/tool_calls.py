"""The calls of tools that one answer asks for, made at the same time: in threads, and in tasks."""

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
from yandexgpt._features.tool_loop import failed, succeeded
from yandexgpt._messages import ToolResult

if TYPE_CHECKING:
    from yandexgpt._features.tool_loop import ToolLoop
    from yandexgpt._messages import ToolCall

__all__ = ["call_tools", "call_tools_async"]

logger = logging.getLogger("yandexgpt")

_THREADS = 8
"""Calls of one answer that a synchronous client makes at once: functions mostly wait, and answers rarely hold more."""


def call_tools(loop: ToolLoop, calls: Iterable[ToolCall]) -> list[ToolResult]:
    """Make the calls of one answer, each in a thread, and return their results in order.

    Where no thread can be started, because the interpreter is shutting down, they are made one after another here.
    """
    made = [(call, contextvars.copy_context(), futures.Future[ToolResult]()) for call in calls]
    waiting = deque(made)

    def work() -> None:
        while waiting:
            try:
                call, context, result = waiting.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                result.set_result(context.run(_call, loop, call))
            except BaseException as error:  # noqa: BLE001  (SystemExit and the like are for the caller)
                result.set_exception(error)

    try:
        for number in range(min(_THREADS, len(made))):
            if not _started(threading.Thread(target=work, name=f"yandexgpt-tool_{number}")):
                if number == 0:
                    work()
                break
        results = []
        for _, _, result in made:
            while not futures.wait([result], SIGNAL_CHECK_INTERVAL).done:
                pass
            results.append(result.result())
        return results
    finally:
        waiting.clear()


def _started(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError as error:
        logger.info("tools are called without a thread of their own: %s", error)
        return False
    return True


def _call(loop: ToolLoop, call: ToolCall) -> ToolResult:
    begun = loop.begin(call)
    if isinstance(begun, ToolResult):
        return begun
    try:
        return asyncio.run(_end(call, begun))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (the function's own: who else could cancel it)
        return failed(call, error)


async def call_tools_async(loop: ToolLoop, calls: Iterable[ToolCall]) -> list[ToolResult]:
    """Make the calls of one answer, each in a task, and return their results in order.

    A synchronous function is called in a thread, which goes on to its end if the task is cancelled.
    """

    async def one(call: ToolCall) -> ToolResult:
        begun = loop.begin(call) if loop.begins_at_once(call) else await _in_thread(loop, call)
        return begun if isinstance(begun, ToolResult) else await _end(call, begun)

    tasks = {asyncio.ensure_future(one(call)): call for call in calls}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        # Nobody has cancelled a task that is: that would have ended the wait above. The function itself raised that.
        return [
            failed(call, asyncio.CancelledError()) if task.cancelled() else task.result()
            for task, call in tasks.items()
        ]
    finally:
        for task in tasks:
            task.cancel()


async def _in_thread(loop: ToolLoop, call: ToolCall) -> ToolResult | Awaitable[Any]:
    """Begin the call in a thread; or here, if none can be started because the interpreter is shutting down."""
    begun: futures.Future[ToolResult | Awaitable[Any]] = futures.Future()
    turn = deque([None])

    def begin() -> None:
        try:
            turn.pop()
        except IndexError:  # it was begun here: a thread of the executor took it although that had failed
            return
        try:
            begun.set_result(loop.begin(call))
        except BaseException as error:  # noqa: BLE001  (SystemExit and the like are for the caller)
            begun.set_exception(error)

    try:
        await asyncio.to_thread(begin)
    except RuntimeError as error:
        logger.info("a tool is called without a thread of its own: %s", error)
        begin()
    return await asyncio.wrap_future(begun)


async def _end(call: ToolCall, result: Awaitable[Any]) -> ToolResult:
    """Wait for the result of an asynchronous function."""
    try:
        return succeeded(call, await result)
    except Exception as error:  # noqa: BLE001  (it is for the model to read)
        return failed(call, error)
