"""One token for all callers: refreshed once, before it expires, and used while it is valid."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from types import FrameType
from typing import Any

import pytest
from driver import ClientFactory, Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from yandexgpt import ConfigurationError, DeadlineExceededError
from yandexgpt._concurrency import token_cache as tokens
from yandexgpt._concurrency.token_cache import ExpiringToken, TokenCache
from yandexgpt.credentials import TokenProvider
from yandexgpt.emulator import Emulator

SECRET = "t1.s3cr3t"
PATIENCE = 20.0


class Issuer:
    """Issues tokens a1, a2, ... A test can make it fail, or wait until `go` is set."""

    def __init__(self, lifetime: float | None = 1000.0) -> None:
        self.lifetime = lifetime
        self.count = 0
        self.failure: BaseException | None = None
        self.go = threading.Event()
        self.go.set()
        self.asked = threading.Semaphore(0)

    def __call__(self) -> ExpiringToken:
        self.count += 1
        number = self.count
        self.asked.release()
        assert self.go.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        return ExpiringToken(f"{SECRET}-{number}", lifetime=self.lifetime)


def bearer(number: int) -> str:
    return f"Bearer {SECRET}-{number}"


def use(refresher: TokenCache, fetch: Callable[[], ExpiringToken], **refused: str) -> str:
    """The authorization header. Waits for a refresh, as a client does."""
    header = refresher.header(fetch, **refused)
    return header.result(PATIENCE) if isinstance(header, Future) else header


def refreshed(refresher: TokenCache, issuer: Issuer) -> None:
    """Release the issuer and wait until the background refresh has ended."""
    threads = [thread for thread in threading.enumerate() if thread.name == "yandexgpt-token"]
    issuer.go.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refresher(clock: Clock) -> TokenCache:
    return TokenCache(clock, lambda: 0.0)


def test_first_caller_waits_for_the_token_and_later_callers_do_not(refresher: TokenCache) -> None:
    issuer = Issuer()
    first = refresher.header(issuer)
    assert isinstance(first, Future)
    assert first.result(PATIENCE) == bearer(1)
    assert refresher.header(issuer) == bearer(1)
    assert issuer.count == 1


def test_one_refresh_serves_all_threads(refresher: TokenCache) -> None:
    issuer, start, headers = Issuer(), threading.Barrier(32), list[str]()
    issuer.go.clear()

    def call() -> None:
        start.wait(PATIENCE)
        header = refresher.header(issuer)
        assert isinstance(header, Future)
        waiting.release()
        headers.append(header.result(PATIENCE))

    waiting = threading.Semaphore(0)
    threads = [threading.Thread(target=call) for _ in range(32)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert waiting.acquire(timeout=PATIENCE)
    issuer.go.set()
    for thread in threads:
        thread.join()
    assert headers == [bearer(1)] * 32
    assert issuer.count == 1


def test_caller_that_times_out_does_not_cancel_the_refresh(refresher: TokenCache) -> None:
    issuer = Issuer()
    issuer.go.clear()
    first, second = refresher.header(issuer), refresher.header(issuer)
    assert isinstance(first, Future)
    assert isinstance(second, Future)
    with pytest.raises(futures.TimeoutError):
        first.result(0)
    issuer.go.set()
    assert second.result(PATIENCE) == bearer(1)
    assert issuer.count == 1


def test_token_is_refreshed_in_the_background_before_it_expires(refresher: TokenCache, clock: Clock) -> None:
    issuer = Issuer(lifetime=1000)
    use(refresher, issuer)
    clock.now += 899
    assert refresher.header(issuer) == bearer(1)
    assert issuer.count == 1
    issuer.go.clear()
    clock.now += 2
    assert refresher.header(issuer) == bearer(1)
    assert refresher.header(issuer) == bearer(1)
    refreshed(refresher, issuer)
    assert refresher.header(issuer) == bearer(2)
    assert issuer.count == 2


def test_expired_token_is_not_used(refresher: TokenCache, clock: Clock) -> None:
    issuer = Issuer(lifetime=1000)
    use(refresher, issuer)
    clock.now += 1000
    assert isinstance(refresher.header(issuer), Future)
    assert use(refresher, issuer) == bearer(2)


@given(st.floats(1, 10 * 3600), st.floats(0, 1, exclude_max=True))
@settings(max_examples=40)
def test_token_is_refreshed_between_70_and_90_percent_of_its_lifetime(lifetime: float, share: float) -> None:
    clock, issuer = Clock(), Issuer(lifetime=lifetime)
    refresher = TokenCache(clock, lambda: share)
    use(refresher, issuer)
    started = clock.now
    life = min(lifetime, 3600)
    clock.now = started + 0.69 * life
    assert refresher.header(issuer) == bearer(1)
    assert issuer.count == 1
    clock.now = started + 0.91 * life
    assert refresher.header(issuer) == bearer(1)
    assert issuer.asked.acquire(timeout=PATIENCE)
    assert issuer.asked.acquire(timeout=PATIENCE)
    refreshed(refresher, issuer)
    assert refresher.header(issuer) == bearer(2)


@pytest.mark.parametrize("lifetime", [None, 12 * 3600])
def test_token_with_a_long_lifetime_is_refreshed_every_hour(
    refresher: TokenCache, clock: Clock, lifetime: float | None
) -> None:
    issuer = Issuer(lifetime=lifetime)
    use(refresher, issuer)
    clock.now += 3200
    assert refresher.header(issuer) == bearer(1)
    assert issuer.count == 1
    clock.now += 100
    assert refresher.header(issuer) == bearer(1)
    refreshed(refresher, issuer)
    assert refresher.header(issuer) == bearer(2)


def test_token_without_a_known_lifetime_is_used_until_it_is_replaced(refresher: TokenCache, clock: Clock) -> None:
    issuer = Issuer(lifetime=None)
    use(refresher, issuer)
    issuer.failure = LookupError("sealed")
    clock.now += 30 * 86400
    assert refresher.header(issuer) == bearer(1)
    refreshed(refresher, issuer)
    assert refresher.header(issuer) == bearer(1)


# Failed refreshes


def test_failed_refresh_is_logged_and_the_old_token_is_used_until_it_expires(
    refresher: TokenCache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer(lifetime=1000)
    use(refresher, issuer)
    issuer.failure = LookupError("the vault is sealed")
    clock.now += 950
    assert refresher.header(issuer) == bearer(1)
    refreshed(refresher, issuer)
    assert refresher.header(issuer) == bearer(1)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("yandexgpt", logging.WARNING)
    assert "could not be refreshed" in record.getMessage()
    assert "the vault is sealed" in record.getMessage()
    assert SECRET not in caplog.text


def test_failed_refresh_is_not_repeated_by_every_caller(refresher: TokenCache, clock: Clock) -> None:
    issuer = Issuer(lifetime=1000)
    use(refresher, issuer)
    issuer.failure = LookupError("sealed")
    clock.now += 910
    assert refresher.header(issuer) == bearer(1)
    refreshed(refresher, issuer)
    for _ in range(9):
        clock.now += 1
        assert refresher.header(issuer) == bearer(1)
    assert issuer.count == 2
    issuer.failure = None
    clock.now += 2
    assert refresher.header(issuer) == bearer(1)
    refreshed(refresher, issuer)
    assert refresher.header(issuer) == bearer(3)


def test_failed_refresh_is_repeated_before_the_old_token_expires(refresher: TokenCache, clock: Clock) -> None:
    issuer = Issuer(lifetime=20)
    use(refresher, issuer)
    issuer.failure = LookupError("sealed")
    clock.now += 18.5
    assert refresher.header(issuer) == bearer(1)
    refreshed(refresher, issuer)
    issuer.failure = None
    clock.now += 1
    assert refresher.header(issuer) == bearer(1)
    refreshed(refresher, issuer)
    assert refresher.header(issuer) == bearer(3)


def test_error_after_expiry_gives_the_reason_of_the_failed_refresh(refresher: TokenCache, clock: Clock) -> None:
    issuer = Issuer(lifetime=1000)
    use(refresher, issuer)
    issuer.failure = LookupError("the vault is sealed")
    clock.now += 1001
    with pytest.raises(LookupError, match="the vault is sealed"):
        use(refresher, issuer)
    issuer.failure = None
    assert use(refresher, issuer) == bearer(3)


def test_failed_first_refresh_is_raised_for_all_waiting_callers_and_not_logged(
    refresher: TokenCache, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer()
    issuer.failure = LookupError("sealed")
    issuer.go.clear()
    waiting = [refresher.header(issuer) for _ in range(3)]
    issuer.go.set()
    for header in waiting:
        assert isinstance(header, Future)
        assert header.exception(PATIENCE) is issuer.failure
    assert issuer.count == 1
    assert not caplog.records
    issuer.failure = None
    assert use(refresher, issuer) == bearer(2)


# Tokens rejected by the service


def test_rejected_token_causes_one_refresh_for_all_callers(refresher: TokenCache) -> None:
    issuer = Issuer()
    old = use(refresher, issuer)
    issuer.go.clear()
    waiting = [refresher.header(issuer, rejected=old) for _ in range(8)]
    assert all(isinstance(header, Future) for header in waiting)
    issuer.go.set()
    assert {header.result(PATIENCE) for header in waiting if isinstance(header, Future)} == {bearer(2)}
    assert issuer.count == 2


def test_rejection_of_an_already_replaced_token_causes_no_refresh(refresher: TokenCache) -> None:
    issuer = Issuer()
    old = use(refresher, issuer)
    assert use(refresher, issuer, rejected=old) == bearer(2)
    assert refresher.header(issuer, rejected=old) == bearer(2)
    assert refresher.header(issuer) == bearer(2)
    assert issuer.count == 2


def test_rejected_token_is_not_used_while_refreshes_fail(refresher: TokenCache) -> None:
    issuer = Issuer(lifetime=None)
    old = use(refresher, issuer)
    issuer.failure = LookupError("sealed")
    with pytest.raises(LookupError):
        use(refresher, issuer, rejected=old)
    with pytest.raises(LookupError):
        use(refresher, issuer)
    issuer.failure = None
    assert use(refresher, issuer) == bearer(4)


def test_token_rejected_during_a_refresh_waits_for_that_refresh(refresher: TokenCache, clock: Clock) -> None:
    issuer = Issuer(lifetime=1000)
    old = use(refresher, issuer)
    issuer.go.clear()
    clock.now += 950
    assert refresher.header(issuer) == old
    header = refresher.header(issuer, rejected=old)
    assert isinstance(header, Future)
    issuer.go.set()
    assert header.result(PATIENCE) == bearer(2)
    assert issuer.count == 2


# No call hangs


def outcome(refresher: TokenCache, fetch: Any) -> BaseException:
    header = refresher.header(fetch)
    assert isinstance(header, Future)
    error = header.exception(PATIENCE)
    assert error is not None
    return error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("failure", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_base_exception_of_a_provider_fails_only_the_current_call(
    refresher: TokenCache, failure: BaseException
) -> None:
    issuer = Issuer()
    issuer.failure = failure
    assert not isinstance(outcome(refresher, issuer), TimeoutError)
    issuer.failure = None
    assert use(refresher, issuer) == bearer(2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lifetime", ["3600", object()], ids=["str", "object"])
def test_non_numeric_lifetime_fails_only_the_current_call(refresher: TokenCache, lifetime: Any) -> None:
    credentials = TokenProvider(lambda: ExpiringToken(SECRET, lifetime=lifetime))
    assert not isinstance(outcome(refresher, lambda: credentials.fetch(no_exchange)), TimeoutError)
    assert use(refresher, Issuer()) == bearer(1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_fetch_without_a_token_fails_only_the_current_call(refresher: TokenCache) -> None:
    assert not isinstance(outcome(refresher, lambda: SECRET), TimeoutError)
    assert use(refresher, Issuer()) == bearer(1)


def test_failed_thread_start_fails_only_the_current_call(
    refresher: TokenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    issuer = Issuer()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        with pytest.raises(ConfigurationError, match="no thread can be started for it: can't start new thread"):
            use(refresher, issuer)
        with pytest.raises(ConfigurationError):
            use(refresher, issuer)
    header = refresher.header(issuer)
    assert isinstance(header, Future)
    assert header.result(PATIENCE) == bearer(1)


def test_failed_thread_start_fails_no_call_while_the_old_token_is_valid(
    refresher: TokenCache, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    use(refresher, Issuer())
    clock.now += 950
    monkeypatch.setattr(threading.Thread, "start", full)
    assert refresher.header(Issuer()) == bearer(1)
    assert "can't start new thread" in caplog.text


# Hanging refreshes


@pytest.fixture
def hanging(refresher: TokenCache) -> Iterator[Issuer]:
    """An issuer whose first refresh hangs until the end of the test."""
    issuer = Issuer()
    issuer.go.clear()
    yield issuer
    refreshed(refresher, issuer)


def test_hanging_refresh_is_followed_by_another_for_all_callers(
    refresher: TokenCache, clock: Clock, hanging: Issuer
) -> None:
    early = refresher.header(hanging)
    clock.now += 49
    assert refresher.header(hanging) is early
    clock.now += 2
    assert isinstance(early, Future)
    assert use(refresher, Issuer()) == early.result(PATIENCE) == bearer(1)
    assert hanging.count == 1


def test_number_of_hanging_refreshes_is_limited(refresher: TokenCache, clock: Clock, hanging: Issuer) -> None:
    headers = set()
    for _ in range(24 * 3600 // 10):
        clock.now += 10
        headers.add(refresher.header(hanging))
    assert len(headers) == 1
    assert len(refresher._threads) == 11  # refreshes of one day: after 50 s, 150 s, 350 s, ...
    refreshed(refresher, hanging)
    assert not refresher._threads
    assert use(refresher, hanging) in {bearer(number) for number in range(1, 12)}


def test_late_failure_of_a_hanging_refresh_has_no_effect(refresher: TokenCache, clock: Clock, hanging: Issuer) -> None:
    early = refresher.header(hanging)
    clock.now += 60
    assert use(refresher, Issuer(lifetime=None)) == bearer(1)
    hanging.failure = LookupError("sealed")
    refreshed(refresher, hanging)
    assert refresher.header(hanging) == bearer(1)
    assert isinstance(early, Future)
    assert early.result(0) == bearer(1)


def test_late_token_of_a_hanging_refresh_does_not_replace_a_newer_one(
    refresher: TokenCache, clock: Clock, hanging: Issuer
) -> None:
    refresher.header(hanging)
    clock.now += 60
    newer = Issuer()
    newer.count = 7
    assert use(refresher, newer) == bearer(8)
    refreshed(refresher, hanging)
    assert refresher.header(hanging) == bearer(8)


def test_late_token_of_a_hanging_refresh_is_used_if_there_is_no_other(
    refresher: TokenCache, clock: Clock, hanging: Issuer
) -> None:
    refresher.header(hanging)
    clock.now += 60
    failing = Issuer()
    failing.failure = LookupError("sealed")
    with pytest.raises(LookupError):
        use(refresher, failing)
    others = Issuer()
    others.go.clear()
    waiting = refresher.header(others)
    assert isinstance(waiting, Future)
    hanging.go.set()
    assert waiting.result(PATIENCE) == bearer(1)
    refreshed(refresher, others)


def test_calls_end_at_their_deadline_while_a_refresh_hangs(factory: ClientFactory, emulator: Emulator) -> None:
    go, begun = threading.Event(), []

    def provider() -> str:
        begun.append(True)
        assert len(begun) > 1 or go.wait(PATIENCE)
        return SECRET

    clock = Clock()
    credentials = TokenProvider(provider)
    credentials.token_cache = TokenCache(clock)
    client = factory.client(emulator, credentials=credentials)
    for _ in range(2):
        with pytest.raises(DeadlineExceededError):
            client.complete("a", timeout=0.1)
    assert begun == [True]
    clock.now += 60
    assert client.complete("a").text
    go.set()


# Reentrancy: signal handlers and finalizers


@pytest.mark.parametrize("hangs", [False, True])
def test_reentrant_call_at_any_line_works(clock: Clock, hangs: bool) -> None:
    refresher, inner, count = TokenCache(clock, lambda: 0.0), Issuer(), 0

    def call() -> None:
        nonlocal count
        for skipped in range(200):
            issuer = Issuer(lifetime=10.0)
            if hangs:
                issuer.go.clear()
                refresher.header(issuer)
            clock.now += 1e6
            left = [skipped]

            def at_line(frame: FrameType, event: str, argument: object, left: list[int] = left) -> Any:
                nonlocal count
                if frame.f_code.co_filename != tokens.__file__:
                    return None
                if event == "line":
                    left[0] -= 1
                    if left[0] == -1:
                        count += 1
                        use(refresher, inner, rejected=f"Bearer {SECRET}-0")
                return at_line

            sys.settrace(at_line)
            try:
                use(refresher, inner)
            finally:
                sys.settrace(None)
            issuer.go.set()
            if left[0] >= 0:
                return

    outer = threading.Thread(target=call, daemon=True)
    outer.start()
    outer.join(PATIENCE)
    assert not outer.is_alive(), "it hangs"
    assert count > 10


def test_keyboard_interrupt_at_any_line_leaves_no_pending_refresh(refresher: TokenCache, clock: Clock) -> None:
    interrupts = 0
    for skipped in range(100):
        clock.now += 1e6
        left = [skipped]

        def at_line(frame: FrameType, event: str, argument: object, left: list[int] = left) -> Any:
            if frame.f_code.co_filename != tokens.__file__ or frame.f_code.co_name not in ("header", "_start"):
                return None
            if event == "line":
                left[0] -= 1
                if left[0] == -1:
                    raise KeyboardInterrupt
            return at_line

        sys.settrace(at_line)
        try:
            use(refresher, Issuer())
        except KeyboardInterrupt:
            interrupts += 1
        finally:
            sys.settrace(None)
        assert use(refresher, Issuer()) == bearer(1)
        if left[0] >= 0:
            break
    assert interrupts > 10


def no_exchange(**_: str) -> ExpiringToken:
    raise AssertionError("there is nothing to exchange")


# Forks


def test_forked_child_does_not_wait_for_the_refresh_of_the_parent(refresher: TokenCache) -> None:
    parents, childs = Issuer(), Issuer()
    parents.go.clear()
    waiting = refresher.header(parents)
    assert isinstance(waiting, Future)
    assert parents.asked.acquire(timeout=PATIENCE)
    refresher.after_fork()
    assert use(refresher, childs) == bearer(1)
    parents.go.set()
    assert waiting.result(PATIENCE) == bearer(1)


def test_forked_child_uses_the_token_of_the_parent(refresher: TokenCache) -> None:
    issuer = Issuer()
    use(refresher, issuer)
    refresher.after_fork()
    assert refresher.header(issuer) == bearer(1)
    assert issuer.count == 1
