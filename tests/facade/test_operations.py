"""Asynchronous mode: operations are submitted, waited for, cancelled, lost, and resumed by another process."""

from __future__ import annotations

import copy
import gc
import itertools
import json
import math
import pickle
import random
import signal
import time
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

import grpc
import pytest
from driver import FOREVER, OVERLOOKS_RESETS, PATIENCE, Background, ClientFactory, in_threads, output_of, program, until
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

import yandexgpt
from yandexgpt import OperationFailed, OperationTimeout, errors
from yandexgpt._concurrency.rate_limiter import POLL_INTERVAL, RateLimiter
from yandexgpt._features import polling
from yandexgpt._features.polling import INITIAL_INTERVAL, INTERVAL_GROWTH, JITTER_SHARE, MAX_INTERVAL, PollSchedule
from yandexgpt.emulator import Emulator, Fault, FaultProxy, RecordedRequest

SUBMIT = "/yandex.cloud.ai.foundation_models.v1.TextGenerationAsyncService/Completion"
GET = "/yandex.cloud.operation.OperationService/Get"
CANCEL = "/yandex.cloud.operation.OperationService/Cancel"
UNKNOWN = "d7q00000000000000000"
QUOTA = 50
"""Polls per second that the service allows."""


def methods(emulator: Emulator) -> list[str]:
    return [request.method.rpartition("/")[-1] for request in emulator.requests]


def polls(emulator: Emulator) -> list[RecordedRequest]:
    return [request for request in emulator.requests if request.method == GET]


def busiest_second(moments: Iterable[float]) -> int:
    """The maximum number of times within any second."""
    ordered = sorted(moments)
    most = first = 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] > 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def attached(client: Any, prompt: str = "раз") -> Any:
    """An operation made from an id: `wait` polls it immediately."""
    return client.operation(client.submit(prompt).id)


