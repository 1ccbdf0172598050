"""The synchronous client: a thin driver over the parts that do not wait."""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from yandexgpt import errors, forks
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2_grpc import (
    TextGenerationServiceStub,
)
from yandexgpt.base import BaseClient
from yandexgpt.completion import Completion, ReceivedMetadata
from yandexgpt.folding import Chunk
from yandexgpt.iam import IamExchange
from yandexgpt.raw import Raw, with_metadata
from yandexgpt.settings import UNSET, Metadata, Settings, Unset, check_seconds
from yandexgpt.streaming import BaseStream, Speech
from yandexgpt.transport import Lanes, inherited, open_channel

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from yandexgpt.calls import Call
    from yandexgpt.completion import CompletionResponse
    from yandexgpt.line import Line
    from yandexgpt.request import CompletionRequest, Prompt, Reasoning, ResponseFormat
    from yandexgpt.settings import Endpoint

__all__ = ["Client", "Stream"]


class Stream(BaseStream):
    """An answer as it is written: a context manager, and an iterator of :class:`~yandexgpt.Chunk`.

    The request is sent when the first chunk is asked for. Leaving the ``with``, :meth:`close`, dropping the stream and
    Ctrl-C cancel the call at the service. A call that fails before its first chunk is sent again as the client's
    ``retry`` says; after it the error is raised at once, with what there was in its ``partial``.
    """

    def __init__(self, responses: Generator[CompletionResponse, None, None], call: Call) -> None:
        super().__init__(call)
        self._responses = responses

    def finish(self) -> Completion:
        """Read on to the end.

        Raises:
            APIError: the call failed.
            YandexGPTError: the stream was closed, or broke, before.
        """
        for _ in self:
            pass
        return self.completion

    def text(self, *, holdback: int = 0) -> Iterator[str]:
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

    def _pieces(self, speech: Speech) -> Iterator[str]:
        for chunk in self:
            if piece := speech.piece(chunk.text, final=chunk.status.final):
                yield piece
        if self._call.answer is not None and (piece := speech.piece(self.completion.text, final=True)):
            yield piece

    def close(self) -> None:
        """Cancel the call if it is still under way. Idempotent; a thread that reads gets a ``CancelledError``."""
        self._call.cancel()
        if inspect.getgeneratorstate(self._responses) != inspect.GEN_RUNNING:
            self._responses.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        """The next chunk.

        Raises:
            APIError: the call failed.
        """
        for response in self._responses:
            return self._fold.push(response)
        if (chunk := self._end()) is None:
            raise StopIteration
        return chunk


class _Connection(forks.Forkable):
    """What a client shares with those that come of it by ``with_options``: its channels, and the calls on them."""

    def __init__(self, settings: Settings) -> None:
        self.key = settings.connection
        self.generation = Lanes(
            partial(open_channel, settings.endpoint, settings.channel_options, settings.interceptors)
        )
        self.closed = False
        self.calls: set[Call] = set()
        self.raw_channels: list[grpc.Channel] = []
        forks.register(self)

    def before_fork(self) -> bool:
        return bool(self.calls)

    def after_fork(self) -> None:
        """The parent's calls and channels are not the child's."""
        self.calls = set()
        inherited.extend(self.raw_channels)
        self.raw_channels = []

    def wait(self, call: Call, event: threading.Event, timeout: float | None) -> bool:
        """Wait for the event, or for the end of the call by somebody else's hand.

        Raises:
            CancelledError: the call was cancelled.
        """
        call.interrupt = event.set
        if not call.cancelled:
            event.wait(timeout)
        call.interrupt = None
        if call.cancelled:
            raise call.ended_here()
        return event.is_set()

    def close(self) -> None:
        """End the calls that are under way, and the connections."""
        self.closed = True
        for call in list(self.calls):
            call.cancel()
        for channel in (*self.generation.drain(), *self.raw_channels):
            channel.close()
        self.raw_channels.clear()


