"""One token for everybody: refreshed once, ahead of its end, and used for as long as it lives."""

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
    """Gives out tokens a1, a2, ...; can be told to fail, and to wait until it is let go."""

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
    """The header, waited for as a client would."""
    header = refresher.header(fetch, **refused)
    return header.result(PATIENCE) if isinstance(header, Future) else header


def refreshed(refresher: TokenCache, issuer: Issuer) -> None:
    """Wait until the refresh under way, which nobody waits for, has come to its end."""
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


def test_the_first_caller_waits_and_the_next_has_the_token_at_once(refresher: TokenCache) -> None:
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


def test_a_caller_who_gives_up_does_not_end_the_refresh_for_the_others(refresher: TokenCache) -> None:
    issuer = Issuer()
    issuer.go.clear()
    impatient, patient = refresher.header(issuer), refresher.header(issuer)
    assert isinstance(impatient, Future)
    assert isinstance(patient, Future)
    with pytest.raises(futures.TimeoutError):
        impatient.result(0)
    issuer.go.set()
    assert patient.result(PATIENCE) == bearer(1)
    assert issuer.count == 1


def test_a_token_is_refreshed_ahead_of_its_end_while_nobody_waits(refresher: TokenCache, clock: Clock) -> None:
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


def test_a_token_that_has_ended_is_not_used(refresher: TokenCache, clock: Clock) -> None:
    issuer = Issuer(lifetime=1000)
    use(refresher, issuer)
    clock.now += 1000
    assert isinstance(refresher.header(issuer), Future)
    assert use(refresher, issuer) == bearer(2)


