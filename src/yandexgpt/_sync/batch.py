# Generated from ../_async by scripts/unasync.py. Do not edit.
"""The iterator that ``complete_many`` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yandexgpt._concurrency.closing import Closing

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from yandexgpt._features.batch import Result
    from yandexgpt._rpc.batch import Batch

__all__ = ["Results"]


class Results:
    """The results of many prompts: an iterator of :class:`~yandexgpt.Result`, and a context manager.

    Nothing is sent before the first result is requested. Leaving the ``with``, :meth:`close`, dropping the iterator and
    Ctrl-C cancel the calls in flight.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._results = batch.results()
        self._closing = Closing()

    def close(self) -> None:
        """Cancel the calls in flight. Idempotent; another thread that reads gets a ``CancelledError``."""
        self._closing.close(self._results, self._batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        self._closing.start_iteration()
        return self

    def __next__(self) -> Result:
        """The next result.

        Raises:
            APIError, ValueError, TypeError: the prompt has no answer, with ``on_error="raise"``; all other calls are
                cancelled.
            CancelledError: another thread has closed the results, or a read was interrupted.
            Exception: the iterable of prompts raised it.
        """
        try:
            return self._results.__next__()
        except StopIteration:
            if self._closing.ended_early():
                raise self._batch.closed_error() from None
            self._closing.mark_finished()
            raise
        except BaseException as error:
            if self._closing.is_concurrent_close(error, self._batch):
                raise self._batch.closed_error() from error
            raise