class Client(BaseClient):
    """A client for YandexGPT text generation over gRPC. Safe to share between threads; survives a fork.

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

    def complete(
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
        for _ in self._responses(call, request):
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
    ) -> Stream:
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
        return Stream(self._responses(call, request), call)

    @property
    def raw(self) -> Raw:
        """The generated stubs, with a channel and this client's metadata attached: every RPC of the interface.

        They are gRPC's own: no deadline, no retries, ``grpc.RpcError``.
        """
        self._check_open()
        here = os.getpid()  # a forked child needs channels of its own
        if self._raw is None or self._raw[0] != here:
            self._raw = here, Raw(self._settings, self._open_raw_channel)
        return self._raw[1]

    def connect(self, timeout: float | None = None) -> None:
        """Open the connection ahead of the first call, so that the first user does not wait for the TLS handshake.

        Args:
            timeout: seconds (> 0); by default the client's.

        Raises:
            UnavailableError: it was not open within that time.
        """
        check_seconds("timeout", timeout)
        self._check_open()
        lane = self._connection.generation.take()
        started = time.monotonic()
        try:
            ready = grpc.channel_ready_future(lane.channel)
            try:
                ready.result(timeout=self._settings.timeout if timeout is None else timeout)
            except grpc.FutureTimeoutError as error:
                raise errors.not_connected(self._settings.endpoint.target, time.monotonic() - started) from error
            finally:
                ready.cancel()
        finally:
            self._connection.generation.give(lane)

    def close(self) -> None:
        """End what is in flight (its callers get a ``CancelledError``) and close the connections. Idempotent."""
        self._closed = True
        if self._owns_connection:
            self._connection.close()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _responses(self, call: Call, request: CompletionRequest) -> Generator[CompletionResponse, None, None]:
        """The messages of a generation: attempts, until one of them has handed something out."""
        self._check_open()
        connection, line = self._connection, self._calls.line
        lanes = connection.generation
        connection.calls.add(call)
        try:
            if line is not None:
                self._get_in_line(line, call)
            try:
                while True:
                    delay: float | None
                    authorization = self._authorization(call)
                    if isinstance(authorization, str):
                        lane = lanes.take()
                        rpc: Any = None
                        last: CompletionResponse | None = None
                        try:
                            timeout, sent = call.attempt(authorization)
                            rpc = lane.stub(TextGenerationServiceStub).Completion(
                                request, timeout=timeout, metadata=sent
                            )
                            call.interrupt = rpc.cancel
                            if call.cancelled:
                                rpc.cancel()
                            for last in rpc:
                                if not call.first_message_at:
                                    call.first_message_at = time.monotonic()
                                yield last
                            received = ReceivedMetadata(rpc.initial_metadata(), rpc.trailing_metadata())
                            call.succeeded(last, received)
                            return
                        except grpc.RpcError as error:
                            if call.cancelled:
                                raise call.ended_here(last) from error
                            delay = call.failed(error, last)
                            if delay is None:
                                return
                        except ValueError as error:  # gRPC's word for a channel that was closed a moment ago
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
                    connection.wait(call, threading.Event(), delay)
            finally:
                if line is not None:
                    line.leave()
        finally:
            connection.calls.discard(call)

    def _authorization(self, call: Call) -> str | BaseException:
        """What to send as ``authorization``, or why there is nothing to send."""
        credentials = self._settings.credentials
        if credentials.header is not None:
            return credentials.header
        header = credentials.refresher.header(
            partial(credentials.fetch, IamExchange(self._settings)), refused=call.refused
        )
        if isinstance(header, str):
            return header
        event = threading.Event()
        header.add_done_callback(lambda _: event.set())
        if not self._connection.wait(call, event, call.remaining()):
            raise call.expired("while waiting for a token")
        return header.exception() or header.result()

    def _get_in_line(self, line: Line, call: Call) -> None:
        """Wait for a place among ``max_concurrency``."""
        event = threading.Event()
        waiter = line.enter(event.set)
        if waiter is None:
            return
        try:
            if not self._connection.wait(call, event, call.remaining()):
                raise call.expired(f"in line, behind max_concurrency={self._settings.max_concurrency} calls")
        except BaseException:
            line.abandon(waiter)
            raise

    def _open_raw_channel(self, endpoint: Endpoint) -> grpc.Channel:
        channel = open_channel(endpoint, self._settings.channel_options, self._settings.interceptors)
        self._connection.raw_channels.append(channel)
        return grpc.intercept_channel(channel, _Authorize(self))

    def _raw_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        call = self._calls.new("raw", timeout=UNSET, attempt_timeout=UNSET, metadata=(), request_id=None)
        authorization = self._authorization(call)
        if not isinstance(authorization, str):
            raise authorization
        return call.attempt(authorization).metadata


class _Authorize(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the client's metadata to the calls of the raw stubs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(with_metadata(client_call_details, self._client._raw_metadata()), request)

    intercept_unary_stream = intercept_unary_unary
