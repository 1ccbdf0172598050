"""The asynchronous client: the twin of :mod:`yandexgpt.client`, from which it differs in ``await`` and little else."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import grpc

from yandexgpt import errors, forks
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2_grpc import (
    TextGenerationServiceStub,
)
from yandexgpt.base import BaseClient
from yandexgpt.completion import Completion, ReceivedMetadata
from yandexgpt.folding import Chunk
from yandexgpt.iam import IamExchange
from yandexgpt.raw import Raw
from yandexgpt.settings import UNSET, Metadata, Settings, Unset, check_seconds
from yandexgpt.streaming import BaseStream, Speech
from yandexgpt.transport import Lanes, inherited, keep_core, open_aio_channel

if TYPE_CHECKING:
    from types import AsyncGeneratorType, TracebackType

    from typing_extensions import Self

    from yandexgpt.calls import Call
    from yandexgpt.completion import CompletionResponse
    from yandexgpt.line import Line
    from yandexgpt.request import CompletionRequest, Prompt, Reasoning, ResponseFormat
    from yandexgpt.settings import Endpoint

__all__ = ["AsyncClient", "AsyncStream"]


class AsyncStream(BaseStream):
    """An answer as it is written: a context manager, and an iterator of :class:`~yandexgpt.Chunk`.

    The request is sent when the first chunk is asked for. Leaving the ``with``, :meth:`close`, dropping the stream and
    cancelling the task cancel the call at the service. A call that fails before its first chunk is sent again as the
    client's ``retry`` says; after it the error is raised at once, with what there was in its ``partial``.
    """

    def __init__(self, responses: AsyncGenerator[CompletionResponse, None], call: Call) -> None:
        super().__init__(call)
        self._responses = responses

    async def finish(self) -> Completion:
        """Read on to the end.

        Raises:
            APIError: the call failed.
            YandexGPTError: the stream was closed, or broke, before.
        """
        async for _ in self:
            pass
        return self.completion

    def text(self, *, holdback: int = 0) -> AsyncIterator[str]:
        """Iterate over pieces of text to append, for readers who cannot take anything back.

        Args:
            holdback: how many of the last characters to keep unsaid until the answer is final (>= 0): a revision that
                reaches no further back goes unnoticed.

        Raises:
            ValueError: ``holdback`` is not such a number.
            RevisedError: while iterating, the service took back something that was already handed out.
            APIError: while iterating, the call failed.
        """
        return self._pieces(Speech(holdback))

    async def _pieces(self, speech: Speech) -> AsyncIterator[str]:
        async for chunk in self:
            if piece := speech.piece(chunk.text, final=chunk.status.final):
                yield piece
        if self._call.answer is not None and (piece := speech.piece(self.completion.text, final=True)):
            yield piece

    async def close(self) -> None:
        """Cancel the call if it is still under way. Idempotent; a task that reads gets a ``CancelledError``."""
        self._call.cancel()
        if not cast("AsyncGeneratorType[CompletionResponse, None]", self._responses).ag_running:
            await self._responses.aclose()

    aclose = close
    """The same under the name that :func:`contextlib.aclosing` looks for."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """The next chunk.

        Raises:
            APIError: the call failed.
        """
        async for response in self._responses:
            return self._fold.push(response)
        if (chunk := self._end()) is None:
            raise StopAsyncIteration
        return chunk


class _Connection(forks.Forkable):
    """What a client shares with those that come of it by ``with_options``: its channels, and the calls on them.

    A channel of ``grpc.aio`` belongs to the event loop that it was opened in, so each loop has its own.
    """

    def __init__(self, settings: Settings) -> None:
        self._open = partial(open_aio_channel, settings.endpoint, settings.channel_options, settings.interceptors)
        self._lanes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Lanes] = weakref.WeakKeyDictionary()
        self.closed = False
        self.calls: dict[Call, asyncio.AbstractEventLoop] = {}
        self.raw_channels: list[tuple[grpc.aio.Channel, asyncio.AbstractEventLoop]] = []
        forks.register(self)

    def before_fork(self) -> bool:
        """Let go of the channels: while there is one, a thread of grpc.aio is inside gRPC, which no child survives.

        The parent opens others with its next call.
        """
        if not self.calls and (self._lanes or self.raw_channels):
            keep_core()
            self._lanes.clear()
            self.raw_channels.clear()
            gc.collect()  # what refers to a channel may be in cycles
        return bool(self.calls)

    def after_fork(self) -> None:
        """The parent's calls and channels are not the child's."""
        self.calls = {}
        inherited.extend(channel for channel, _ in self.raw_channels)
        self.raw_channels = []

    @property
    def generation(self) -> Lanes:
        """The connections of the running loop."""
        loop = asyncio.get_running_loop()
        lanes = self._lanes.get(loop)
        if lanes is None:
            lanes = self._lanes[loop] = Lanes(self._open)
        return lanes

    async def wait(self, call: Call, event: asyncio.Event, timeout: float | None) -> bool:
        """Wait for the event, or for the end of the call by somebody else's hand.

        Raises:
            CancelledError: the call was cancelled.
        """
        call.interrupt = from_any_thread(event.set)
        if not call.cancelled:
            # Not wait_for: it may swallow a cancellation that comes together with the event (before Python 3.12).
            waiting = asyncio.ensure_future(event.wait())
            try:
                await asyncio.wait({waiting}, timeout=timeout)
            finally:
                waiting.cancel()
        call.interrupt = None
        if call.cancelled:
            raise call.ended_here()
        return event.is_set()

    async def close(self) -> None:
        """End the calls that are under way, and the connections, in whichever loop they are."""
        self.closed = True
        for call, loop in list(self.calls.items()):
            if not loop.is_closed():
                call.cancel()
        channels = [(channel, loop) for loop, lanes in list(self._lanes.items()) for channel in lanes.drain()]
        channels += self.raw_channels
        self.raw_channels = []
        here = asyncio.get_running_loop()
        for channel, loop in channels:
            if loop is here:
                await channel.close()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(channel.close(), loop))


class AsyncClient(BaseClient):
    """A client for YandexGPT text generation over gRPC. Native on ``grpc.aio``. Works in any number of event loops,
    one after another or each in a thread of its own; survives a fork.

    Args:
        folder_id: the folder that pays: it makes ``gpt://<folder>/...`` of a model's name, and is sent as
            ``x-folder-id``. By default from ``YC_FOLDER_ID``, ``FOLDER_ID`` or ``YANDEX_CLOUD_FOLDER``.
        credentials: an object of :mod:`yandexgpt.credentials`, or a ``str`` taken as an API key. By default from the
            environment: see :func:`yandexgpt.credentials.from_env`.
        model: a model's name (``yandexgpt``), ``name/version``, or a whole URI.
        endpoint: ``host:port`` of the service; by default ``YANDEXGPT_ENDPOINT``, else the service's own.
        operation_endpoint, iam_endpoint: the same for asynchronous operations and for tokens; by default ``endpoint``
            if that was given, else the service's own.
        tls: True (system roots), the path of a PEM bundle, or False for plaintext, over which a secret is sent to
            loopback addresses only. By default ``YANDEXGPT_TLS``, else True.
        timeout: seconds for a whole call (> 0): waiting in line, tokens, retries, and a stream to its last message;
            None for no deadline.
        attempt_timeout: seconds for one attempt (> 0), or None.
        retry: when to send a call again.
        max_concurrency: how many generations may be in flight at once (>= 1); further ones wait in line, first come
            first served, within their deadline. None for no limit.
        log_data: False asks the service not to keep the content of requests (``x-data-logging-enabled: false``).
        metadata: pairs sent with every call.
        channel_options: gRPC channel arguments; they win over this package's own.
        interceptors: gRPC client interceptors.

    Raises:
        ConfigurationError: a value cannot be used. Nothing is sent.
    """

    _connection_type = _Connection
    _connection: _Connection

    async def complete(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning: Reasoning | None = None,
        tools: Iterable[Mapping[str, Any]] | None = None,
        tool_choice: str | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: ResponseFormat | None = None,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        metadata: Metadata = (),
        request_id: str | None = None,
    ) -> Completion:
        """Ask for a whole answer.

        Args:
            prompt: a ``str`` (one user message), a sequence of messages (:class:`~yandexgpt.Message`, mappings with
                ``role`` and ``text``, or completions, which stand for their assistant message), or a ready
                ``CompletionRequest`` (see :func:`yandexgpt.load_request`), over which the options given here win.
            system: a system message to put before the prompt.
            model: a model's name, ``name/version``, or a whole URI; by default the client's.
            temperature: 0 to 1; by default the service's (0.3).
            max_tokens: the longest answer, in tokens (> 0); by default the model's.
            reasoning: ``"disabled"`` or ``"hidden"``; by default the service's (disabled).
            tools: functions that the model may call: mappings with ``name``, ``description`` and ``parameters``, a
                JSON Schema.
            tool_choice: ``"none"``, ``"auto"``, ``"required"``, or the name of one of the tools.
            parallel_tool_calls: whether one answer may hold several calls; by default the service's (it may).
            response_format: ``"json"``, a JSON Schema as a mapping, or a pydantic model.
            timeout: seconds for the whole call, retries included (> 0), or None; by default the client's.
            attempt_timeout: seconds for one attempt (> 0), or None; by default the client's.
            metadata: pairs to send besides the client's.
            request_id: the id to send as ``x-client-request-id``; by default a new UUID.

        Raises:
            ValueError: an argument has an impossible value. Nothing was sent.
            ConfigurationError: there is no folder to make the model's URI with, or no credential; or the client is
                closed. Nothing was sent.
            APIError: the call failed.
        """
        request, call = self._begin(
            prompt,
            stream=False,
            system=system,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            reasoning=reasoning,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response_format=response_format,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            metadata=metadata,
            request_id=request_id,
        )
        async for _ in self._responses(call, request):
            pass
        return call.completion()

    def stream(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning: Reasoning | None = None,
        tools: Iterable[Mapping[str, Any]] | None = None,
        tool_choice: str | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: ResponseFormat | None = None,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        metadata: Metadata = (),
        request_id: str | None = None,
    ) -> AsyncStream:
        """Ask for an answer as it is written. Arguments as for :meth:`complete`; ``timeout`` runs from this call on.

        Raises:
            ValueError, ConfigurationError: as for :meth:`complete`. Nothing was sent; nor is it before the stream is
                iterated over, which raises ``APIError`` if the call fails.
        """
        request, call = self._begin(
            prompt,
            stream=True,
            system=system,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            reasoning=reasoning,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response_format=response_format,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            metadata=metadata,
            request_id=request_id,
        )
        return AsyncStream(self._responses(call, request), call)

    @property
    def raw(self) -> Raw:
        """The generated stubs, with a channel and this client's metadata attached: every RPC of the interface.

        They are gRPC's own: no deadline, no retries, ``grpc.RpcError``.
        """
        self._check_open()
        here = os.getpid(), asyncio.get_running_loop()
        if self._raw is None or self._raw[0] != here:
            self._raw = here, Raw(self._settings, self._open_raw_channel)
        return self._raw[1]

    async def connect(self, timeout: float | None = None) -> None:
        """Open the connection ahead of the first call, so that the first user does not wait for the TLS handshake.

        Args:
            timeout: seconds (> 0); by default the client's.

        Raises:
            UnavailableError: it was not open within that time.
        """
        check_seconds("timeout", timeout)
        self._check_open()
        lanes = self._connection.generation
        lane = lanes.take()
        started = time.monotonic()
        try:
            limit = self._settings.timeout if timeout is None else timeout
            await asyncio.wait_for(lane.channel.channel_ready(), limit)
        except asyncio.TimeoutError as error:
            raise errors.not_connected(self._settings.endpoint.target, time.monotonic() - started) from error
        finally:
            lanes.give(lane)

    async def close(self) -> None:
        """End what is in flight (its callers get a ``CancelledError``) and close the connections. Idempotent."""
        self._closed = True
        if self._owns_connection:
            await self._connection.close()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _responses(self, call: Call, request: CompletionRequest) -> AsyncGenerator[CompletionResponse, None]:
        """The messages of a generation: attempts, until one of them has handed something out."""
        self._check_open()
        connection, line = self._connection, self._calls.line
        lanes = connection.generation
        connection.calls[call] = asyncio.get_running_loop()
        try:
            if line is not None:
                await self._get_in_line(line, call)
            try:
                while True:
                    delay: float | None
                    authorization = await self._authorization(call)
                    if isinstance(authorization, str):
                        lane = lanes.take()
                        rpc: Any = None
                        last: CompletionResponse | None = None
                        try:
                            timeout, sent = call.attempt(authorization)
                            rpc = lane.stub(TextGenerationServiceStub).Completion(
                                request, timeout=timeout, metadata=sent
                            )
                            call.interrupt = from_any_thread(rpc.cancel)
                            if call.cancelled:
                                rpc.cancel()
                            async for last in rpc:
                                if not call.first_message_at:
                                    call.first_message_at = time.monotonic()
                                yield last
                            received = ReceivedMetadata(await rpc.initial_metadata(), await rpc.trailing_metadata())
                            call.succeeded(last, received)
                            return
                        except grpc.RpcError as error:
                            if call.cancelled:
                                raise call.ended_here(last) from error
                            delay = call.failed(error, last)
                            if delay is None:
                                return
                        except asyncio.CancelledError:
                            # gRPC's word for a call that was cancelled on this side, and asyncio's for a task that was.
                            if call.cancelled and not task_cancelled():
                                raise call.ended_here(last) from None
                            if rpc is not None:
                                rpc.cancel()
                            raise
                        except grpc.aio.UsageError as error:  # for a channel that was closed a moment ago
                            if call.cancelled:
                                raise call.ended_here(last) from error
                            raise
                        except BaseException:
                            if rpc is not None:
                                rpc.cancel()
                            raise
                        finally:
                            call.interrupt = None
                            lanes.give(lane)
                    else:
                        delay = call.token_failed(authorization)
                    await connection.wait(call, asyncio.Event(), delay)
            finally:
                if line is not None:
                    line.leave()
        finally:
            connection.calls.pop(call, None)

    async def _authorization(self, call: Call) -> str | BaseException:
        """What to send as ``authorization``, or why there is nothing to send."""
        credentials = self._settings.credentials
        if credentials.header is not None:
            return credentials.header
        header = credentials.refresher.header(
            partial(credentials.fetch, IamExchange(self._settings)), refused=call.refused
        )
        if isinstance(header, str):
            return header
        event = asyncio.Event()
        wake = from_any_thread(event.set)
        header.add_done_callback(lambda _: wake())
        if not await self._connection.wait(call, event, call.remaining()):
            raise call.expired("while waiting for a token")
        return header.exception() or header.result()

    async def _get_in_line(self, line: Line, call: Call) -> None:
        """Wait for a place among ``max_concurrency``."""
        event = asyncio.Event()
        waiter = line.enter(from_any_thread(event.set))
        if waiter is None:
            return
        try:
            if not await self._connection.wait(call, event, call.remaining()):
                raise call.expired(f"in line, behind max_concurrency={self._settings.max_concurrency} calls")
        except BaseException:
            line.abandon(waiter)
            raise

    def _open_raw_channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        interceptors = [*self._settings.interceptors, _AuthorizeUnary(self), _AuthorizeStream(self)]
        channel: grpc.aio.Channel = open_aio_channel(endpoint, self._settings.channel_options, interceptors)
        self._connection.raw_channels.append((channel, asyncio.get_running_loop()))
        return channel

    async def _raw_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        call = self._calls.new("raw", timeout=UNSET, attempt_timeout=UNSET, metadata=(), request_id=None)
        authorization = await self._authorization(call)
        if not isinstance(authorization, str):
            raise authorization
        return call.attempt(authorization).metadata


class _Authorize:
    """Adds the client's metadata to the calls of the raw stubs."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def _continue(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), *await self._client._raw_metadata())
        return await continuation(client_call_details._replace(metadata=metadata), request)


class _AuthorizeUnary(_Authorize, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _Authorize._continue


class _AuthorizeStream(_Authorize, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _Authorize._continue


def from_any_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, to be called in the running loop from wherever it is called."""
    return partial(asyncio.get_running_loop().call_soon_threadsafe, function)


def task_cancelled() -> bool:
    """Whether somebody has cancelled the running task (unknown, so False, before Python 3.11)."""
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)
    return cancelling is not None and cancelling() > 0
