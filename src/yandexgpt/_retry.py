"""When to try again: decisions as functions of policy, error and attempt. Pure: no I/O, no clock."""

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

__all__ = ["DEFAULT_RETRY", "Budget", "Retry", "backoff", "is_transient", "over_size_limit", "pushback_seconds"]

DEFAULT_CODES = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"})

LONGEST_WAIT_ASKED_FOR = 60.0
"""Seconds that the server may ask a call without a deadline to wait. Longer ones are for the caller to decide upon."""

# How gRPC words a connection that broke under a call, where the status code alone does not tell. A stream that the
# peer resets with INTERNAL_ERROR or CANCEL is reported as INTERNAL or CANCELLED, one that ends without a status (the
# page of a gateway, in place of an answer) as UNKNOWN.
_TRANSPORT_WORDS = (
    "RST_STREAM",
    "GOAWAY",
    "Connection reset",
    "Broken pipe",
    "Socket closed",
    "Data frame with END_STREAM flag received",
)
_TRANSPORT_CODES = frozenset({"INTERNAL", "UNKNOWN", "CANCELLED"})
# The whole of what an older gRPC says of a connection that broke, and of bytes that it could not read; a newer one
# goes on with the reason in parentheses.
_STREAM_REMOVED = "Stream removed"
# What a peer thinks of our frames does not change when it gets them again: FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR,
# COMPRESSION_ERROR, HTTP_1_1_REQUIRED. (PROTOCOL_ERROR is also what proxies say when their own upstream broke.)
_RESET_FOR_EVER = re.compile(r"RST_STREAM with error code (3|6|9|13)\b")
# Why no connection could be opened, where trying again is no use: what answers does not speak HTTP/2, or one of the
# two sides speaks TLS and the other does not, or the certificate does not hold.
_NEVER_CONNECTS = "failed to connect to all addresses"
_NEVER_CONNECTS_WORDS = re.compile(
    r"Failed parsing HTTP/2|http1\.x server|missing selected ALPN property|WRONG_VERSION_NUMBER"
    r"|CERTIFICATE_VERIFY_FAILED|Hostname Verification Check failed|is not in peer certificate"
)
# Unless it is a gateway whose upstream is out of order.
_GATEWAY = re.compile(r"http1\.x server \(HTTP status (429|5\d\d)\)")


# How the parties of a call word that something is over a limit of theirs, all with RESOURCE_EXHAUSTED: gRPC's core, Go
# and Node ("larger than max"), Java and .NET. It has nothing to do with a quota, and another attempt is as large.
_SIZE_LIMIT_WORDS = (
    "larger than max",
    "exceeds maximum size",
    "exceeds the maximum configured message size",
    "metadata size exceeds",
)


