"""Partials to chunks: the streaming law. Pure: no I/O, no gRPC.

The service sends the whole text so far with every partial, and may change earlier text before the final message. A
reader who applies every chunk,

    ``shown = shown[:chunk.keep] + chunk.delta``

holds ``chunk.text`` after each of them, and the completion's text after the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from yandexgpt.completion import CompletionResponse, Status, Usage, first_alternative

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Chunk", "Edit", "Fold", "edit", "settled", "whole_characters"]

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


def settled(text: str) -> str:
    """The part of a partial's text that can be shown: without the half of a character at its end."""
    return text.rstrip(_HALF_CHARACTER)


class _Shown:
    """What is to be shown of a message; its text is read once, when first asked for.

    Chunks refer to the one before them through this, not through each other, so that keeping the last chunk of a
    stream does not keep all of them.
    """

    __slots__ = ("_last", "_text", "response")

    def __init__(self, response: CompletionResponse, *, last: bool = False) -> None:
        self.response = response
        self._last = last
        self._text: str | None = None

    @property
    def text(self) -> str:
        text = self._text
        if text is None:
            alternatives = self.response.alternatives
            text = alternatives[0].message.text if alternatives else ""
            if text.endswith(_HALF_CHARACTER) and not self._last and alternatives[0].status <= Status.PARTIAL:
                text = settled(text)
            self._text = text
        return text


_NOTHING = _Shown(CompletionResponse())


class Chunk:
    """A step of a stream. Frozen; nothing is computed before someone asks for it.

    The law: ``shown = shown[:chunk.keep] + chunk.delta`` always equals ``chunk.text``.
    """

    __slots__ = ("_delta", "_keep", "_previous", "_shown")

    def __init__(self, shown: _Shown, previous: _Shown) -> None:
        self._shown = shown
        self._previous = previous
        self._delta: str | None = None
        self._keep = 0

    @property
    def text(self) -> str:
        """The whole answer so far, never ending in half a character."""
        return self._shown.text

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
        return self.keep < len(self._previous.text)

    @property
    def status(self) -> Status:
        """How the generation stands."""
        return Status(first_alternative(self._shown.response).status)

    @property
    def usage(self) -> Usage:
        """Tokens used so far; only the last chunk's count."""
        return Usage(self._shown.response.usage)

    @property
    def proto(self) -> CompletionResponse:
        """The protobuf message that this chunk came from."""
        return self._shown.response

    def _compute(self) -> str:
        shown, text = self._previous.text, self._shown.text
        if text.startswith(shown):  # as in edit(), which is for the rare case: this runs for every chunk
            self._keep = len(shown)
            self._delta = delta = text[self._keep :]
        else:
            self._keep, self._delta = edit(shown, text)
            delta = self._delta
        return delta

    def __repr__(self) -> str:
        return f"Chunk(keep={self.keep}, delta={self.delta!r}, status={self.status.name})"


class Fold:
    """The messages of one stream, in; its chunks, out."""

    __slots__ = ("_shown",)

    def __init__(self) -> None:
        self._shown = _NOTHING

    def push(self, response: CompletionResponse) -> Chunk:
        """The chunk for the next message."""
        shown = _Shown(response)
        chunk = Chunk(shown, self._shown)
        self._shown = shown
        return chunk

    def end(self) -> Iterator[Chunk]:
        """What is left to hand out when the stream has ended: text held back in a last message that was a partial."""
        previous = self._shown
        whole = _Shown(previous.response, last=True)
        if whole.text != previous.text:
            self._shown = whole
            yield Chunk(whole, previous)

    @property
    def response(self) -> CompletionResponse | None:
        """The last message, or None if there was none."""
        return None if self._shown is _NOTHING else self._shown.response


def whole_characters(response: CompletionResponse) -> CompletionResponse:
    """The message of a stream that broke off, without the half of a character that its text may end in."""
    alternative = first_alternative(response)
    text = alternative.message.text
    if alternative.status > Status.PARTIAL or not text.endswith(_HALF_CHARACTER):
        return response
    trimmed = CompletionResponse()
    trimmed.CopyFrom(response)
    trimmed.alternatives[0].message.text = settled(text)
    return trimmed