@given(st.floats(1, 10 * 3600), st.floats(0, 1, exclude_max=True))
@settings(max_examples=40)
def test_clients_of_a_fleet_refresh_at_different_times_always_ahead(lifetime: float, share: float) -> None:
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
def test_a_token_is_refreshed_each_hour_however_long_it_lives(
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


def test_a_token_without_a_known_end_is_used_until_there_is_another(refresher: TokenCache, clock: Clock) -> None:
    issuer = Issuer(lifetime=None)
    use(refresher, issuer)
    issuer.failure = LookupError("sealed")
    clock.now += 30 * 86400
    assert refresher.header(issuer) == bearer(1)
    refreshed(refresher, issuer)
    assert refresher.header(issuer) == bearer(1)


# When a refresh fails


def test_while_a_refresh_fails_and_the_old_token_lives_it_is_used_and_the_failure_logged(
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


def test_a_refresh_that_failed_is_not_tried_again_by_every_caller(refresher: TokenCache, clock: Clock) -> None:
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


def test_a_refresh_is_tried_again_before_the_old_token_ends(refresher: TokenCache, clock: Clock) -> None:
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


def test_when_the_old_token_has_ended_the_error_says_why_there_is_no_other(refresher: TokenCache, clock: Clock) -> None:
    issuer = Issuer(lifetime=1000)
    use(refresher, issuer)
    issuer.failure = LookupError("the vault is sealed")
    clock.now += 1001
    with pytest.raises(LookupError, match="the vault is sealed"):
        use(refresher, issuer)
    issuer.failure = None
    assert use(refresher, issuer) == bearer(3)


def test_a_first_refresh_that_fails_is_an_error_for_all_who_wait_and_is_not_logged(
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


# When the service refuses a token


def test_a_refused_token_forces_one_refresh_for_all(refresher: TokenCache) -> None:
    issuer = Issuer()
    old = use(refresher, issuer)
    issuer.go.clear()
    waiting = [refresher.header(issuer, rejected=old) for _ in range(8)]
    assert all(isinstance(header, Future) for header in waiting)
    issuer.go.set()
    assert {header.result(PATIENCE) for header in waiting if isinstance(header, Future)} == {bearer(2)}
    assert issuer.count == 2


def test_a_token_refused_late_does_not_force_another_refresh(refresher: TokenCache) -> None:
    issuer = Issuer()
    old = use(refresher, issuer)
    assert use(refresher, issuer, rejected=old) == bearer(2)
    assert refresher.header(issuer, rejected=old) == bearer(2)
    assert refresher.header(issuer) == bearer(2)
    assert issuer.count == 2


def test_a_refused_token_is_not_used_again_while_a_refresh_fails(refresher: TokenCache) -> None:
    issuer = Issuer(lifetime=None)
    old = use(refresher, issuer)
    issuer.failure = LookupError("sealed")
    with pytest.raises(LookupError):
        use(refresher, issuer, rejected=old)
    with pytest.raises(LookupError):
        use(refresher, issuer)
    issuer.failure = None
    assert use(refresher, issuer) == bearer(4)


def test_a_token_refused_during_a_refresh_waits_for_that_one(refresher: TokenCache, clock: Clock) -> None:
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


# Nobody waits for ever


def outcome(refresher: TokenCache, fetch: Any) -> BaseException:
    header = refresher.header(fetch)
    assert isinstance(header, Future)
    error = header.exception(PATIENCE)
    assert error is not None
    return error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("failure", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_a_provider_that_raises_more_than_an_exception_fails_the_call_and_no_later_one(
    refresher: TokenCache, failure: BaseException
) -> None:
    issuer = Issuer()
    issuer.failure = failure
    assert not isinstance(outcome(refresher, issuer), TimeoutError)
    issuer.failure = None
    assert use(refresher, issuer) == bearer(2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lifetime", ["3600", object()], ids=["str", "object"])
def test_a_lifetime_that_is_no_number_fails_the_call_and_no_later_one(refresher: TokenCache, lifetime: Any) -> None:
    credentials = TokenProvider(lambda: ExpiringToken(SECRET, lifetime=lifetime))
    assert not isinstance(outcome(refresher, lambda: credentials.fetch(no_exchange)), TimeoutError)
    assert use(refresher, Issuer()) == bearer(1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_credentials_that_fetch_no_token_fail_the_call_and_no_later_one(refresher: TokenCache) -> None:
    assert not isinstance(outcome(refresher, lambda: SECRET), TimeoutError)
    assert use(refresher, Issuer()) == bearer(1)


def test_a_thread_that_cannot_be_started_fails_the_call_and_no_later_one(
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


def test_while_the_old_token_lives_a_thread_that_cannot_be_started_fails_no_call(
    refresher: TokenCache, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    use(refresher, Issuer())
    clock.now += 950
    monkeypatch.setattr(threading.Thread, "start", full)
    assert refresher.header(Issuer()) == bearer(1)
    assert "can't start new thread" in caplog.text


# A refresh that hangs


@pytest.fixture
def hung(refresher: TokenCache) -> Iterator[Issuer]:
    """Its first refresh hangs, to the end of the test."""
    issuer = Issuer()
    issuer.go.clear()
    yield issuer
    refreshed(refresher, issuer)


def test_a_refresh_that_hangs_is_followed_by_another_that_serves_all(
    refresher: TokenCache, clock: Clock, hung: Issuer
) -> None:
    early = refresher.header(hung)
    clock.now += 49
    assert refresher.header(hung) is early
    clock.now += 2
    assert isinstance(early, Future)
    assert use(refresher, Issuer()) == early.result(PATIENCE) == bearer(1)
    assert hung.count == 1


def test_refreshes_that_hang_do_not_pile_up(refresher: TokenCache, clock: Clock, hung: Issuer) -> None:
    headers = set()
    for _ in range(24 * 3600 // 10):
        clock.now += 10
        headers.add(refresher.header(hung))
    assert len(headers) == 1
    assert len(refresher._threads) == 11  # in a day: after 50 s, 150 s, 350 s, ...
    refreshed(refresher, hung)
    assert not refresher._threads
    assert use(refresher, hung) in {bearer(number) for number in range(1, 12)}


def test_a_refresh_that_fails_at_last_harms_nobody(refresher: TokenCache, clock: Clock, hung: Issuer) -> None:
    early = refresher.header(hung)
    clock.now += 60
    assert use(refresher, Issuer(lifetime=None)) == bearer(1)
    hung.failure = LookupError("sealed")
    refreshed(refresher, hung)
    assert refresher.header(hung) == bearer(1)
    assert isinstance(early, Future)
    assert early.result(0) == bearer(1)


def test_an_older_token_that_comes_late_does_not_replace_the_newer(
    refresher: TokenCache, clock: Clock, hung: Issuer
) -> None:
    refresher.header(hung)
    clock.now += 60
    newer = Issuer()
    newer.count = 7
    assert use(refresher, newer) == bearer(8)
    refreshed(refresher, hung)
    assert refresher.header(hung) == bearer(8)


def test_a_token_that_comes_late_serves_those_who_have_none(refresher: TokenCache, clock: Clock, hung: Issuer) -> None:
    refresher.header(hung)
    clock.now += 60
    failing = Issuer()
    failing.failure = LookupError("sealed")
    with pytest.raises(LookupError):
        use(refresher, failing)
    others = Issuer()
    others.go.clear()
    waiting = refresher.header(others)
    assert isinstance(waiting, Future)
    hung.go.set()
    assert waiting.result(PATIENCE) == bearer(1)
    refreshed(refresher, others)


def test_callers_keep_their_deadline_while_a_refresh_hangs(factory: ClientFactory, emulator: Emulator) -> None:
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


# Callers in the middle of another: signal handlers and finalizers


@pytest.mark.parametrize("hangs", [False, True])
def test_a_caller_may_come_at_any_line_of_another(clock: Clock, hangs: bool) -> None:
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


def test_an_interrupt_at_any_line_leaves_nothing_to_wait_for(refresher: TokenCache, clock: Clock) -> None:
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


def test_the_child_of_a_fork_does_not_wait_for_the_refresh_of_its_parent(refresher: TokenCache) -> None:
    parents, childs = Issuer(), Issuer()
    parents.go.clear()
    waiting = refresher.header(parents)
    assert isinstance(waiting, Future)
    assert parents.asked.acquire(timeout=PATIENCE)
    refresher.after_fork()
    assert use(refresher, childs) == bearer(1)
    parents.go.set()
    assert waiting.result(PATIENCE) == bearer(1)


def test_the_child_of_a_fork_goes_on_with_the_token_of_its_parent(refresher: TokenCache) -> None:
    issuer = Issuer()
    use(refresher, issuer)
    refresher.after_fork()
    assert refresher.header(issuer) == bearer(1)
    assert issuer.count == 1