def only_immediate_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable all polls except an immediate one."""
    monkeypatch.setattr(polling, "INITIAL_INTERVAL", FOREVER)
    monkeypatch.setattr(polling, "MAX_INTERVAL", FOREVER)


def operations_never_end(emulator: Emulator) -> None:
    """Make all later operations run until the test completes them."""
    emulator.operations.time = FOREVER


# One operation


def test_submitted_operation_is_waited_for_and_read(client: Any, emulator: Emulator) -> None:
    operation = client.submit("раз два", system="Повтори.", temperature=0.1, max_tokens=9, request_id="mine")
    assert not operation.done
    assert operation.wait().text == "раз два"
    assert operation.done
    completion = operation.result()
    assert completion is operation.result()
    assert completion.usage.completion_tokens == 2
    assert completion.status is yandexgpt.Status.FINAL
    submission = emulator.requests[0]
    assert completion.request_id == operation.request_id == "mine" == submission.metadata["x-client-request-id"]
    assert completion.server_request_id == submission.server_request_id
    assert submission.method == SUBMIT
    assert not submission.message.completion_options.stream
    assert submission.message.completion_options.temperature.value == 0.1
    assert [message.role for message in submission.message.messages] == ["system", "user"]
    assert emulator.requests[-1].message.operation_id == operation.id
    assert methods(emulator) == ["Completion", "Get"]


def test_attributes_of_an_operation(client: Any, emulator: Emulator) -> None:
    before = datetime.now(timezone.utc)
    operation = client.submit("раз")
    assert operation.description == "Async GPT Completion"
    assert operation.created_by.startswith("aje")
    assert operation.id.startswith("d7q")
    assert len(operation.id) == 20
    assert before <= operation.created_at <= datetime.now(timezone.utc)
    assert operation.modified_at == operation.created_at
    assert operation.error is None
    assert not operation.cancelled
    assert repr(operation) == f"Operation(id={operation.id!r}, pending)"
    operation.refresh()
    assert repr(operation) == f"Operation(id={operation.id!r}, done)"
    assert operation.modified_at - operation.created_at < timedelta(seconds=10)
    assert operation.proto.HasField("response")


def test_operation_from_an_id_makes_no_request_until_refresh(client: Any, emulator: Emulator) -> None:
    submitted = client.submit("раз")
    attached = client.operation(f" {submitted.id}\n")
    assert (attached.id, attached.done, attached.created_at, attached.created_by) == (submitted.id, False, None, "")
    assert (attached.modified_at, attached.description, attached.request_id) == (None, "", None)
    assert repr(attached) == f"Operation(id={submitted.id!r}, not looked up yet)"
    assert attached == submitted
    assert len({attached, submitted}) == 1
    assert attached != submitted.id
    assert methods(emulator) == ["Completion"]
    assert attached.refresh().result().text == "раз"
    assert attached.created_by


def test_result_of_a_pending_operation_is_an_error(client: Any, emulator: Emulator) -> None:
    operations_never_end(emulator)
    operation = client.submit("раз")
    assert not operation.refresh().done
    with pytest.raises(yandexgpt.YandexGPTError, match=f"{operation.id} is not done"):
        operation.result()


def test_wait_polls_at_growing_intervals(client: Any, emulator: Emulator) -> None:
    operations_never_end(emulator)
    operation = client.submit("раз")
    waiting = Background(operation.wait, 30)
    emulator.wait_for_requests(4)
    emulator.operations.finish(operation.id)
    assert waiting.result().text == "раз"
    moments = [request.arrived for request in emulator.requests]
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    shortest = [(1 - JITTER_SHARE) * INITIAL_INTERVAL * growth for growth in (1, 1, INTERVAL_GROWTH)]
    assert all(gap > interval - 0.01 for gap, interval in zip(gaps, shortest, strict=False)), gaps


def test_wait_on_an_operation_from_an_id_polls_immediately(
    client: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_immediate_poll(monkeypatch)
    operation = client.submit("раз")
    until(lambda: operation.refresh().done)
    assert client.operation(operation.id).wait().text == "раз"


def test_completed_operation_is_not_polled_again(client: Any, emulator: Emulator) -> None:
    operation = client.submit("раз").refresh()
    assert operation.wait().text == "раз"
    assert [each.done for each in client.wait_all([operation])] == [True]
    assert methods(emulator) == ["Completion", "Get"]


def test_wait_timeout_does_not_cancel_the_operation(
    client: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations_never_end(emulator)
    operation = client.submit("раз")
    with monkeypatch.context() as patched:
        only_immediate_poll(patched)
        # There is one poll, after half of the timeout.
        patched.setattr(polling, "FINAL_POLL_BEFORE_END", FOREVER)
        started = time.monotonic()
        with pytest.raises(OperationTimeout, match=f"{operation.id} was not done within 2.78 s") as caught:
            operation.wait(timeout=2.78)
    assert 2.78 <= time.monotonic() - started < PATIENCE
    assert isinstance(caught.value, TimeoutError)
    assert operation == caught.value.operation
    assert operation in caught.value.operations
    assert caught.value.operation_ids == (operation.id,)
    assert methods(emulator) == ["Completion", "Get"]
    emulator.operations.finish(operation.id)
    assert operation.wait(timeout=5).text == "раз"


def test_hanging_poll_ends_at_the_timeout_of_the_wait(client: Any, emulator: Emulator) -> None:
    operation = client.submit("раз")
    emulator.fail("UNAVAILABLE", delay=FOREVER)
    with pytest.raises(OperationTimeout):
        client.operation(operation.id).wait(timeout=2.0)
    assert emulator.wait_for_requests(2)[1].wait() == "CANCELLED"


def test_hanging_poll_is_retried_after_the_attempt_timeout_of_the_client(
    factory: ClientFactory, emulator: Emulator
) -> None:
    client = factory.client(emulator, attempt_timeout=2.0)
    operation = client.submit("раз")
    emulator.fail("UNAVAILABLE", delay=FOREVER)
    assert client.operation(operation.id).wait(timeout=20).text == "раз"
    assert [request.metadata["x-client-attempt"] for request in polls(emulator)] == ["1", "2"]
    client = factory.client(emulator, timeout=0.2)
    emulator.fail("UNAVAILABLE", delay=FOREVER)
    assert client.operation(operation.id).wait(timeout=20).text == "раз"


def test_permanent_poll_error_is_raised_by_wait(client: Any, emulator: Emulator) -> None:
    operation = attached(client)
    emulator.fail("UNAVAILABLE", times=2)
    emulator.fail("PERMISSION_DENIED", "not yours")
    with pytest.raises(yandexgpt.PermissionDeniedError, match="not yours"):
        operation.wait()
    assert operation.wait().text == "раз"
    emulator.fail("DEADLINE_EXCEEDED", "the service's own", times=9)
    with pytest.raises(yandexgpt.DeadlineExceededError, match="the service's own"):
        client.operation(operation.id).wait()


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, True, "5"])
def test_invalid_timeout_is_rejected(client: Any, emulator: Emulator, timeout: Any) -> None:
    operation = client.submit("раз")
    with pytest.raises(ValueError, match="timeout must be"):
        operation.wait(timeout)
    with pytest.raises(ValueError, match="timeout must be"):
        client.wait_all([operation], timeout)
    with pytest.raises(ValueError, match="timeout must be"):
        operation.refresh(timeout=timeout)
    assert methods(emulator) == ["Completion"]


@pytest.mark.parametrize("operation_id", ["", " ", "d7qi6shlbvo5********", "а" * 20, "x" * 65, None, 5, b"d7q"])
def test_invalid_operation_id_is_rejected(client: Any, operation_id: Any) -> None:
    with pytest.raises(ValueError, match="operation_id must be the id of an operation"):
        client.operation(operation_id)


def test_refresh_and_cancel_end_at_their_timeout(client: Any, emulator: Emulator) -> None:
    operation = client.submit("раз")
    emulator.fail("UNAVAILABLE", delay=FOREVER)
    with pytest.raises(yandexgpt.DeadlineExceededError):
        operation.refresh(timeout=0.2)
    emulator.fail("UNAVAILABLE", delay=FOREVER)
    with pytest.raises(yandexgpt.DeadlineExceededError):
        operation.cancel(timeout=0.2)


# Failure, cancellation, loss


def test_failed_operation_has_the_decoded_error(client: Any, emulator: Emulator) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="messages", description="too long")
    emulator.fail(
        "INVALID_ARGUMENT",
        "prompt is\ntoo long",
        details=[error_details_pb2.BadRequest(field_violations=[violation])],
        operation=True,
    )
    operation = attached(client)
    with pytest.raises(
        OperationFailed, match=f"{operation.id} ended in INVALID_ARGUMENT: prompt is too long"
    ) as caught:
        operation.wait()
    error = caught.value
    assert operation == error.operation
    assert (error.code, error.message) == (grpc.StatusCode.INVALID_ARGUMENT, "prompt is too long")
    assert error.details[0].field_violations[0].description == "too long"
    assert not isinstance(error, errors.APIError)
    assert operation.done
    assert not operation.cancelled
    assert repr(operation) == f"Operation(id={operation.id!r}, failed)"
    assert isinstance(operation.error, OperationFailed)
    with pytest.raises(OperationFailed):
        operation.result()
    assert attached(client, "два").wait().text == "два"


def test_unknown_error_code_of_an_operation_is_unknown(client: Any) -> None:
    operation = client.submit("раз").refresh()
    operation.proto.error.code = 4711
    assert operation.error.code is grpc.StatusCode.UNKNOWN
    assert "no message" in str(operation.error)


def test_operation_is_cancelled(client: Any, emulator: Emulator) -> None:
    operations_never_end(emulator)
    operation = client.submit("раз")
    assert operation.cancel() is operation
    assert operation.cancelled
    assert operation.done
    assert emulator.requests[-1].method == CANCEL
    assert repr(operation) == f"Operation(id={operation.id!r}, cancelled)"
    with pytest.raises(OperationFailed, match="CANCELLED"):
        operation.wait()
    assert client.operation(operation.id).refresh().cancelled


def test_cancel_of_a_completed_operation_has_no_effect(client: Any) -> None:
    operation = client.submit("раз").cancel()
    assert operation.result().text == "раз"
    assert not operation.cancelled


def test_error_of_a_lost_operation_gives_advice(client: Any, emulator: Emulator) -> None:
    operation = client.submit("раз")
    emulator.operations.expire(operation.id)
    for ask in (operation.refresh, operation.cancel, operation.wait, operation.result, client.operation(UNKNOWN).wait):
        with pytest.raises(yandexgpt.NotFoundError, match="results are kept for three days"):
            ask()
    assert operation.done
    assert isinstance(operation.error, yandexgpt.NotFoundError)
    assert repr(operation) == f"Operation(id={operation.id!r}, lost)"
    assert not emulator.operations.ids
    emulator.fail("NOT_FOUND", "no such model")
    with pytest.raises(yandexgpt.NotFoundError) as caught:
        client.complete("раз")
    assert "three days" not in str(caught.value)


def test_emulator_deletes_operations_after_the_retention_time(client: Any, emulator: Emulator) -> None:
    operation = client.submit("раз").refresh()
    emulator.operations.kept = -1.0
    with pytest.raises(yandexgpt.NotFoundError):
        operation.refresh()
    with pytest.raises(KeyError):
        emulator.operations.finish(operation.id)


def test_result_without_a_response_is_an_error(client: Any, emulator: Emulator) -> None:
    emulator.reply("раз", partials=["р"], final=False)
    operation = client.submit("раз").refresh()
    with pytest.raises(yandexgpt.YandexGPTError, match="not of text generation: it holds nothing"):
        operation.result()


def test_older_state_does_not_replace_a_newer_one(client: Any, emulator: Emulator) -> None:
    operation = client.submit("раз").refresh()
    operations_never_end(emulator)
    operation.proto.id = client.submit("два").id
    assert operation.refresh().done


def test_operation_gets_scripted_answers_and_failures(client: Any, emulator: Emulator) -> None:
    emulator.reply(tool_calls=[{"name": "weather", "arguments": {"city": "Омск"}}], delay=0.01)
    emulator.fail("INTERNAL", "late", operation=True, delay=0.01)
    first, second = attached(client), attached(client)
    with pytest.raises(OperationFailed, match="late"):
        first.wait()
    assert second.wait().tool_calls[0].arguments == {"city": "Омск"}
    with pytest.raises(ValueError, match="not for an operation"):
        emulator.fail("INTERNAL", after=1, operation=True)


def test_scripted_failure_of_an_operation_does_not_affect_other_calls(client: Any, emulator: Emulator) -> None:
    emulator.fail("INTERNAL", "for an operation", operation=True, times=2)
    assert client.complete("раз").text == "раз"
    for _ in range(2):
        with pytest.raises(OperationFailed, match="for an operation"):
            client.submit("раз").refresh().result()
    assert client.submit("раз").refresh().result().text == "раз"


# Idempotent submission


def test_retried_submission_creates_one_operation(client: Any, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE")
    emulator.fail("UNAVAILABLE", "the operation is there, its answer is lost", after=1)
    operation = client.submit("раз")
    assert operation.refresh().result().text == "раз"
    attempts = [request for request in emulator.requests if request.method == SUBMIT]
    assert [request.wait() for request in attempts] == ["UNAVAILABLE", "UNAVAILABLE", "OK"]
    assert len({request.metadata.get_all("idempotency-key") for request in attempts}) == 1
    assert emulator.operations.ids == [operation.id]


def test_submission_on_a_broken_connection_creates_one_operation(factory: ClientFactory, emulator: Emulator) -> None:
    with FaultProxy(upstream=emulator.endpoint) as proxy:
        proxy.inject(Fault("break", after=0, seconds=0.1 * OVERLOOKS_RESETS))
        client = factory.client(emulator, endpoint=proxy.endpoint, attempt_timeout=5.0 if OVERLOOKS_RESETS else None)
        operation = client.submit("раз")
        assert client.operation(operation.id).wait().text == "раз"
        assert emulator.operations.ids == [operation.id]
        client.close()


def test_equal_random_seeds_give_different_ids_and_idempotency_keys(factory: ClientFactory, emulator: Emulator) -> None:
    for _ in range(2):
        random.seed(42)  # as workers of a data pipeline may do
        client = factory.client(emulator)
        client.submit("раз")
        client.close()
    for header in ("idempotency-key", "x-client-request-id"):
        assert len({request.metadata[header] for request in emulator.requests}) == 2
    assert len(emulator.operations.ids) == 2


def test_each_submission_has_its_own_idempotency_key(client: Any, emulator: Emulator) -> None:
    client.submit("раз")
    client.submit("раз")
    assert len({request.metadata["idempotency-key"] for request in emulator.requests}) == 2
    assert len(emulator.operations.ids) == 2
    key = (("idempotency-key", "mine"),)
    assert client.submit("раз", metadata=key) == client.submit("раз", metadata=key)
    assert emulator.requests[-1].metadata.get_all("idempotency-key") == ("mine",)
    client.complete("раз")
    assert "idempotency-key" not in emulator.requests[-1].metadata


# wait_all


def test_wait_all_yields_operations_in_order_of_completion(client: Any, emulator: Emulator) -> None:
    operations_never_end(emulator)
    slow, quick, middle = (client.submit(str(number)) for number in range(3))
    ended = client.wait_all([slow, quick, middle], timeout=30)
    for operation in (quick, middle, slow):
        emulator.operations.finish(operation.id)
        assert next(ended) == operation
    assert list(ended) == []
    assert [each.result().text for each in (slow, quick, middle)] == ["0", "1", "2"]


def test_wait_all_yields_failed_cancelled_and_lost_operations(client: Any, emulator: Emulator) -> None:
    emulator.fail("INTERNAL", operation=True)
    failed, cancelled, lost, done = (client.submit(str(number)) for number in range(4))
    operations_never_end(emulator)
    cancelled = client.submit("4")
    cancelled.cancel()
    emulator.operations.expire(lost.id)
    ended = list(client.wait_all(iter([failed, cancelled, lost, done]), 30))
    assert {each.id for each in ended} == {each.id for each in (failed, cancelled, lost, done)}
    assert ended[0] == cancelled
    assert [type(each.error).__name__ for each in (failed, cancelled, lost, done)] == [
        "OperationFailed",
        "OperationFailed",
        "NotFoundError",
        "NoneType",
    ]


def test_timeout_error_of_wait_all_has_the_pending_operations(client: Any, emulator: Emulator) -> None:
    done = client.submit("раз")
    operations_never_end(emulator)
    pending = [client.submit("два"), client.submit("три")]
    iterator = client.wait_all([done, *pending], timeout=2.5)
    assert next(iterator) == done
    with pytest.raises(OperationTimeout, match=r"2 operations were not done within 2\.5 s") as caught:
        next(iterator)
    assert caught.value.operation_ids == tuple(each.id for each in pending)
    assert list(caught.value.operations) == [getattr(each, "inner", each) for each in pending]
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert (again.operation, again.operation_ids) == (None, caught.value.operation_ids)


def test_wait_all_without_operations_yields_nothing(client: Any) -> None:
    assert list(client.wait_all([])) == []


def test_wait_all_rejects_other_objects(client: Any, factory: ClientFactory) -> None:
    with pytest.raises(TypeError, match=r"operations\[1\] must be an (Async)?Operation .*, got str"):
        client.wait_all([client.submit("раз"), "d7q"])


def test_break_out_of_wait_all_stops_polling(client: Any, emulator: Emulator) -> None:
    operations = [client.submit(str(number)) for number in range(3)]
    operations_never_end(emulator)
    operations.append(client.submit("3"))
    for _ in client.wait_all(operations):
        break
    before = len(emulator.requests)
    gc.collect()
    client.complete("раз")
    assert len(emulator.requests) == before + 1


def test_concurrent_waits_share_one_rate_limit(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator)
    other = client.with_options(timeout=30)
    ids = [client.submit(str(number)).id for number in range(50)]
    emulator.clear()
    waits = in_threads(50, lambda index: (client, other)[index % 2].operation(ids[index]).wait().text)
    assert waits == [str(number) for number in range(50)]
    moments = [request.arrived for request in emulator.requests]
    assert len(moments) == 50
    assert busiest_second(moments) <= QUOTA
    assert moments[-1] - moments[0] > 49 * POLL_INTERVAL - 0.3


def test_retried_polls_are_rate_limited(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=yandexgpt.Retry(attempts=100, initial=0.0, budget=None))
    operations = [client.operation(client.submit(str(number)).id) for number in range(30)]
    emulator.clear()
    emulator.fail("UNAVAILABLE", times=20)
    assert len(list(client.wait_all(operations, 30))) == 30
    moments = [request.arrived for request in polls(emulator)]
    assert len(moments) == 50
    assert busiest_second(moments) <= 45


def test_queued_poll_ends_at_its_deadline(client: Any, emulator: Emulator) -> None:
    operation = client.submit("раз")
    emulator.fail("UNAVAILABLE", delay=FOREVER, times=8)
    other = client.with_options(timeout=FOREVER)
    hanging = [Background(other.operation(operation.id).refresh) for _ in range(8)]
    emulator.wait_for_requests(9)
    with pytest.raises(yandexgpt.DeadlineExceededError, match="in line, behind 8 other look-ups of operations"):
        operation.refresh(timeout=0.2)
    assert client.complete("раз").text == "раз"
    other.close()
    assert all(isinstance(each.error(), yandexgpt.CancelledError) for each in hanging)
    assert operation.refresh().done


# Close, pickling, Ctrl-C


@pytest.mark.parametrize("derived", [False, True])
def test_client_close_cancels_a_wait(
    factory: ClientFactory, emulator: Emulator, derived: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_immediate_poll(monkeypatch)
    operations_never_end(emulator)
    parent = factory.client(emulator)
    client = parent.with_options(timeout=30) if derived else parent
    operation = attached(client)
    waiting = Background(operation.wait)
    emulator.wait_for_requests(2)
    until(lambda: emulator.requests[-1].outcome)  # the poll has ended; now only close can end the wait
    client.close()
    assert isinstance(error := waiting.error(), yandexgpt.CancelledError)
    assert "closed" in str(error)
    with pytest.raises(yandexgpt.ConfigurationError, match="closed"):
        operation.wait()
    with pytest.raises(yandexgpt.ConfigurationError, match="closed"):
        operation.refresh()
    if derived:
        assert not parent.operation(operation.id).refresh().done
    assert CANCEL not in {request.method for request in emulator.requests}


def test_client_close_during_a_poll_cancels_the_wait(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator)
    operation = client.operation(client.submit("раз").id)
    emulator.fail("UNAVAILABLE", delay=FOREVER)
    waiting = Background(operation.wait)
    emulator.wait_for_requests(2)
    client.close()
    assert isinstance(waiting.error(), yandexgpt.CancelledError)


def test_operation_cannot_be_pickled_or_copied(client: Any, emulator: Emulator) -> None:
    operation = client.submit("раз")
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"store operation\.id"):
            copying(operation)
    emulator.fail("INTERNAL", "boom", operation=True)
    failed = client.submit("раз").refresh()
    again = pickle.loads(pickle.dumps(failed.error))
    assert (again.operation, again.operation_id, str(again)) == (None, failed.id, str(failed.error))


WAIT = """
import asyncio, sys
import yandexgpt

