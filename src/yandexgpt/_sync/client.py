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
        interceptors: gRPC client interceptors, the first outermost: of an ``Client`` those of ``grpc.aio``, of a
            ``Client`` both kinds, because ``complete_many`` makes its calls over ``grpc.aio``, and needs asynchronous
            ones if there are synchronous ones. Generations are unary-stream calls, all others are unary-unary. Every
            attempt is seen, and the time that interceptors take counts against the deadline.

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
            tools: functions that the model may call: made by :func:`yandexgpt.tool`, or mappings with ``name``,
                ``description`` and ``parameters``, a JSON Schema. :meth:`run_tools` calls them, this does not.
            tool_choice: ``"none"``, ``"auto"``, ``"required"``, or the name of one of the tools.
            parallel_tool_calls: whether one answer may hold several calls; by default the service's (it may).
            response_format: ``"json"``, a JSON Schema as a mapping, or a pydantic model, a dataclass or another type
                that pydantic understands.
            max_context_tokens: how many tokens the prompt may have, and ``max_tokens`` if given, together (> 0): the
                prompt is counted by the service first, within the same deadline. By default nothing is counted.
            timeout: seconds for the whole call, retries included (> 0), or None; by default the client's.
            attempt_timeout: seconds for one attempt (> 0), or None; by default the client's.
            metadata: pairs to send besides the client's.
            request_id: the id to send as ``x-client-request-id``; by default a new UUID.

        Raises:
            ValueError: an argument has an impossible value. Nothing was sent.
            ConfigurationError: there is no folder to make the model's URI with, or no credential; or the client is
                closed. Nothing was sent.
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
        """Ask for an answer as it is written. Arguments as for :meth:`complete`; ``timeout`` runs from this call on.

        Args:
            latest: for readers who may be slower than the service: hand out only the newest chunk there is, and always
                the last one. What was overtaken is not kept. Costs a ``Client`` a thread for as long as the stream
                lasts, and an ``Client`` a task.

        Raises:
            ValueError, ConfigurationError: as for :meth:`complete`. Nothing was sent; nor is it before the stream is
                iterated over, which raises ``APIError`` if the call fails.
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
        """Ask for a whole answer to each of many prompts, several at a time: the way to make many calls at once.

        Prompts are read as they are needed, and so may be any number: at most ``concurrency`` of them are without an
        answer at a time, and at most twice as many have been read and not handed out, so that one which takes long
        does not keep the others waiting, and memory does not grow. What is ready is handed out before the next prompt
        is read, unless the prompts are a list or a tuple, which never blocks. Every prompt is a call of its own, with
        its own deadline, retries and id.

        A ``Client`` makes the calls in an event loop in one background thread, over a connection of its own, both of
        which end with the iterator; prompts are read by whoever iterates.

        Args:
            prompts: an iterable of what :meth:`complete` takes; of an ``Client`` it may be an asynchronous one.
            concurrency: how many calls may be under way at once (>= 1); no more than ``max_concurrency`` of the client
                ever are.
            ordered: True: results come in the order of their prompts. False: as soon as there is one.
            on_error: what to do when a prompt has no answer. ``"raise"``: raise its error in its place, and cancel the
                rest. ``"return"``: hand out a result with its ``error``, and go on.
            options: as for :meth:`complete`, for every call. A ``request_id`` gets the index of the prompt added, as
                in ``<request_id>-<index>``.

        Returns:
            An iterator of :class:`~yandexgpt.Result`: ``index``, ``prompt``, and ``completion`` or ``error``. Closing
            or dropping it cancels what is under way.

        Raises:
            ValueError: an argument has an impossible value. Nothing was sent.
            TypeError: the prompts are not iterable, or there is no such option. Nothing was sent.
            ConfigurationError: the client is closed; also while iterating, after a result with a ``CancelledError``.
            CancelledError: while iterating, the client or the results were closed.
            APIError: while iterating, with ``on_error="raise"``, a call failed.
        """
        from yandexgpt._features.batch import BatchOptions
        from yandexgpt._rpc.batch import Batch
        from yandexgpt._sync.batch import Results

        of_batch = BatchOptions(
            self._settings,
            prompts,
            Batch.iterables,
            concurrency=concurrency,
            ordered=ordered,
            on_error=on_error,
            options=options,
        )
        return Results(Batch(self._invoker, of_batch))

    @property
    def responses(self) -> Responses:
        """For code written for openai's client: ``responses.create(...)``, ``retrieve(id)``, ``cancel(id)``."""
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
        """Begin a conversation, whose history is kept on this side. Asks nothing yet.

        Args:
            system, model, temperature, max_tokens, reasoning, tools, tool_choice, parallel_tool_calls,
                response_format: as for :meth:`complete`, for every turn.
            messages: what was said before, as for :meth:`complete`.

        Raises:
            ValueError: an argument has an impossible value.
            ConfigurationError: there is no folder to make the model's URI with.
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
        """Ask, call the functions that the model wants called, give it their results, and so on until it answers.

        The calls of one answer are made at the same time: by the synchronous client in up to eight threads, by the
        asynchronous one in a task each (a function that is not a coroutine function runs in a thread). What fails is
        told to the model in place of a result: an exception of a function (its type and message, and no traceback: a
        message that holds a secret gives it away), arguments that do not fit, a name that is no tool's. The logger
        ``yandexgpt`` has the exception's type on WARNING, and all of it on DEBUG. A function's text goes as it is,
        any other result as JSON.

        Args:
            prompt: as for :meth:`complete`.
            tools: functions made into tools by :func:`yandexgpt.tool`.
            max_rounds: how often the model may ask for calls (>= 1).
            options: as for :meth:`complete`. A ``tool_choice`` that demands a call holds for the first round;
                ``timeout``, ``attempt_timeout``, ``metadata`` and ``request_id`` are those of each call to the model.

        Returns:
            The last answer.

        Raises:
            ValueError: an argument has an impossible value, or a tool has no function. Nothing was sent.
            TruncatedError, ContentFilterError: an answer was cut, or filtered.
            ToolRoundsError: after ``max_rounds`` rounds the model asked for more; the answer that does is in it.
            APIError: a call to the model failed.
        """
        from yandexgpt._features.tool_loop import ToolLoop
        from yandexgpt._sync.tools import run_tool_loop

        return run_tool_loop(self.complete, ToolLoop(self._settings, prompt, tools, max_rounds, options))

    def parse(
        self, prompt: Prompt, answer_type: type[T] | TypeAdapter[T], **options: Unpack[ParseOptions]
    ) -> Parsed[T]:
        """Ask for an answer of a certain structure, and validate it. Needs the extra ``yandexgpt[pydantic]``.

        Args:
            prompt: as for :meth:`complete`.
            answer_type: a pydantic model, a dataclass, or another type that pydantic understands; or a
                ``pydantic.TypeAdapter``, which type checkers need for a union. The model gets its JSON Schema.
            options: as for :meth:`complete`.

        Raises:
            ValueError: an argument has an impossible value. Nothing was sent.
            ConfigurationError: pydantic is not installed; or as for :meth:`complete`. Nothing was sent.
            TruncatedError, ContentFilterError: the answer was cut, or filtered.
            InvalidAnswerError: the answer is not such a value; the ``pydantic.ValidationError`` is its cause.
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
        """Ask for a whole answer in asynchronous mode: cheaper, slower, and it goes on without this process.

        The submission carries an ``idempotency-key``, the same for all its attempts, so that one which is sent again
        makes one operation; a key of your own in ``metadata`` takes its place. Results are kept for three days.

        Args:
            prompt, system, model, temperature, max_tokens, reasoning, tools, tool_choice, parallel_tool_calls,
                response_format, max_context_tokens: as for :meth:`complete`.
            timeout, attempt_timeout, metadata, request_id: as for :meth:`complete`, of the submission.

        Returns:
            The operation, to be waited for (:meth:`Operation.wait`, :meth:`wait_all`), or stored as its ``id``.

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
        """An operation that was submitted before, by this process or another. Asks nothing yet.

        Args:
            operation_id: :attr:`Operation.id`.

        Raises:
            ValueError: it cannot be the id of an operation.
        """
        from yandexgpt._sync.operation import Operation, check_id

        return Operation(self._invoker, check_id(operation_id))

    def wait_all(self, operations: Iterable[Operation], timeout: float | None = 600.0) -> Iterator[Operation]:
        """Wait for many operations: each is handed out when it has ended.

        They are looked up one after another, each at intervals that grow from half a second to ten. All look-ups of a
        client keep within the 50 a second that the service allows: with more operations than that the intervals grow.

        Args:
            operations: of :meth:`submit` or :meth:`operation`. Those that have ended already come first.
            timeout: seconds for all of them, from this call on (> 0), or None for as long as it takes.

        Returns:
            An iterator. Those that failed, were cancelled, or are not known to the service any more come out too:
            :attr:`Operation.error` says why, and ``result()`` raises it.

        Raises:
            ValueError: an impossible timeout.
            TypeError: something among the operations is none.
            OperationTimeout: while iterating, the time was over; those that are not done are in its ``operations``.
            CancelledError: while iterating, the client was closed.
            APIError: while iterating, a look-up failed. The operations go on, and can be waited for again.
        """
        from yandexgpt._sync.operation import schedule, wait_for_all

        return wait_for_all(self._invoker, schedule(operations, timeout))

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
        """The tokens of a text, or of a prompt as the model gets it.

        Args:
            prompt: a ``str``: the text itself. A sequence of messages or a ``CompletionRequest``, as for
                :meth:`complete`: all that the model reads, with the tokens that stand between the messages.
            system: a system message to put before the prompt; a ``str`` is then a user message.
            model: whose tokens, as for :meth:`complete`; by default the client's.
            tools: as for :meth:`complete`; a ``str`` is then a user message.
            timeout, attempt_timeout, metadata, request_id: as for :meth:`complete`.

        Raises:
            ValueError, ConfigurationError, APIError: as for :meth:`complete`.
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
        """How many tokens a text or a prompt has. Arguments and errors as for :meth:`tokenize`."""
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
        """A client with some arguments of this one changed, on the same connection if they allow it.

        Closing it does not close the connection it shares; closing this one does.

        Args:
            options: as for the class itself.

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
        """The generated stubs, with a channel and this client's metadata attached: every RPC that the service has.

        They are gRPC's own: no deadline, no retries, ``grpc.RpcError``.
        """
        return self._invoker.raw()

    def connect(self, timeout: float | None = None) -> None:
        """Open the connection ahead of the first call, so that the first user does not wait for the TLS handshake.

        Args:
            timeout: seconds (> 0); by default the client's.

        Raises:
            UnavailableError: it was not open within that time.
        """
        self._invoker.connect(timeout)

    def close(self) -> None:
        """End what is in flight (its callers get a ``CancelledError``) and close the connections. Idempotent."""
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
