"""The exceptions of the package.

::

    YandexGPTError
    ├── ConfigurationError (ValueError)          nothing was sent
    │   └── PromptTooLongError                   max_context_tokens: the prompt was counted, and does not fit
    ├── OperationFailed                          an asynchronous request ended in an error, or was cancelled
    ├── OperationTimeout (TimeoutError)          wait(), wait_all(): not done in time; the service continues it
    ├── RevisedError                             Stream.text() only: the service changed text already yielded
    ├── TruncatedError, ContentFilterError       parse(), run_tools(), Chat.ask(): the answer is incomplete
    ├── InvalidAnswerError (ValueError)          parse() only: the answer is not of the requested type
    ├── ToolRoundsError                          run_tools(), Chat.ask(): tool calls after max_rounds rounds
    └── APIError                                 the call failed
        ├── InvalidArgumentError    INVALID_ARGUMENT      correct the request
        ├── AuthenticationError     UNAUTHENTICATED       the credential is wrong or has expired
        ├── PermissionDeniedError   PERMISSION_DENIED     a role is missing
        ├── NotFoundError           NOT_FOUND
        ├── FailedPreconditionError FAILED_PRECONDITION
        ├── QuotaExceededError      RESOURCE_EXHAUSTED    wait, or request a higher quota
        ├── UnavailableError        UNAVAILABLE           the service cannot be reached now
        ├── InternalServerError     INTERNAL              an error in the service
        ├── UnimplementedError      UNIMPLEMENTED
        ├── DeadlineExceededError   DEADLINE_EXCEEDED     (also a TimeoutError)
        ├── CancelledError          CANCELLED             cancelled by the service or by `close()`
        └── (any other code: APIError itself)

``from_rpc_error`` in ``_rpc/failures.py`` is the only place that turns a ``grpc.RpcError`` into one of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from yandexgpt._models import Completion

__all__ = [
    "APIError",
    "AuthenticationError",
    "CancelledError",
    "ConfigurationError",
    "ContentFilterError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalServerError",
    "InvalidAnswerError",
    "InvalidArgumentError",
    "NotFoundError",
    "OperationFailed",
    "OperationTimeout",
    "PermissionDeniedError",
    "PromptTooLongError",
    "QuotaExceededError",
    "RevisedError",
    "ToolRoundsError",
    "TruncatedError",
    "UnavailableError",
    "UnimplementedError",
    "YandexGPTError",
]


class YandexGPTError(Exception):
    """Base class of the package's own errors."""


class ConfigurationError(YandexGPTError, ValueError):
    """The configuration of the client cannot be used, or the client is closed. Nothing was sent."""


class PromptTooLongError(ConfigurationError):
    """The prompt, together with ``max_tokens`` if it was given, has more tokens than ``max_context_tokens``.

    Attributes:
        tokens: tokens of the prompt, counted by the service.
        max_tokens: the requested tokens of the answer; 0 if not given.
        max_context_tokens: the limit.
    """

    def __init__(self, tokens: int, max_tokens: int, max_context_tokens: int) -> None:
        super().__init__(tokens, max_tokens, max_context_tokens)
        self.tokens = tokens
        self.max_tokens = max_tokens
        self.max_context_tokens = max_context_tokens

    def __str__(self) -> str:
        answer = f" and {self.max_tokens} for the answer (max_tokens)" if self.max_tokens else ""
        return (
            f"the prompt has {self.tokens} tokens{answer}, more than max_context_tokens={self.max_context_tokens} in "
            "all: nothing was generated; shorten the prompt"
        )


class _OperationLike(Protocol):
    """The common interface of :class:`~yandexgpt.Operation` and :class:`~yandexgpt.AsyncOperation`."""

    @property
    def id(self) -> str: ...
    @property
    def done(self) -> bool: ...
    @property
    def proto(self) -> Any: ...
    def refresh(self, *, timeout: Any = ...) -> Any: ...
    def wait(self, timeout: float | None = ...) -> Any: ...
    def cancel(self, *, timeout: Any = ...) -> Any: ...


