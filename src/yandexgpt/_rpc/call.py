"""One call, from its first attempt to its end, shared by both clients. Nothing here waits.

An invoker begins an attempt, makes it, and reports its outcome. After a failure, the call returns how long to wait
before the next attempt, or raises the error.
"""

from __future__ import annotations

import copy
import logging
import math
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from yandexgpt._checks import Metadata, carries_secret, check_metadata, check_seconds, grpc_timeout
from yandexgpt._chunks import trim_response
from yandexgpt._concurrency.threads import run_in_thread
from yandexgpt._config import UNSET, Unset
from yandexgpt._models import NO_METADATA, Completion, ReceivedMetadata, Status, first_alternative
from yandexgpt._request import positive_int
from yandexgpt._retry import backoff, is_transient
from yandexgpt._rpc import failures
from yandexgpt.errors import APIError, ConfigurationError, NotFoundError, PromptTooLongError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    import grpc

    from yandexgpt._endpoint import Endpoint
    from yandexgpt._request import CompletionRequest
    from yandexgpt._rpc.client_state import ClientState
    from yandexgpt._rpc.methods import Method


__all__ = ["IDEMPOTENCY_KEY", "Answer", "Attempt", "Call", "CallOptions", "new_call"]

IDEMPOTENCY_KEY = "idempotency-key"
"""The metadata key by which the service distinguishes a retry from a new call that creates another object."""


logger = logging.getLogger("yandexgpt")


class Attempt(NamedTuple):
    """The arguments of one attempt: its timeout in seconds, and its metadata."""

    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]


class CallOptions(NamedTuple):
    """Options of one call; those that are not given have the value of the client."""

    timeout: float | Unset | None = UNSET
    attempt_timeout: float | Unset | None = UNSET
    metadata: Metadata = ()
    request_id: str | None = None
    max_context_tokens: int | None = None


class Answer(NamedTuple):
    """The result of a call that succeeded."""

    message: Any
    request_id: str
    received_metadata: ReceivedMetadata


def new_call(state: ClientState, method: Method, subject: str, options: CallOptions) -> Call:
    """Create a call. Its deadline runs from now.

    Raises:
        ValueError: an option has an impossible value.
    """
    settings = state.settings
    if state.calls_ended_by_caller:
        state.log_calls_ended_by_caller()
    timeout, attempt_timeout, metadata, request_id, max_context_tokens = options
    if isinstance(timeout, Unset):
        timeout = settings.timeout
    else:
        check_seconds("timeout", timeout)
    if isinstance(attempt_timeout, Unset):
        attempt_timeout = settings.attempt_timeout
    else:
        check_seconds("attempt_timeout", attempt_timeout)
    if request_id is None:
        request_id = state.new_id()
    elif not isinstance(request_id, str) or not request_id:
        raise ValueError(f"request_id must be a str that is not empty, got {request_id!r}")
    else:
        check_metadata((("x-client-request-id", request_id),))
    sent = state.metadata
    if metadata:
        metadata = check_metadata(metadata)
        sent = (*sent, *metadata)
        if carries_secret(metadata):
            settings.check_encrypted()
    if method.retry == "idempotency-key" and not any(key == IDEMPOTENCY_KEY for key, _ in metadata):
        sent = (*sent, (IDEMPOTENCY_KEY, state.new_id()))
    call = Call(state, method, subject, timeout, attempt_timeout, sent, request_id)
    if max_context_tokens is not None:
        call.max_context_tokens = positive_int("max_context_tokens", max_context_tokens)
    return call


