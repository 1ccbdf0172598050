"""Tokens that end, and the one refresher for everybody who needs one."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from yandexgpt import forks
from yandexgpt.checks import check_secret

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ExpiringToken", "Refresher"]

logger = logging.getLogger("yandexgpt")

_UNKNOWN_LIFETIME_REFRESH = 3600.0
"""Seconds after which a token is refreshed at the latest: its issuer advises a new one each hour."""
_RETRY_AFTER_FAILURE = 10.0
"""Seconds before a refresh that failed is tried again while the old token lives (less, if little life is left)."""


_PATIENCE_AT_FORK = 2.0
"""Seconds that a fork waits for a refresh to end."""


class ExpiringToken:
    """An IAM token, with how long it lives.

    Args:
        value: the token; never shown.
        lifetime: seconds that it still lives, or None where nobody says.
    """

    __slots__ = ("lifetime", "value")

    def __init__(self, value: str, *, lifetime: float | None = None) -> None:
        if lifetime is not None and (isinstance(lifetime, bool) or not isinstance(lifetime, int | float)):
            raise ValueError(f"lifetime must be a number of seconds, or None, got {type(lifetime).__name__}")
        self.value = value
        self.lifetime = lifetime

    def __repr__(self) -> str:
        return f"ExpiringToken(..., lifetime={self.lifetime})"

    def __reduce__(self) -> str:
        raise TypeError("ExpiringToken cannot be pickled or copied: it holds a secret")


class Refresher(forks.Forkable):
    """Keeps one token fresh for all callers: threads, tasks and event loops alike.

    A refresh runs in a thread of its own, so that no caller's deadline or cancellation ends it for the others. It is
    started by the first caller who finds the token nearly spent; while the old token lives nobody waits for it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, rng: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._rng = rng
        self._header: str | None = None
        self._refresh_at = -math.inf
        self._ends_at = -math.inf
        self.after_fork()
        forks.register(self)

    def before_fork(self) -> bool:
        """Let a refresh that is under way end: its thread may be inside gRPC, which no child survives."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE_AT_FORK)
        return False

    def after_fork(self) -> None:
        """In the child of a fork: the refresh under way, if any, is under way only in the parent."""
        self._lock = threading.Lock()
        self._pending: Future[str] | None = None
        self._thread: threading.Thread | None = None

    def header(self, fetch: Callable[[], ExpiringToken], *, refused: str | None = None) -> str | Future[str]:
        """The ``authorization`` to use now, or what to wait for if there is none.

        Args:
            fetch: gets a new token; blocks.
            refused: a header that the service has refused, although it may have seemed alive.
        """
        now = self._clock()
        if now < self._refresh_at and refused is None:
            assert self._header is not None  # noqa: S101  (for the type checker)
            return self._header
        with self._lock:
            if refused is not None and refused == self._header:
                self._refresh_at = self._ends_at = -math.inf
            if now < self._refresh_at and self._header is not None:
                return self._header
            pending = self._pending
            if pending is None:
                pending = Future()
                pending.set_running_or_notify_cancel()  # nobody who waits can cancel it for the others
                self._thread = threading.Thread(
                    target=self._refresh, args=(fetch, pending), name="yandexgpt-token", daemon=True
                )
                self._thread.start()
                self._pending = pending  # only now: a thread that cannot be started leaves nothing to wait for
            if now < self._ends_at and self._header is not None:
                return self._header
            return pending

    def _refresh(self, fetch: Callable[[], ExpiringToken], pending: Future[str]) -> None:
        try:
            token = fetch()
            if not isinstance(token, ExpiringToken):
                raise TypeError(f"fetch() must return an ExpiringToken, got {type(token).__name__}")
            header = f"Bearer {check_secret(token.value, 'the token')}"
        except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to those who wait)
            self._failed(error)
            pending.set_exception(error)
            return
        with self._lock:
            now = self._clock()
            lifetime = token.lifetime
            # A jitter of a fifth keeps the clients of a fleet from asking for new tokens all at the same time.
            latest = _UNKNOWN_LIFETIME_REFRESH if lifetime is None else min(lifetime, _UNKNOWN_LIFETIME_REFRESH)
            self._header = header
            self._ends_at = math.inf if lifetime is None else now + lifetime
            self._refresh_at = now + latest * (0.9 - 0.2 * self._rng())  # last: it is read without the lock
            self._pending = None
        pending.set_result(header)

    def _failed(self, error: BaseException) -> None:
        with self._lock:
            left = self._ends_at - self._clock()
            self._pending = None
            if left > 0:
                self._refresh_at = self._clock() + min(_RETRY_AFTER_FAILURE, left / 4) * (1 - 0.2 * self._rng())
        if left > 0:
            logger.warning("the token could not be refreshed; the old one is used while it lives: %s", error)
