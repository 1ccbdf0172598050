"""One call from its first attempt to its end: what both clients share of it. Nothing here waits.

An invoker asks for the next attempt, makes it, and reports how it went; after a failure it is told how long to wait
before the next attempt, or gets the error raised.
"""

from __future__ import annotations

import copy
import logging
import math
import random
import time
import uuid
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
"""Metadata by which the service knows an attempt of a call that creates something from a second such call."""


logger = logging.getLogger("yandexgpt")


class Attempt(NamedTuple):
    """What an attempt is made with."""

    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]


class CallOptions(NamedTuple):
    """How one call is to be made, as its caller says; what is not given is the client's."""

    timeout: float | Unset | None = UNSET
    attempt_timeout: float | Unset | None = UNSET
    metadata: Metadata = ()
    request_id: str | None = None
    max_context_tokens: int | None = None


class Answer(NamedTuple):
    """What a call that succeeded has brought."""

    message: Any
    request_id: str
    received: ReceivedMetadata


def new_call(state: ClientState, method: Method, subject: str, options: CallOptions) -> Call:
    """Begin a call: its deadline runs from now.

    Raises:
        ValueError: an option has an impossible value.
    """
    settings = state.settings
    if state.ended_by_caller:
        state.log_ended_by_caller()
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
        request_id = _new_id()
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
        sent = (*sent, (IDEMPOTENCY_KEY, _new_id()))
    call = Call(state, method, subject, timeout, attempt_timeout, sent, request_id)
    if max_context_tokens is not None:
        call.max_context_tokens = positive_int("max_context_tokens", max_context_tokens)
    return call


