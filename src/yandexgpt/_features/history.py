"""What a chat remembers, because the service does not (source: Yandex Cloud's guide to chat). Nothing here waits."""

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

__all__ = ["Turn", "build_chat_request", "longest_suffix_that_fits"]


def build_chat_request(
    settings: Settings, prompt: CompletionRequest | Iterable[Any], **options: Any
) -> CompletionRequest:
    """The request of a chat: as :func:`build_request` makes it, but of messages of which there may be none yet."""
    last = Message("user", "-")
    if isinstance(prompt, CompletionRequest):
        prompt.messages.append(last.proto)
    else:
        prompt = [*prompt, last]
    request = build_request(prompt, folder_id=settings.folder_id, default_model=settings.model, stream=False, **options)
    del request.messages[-1]
    return request


class Chat(Protocol):
    """What holds the history."""

    _request: CompletionRequest

    def _grow(self, messages: Iterable[text_common_pb2.Message], usage: Usage) -> None: ...


class Turn:
    """A turn under way. The chat knows it by a weak reference: whoever drops it has given it up.

    Args:
        chat: whose.
        message: the user's; None for what only changes the history.
    """

    __slots__ = ("__weakref__", "_chat", "_known", "over", "request")

    def __init__(self, chat: Chat, message: Message | None) -> None:
        self._chat = chat
        self.over = False
        self.request = CompletionRequest()
        self.request.CopyFrom(chat._request)
        self._known = len(self.request.messages)
        if message is not None:
            self.request.messages.append(message.proto)

    def ended(self, completion: Completion | None) -> None:
        """Put the message and its answer into the history, unless there is no answer, or the turn is over."""
        if completion is not None and not self.over:
            self.over = True
            messages = [*self.request.messages[self._known :], assistant_message(completion)]
            self._chat._grow(messages, completion.usage)
        self.over = True

    def ran(self, loop: ToolLoop) -> None:
        """Put the message, the calls of tools, their results and the answer into the history."""
        self._chat._grow(loop.request.messages[self._known :], Usage(loop.usage))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over = True


def longest_suffix_that_fits(
    request: CompletionRequest, max_tokens: int
) -> Generator[CompletionRequest, int, CompletionRequest]:
    """Search for the longest history that fits: yields candidates, is sent their tokens, returns the one.

    A turn is a user message with everything up to the next one; messages of the role system stay.

    Raises:
        ValueError: ``max_tokens`` is not a whole number above 0, or what may not be dropped is longer.
    """
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise ValueError(f"max_tokens must be a whole number greater than 0, got {max_tokens!r}")
    starts: list[int] = []
    for index, message in enumerate(request.messages):
        asks = message.role == "user" and not message.HasField("tool_result_list")
        if asks or (not starts and message.role != "system"):
            starts.append(index)

    def without(turns: int) -> CompletionRequest:
        shorter = CompletionRequest()
        shorter.CopyFrom(request)
        first = starts[turns] if turns < len(starts) else len(request.messages)
        kept = [message for index, message in enumerate(request.messages) if index >= first or message.role == "system"]
        del shorter.messages[:]
        shorter.messages.extend(kept)
        return shorter

    if not request.messages or (yield request) <= max_tokens:
        return request
    least = without(len(starts))
    if least.messages and (tokens := (yield least)) > max_tokens:
        raise ValueError(f"max_tokens={max_tokens}: the system message alone has {tokens} tokens, and is never dropped")
    low, high = 0, len(starts)  # so many turns dropped are too few, and enough
    while high - low > 1:
        middle = (low + high) // 2
        if (yield without(middle)) <= max_tokens:
            high = middle
        else:
            low = middle
    return without(high)