class OperationFailed(YandexGPTError):  # noqa: N818  (the name is public)
    """An operation of the service ended without an answer: in an error, or because it was cancelled.

    Attributes:
        operation: the :class:`~yandexgpt.Operation`; None in a pickled copy of this error.
        operation_id: its id.
        code: the gRPC status code (``grpc.StatusCode``) that it ended with; CANCELLED if it was cancelled.
        message: the service's message, on one line.
        details: decoded ``google.rpc`` details, as for :class:`APIError`.
    """

    def __init__(
        self,
        operation_id: str,
        code: grpc.StatusCode,
        message: str,
        details: tuple[Any, ...] = (),
        operation: _OperationLike | None = None,
    ) -> None:
        super().__init__(operation_id, code, message, details)
        self.operation_id = operation_id
        self.code = code
        self.message = " ".join(message.split())
        self.details = details
        self.operation = operation

    def __str__(self) -> str:
        return f"operation {self.operation_id} ended in {self.code.name}: {self.message or 'no message'}"

    def __reduce__(self) -> tuple[Callable[..., OperationFailed], tuple[Any, ...]]:
        return OperationFailed, (self.operation_id, self.code, self.message, self.details)


class OperationTimeout(YandexGPTError, TimeoutError):  # noqa: N818  (as above)
    """Operations were not done within the timeout of a wait (``wait``, ``wait_all``). The service continues them.

    Attributes:
        operation: the first :class:`~yandexgpt.Operation` of ``operations``; None in a pickled copy of this error.
        operations: all operations that were not done; empty in a pickled copy of this error.
        operation_ids: their ids.
        timeout: the timeout, in seconds.
    """

    def __init__(
        self,
        operation_ids: tuple[str, ...],
        timeout: float,
        operations: tuple[_OperationLike, ...] = (),
    ) -> None:
        super().__init__(operation_ids)  # one argument: OSError reads two as errno and strerror
        self.operation_ids = operation_ids
        self.timeout = timeout
        self.operations = operations

    @property
    def operation(self) -> _OperationLike | None:
        """The first of ``operations``; None if there are none."""
        return self.operations[0] if self.operations else None

    def __str__(self) -> str:
        ids = self.operation_ids
        what = f"operation {ids[0]} was" if len(ids) == 1 else f"{len(ids)} operations were"
        return (
            f"{what} not done within {self.timeout:g} s, and go{'es' if len(ids) == 1 else ''} on at the service: wait "
            "again, or attach by id later (results are kept for three days)"
        )

    def __reduce__(self) -> tuple[Callable[..., OperationTimeout], tuple[Any, ...]]:
        return OperationTimeout, (self.operation_ids, self.timeout)


class RevisedError(YandexGPTError):
    """The service changed text that :meth:`Stream.text` had already yielded.

    Attributes:
        text: the new text of the answer.
        keep: how many characters of the yielded text are still valid.
    """

    def __init__(self, text: str, keep: int) -> None:
        super().__init__(text, keep)
        self.text = text
        self.keep = keep

    def __str__(self) -> str:
        return (
            f"the service revised the answer after its first {self.keep} characters, which were already handed out; "
            "iterate over the stream itself to follow revisions, or use text(holdback=...) to make them rarer"
        )


class TruncatedError(YandexGPTError):
    """A complete answer is required, and the answer was truncated at ``max_tokens``.

    Attributes:
        completion: the truncated answer.
    """

    def __init__(self, completion: Completion) -> None:
        super().__init__(completion)
        self.completion = completion

    def __str__(self) -> str:
        return (
            f"the answer was cut after {self.completion.usage.completion_tokens} tokens "
            f"(request id {self.completion.request_id}); pass a greater max_tokens"
        )


class ContentFilterError(YandexGPTError):
    """A complete answer is required, and the service's content filter replaced it by a refusal.

    Attributes:
        completion: the refusal.
    """

    def __init__(self, completion: Completion) -> None:
        super().__init__(completion)
        self.completion = completion

    def __str__(self) -> str:
        return f"the content filter refused to answer (request id {self.completion.request_id})"


class InvalidAnswerError(YandexGPTError, ValueError):
    """The answer is not of the requested type; the ``pydantic.ValidationError``, if any, is the ``__cause__``.

    Attributes:
        completion: the answer.
        reason: why it is invalid, without text of the answer.
    """

    def __init__(self, completion: Completion, reason: str) -> None:
        super().__init__(completion, reason)
        self.completion = completion
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the answer does not have the structure asked for (request id {self.completion.request_id}): {self.reason}"
        )