def _new_id() -> str:
    """A UUID, not meant to be a secret: ``uuid.uuid4()`` would ask the system for random bytes in each call."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


class Call:
    """One call: its deadline, its attempts so far, and what it means when one fails."""

    __slots__ = (
        "__weakref__",
        "_attempt_timeout",
        "_base_metadata",
        "_deadline",
        "_failures",
        "_own_deadline",
        "_started",
        "_subject",
        "answer",
        "attempt_ends",
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
        "received",
        "rejected_token",
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
        self._own_deadline = False
        self.attempt_ends: float | None = None
        """When the attempt under way is over, on the clock of ``time.monotonic``."""
        self._failures = 0
        self._base_metadata = metadata
        self.request_id = request_id
        self.attempts = 0
        self.authorization: str | None = None
        self.rejected_token: str | None = None
        """The authorization that the service has refused: the next attempt needs another."""
        self.first_message_at = 0.0
        self.answer: Any = None
        """The last message of a call that has succeeded."""
        self.received = NO_METADATA
        """What came around the answer of a call that has succeeded."""
        self.cancel_hook: Callable[[], Any] | None = None
        """Ends what the invoker is waiting for just now; may be called from any thread."""
        self.rpc: Any = None
        """gRPC's call of the attempt under way, where it is known: behind interceptors it may not be."""
        self.generator: weakref.ref[Any] | None = None
        """What an asynchronous stream reads, to be closed when its event loop is."""
        self.loop: AbstractEventLoop | None = None
        """The event loop that an asynchronous call runs in."""
        self.cancelled = False
        self.max_context_tokens: int | None = None
        """What the tokens of the prompt, counted before it is sent, and of the answer may be together."""

    def fits(self, request: CompletionRequest, tokens: int) -> None:
        """The prompt was counted.

        Raises:
            PromptTooLongError: it does not fit.
        """
        limit, wanted = self.max_context_tokens, request.completion_options.max_tokens.value
        if limit is not None and tokens + wanted > limit:
            raise PromptTooLongError(tokens, wanted, limit)

    def child_call(self, method: Method) -> Call:
        """A call to be made before this one, on its behalf: with its metadata, within its deadline."""
        metadata = tuple(pair for pair in self._base_metadata if pair[0] != IDEMPOTENCY_KEY)
        call = Call(self.state, method, self._subject, None, self._attempt_timeout, metadata, _new_id())
        call._deadline = self._deadline
        return call

    def rate_limit_delay(self) -> float:
        """Seconds to wait before the next attempt, so that it keeps its distance from others (>= 0).

        Raises:
            DeadlineExceededError: its turn would come too late.
        """
        now = time.monotonic()
        moment = self.state.rate_limiter.reserve(now, math.inf if self._deadline is None else self._deadline)
        if moment is None:
            raise self.expired("behind other look-ups of operations")
        return moment - now

    def remaining(self) -> float | None:
        """Seconds to the deadline (never negative), or None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def completion(self) -> Completion:
        """The answer of a call that has succeeded."""
        return Completion(self.answer, self.request_id, self.received)

    def cancel(self) -> None:
        """End the call, from any thread, signal handler or finalizer."""
        self.cancelled = True
        cancel_hook = self.cancel_hook
        if cancel_hook is not None:
            cancel_hook()

    def started(self, rpc: Any) -> None:
        """gRPC's call of this attempt has become known.

        Args:
            rpc: the call, or None if it is not known, and so cannot be cancelled, before its next message.
        """
        self.rpc = rpc
        if rpc is not None:
            self.cancel_hook = partial(run_in_thread, rpc.cancel)
            if self.cancelled:
                rpc.cancel()

    def within(self, timeout: float | None) -> float | None:
        """What is left of an attempt's timeout, in seconds, now that interceptors have taken their time."""
        if self.attempt_ends is None:
            return timeout
        left = max(0.0, self.attempt_ends - time.monotonic())
        return left if timeout is None else min(left, timeout)

    @property
    def loop_is_closed(self) -> bool:
        """Whether the event loop that it ran in is closed: nothing of it will run any more."""
        return self.loop is not None and self.loop.is_closed()

    def attempt(self, authorization: str) -> Attempt:
        """Begin the next attempt.

        Raises:
            DeadlineExceededError: there is no time left for it.
        """
        timeout = self.remaining()
        if timeout == 0.0:
            raise self.expired("before the call could be sent")
        self._own_deadline = False
        limit = self._attempt_timeout
        if limit is not None and (timeout is None or limit < timeout):
            timeout = limit
            self._own_deadline = True
        timeout = grpc_timeout(timeout)
        self.attempt_ends = None if timeout is None else time.monotonic() + timeout
        self.attempts += 1
        self.authorization = authorization
        self.rpc = None
        own = (("x-client-request-id", self.request_id), ("x-client-attempt", str(self.attempts)))
        if authorization:
            return Attempt(timeout, (("authorization", authorization), *own, *self._base_metadata))
        return Attempt(timeout, (*own, *self._base_metadata))

    def succeeded(self, last: Any, received: ReceivedMetadata) -> None:
        """The call has ended with the status OK.

        Raises:
            InternalServerError: but without any answer.
        """
        self.received = received
        if last is None:
            import grpc

            raise self._ended(self._error(grpc.StatusCode.INTERNAL, "the service ended the call without an answer"))
        self.answer = last
        self.state.budget.record_success()
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("call succeeded: %s", self._facts(last))

    def stands(self, failure: grpc.RpcError, last: Any) -> bool:
        """Whether the answer is whole although the attempt failed: the connection broke only after the final message.

        Args:
            last: the last message that this attempt has received, if any.
        """
        if last is None or (self.method.streams and first_alternative(last).status <= Status.PARTIAL):
            return False
        initial, trailing = failures.initial_metadata_of(failure), failures.trailing_metadata_of(failure)
        logger.info("the connection broke after the final message, which stands: %s", self._error_of(failure))
        self.succeeded(last, ReceivedMetadata(initial, trailing))
        return True

    def failed(self, failure: grpc.RpcError, last: Any) -> float:
        """An attempt failed.

        Args:
            last: the last message that it has received, if any.

        Returns:
            Seconds to wait before the next attempt.

        Raises:
            APIError: there is no next attempt.
        """
        error = self._error_of(failure)
        if last is not None:
            error.partial = Completion(trim_response(last), self.request_id)
            raise self._ended(error) from failure
        pushback = failures.metadata_dict(failures.trailing_metadata_of(failure)).get("grpc-retry-pushback-ms")
        return self._next_attempt(error, failure, pushback)

    def token_failed(self, failure: BaseException) -> float:
        """No token could be got for an attempt; returns and raises as :meth:`failed`."""
        if isinstance(failure, APIError):
            return self._next_attempt(self._about_this_call(failure), failure, None)
        if isinstance(failure, ConfigurationError):
            raise copy.copy(failure) from failure
        import grpc

        message = f"no token could be got: {type(failure).__name__}: {failure}"
        raise self._ended(self._error(grpc.StatusCode.UNAUTHENTICATED, message)) from failure

    def _next_attempt(self, error: APIError, failure: BaseException, pushback: str | None) -> float:
        delay = self._delay(error, pushback)
        if delay is None:
            raise self._ended(error) from failure
        logger.info("attempt %d failed, the next in %.2f s: %s", self.attempts, delay, error)
        return delay

    def _error_of(self, failure: grpc.RpcError) -> APIError:
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

    def expired(self, where: str) -> APIError:
        """The deadline passed without gRPC's doing."""
        import grpc

        return self._ended(self._error(grpc.StatusCode.DEADLINE_EXCEEDED, f"the deadline passed {where}"))

    def not_connected(self) -> APIError:
        """There was no connection within the time there was for it."""
        import grpc

        return self._ended(self._error(grpc.StatusCode.UNAVAILABLE, "no connection could be opened in time"))

    def cancelled_locally(self, last: Any = None) -> APIError:
        """The call was cancelled on this side: by ``close()`` of its stream or of the client."""
        import grpc

        error = self._error(grpc.StatusCode.CANCELLED, "the stream or its client was closed during the call")
        if last is not None and self.method.streams:
            error.partial = Completion(trim_response(last), self.request_id)
        return self._ended(error)

    def ended_by_caller(self, error: BaseException) -> None:
        """The caller has ended the call: a stream closed or dropped, a task cancelled, Ctrl-C.

        Args:
            error: how the caller did it. A stream that was dropped is ended by a finalizer, which must not take the
                locks of log handlers: the next call logs it.
        """
        if logger.isEnabledFor(logging.DEBUG):
            self.state.ended_by_caller.append(self._facts(None))
            if self.cancelled or not isinstance(error, GeneratorExit):
                self.state.log_ended_by_caller()

    @property
    def elapsed(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self._started

    def _delay(self, error: APIError, pushback: str | None) -> float | None:
        settings = self.state.settings
        policy = settings.retry
        if error.code.name == "UNAUTHENTICATED":
            if settings.credentials.header is not None or self.rejected_token is not None or self.authorization is None:
                return None
            self.rejected_token = self.authorization
            return 0.0
        if not is_transient(policy, error, own_deadline=self._own_deadline):
            return None
        self._failures += 1  # not the attempts: where no token can be got, there are none
        if not self.state.budget.record_failure() or self._failures >= policy.attempts:
            return None
        remaining = self.remaining()
        delay = backoff(policy, self._failures, error, pushback, remaining=remaining)
        if delay is None or (remaining is not None and delay >= remaining):
            return None
        return delay

    def _error(self, code: grpc.StatusCode, message: str) -> APIError:
        return failures.error_class(code)(
            message,
            code=code,
            request_id=self.request_id,
            endpoint=self.endpoint.target,
            attempts=self.attempts,
            elapsed=self.elapsed,
        )

    def _about_this_call(self, shared: APIError) -> APIError:
        # The failure of a refresh is one object for everybody who waited for it.
        error = copy.copy(shared)
        error.request_id = self.request_id
        error.attempts = self.attempts
        error.elapsed = self.elapsed
        return error

    def _ended(self, error: APIError) -> APIError:
        logger.warning("call failed: %s %s%s: %s", self.method.name, self._subject, self._first_message(), error)
        return error

    def _facts(self, last: Any) -> str:
        facts = [
            f"{self.method.name} {self._subject}",
            f"attempts={self.attempts}",
            f"elapsed={self.elapsed:.3f}s{self._first_message()}",
        ]
        if last is not None and self.method.streams:
            facts.append(f"tokens={last.usage.input_text_tokens}+{last.usage.completion_tokens}")
        facts.append(f"request_id={self.request_id} server_request_id={self.received.get('x-request-id')}")
        return " ".join(facts)

    def _first_message(self) -> str:
        return f" first_message={self.first_message_at - self._started:.3f}s" if self.first_message_at else ""
