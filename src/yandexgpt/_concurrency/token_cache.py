"""Tokens that end, and the one token_cache for everybody who needs one."""

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

_UNKNOWN_LIFETIME_REFRESH = 3600.0
"""Seconds after which a token is refreshed at the latest: its issuer advises a new one each hour."""
_RETRY_AFTER_FAILURE = 10.0
"""Seconds before a refresh that failed is tried again while the old token lives (less, if little life is left)."""
_HANGS_AFTER = 50.0
"""Seconds after which a refresh is taken to hang, so that the next caller starts another; twice as many for each that
hangs already, so that their threads do not pile up. It is less than the timeout that calls have by default: the call
after one that has waited in vain starts anew."""
_PATIENCE_AT_FORK = 2.0
"""Seconds that a fork waits for refreshes to end."""


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


class _Token(NamedTuple):
    """What is known of the token in use; never changed, so that it is read without a lock."""

    header: str
    refresh_at: float
    ends_at: float


class _Refresh:
    """What callers wait for: the first outcome of one attempt to get a token, or of several if they hang.

    Attributes:
        future: the value of ``authorization``, or why there is none.
        overdue_at: when the next caller makes another attempt.
        turn: holds something for the one caller who makes it.
        beginners: the threads that are just about to start an attempt.
    """

    __slots__ = ("_unsettled", "beginners", "future", "overdue_at", "turn")

    def __init__(self) -> None:
        self.future: Future[str] = Future()
        self.future.set_running_or_notify_cancel()  # nobody who waits can cancel it for the others
        self.overdue_at = math.inf
        self.turn: list[None] = []
        self.beginners = [threading.get_ident()]
        self._unsettled = [self.future]

    def settle(self, outcome: str | BaseException) -> None:
        """Let those go on who wait, unless they have been let go."""
        try:
            future = self._unsettled.pop()
        except IndexError:
            return
        if isinstance(outcome, str):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)


