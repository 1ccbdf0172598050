"""Converts the partial texts of a stream, which may change, to text that only grows. No I/O."""

from __future__ import annotations

from yandexgpt._chunks import edit, without_partial_character
from yandexgpt._models import CompletionResponse, Status, first_alternative

__all__ = ["AppendOnlyText", "TextRetracted"]


class TextRetracted(Exception):  # noqa: N818 - it is converted to an error of the stream
    """The final answer does not begin with the text that was sent."""

    def __init__(self) -> None:
        super().__init__("the service took back text that was already sent; ask again without stream")


class AppendOnlyText:
    """Takes the messages of a stream and returns the text to append.

    The service may change the text of an earlier message. So the text of a partial message is sent only as far as the
    next message confirms it. While a message contradicts the text that was sent, nothing is sent. If the last message
    contradicts it, the stream must end with an error.
    """

    def __init__(self) -> None:
        self.sent_text = ""
        """The text that was sent so far."""
        self.response = CompletionResponse()
        """The last message; an empty one before the first message."""
        self._text = ""

    @property
    def status(self) -> Status:
        """The status of the generation."""
        return Status(first_alternative(self.response).status)

    def push(self, response: CompletionResponse) -> str:
        """The text that this message confirms; may be empty."""
        before, self.response = self._text, response
        text = first_alternative(response).message.text
        self._text = text if self.status.final else without_partial_character(text)
        return self._advance(self._text[: edit(before, self._text).keep])

    def flush(self) -> str:
        """The unconfirmed text, after a broken stream, as far as it continues the text that was sent."""
        return self._advance(self._text)

    def end(self) -> str:
        """The last text, after a complete stream; may be empty.

        Raises:
            TextRetracted: the answer does not begin with the text that was sent. (A call of tools may have other text.)
        """
        text = first_alternative(self.response).message.text
        if not text.startswith(self.sent_text) and self.status != Status.TOOL_CALLS:
            raise TextRetracted
        return self._advance(text)

    def _advance(self, text: str) -> str:
        """The part of `text` after the text that was sent; empty if `text` does not continue it."""
        sent = self.sent_text
        if len(text) <= len(sent) or not text.startswith(sent):
            return ""
        self.sent_text = text
        return text[len(sent) :]