def sync():
    with yandexgpt.Client() as client:
        operation = client.submit("раз")
        print(operation.id, flush=True)
        operation.wait()

async def asynchronous():
    async with yandexgpt.AsyncClient() as client:
        operation = await client.submit("раз")
        print(operation.id, flush=True)
        await operation.wait()

try:
    sync() if sys.argv[1] == "sync" else asyncio.run(asynchronous())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_ctrl_c_ends_a_wait_but_not_the_operation(emulator: Emulator, kind: str) -> None:
    operations_never_end(emulator)
    process = program(WAIT, emulator, kind)
    emulator.wait_for_requests(2, timeout=30)
    process.send_signal(signal.SIGINT)
    code, out, err = output_of(process)
    assert (code, out.split()) == (0, [emulator.operations.ids[0], "interrupted"]), err
    assert methods(emulator).count("Cancel") == 0


# One thousand operations and a killed process

SUBMIT_AND_WAIT = """
import asyncio, json, sys
import yandexgpt

kind, work = sys.argv[1], json.loads(sys.argv[2])
options = {"metadata": (("x-kind", kind),)}

def say(*words):
    print(*words, flush=True)

def sync():
    with yandexgpt.Client(**options) as client:
        if isinstance(work, int):
            operations = [client.submit(f"ответ {number}") for number in range(work)]
            say(json.dumps([operation.id for operation in operations]))
        else:
            operations = [client.operation(each) for each in work]
        for operation in client.wait_all(operations, timeout=120):
            say(operation.id, operation.result().text)

async def asynchronous():
    async with yandexgpt.AsyncClient(**options) as client:
        if isinstance(work, int):
            operations = [await client.submit(f"ответ {number}") for number in range(work)]
            say(json.dumps([operation.id for operation in operations]))
        else:
            operations = [client.operation(each) for each in work]
        async for operation in client.wait_all(operations, timeout=120):
            say(operation.id, operation.result().text)

sync() if kind == "sync" else asyncio.run(asynchronous())
"""
THOUSAND = 1000


