"""Deadlines, attempts, retries and their delays, max_concurrency, and the log."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from driver import (
    FOREVER,
    OVERLOOKS_RESETS,
    PATIENCE,
    Background,
    ClientFactory,
    calls_of,
    deadline_of,
    in_threads,
    partial_of,
    run_loop,
    stall_after,
    until,
)

import yandexgpt
from yandexgpt import Retry
from yandexgpt.credentials import IamToken, TokenProvider
from yandexgpt.emulator import Emulator, ErrorCode, Fault, FaultProxy

SLOW = Retry(initial=FOREVER, maximum=FOREVER, jitter=0)
"""A backoff longer than any test."""


@pytest.fixture
def proxy(emulator: Emulator) -> Iterator[FaultProxy]:
    with FaultProxy(upstream=emulator.endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxied_client(factory: ClientFactory, emulator: Emulator, proxy: FaultProxy) -> Any:
    """A client that is connected to the emulator through the proxy.

    It has enough attempts to outlast gRPC's reconnection backoff, during which attempts fail with the same error.
    """
    retry = Retry(attempts=1000, initial=0.02, maximum=0.02, jitter=0, budget=None)
    attempt_timeout = 5.0 if OVERLOOKS_RESETS else None
    return factory.client(emulator, endpoint=proxy.endpoint, retry=retry, attempt_timeout=attempt_timeout)


def took(started: float) -> float:
    return time.monotonic() - started


def complete_before_the_fault(client: Any, proxy: FaultProxy, prompt: str) -> yandexgpt.Completion:
    """The answer of a call. The fault is played after its only message was read."""
    call = Background(client.complete, prompt)
    until(lambda: [each for each in list(calls_of(client)) if each.first_message_at])
    until(proxy.play)
    completion: yandexgpt.Completion = call.result()
    return completion


# Deadlines


def test_deadline_is_sent_to_the_server(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, timeout=2000.0)
    client.complete("Привет")
    client.complete("Привет", timeout=500.0)
    client.complete("Привет", timeout=None)
    client.stream("Привет", timeout=700).finish()
    factory.client(emulator, timeout=None).complete("Привет")
    given, shorter, none, streamed, never = emulator.requests
    assert 1900 < deadline_of(given) < 2030
    assert 400 < deadline_of(shorter) < 510
    assert none.deadline is None
    assert 600 < deadline_of(streamed) < 710
    assert never.deadline is None


def test_slow_call_ends_at_its_deadline(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 0, times=2)
    started = time.monotonic()
    calls = [
        Background(client.complete, "Привет", timeout=2.0),
        Background(lambda: client.stream("Привет", timeout=2.0).finish()),
    ]
    for call in calls:
        error: Any = call.error()
        assert 1.99 <= took(started) < PATIENCE
        assert type(error) is yandexgpt.DeadlineExceededError
        assert isinstance(error, TimeoutError)
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.attempts == 1
        assert error.elapsed >= 1.99
        assert error.partial is None
        assert "pass a longer timeout" in str(error)
        sent = {str(each.metadata["x-client-request-id"]): each for each in emulator.requests}
        assert sent[str(error.request_id)].wait() == "CANCELLED"
    assert len(emulator.requests) == 2


def test_deadline_error_during_a_stream_has_the_partial_answer(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 2)
    with client.stream("Привет", timeout=2.0) as stream:
        assert [next(stream).text, next(stream).text] == ["раз", "раз два"]
        with pytest.raises(yandexgpt.DeadlineExceededError) as caught:
            next(stream)
    error = caught.value
    assert partial_of(error).text == stream.partial.text == "раз два"
    assert partial_of(error).status is yandexgpt.Status.PARTIAL
    assert partial_of(error).request_id == error.request_id == stream.request_id
    assert error.elapsed >= 1.99
    assert error.attempts == len(emulator.requests) == 1


def test_slow_response_bytes_end_at_the_deadline(client: Any, emulator: Emulator) -> None:
    emulator.reply("слово " * 100, partials=["слово " * number for number in range(1, 100)], delay=0.05)
    started = time.monotonic()
    stream = client.stream("Привет", timeout=2.0)
    seen: list[str] = []
    with pytest.raises(yandexgpt.DeadlineExceededError) as caught:
        seen.extend(chunk.text for chunk in stream)
    assert 1.99 <= took(started) < PATIENCE
    assert partial_of(caught.value).text == seen[-1]
    assert emulator.requests[0].wait() == "CANCELLED"


def test_partial_of_a_broken_stream_has_no_incomplete_character(client: Any, emulator: Emulator) -> None:
    emulator.reply("Озеро 🌊", partials=["Озеро", "Озеро \ufffd"])
    emulator.fail("UNAVAILABLE", after=2)
    stream = client.stream("Привет")
    with pytest.raises(yandexgpt.UnavailableError) as caught:
        stream.finish()
    assert partial_of(caught.value).text == stream.partial.text == "Озеро "


def test_deadline_of_a_stream_starts_at_its_creation(client: Any, emulator: Emulator) -> None:
    stream = client.stream("Привет", timeout=0.2)
    until_passed = time.monotonic() + 0.25
    until(lambda: time.monotonic() > until_passed)
    with pytest.raises(yandexgpt.DeadlineExceededError) as caught:
        next(stream)
    assert caught.value.attempts == 0
    assert emulator.requests == []


def test_retries_end_at_the_deadline(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=Retry(attempts=1000, initial=0.1, maximum=0.1, jitter=0, budget=None))
    emulator.fail("UNAVAILABLE", "перегрузка", times=1000)
    started = time.monotonic()
    with pytest.raises(yandexgpt.APIError) as caught:
        client.complete("Привет", timeout=2.0)
    assert took(started) < PATIENCE
    assert isinstance(caught.value, yandexgpt.UnavailableError | yandexgpt.DeadlineExceededError)
    assert 2 < len(emulator.requests) < 22
    # An attempt that times out on its way may not arrive at the server.
    on_the_way = caught.value.attempts - len(emulator.requests)
    assert on_the_way == 0 or (on_the_way == 1 and isinstance(caught.value, yandexgpt.DeadlineExceededError))
    deadlines = [deadline_of(request) for request in emulator.requests]
    assert deadlines == sorted(deadlines, reverse=True)
    assert deadlines[0] < 2.03


def test_retry_delay_beyond_the_deadline_is_not_started(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=Retry(initial=20.0, maximum=20.0, jitter=0), timeout=15.0)
    emulator.fail("UNAVAILABLE", "перегрузка", times=2)
    for call in (client.complete, lambda prompt: client.stream(prompt).finish()):
        started = time.monotonic()
        with pytest.raises(yandexgpt.UnavailableError, match="перегрузка") as caught:
            call("Привет")
        assert took(started) < 10
        assert caught.value.attempts == 1
    assert len(emulator.requests) == 2


def test_retry_delay_of_the_server_beyond_the_deadline_raises_its_error(
    factory: ClientFactory, emulator: Emulator
) -> None:
    client = factory.client(emulator, timeout=15.0)
    emulator.fail("RESOURCE_EXHAUSTED", "квота", retry_after=20.0)
    emulator.fail("RESOURCE_EXHAUSTED", "квота", pushback=20_000)
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(yandexgpt.QuotaExceededError, match="квота") as caught:
            client.complete("Привет")
        assert took(started) < 10
        assert caught.value.attempts == 1
        assert caught.value.retry_after == 20.0


def test_deadline_covers_the_wait_for_a_token(factory: ClientFactory, emulator: Emulator) -> None:
    release = threading.Event()

    def provide() -> str:
        release.wait(PATIENCE)
        return "t1.abc"

    client = factory.client(emulator, credentials=TokenProvider(provide), timeout=0.3)
    try:
        started = time.monotonic()
        with pytest.raises(yandexgpt.DeadlineExceededError, match="token") as caught:
            client.complete("Привет")
        assert 0.29 <= took(started) < PATIENCE
        assert caught.value.attempts == 0
    finally:
        release.set()
    assert client.complete("Привет", timeout=PATIENCE).text == "Привет"
    assert len(emulator.requests) == 1


def test_deadline_covers_the_connection(factory: ClientFactory, emulator: Emulator, proxy: FaultProxy) -> None:
    proxy.inject(Fault("stall", after="connect"), times=None)
    client = factory.client(emulator, endpoint=proxy.endpoint, timeout=1.5)
    started = time.monotonic()
    with pytest.raises(yandexgpt.APIError) as caught:
        client.complete("Привет")
    assert 1.3 <= took(started) < PATIENCE
    assert isinstance(caught.value, yandexgpt.DeadlineExceededError | yandexgpt.UnavailableError)
    until(lambda: proxy.faults_played)
    assert emulator.requests == []


# attempt_timeout


def test_attempt_timeout_starts_another_attempt(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, attempt_timeout=2.0)
    stall_after(emulator, 0, times=2)
    started = time.monotonic()
    streamed = Background(lambda: client.stream("раз два").finish())
    completion = client.complete("раз два")
    assert completion.text == streamed.result().text == "раз два"
    assert len(emulator.requests) == 4
    for request_id in (completion.request_id, streamed.result().request_id):
        first, second = (each for each in emulator.requests if each.metadata["x-client-request-id"] == request_id)
        assert first.wait() == "CANCELLED"
        assert second.wait() == "OK"
        assert deadline_of(first) <= 2.03
        assert second.arrived - started >= 1.99


def test_attempt_timeout_of_all_attempts_is_a_deadline_error(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 0, times=4)
    with pytest.raises(yandexgpt.DeadlineExceededError) as caught:
        client.complete("Привет", attempt_timeout=0.6)
    assert caught.value.attempts == 4
    # An attempt that times out on its way may not arrive at the server.
    assert {request.wait() for request in emulator.requests} == {"CANCELLED"}
    assert 1 < len(emulator.requests) <= 4


def test_deadline_of_the_call_ends_the_last_attempt(client: Any, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE", pushback=300)
    stall_after(emulator, 0, times=4)
    started = time.monotonic()
    with pytest.raises(yandexgpt.DeadlineExceededError) as caught:
        client.complete("Привет", timeout=2.0, attempt_timeout=1.9)
    assert 1.99 <= took(started) < PATIENCE
    assert caught.value.attempts == 2
    assert deadline_of(emulator.requests[1]) < 1.75


def test_attempt_timeout_after_the_first_message_is_not_retried(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 1)
    stream = client.stream("Привет", attempt_timeout=2.0)
    assert next(stream).text == "раз"
    with pytest.raises(yandexgpt.DeadlineExceededError) as caught:
        next(stream)
    assert partial_of(caught.value).text == "раз"
    assert len(emulator.requests) == 1


def test_attempt_timeout_none_overrides_that_of_the_client(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, attempt_timeout=500.0, timeout=2000.0)
    client.complete("Привет")
    client.complete("Привет", attempt_timeout=None)
    client.complete("Привет", timeout=200.0)
    assert [request.deadline for request in emulator.requests] == pytest.approx([500.0, 2000.0, 200.0], rel=0.03)


# Retries


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"])
def test_transient_failure_is_retried(client: Any, emulator: Emulator, code: str) -> None:
    emulator.fail(code, times=2)
    assert client.complete("раз два").text == "раз два"
    emulator.fail(code)
    with client.stream("раз два") as stream:
        assert [chunk.text for chunk in stream] == ["раз", "раз два", "раз два"]
    assert [request.wait() for request in emulator.requests] == [code, code, "OK", code, "OK"]


ERRORS = {
    "CANCELLED": yandexgpt.CancelledError,
    "UNKNOWN": yandexgpt.APIError,
    "INVALID_ARGUMENT": yandexgpt.InvalidArgumentError,
    "DEADLINE_EXCEEDED": yandexgpt.DeadlineExceededError,
    "NOT_FOUND": yandexgpt.NotFoundError,
    "ALREADY_EXISTS": yandexgpt.APIError,
    "PERMISSION_DENIED": yandexgpt.PermissionDeniedError,
    "RESOURCE_EXHAUSTED": yandexgpt.QuotaExceededError,
    "FAILED_PRECONDITION": yandexgpt.FailedPreconditionError,
    "ABORTED": yandexgpt.APIError,
    "OUT_OF_RANGE": yandexgpt.APIError,
    "UNIMPLEMENTED": yandexgpt.UnimplementedError,
    "INTERNAL": yandexgpt.InternalServerError,
    "UNAVAILABLE": yandexgpt.UnavailableError,
    "DATA_LOSS": yandexgpt.APIError,
    "UNAUTHENTICATED": yandexgpt.AuthenticationError,
}


@pytest.mark.parametrize("code", sorted(ERRORS.keys() - {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"}))
def test_other_failure_is_raised_without_a_retry(client: Any, emulator: Emulator, code: str) -> None:
    emulator.fail(code, "так\n не пойдёт", times=2)
    for call in (client.complete, lambda prompt: client.stream(prompt).finish()):
        emulator_calls = len(emulator.requests)
        with pytest.raises(yandexgpt.APIError) as caught:
            call("Привет")
        error = caught.value
        assert type(error) is ERRORS[code]
        assert error.code.name == code
        assert error.message == "так не пойдёт"
        assert error.attempts == 1
        assert len(emulator.requests) == emulator_calls + 1


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_failure_after_the_first_message_is_not_retried(client: Any, emulator: Emulator, code: str) -> None:
    emulator.fail(code, after=1)
    shown: list[str] = []
    with pytest.raises(yandexgpt.APIError) as caught:
        shown.extend(chunk.text for chunk in client.stream("раз два"))
    assert type(caught.value) is ERRORS[code]
    assert partial_of(caught.value).text == "раз"
    assert caught.value.attempts == len(emulator.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("break", after="request", seconds=0.1 * OVERLOOKS_RESETS),
        Fault("break", after="request", fin=True),
        Fault("break", after=0, seconds=0.1 * OVERLOOKS_RESETS),
        Fault("reset", after="request", code=ErrorCode.INTERNAL_ERROR),
        Fault("reset", after="request", code=ErrorCode.REFUSED_STREAM),
        Fault("reset", after="request", code=ErrorCode.CANCEL),
        Fault("reset", after="request", code=ErrorCode.NO_ERROR),
        Fault("reset", after="request", code=ErrorCode.ENHANCE_YOUR_CALM),
        Fault("goaway", after="request", last_stream=0),
        Fault("goaway", after="request", last_stream=0, close=True, code=ErrorCode.INTERNAL_ERROR),
        Fault("goaway", after="request", close=True),
        Fault("break", after="connect"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.after}-{fault.code}-{fault.fin or fault.close}",
)
def test_connection_break_before_the_first_message_is_retried(
    proxied_client: Any, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.inject(fault)
    assert proxied_client.complete("раз два").text == "раз два"
    proxy.inject(fault)
    proxy.break_all()
    with proxied_client.stream("раз два") as stream:
        assert [chunk.text for chunk in stream] == ["раз", "раз два", "раз два"]
    assert len(proxy.faults_played) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault("break", after=1, seconds=FOREVER),
        Fault("break", after=1, seconds=FOREVER, fin=True),
        Fault("reset", after=1, seconds=FOREVER, code=ErrorCode.INTERNAL_ERROR),
        Fault("reset", after=1, seconds=FOREVER, code=ErrorCode.REFUSED_STREAM),
        Fault("goaway", after=1, seconds=FOREVER, last_stream=0, close=True),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.code}-{fault.fin or fault.close}",
)
def test_connection_break_during_a_stream_is_an_error(
    proxied_client: Any, emulator: Emulator, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.inject(fault)
    stream = proxied_client.stream("раз два")
    shown = [next(stream).text]
    until(proxy.play)
    with pytest.raises(yandexgpt.APIError) as caught:
        shown.extend(chunk.text for chunk in stream)
    assert shown == ["раз"]
    assert partial_of(caught.value).text == "раз"
    assert caught.value.attempts == len(emulator.requests) == 1
    assert proxied_client.complete("раз два").text == "раз два"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("break", after="last", seconds=FOREVER),
        Fault("break", after="last", seconds=FOREVER, fin=True),
        Fault("reset", after="last", seconds=FOREVER, code=ErrorCode.INTERNAL_ERROR),
        Fault("goaway", after="last", seconds=FOREVER, last_stream=0, close=True),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.fin or fault.close}",
)
def test_error_after_the_final_message_does_not_lose_the_answer(
    proxied_client: Any, emulator: Emulator, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.inject(fault, times=2)
    completion = complete_before_the_fault(proxied_client, proxy, "раз два")
    assert completion.text == "раз два"
    assert completion.server_request_id == emulator.requests[0].server_request_id
    with proxied_client.stream("раз два") as stream:
        assert [next(stream).text for _ in range(3)] == ["раз", "раз два", "раз два"]
        until(proxy.play)
        assert list(stream) == []
    assert stream.completion.status is yandexgpt.Status.FINAL
    assert stream.completion.request_id == emulator.requests[1].metadata["x-client-request-id"]
    assert len(emulator.requests) == len(proxy.faults_played) == 2


def test_deadline_after_the_final_message_does_not_lose_the_answer(proxied_client: Any, proxy: FaultProxy) -> None:
    proxy.inject(Fault("stall", after="last"))
    with proxied_client.stream("раз два", timeout=2.0) as stream:
        assert stream.finish().text == "раз два"
    assert proxy.faults_played


def test_refused_connections_are_retried(factory: ClientFactory, emulator: Emulator, proxy: FaultProxy) -> None:
    client = factory.client(
        emulator, endpoint=proxy.endpoint, retry=Retry(attempts=1000, initial=0.05, maximum=0.05, budget=None)
    )
    proxy.inject(Fault("refuse", seconds=0.3))
    assert client.complete("Привет").text == "Привет"
    assert len(emulator.requests) == 1


def test_retried_codes_can_be_configured(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=Retry(initial=0.01, codes=frozenset({"NOT_FOUND"})))
    emulator.fail("NOT_FOUND")
    assert client.complete("Привет").text == "Привет"
    emulator.fail("UNAVAILABLE")
    with pytest.raises(yandexgpt.UnavailableError):
        client.complete("Привет")
    assert len(emulator.requests) == 3


def test_retry_none_makes_one_attempt(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=Retry.none())
    emulator.fail("UNAVAILABLE")
    with pytest.raises(yandexgpt.UnavailableError) as caught:
        client.complete("Привет")
    assert caught.value.attempts == len(emulator.requests) == 1
    assert client.complete("Привет").text == "Привет"


def test_retries_of_grpc_are_disabled(factory: ClientFactory, emulator: Emulator) -> None:
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.01s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    client = factory.client(
        emulator, channel_options=[("grpc.service_config", config)], retry=Retry(attempts=2, initial=0.01)
    )
    emulator.fail("UNAVAILABLE", times=10)
    with pytest.raises(yandexgpt.UnavailableError) as caught:
        client.complete("Привет")
    assert caught.value.attempts == len(emulator.requests) == 2


# Attempts in metadata and errors


def test_attempts_share_a_request_id_and_are_numbered(client: Any, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE", times=2)
    completion = client.complete("Привет")
    assert [request.metadata.get_all("x-client-attempt") for request in emulator.requests] == [("1",), ("2",), ("3",)]
    assert [request.metadata.get_all("x-client-request-id") for request in emulator.requests] == [
        (completion.request_id,)
    ] * 3
    assert completion.server_request_id == emulator.requests[2].server_request_id


def test_error_is_the_last_one_and_has_the_number_of_attempts(client: Any, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE", "первая")
    emulator.fail("RESOURCE_EXHAUSTED", "вторая")
    emulator.fail("ABORTED", "третья")
    emulator.fail("UNAVAILABLE", "четвёртая")
    with pytest.raises(yandexgpt.UnavailableError, match="четвёртая") as caught:
        client.complete("Привет")
    error = caught.value
    assert error.attempts == 4
    assert "4 attempts" in str(error)
    assert {request.metadata["x-client-request-id"] for request in emulator.requests} == {error.request_id}
    assert error.server_request_id == emulator.requests[3].server_request_id
    assert [type(detail).__name__ for detail in error.details] == ["RequestInfo"]


# Delays between attempts


def test_backoff_grows_up_to_its_maximum(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=Retry(initial=0.05, multiplier=3.0, maximum=0.2, jitter=0, attempts=5))
    emulator.fail("UNAVAILABLE", times=4)
    client.complete("Привет")
    arrived = [request.arrived for request in emulator.requests]
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrived)]
    assert gaps[0] >= 0.05
    assert gaps[1] >= 0.15
    assert gaps[2] >= 0.2
    assert gaps[3] >= 0.2


@pytest.mark.parametrize("words", [{"retry_after": 0.3}, {"pushback": 300}])
def test_retry_delay_of_the_server_is_used(client: Any, emulator: Emulator, words: dict[str, Any]) -> None:
    emulator.fail("RESOURCE_EXHAUSTED", **words)
    assert client.complete("Привет").text == "Привет"
    first, second = emulator.requests
    assert second.arrived - first.arrived >= 0.3


@pytest.mark.parametrize("words", [{"retry_after": 0.01}, {"pushback": 10}, {"pushback": 0, "retry_after": FOREVER}])
def test_retry_delay_of_the_server_replaces_a_longer_backoff(
    factory: ClientFactory, emulator: Emulator, words: dict[str, Any]
) -> None:
    client = factory.client(emulator, retry=SLOW)
    emulator.fail("UNAVAILABLE", **words)
    assert client.complete("Привет").text == "Привет"
    assert len(emulator.requests) == 2


def test_negative_pushback_ends_the_retries(client: Any, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE", pushback=-1, retry_after=0.01)
    with pytest.raises(yandexgpt.UnavailableError) as caught:
        client.complete("Привет")
    assert caught.value.attempts == len(emulator.requests) == 1


def test_retry_delay_of_the_server_does_not_make_an_error_transient(client: Any, emulator: Emulator) -> None:
    emulator.fail("INVALID_ARGUMENT", pushback=1, retry_after=0.01)
    with pytest.raises(yandexgpt.InvalidArgumentError) as caught:
        client.complete("Привет")
    assert caught.value.attempts == len(emulator.requests) == 1
    assert caught.value.retry_after == 0.01


# Rejected tokens


def test_rejected_token_is_refreshed_once(factory: ClientFactory) -> None:
    tokens = iter(["t1.stale", "t1.good"])
    with Emulator(authorization="Bearer t1.good") as emulator:
        client = factory.client(emulator, credentials=TokenProvider(lambda: next(tokens)), retry=Retry.none())
        completion = client.complete("Привет")
        assert completion.text == "Привет"
        assert client.complete("Привет").text == "Привет"
        stale, good, later = emulator.requests
        assert stale.metadata["authorization"] == "Bearer t1.stale"
        assert good.metadata["authorization"] == later.metadata["authorization"] == "Bearer t1.good"
        assert [request.metadata["x-client-attempt"] for request in emulator.requests] == ["1", "2", "1"]
        assert stale.metadata["x-client-request-id"] == good.metadata["x-client-request-id"] == completion.request_id


def test_token_rejected_again_is_not_refreshed_twice(factory: ClientFactory) -> None:
    numbers = itertools.count(1)
    with Emulator(authorization="Bearer t1.good") as emulator:
        client = factory.client(emulator, credentials=TokenProvider(lambda: f"t1.stale-{next(numbers)}"))
        for call in (client.complete, lambda prompt: client.stream(prompt).finish()):
            with pytest.raises(yandexgpt.AuthenticationError) as caught:
                call("Привет")
            assert caught.value.attempts == 2
        assert len(emulator.requests) == 4
        assert next(numbers) <= 5
        assert "stale" not in str(caught.value)


def test_concurrent_calls_with_a_rejected_token_refresh_it_once(factory: ClientFactory) -> None:
    fetched: list[None] = []

    def provide() -> str:
        fetched.append(None)
        return "t1.stale" if len(fetched) == 1 else "t1.good"

    with Emulator(authorization="Bearer t1.good") as emulator:
        client = factory.client(emulator, credentials=TokenProvider(provide))
        answers = in_threads(8, lambda number: client.complete(f"вызов {number}").text)
        assert answers == [f"вызов {number}" for number in range(8)]
        assert len(fetched) == 2


def test_rejected_fixed_token_is_not_retried(factory: ClientFactory) -> None:
    with Emulator(authorization="Bearer t1.good") as emulator:
        client = factory.client(emulator, credentials=IamToken("t1.stale"))
        with pytest.raises(yandexgpt.AuthenticationError) as caught:
            client.complete("Привет")
        assert caught.value.attempts == len(emulator.requests) == 1


def test_token_rejected_during_a_stream_is_an_error(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, credentials=TokenProvider(lambda: "t1.good"))
    emulator.fail("UNAUTHENTICATED", after=1)
    with pytest.raises(yandexgpt.AuthenticationError) as caught:
        client.stream("раз два").finish()
    assert partial_of(caught.value).text == "раз"
    assert len(emulator.requests) == 1


def test_failed_token_provider_is_an_authentication_error(factory: ClientFactory, emulator: Emulator) -> None:
    def provide() -> str:
        raise LookupError("нет токена в хранилище")

    client = factory.client(emulator, credentials=TokenProvider(provide))
    with pytest.raises(yandexgpt.AuthenticationError, match="нет токена в хранилище") as caught:
        client.complete("Привет")
    assert isinstance(caught.value.__cause__, LookupError)
    assert emulator.requests == []


# The retry budget


def test_retry_budget_limits_retries_during_an_outage(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=Retry(initial=0.001, maximum=0.001, attempts=4, budget=10))
    emulator.fail("UNAVAILABLE", times=1000)
    for _ in range(30):
        with pytest.raises(yandexgpt.UnavailableError):
            client.complete("Привет")
    retries = len(emulator.requests) - 30
    assert 0 < retries < 10


def test_successes_refill_the_retry_budget(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=Retry(initial=0.001, attempts=4, budget=4, budget_ratio=1.0))
    emulator.fail("UNAVAILABLE", times=10)
    for _ in range(3):
        with pytest.raises(yandexgpt.UnavailableError):
            client.complete("Привет")
    emulator.clear()
    emulator.fail("UNAVAILABLE")
    with pytest.raises(yandexgpt.UnavailableError) as caught:
        client.complete("Привет")
    assert caught.value.attempts == 1
    for _ in range(6):
        client.complete("Привет")
    emulator.fail("UNAVAILABLE")
    assert client.complete("Привет").text == "Привет"


def test_derived_clients_share_the_retry_budget(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=Retry(initial=0.001, attempts=4, budget=4))
    other = client.with_options(model="yandexgpt")
    emulator.fail("UNAVAILABLE", times=10)
    with pytest.raises(yandexgpt.UnavailableError):
        client.complete("Привет")
    with pytest.raises(yandexgpt.UnavailableError) as caught:
        other.complete("Привет")
    assert caught.value.attempts == 1


def test_client_errors_do_not_use_the_retry_budget(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=Retry(initial=0.001, attempts=4, budget=4))
    emulator.fail("INVALID_ARGUMENT", times=10)
    for _ in range(10):
        with pytest.raises(yandexgpt.InvalidArgumentError):
            client.complete("Привет")
    emulator.fail("UNAVAILABLE")
    assert client.complete("Привет").text == "Привет"


# max_concurrency


def test_max_concurrency_limits_calls_in_flight(factory: ClientFactory) -> None:
    with Emulator(max_concurrent=3, delay=0.02) as emulator:
        client = factory.client(emulator, max_concurrency=3, retry=Retry.none())

        def call(number: int) -> str:
            prompt = f"вызов {number}"
            return str((client.complete(prompt) if number % 2 else client.stream(prompt).finish()).text)

        assert in_threads(24, call) == [f"вызов {number}" for number in range(24)]
        assert emulator.peak_in_flight == 3
        assert len(emulator.requests) == 24


def test_queued_calls_are_sent_in_order(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, max_concurrency=1)
    stall_after(emulator, 1)
    with client.stream("первый") as stream:
        next(stream)
        calls = [Background(client.complete, f"вызов {number}").until_blocked() for number in range(8)]
        assert len(emulator.requests) == 1
    assert [call.result().text for call in calls] == [f"вызов {number}" for number in range(8)]
    assert [request.message.messages[0].text for request in emulator.requests[1:]] == [
        f"вызов {number}" for number in range(8)
    ]


def test_deadline_covers_the_wait_in_the_queue(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, max_concurrency=1)
    stall_after(emulator, 1)
    with client.stream("первый") as stream:
        next(stream)
        for call in (client.complete, lambda prompt, **options: client.stream(prompt, **options).finish()):
            started = time.monotonic()
            with pytest.raises(yandexgpt.DeadlineExceededError, match="max_concurrency=1") as caught:
                call("второй", timeout=0.2)
            assert 0.19 <= took(started) < PATIENCE
            assert caught.value.attempts == 0
            assert caught.value.request_id
    assert client.complete("третий").text == "третий"
    assert [request.message.messages[0].text for request in emulator.requests] == ["первый", "третий"]


def test_wait_in_the_queue_shortens_the_deadline_of_the_attempt(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, max_concurrency=1)
    stall_after(emulator, 1)
    stream = client.stream("первый")
    next(stream)
    call = Background(client.complete, "второй", timeout=20.0).until_blocked()
    until(lambda: len(calls_of(client)) == 2)
    released = time.monotonic() + 0.2
    until(lambda: time.monotonic() > released)
    stream.close()
    call.result()
    assert deadline_of(emulator.requests[1]) < 20.0 - 0.15 + 0.2  # gRPC rounds deadlines up, by less than 1 %


def test_closed_stream_leaves_the_queue(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, max_concurrency=1)
    stall_after(emulator, 1)
    with client.stream("первый") as stream:
        next(stream)
        queued = client.stream("второй")
        second = Background(next, queued).until_blocked()
        third = Background(client.complete, "третий").until_blocked()
        queued.close()
        assert type(second.error()) is yandexgpt.CancelledError
    assert third.result().text == "третий"
    assert [request.message.messages[0].text for request in emulator.requests] == ["первый", "третий"]


def test_cancelled_task_leaves_the_queue(emulator: Emulator) -> None:
    async def main() -> list[str]:
        async with emulator.async_client(max_concurrency=1) as client:
            stall_after(emulator, 1)
            async with client.stream("первый") as stream:
                await anext(stream)
                tasks = [asyncio.create_task(client.complete(f"вызов {number}")) for number in range(6)]
                await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                results = asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.wait(tasks[::2])
            return [getattr(result, "text", type(result).__name__) for result in await results]

    assert run_loop(main) == [
        "CancelledError",
        "вызов 1",
        "CancelledError",
        "вызов 3",
        "CancelledError",
        "вызов 5",
    ]
    assert len(emulator.requests) == 4


def test_task_cancelled_when_it_gets_a_slot_releases_it(emulator: Emulator) -> None:
    async def main() -> str:
        async with emulator.async_client(max_concurrency=1) as client:
            stall_after(emulator, 1)
            stream = client.stream("первый")
            await anext(stream)
            second = asyncio.create_task(client.complete("второй"))
            third = asyncio.create_task(client.complete("третий"))
            await asyncio.sleep(0)
            await stream.close()
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            return (await asyncio.wait_for(third, PATIENCE)).text

    assert run_loop(main) == "третий"


@pytest.mark.parametrize("end", ["close", "drop", "error", "finish", "timeout"])
def test_every_end_of_a_call_releases_its_slot(factory: ClientFactory, emulator: Emulator, end: str) -> None:
    client = factory.client(emulator, max_concurrency=1)
    if end == "error":
        emulator.fail("INTERNAL", after=1)
    elif end != "finish":
        stall_after(emulator, 1)
    stream = client.stream("раз два", timeout=2.0 if end == "timeout" else 60.0)
    next(stream)
    waiting = Background(client.complete, "третий").until_blocked()
    if end == "close":
        stream.close()
    elif end == "drop":
        del stream
    elif end == "finish":
        stream.finish()
    else:
        with pytest.raises(yandexgpt.APIError):
            next(stream)
    assert waiting.result().text == "третий"


def test_call_keeps_its_slot_between_attempts(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, max_concurrency=1)
    emulator.fail("UNAVAILABLE", retry_after=0.2)
    first = Background(client.complete, "первый")
    emulator.wait_for_requests(1)
    assert client.complete("второй").text == "второй"
    assert first.result().text == "первый"
    order = [request.message.messages[0].text for request in emulator.requests]
    assert order == ["первый", "первый", "второй"]


def test_derived_clients_share_max_concurrency(factory: ClientFactory) -> None:
    with Emulator(max_concurrent=2, delay=0.02) as emulator:
        client = factory.client(emulator, max_concurrency=2, retry=Retry.none())
        clients = [client, client.with_options(model="yandexgpt"), client.with_options(timeout=30.0)]
        in_threads(12, lambda number: clients[number % 3].complete(f"вызов {number}"))
        assert emulator.peak_in_flight == 2


# The log


PROMPT, ANSWER, SYSTEM, KEY = "тайный вопрос", "тайный ответ", "тайное указание", "secret-key"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """A function that returns the (level, text) pairs logged by the package since its previous call."""
    caplog.set_level(logging.DEBUG, logger="yandexgpt")

    def lines() -> list[tuple[str, str]]:
        found = [
            (record.levelname, record.getMessage()) for record in caplog.records if record.name.startswith("yandexgpt")
        ]
        assert not any(record.exc_info for record in caplog.records if record.name.startswith("yandexgpt"))
        caplog.clear()
        return found

    return lines


def test_success_is_logged_in_one_line(client: Any, emulator: Emulator, logged: Any) -> None:
    completion = client.complete("раз два три", model="yandexgpt/rc")
    with client.stream("раз два три", model="yandexgpt/rc") as stream:
        stream.finish()
    first, second = logged()
    for (level, line), answer in ((first, completion), (second, stream.completion)):
        assert level == "DEBUG"
        assert "\n" not in line
        for fact in (
            "gpt://emulator/yandexgpt/rc",
            "attempts=1",
            "elapsed=",
            "first_message=",
            "tokens=3+3",
            answer.request_id,
            answer.server_request_id,
        ):
            assert fact in line


def test_each_retry_is_logged_in_one_line(client: Any, emulator: Emulator, logged: Any) -> None:
    emulator.fail("UNAVAILABLE", "перегрузка", times=2)
    completion = client.complete("Привет")
    lines = logged()
    assert [level for level, _ in lines] == ["INFO", "INFO", "DEBUG"]
    for number, (_, line) in enumerate(lines[:2], 1):
        assert f"attempt {number} failed" in line
        assert "UNAVAILABLE" in line
        assert "перегрузка" in line
        assert completion.request_id in line
    assert "attempts=3" in lines[2][1]


def test_failure_is_logged_in_one_line(client: Any, emulator: Emulator, logged: Any) -> None:
    emulator.fail("NOT_FOUND", "нет такого")
    with pytest.raises(yandexgpt.NotFoundError) as caught:
        client.complete("Привет")
    emulator.fail("INTERNAL", after=1)
    with pytest.raises(yandexgpt.InternalServerError):
        client.stream("раз два").finish()
    (level, line), (second_level, second) = logged()
    assert (level, second_level) == ("WARNING", "WARNING")
    for fact in ("gpt://emulator/yandexgpt-lite", "1 attempt in ", "NOT_FOUND", "нет такого"):
        assert fact in line
    assert caught.value.request_id in line
    assert caught.value.server_request_id in line
    assert "first_message=" in second


def test_deadline_and_close_are_logged_as_warnings(factory: ClientFactory, emulator: Emulator, logged: Any) -> None:
    client = factory.client(emulator, max_concurrency=1)
    stall_after(emulator, 1)
    stream = client.stream("первый")
    next(stream)
    with pytest.raises(yandexgpt.DeadlineExceededError):
        client.complete("Привет", timeout=0.1)
    assert [level for level, _ in logged()] == ["WARNING"]
    reader = Background(next, stream)
    client.close()
    assert type(reader.error()) is yandexgpt.CancelledError
    assert [level for level, _ in logged()] == ["WARNING"]


def test_answer_before_a_connection_break_is_logged_as_a_success(
    proxied_client: Any, proxy: FaultProxy, logged: Any
) -> None:
    proxy.inject(Fault("break", after="last", seconds=FOREVER))
    complete_before_the_fault(proxied_client, proxy, "раз два три")
    lines = logged()
    assert "WARNING" not in [level for level, _ in lines]
    assert any(level == "DEBUG" and "tokens=3+3" in line for level, line in lines)


def test_log_contains_no_prompt_answer_or_secret(factory: ClientFactory, emulator: Emulator, logged: Any) -> None:
    client = factory.client(emulator, credentials=KEY, metadata=[("x-password", "hunter2")])
    emulator.fail("UNAVAILABLE", times=2)
    for fails in (None, "NOT_FOUND", "UNAUTHENTICATED", "DEADLINE_EXCEEDED"):
        emulator.reply(ANSWER, partials=[ANSWER[:9]], times=3)
        for call in (client.complete, lambda prompt, **options: client.stream(prompt, **options).finish()):
            if fails:
                emulator.fail(fails, after=1)
                with pytest.raises(yandexgpt.APIError) as caught:
                    call(PROMPT, system=SYSTEM)
                for secret in (PROMPT, SYSTEM, KEY, "hunter2"):
                    assert secret not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
            else:
                assert call(PROMPT, system=SYSTEM).text == ANSWER
    text = " ".join(line for _, line in logged())
    for secret in (PROMPT, ANSWER, ANSWER[:9], SYSTEM, KEY, "hunter2"):
        assert secret not in text


def test_rejected_token_is_not_logged(factory: ClientFactory, logged: Any) -> None:
    tokens = iter(["t1.stale", "t1.good", "t1.good"])
    with Emulator(authorization="Bearer t1.good") as emulator:
        client = factory.client(emulator, credentials=TokenProvider(lambda: next(tokens)))
        client.complete("Привет")
        lines = logged()
        assert [level for level, _ in lines] == ["INFO", "DEBUG"]
        assert "UNAUTHENTICATED" in lines[0][1]
        assert "t1." not in " ".join(line for _, line in lines)


def test_successful_call_logs_no_warning(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="yandexgpt")
    client.complete("Привет")
    assert [record for record in caplog.records if record.name.startswith("yandexgpt")] == []


@pytest.fixture(autouse=True)
def _check_no_call_is_left(emulator: Emulator) -> Iterator[None]:
    yield
    until(lambda: emulator.in_flight == 0)


def test_call_ended_by_its_caller_is_logged_in_one_line(
    factory: ClientFactory, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="yandexgpt")
    emulator.reply("раз два", partials=["раз"], delay=0.01, final=False)
    emulator.reply("раз два", partials=["раз"] * 1000, delay=0.05)
    client = factory.client(emulator)
    stream = client.stream("а")
    assert next(iter(stream)).text == "раз"
    stream.finish()
    with client.stream("а") as stream:
        next(iter(stream))
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert [line.partition(":")[0] for line in lines if "Completion" in line] == [
        "call succeeded",
        "call ended by its caller",
    ]