@dataclass(frozen=True)
class Retry:
    """When and how often a call that failed is sent again; only while nothing of its answer has been handed out.

    Args:
        attempts: how often a call is sent at most, the first time included (>= 1). One more, for which a new token
            is got, is not counted: it follows when the service refuses a token that can be renewed.
        initial: upper bound of the first wait, in seconds.
        maximum: upper bound of any wait, in seconds.
        multiplier: growth of the bound from one wait to the next (>= 1).
        jitter: the share of a wait that is random, 0 to 1; at 1 ("full jitter") a wait is anything from 0 to its bound.
        codes: names of the gRPC status codes that are worth another try, besides connections that broke.
        budget: retries that an outage may cost all calls of a client together before calls fail at their first error
            (a token bucket as in gRFC A6: a failure takes one token, a success gives ``budget_ratio`` back, and
            there are no retries while it is less than half full); None: no such limit.
        budget_ratio: tokens that a success gives back (> 0).

    Raises:
        ValueError: a value is outside its range.
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
        """No second attempt."""
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


class Budget:
    """The token bucket behind :attr:`Retry.budget`, shared by all calls of a client.

    There is no lock: where two threads change it in the same moment, one change may be lost, which a bound on an outage
    can bear, and a signal handler or a forked child never waits for it.
    """

    def __init__(self, policy: Retry) -> None:
        self._maximum = math.inf if policy.budget is None else policy.budget
        self._ratio = policy.budget_ratio
        self._tokens: float = self._maximum

    def success(self) -> None:
        """A call succeeded."""
        if self._tokens < self._maximum:
            self._tokens = min(self._maximum, self._tokens + self._ratio)

    def failure(self) -> bool:
        """An attempt failed; whether the budget allows another."""
        self._tokens = max(0, self._tokens - 1)
        return self._tokens > self._maximum / 2 or self._maximum == math.inf


def is_transient(policy: Retry, error: APIError, *, own_deadline: bool) -> bool:
    """Whether another attempt could succeed where this one failed.

    Args:
        own_deadline: the attempt's own deadline was shorter than the call's, so that DEADLINE_EXCEEDED only says that
            this attempt took too long.
    """
    code, message = error.code.name, error.message
    if _is_for_ever(code, message):
        return False
    if code == "DEADLINE_EXCEEDED" and own_deadline:
        return True
    if code in _TRANSPORT_CODES and (message == _STREAM_REMOVED or any(words in message for words in _TRANSPORT_WORDS)):
        return True
    return code in policy.codes


def _is_for_ever(code: str, message: str) -> bool:
    """Whether the next attempt would fail the same way, although the code, or a part of the words, is a transient's."""
    if code == "RESOURCE_EXHAUSTED":
        # Up to the hard limit metadata over the soft limit are refused at random, so another attempt may come through.
        return over_size_limit(message) and "exceeds soft limit" not in message
    if code == "UNAVAILABLE":
        return (
            message.startswith(_NEVER_CONNECTS)
            and _NEVER_CONNECTS_WORDS.search(message) is not None
            and _GATEWAY.search(message) is None
        )
    return code in _TRANSPORT_CODES and _RESET_FOR_EVER.search(message) is not None


def backoff(
    policy: Retry,
    attempts: int,
    error: APIError,
    pushback_ms: str | None,
    rng: Callable[[], float] = random.random,
    *,
    remaining: float | None = None,
) -> float | None:
    """Seconds to wait before the next attempt, or None if the server asks for none, or for one that is too late.

    The server's own word wins: ``grpc-retry-pushback-ms`` (negative or unreadable: do not retry, as in gRFC A6), then
    ``google.rpc.RetryInfo``.

    Args:
        remaining: seconds to the call's deadline. None: it has none, and then the server may ask for a wait of
            :data:`LONGEST_WAIT_ASKED_FOR` seconds at most, or it would decide how long the caller hangs.
    """
    asked = pushback_seconds(pushback_ms) if pushback_ms is not None else error.retry_after
    if asked is not None:
        return max(0.0, asked) if asked <= (LONGEST_WAIT_ASKED_FOR if remaining is None else remaining) else None
    if pushback_ms is not None:
        return None
    bound = policy.maximum
    if policy.initial < bound:
        with contextlib.suppress(OverflowError):  # long before anybody waits so long
            bound = min(bound, policy.initial * policy.multiplier ** (attempts - 1))
    return bound * (1 - policy.jitter * rng())


def over_size_limit(message: str) -> bool:
    """Whether RESOURCE_EXHAUSTED with this message means a limit to the size of a message or of metadata."""
    return any(words in message for words in _SIZE_LIMIT_WORDS)


def pushback_seconds(pushback_ms: object) -> float | None:
    """Seconds that ``grpc-retry-pushback-ms`` (a signed 32-bit integer) asks for; None if it asks not to retry."""
    if not isinstance(pushback_ms, str) or not (
        pushback_ms.isascii() and pushback_ms.isdigit() and len(pushback_ms) <= 10
    ):
        return None
    return int(pushback_ms) / 1000