def resume_after_kill(emulator: Emulator, kind: str) -> tuple[list[str], dict[str, str]]:
    """Submit 1000 operations in a process, kill it after half of the results, and wait for the rest in another process.

    Returns:
        The ids, and the texts by id.
    """
    first = program(SUBMIT_AND_WAIT, emulator, kind, str(THOUSAND))
    assert first.stdout is not None
    ids: list[str] = json.loads(first.stdout.readline())
    texts: dict[str, str] = {}
    while len(texts) < THOUSAND // 2:
        operation_id, text = first.stdout.readline().rstrip("\n").split(" ", 1)
        texts[operation_id] = text
    first.send_signal(signal.SIGKILL)
    rest, _ = first.communicate()
    assert first.returncode == -signal.SIGKILL
    texts.update(line.partition(" ")[::2] for line in rest.splitlines())
    missing = [each for each in ids if each not in texts]
    assert 0 < len(missing) <= THOUSAND // 2
    code, out, err = output_of(program(SUBMIT_AND_WAIT, emulator, kind, json.dumps(missing)), timeout=50)
    assert code == 0, err
    texts.update(line.partition(" ")[::2] for line in out.splitlines())
    return ids, texts


@pytest.mark.slow
def test_thousand_operations_are_resumed_by_another_process_within_the_quota(emulator: Emulator) -> None:
    """Both clients run at the same time, because each takes 25 s for a thousand polls."""
    kinds = ("sync", "async")
    runs = {kind: Background(resume_after_kill, emulator, kind) for kind in kinds}
    for kind, run in runs.items():
        ids, texts = run.result(100)
        assert len(set(ids)) == THOUSAND
        assert texts == {each: f"ответ {number}" for number, each in enumerate(ids)}
        seen = [request for request in polls(emulator) if request.metadata["x-kind"] == kind]
        assert THOUSAND <= len(seen) <= THOUSAND * 1.1
        assert busiest_second(request.arrived for request in seen) <= QUOTA
    assert len(emulator.operations.ids) == 2 * THOUSAND


