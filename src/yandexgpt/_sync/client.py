# Generated from ../_async by scripts/unasync.py. Do not edit.
"""The synchronous client."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from yandexgpt._checks import Metadata
from yandexgpt._config import UNSET, Settings, Unset
from yandexgpt._models import Completion, Token
from yandexgpt._request import CompletionRequest, build_request, build_tokenization
from yandexgpt._retry import DEFAULT_RETRY, Retry
from yandexgpt._rpc.call import CallOptions
from yandexgpt._rpc.invoker import Invoker
from yandexgpt._rpc.methods import TextGenerationAsyncService, TextGenerationService, TokenizerService
from yandexgpt._sync.stream import Stream

if TYPE_CHECKING:
    from types import TracebackType

    from pydantic import TypeAdapter
    from typing_extensions import Self, Unpack

    from yandexgpt._features.batch import OnError, Prompts
    from yandexgpt._messages import Message
    from yandexgpt._options import ManyOptions, ParseOptions, RunOptions
    from yandexgpt._request import Prompt, Reasoning, ResponseFormat, ToolLike
    from yandexgpt._rpc.raw import Raw
    from yandexgpt._structured_output import Parsed
    from yandexgpt._sync.batch import Results
    from yandexgpt._sync.chat import Chat
    from yandexgpt._sync.operation import Operation
    from yandexgpt._sync.responses import Responses
    from yandexgpt.credentials import Credentials

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """A client for YandexGPT text generation over gRPC. Safe to share between threads; survives a fork.

    Args:
        folder_id: the folder that is billed. It completes a model's name to ``gpt://<folder>/...``, and is sent as
            ``x-folder-id``. By default from ``YC_FOLDER_ID``, ``FOLDER_ID`` or ``YANDEX_CLOUD_FOLDER``.
        credentials: an object of :mod:`yandexgpt.credentials`, or an API key as a ``str``. By default from the
            environment: see :func:`yandexgpt.credentials.from_env`.
        model: a model's name (``yandexgpt``), ``name/version``, or a whole URI.
        endpoint: ``host:port`` of the service; by default ``YANDEXGPT_ENDPOINT``, else the public endpoint.
        operation_endpoint, iam_endpoint: the same for asynchronous operations and for tokens; by default ``endpoint``
            if that is set, else the public endpoint.
        tls: True (system roots), the path of a PEM bundle, or False for plaintext, over which a secret is sent to
            loopback addresses only. By default ``YANDEXGPT_TLS``, else True.
        timeout: seconds for a whole call (> 0): the wait for a free slot, the fetch of a token, retries, and a stream
            to its last message; None for no deadline.
        attempt_timeout: seconds for one attempt (> 0), or None.
        retry: when to retry a call.
        max_concurrency: the most generations that may be in flight at the same time (>= 1); further calls wait for a
            free slot, in the order in which they came, within their deadline. None for no limit.
        log_data: False asks the service not to keep the content of requests (``x-data-logging-enabled: false``).
        metadata: pairs sent with every call.
        channel_options: gRPC channel arguments; they override this package's own.
        interceptors: gRPC client interceptors, the outermost first. An ``Client`` takes those of ``grpc.aio``. A
            ``Client`` takes both kinds: ``complete_many`` makes its calls over ``grpc.aio``, and needs asynchronous
            interceptors if there are synchronous ones. Generations are unary-stream calls, all others are unary-unary.
            Interceptors see every attempt, and their time counts against the deadline.

    Raises:
        ConfigurationError: a value cannot be used. Nothing is sent.
    """

    def __init__(
        self,
        *,
        folder_id: str | None = None,
        credentials: Credentials | str | None = None,
        model: str = "yandexgpt-lite",
        endpoint: str | None = None,
        operation_endpoint: str | None = None,
        iam_endpoint: str | None = None,
        tls: bool | str | os.PathLike[str] | None = None,
        timeout: float | None = 60.0,
        attempt_timeout: float | None = None,
        retry: Retry = DEFAULT_RETRY,
        max_concurrency: int | None = None,
        log_data: bool = True,
        metadata: Metadata = (),
        channel_options: Sequence[tuple[str, Any]] = (),
        interceptors: Sequence[Any] = (),
    ) -> None:
        settings = Settings.resolve(
            folder_id=folder_id,
            credentials=credentials,
            model=model,
            endpoint=endpoint,
            operation_endpoint=operation_endpoint,
            iam_endpoint=iam_endpoint,
            tls=tls,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            retry=retry,
            max_concurrency=max_concurrency,
            log_data=log_data,
            metadata=metadata,
            channel_options=channel_options,
            interceptors=interceptors,
        )
        self._invoker = Invoker(settings, None)

    @property
    def _settings(self) -> Settings:
        return self._invoker.settings

    def complete(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning: Reasoning | None = None,
        tools: Iterable[ToolLike] | None = None,
        tool_choice: str | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: ResponseFormat | None = None,
        max_context_tokens: int | None = None,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        metadata: Metadata = (),
        request_id: str | None = None,
    ) -> Completion:
        """Request a whole answer.

        Args:
            prompt: a ``str`` (one user message), a sequence of messages (:class:`~yandexgpt.Message`, mappings with
                ``role`` and ``text``, or completions, of which the assistant message is sent), or a
                ``CompletionRequest`` (see :func:`yandexgpt.load_request`), whose options the arguments override.
            system: a system message to put before the prompt.
            model: a model's name, ``name/version``, or a whole URI; by default the client's.
            temperature: 0 to 1; by default the service's (0.3).
            max_tokens: the longest answer, in tokens (> 0); by default the model's.
            reasoning: ``"disabled"`` or ``"hidden"``; by default the service's (disabled).
            tools: functions that the model may call: tools made by :func:`yandexgpt.tool`, or mappings with ``name``,
                ``description`` and ``parameters``, a JSON Schema. They are called by :meth:`run_tools` only.
            tool_choice: ``"none"``, ``"auto"``, ``"required"``, or the name of one of the tools.
            parallel_tool_calls: whether one answer may hold several calls; by default the service's (it may).
            response_format: ``"json"``, a JSON Schema as a mapping, or a pydantic model, a dataclass or another type
                that pydantic supports.
            max_context_tokens: the most tokens of the prompt and ``max_tokens``, if given, together (> 0). The service
                counts the prompt first, within the same deadline. By default nothing is counted.
            timeout: seconds for the whole call, retries included (> 0), or None; by default the client's.
            attempt_timeout: seconds for one attempt (> 0), or None; by default the client's.
            metadata: pairs to send besides the client's.
            request_id: the id to send as ``x-client-request-id``; by default a new UUID.

        Returns:
            The answer.

        Raises:
            ValueError: an argument is out of range or malformed. Nothing was sent.
            TypeError: the prompt has an unsupported type. Nothing was sent.
            ConfigurationError: there is no folder for the model's URI, or no credential; or the client is closed.
                Nothing was sent.
            PromptTooLongError: the prompt was counted, and does not fit. Nothing was generated.
            APIError: the call failed.
        """
        settings = self._settings
        request = build_request(
            prompt,
            folder_id=settings.folder_id,
            default_model=settings.model,
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
        )
        options = CallOptions(timeout, attempt_timeout, metadata, request_id, max_context_tokens)
        answer = self._invoker.unary(TextGenerationService.Completion, request, options)
        return Completion(*answer)

    def stream(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning: Reasoning | None = None,
        tools: Iterable[ToolLike] | None = None,
        tool_choice: str | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: ResponseFormat | None = None,
        max_context_tokens: int | None = None,
        latest: bool = False,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        metadata: Metadata = (),
        request_id: str | None = None,
    ) -> Stream:
        """Stream an answer. Arguments as for :meth:`complete`; ``timeout`` starts with this call.

        Args:
            latest: True: skip chunks that a newer one has replaced before they were read, for consumers slower than the
                service. The last chunk is never skipped. A ``Client`` uses one thread for it until the stream ends, an
                ``Client`` one task.

        Returns:
            The stream. The request is sent when it is iterated over, which raises ``APIError`` if the call fails.

        Raises:
            ValueError, TypeError, ConfigurationError: as for :meth:`complete`. Nothing was sent.
        """
        settings = self._settings
        request = build_request(
            prompt,
            folder_id=settings.folder_id,
            default_model=settings.model,
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
        )
        options = CallOptions(timeout, attempt_timeout, metadata, request_id, max_context_tokens)
        return Stream(*self._invoker.stream(TextGenerationService.Completion, request, options, latest=latest))

    def complete_many(
        self,
        prompts: Prompts,
        *,
        concurrency: int = 10,
        ordered: bool = True,
        on_error: OnError = "raise",
        **options: Unpack[ManyOptions],
    ) -> Results:
        """Request a whole answer to each of many prompts, several at the same time: the way to make many calls.

        Prompts are read on demand, so their number is not limited: at most ``concurrency`` calls are in flight, and at
        most ``2 * concurrency`` prompts have been read whose results were not returned. So a slow call does not delay
        the others, and memory stays bounded. A finished result is returned before the next prompt is read, unless the
        prompts are a list or a tuple, which never blocks. Every prompt is a separate call, with its own deadline,
        retries and id.

        A ``Client`` makes the calls in an event loop in one background thread, over a separate connection; both are
        released when the iterator ends. The thread that iterates reads the prompts.

        Args:
            prompts: an iterable of prompts as for :meth:`complete`; for an ``Client`` also an asynchronous one.
            concurrency: the most calls in flight at the same time (>= 1); the client's ``max_concurrency`` limits it.
            ordered: True: results come in the order of their prompts. False: in the order in which they finish.
            on_error: what to do when a prompt has no answer. ``"raise"``: raise its error instead of its result, and
                cancel all other calls. ``"return"``: return a result with its ``error``, and continue.
            options: as for :meth:`complete`, for every call. The index of the prompt is appended to a ``request_id``:
                ``<request_id>-<index>``.

        Returns:
            An iterator of :class:`~yandexgpt.Result`: ``index``, ``prompt``, and ``completion`` or ``error``. Closing
            or dropping it cancels the calls in flight.

        Raises:
            ValueError: an argument is out of range or malformed. Nothing was sent.
            TypeError: the prompts are not iterable, or there is no such option. Nothing was sent.
            ConfigurationError: the client is closed; also while iterating, after a result with a ``CancelledError``.
            CancelledError: while iterating, the client or the results were closed.
            APIError: while iterating, with ``on_error="raise"``, a call failed.
        """
        from yandexgpt._features.batch import BatchOptions
        from yandexgpt._rpc.batch import Batch
        from yandexgpt._sync.batch import Results

        batch_options = BatchOptions(
            self._settings,
            prompts,
            Batch.iterables,
            concurrency=concurrency,
            ordered=ordered,
            on_error=on_error,
            options=options,
        )
        return Results(Batch(self._invoker, batch_options))

    @property
    def responses(self) -> Responses:
        """The Responses API as in openai's client: ``responses.create(...)``, ``retrieve(id)``, ``cancel(id)``."""
        from yandexgpt._sync.responses import Responses

        return Responses(self)

    def chat(
        self,
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning: Reasoning | None = None,
        tools: Iterable[ToolLike] | None = None,
        tool_choice: str | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: ResponseFormat | None = None,
        messages: Iterable[Message | Completion | Mapping[str, Any]] = (),
    ) -> Chat:
        """Start a conversation, whose history the client keeps. Makes no call.

        Args:
            system, model, temperature, max_tokens, reasoning, tools, tool_choice, parallel_tool_calls,
                response_format: as for :meth:`complete`, for every turn.
            messages: the earlier messages of the conversation, as for :meth:`complete`.

        Raises:
            ValueError: an argument is out of range or malformed.
            TypeError: an item of ``messages`` has an unsupported type.
            ConfigurationError: there is no folder for the model's URI.
        """
        from yandexgpt._features.history import build_chat_request
        from yandexgpt._sync.chat import Chat

        request = build_chat_request(
            self._settings,
            messages,
            system=system,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            reasoning=reasoning,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response_format=response_format,
        )
        return Chat(self, request)

    def run_tools(
        self, prompt: Prompt, tools: Iterable[ToolLike], *, max_rounds: int = 5, **options: Unpack[RunOptions]
    ) -> Completion:
        """Call the model, run the functions that it calls, send it their results, and repeat until it answers.

        The calls of one answer run at the same time: in a ``Client`` in up to eight threads, in an ``Client`` in
        one task each (a function that is not a coroutine function runs in a thread). A ``str`` that a function returns
        is sent unchanged, any other result as JSON.

        A failure is sent to the model instead of a result: an exception of the function (its type and message, without
        the traceback; a secret in the message is sent too), invalid arguments, or an unknown tool name. The logger
        ``yandexgpt`` has the exception's type on WARNING, and its message and traceback on DEBUG.

        Args:
            prompt: as for :meth:`complete`.
            tools: functions made into tools by :func:`yandexgpt.tool`.
            max_rounds: how many times the model may ask for calls (>= 1).
            options: as for :meth:`complete`. A ``tool_choice`` that requires a call is sent in the first round only;
                ``timeout``, ``attempt_timeout``, ``metadata`` and ``request_id`` are those of each call to the model.

        Returns:
            The last answer.

        Raises:
            ValueError: an argument is out of range or malformed, or a tool has no function. Nothing was sent.
            TruncatedError, ContentFilterError: an answer was truncated, or filtered.
            ToolRoundsError: the model asked for calls after ``max_rounds`` rounds; the error holds that answer.
            APIError: a call to the model failed.
        """
        from yandexgpt._features.tool_loop import ToolLoop
        from yandexgpt._sync.tools import run_tool_loop

        return run_tool_loop(self.complete, ToolLoop(self._settings, prompt, tools, max_rounds, options))

    def parse(
        self, prompt: Prompt, answer_type: type[T] | TypeAdapter[T], **options: Unpack[ParseOptions]
    ) -> Parsed[T]:
        """Request an answer of a given type, and validate it. Needs the extra ``yandexgpt[pydantic]``.

        Args:
            prompt: as for :meth:`complete`.
            answer_type: a pydantic model, a dataclass, or another type that pydantic supports; or a
                ``pydantic.TypeAdapter``, which type checkers need for a union. Its JSON Schema is sent to the model.
            options: as for :meth:`complete`.

        Returns:
            The value and the answer.

        Raises:
            ValueError: an argument is out of range or malformed. Nothing was sent.
            ConfigurationError: pydantic is not installed; or as for :meth:`complete`. Nothing was sent.
            TruncatedError, ContentFilterError: the answer was truncated, or filtered.
            InvalidAnswerError: the answer is not a value of the type; the ``pydantic.ValidationError`` is its cause.
            APIError: the call failed.
        """
        from yandexgpt._structured_output import Structure

        structure = Structure(answer_type)
        return structure.parse(self.complete(prompt, response_format=structure.schema, **options))

    def submit(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning: Reasoning | None = None,
        tools: Iterable[ToolLike] | None = None,
        tool_choice: str | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: ResponseFormat | None = None,
        max_context_tokens: int | None = None,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        metadata: Metadata = (),
        request_id: str | None = None,
    ) -> Operation:
        """Request a whole answer in asynchronous mode: cheaper, slower, and independent of this process.

        All attempts of a submission carry the same ``idempotency-key``, so that a retried submission creates one
        operation; a key in ``metadata`` replaces it. The service keeps results for three days.

        Args:
            prompt, system, model, temperature, max_tokens, reasoning, tools, tool_choice, parallel_tool_calls,
                response_format, max_context_tokens: as for :meth:`complete`.
            timeout, attempt_timeout, metadata, request_id: as for :meth:`complete`, for the submission only.

        Returns:
            The operation: wait for it with :meth:`Operation.wait` or :meth:`wait_all`, or store its ``id``.

        Raises:
            ValueError, ConfigurationError, APIError: as for :meth:`complete`.
        """
        from yandexgpt._sync.operation import Operation

        settings = self._settings
        request = build_request(
            prompt,
            folder_id=settings.folder_id,
            default_model=settings.model,
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
        )
        options = CallOptions(timeout, attempt_timeout, metadata, request_id, max_context_tokens)
        answer = self._invoker.unary(TextGenerationAsyncService.Completion, request, options)
        return Operation(self._invoker, answer.message.id, answer)

    def operation(self, operation_id: str) -> Operation:
        """Attach to an operation that this process or another has submitted. Makes no call.

        Args:
            operation_id: :attr:`Operation.id`.

        Raises:
            ValueError: it does not have the form of an operation's id.
        """
        from yandexgpt._sync.operation import Operation, check_id

        return Operation(self._invoker, check_id(operation_id))

    def wait_all(self, operations: Iterable[Operation], timeout: float | None = 600.0) -> Iterator[Operation]:
        """Wait for many operations: each is yielded when it has ended.

        Operations are polled one at a time, each at intervals that grow from 0.5 s to 10 s. One rate limit holds for
        all polls of a client, because the service allows 50 a second: with many operations the intervals are longer.

        Args:
            operations: operations of :meth:`submit` or :meth:`operation`. Those that have already ended come first.
            timeout: seconds for all operations together, from this call on (> 0), or None for no deadline.

        Returns:
            An iterator. It also yields operations that failed, were cancelled, or are no longer known to the service:
            :attr:`Operation.error` has the reason, and ``result()`` raises it.

        Raises:
            ValueError: ``timeout`` is not a number of seconds greater than 0.
            TypeError: one of the operations is not an operation of this kind of client.
            OperationTimeout: while iterating, the deadline passed; its ``operations`` are those that are not done.
            CancelledError: while iterating, the client was closed.
            APIError: while iterating, a poll failed. The service continues the operations, and they can be waited for
                again.
        """
        from yandexgpt._sync.operation import poll_schedule, wait_for_all

        return wait_for_all(self._invoker, poll_schedule(operations, timeout))

    def tokenize(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        model: str | None = None,
        tools: Iterable[ToolLike] | None = None,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        metadata: Metadata = (),
        request_id: str | None = None,
    ) -> tuple[Token, ...]:
        """Split a text, or a prompt as the model reads it, into tokens.

        Args:
            prompt: a ``str``: the text only. A sequence of messages or a ``CompletionRequest``, as for
                :meth:`complete`: the whole prompt, with the special tokens between the messages.
            system: a system message to put before the prompt; a ``str`` prompt is then a user message.
            model: the model that defines the tokens, as for :meth:`complete`; by default the client's.
            tools: as for :meth:`complete`; a ``str`` prompt is then a user message.
            timeout, attempt_timeout, metadata, request_id: as for :meth:`complete`.

        Returns:
            The tokens, in the order of the text.

        Raises:
            ValueError, TypeError, ConfigurationError, APIError: as for :meth:`complete`.
        """
        settings = self._settings
        request = build_tokenization(
            prompt, folder_id=settings.folder_id, default_model=settings.model, system=system, model=model, tools=tools
        )
        whole_prompt = isinstance(request, CompletionRequest)
        method = TokenizerService.TokenizeCompletion if whole_prompt else TokenizerService.Tokenize
        options = CallOptions(timeout, attempt_timeout, metadata, request_id)
        answer = self._invoker.unary(method, request, options)
        return tuple(map(Token, answer.message.tokens))

    def count_tokens(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        model: str | None = None,
        tools: Iterable[ToolLike] | None = None,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        metadata: Metadata = (),
        request_id: str | None = None,
    ) -> int:
        """Count the tokens of a text or a prompt. Arguments and errors as for :meth:`tokenize`."""
        tokens = self.tokenize(
            prompt,
            system=system,
            model=model,
            tools=tools,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            metadata=metadata,
            request_id=request_id,
        )
        return len(tokens)

    def with_options(self, **options: Any) -> Self:
        """A client with some arguments changed. It shares the connection of this client if they allow it.

        Closing the new client does not close a shared connection; closing this client does.

        Args:
            options: as for the class.

        Raises:
            ConfigurationError: a value cannot be used, or the client is closed.
            TypeError: there is no such argument.
        """
        self._invoker.check_open()
        client = type(self).__new__(type(self))
        client._invoker = Invoker(self._settings.with_options(options), self._invoker)
        return client

    @property
    def raw(self) -> Raw:
        """The generated stubs of every RPC of the service, with a channel and this client's metadata.

        They behave as in gRPC: no deadline, no retries, errors are ``grpc.RpcError``.
        """
        return self._invoker.raw()

    def connect(self, timeout: float | None = None) -> None:
        """Open the connection before the first call, so that the first call does not wait for the TLS handshake.

        Args:
            timeout: seconds (> 0); by default the client's.

        Raises:
            UnavailableError: the connection was not open within ``timeout``.
            ConfigurationError: the client is closed.
        """
        self._invoker.connect(timeout)

    def close(self) -> None:
        """Cancel the calls in flight (each caller gets a ``CancelledError``), and close the connections. Idempotent."""
        self._invoker.close()

    def __enter__(self) -> Self:
        self._invoker.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings.describe()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client cannot be pickled or copied: make one in each process, or let fork inherit it")
