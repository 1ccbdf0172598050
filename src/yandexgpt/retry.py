"""When to try again: decisions as functions of policy, error and attempt. Pure: no I/O, no clock."""

from __future__ import annotations

import contextlib
import math
import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yandexgpt import forks
from yandexgpt.errors import APIError
from yandexgpt.failures import pushback_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULT_RETRY", "Budget", "Retry", "backoff", "is_transient"]

DEFAULT_CODES = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"})

# How gRPC words a connection that broke under a call, where the status code alone does not tell. A stream that the
# peer resets with INTERNAL_ERROR or CANCEL is reported as INTERNAL or CANCELLED, "Stream removed" as UNKNOWN.
_TRANSPORT_WORDS = ("RST_STREAM", "GOAWAY", "Stream removed", "Connection reset", "Broken pipe", "Socket closed")
_TRANSPORT_CODES = frozenset({"INTERNAL", "UNKNOWN", "CANCELLED"})


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


class Budget(forks.Forkable):
    """The token bucket behind :attr:`Retry.budget`, shared by all calls of a client. Thread-safe."""

    def __init__(self, policy: Retry) -> None:
        self._maximum = math.inf if policy.budget is None else policy.budget
        self._ratio = policy.budget_ratio
        self._tokens: float = self._maximum
        self._lock = threading.Lock()
        forks.register(self)

    def success(self) -> None:
        """A call succeeded."""
        if self._tokens < self._maximum:
            with self._lock:
                self._tokens = min(self._maximum, self._tokens + self._ratio)

    def failure(self) -> bool:
        """An attempt failed; whether the budget allows another."""
        with self._lock:
            self._tokens = max(0, self._tokens - 1)
            return self._tokens > self._maximum / 2 or self._maximum == math.inf

    def after_fork(self) -> None:
        """The child of a fork must not wait for a lock whose holder does not exist there."""
        self._lock = threading.Lock()


def is_transient(policy: Retry, error: APIError, *, own_deadline: bool) -> bool:
    """Whether another attempt could succeed where this one failed.

    Args:
        own_deadline: the attempt's own deadline was shorter than the call's, so that DEADLINE_EXCEEDED only says that
            this attempt took too long.
    """
    code = error.code.name
    if "larger than max" in error.message:  # a message over gRPC's size limit: RESOURCE_EXHAUSTED, but for ever
        return False
    if code == "DEADLINE_EXCEEDED" and own_deadline:
        return True
    if code in _TRANSPORT_CODES and any(words in error.message for words in _TRANSPORT_WORDS):
        return True
    return code in policy.codes


def backoff(
    policy: Retry, attempts: int, error: APIError, pushback_ms: str | None, rng: Callable[[], float] = random.random
) -> float | None:
    """Seconds to wait before the next attempt, or None if the server asks not to try again.

    The server's own word wins: ``grpc-retry-pushback-ms`` (negative or unreadable: do not retry, as in gRFC A6), then
    ``google.rpc.RetryInfo``.
    """
    if pushback_ms is not None:
        return pushback_seconds(pushback_ms)
    if error.retry_after is not None:
        return max(0.0, error.retry_after)
    bound = policy.maximum
    if policy.initial < bound:
        with contextlib.suppress(OverflowError):  # long before anybody waits so long
            bound = min(bound, policy.initial * policy.multiplier ** (attempts - 1))
    return bound * (1 - policy.jitter * rng())