class TokenCache(fork_safety.Forkable):
    """Keeps one token fresh for all callers: threads, tasks and event loops alike.

    A refresh runs in a thread of its own, so that no caller's deadline or cancellation ends it for the others. It is
    started by the first caller who finds the token nearly spent; while the old token lives nobody waits for it.

    A caller may be a signal handler or a finalizer, in the middle of another caller's work in the same thread, and wait
    there for a token. So there is no lock: who does what is settled by single operations of dicts and lists, which are
    atomic. Where two threads cross between such operations, the worst is a refresh too many.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, rng: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._rng = rng
        self._token: _Token | None = None
        self._rejected: _Token | None = None
        self.after_fork()
        fork_safety.register(self)

    def before_fork(self) -> bool:
        """Let a refresh that is under way end: its thread may be inside gRPC, which no child survives."""
        end = time.monotonic() + _PATIENCE_AT_FORK
        for thread in list(self._running):
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))
        return False

    def after_fork(self) -> None:
        """In the child of a fork: the refresh under way, if any, is under way only in the parent."""
        self._under_way: dict[None, _Refresh] = {}
        """The refresh, if there is one."""
        self._running: dict[threading.Thread, None] = {}
        """The threads of attempts, also of those that are no longer waited for."""

    @property
    def pending(self) -> Future[str] | None:
        """What those wait for who need the refresh that is under way; None if there is none."""
        refresh = self._under_way.get(None)
        return None if refresh is None else refresh.future

    def header(self, fetch: Callable[[], ExpiringToken], *, rejected: str | None = None) -> str | Future[str]:
        """The ``authorization`` to use now, or what to wait for if there is none.

        Args:
            fetch: gets a new token; blocks.
            rejected: a header that the service has rejected, although it may have seemed alive.
        """
        now = self._clock()
        token = self._token
        if token is not None and token.header == rejected:
            self._rejected = token
        if token is None or token is self._rejected or now >= token.refresh_at:
            refresh = self._under_way.get(None)
            if refresh is None or _is_due(refresh, now):
                refresh = self._start(fetch, token, now)
            if token is None or token is self._rejected or now >= token.ends_at:
                return refresh.future
        return token.header

    def _start(self, fetch: Callable[[], ExpiringToken], seen: _Token | None, now: float) -> _Refresh:
        """Start a refresh, or another attempt of the one under way, unless somebody else is quicker.

        Args:
            seen: the token that is to be replaced.
        """
        me, thread = threading.get_ident(), None
        try:
            mine = _Refresh()
            refresh = self._under_way.setdefault(None, mine)
            if refresh is mine:
                token = self._token
                if token is not seen and token is not None and now < token.refresh_at:
                    # One has ended since. Others may wait for this one by now.
                    self._end(mine, token.header)
                    return mine
            else:
                interrupted = me in refresh.beginners  # the start of an attempt, in this thread: it waits for us
                refresh.beginners.append(me)
                if not (interrupted or (now >= refresh.overdue_at and _taken(refresh.turn))):
                    refresh.beginners.remove(me)
                    return refresh
            thread = threading.Thread(target=self._refresh, args=(fetch, refresh), name="yandexgpt-token", daemon=True)
            self._running[thread] = None
            refresh.overdue_at = now + _HANGS_AFTER * 2.0 ** (len(self._running) - 1)
            if sys.is_finalizing():  # before Python 3.12 the start of a thread would then wait for ever
                raise RuntimeError("the interpreter is shutting down")
            thread.start()
            refresh.turn[:] = [None]
            refresh.beginners.remove(me)
        except RuntimeError as error:
            failure = ConfigurationError(f"no token can be got, because no thread can be started for it: {error}")
            failure.__cause__ = error
            self._failed(failure, refresh, thread)
        except BaseException:
            # Ctrl-C, before the start of the thread or after it. It is this caller's alone: others are to try again.
            self._failed(_interrupted(), self._under_way.get(None), thread)
            raise
        return refresh

    def _refresh(self, fetch: Callable[[], ExpiringToken], refresh: _Refresh) -> None:
        try:
            token = fetch()
            if not isinstance(token, ExpiringToken):
                raise TypeError(f"fetch() must return an ExpiringToken, got {type(token).__name__}")
            header = f"Bearer {check_secret(token.value, 'the token')}"
            lifetime = token.lifetime
            # A jitter of a fifth keeps the clients of a fleet from asking for new tokens all at the same time.
            latest = _UNKNOWN_LIFETIME_REFRESH if lifetime is None else min(lifetime, _UNKNOWN_LIFETIME_REFRESH)
            now = self._clock()
            ends_at = math.inf if lifetime is None else now + lifetime
            fresh = _Token(header, now + latest * (0.9 - 0.2 * self._rng()), ends_at)
        except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to those who wait)
            self._failed(error, refresh, threading.current_thread())
            return
        self._running.pop(threading.current_thread(), None)
        current, under_way = self._token, self._under_way.get(None)
        # If it had been taken to hang, and another was quicker, this token may be the older one.
        if under_way is refresh or current is None or current is self._rejected or now >= current.ends_at:
            self._token = fresh  # first: whoever finds no refresh under way looks for it
            if under_way is not None:
                self._end(under_way, header)
        self._end(refresh, header)

    def _failed(self, error: BaseException, refresh: _Refresh | None, thread: threading.Thread | None) -> None:
        if thread is not None:
            self._running.pop(thread, None)
        if refresh is None:
            return
        token, now = self._token, self._clock()
        left = 0.0
        # Not if it had been taken to hang, and another has ended since.
        if self._under_way.get(None) is refresh and token is not None and token is not self._rejected:
            left = token.ends_at - now
            if left > 0:
                wait = min(_RETRY_AFTER_FAILURE, left / 4) * (1 - 0.2 * self._rng())
                self._token = token._replace(refresh_at=now + wait)
        self._end(refresh, error)
        if left > 0:
            logger.warning("the token could not be refreshed; the old one is used while it lives: %s", error)

    def _end(self, refresh: _Refresh, outcome: str | BaseException) -> None:
        if self._under_way.get(None) is refresh:
            self._under_way.pop(None, None)
        refresh.settle(outcome)


def _is_due(refresh: _Refresh, now: float) -> bool:
    return now >= refresh.overdue_at or threading.get_ident() in refresh.beginners


def _taken(turn: list[None]) -> bool:
    """Whether it was there for us."""
    try:
        turn.pop()
    except IndexError:
        return False
    return True


def _interrupted() -> UnavailableError:
    import grpc

    return UnavailableError("the refresh of the token was interrupted", code=grpc.StatusCode.UNAVAILABLE)
