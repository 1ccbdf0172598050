# Generated from ../_async by scripts/unasync.py. Do not edit.
"""Streamed answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

from yandexgpt._chunks import AppendOnlyText, StreamState, trim_response
from yandexgpt._concurrency.closing import Closing
from yandexgpt._models import Completion
from yandexgpt.errors import YandexGPTError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from yandexgpt._chunks import Chunk
    from yandexgpt._models import CompletionResponse
    from yandexgpt._rpc.call import Call

__all__ = ["Stream"]


class Stream:
    """A streamed answer: a context manager, and an iterator of :class:`~yandexgpt.Chunk`.

    The request is sent when the first chunk is requested. Leaving the ``with``, :meth:`close`, dropping the stream and
    Ctrl-C cancel the call at the service. A call that fails before its first chunk is retried by the
    client's ``retry``. A call that fails later raises at once; the error's ``partial`` holds the answer so far.
    """

    def __init__(
        self,
        messages: Generator[CompletionResponse, None, None],
        call: Call,
        on_end: Callable[[Completion | None], object] | None = None,
    ) -> None:
        self._messages = messages
        self._call = call
        self._on_end = on_end
        """Called once: with the answer at the end of the stream, or with None when the stream is closed or fails."""
        self._outcome: dict[str, bool] = {}
        """Whether the stream has ended with its answer. The first of reader and closer decides."""
        self._state = StreamState()
        self._closing = Closing()
        self._text_position: tuple[object, str] | None = None
        """The last message at which :meth:`text` yielded, and the text yielded until then."""

    @property
    def request_id(self) -> str:
        """The client's id of the call (``x-client-request-id``)."""
        return self._call.request_id

    @property
    def completion(self) -> Completion:
        """The whole answer, after the end of the stream.

        Raises:
            YandexGPTError: the stream has not ended yet, or it was closed or failed before its end.
        """
        if self._call.answer is None:
            if self._call.cancelled:
                raise YandexGPTError(
                    "the answer is not whole: the stream was closed before finish() or its end; see partial"
                )
            raise YandexGPTError("the answer is not whole: iterate over the stream to its end, or call finish()")
        return self._call.completion()

    @property
    def partial(self) -> Completion | None:
        """The answer so far, without an incomplete character at its end; None before the first chunk."""
        if self._call.answer is not None:
            return self._call.completion()
        message = self._state.message
        return None if message is None else Completion(trim_response(message), self._call.request_id)

    def finish(self) -> Completion:
        """Read the stream to its end.

        Returns:
            The whole answer.

        Raises:
            APIError: the call failed.
            YandexGPTError: the stream was closed or failed earlier.
        """
        for _ in self:
            pass
        return self.completion

    def text(self, *, holdback: int = 0) -> Iterator[str]:
        """Iterate over pieces of append-only text, for consumers that cannot replace text.

        Args:
            holdback: how many of the last characters to withhold until the answer is final (>= 0). A revision within
                these characters raises no error.

        Raises:
            ValueError: ``holdback`` is not a whole number from 0.
            RevisedError: while iterating, the service changed text that was already yielded.
            APIError: while iterating, the call failed.
        """
        message, appended = self._text_position or (None, "")
        # If chunks were read since the last piece, the consumer has their text.
        shown = appended if message is self._state.message else self._state.text
        return self._pieces(AppendOnlyText(holdback, shown))

    def _pieces(self, text: AppendOnlyText) -> Iterator[str]:
        for chunk in self:
            if piece := self._piece(text, chunk.text, final=chunk.status.final):
                yield piece
        if self._call.answer is not None and (piece := self._piece(text, self.completion.text, final=True)):
            yield piece

    def _piece(self, text: AppendOnlyText, whole: str, *, final: bool) -> str:
        piece = text.piece(whole, final=final)
        self._text_position = self._state.message, text.appended
        return piece

    def close(self) -> None:
        """Cancel the call if it is in flight. Idempotent; another thread that reads gets a ``CancelledError``."""
        try:
            self._closing.close(self._messages, self._call)
        finally:
            self._notify_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        self._closing.start_iteration()
        return self

    def __next__(self) -> Chunk:
        """The next chunk.

        Raises:
            APIError: the call failed.
            CancelledError: another thread has closed the stream before its end, or a read was interrupted.
        """
        try:
            return self._state.next(self._messages.__next__())
        except StopIteration:
            if (chunk := self._last_chunk()) is None:
                if not self._notify_end():
                    raise self._call.cancelled_error(self._state.message) from None
                raise
            return chunk
        except BaseException as error:
            self._notify_end()
            if self._closing.is_concurrent_close(error, self._call):
                raise self._call.cancelled_error(self._state.message) from error
            raise

    def _last_chunk(self) -> Chunk | None:
        """The chunk after the last message, if text of that message was withheld; else None.

        Raises:
            CancelledError: another thread has closed the stream before its end, or a read was interrupted.
        """
        if self._call.answer is not None:
            return self._state.finish()
        if self._closing.ended_early():
            self._notify_end()
            raise self._call.cancelled_error(self._state.message)
        return None

    def _notify_end(self) -> bool:
        """Record the outcome, and notify the chat of the stream.

        Returns:
            Whether the outcome is the one recorded first. It is not if another thread has closed the stream when its
            answer was not there yet, and the answer has arrived nevertheless: the chat has dropped this turn.
        """
        completion = None if self._call.answer is None else self.completion
        whole = completion is not None
        if self._outcome.setdefault("whole", whole) is not whole:  # atomic
            return not whole
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(completion)
        return True
