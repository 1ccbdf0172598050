"""Partials to chunks: the streaming law. Pure: no I/O, no gRPC.

The service sends the whole text so far with every partial, and may change earlier text before the final message. A
reader who applies every chunk,

    ``shown = shown[:chunk.keep] + chunk.delta``

holds ``chunk.text`` after each of them, and the completion's text after the last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from yandexgpt._models import CompletionResponse, Status, Usage, first_alternative
from yandexgpt.errors import RevisedError

__all__ = ["AppendOnlyText", "Chunk", "Edit", "StreamState", "edit", "whole_characters", "without_partial_character"]

_HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""What stands at the end of a partial for the first half of a character whose rest comes with the next one."""


class Edit(NamedTuple):
    """How to get from the text shown to the text meant: ``shown[:keep] + delta``."""

    keep: int
    delta: str


def edit(shown: str, text: str) -> Edit:
    """The smallest edit from ``shown`` to ``text``: as much is kept as can be."""
    if text.startswith(shown):
        return Edit(len(shown), text[len(shown) :])
    keep, end = 0, min(len(shown), len(text))
    while keep < end:
        middle = (keep + end + 1) // 2
        if text.startswith(shown[:middle]):
            keep = middle
        else:
            end = middle - 1
    return Edit(keep, text[keep:])


def without_partial_character(text: str) -> str:
    """The part of a partial's text that can be shown: without the half of a character at its end."""
    return text.rstrip(_HALF_CHARACTER)


_Shown = list[Any]
"""What is to be shown of a message: the message, and its text, or None until somebody reads it.

Chunks refer to the one before them through this, not through each other, so that keeping the last chunk of a stream
does not keep all of them. It is a list, and read in place, because one is made for every message.
"""


def _read(shown: _Shown) -> str:
    """Read the text, once."""
    alternatives = shown[0].alternatives
    text: str = alternatives[0].message.text if alternatives else ""
    if text.endswith(_HALF_CHARACTER) and alternatives[0].status <= Status.PARTIAL:
        text = without_partial_character(text)
    shown[1] = text
    return text


class Chunk:
    """A step of a stream. Frozen; nothing is computed before someone asks for it.

    The law: ``shown = shown[:chunk.keep] + chunk.delta`` always equals ``chunk.text``.
    """

    __slots__ = ("_delta", "_keep", "_previous", "_shown")

    _keep: int  # set with _delta

    def __init__(self, response: CompletionResponse, state: StreamState) -> None:
        self._previous = state.shown
        self._shown = state.shown = [response, None]
        self._delta: str | None = None

    @property
    def text(self) -> str:
        """The whole answer so far, never ending in half a character."""
        text: str | None = self._shown[1]
        return _read(self._shown) if text is None else text

    @property
    def keep(self) -> int:
        """How many characters of the text handed out before still stand."""
        if self._delta is None:
            self._compute()
        return self._keep

    @property
    def delta(self) -> str:
        """What to put after them."""
        delta = self._delta
        return self._compute() if delta is None else delta

    @property
    def revised(self) -> bool:
        """Whether the service took back something that was handed out."""
        return self.keep < len(self._previous[1])

    @property
    def status(self) -> Status:
        """How the generation stands."""
        return Status(first_alternative(self._shown[0]).status)

    @property
    def usage(self) -> Usage:
        """Tokens used so far; only the last chunk's count."""
        return Usage(self._shown[0].usage)

    @property
    def proto(self) -> CompletionResponse:
        """The protobuf message that this chunk came from."""
        response: CompletionResponse = self._shown[0]
        return response

    def _compute(self) -> str:
        text: str = _read(self._shown) if self._shown[1] is None else self._shown[1]
        shown: str = _read(self._previous) if self._previous[1] is None else self._previous[1]
        if text.startswith(shown):  # as in edit(), which is for the rare case: this runs for every chunk
            self._keep = len(shown)
            self._delta = delta = text[self._keep :]
        else:
            self._keep, delta = edit(shown, text)
            self._delta = delta
        return delta

    def __repr__(self) -> str:
        return f"Chunk(keep={self.keep}, delta={self.delta!r}, status={self.status.name})"


class StreamState:
    """How far the messages of one stream have come: each ``Chunk(response, state)`` takes it one further.

    Attributes:
        shown: what there is to be shown of the last message.
    """

    __slots__ = ("shown",)

    def __init__(self) -> None:
        self.shown: _Shown = [None, ""]

    def end(self) -> Chunk | None:
        """What is left to hand out when the stream has ended: text held back in a last message that was a partial."""
        response = self.message
        if response is None or (last := first_alternative(response)).status > Status.PARTIAL:
            return None
        text = last.message.text
        if text == self.text:
            return None
        chunk = Chunk(response, self)
        self.shown[1] = text
        return chunk

    @property
    def text(self) -> str:
        """What is to be shown of the last message; empty if there was none."""
        if self.shown[1] is None:
            return _read(self.shown)
        text: str = self.shown[1]
        return text

    @property
    def message(self) -> CompletionResponse | None:
        """The last message, or None if there was none."""
        response: CompletionResponse | None = self.shown[0]
        return response


def whole_characters(response: CompletionResponse) -> CompletionResponse:
    """The message of a stream that broke off, without the half of a character that its text may end in."""
    alternative = first_alternative(response)
    text = alternative.message.text
    if alternative.status > Status.PARTIAL or not text.endswith(_HALF_CHARACTER):
        return response
    trimmed = CompletionResponse()
    trimmed.CopyFrom(response)
    trimmed.alternatives[0].message.text = without_partial_character(text)
    return trimmed


class AppendOnlyText:
    """Text for readers who can only append: what they have cannot be taken back.

    Args:
        holdback: how many of the last characters to keep back until the answer is final (>= 0).
        appended: what the reader has already.

    Raises:
        ValueError: ``holdback`` is not such a number.
    """

    def __init__(self, holdback: int, appended: str = "") -> None:
        if isinstance(holdback, bool) or not isinstance(holdback, int) or holdback < 0:
            raise ValueError(f"holdback must be a whole number of characters from 0, got {holdback!r}")
        self._holdback = holdback
        self.appended = appended

    def piece(self, text: str, *, final: bool) -> str:
        """What to append next, now that the answer is ``text``; may be empty.

        Raises:
            RevisedError: something that was handed out is no longer in it.
        """
        appended = self.appended
        if not text.startswith(appended):
            raise RevisedError(text, edit(appended, text).keep)
        end = len(text) if final else max(len(appended), len(text) - self._holdback)
        self.appended = text[:end]
        return text[len(appended) : end]
