"""``stream(..., latest=True)``: gives readers that are slower than the service only the newest message.

Every message holds the whole text so far, so a message is useless once a newer one has arrived. A thread or a task per
stream reads the call as fast as messages arrive, and keeps the last one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from yandexgpt._concurrency.event_loops import cancel_and_wait
from yandexgpt._concurrency.threads import AutoResetEvent, StoppableThread, interpreter_is_exiting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from yandexgpt._models import CompletionResponse
    from yandexgpt._rpc.call import Call

__all__ = ["conflate", "conflate_async"]


class LatestValue:
    """The newest message and the outcome of a call, passed from the producer, which reads the call, to the consumer.

    No message is lost: the producer changes ``value`` before it sets ``arrived``, and the consumer reads ``value``
    after it has reset ``arrived``.
    """

    def __init__(self, arrived: AutoResetEvent | asyncio.Event) -> None:
        self.arrived = arrived
        self.value: deque[CompletionResponse] = deque(maxlen=1)
        self.finished = False
        self.answer: CompletionResponse | None = None
        self.error: BaseException | None = None

    def put(self, response: CompletionResponse) -> None:
        """Replace the message by a newer one."""
        self.value.append(response)
        self.arrived.set()

    def finish(self, call: Call) -> None:
        """Record the end of the call. Its answer is withheld until the consumer has reached the end."""
        self.answer, call.answer = call.answer, None
        self.finished = True
        if not interpreter_is_exiting():
            self.arrived.set()

    def cancel_unfinished(self, call: Call) -> None:
        """Cancel the call, unless it has ended: the consumer has stopped."""
        if not self.finished:
            call.cancel()

    def apply_outcome(self, call: Call) -> None:
        """Set the answer of the call: the consumer has reached the end.

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
            del error  # its traceback refers to this frame: a reference cycle


def conflate(
    responses: Generator[CompletionResponse, None, None], call: Call
) -> Generator[CompletionResponse, None, None]:
    """Yield the newest message of a call at each step, and always the last one."""
    arrived = AutoResetEvent()
    latest = LatestValue(arrived)
    producer = StoppableThread(
        "yandexgpt-latest", partial(_produce, responses, call, latest), partial(latest.cancel_unfinished, call)
    )
    in_finalizer = False
    try:
        while True:
            finished = latest.finished  # read before the value: no message arrives after it is set
            if latest.value:
                yield latest.value.popleft()
            elif finished:
                break
            else:
                producer.check()
                arrived.wait()
    except GeneratorExit:
        in_finalizer = not call.cancelled  # the stream was not closed, so this is a finalizer, which must not wait
        raise
    finally:
        if in_finalizer:
            producer.stop()
        else:
            producer.stop_and_join()
        call.answer = None
    latest.apply_outcome(call)


def _produce(responses: Generator[CompletionResponse, None, None], call: Call, latest: LatestValue) -> None:
    try:
        for response in responses:
            latest.put(response)
    except BaseException as error:  # noqa: BLE001  (raised in the consumer)
        latest.error = error
    finally:
        latest.finish(call)


async def conflate_async(
    responses: AsyncGenerator[CompletionResponse, None], call: Call
) -> AsyncGenerator[CompletionResponse, None]:
    """Do the same in an event loop."""
    arrived = asyncio.Event()
    latest = LatestValue(arrived)
    producer = asyncio.ensure_future(_produce_async(responses, call, latest))
    try:
        while True:
            finished = latest.finished
            if latest.value:
                yield latest.value.popleft()
            elif finished:
                break
            else:
                await arrived.wait()
                arrived.clear()
    finally:
        if not latest.finished:
            await cancel_and_wait({producer})
        call.answer = None
    latest.apply_outcome(call)


async def _produce_async(responses: AsyncGenerator[CompletionResponse, None], call: Call, latest: LatestValue) -> None:
    try:
        async for response in responses:
            latest.put(response)
    except BaseException as error:  # noqa: BLE001  (raised in the consumer)
        latest.error = error
    finally:
        latest.finish(call)
