"""Answers as they are written: the streams of both clients."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any, cast

from yandexgpt._chunks import Chunk, Fold, edit, whole_characters
from yandexgpt._concurrency.closing import AsyncClosing, Closing
from yandexgpt._models import Completion
from yandexgpt.errors import RevisedError, YandexGPTError

if TYPE_CHECKING:
    from types import AsyncGeneratorType, TracebackType

    from typing_extensions import Self

    from yandexgpt._models import CompletionResponse
    from yandexgpt._rpc.call import Call

__all__ = ["AsyncStream", "Speech", "Stream", "close", "is_running"]


class BaseStream:
    """A stream's answer so far."""

    _kind_of_closing: type[Closing] | type[AsyncClosing]

    def __init__(self, call: Call) -> None:
        self._call = call
        self._fold = Fold()
        self._closing = self._kind_of_closing()
        self._interrupted = False
        """Whether a read was ended by a cancelled task, or by Ctrl-C: the call is over, and its reader may go on."""
        self._spoken: tuple[object, str] | None = None
        """How far the text was said, and of which message."""

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
        response = self._fold.response
        return None if response is None else Completion(whole_characters(response), self._call.request_id)

    def _end(self) -> Chunk | None:
        """After the last message of the service: what of it is still to be handed out.

        Raises:
            CancelledError: somebody else has closed the stream before its end, or a read was interrupted.
        """
        if self._call.answer is not None:
            return self._fold.end()
        if self._interrupted or self._closing.cuts_off():
            raise self._call.ended_here(self._fold.response)
        return None

    def _speech(self, holdback: int) -> Speech:
        """What goes on saying the text where the reader is: after the last piece, or the last chunk if that came later.

        Raises:
            ValueError: ``holdback`` is not such a number.
        """
        shown, said = self._spoken or (None, "")
        return Speech(holdback, said if shown is self._fold.shown else self._fold.text)

    def _piece(self, speech: Speech, text: str, *, final: bool) -> str:
        piece = speech.piece(text, final=final)
        self._spoken = self._fold.shown, speech.said
        return piece


class Speech:
    """Text for readers who can only append: what has been said cannot be taken back.

    Args:
        holdback: how many of the last characters to keep unsaid until the answer is final (>= 0).
        said: what was said before.

    Raises:
        ValueError: ``holdback`` is not such a number.
    """

    def __init__(self, holdback: int, said: str = "") -> None:
        if isinstance(holdback, bool) or not isinstance(holdback, int) or holdback < 0:
            raise ValueError(f"holdback must be a whole number of characters from 0, got {holdback!r}")
        self._holdback = holdback
        self.said = said

    def piece(self, text: str, *, final: bool) -> str:
        """What to say next, now that the answer is ``text``; may be empty.

        Raises:
            RevisedError: something that was said is no longer in it.
        """
        said = self.said
        if not text.startswith(said):
            raise RevisedError(text, edit(said, text).keep)
        end = len(text) if final else max(len(said), len(text) - self._holdback)
        self.said = text[:end]
        return text[len(said) : end]


