"""Conversations whose history the client keeps (source: Yandex Cloud's guide to chat)."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from yandexgpt._async.tools import run_tool_loop
from yandexgpt._features.history import Turn, build_chat_request, longest_fitting_history
from yandexgpt._features.tool_loop import ToolLoop, add_usage
from yandexgpt._messages import Message
from yandexgpt._models import Usage
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._request import CompletionRequest, load_request
from yandexgpt.errors import YandexGPTError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from yandexgpt._async.protocol import AsyncClientProtocol
    from yandexgpt._async.stream import AsyncStream
    from yandexgpt._models import Completion
    from yandexgpt._options import AskOptions, StreamTurnOptions, TurnOptions
    from yandexgpt._request import ToolLike

__all__ = ["AsyncChat"]


class AsyncChat:
    """A conversation, made by a client's ``chat()``: every turn is sent with the messages of the turns before it.

    Only a turn that succeeds is appended to the history: a turn that failed, was cancelled, closed or abandoned leaves
    it unchanged. A truncated or filtered answer counts as an answer, and its turn is appended. One turn at a time.

    Args:
        client: the client that makes the calls.
        request: the model, the options and the messages to begin with.
    """

    def __init__(self, client: AsyncClientProtocol, request: CompletionRequest) -> None:
        self._client = client
        self._request = request
        self._usage = text_common_pb2.ContentUsage()
        self._lock = threading.RLock()  # reentrant: a signal handler may try to start a turn
        self._current_turn: weakref.ref[Turn] | None = None

    @classmethod
    def from_dict(cls, client: AsyncClientProtocol, data: Mapping[str, Any]) -> Self:
        """A chat that continues from the result of :meth:`to_dict`, or from the body of any REST request.

        Args:
            client: the client that makes the calls; its model is used if the body names none.
            data: the parsed JSON. It has no token counts: :attr:`usage` starts at 0.

        Raises:
            ValueError: ``data`` is not the body of a REST request.
            ConfigurationError: ``data`` names no model, and the client has no folder for the model's URI.
        """
        return cls(client, build_chat_request(client._settings, load_request(data)))

    def to_dict(self) -> dict[str, Any]:
        """The chat as the body of a REST request: ``modelUri``, ``completionOptions``, ``messages``, and every other
        field that is set. It can be saved as ``body.json``, and posted after another user message is added.
        :func:`yandexgpt.load_request` and :meth:`from_dict` read it.
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
        """The tokens of all turns that succeeded since this object was created."""
        return Usage(self._usage)

    async def send(self, text: str | Message, **options: Unpack[TurnOptions]) -> Completion:
        """Send a user message, and return the whole answer.

        Args:
            text: the user's text, or a :class:`~yandexgpt.Message` of the role ``user``, which may hold the results of
                tools.
            options: as for ``complete()``, for this turn only; by default those of the chat.

        Raises:
            ValueError: an argument is out of range or malformed. Nothing was sent.
            YandexGPTError: another turn of this chat is in progress. Nothing was sent.
            APIError: the call failed.
        """
        with self._start_turn(text) as turn:
            completion = await self._client.complete(turn.request, **options)
            turn.finish(completion)
            return completion

    def stream(self, text: str | Message, **options: Unpack[StreamTurnOptions]) -> AsyncStream:
        """Send a user message, and stream the answer. Arguments as for :meth:`send`, and ``latest`` as for
        ``stream()`` of the client.

        The turn is appended to the history when the stream has been read to its end. It ends without being appended
        when the stream is closed, fails or is dropped.

        Raises:
            ValueError, YandexGPTError: as for :meth:`send`. Nothing was sent. The request is sent when the stream is
                iterated over, which raises ``APIError`` if the call fails.
        """
        turn = self._start_turn(text)
        try:
            stream = self._client.stream(turn.request, **options)
        except BaseException:
            turn.finished = True
            raise
        stream._on_end = turn.finish
        return stream

    async def ask(
        self,
        text: str | Message,
        tools: Iterable[ToolLike],
        *,
        max_rounds: int = 5,
        **options: Unpack[AskOptions],
    ) -> Completion:
        """Send a user message, run the tools that the model calls, and return its answer. The message, the calls, their
        results and the answer are appended to the history.

        Args:
            text: as for :meth:`send`.
            tools, max_rounds: as for ``run_tools()``.
            options: as for ``complete()``, for this turn only; by default those of the chat.

        Raises:
            ValueError: an argument is out of range or malformed. Nothing was sent.
            YandexGPTError: another turn of this chat is in progress. Nothing was sent.
            TruncatedError, ContentFilterError, ToolRoundsError, APIError: as for ``run_tools()``; the turn failed.
        """
        with self._start_turn(text) as turn:
            loop = ToolLoop(self._client._settings, turn.request, tools, max_rounds, options)
            completion = await run_tool_loop(self._client.complete, loop)
            turn.add_tool_rounds(loop)
            return completion

    async def trim(self, max_tokens: int) -> int:
        """Drop the oldest turns until the history fits. A turn is a user message and all messages up to the next one.

        Args:
            max_tokens: the longest history, in tokens as ``count_tokens()`` counts them (> 0). It should leave space
                for the next message and its answer.

        Returns:
            The number of dropped messages: 0 if the whole history fits; all but the system message if no turn fits.

        Raises:
            ValueError: ``max_tokens`` is not a whole number above 0, or the system message, which is never dropped,
                does not fit.
            YandexGPTError: another turn of this chat is in progress.
            APIError: the tokens could not be counted.
        """
        with self._acquire_turn() as turn:
            search = longest_fitting_history(turn.request, max_tokens)
            try:
                candidate = next(search)
                while True:
                    candidate = search.send(await self._client.count_tokens(candidate))
            except StopIteration as found:
                return self._replace_history(found.value)

    def _start_turn(self, text: str | Message) -> Turn:
        """Start a turn with a user message.

        Raises:
            ValueError: ``text`` is empty, or not a message of the role user.
            YandexGPTError: another turn is in progress.
        """
        if isinstance(text, str):
            if not text:
                raise ValueError("text must not be empty")
            text = Message("user", text)
        elif not isinstance(text, Message) or text.role != "user":
            raise ValueError(f"text must be a str or a Message of the role user, got {text!r}")
        return self._acquire_turn(text)

    def _acquire_turn(self, message: Message | None = None) -> Turn:
        """Acquire exclusive use of the history, until the turn is finished or garbage collected.

        Raises:
            YandexGPTError: another turn is in progress.
        """
        turn = Turn(self, message)
        with self._lock:
            current = None if self._current_turn is None else self._current_turn()
            if current is not None and not current.finished:
                raise YandexGPTError(
                    "another turn of this chat is under way: wait for its end, close its stream, or use another chat"
                )
            self._current_turn = weakref.ref(turn)
        return turn

    def _append_turn(self, messages: Iterable[text_common_pb2.Message], usage: Usage) -> None:
        total = text_common_pb2.ContentUsage()
        total.CopyFrom(self._usage)
        add_usage(total, usage)
        self._request.messages.extend(messages)
        self._usage = total

    def _replace_history(self, request: CompletionRequest) -> int:
        """Replace the history by a shorter one; returns the number of dropped messages."""
        dropped = len(self._request.messages) - len(request.messages)
        self._request = request
        return dropped

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self._request.model_uri!r}, messages={len(self._request.messages)})"