# Rate limiter and poll schedule


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=200))
def test_rate_limiter_gives_the_earliest_allowed_times(steps: list[float]) -> None:
    limiter, now, reserved = RateLimiter(0.025), 1000.0, []
    for step in steps:
        now += step
        moment = limiter.reserve(now)
        assert moment is not None
        assert moment >= now
        reserved.append(moment)
    assert all(later - earlier >= 0.025 - 1e-9 for earlier, later in itertools.pairwise(reserved))
    latest = reserved[-1]
    assert limiter.reserve(now, latest) is None
    assert limiter.reserve(now) == pytest.approx(max(now, latest + 0.025))


def test_rate_limiter_gives_each_time_to_one_thread() -> None:
    limiter = RateLimiter(1.0)
    moments = in_threads(20, lambda _: [limiter.reserve(0.0) for _ in range(50)])
    assert sorted(moment for each in moments for moment in each) == [float(number) for number in range(1000)]


def test_reset_releases_the_lock_and_all_reservations() -> None:
    limiter = RateLimiter(1000.0)
    limiter.reserve(0.0)
    limiter._lock.acquire()
    limiter.reset()
    reserved = Background(limiter.reserve, 0.0)  # another thread: this one could re-enter the lock
    assert reserved.result() == 0.0


class PendingOperation:
    """An operation as the schedule sees it."""

    def __init__(self, name: str, *, seen: bool = True) -> None:
        self.id = name
        self.done = False
        self._looked_up = seen


