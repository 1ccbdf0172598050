"""Retries: the policy, transient errors, delays between attempts, and the retry budget."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import threading
from typing import Any

import grpc
import pytest
from driver import ClientFactory
from hypothesis import given
from hypothesis import strategies as st

from yandexgpt import APIError, Retry, UnavailableError
from yandexgpt._retry import DEFAULT_RETRY, MAX_SERVER_DELAY, RetryBudget, backoff, is_transient
from yandexgpt._rpc.failures import error_class
from yandexgpt.emulator import Emulator

Code = grpc.StatusCode


def failure(code: Code = Code.UNAVAILABLE, message: str = "", retry_after: float | None = None) -> APIError:
    return error_class(code)(message, code=code, retry_after=retry_after)


# The policy


def test_default_policy_is_the_documented_one() -> None:
    policy = Retry()
    assert policy == DEFAULT_RETRY
    assert (policy.attempts, policy.initial, policy.maximum, policy.multiplier) == (4, 0.5, 8.0, 2.0)
    assert policy.codes == {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"}
    assert Retry.none().attempts == 1


def test_policy_is_immutable_and_can_be_compared_hashed_copied_and_pickled() -> None:
    policy = Retry(attempts=2, codes=["INTERNAL"])  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.attempts = 3  # type: ignore[misc]
    for again in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy)), dataclasses.replace(policy)):
        assert again == policy
        assert hash(again) == hash(policy)
    assert policy != Retry()


@pytest.mark.parametrize(
    ("name", "values", "low", "high"),
    [
        ("attempts", [0, -1, True, "4", None, math.nan], 1, math.inf),
        ("initial", [-0.1, "1", None, False, math.nan], 0, math.inf),
        ("maximum", [-1, [8], None], 0, math.inf),
        ("multiplier", [0.99, 0, -2, None, math.nan], 1, math.inf),
        ("jitter", [-0.01, 1.01, True, None, math.nan], 0, 1),
        ("budget", [0, -5, 0.5, True, "100"], 1, math.inf),
        ("budget_ratio", [-0.1, None, "1", True], 0, math.inf),
    ],
)
def test_error_of_an_invalid_value_shows_the_range(name: str, values: list[Any], low: float, high: float) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"Retry: {name} must be a number from {low} to {high}, got") as caught:
            Retry(**{name: value})
        assert str(caught.value).endswith(repr(value))


@pytest.mark.parametrize("name", ["attempts", "budget"])
def test_attempts_and_budget_must_be_integers(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Retry(**{name: 1.5})  # type: ignore[arg-type]


def test_budget_ratio_must_be_positive() -> None:
    with pytest.raises(ValueError, match="budget_ratio"):
        Retry(budget_ratio=0)


@pytest.mark.parametrize(
    "codes", [["internal", "UNAVAILABLE"], {Code.INTERNAL, Code.UNAVAILABLE}, (Code.INTERNAL, "Unavailable")]
)
def test_codes_may_be_names_or_grpc_status_codes(codes: Any) -> None:
    assert Retry(codes=codes).codes == frozenset({"INTERNAL", "UNAVAILABLE"})


@pytest.mark.parametrize("codes", ["UNAVAILABLE", 5, {"UNAVAILBLE"}, [14], None])
def test_unknown_codes_are_rejected(codes: Any) -> None:
    with pytest.raises(ValueError, match="codes"):
        Retry(codes=codes)


# Transient errors


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_three_codes_are_retried_by_default(code: Code) -> None:
    expected = code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.ABORTED)
    assert is_transient(Retry(), failure(code, "words"), own_deadline=False) is expected
    assert is_transient(Retry(codes=frozenset()), failure(code, "words"), own_deadline=False) is False


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (Code.INTERNAL, "Received RST_STREAM with error code 2", True),
        (Code.INTERNAL, "GOAWAY received", True),
        (Code.INTERNAL, "the model broke", False),
        (Code.UNKNOWN, "Stream removed", True),
        (Code.UNKNOWN, "Exception calling application", False),
        (Code.CANCELLED, "Received RST_STREAM with error code 8", True),
        (Code.CANCELLED, "Locally cancelled by application!", False),
        (Code.UNAVAILABLE, "Socket closed", True),
        (Code.INVALID_ARGUMENT, "Received RST_STREAM", False),
        (Code.DEADLINE_EXCEEDED, "Connection reset by peer", False),
    ],
)
def test_broken_connection_is_recognized_by_the_status_message(code: Code, message: str, expected: bool) -> None:
    assert is_transient(Retry(), failure(code, message), own_deadline=False) is expected


@pytest.mark.parametrize("own", [True, False])
def test_deadline_exceeded_is_retried_only_for_the_attempt_timeout(own: bool) -> None:
    assert is_transient(Retry(), failure(Code.DEADLINE_EXCEEDED), own_deadline=own) is own


def test_message_above_the_size_limit_is_not_retried() -> None:
    error = failure(Code.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (20 vs. 4)")
    assert is_transient(Retry(), error, own_deadline=True) is False


def test_policy_may_have_other_codes() -> None:
    policy = Retry(codes=frozenset({"INTERNAL"}))
    assert is_transient(policy, failure(Code.INTERNAL), own_deadline=False)
    assert not is_transient(policy, failure(Code.UNAVAILABLE), own_deadline=False)


# Delays

finite = {"allow_nan": False, "allow_infinity": False}
policies = st.builds(
    Retry,
    attempts=st.integers(1, 1000),
    initial=st.floats(0, 1e6, **finite),  # type: ignore[arg-type]
    maximum=st.floats(0, 1e6, **finite),  # type: ignore[arg-type]
    multiplier=st.floats(1, 1e3, **finite),  # type: ignore[arg-type]
    jitter=st.floats(0, 1),
)
shares = st.floats(0, 1, exclude_max=True)


@given(policies, st.integers(1, 1000), shares)
def test_delay_is_between_zero_and_its_bound(policy: Retry, attempts: int, share: float) -> None:
    wait = backoff(policy, attempts, failure(), None, lambda: share)
    assert wait is not None
    assert 0 <= wait <= policy.maximum
    if attempts == 1:
        assert wait <= policy.initial
    if policy.jitter == 0:
        assert wait == backoff(policy, attempts, failure(), None)


@given(policies, st.integers(1, 999))
def test_bound_never_decreases(policy: Retry, attempts: int) -> None:
    def bound(attempts: int) -> float:
        wait = backoff(policy, attempts, failure(), None, lambda: 0.0)
        assert wait is not None
        return wait

    assert bound(attempts) <= bound(attempts + 1)


def test_bound_doubles_up_to_the_maximum() -> None:
    waits = [backoff(Retry(), attempts, failure(), None, lambda: 0.0) for attempts in range(1, 8)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 8.0), (0.5, 6.0), (1.0, 4.0)])
def test_jitter_is_the_random_share_of_a_delay(jitter: float, wait: float) -> None:
    assert backoff(Retry(jitter=jitter, initial=8), 1, failure(), None, lambda: 0.5) == wait


@pytest.mark.parametrize("multiplier", [1e5, 1e10, 1e300, math.inf])
@pytest.mark.parametrize("attempts", [2, 65, 10_000])
@pytest.mark.parametrize("initial", [0, 1e-9])
def test_bound_that_overflows_is_the_maximum(multiplier: float, attempts: int, initial: float) -> None:
    wait = backoff(Retry(multiplier=multiplier, initial=initial), attempts, failure(), None, lambda: 0.0)
    assert wait is not None
    assert 0 <= wait <= 8.0


# Delays requested by the server


@pytest.mark.parametrize(("pushback", "wait"), [("0", 0.0), ("250", 0.25), ("60000", 60.0)])
def test_pushback_takes_precedence(pushback: str, wait: float) -> None:
    assert backoff(Retry(), 3, failure(retry_after=7.0), pushback, lambda: 0.5) == wait


UNREADABLE: list[Any] = ["-1", "", "soon", "1.5", "+5", "--5", "²", " 5", 1500, b"1500", 1.5, object(), "9" * 5000]


@pytest.mark.parametrize("pushback", UNREADABLE, ids=lambda pushback: repr(pushback)[:9])
def test_negative_or_invalid_pushback_ends_the_retries(pushback: Any) -> None:
    assert backoff(Retry(), 1, failure(retry_after=7.0), pushback) is None


def test_negative_retry_after_causes_no_delay() -> None:
    assert backoff(Retry(), 1, failure(retry_after=-3.0), None) in (None, 0.0)


@pytest.mark.parametrize("retry_after", [0.0, 7.0, 1000.0])
def test_retry_info_takes_precedence_over_the_policy(retry_after: float) -> None:
    assert backoff(Retry(), 1, failure(retry_after=retry_after), None, remaining=1001.0) == retry_after


@pytest.mark.parametrize("asked", [MAX_SERVER_DELAY + 0.001, 3.15e11])
def test_retry_delay_of_the_server_is_limited_without_a_deadline(asked: float) -> None:
    assert backoff(Retry(), 1, failure(retry_after=asked), None) is None
    assert backoff(Retry(), 1, failure(), str(min(2**31 - 1, int(asked * 1000)))) is None
    for longest in (failure(retry_after=MAX_SERVER_DELAY), failure()):
        pushback = None if longest.retry_after else "60000"
        assert backoff(Retry(), 1, longest, pushback) == MAX_SERVER_DELAY


def test_delay_beyond_the_deadline_is_not_started() -> None:
    assert backoff(Retry(), 1, failure(retry_after=7.0), None, remaining=6.9) is None
    assert backoff(Retry(), 1, failure(), "7000", remaining=6.9) is None


def test_error_with_a_too_long_retry_delay_has_the_delay(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, timeout=None)
    emulator.fail("UNAVAILABLE", retry_after=86_400.0)
    with pytest.raises(UnavailableError) as caught:
        client.complete("a")
    assert (caught.value.retry_after, caught.value.attempts) == (86_400.0, 1)
    assert client.complete("a").text


# The retry budget


def test_budget_allows_retries_while_more_than_half_full() -> None:
    budget = RetryBudget(Retry(budget=10, budget_ratio=0.5))
    assert [budget.record_failure() for _ in range(7)] == [True, True, True, True, False, False, False]


def test_successes_refill_the_budget() -> None:
    budget = RetryBudget(Retry(budget=4, budget_ratio=0.5))
    assert [budget.record_failure() for _ in range(3)] == [True, False, False]
    for _ in range(4):
        budget.record_success()
    assert not budget.record_failure()
    for _ in range(3):
        budget.record_success()
    assert budget.record_failure()


def test_budget_does_not_exceed_its_size() -> None:
    budget = RetryBudget(Retry(budget=4, budget_ratio=1))
    for _ in range(100):
        budget.record_success()
    assert [budget.record_failure() for _ in range(2)] == [True, False]


def test_budget_does_not_fall_below_zero() -> None:
    budget = RetryBudget(Retry(budget=4, budget_ratio=1))
    for _ in range(100):
        budget.record_failure()
    for _ in range(4):
        budget.record_success()
    assert budget.record_failure()


def test_retries_are_unlimited_without_a_budget() -> None:
    budget = RetryBudget(Retry(budget=None))
    assert all(budget.record_failure() for _ in range(1000))
    budget.record_success()
    assert budget.record_failure()


@given(st.integers(1, 20), st.sampled_from([0.25, 0.5, 1.0, 3.0]), st.lists(st.booleans(), max_size=80))
def test_budget_is_the_token_bucket_of_grfc_a6(size: int, ratio: float, outcomes: list[bool]) -> None:
    budget = RetryBudget(Retry(budget=size, budget_ratio=ratio))
    tokens = float(size)
    for succeeded in outcomes:
        if succeeded:
            budget.record_success()
            tokens = min(size, tokens + ratio)
        else:
            tokens = max(0.0, tokens - 1)
            assert budget.record_failure() is (tokens > size / 2)


def test_budget_is_thread_safe() -> None:
    budget = RetryBudget(Retry(budget=8000, budget_ratio=1))
    start = threading.Barrier(4)

    def spend() -> None:
        start.wait()
        for _ in range(999):
            budget.record_failure()

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [budget.record_failure() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "PERMISSION_DENIED", "NOT_FOUND"])
def test_request_errors_do_not_use_the_budget(code: str) -> None:
    with Emulator() as emulator, emulator.client(retry=Retry(budget=10, initial=0, maximum=0)) as client:
        emulator.fail(code, times=20)
        for _ in range(20):
            with pytest.raises(APIError):
                client.complete("a")
        emulator.fail("UNAVAILABLE", times=1)
        assert client.complete("a").text
        assert len(emulator.requests) == 22
