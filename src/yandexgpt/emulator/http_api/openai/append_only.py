"""Partials for a reader who can only append. Pure: no I/O."""

from __future__ import annotations

from yandexgpt.completion import CompletionResponse, Status, first_alternative
from yandexgpt.folding import edit, settled

__all__ = ["AppendOnlyText", "TextRetracted"]


class TextRetracted(Exception):  # noqa: N818 - said to the reader, not an error of the program
    """The answer does not begin with what was said of it."""

    def __init__(self) -> None:
        super().__init__("the service took back text that was already sent; ask again without stream")


class AppendOnlyText:
    """The messages of a stream, in; pieces of text to append, out.

    The service may change what it said before. So a partial's text is said as far as the message after it agrees: what
    is changed at once was never said. Where a message contradicts what was said, nothing is, until one that goes on
    from there; if the last one does not, the reader has to be told.
    """

    def __init__(self) -> None:
        self.sent_text = ""
        """The text so far: every piece there was."""
        self.response = CompletionResponse()
        """The last message; an empty one if there was none."""
        self._text = ""

    @property
    def status(self) -> Status:
        """How the generation stands."""
        return Status(first_alternative(self.response).status)

    def push(self, response: CompletionResponse) -> str:
        """The piece that is certain now that this message has come; may be empty."""
        before, self.response = self._text, response
        text = first_alternative(response).message.text
        self._text = text if self.status.final else settled(text)
        return self._advance(self._text[: edit(before, self._text).keep])

    def flush(self) -> str:
        """What was held back, when the stream has broken off: as much of it as goes on from what was said."""
        return self._advance(self._text)

    def end(self) -> str:
        """The last piece, when the stream has ended well; may be empty.

        Raises:
            TextRetracted: the answer is another than what was said, and no call of tools, which may stand beside text.
        """
        text = first_alternative(self.response).message.text
        if not text.startswith(self.sent_text) and self.status != Status.TOOL_CALLS:
            raise TextRetracted
        return self._advance(text)

    def _advance(self, text: str) -> str:
        """The piece that makes it the text so far, if any can."""
        said = self.sent_text
        if len(text) <= len(said) or not text.startswith(said):
            return ""
        self.sent_text = text
        return text[len(said) :]
