"""What a chat remembers, because the service does not (source: Yandex Cloud's guide to chat). Nothing here waits."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf import json_format

from yandexgpt._features.base import BaseClient
from yandexgpt._features.tool_loop import add_usage, said
from yandexgpt._messages import Message
from yandexgpt._models import Usage
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._request import CompletionRequest, build_request, load_request
from yandexgpt.errors import YandexGPTError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from yandexgpt._config import Settings
    from yandexgpt._features.tool_loop import ToolRun
    from yandexgpt._models import Completion

__all__ = ["BaseChat", "Turn", "body", "fitting"]

C = TypeVar("C", bound=BaseClient)


def body(settings: Settings, prompt: CompletionRequest | Iterable[Any], **options: Any) -> CompletionRequest:
    """The request of a chat: as :func:`build_request` makes it, but of messages of which there may be none yet."""
    last = Message("user", "-")
    if isinstance(prompt, CompletionRequest):
        prompt.messages.append(last.proto)
    else:
        prompt = [*prompt, last]
    request = build_request(prompt, folder_id=settings.folder_id, default_model=settings.model, stream=False, **options)
    del request.messages[-1]
    return request


class Turn:
    """A turn under way. The chat knows it by a weak reference: whoever drops it has given it up.

    Args:
        chat: whose.
        message: the user's; None for what only changes the history.
    """

    __slots__ = ("__weakref__", "_chat", "_known", "over", "request")

    def __init__(self, chat: BaseChat[Any], message: Message | None) -> None:
        self._chat = chat
        self.over = False
        self.request = CompletionRequest()
        self.request.CopyFrom(chat._request)
        self._known = len(self.request.messages)
        if message is not None:
            self.request.messages.append(message.proto)

    def succeeded(self, completion: Completion) -> None:
        """Put the message and its answer into the history."""
        if not self.over:
            self.over = True
            self._chat._grow([*self.request.messages[self._known :], said(completion)], completion.usage)

    def ran(self, run: ToolRun) -> None:
        """Put the message, the calls of tools, their results and the answer into the history."""
        self._chat._grow(run.request.messages[self._known :], Usage(run.usage))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over = True


class BaseChat(Generic[C]):
    """The part of a chat that does not wait."""

    def __init__(self, client: C, request: CompletionRequest) -> None:
        self._client = client
        self._request = request
        self._usage = text_common_pb2.ContentUsage()
        self._lock = threading.RLock()  # a signal handler may begin a turn, and is refused
        self._turn: weakref.ref[Turn] | None = None

    @classmethod
    def from_dict(cls, client: C, data: Mapping[str, Any]) -> Self:
        """A chat that goes on where :meth:`to_dict` left off; any body of a REST request will do.

        Args:
            client: what to ask with; its model is taken if the body names none.
            data: the parsed JSON. Token counts are not in it: :attr:`usage` starts at 0.

        Raises:
            ValueError: it is not such a body.
            ConfigurationError: it names no model, and the client has no folder to make a model's URI with.
        """
        return cls(client, body(client._driver.settings, load_request(data)))

    def to_dict(self) -> dict[str, Any]:
        """The chat as the body of a REST request: ``modelUri``, ``completionOptions``, ``messages``, and what else was
        set. Saved as ``body.json`` it can be posted once another user message is added, and is what
        :func:`yandexgpt.load_request` and :meth:`from_dict` read.
        """
        data = json_format.MessageToDict(self._request)
        return {
            "modelUri": data.pop("modelUri"),
            "completionOptions": {"stream": False, **data.pop("completionOptions", {})},
            "messages": data.pop("messages", []),
            **data,
        }

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history: the system message, and the messages of every turn that succeeded."""
        return tuple(map(Message.from_proto, self._request.messages))

    @property
    def usage(self) -> Usage:
        """Tokens used by all turns that succeeded, since this object was made."""
        return Usage(self._usage)

    def _begin(self, text: str | Message) -> Turn:
        """Begin a turn.

        Raises:
            ValueError: the message is none, or not the user's.
            YandexGPTError: another turn is under way.
        """
        if isinstance(text, str):
            if not text:
                raise ValueError("text must not be empty")
            text = Message("user", text)
        elif not isinstance(text, Message) or text.role != "user":
            raise ValueError(f"text must be a str or a Message of the role user, got {text!r}")
        return self._hold(text)

    def _hold(self, message: Message | None = None) -> Turn:
        """Keep others from using the history.

        Raises:
            YandexGPTError: another turn is under way.
        """
        turn = Turn(self, message)
        with self._lock:
            current = None if self._turn is None else self._turn()
            if current is not None and not current.over:
                raise YandexGPTError(
                    "another turn of this chat is under way: wait for its end, close its stream, or use another chat"
                )
            self._turn = weakref.ref(turn)
        return turn

    def _grow(self, messages: Iterable[text_common_pb2.Message], usage: Usage) -> None:
        total = text_common_pb2.ContentUsage()
        total.CopyFrom(self._usage)
        add_usage(total, usage)
        self._request.messages.extend(messages)
        self._usage = total

    def _replace(self, request: CompletionRequest) -> int:
        """Take a shorter history; how many messages went."""
        gone = len(self._request.messages) - len(request.messages)
        self._request = request
        return gone

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self._request.model_uri!r}, messages={len(self._request.messages)})"


def fitting(request: CompletionRequest, max_tokens: int) -> Generator[CompletionRequest, int, CompletionRequest]:
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
