# Generated from ../_async by scripts/unasync.py. Do not edit.
"""Answers as they are written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

from yandexgpt._chunks import AppendOnlyText, StreamState, whole_characters
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
    """An answer as it is written: a context manager, and an iterator of :class:`~yandexgpt.Chunk`.

    The request is sent when the first chunk is asked for. Leaving the ``with``, :meth:`close`, dropping the stream and
    Ctrl-C cancel the call at the service. A call that fails before its first chunk is sent again as the
    client's ``retry`` says; after it the error is raised at once, with what there was in its ``partial``.
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
        """Called with the answer at the end of the stream, with None when it is closed or breaks."""
        self._state = StreamState()
        self._closing = Closing()
        self._appended: tuple[object, str] | None = None
        """The text that readers of :meth:`text` have, and the message that it is of."""

    @property
    def request_id(self) -> str:
        """The client's id of the call (``x-client-request-id``)."""
        return self._call.request_id

    @property
    def completion(self) -> Completion:
        """The whole answer, once the stream has ended.

        Raises:
            YandexGPTError: it has not ended yet, or was closed or broke before its end.
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
        """What there is so far, never ending in half a character; None before the first chunk."""
        if self._call.answer is not None:
            return self._call.completion()
        message = self._state.message
        return None if message is None else Completion(whole_characters(message), self._call.request_id)

    def finish(self) -> Completion:
        """Read on to the end.

        Raises:
            APIError: the call failed.
            YandexGPTError: the stream was closed, or broke, before.
        """
        for _ in self:
            pass
        return self.completion

    def text(self, *, holdback: int = 0) -> Iterator[str]:
        """Iterate over pieces of text to append, for readers who cannot take anything back.

        Args:
            holdback: how many of the last characters to keep back until the answer is final (>= 0): a revision that
                reaches no further back goes unnoticed.

        Raises:
            ValueError: ``holdback`` is not such a number.
            RevisedError: while iterating, the service took back something that was already handed out.
            APIError: while iterating, the call failed.
        """
        message, appended = self._appended or (None, "")
        # Chunks may have been read since the last piece: then the reader has their text.
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
        self._appended = self._state.message, text.appended
        return piece

    def close(self) -> None:
        """Cancel the call if it is still under way. Idempotent; another thread that reads gets a ``CancelledError``."""
        try:
            self._closing.close(self._messages, self._call)
        finally:
            self._end(None)

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
                self._end(None if self._call.answer is None else self.completion)
                raise
            return chunk
        except BaseException as error:
            self._end(None)
            if self._closing.is_concurrent_close(error, self._call):
                raise self._call.cancelled_error(self._state.message) from error
            raise

    def _last_chunk(self) -> Chunk | None:
        """After the last message of the service: the rest of its text, if some was held back.

        Raises:
            CancelledError: somebody else has closed the stream before its end, or a read was interrupted.
        """
        if self._call.answer is not None:
            return self._state.end()
        if self._closing.ended_early():
            self._end(None)
            raise self._call.cancelled_error(self._state.message)
        return None

    def _end(self, completion: Completion | None) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(completion)
