"""Partials to chunks: the streaming law. Pure: no I/O, no gRPC.

The service sends the whole text so far with every partial, and may change earlier text before the final message. A
reader who applies every chunk,

    ``shown = shown[:chunk.keep] + chunk.delta``

holds ``chunk.text`` after each of them, and the completion's text after the last.
"""

from __future__ import annotations

from typing import NamedTuple

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


class Chunk(NamedTuple):
    """A step of a stream. Frozen.

    The law: ``shown = shown[:chunk.keep] + chunk.delta`` always equals ``chunk.text``.
    """

    text: str
    """The whole answer so far, never ending in half a character."""
    keep: int
    """How many characters of the text handed out before still stand."""
    delta: str
    """What to put after them."""
    revised: bool
    """Whether the service took back something that was handed out."""
    proto: CompletionResponse
    """The protobuf message that this chunk came from."""

    @property
    def status(self) -> Status:
        """How the generation stands."""
        return Status(first_alternative(self.proto).status)

    @property
    def usage(self) -> Usage:
        """Tokens used so far; only the last chunk's count."""
        return Usage(self.proto.usage)

    def __repr__(self) -> str:
        return f"Chunk(keep={self.keep}, delta={self.delta!r}, status={self.status.name})"


class StreamState:
    """How far the messages of one stream have come.

    Attributes:
        text: what was handed out last; empty before the first message.
        message: the last message, or None before the first.
    """

    __slots__ = ("message", "text")

    def __init__(self) -> None:
        self.message: CompletionResponse | None = None
        self.text = ""

    def next(self, message: CompletionResponse) -> Chunk:
        """The chunk for the next message."""
        alternatives = message.alternatives
        text: str = alternatives[0].message.text if alternatives else ""
        if text.endswith(_HALF_CHARACTER) and alternatives[0].status <= Status.PARTIAL:
            text = without_partial_character(text)
        self.message = message
        return self._chunk(text, message)

    def end(self) -> Chunk | None:
        """What is left to hand out when the stream has ended: text held back in a last message that was a partial."""
        message = self.message
        if message is None or (last := first_alternative(message)).status > Status.PARTIAL:
            return None
        text = last.message.text
        return None if text == self.text else self._chunk(text, message)

    def _chunk(self, text: str, message: CompletionResponse) -> Chunk:
        shown, self.text = self.text, text
        if text.startswith(shown):
            return Chunk(text, len(shown), text[len(shown) :], False, message)
        keep, delta = edit(shown, text)
        return Chunk(text, keep, delta, keep < len(shown), message)


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
