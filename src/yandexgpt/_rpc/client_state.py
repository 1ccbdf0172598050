"""The state that the calls of one client share: settings, metadata, retry budget and limiters."""

from __future__ import annotations

import contextlib
import logging
import random
import uuid
from collections import deque
from typing import TYPE_CHECKING

from yandexgpt._concurrency import fork_safety
from yandexgpt._concurrency.limiter import Limiter
from yandexgpt._concurrency.rate_limiter import MAX_CONCURRENT_POLLS, POLL_INTERVAL, RateLimiter
from yandexgpt._config import Settings
from yandexgpt._retry import RetryBudget

if TYPE_CHECKING:
    from yandexgpt._rpc.methods import Method


__all__ = ["ClientState"]

logger = logging.getLogger("yandexgpt")
logger.addHandler(logging.NullHandler())  # without a handler, logging would write warnings to stderr


class ClientState(fork_safety.ForkAware):
    """The state that the calls of one client share. What ``with_options`` did not change is shared with its parent."""

    def __init__(self, settings: Settings, parent: ClientState | None) -> None:
        self.settings = settings
        self.metadata = settings.call_metadata()
        self.calls_ended_by_caller: deque[str] = parent.calls_ended_by_caller if parent else deque()
        """Descriptions of calls that were ended by their callers, to be logged."""
        if parent and parent.settings.retry == settings.retry:
            self.budget: RetryBudget = parent.budget
        else:
            self.budget = RetryBudget(settings.retry)
        if parent and parent.settings.max_concurrency == settings.max_concurrency:
            self.limiter: Limiter | None = parent.limiter
        else:
            self.limiter = Limiter(settings.max_concurrency) if settings.max_concurrency else None
        self.rate_limiter: RateLimiter = parent.rate_limiter if parent else RateLimiter(POLL_INTERVAL)
        self.poll_limiter: Limiter = parent.poll_limiter if parent else Limiter(MAX_CONCURRENT_POLLS)
        # Not the module's generator: a program that seeds it, in each worker, would repeat ids and idempotency keys.
        self._random = random.Random()  # noqa: S311  (ids are no secrets)
        fork_safety.register(self)

    def after_fork(self) -> None:
        """Reset the limiters: the child has no holders and no waiters. Its ids differ from its parent's."""
        self._random.seed()
        for limiter in (self.limiter, self.poll_limiter, self.rate_limiter):
            if limiter is not None:
                limiter.reset()

    def new_id(self) -> str:
        """Return a new UUID, for a request id or an idempotency key.

        ``uuid.uuid4()`` would read random bytes from the system for each call.
        """
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def limiter_for(self, method: Method) -> Limiter | None:
        """Return the limiter of the calls of a method, or None if their number is not limited."""
        if method.limit is None:
            return None
        return self.limiter if method.limit == "max_concurrency" else self.poll_limiter

    def describe_limiter_holders(self, method: Method) -> str:
        """Describe the calls that hold this limiter, for an error message."""
        if method.limit == "polls":
            return f"{MAX_CONCURRENT_POLLS} other look-ups of operations"
        return f"max_concurrency={self.settings.max_concurrency} calls"

    def log_calls_ended_by_caller(self) -> None:
        """Log the calls that were ended by their callers."""
        with contextlib.suppress(IndexError):  # the deque is empty
            while True:
                logger.debug("call ended by its caller: %s", self.calls_ended_by_caller.popleft())
