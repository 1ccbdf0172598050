"""``stream(..., latest=True)``: for readers slower than the service, only the newest message.

Every message holds the whole text so far, so one that was overtaken is of no use to anybody. Somebody else reads the
call, as fast as messages come, a thread or a task for each stream, and keeps the last one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from yandexgpt._concurrency.threads import Alarm, Worker, exiting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from yandexgpt._models import CompletionResponse
    from yandexgpt._rpc.call import Call

__all__ = ["newest", "newest_async"]


class Slot:
    """Where the one who reads the call leaves the newest message, and how the call ended, for the one who asks.

    Nothing is lost: ``newest`` changes before ``arrived`` is set, and is looked at after it was reset.
    """

    def __init__(self, arrived: Alarm | asyncio.Event) -> None:
        self.arrived = arrived
        self.newest: deque[CompletionResponse] = deque(maxlen=1)
        self.over = False
        self.answer: CompletionResponse | None = None
        self.error: BaseException | None = None

    def put(self, response: CompletionResponse) -> None:
        """Another message has come."""
        self.newest.append(response)
        self.arrived.set()

    def end(self, call: Call) -> None:
        """There will be no other. The call's answer is kept back: the reader has not come so far."""
        self.answer, call.answer = call.answer, None
        self.over = True
        if not exiting():
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


def newest(
    responses: Generator[CompletionResponse, None, None], call: Call
) -> Generator[CompletionResponse, None, None]:
    """Of the messages of a call, whenever one is asked for, the newest; the last one always."""
    arrived = Alarm()
    slot = Slot(arrived)
    worker = Worker("yandexgpt-latest", partial(_read, responses, call, slot), partial(slot.stop, call))
    dropped = False
    try:
        while True:
            over = slot.over  # before the look: nothing comes after it
            if slot.newest:
                yield slot.newest.popleft()
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
            worker.end()
        call.answer = None
    slot.settle(call)


def _read(responses: Generator[CompletionResponse, None, None], call: Call, slot: Slot) -> None:
    try:
        for response in responses:
            slot.put(response)
    except BaseException as error:  # noqa: BLE001  (it is for whoever asks)
        slot.error = error
    finally:
        slot.end(call)


async def newest_async(
    responses: AsyncGenerator[CompletionResponse, None], call: Call
) -> AsyncGenerator[CompletionResponse, None]:
    """The same in an event loop."""
    arrived = asyncio.Event()
    slot = Slot(arrived)
    reader = asyncio.ensure_future(_read_async(responses, call, slot))
    try:
        while True:
            over = slot.over
            if slot.newest:
                yield slot.newest.popleft()
            elif over:
                break
            else:
                await arrived.wait()
                arrived.clear()
    finally:
        if not slot.over:
            reader.cancel()
            await asyncio.wait({reader})
        call.answer = None
    slot.settle(call)


async def _read_async(responses: AsyncGenerator[CompletionResponse, None], call: Call, slot: Slot) -> None:
    try:
        async for response in responses:
            slot.put(response)
    except BaseException as error:  # noqa: BLE001  (it is for whoever asks)
        slot.error = error
    finally:
        slot.end(call)