class Call:
    """One call: its deadline, its attempts, and the handling of their failures."""

    __slots__ = (
        "__weakref__",
        "_attempt_timeout",
        "_attempt_timeout_applies",
        "_base_metadata",
        "_deadline",
        "_failures",
        "_started",
        "_subject",
        "answer",
        "attempt_deadline",
        "attempts",
        "authorization",
        "cancel_hook",
        "cancelled",
        "endpoint",
        "first_message_at",
        "generator",
        "loop",
        "max_context_tokens",
        "method",
        "received_metadata",
        "rejected_authorization",
        "request_id",
        "rpc",
        "state",
    )

    def __init__(
        self,
        state: ClientState,
        method: Method,
        subject: str,
        timeout: float | None,
        attempt_timeout: float | None,
        metadata: tuple[tuple[str, str | bytes], ...],
        request_id: str,
    ) -> None:
        self.state = state
        self.method = method
        self.endpoint: Endpoint = getattr(state.settings, method.endpoint)
        self._subject = subject
        self._started = time.monotonic()
        self._deadline = None if timeout is None else self._started + timeout
        self._attempt_timeout = attempt_timeout
        self._attempt_timeout_applies = False
        self.attempt_deadline: float | None = None
        """The deadline of the current attempt, on the clock of ``time.monotonic``."""
        self._failures = 0
        self._base_metadata = metadata
        self.request_id = request_id
        self.attempts = 0
        self.authorization: str | None = None
        self.rejected_authorization: str | None = None
        """The authorization that the service has rejected: the next attempt needs another one."""
        self.first_message_at = 0.0
        self.answer: Any = None
        """The last message, once the call has succeeded."""
        self.received_metadata = NO_METADATA
        """The initial and trailing metadata, once the call has succeeded."""
        self.cancel_hook: Callable[[], Any] | None = None
        """Ends the current wait of the invoker; may be called from any thread."""
        self.rpc: Any = None
        """gRPC's call of the current attempt, or None if it is not known, which interceptors may cause."""
        self.generator: weakref.ref[Any] | None = None
        """The generator that an asynchronous stream reads. It is closed if its event loop was closed."""
        self.loop: AbstractEventLoop | None = None
        """The event loop in which an asynchronous call runs."""
        self.cancelled = False
        self.max_context_tokens: int | None = None
        """The limit on the tokens of the prompt, counted before it is sent, plus ``max_tokens`` of the answer."""

    def check_prompt_length(self, request: CompletionRequest, tokens: int) -> None:
        """Check the number of tokens of the prompt.

        Raises:
            PromptTooLongError: it exceeds ``max_context_tokens``.
        """
        limit, wanted = self.max_context_tokens, request.completion_options.max_tokens.value
        if limit is not None and tokens + wanted > limit:
            raise PromptTooLongError(tokens, wanted, limit)

    def child_call(self, method: Method) -> Call:
        """Return a call to make before this one, with the same metadata and deadline."""
        metadata = tuple(pair for pair in self._base_metadata if pair[0] != IDEMPOTENCY_KEY)
        call = Call(self.state, method, self._subject, None, self._attempt_timeout, metadata, self.state.new_id())
        call._deadline = self._deadline
        return call

    def rate_limit_delay(self) -> float:
        """Reserve a start time for the next attempt, and return the seconds to wait for it (>= 0).

        Raises:
            DeadlineExceededError: the start time would be after the deadline.
        """
        now = time.monotonic()
        moment = self.state.rate_limiter.reserve(now, math.inf if self._deadline is None else self._deadline)
        if moment is None:
            raise self.deadline_error("behind other look-ups of operations")
        return moment - now

    def remaining(self) -> float | None:
        """Return the seconds to the deadline (>= 0), or None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def completion(self) -> Completion:
        """Return the answer, once the call has succeeded."""
        return Completion(self.answer, self.request_id, self.received_metadata)

    def cancel(self) -> None:
        """Cancel the call, from any thread, signal handler or finalizer."""
        self.cancelled = True
        cancel_hook = self.cancel_hook
        if cancel_hook is not None:
            cancel_hook()

    def attach_rpc(self, rpc: Any) -> None:
        """Set gRPC's call of the current attempt, so that it can be cancelled.

        Args:
            rpc: gRPC's call, or None if it is not known, and so cannot be cancelled, before its next message.
        """
        self.rpc = rpc
        if rpc is not None:
            self.cancel_hook = partial(run_in_thread, rpc.cancel)
            if self.cancelled:
                rpc.cancel()

    def limit_to_attempt(self, timeout: float | None) -> float | None:
        """Return a timeout in seconds, reduced to the time left for the attempt after interceptors have run."""
        if self.attempt_deadline is None:
            return timeout
        left = max(0.0, self.attempt_deadline - time.monotonic())
        return left if timeout is None else min(left, timeout)

    @property
    def loop_is_closed(self) -> bool:
        """Whether its event loop is closed, so that no code of the call will run any more."""
        return self.loop is not None and self.loop.is_closed()

    def attempt(self, authorization: str) -> Attempt:
        """Begin the next attempt.

        Raises:
            DeadlineExceededError: the deadline has passed.
        """
        timeout = self.remaining()
        if timeout == 0.0:
            raise self.deadline_error("before the call could be sent")
        self._attempt_timeout_applies = False
        limit = self._attempt_timeout
        if limit is not None and (timeout is None or limit < timeout):
            timeout = limit
            self._attempt_timeout_applies = True
        timeout = grpc_timeout(timeout)
        self.attempt_deadline = None if timeout is None else time.monotonic() + timeout
        self.attempts += 1
        self.authorization = authorization
        self.rpc = None
        own = (("x-client-request-id", self.request_id), ("x-client-attempt", str(self.attempts)))
        if authorization:
            return Attempt(timeout, (("authorization", authorization), *own, *self._base_metadata))
        return Attempt(timeout, (*own, *self._base_metadata))

    def succeeded(self, last: Any, received: ReceivedMetadata) -> None:
        """Record that the call has ended with the status OK.

        Raises:
            InternalServerError: there was no message.
        """
        self.received_metadata = received
        if last is None:
            import grpc

            raise self._log_failure(
                self._new_error(grpc.StatusCode.INTERNAL, "the service ended the call without an answer")
            )
        self.answer = last
        self.state.budget.record_success()
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("call succeeded: %s", self._describe(last))

    def complete_despite_failure(self, failure: grpc.RpcError, last: Any) -> bool:
        """Return whether the answer is complete although the attempt failed. If so, record the success of the call.

        It is complete if the connection broke after the final message.

        Args:
            last: the last message that this attempt has received, or None.
        """
        if last is None or (self.method.streams and first_alternative(last).status <= Status.PARTIAL):
            return False
        initial, trailing = failures.initial_metadata_of(failure), failures.trailing_metadata_of(failure)
        logger.info(
            "the connection broke after the final message; the answer is complete: %s", self._to_api_error(failure)
        )
        self.succeeded(last, ReceivedMetadata(initial, trailing))
        return True

    def failed(self, failure: grpc.RpcError, last: Any) -> float:
        """Handle the failure of an attempt.

        Args:
            last: the last message that it has received, or None.

        Returns:
            Seconds to wait before the next attempt.

        Raises:
            APIError: there is no next attempt.
        """
        error = self._to_api_error(failure)
        if last is not None:
            error.partial = Completion(trim_response(last), self.request_id)
            raise self._log_failure(error) from failure
        pushback = failures.metadata_dict(failures.trailing_metadata_of(failure)).get("grpc-retry-pushback-ms")
        return self._retry_or_raise(error, failure, pushback)

    def token_failed(self, failure: BaseException) -> float:
        """Handle the failure to get a token for an attempt; returns and raises as :meth:`failed`."""
        if isinstance(failure, APIError):
            return self._retry_or_raise(self._copy_for_this_call(failure), failure, None)
        if isinstance(failure, ConfigurationError):
            raise copy.copy(failure) from failure
        import grpc

        message = f"no token could be got: {type(failure).__name__}: {failure}"
        raise self._log_failure(self._new_error(grpc.StatusCode.UNAUTHENTICATED, message)) from failure

    def _retry_or_raise(self, error: APIError, failure: BaseException, pushback: str | None) -> float:
        delay = self._retry_delay(error, pushback)
        if delay is None:
            raise self._log_failure(error) from failure
        logger.info("attempt %d failed, the next in %.2f s: %s", self.attempts, delay, error)
        return delay

    def _to_api_error(self, failure: grpc.RpcError) -> APIError:
        error = failures.from_rpc_error(
            failure,
            request_id=self.request_id,
            endpoint=self.endpoint.target,
            attempts=self.attempts,
            elapsed=self.elapsed,
        )
        if self.method.not_found and isinstance(error, NotFoundError):
            error.advice = self.method.not_found
        return error

    def deadline_error(self, where: str) -> APIError:
        """Return, and log, the error for a deadline that this package has measured, not gRPC."""
        import grpc

        return self._log_failure(self._new_error(grpc.StatusCode.DEADLINE_EXCEEDED, f"the deadline passed {where}"))

    def not_connected_error(self) -> APIError:
        """Return, and log, the error for a connection that was not open in time."""
        import grpc

        return self._log_failure(self._new_error(grpc.StatusCode.UNAVAILABLE, "no connection could be opened in time"))

    def cancelled_error(self, last: Any = None) -> APIError:
        """Return, and log, the error for a call that ``close()`` of its stream or of the client has cancelled."""
        import grpc

        error = self._new_error(grpc.StatusCode.CANCELLED, "the stream or its client was closed during the call")
        if last is not None and self.method.streams:
            error.partial = Completion(trim_response(last), self.request_id)
        return self._log_failure(error)

    def log_end_by_caller(self, error: BaseException) -> None:
        """Log that the caller has ended the call: it closed or dropped a stream, cancelled a task, or pressed Ctrl-C.

        Args:
            error: the exception that ended the call. GeneratorExit may come from a finalizer, for a dropped stream. A
                finalizer must not acquire the locks of log handlers, so the next call logs it.
        """
        if logger.isEnabledFor(logging.DEBUG):
            self.state.calls_ended_by_caller.append(self._describe(None))
            if self.cancelled or not isinstance(error, GeneratorExit):
                self.state.log_calls_ended_by_caller()

    @property
    def elapsed(self) -> float:
        """Seconds since the call was created."""
        return time.monotonic() - self._started

    def _retry_delay(self, error: APIError, pushback: str | None) -> float | None:
        settings = self.state.settings
        policy = settings.retry
        if error.code.name == "UNAUTHENTICATED":
            if (
                settings.credentials.header is not None
                or self.rejected_authorization is not None
                or self.authorization is None
            ):
                return None
            self.rejected_authorization = self.authorization
            return 0.0
        if not is_transient(policy, error, own_deadline=self._attempt_timeout_applies):
            return None
        self._failures += 1  # attempts are not counted here: there is none while no token can be got
        if not self.state.budget.record_failure() or self._failures >= policy.attempts:
            return None
        remaining = self.remaining()
        delay = backoff(policy, self._failures, error, pushback, remaining=remaining)
        if delay is None or (remaining is not None and delay >= remaining):
            return None
        return delay

    def _new_error(self, code: grpc.StatusCode, message: str) -> APIError:
        return failures.error_class(code)(
            message,
            code=code,
            request_id=self.request_id,
            endpoint=self.endpoint.target,
            attempts=self.attempts,
            elapsed=self.elapsed,
        )

    def _copy_for_this_call(self, shared: APIError) -> APIError:
        # All calls that waited for the refresh share one exception object.
        error = copy.copy(shared)
        error.request_id = self.request_id
        error.attempts = self.attempts
        error.elapsed = self.elapsed
        return error

    def _log_failure(self, error: APIError) -> APIError:
        logger.warning(
            "call failed: %s %s%s: %s", self.method.name, self._subject, self._describe_first_message(), error
        )
        return error

    def _describe(self, last: Any) -> str:
        facts = [
            f"{self.method.name} {self._subject}",
            f"attempts={self.attempts}",
            f"elapsed={self.elapsed:.3f}s{self._describe_first_message()}",
        ]
        if last is not None and self.method.streams:
            facts.append(f"tokens={last.usage.input_text_tokens}+{last.usage.completion_tokens}")
        facts.append(f"request_id={self.request_id} server_request_id={self.received_metadata.get('x-request-id')}")
        return " ".join(facts)

    def _describe_first_message(self) -> str:
        return f" first_message={self.first_message_at - self._started:.3f}s" if self.first_message_at else ""
