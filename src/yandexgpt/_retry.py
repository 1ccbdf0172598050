"""When to retry a call: decisions as functions of policy, error and attempt. Pure: no I/O, no clock."""

from __future__ import annotations

import contextlib
import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yandexgpt.errors import APIError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULT_RETRY", "Retry", "RetryBudget", "backoff", "is_transient", "over_size_limit", "pushback_seconds"]

DEFAULT_CODES = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"})

MAX_SERVER_DELAY = 60.0
"""The longest delay that a server may request from a call without a deadline, in seconds. For a longer one the call
raises its error, and the caller decides."""

# Phrases of gRPC's messages for a connection that broke during a call. The status code is not enough: gRPC reports a
# stream that the peer resets with INTERNAL_ERROR or CANCEL as INTERNAL or CANCELLED, and a stream that ends without a
# status (a gateway sent an HTML page instead of an answer) as UNKNOWN.
_TRANSPORT_PHRASES = (
    "RST_STREAM",
    "GOAWAY",
    "Connection reset",
    "Broken pipe",
    "Socket closed",
    "Data frame with END_STREAM flag received",
)
_TRANSPORT_CODES = frozenset({"INTERNAL", "UNKNOWN", "CANCELLED"})
# The whole message of older gRPC versions for a connection that broke, or for bytes that it could not parse. Newer
# versions append the reason in parentheses.
_STREAM_REMOVED = "Stream removed"
# Resets by which a peer refuses our frames; it would refuse the same frames again: FLOW_CONTROL_ERROR,
# FRAME_SIZE_ERROR, COMPRESSION_ERROR, HTTP_1_1_REQUIRED. PROTOCOL_ERROR is not among them: a proxy also sends it when
# its own upstream connection breaks.
_PERMANENT_RESET = re.compile(r"RST_STREAM with error code (3|6|9|13)\b")
# Reasons for a failed connection that another attempt would meet again: the peer does not speak HTTP/2, only one of the
# two sides speaks TLS, or the certificate is not valid.
_CONNECT_FAILURE = "failed to connect to all addresses"
_PERMANENT_CONNECT_FAILURE = re.compile(
    r"Failed parsing HTTP/2|http1\.x server|missing selected ALPN property|WRONG_VERSION_NUMBER"
    r"|CERTIFICATE_VERIFY_FAILED|Hostname Verification Check failed|is not in peer certificate"
)
# An exception to these: a gateway that answers over HTTP/1.1 while its upstream is overloaded or fails.
_GATEWAY_UNAVAILABLE = re.compile(r"http1\.x server \(HTTP status (429|5\d\d)\)")


# Phrases for a message or metadata over a size limit, all with RESOURCE_EXHAUSTED: of gRPC's core, Go and Node ("larger
# than max"), Java and .NET. It is not a quota, and another attempt has the same size.
_SIZE_LIMIT_PHRASES = (
    "larger than max",
    "exceeds maximum size",
    "exceeds the maximum configured message size",
    "metadata size exceeds",
)


@dataclass(frozen=True)
class Retry:
    """When and how many times a failed call is retried. It is never retried after a part of its answer was returned.

    Args:
        attempts: the most attempts of a call, the first included (>= 1). If the service refuses a token that can be
            refreshed, one more attempt with a new token is made, which is not counted.
        initial: upper bound of the first delay, in seconds (>= 0).
        maximum: upper bound of every delay, in seconds (>= 0).
        multiplier: factor from the bound of one delay to that of the next (>= 1).
        jitter: the share of a delay that is random, 0 to 1; at 1 ("full jitter") a delay is between 0 and its bound.
        codes: names of the gRPC status codes that are retried; a broken connection is always retried.
        budget: limits the retries of all calls of a client together during an outage (>= 1). It is the size of a token
            bucket as in gRFC A6: a failure takes one token, a success adds ``budget_ratio``, and there are no retries
            while the bucket is not more than half full. None: no limit.
        budget_ratio: tokens that a success adds (> 0).

    Raises:
        ValueError: a value is out of range.
    """

    attempts: int = 4
    initial: float = 0.5
    maximum: float = 8.0
    multiplier: float = 2.0
    jitter: float = 1.0
    codes: frozenset[str] = DEFAULT_CODES
    budget: int | None = 100
    budget_ratio: float = 0.1

    def __post_init__(self) -> None:
        ranges: tuple[tuple[str, float, float, float], ...] = (
            ("attempts", self.attempts, 1, math.inf),
            ("initial", self.initial, 0, math.inf),
            ("maximum", self.maximum, 0, math.inf),
            ("multiplier", self.multiplier, 1, math.inf),
            ("jitter", self.jitter, 0, 1),
            ("budget", 1 if self.budget is None else self.budget, 1, math.inf),
            ("budget_ratio", self.budget_ratio, 0, math.inf),
        )
        for name, value, low, high in ranges:
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ValueError(f"Retry: {name} must be a number from {low} to {high}, got {value!r}")
        for name in ("attempts", "budget"):
            value = getattr(self, name)
            if value not in (None, math.inf) and value != int(value):
                raise ValueError(f"Retry: {name} must be a whole number, got {value!r}")
        if self.budget_ratio == 0:
            raise ValueError("Retry: budget_ratio must be greater than 0, got 0")
        if self.codes != DEFAULT_CODES:
            object.__setattr__(self, "codes", _code_names(self.codes))

    @classmethod
    def none(cls) -> Retry:
        """A policy without retries: one attempt."""
        return cls(attempts=1)