class ToolRoundsError(YandexGPTError):
    """The model asked for tool calls after ``max_rounds`` rounds.

    Attributes:
        completion: the answer with these calls, which were not made.
        rounds: the number of rounds that were made.
    """

    def __init__(self, completion: Completion, rounds: int) -> None:
        super().__init__(completion, rounds)
        self.completion = completion
        self.rounds = rounds

    def __str__(self) -> str:
        names = ", ".join(dict.fromkeys(call.name for call in self.completion.tool_calls))
        return (
            f"the model still calls tools ({names}) after {self.rounds} rounds "
            f"(request id {self.completion.request_id}); pass a greater max_rounds"
        )


class APIError(YandexGPTError):
    """A call failed: in the service, in the network or in the client.

    Attributes:
        code: the gRPC status code (``grpc.StatusCode``).
        message: the message of the service or of gRPC, on one line.
        details: decoded ``google.rpc`` details (``RequestInfo``, ``BadRequest``, ``QuotaFailure``, ``RetryInfo``,
            ``ErrorInfo``, ...); a detail of an unknown type is a ``google.protobuf.Any``.
        request_id: the client's id of the call (``x-client-request-id``), known even after a timeout.
        server_request_id, trace_id: the service's ids (``x-request-id``, ``x-server-trace-id``), if it sent them.
        endpoint: the ``host:port`` that was called.
        attempts: how many times the call was sent.
        elapsed: seconds from the start of the call to this error.
        partial: the last :class:`~yandexgpt.Completion` received before a stream failed, or None.
        retry_after: seconds after which the service allows a retry, or None.
        advice: what the user can do; may be empty.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        details: tuple[Any, ...] = (),
        request_id: str | None = None,
        server_request_id: str | None = None,
        trace_id: str | None = None,
        endpoint: str | None = None,
        attempts: int = 0,
        elapsed: float = 0.0,
        partial: Completion | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.code = code
        self.details = details
        self.request_id = request_id
        self.server_request_id = server_request_id
        self.trace_id = trace_id
        self.endpoint = endpoint
        self.attempts = attempts
        self.elapsed = elapsed
        self.partial = partial
        self.retry_after = retry_after
        self.advice = _ADVICE.get(code.name, "")

    def __str__(self) -> str:
        where = f" from {self.endpoint}" if self.endpoint else ""
        facts = [f"{self.attempts} attempt{'' if self.attempts == 1 else 's'} in {self.elapsed:.2f} s"]
        if self.request_id:
            facts.insert(0, f"request id {self.request_id}")
        if self.server_request_id:
            facts.append(f"server request id {self.server_request_id}")
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.code.name}{where}: {self.message or 'no message'} ({', '.join(facts)}){advice}"

    def __reduce__(self) -> tuple[Callable[..., APIError], tuple[Any, ...]]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[APIError], args: tuple[Any, ...], state: dict[str, Any]) -> APIError:
    error = cls.__new__(cls, *args)
    error.args = args  # OSError.__new__ does not set them, and DeadlineExceededError is an OSError
    error.__dict__.update(state)
    return error


class InvalidArgumentError(APIError):
    """The request is invalid: the model URI, an option, a prompt that is too long, or a message over a size limit.

    If the request is over a size limit of gRPC, the code is RESOURCE_EXHAUSTED, as gRPC reports it.
    """


class AuthenticationError(APIError):
    """The credential is wrong or has expired."""


class PermissionDeniedError(APIError):
    """The account lacks a role for this folder (``ai.languageModels.user``)."""


class NotFoundError(APIError):
    """The requested object does not exist at the service (any more)."""


class FailedPreconditionError(APIError):
    """The state of the service does not allow the call."""


class QuotaExceededError(APIError):
    """A quota is exhausted."""


class UnavailableError(APIError):
    """The service cannot be reached, or is temporarily unavailable."""


class InternalServerError(APIError):
    """An error in the service or in the connection that the request did not cause.

    Also an answer over a size limit of gRPC: then the code is RESOURCE_EXHAUSTED, as gRPC reports it.
    """


class UnimplementedError(APIError):
    """The service does not implement this method."""


class DeadlineExceededError(APIError, TimeoutError):
    """The deadline (``timeout``) passed."""


class CancelledError(APIError):
    """The call was cancelled by the service or by ``close()``. (A cancelled task raises ``asyncio.CancelledError``.)"""


# Advice for the user, by code. For other codes the message is enough.
_ADVICE = {
    "UNAUTHENTICATED": "check the API key or token",
    "PERMISSION_DENIED": "check the folder id and that the account has the role ai.languageModels.user in it",
    "UNAVAILABLE": "check the endpoint, TLS settings and the network",
    "DEADLINE_EXCEEDED": "pass a longer timeout",
}
