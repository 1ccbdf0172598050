"""What the streams of both clients have in common: everything but waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yandexgpt.completion import Completion
from yandexgpt.errors import RevisedError, YandexGPTError
from yandexgpt.folding import Chunk, Fold, edit, whole_characters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from yandexgpt.calls import Call

__all__ = ["BaseStream", "Speech"]


class BaseStream:
    """A stream's answer so far."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._fold = Fold()
        self._tail: Iterator[Chunk] | None = None

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
        """After the last message of the service: what of it is still to be handed out."""
        if self._call.answer is None:
            return None
        if self._tail is None:
            self._tail = self._fold.end()
        return next(self._tail, None)


class Speech:
    """Text for readers who can only append: what has been said cannot be taken back.

    Args:
        holdback: how many of the last characters to keep unsaid until the answer is final (>= 0).

    Raises:
        ValueError: ``holdback`` is not such a number.
    """

    def __init__(self, holdback: int) -> None:
        if isinstance(holdback, bool) or not isinstance(holdback, int) or holdback < 0:
            raise ValueError(f"holdback must be a whole number of characters from 0, got {holdback!r}")
        self._holdback = holdback
        self._said = ""

    def piece(self, text: str, *, final: bool) -> str:
        """What to say next, now that the answer is ``text``; may be empty.

        Raises:
            RevisedError: something that was said is no longer in it.
        """
        said = self._said
        if not text.startswith(said):
            raise RevisedError(text, edit(said, text).keep)
        end = len(text) if final else max(len(said), len(text) - self._holdback)
        self._said = text[:end]
        return text[len(said) : end]
