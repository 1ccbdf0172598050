# Generated from ../_async by scripts/unasync.py. Do not edit.
"""Conversations whose history is kept on this side (source: Yandex Cloud's guide to chat)."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from yandexgpt._features.history import Turn, build_chat_request, longest_suffix_that_fits
from yandexgpt._features.tool_loop import ToolLoop, add_usage
from yandexgpt._messages import Message
from yandexgpt._models import Usage
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._request import CompletionRequest, load_request
from yandexgpt._sync.tools import run_tool_loop
from yandexgpt.errors import YandexGPTError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from yandexgpt._models import Completion
    from yandexgpt._options import AskOptions, StreamTurnOptions, TurnOptions
    from yandexgpt._request import ToolLike
    from yandexgpt._sync.protocol import ClientProtocol
    from yandexgpt._sync.stream import Stream

__all__ = ["Chat"]


class Chat:
    """A conversation, made by a client's ``chat()``: every turn is asked with the messages of those before it.

    The history grows only when a turn succeeds: one that failed, was cancelled, closed or given up leaves it as it was.
    An answer that was cut or filtered is an answer, and its turn is in the history. One turn at a time.
    """

    def __init__(self, client: ClientProtocol, request: CompletionRequest) -> None:
        self._client = client
        self._request = request
        self._usage = text_common_pb2.ContentUsage()
        self._lock = threading.RLock()  # a signal handler may begin a turn, and is refused
        self._turn: weakref.ref[Turn] | None = None

    @classmethod
    def from_dict(cls, client: ClientProtocol, data: Mapping[str, Any]) -> Self:
        """A chat that goes on where :meth:`to_dict` left off; any body of a REST request will do.

        Args:
            client: what to ask with; its model is taken if the body names none.
            data: the parsed JSON. Token counts are not in it: :attr:`usage` starts at 0.

        Raises:
            ValueError: it is not such a body.
            ConfigurationError: it names no model, and the client has no folder to make a model's URI with.
        """
        return cls(client, build_chat_request(client._settings, load_request(data)))

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

    def send(self, text: str | Message, **options: Unpack[TurnOptions]) -> Completion:
        """Say something, and return the whole answer.

        Args:
            text: what the user says; a :class:`~yandexgpt.Message` may hold the results of tools.
            options: as for ``complete()``, for this turn only; those of the chat hold where nothing is given.

        Raises:
            ValueError: an argument has an impossible value. Nothing was sent.
            YandexGPTError: another turn of this chat is under way. Nothing was sent.
            APIError: the call failed.
        """
        with self._begin(text) as turn:
            completion = self._client.complete(turn.request, **options)
            turn.ended(completion)
            return completion

    def stream(self, text: str | Message, **options: Unpack[StreamTurnOptions]) -> Stream:
        """Say something, and read the answer as it is written. Arguments as for :meth:`send`,
        and ``latest`` as for ``stream()`` of the client.

        The turn lasts until the stream has been read to its end, which puts it into the history, or is closed, broken
        or dropped, which does not.

        Raises:
            ValueError, YandexGPTError: as for :meth:`send`. Nothing was sent; nor is it before the stream is iterated
                over, which raises ``APIError`` if the call fails.
        """
        turn = self._begin(text)
        try:
            stream = self._client.stream(turn.request, **options)
        except BaseException:
            turn.over = True
            raise
        stream._on_end = turn.ended
        return stream

    def ask(
        self,
        text: str | Message,
        tools: Iterable[ToolLike],
        *,
        max_rounds: int = 5,
        **options: Unpack[AskOptions],
    ) -> Completion:
        """Say something, let the model call tools, and return its answer; the history keeps the whole exchange.

        Args:
            text: what the user says.
            tools, max_rounds: as for ``run_tools()``.
            options: as for ``complete()``, for this turn only; those of the chat hold where nothing is given.

        Raises:
            ValueError: an argument has an impossible value. Nothing was sent.
            YandexGPTError: another turn of this chat is under way. Nothing was sent.
            TruncatedError, ContentFilterError, ToolRoundsError, APIError: as for ``run_tools()``; the turn failed.
        """
        with self._begin(text) as turn:
            loop = ToolLoop(self._client._settings, turn.request, tools, max_rounds, options)
            completion = run_tool_loop(self._client.complete, loop)
            turn.ran(loop)
            return completion

    def trim(self, max_tokens: int) -> int:
        """Forget the oldest turns, so that the rest fits; a turn is a user message with all that came of it.

        Args:
            max_tokens: the longest history, in tokens as ``count_tokens()`` finds them (> 0). Leave room for the next
                message and its answer.

        Returns:
            How many messages went; none if all fit, and all but the system message if no turn does.

        Raises:
            ValueError: the system message, which is never dropped, is longer.
            YandexGPTError: a turn of this chat is under way.
            APIError: the tokens could not be counted.
        """
        with self._acquire_turn() as turn:
            search = longest_suffix_that_fits(turn.request, max_tokens)
            try:
                candidate = next(search)
                while True:
                    candidate = search.send(self._client.count_tokens(candidate))
            except StopIteration as found:
                return self._replace(found.value)

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
        return self._acquire_turn(text)

    def _acquire_turn(self, message: Message | None = None) -> Turn:
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
