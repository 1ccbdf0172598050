"""Conversations, synchronous and not: what waits is here, the rest in :mod:`yandexgpt._features.history`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from yandexgpt._async.stream import AsyncStream, Stream
from yandexgpt._features.history import BaseChat, fitting
from yandexgpt._features.tool_loop import ToolRun, run_rounds, run_rounds_async

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from yandexgpt._async.client import AsyncClient  # noqa: F401  (in the base of AsyncChat)
    from yandexgpt._chunks import Chunk
    from yandexgpt._features.history import Turn
    from yandexgpt._messages import Message
    from yandexgpt._models import Completion
    from yandexgpt._options import AskOptions, StreamTurnOptions, TurnOptions
    from yandexgpt._request import ToolLike
    from yandexgpt._sync.client import Client  # noqa: F401

__all__ = ["AsyncChat", "Chat"]


class ChatStream(Stream):
    """The stream of a turn: once it has been read to its end, the turn is in the history."""

    def __init__(self, stream: Stream, turn: Turn) -> None:
        self.__dict__.update(stream.__dict__)
        self._turn = turn

    def __next__(self) -> Chunk:
        try:
            return super().__next__()
        except StopIteration:
            if self._call.answer is not None:
                self._turn.succeeded(self.completion)
            self._turn.over = True
            raise
        except BaseException:
            self._turn.over = True
            raise

    def close(self) -> None:
        super().close()
        self._turn.over = True


class AsyncChatStream(AsyncStream):
    """The stream of a turn: once it has been read to its end, the turn is in the history."""

    def __init__(self, stream: AsyncStream, turn: Turn) -> None:
        self.__dict__.update(stream.__dict__)
        self._turn = turn

    async def __anext__(self) -> Chunk:
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            if self._call.answer is not None:
                self._turn.succeeded(self.completion)
            self._turn.over = True
            raise
        except BaseException:
            self._turn.over = True
            raise

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            self._turn.over = True

    aclose = close


class Chat(BaseChat["Client"]):
    """A conversation, made by a client's ``chat()``: every turn is asked with the messages of those before it.

    The history grows only when a turn succeeds: one that failed, was cancelled, closed or given up leaves it as it was.
    An answer that was cut or filtered is an answer, and its turn is in the history. One turn at a time.
    """

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
            turn.succeeded(completion)
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
            return ChatStream(self._client.stream(turn.request, **options), turn)
        except BaseException:
            turn.over = True
            raise

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
            run = ToolRun(self._client._driver.settings, turn.request, tools, max_rounds, options)
            completion = run_rounds(self._client.complete, run)
            turn.ran(run)
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
        with self._hold() as turn:
            search = fitting(turn.request, max_tokens)
            try:
                candidate = next(search)
                while True:
                    candidate = search.send(self._client.count_tokens(candidate))
            except StopIteration as found:
                return self._replace(found.value)


class AsyncChat(BaseChat["AsyncClient"]):
    """A conversation, made by a client's ``chat()``: every turn is asked with the messages of those before it.

    The history grows only when a turn succeeds: one that failed, was cancelled, closed or given up leaves it as it was.
    An answer that was cut or filtered is an answer, and its turn is in the history. One turn at a time.
    """

    async def send(self, text: str | Message, **options: Unpack[TurnOptions]) -> Completion:
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
            completion = await self._client.complete(turn.request, **options)
            turn.succeeded(completion)
            return completion

    def stream(self, text: str | Message, **options: Unpack[StreamTurnOptions]) -> AsyncStream:
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
            return AsyncChatStream(self._client.stream(turn.request, **options), turn)
        except BaseException:
            turn.over = True
            raise

    async def ask(
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
            run = ToolRun(self._client._driver.settings, turn.request, tools, max_rounds, options)
            completion = await run_rounds_async(self._client.complete, run)
            turn.ran(run)
            return completion

    async def trim(self, max_tokens: int) -> int:
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
        with self._hold() as turn:
            search = fitting(turn.request, max_tokens)
            try:
                candidate = next(search)
                while True:
                    candidate = search.send(await self._client.count_tokens(candidate))
            except StopIteration as found:
                return self._replace(found.value)