def moments(schedule: PollSchedule[PendingOperation], now: float) -> list[float]:
    """The poll times of the only operation of a schedule, which never completes."""
    made: list[float] = []
    while True:
        try:
            schedule.remaining(now)
        except OperationTimeout:
            return made
        if delay := schedule.delay(now):
            now += delay
            continue
        made.append(now)
        assert not schedule.record_poll(now)


def test_poll_intervals_grow_to_ten_seconds() -> None:
    made = moments(PollSchedule([PendingOperation("a")], 600.0, 0.0, rng=lambda: 0.0), 0.0)
    assert made[:5] == pytest.approx([0.5, 1.0, 1.75, 2.875, 4.5625])
    assert made[-1] == pytest.approx(599.0)
    assert made[-2] - made[-3] == MAX_INTERVAL
    assert len(made) < 75


@given(
    timeout=st.one_of(st.none(), st.floats(0.01, 1000)),
    random=st.floats(0, 1),
    seen=st.booleans(),
    start=st.floats(0, 1e6),
)
def test_every_wait_polls_at_least_once_and_only_before_its_timeout(
    timeout: float | None, random: float, seen: bool, start: float
) -> None:
    schedule = PollSchedule([PendingOperation("a", seen=seen)], timeout, start, rng=lambda: random)
    if timeout is None:
        assert schedule.remaining(start + 1e9) is None
        assert schedule.delay(start) <= INITIAL_INTERVAL + 1e-6
        return
    made = moments(schedule, start)
    assert made
    assert all(moment < start + timeout for moment in made)
    assert (made[0] == start) is not seen


def test_operations_are_polled_in_order() -> None:
    operations = [PendingOperation(str(number)) for number in range(100)]
    schedule = PollSchedule(operations, None, 0.0, rng=lambda: 0.5)
    now, polled = 0.0, []
    for _ in range(400):
        now += schedule.delay(now) + 0.025
        polled.append(int(schedule.next_operation.id))
        schedule.record_poll(now)
    assert polled == [*range(100)] * 4


def test_completed_operation_is_removed_from_the_schedule() -> None:
    operations = [PendingOperation("a"), PendingOperation("b")]
    schedule = PollSchedule(operations, 5.0, 0.0)
    schedule.next_operation.done = True
    assert schedule.record_poll(1.0)
    assert schedule
    with pytest.raises(OperationTimeout) as caught:
        schedule.remaining(5.0)
    assert len(caught.value.operation_ids) == 1
    schedule.next_operation.done = True
    assert schedule.record_poll(2.0)
    assert not schedule
