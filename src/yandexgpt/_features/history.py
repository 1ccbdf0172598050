"""The history of a chat, which the service does not keep (source: Yandex Cloud's guide to chat). Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from yandexgpt._features.tool_loop import assistant_message
from yandexgpt._messages import Message
from yandexgpt._models import Usage
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._request import CompletionRequest, build_request

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from yandexgpt._config import Settings
    from yandexgpt._features.tool_loop import ToolLoop
    from yandexgpt._models import Completion

__all__ = ["Turn", "build_chat_request", "longest_fitting_history"]


def build_chat_request(
    settings: Settings, prompt: CompletionRequest | Iterable[Any], **options: Any
) -> CompletionRequest:
    """The request of a chat: as :func:`build_request` builds it, but the messages may be empty.

    Raises:
        ValueError, TypeError, ConfigurationError: as for :func:`build_request`.
    """
    placeholder = Message("user", "-")  # build_request refuses a prompt without messages; removed below
    if isinstance(prompt, CompletionRequest):
        prompt.messages.append(placeholder.proto)
    else:
        prompt = [*prompt, placeholder]
    request = build_request(prompt, folder_id=settings.folder_id, default_model=settings.model, stream=False, **options)
    del request.messages[-1]
    return request


class HistoryOwner(Protocol):
    """The chat whose history a turn extends."""

    _request: CompletionRequest

    def _append_turn(self, messages: Iterable[text_common_pb2.Message], usage: Usage) -> None: ...


class Turn:
    """A turn in progress. The chat holds a weak reference to it: a turn that is garbage collected is abandoned.

    Args:
        chat: the chat that the turn belongs to.
        message: the user's message; None for a turn that only changes the history.

    Attributes:
        finished: whether the turn has ended; it no longer blocks another turn.
        request: the history with the user's message.
    """

    __slots__ = ("__weakref__", "_chat", "_history_length", "finished", "request")

    def __init__(self, chat: HistoryOwner, message: Message | None) -> None:
        self._chat = chat
        self.finished = False
        self.request = CompletionRequest()
        self.request.CopyFrom(chat._request)
        self._history_length = len(self.request.messages)
        if message is not None:
            self.request.messages.append(message.proto)

    def finish(self, completion: Completion | None) -> None:
        """End the turn, and append its message and answer to the history.

        Args:
            completion: the answer. None: there is no answer, and the history does not change.
        """
        if completion is not None and not self.finished:
            self.finished = True
            messages = [*self.request.messages[self._history_length :], assistant_message(completion)]
            self._chat._append_turn(messages, completion.usage)
        self.finished = True

    def add_tool_rounds(self, loop: ToolLoop) -> None:
        """Append the message, the tool calls, their results and the answer to the history."""
        self._chat._append_turn(loop.request.messages[self._history_length :], Usage(loop.usage))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finished = True


def longest_fitting_history(
    request: CompletionRequest, max_tokens: int
) -> Generator[CompletionRequest, int, CompletionRequest]:
    """Find the longest history that fits into ``max_tokens``, by binary search over the number of dropped turns.

    A turn is a user message and all messages up to the next user message; messages of the role system stay.

    Args:
        max_tokens: the limit, in tokens (> 0).

    Yields:
        A candidate; the caller sends the number of its tokens.

    Returns:
        The longest candidate that fits.

    Raises:
        ValueError: ``max_tokens`` is not a whole number above 0, or the messages of the role system do not fit.
    """
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise ValueError(f"max_tokens must be a whole number greater than 0, got {max_tokens!r}")
    turn_starts: list[int] = []
    for index, message in enumerate(request.messages):
        starts_turn = message.role == "user" and not message.HasField("tool_result_list")
        if starts_turn or (not turn_starts and message.role != "system"):
            turn_starts.append(index)

    def drop_turns(turns: int) -> CompletionRequest:
        shorter = CompletionRequest()
        shorter.CopyFrom(request)
        first = turn_starts[turns] if turns < len(turn_starts) else len(request.messages)
        kept = [message for index, message in enumerate(request.messages) if index >= first or message.role == "system"]
        del shorter.messages[:]
        shorter.messages.extend(kept)
        return shorter

    if not request.messages or (yield request) <= max_tokens:
        return request
    minimum = drop_turns(len(turn_starts))
    if minimum.messages and (tokens := (yield minimum)) > max_tokens:
        raise ValueError(f"max_tokens={max_tokens}: the system message alone has {tokens} tokens, and is never dropped")
    low, high = 0, len(turn_starts)  # dropping `low` turns is not enough, dropping `high` is
    while high - low > 1:
        middle = (low + high) // 2
        if (yield drop_turns(middle)) <= max_tokens:
            high = middle
        else:
            low = middle
    return drop_turns(high)
