"""Converts partials to chunks. Pure: no I/O, no gRPC.

The service sends the whole text so far with every partial, and may change earlier text before the final message. For a
consumer that applies every chunk,

    ``shown = shown[:chunk.keep] + chunk.delta``

two invariants hold: ``shown == chunk.text`` after each chunk, and ``shown`` is the completion's text after the last.
"""

from __future__ import annotations

from typing import NamedTuple

from yandexgpt._models import CompletionResponse, Status, Usage, first_alternative
from yandexgpt.errors import RevisedError

__all__ = ["AppendOnlyText", "Chunk", "Edit", "StreamState", "edit", "trim_response", "without_partial_character"]

_REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""The service puts it at the end of a partial for a character whose other bytes come with the next partial."""


class Edit(NamedTuple):
    """The change from the shown text to the new text: ``shown[:keep] + delta``."""

    keep: int
    delta: str


def edit(shown: str, text: str) -> Edit:
    """The smallest edit from ``shown`` to ``text``: it keeps their longest common prefix."""
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
    """The text of a partial without the incomplete character at its end."""
    return text.rstrip(_REPLACEMENT_CHARACTER)


class Chunk(NamedTuple):
    """One update of a streamed answer. Frozen.

    The invariant: ``shown = shown[:chunk.keep] + chunk.delta`` always equals ``chunk.text``.
    """

    text: str
    """The whole answer so far, without an incomplete character at its end."""
    keep: int
    """How many characters of the previous chunk's text stay."""
    delta: str
    """The text after them."""
    revised: bool
    """Whether the service changed text of the previous chunk."""
    proto: CompletionResponse
    """The protobuf message of this chunk."""

    @property
    def status(self) -> Status:
        """The status of the generation."""
        return Status(first_alternative(self.proto).status)

    @property
    def usage(self) -> Usage:
        """The tokens used so far; only those of the last chunk are final."""
        return Usage(self.proto.usage)

    def __repr__(self) -> str:
        return f"Chunk(keep={self.keep}, delta={self.delta!r}, status={self.status.name})"


class StreamState:
    """Converts the messages of one stream to chunks.

    Attributes:
        text: the text of the last chunk; empty before the first.
        message: the last message; None before the first.
    """

    __slots__ = ("message", "text")

    def __init__(self) -> None:
        self.message: CompletionResponse | None = None
        self.text = ""

    def next(self, message: CompletionResponse) -> Chunk:
        """The chunk for the next message."""
        alternatives = message.alternatives
        text: str = alternatives[0].message.text if alternatives else ""
        if text.endswith(_REPLACEMENT_CHARACTER) and alternatives[0].status <= Status.PARTIAL:
            text = without_partial_character(text)
        self.message = message
        return self._chunk(text, message)

    def finish(self) -> Chunk | None:
        """The chunk after the last message, if it was a partial with an incomplete character at its end; else None."""
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


def trim_response(response: CompletionResponse) -> CompletionResponse:
    """The last message of a stream that failed, without an incomplete character at the end of its text."""
    alternative = first_alternative(response)
    text = alternative.message.text
    if alternative.status > Status.PARTIAL or not text.endswith(_REPLACEMENT_CHARACTER):
        return response
    trimmed = CompletionResponse()
    trimmed.CopyFrom(response)
    trimmed.alternatives[0].message.text = without_partial_character(text)
    return trimmed


class AppendOnlyText:
    """Append-only text, for consumers that cannot replace text.

    Args:
        holdback: how many of the last characters to withhold until the answer is final (>= 0).
        appended: the text that the consumer already has.

    Raises:
        ValueError: ``holdback`` is not a whole number from 0.
    """

    def __init__(self, holdback: int, appended: str = "") -> None:
        if isinstance(holdback, bool) or not isinstance(holdback, int) or holdback < 0:
            raise ValueError(f"holdback must be a whole number of characters from 0, got {holdback!r}")
        self._holdback = holdback
        self.appended = appended

    def piece(self, text: str, *, final: bool) -> str:
        """The text to append, now that the answer is ``text``; may be empty.

        Args:
            text: the whole answer so far.
            final: whether it is final: then nothing is withheld.

        Raises:
            RevisedError: ``text`` does not begin with the text that the consumer has.
        """
        appended = self.appended
        if not text.startswith(appended):
            raise RevisedError(text, edit(appended, text).keep)
        end = len(text) if final else max(len(appended), len(text) - self._holdback)
        self.appended = text[:end]
        return text[len(appended) : end]
