"""``stream(..., latest=True)``: for readers slower than the service, only the newest message.

Every message holds the whole text so far, so one that was overtaken is of no use to anybody. A thread or a task for
each stream reads the call as fast as messages come, and keeps the last one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from yandexgpt._concurrency.threads import AutoResetEvent, StoppableThread, interpreter_is_exiting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from yandexgpt._models import CompletionResponse
    from yandexgpt._rpc.call import Call

__all__ = ["conflate", "conflate_async"]


class LatestValue:
    """Where the one who reads the call leaves the newest message, and how the call ended, for the one who asks.

    Nothing is lost: ``value`` changes before ``arrived`` is set, and is looked at after it was reset.
    """

    def __init__(self, arrived: AutoResetEvent | asyncio.Event) -> None:
        self.arrived = arrived
        self.value: deque[CompletionResponse] = deque(maxlen=1)
        self.over = False
        self.answer: CompletionResponse | None = None
        self.error: BaseException | None = None

    def put(self, response: CompletionResponse) -> None:
        """Another message has come."""
        self.value.append(response)
        self.arrived.set()

    def end(self, call: Call) -> None:
        """There will be no other. The call's answer is kept back: the reader has not come so far."""
        self.answer, call.answer = call.answer, None
        self.over = True
        if not interpreter_is_exiting():
            self.arrived.set()

    def stop(self, call: Call) -> None:
        """Nobody asks any more."""
        if not self.over:
            call.cancel()

    def settle(self, call: Call) -> None:
        """The reader has come to the end.

        Raises:
            APIError: the call failed.
        """
        error, self.error = self.error, None
        if error is None:
            call.answer = self.answer
            return
        try:
            raise error
        finally:
            del error  # it refers to this frame


def conflate(
    responses: Generator[CompletionResponse, None, None], call: Call
) -> Generator[CompletionResponse, None, None]:
    """Of the messages of a call, whenever one is asked for, the newest; the last one always."""
    arrived = AutoResetEvent()
    latest = LatestValue(arrived)
    worker = StoppableThread("yandexgpt-latest", partial(_read, responses, call, latest), partial(latest.stop, call))
    dropped = False
    try:
        while True:
            over = latest.over  # before the look: nothing comes after it
            if latest.value:
                yield latest.value.popleft()
            elif over:
                break
            else:
                worker.check()
                arrived.wait()
    except GeneratorExit:
        dropped = not call.cancelled  # nobody has closed the stream, so this is a finalizer, which must not wait
        raise
    finally:
        if dropped:
            worker.stop()
        else:
            worker.stop_and_join()
        call.answer = None
    latest.settle(call)


def _read(responses: Generator[CompletionResponse, None, None], call: Call, latest: LatestValue) -> None:
    try:
        for response in responses:
            latest.put(response)
    except BaseException as error:  # noqa: BLE001  (it is for whoever asks)
        latest.error = error
    finally:
        latest.end(call)


async def conflate_async(
    responses: AsyncGenerator[CompletionResponse, None], call: Call
) -> AsyncGenerator[CompletionResponse, None]:
    """The same in an event loop."""
    arrived = asyncio.Event()
    latest = LatestValue(arrived)
    reader = asyncio.ensure_future(_read_async(responses, call, latest))
    try:
        while True:
            over = latest.over
            if latest.value:
                yield latest.value.popleft()
            elif over:
                break
            else:
                await arrived.wait()
                arrived.clear()
    finally:
        if not latest.over:
            reader.cancel()
            await asyncio.wait({reader})
        call.answer = None
    latest.settle(call)


async def _read_async(responses: AsyncGenerator[CompletionResponse, None], call: Call, latest: LatestValue) -> None:
    try:
        async for response in responses:
            latest.put(response)
    except BaseException as error:  # noqa: BLE001  (it is for whoever asks)
        latest.error = error
    finally:
        latest.end(call)
