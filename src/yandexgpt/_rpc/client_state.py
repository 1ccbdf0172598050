"""What the calls of one client share: settings, metadata, retry budget and limiters."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

from yandexgpt._concurrency import fork_safety
from yandexgpt._concurrency.limiter import Limiter
from yandexgpt._concurrency.rate_limiter import MAX_CONCURRENT_POLLS, POLL_INTERVAL, RateLimiter
from yandexgpt._config import Settings
from yandexgpt._retry import Budget

if TYPE_CHECKING:
    from yandexgpt._rpc.methods import Method


__all__ = ["ClientState"]

logger = logging.getLogger("yandexgpt")
logger.addHandler(logging.NullHandler())  # a library does not print: without a handler, logging would write to stderr


class ClientState(fork_safety.ForkAware):
    """What the calls of one client have in common."""

    def __init__(self, settings: Settings, parent: ClientState | None) -> None:
        self.settings = settings
        self.metadata = settings.call_metadata()
        self.ended_by_caller: deque[str] = parent.ended_by_caller if parent else deque()
        """Facts about calls that were ended by their callers, to be logged."""
        # A client made by with_options shares with the one it came from what did not change.
        if parent and parent.settings.retry == settings.retry:
            self.budget: Budget = parent.budget
        else:
            self.budget = Budget(settings.retry)
        if parent and parent.settings.max_concurrency == settings.max_concurrency:
            self.limiter: Limiter | None = parent.limiter
        else:
            self.limiter = Limiter(settings.max_concurrency) if settings.max_concurrency else None
        self.rate_limiter: RateLimiter = parent.rate_limiter if parent else RateLimiter(POLL_INTERVAL)
        self.poll_limiter: Limiter = parent.poll_limiter if parent else Limiter(MAX_CONCURRENT_POLLS)
        fork_safety.register(self)

    def after_fork(self) -> None:
        """Nobody in the child holds a limiter, or waits for one."""
        for limiter in (self.limiter, self.poll_limiter, self.rate_limiter):
            if limiter is not None:
                limiter.reset()

    def limiter_of(self, method: Method) -> Limiter | None:
        """What bounds how many calls of a method are in flight, if anything does."""
        if method.limit is None:
            return None
        return self.limiter if method.limit == "max_concurrency" else self.poll_limiter

    def calls_ahead(self, method: Method) -> str:
        """The calls that hold that limiter, in words."""
        if method.limit == "polls":
            return f"{MAX_CONCURRENT_POLLS} other look-ups of operations"
        return f"max_concurrency={self.settings.max_concurrency} calls"

    def log_ended_by_caller(self) -> None:
        """Log the calls that were ended by their callers."""
        with contextlib.suppress(IndexError):  # there are no more
            while True:
                logger.debug("call ended by its caller: %s", self.ended_by_caller.popleft())