class Stream(BaseStream):
    """An answer as it is written: a context manager, and an iterator of :class:`~yandexgpt.Chunk`.

    The request is sent when the first chunk is asked for. Leaving the ``with``, :meth:`close`, dropping the stream and
    Ctrl-C cancel the call at the service. A call that fails before its first chunk is sent again as the client's
    ``retry`` says; after it the error is raised at once, with what there was in its ``partial``.
    """

    _kind_of_closing = Closing
    _closing: Closing

    def __init__(self, responses: Generator[CompletionResponse, None, None], call: Call) -> None:
        super().__init__(call)
        self._responses = responses

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
            holdback: how many of the last characters to keep unsaid until the answer is final (>= 0): a revision that
                reaches no further back goes unnoticed.

        Raises:
            ValueError: ``holdback`` is not such a number.
            RevisedError: while iterating, the service took back something that was already handed out.
            APIError: while iterating, the call failed.
        """
        return self._pieces(self._speech(holdback))

    def _pieces(self, speech: Speech) -> Iterator[str]:
        for chunk in self:
            if piece := self._piece(speech, chunk.text, final=chunk.status.final):
                yield piece
        if self._call.answer is not None and (piece := self._piece(speech, self.completion.text, final=True)):
            yield piece

    def close(self) -> None:
        """Cancel the call if it is still under way. Idempotent; another thread that reads gets a ``CancelledError``."""
        self._closing.closed()
        self._call.cancelled = True
        if not close(self._responses):
            self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        self._closing.begins()
        return self

    def __next__(self) -> Chunk:
        """The next chunk.

        Raises:
            APIError: the call failed.
            CancelledError: the stream was closed before its end while it was iterated over, or a read was interrupted.
        """
        try:
            for response in self._responses:
                return Chunk(response, self._fold)
        except ValueError as error:
            if not (self._call.cancelled and is_running(error)):
                raise
            raise self._call.ended_here(self._fold.response) from error  # another thread is about to close the stream
        except Exception:
            raise
        except BaseException:
            self._interrupted = True
            raise
        if (chunk := self._end()) is None:
            raise StopIteration
        return chunk


class AsyncStream(BaseStream):
    """An answer as it is written: a context manager, and an iterator of :class:`~yandexgpt.Chunk`.

    The request is sent when the first chunk is asked for. Leaving the ``with``, :meth:`close`, dropping the stream and
    cancelling the task cancel the call at the service. A call that fails before its first chunk is sent again as the
    client's ``retry`` says; after it the error is raised at once, with what there was in its ``partial``.
    """

    _kind_of_closing = AsyncClosing
    _closing: AsyncClosing

    def __init__(self, responses: AsyncGenerator[CompletionResponse, None], call: Call) -> None:
        super().__init__(call)
        self._responses = responses
        call.generator = weakref.ref(responses)

    async def finish(self) -> Completion:
        """Read on to the end.

        Raises:
            APIError: the call failed.
            YandexGPTError: the stream was closed, or broke, before.
        """
        async for _ in self:
            pass
        return self.completion

    def text(self, *, holdback: int = 0) -> AsyncIterator[str]:
        """Iterate over pieces of text to append, for readers who cannot take anything back.

        Args:
            holdback: how many of the last characters to keep unsaid until the answer is final (>= 0): a revision that
                reaches no further back goes unnoticed.

        Raises:
            ValueError: ``holdback`` is not such a number.
            RevisedError: while iterating, the service took back something that was already handed out.
            APIError: while iterating, the call failed.
        """
        return self._pieces(self._speech(holdback))

    async def _pieces(self, speech: Speech) -> AsyncIterator[str]:
        async for chunk in self:
            if piece := self._piece(speech, chunk.text, final=chunk.status.final):
                yield piece
        if self._call.answer is not None and (piece := self._piece(speech, self.completion.text, final=True)):
            yield piece

    async def close(self) -> None:
        """Cancel the call if it is still under way. Idempotent; another task that reads gets a ``CancelledError``."""
        self._closing.closed()
        self._call.cancel()
        if not cast("AsyncGeneratorType[CompletionResponse, None]", self._responses).ag_running:
            await self._responses.aclose()

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

    async def __anext__(self) -> Chunk:
        """The next chunk.

        Raises:
            APIError: the call failed.
            CancelledError: another task has closed the stream before its end, or a read was cancelled.
        """
        self._closing.reads()
        try:
            return Chunk(await self._responses.__anext__(), self._fold)
        except StopAsyncIteration:
            if (chunk := self._end()) is None:
                raise
            return chunk
        except asyncio.CancelledError:
            self._interrupted = True
            raise
        except RuntimeError as error:
            if not self._call.cancelled:
                raise
            raise self._call.ended_here(self._fold.response) from error  # another task is about to close the stream


def is_running(error: ValueError) -> bool:
    """Whether the error says that another thread runs the generator."""
    return str(error) == "generator already executing"


def close(generator: Generator[Any, None, None]) -> bool:
    """Close a generator, unless it is running.

    Returns:
        Whether it is closed; if not, whoever runs it has to be told to end it.
    """
    if generator.gi_running:  # type: ignore[attr-defined]  # looked at first: CPython 3.11 may crash on closing one
        return False
    try:
        generator.close()
    except ValueError:  # another thread has begun to run it
        if inspect.getgeneratorstate(generator) != inspect.GEN_RUNNING:
            raise
        return False
    return True
