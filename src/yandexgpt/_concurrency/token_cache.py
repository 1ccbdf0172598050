"""IAM tokens that expire, and the cache that keeps one of them fresh for all callers."""

from __future__ import annotations

import logging
import math
import random
import sys
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from yandexgpt._checks import check_secret
from yandexgpt._concurrency import fork_safety
from yandexgpt.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ExpiringToken", "TokenCache"]

logger = logging.getLogger("yandexgpt")

_MAX_REFRESH_INTERVAL = 3600.0
"""Seconds after which a token is refreshed at the latest: its issuer recommends a new one each hour."""
_RETRY_AFTER_FAILURE = 10.0
"""Seconds before a failed refresh is retried while the old token is valid (less, if it expires soon)."""
_HUNG_AFTER = 50.0
"""Seconds after which an attempt is considered hung, so that the next caller starts another. The time doubles for each
attempt that already hangs, so that their threads do not pile up. It is shorter than the default timeout of calls: after
a call has waited in vain, the next call starts a new attempt."""
_FORK_JOIN_TIMEOUT = 2.0
"""Seconds that a fork waits for refreshes to end."""


class ExpiringToken:
    """An IAM token and its remaining lifetime.

    Args:
        value: the token; never shown.
        lifetime: seconds until it expires, or None if unknown.
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


class _Token(NamedTuple):
    """The current token. Immutable, so it is read without a lock."""

    header: str
    refresh_at: float
    expires_at: float


class _Refresh:
    """A refresh that callers wait for: the first outcome of one attempt to get a token, or of several if some hang.

    Attributes:
        future: the value of ``authorization``, or the exception of the failure.
        hung_at: when the attempt is considered hung, so that a caller starts another.
        permits: a list with one item, which is removed by the one caller that starts the next attempt.
        starting_threads: identifiers of the threads that are starting an attempt.
    """

    __slots__ = ("_unresolved", "future", "hung_at", "permits", "starting_threads")

    def __init__(self) -> None:
        self.future: Future[str] = Future()
        self.future.set_running_or_notify_cancel()  # a caller that waits cannot cancel it for the others
        self.hung_at = math.inf
        self.permits: list[None] = []
        self.starting_threads = [threading.get_ident()]
        self._unresolved = [self.future]

    def resolve(self, outcome: str | BaseException) -> None:
        """Set the outcome, and so wake the callers that wait, unless it is set already."""
        try:
            future = self._unresolved.pop()
        except IndexError:
            return
        if isinstance(outcome, str):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)


class TokenCache(fork_safety.ForkAware):
    """Keeps one token fresh for all callers, in threads and event loops.

    A refresh runs in its own thread, so that the deadline or the cancellation of one caller does not end it for the
    others. The first caller that finds the token near its expiry starts it. No caller waits for it while the old token
    is valid.

    The cache is re-entrant and lock-free. A signal handler or a finalizer may interrupt another call of the cache in
    the same thread, and wait for a token there: a lock would deadlock. Races are decided by single operations of dicts
    and lists, which are atomic. If two threads interleave between such operations, the worst result is one refresh too
    many.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, rng: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._rng = rng
        self._token: _Token | None = None
        self._rejected: _Token | None = None
        self.after_fork()
        fork_safety.register(self)

    def before_fork(self) -> bool:
        """Wait for running attempts: their threads may be inside gRPC, which would be unusable in the child."""
        end = time.monotonic() + _FORK_JOIN_TIMEOUT
        for thread in list(self._threads):
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))
        return False

    def after_fork(self) -> None:
        """Forget the running refresh, which continues in the parent only."""
        self._current_refresh: dict[None, _Refresh] = {}
        """The running refresh, if there is one, under the key None."""
        self._threads: dict[threading.Thread, None] = {}
        """The threads of attempts, including attempts that no caller waits for any more."""

    @property
    def pending(self) -> Future[str] | None:
        """The future of the running refresh; None if there is none."""
        refresh = self._current_refresh.get(None)
        return None if refresh is None else refresh.future

    def header(self, fetch: Callable[[], ExpiringToken], *, rejected: str | None = None) -> str | Future[str]:
        """Return the ``authorization`` to use now, or a future of it if there is no valid token.

        Args:
            fetch: gets a new token; blocks.
            rejected: a header that the service has rejected, even if its token has not expired.
        """
        now = self._clock()
        token = self._token
        if token is not None and token.header == rejected:
            self._rejected = token
        if token is None or token is self._rejected or now >= token.refresh_at:
            refresh = self._current_refresh.get(None)
            if refresh is None or _needs_attempt(refresh, now):
                refresh = self._start(fetch, token, now)
            if token is None or token is self._rejected or now >= token.expires_at:
                return refresh.future
        return token.header

    def _start(self, fetch: Callable[[], ExpiringToken], observed: _Token | None, now: float) -> _Refresh:
        """Start a refresh, or another attempt of the running one, unless another caller did it first.

        Args:
            observed: the token that is to be replaced.
        """
        thread_id, thread = threading.get_ident(), None
        try:
            new = _Refresh()
            refresh = self._current_refresh.setdefault(None, new)
            if refresh is new:
                token = self._token
                if token is not observed and token is not None and now < token.refresh_at:
                    # Another refresh has ended meanwhile. Callers may wait for this one already, so it is completed.
                    self._complete(new, token.header)
                    return new
            else:
                # A re-entrant call interrupts the start of an attempt, which cannot continue before this call returns.
                reentrant = thread_id in refresh.starting_threads
                refresh.starting_threads.append(thread_id)
                if not (reentrant or (now >= refresh.hung_at and _take_permit(refresh.permits))):
                    refresh.starting_threads.remove(thread_id)
                    return refresh
            thread = threading.Thread(target=self._refresh, args=(fetch, refresh), name="yandexgpt-token", daemon=True)
            self._threads[thread] = None
            refresh.hung_at = now + _HUNG_AFTER * 2.0 ** (len(self._threads) - 1)
            if sys.is_finalizing():  # before Python 3.12 starting a thread would block forever then
                raise RuntimeError("the interpreter is shutting down")
            thread.start()
            refresh.permits[:] = [None]
            refresh.starting_threads.remove(thread_id)
        except RuntimeError as error:
            failure = ConfigurationError(f"no token can be got, because no thread can be started for it: {error}")
            failure.__cause__ = error
            self._fail(failure, refresh, thread)
        except BaseException:
            # Ctrl-C, before or after the thread has started. It concerns this caller only: the others must retry.
            self._fail(_interrupted_error(), self._current_refresh.get(None), thread)
            raise
        return refresh

    def _refresh(self, fetch: Callable[[], ExpiringToken], refresh: _Refresh) -> None:
        try:
            token = fetch()
            if not isinstance(token, ExpiringToken):
                raise TypeError(f"fetch() must return an ExpiringToken, got {type(token).__name__}")
            header = f"Bearer {check_secret(token.value, 'the token')}"
            lifetime = token.lifetime
            # 20 % jitter, so that many clients do not request new tokens at the same time.
            latest = _MAX_REFRESH_INTERVAL if lifetime is None else min(lifetime, _MAX_REFRESH_INTERVAL)
            now = self._clock()
            expires_at = math.inf if lifetime is None else now + lifetime
            fresh = _Token(header, now + latest * (0.9 - 0.2 * self._rng()), expires_at)
        except BaseException as error:  # noqa: BLE001  (any exception is passed to the callers that wait)
            self._fail(error, refresh, threading.current_thread())
            return
        self._threads.pop(threading.current_thread(), None)
        current_token, current_refresh = self._token, self._current_refresh.get(None)
        # If this attempt was considered hung and another one has ended before it, this token may be the older one.
        if (
            current_refresh is refresh
            or current_token is None
            or current_token is self._rejected
            or now >= current_token.expires_at
        ):
            self._token = fresh  # set first: a caller that finds no running refresh reads it
            if current_refresh is not None:
                self._complete(current_refresh, header)
        self._complete(refresh, header)

    def _fail(self, error: BaseException, refresh: _Refresh | None, thread: threading.Thread | None) -> None:
        if thread is not None:
            self._threads.pop(thread, None)
        if refresh is None:
            return
        token, now = self._token, self._clock()
        remaining = 0.0
        # Not if this attempt was considered hung and another one has ended meanwhile.
        if self._current_refresh.get(None) is refresh and token is not None and token is not self._rejected:
            remaining = token.expires_at - now
            if remaining > 0:
                wait = min(_RETRY_AFTER_FAILURE, remaining / 4) * (1 - 0.2 * self._rng())
                self._token = token._replace(refresh_at=now + wait)
        self._complete(refresh, error)
        if remaining > 0:
            logger.warning("the token could not be refreshed; the old one is used while it lives: %s", error)

    def _complete(self, refresh: _Refresh, outcome: str | BaseException) -> None:
        if self._current_refresh.get(None) is refresh:
            self._current_refresh.pop(None, None)
        refresh.resolve(outcome)


def _needs_attempt(refresh: _Refresh, now: float) -> bool:
    return now >= refresh.hung_at or threading.get_ident() in refresh.starting_threads


def _take_permit(permits: list[None]) -> bool:
    """Take the permit. Return whether this caller got it."""
    try:
        permits.pop()
    except IndexError:
        return False
    return True


def _interrupted_error() -> UnavailableError:
    import grpc

    return UnavailableError("the refresh of the token was interrupted", code=grpc.StatusCode.UNAVAILABLE)
