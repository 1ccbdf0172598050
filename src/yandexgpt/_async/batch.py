"""The iterator that ``complete_many`` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yandexgpt._concurrency.closing import AsyncClosing

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from yandexgpt._features.batch import Result
    from yandexgpt._rpc.async_batch import AsyncBatch

__all__ = ["AsyncResults"]


class AsyncResults:
    """The results of many prompts: an iterator of :class:`~yandexgpt.Result`, and a context manager.

    Nothing is sent before the first result is requested. Leaving the ``with``, :meth:`close`, dropping the iterator and
    cancelling the task cancel the calls in flight.
    """

    def __init__(self, batch: AsyncBatch) -> None:
        self._batch = batch
        self._results = batch.results()
        self._closing = AsyncClosing()

    async def close(self) -> None:
        """Cancel the calls in flight. Idempotent; another task that reads gets a ``CancelledError``."""
        await self._closing.close(self._results, self._batch)

    aclose = close  # async only
    """The same under the name that :func:`contextlib.aclosing` looks for."""  # async only

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        # sync: self._closing.start_iteration()
        return self

    async def __anext__(self) -> Result:
        """The next result.

        Raises:
            APIError, ValueError, TypeError: the prompt has no answer, with ``on_error="raise"``; all other calls are
                cancelled.
            CancelledError: another task has closed the results, or a read was interrupted.
            Exception: the iterable of prompts raised it.
        """
        self._closing.record_reader()  # async only
        try:
            return await self._results.__anext__()
        except StopAsyncIteration:
            if self._closing.ended_early():
                raise self._batch.closed_error() from None
            self._closing.mark_finished()
            raise
        except BaseException as error:
            if self._closing.is_concurrent_close(error, self._batch):
                raise self._batch.closed_error() from error
            raise