def _code_names(codes: Iterable[object]) -> frozenset[str]:
    import grpc

    if isinstance(codes, str) or not isinstance(codes, Iterable):
        raise ValueError(f"Retry: codes must be names of gRPC status codes, got {codes!r}")
    names = frozenset(str(getattr(code, "name", code)).upper() for code in codes)
    if unknown := names - grpc.StatusCode.__members__.keys():
        raise ValueError(f"Retry: codes must be names of gRPC status codes, got {', '.join(sorted(unknown))}")
    return names


DEFAULT_RETRY = Retry()


class RetryBudget:
    """The token bucket behind :attr:`Retry.budget`, shared by all calls of a client.

    It has no lock, so that a signal handler or a forked child never waits for one. If two threads change it at the same
    moment, one change may be lost; the limit need not be exact.

    Args:
        policy: the policy with the size and the ratio of the bucket.
    """

    def __init__(self, policy: Retry) -> None:
        self._maximum = math.inf if policy.budget is None else policy.budget
        self._ratio = policy.budget_ratio
        self._tokens: float = self._maximum

    def record_success(self) -> None:
        """Record a call that succeeded: add tokens."""
        if self._tokens < self._maximum:
            self._tokens = min(self._maximum, self._tokens + self._ratio)

    def record_failure(self) -> bool:
        """Record an attempt that failed: take a token; returns whether a retry is allowed."""
        self._tokens = max(0, self._tokens - 1)
        return self._tokens > self._maximum / 2 or self._maximum == math.inf


def is_transient(policy: Retry, error: APIError, *, own_deadline: bool) -> bool:
    """Whether another attempt may succeed.

    Args:
        policy: the policy, whose ``codes`` are transient.
        error: the error of the failed attempt.
        own_deadline: whether the attempt had a deadline before the call's: then DEADLINE_EXCEEDED does not mean that
            the call has timed out.
    """
    code, message = error.code.name, error.message
    if _is_permanent(code, message):
        return False
    if code == "DEADLINE_EXCEEDED" and own_deadline:
        return True
    if code in _TRANSPORT_CODES and (
        message == _STREAM_REMOVED or any(phrase in message for phrase in _TRANSPORT_PHRASES)
    ):
        return True
    return code in policy.codes


def _is_permanent(code: str, message: str) -> bool:
    """Whether the next attempt would fail in the same way, although the code or a phrase is of a transient error."""
    if code == "RESOURCE_EXHAUSTED":
        # gRPC refuses metadata between the soft and the hard limit at random, so another attempt may succeed.
        return over_size_limit(message) and "exceeds soft limit" not in message
    if code == "UNAVAILABLE":
        return (
            message.startswith(_CONNECT_FAILURE)
            and _PERMANENT_CONNECT_FAILURE.search(message) is not None
            and _GATEWAY_UNAVAILABLE.search(message) is None
        )
    return code in _TRANSPORT_CODES and _PERMANENT_RESET.search(message) is not None


def backoff(
    policy: Retry,
    attempts: int,
    error: APIError,
    pushback_ms: str | None,
    rng: Callable[[], float] = random.random,
    *,
    remaining: float | None = None,
) -> float | None:
    """Seconds to wait before the next attempt; None if the server forbids it, or requests a delay that is too long.

    A delay that the server requests overrides the policy: ``grpc-retry-pushback-ms`` (negative or malformed: do not
    retry, as in gRFC A6), else ``google.rpc.RetryInfo``.

    Args:
        policy: the policy.
        attempts: how many attempts were made (>= 1).
        error: the error of the last attempt.
        pushback_ms: the value of ``grpc-retry-pushback-ms``, or None if it was not sent.
        rng: returns a random number from 0 to 1.
        remaining: seconds to the call's deadline. None: the call has none, and the server may request
            :data:`MAX_SERVER_DELAY` seconds at most, so that it cannot block the caller for any time.
    """
    server_delay = pushback_seconds(pushback_ms) if pushback_ms is not None else error.retry_after
    if server_delay is not None:
        longest = MAX_SERVER_DELAY if remaining is None else remaining
        return max(0.0, server_delay) if server_delay <= longest else None
    if pushback_ms is not None:
        return None
    bound = policy.maximum
    if policy.initial < bound:
        with contextlib.suppress(OverflowError):  # then the bound is the maximum
            bound = min(bound, policy.initial * policy.multiplier ** (attempts - 1))
    return bound * (1 - policy.jitter * rng())


def over_size_limit(message: str) -> bool:
    """Whether the message of a RESOURCE_EXHAUSTED reports a message or metadata over a size limit."""
    return any(phrase in message for phrase in _SIZE_LIMIT_PHRASES)


def pushback_seconds(pushback_ms: object) -> float | None:
    """The delay of ``grpc-retry-pushback-ms`` (a signed 32-bit integer), in seconds; None if it forbids a retry."""
    if not isinstance(pushback_ms, str) or not (
        pushback_ms.isascii() and pushback_ms.isdigit() and len(pushback_ms) <= 10
    ):
        return None
    return int(pushback_ms) / 1000
