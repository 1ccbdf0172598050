"""The emulator as a server: start and stop, recorded requests, validation, cancellation and deadlines."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from driver import details_of
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import (
    text_generation_service_pb2,
    text_generation_service_pb2_grpc,
)
from yandexgpt.emulator import Emulator, Metadata
from yandexgpt.emulator.call import Call
from yandexgpt.emulator.certificates import issue
from yandexgpt.emulator.error_status import ErrorStatus
from yandexgpt.emulator.quota import Quota, Slot
from yandexgpt.emulator.received import Recorder

COMPLETION = "/yandex.cloud.ai.foundation_models.v1.TextGenerationService/Completion"
AUTHORIZATION = (("authorization", "Api-Key secret-of-the-test"),)
FOREVER = 3600.0


def a_request(**fields: Any) -> Any:
    given = {
        "model_uri": "gpt://folder/yandexgpt-lite",
        "messages": [{"role": "user", "text": "раз два три"}],
        "completion_options": {"stream": True},
        **fields,
    }
    return text_generation_service_pb2.CompletionRequest(**given)


@contextlib.contextmanager
def stub_of(emulator: Emulator, *options: tuple[str, Any]) -> Iterator[Any]:
    with grpc.insecure_channel(emulator.endpoint, options=options) as channel:
        yield text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)


def complete(stub: Any, request: Any = None, metadata: Any = AUTHORIZATION, **kwargs: Any) -> list[Any]:
    return list(stub.Completion(request or a_request(), metadata=metadata, **kwargs))


def refused(stub: Any, request: Any = None, metadata: Any = AUTHORIZATION) -> tuple[grpc.RpcError, dict[str, Any]]:
    """The error of a call, and its details by type."""
    with pytest.raises(grpc.RpcError) as caught:
        complete(stub, request, metadata)
    raw = {each.key: each.value for each in caught.value.trailing_metadata()}["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(raw)
    assert status.code == caught.value.code().value[0]
    assert status.message == details_of(caught.value)
    details = {}
    for packed in status.details:
        kind = packed.type_url.rsplit(".", 1)[1]
        details[kind] = getattr(error_details_pb2, kind).FromString(packed.value)
    return caught.value, details


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


# Start and stop


def test_start_and_stop_are_idempotent_and_a_restart_uses_the_same_port() -> None:
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="not started"):
        _ = emulator.endpoint
    assert emulator.start() is emulator
    endpoint = emulator.endpoint
    assert endpoint.startswith("127.0.0.1:")
    assert emulator.start().endpoint == endpoint
    emulator.stop()
    emulator.stop()
    assert emulator.endpoint == endpoint
    with emulator, stub_of(emulator) as stub:
        assert emulator.endpoint == endpoint
        assert len(complete(stub)) == 4


def test_stop_cancels_active_calls_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with Emulator() as emulator, stub_of(emulator) as stub:
        emulator.fail("UNAVAILABLE", after=1, delay=FOREVER, times=20)
        calls = [stub.Completion(a_request(), metadata=AUTHORIZATION) for _ in range(20)]
        for call in calls:
            next(call)
        assert emulator.in_flight == 20
        threads = set(threading.enumerate()) - before
        started = time.monotonic()
        emulator.stop()
        assert time.monotonic() - started < 10
        assert [request.wait(0) for request in emulator.requests] == ["CANCELLED"] * 20
        assert emulator.in_flight == 0
        for call in calls:
            with pytest.raises(grpc.RpcError):
                next(call)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_stop_without_active_calls_logs_nothing_at_the_client(
    emulator: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    with grpc.insecure_channel(emulator.endpoint) as channel:
        stub = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
        complete(stub)
        lost = threading.Event()
        ready = threading.Event()

        def watch(state: grpc.ChannelConnectivity) -> None:
            (ready if state is grpc.ChannelConnectivity.READY else lost).set()

        channel.subscribe(watch)
        assert ready.wait(10)
        lost.clear()
        emulator.stop()
        assert lost.wait(10)
    assert capfd.readouterr() == ("", "")


def test_port_in_use_is_an_os_error_and_nothing_is_printed(
    emulator: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    port = int(emulator.endpoint.rpartition(":")[2])
    with pytest.raises(OSError, match=r"[Aa]ddress"):
        Emulator(port=port).start()
    assert capfd.readouterr() == ("", "")


def test_a_failed_start_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def disk_full(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match="no room"):
        Emulator(tls=True).start()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"port": -1}, "port"),
        ({"port": 65536}, "port"),
        ({"rate": 0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"max_concurrent": 0}, "max_concurrent"),
        ({"max_concurrent_streams": 1.5}, "max_concurrent_streams"),
        ({"delay": -1}, "delay"),
        ({"authorization": "abc"}, "authorization"),
    ],
)
def test_invalid_argument_is_rejected_by_name(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Emulator(**arguments)


def test_wildcard_address_is_reachable_on_loopback() -> None:
    with Emulator(host="0.0.0.0") as emulator, stub_of(emulator) as stub:
        assert emulator.endpoint.startswith("127.0.0.1:")
        assert len(complete(stub)) == 4


def test_ipv6_endpoints_have_brackets() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with Emulator(host="::1") as emulator, stub_of(emulator) as stub:
        assert emulator.endpoint.startswith("[::1]:")
        assert len(complete(stub)) == 4


def test_importing_the_package_imports_neither_emulator_nor_cryptography() -> None:
    program = (
        "import sys, yandexgpt;"
        "assert not [name for name in sys.modules if name.startswith(('yandexgpt.emulator', 'yandexgpt.cli'))];"
        "import yandexgpt.emulator; assert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# TLS


def test_tls_certificate_is_valid_for_every_local_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Emulator(tls=True) as emulator:
        assert isinstance(emulator.tls, str)
        authority = Path(emulator.tls)
        assert authority.parent.stat().st_mode & 0o077 == 0
        credentials = grpc.ssl_channel_credentials(authority.read_bytes())
        port = emulator.endpoint.rpartition(":")[2]
        for target in (emulator.endpoint, f"localhost:{port}"):
            with grpc.secure_channel(target, credentials) as channel:
                stub = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
                assert len(complete(stub)) == 4
        assert emulator.environment()["YANDEXGPT_TLS"] == str(authority)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="does not run"):
        _ = emulator.tls


def test_tls_without_cryptography_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ImportError, match=r"yandexgpt\[emulator\]"):
        Emulator(tls=True).start()


def test_certificates_contain_the_given_names_and_repr_hides_the_key() -> None:
    from cryptography import x509

    certificates = issue(["emulator.test", "192.0.2.1"])
    certificate = x509.load_pem_x509_certificate(certificates.server)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "*.api.cloud.yandex.net", "emulator.test"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "192.0.2.1"]
    assert "PRIVATE" not in repr(certificates)


# Recorded requests


def test_requests_are_recorded_in_order_of_arrival(emulator: Emulator) -> None:
    with stub_of(emulator) as stub:
        first = a_request()
        complete(stub, first, (*AUTHORIZATION, ("x-tag", "one"), ("x-tag", "two"), ("x-raw-bin", b"\xff")), timeout=30)
        complete(stub, a_request(completion_options={}))
    one, two = emulator.requests
    assert one.method == COMPLETION
    assert one.message == first
    assert one.deadline is not None
    assert one.deadline == pytest.approx(30, abs=5)
    assert (one.wait(), one.sent) == ("OK", 4)
    assert (two.wait(), two.sent, two.deadline) == ("OK", 1, None)
    assert one.arrived <= two.arrived
    assert one.peer == two.peer
    assert one.metadata["authorization"] == "Api-Key secret-of-the-test"
    assert one.metadata["X-Tag"] == "one"
    assert one.metadata.get_all("X-Tag") == ("one", "two")
    assert one.metadata["x-raw-bin"] == b"\xff"
    assert one.metadata.get_all("absent") == ()
    assert "absent" not in one.metadata
    assert len(one.metadata) == len(set(one.metadata))
    assert "secret" not in repr(one) + repr(one.metadata)
    assert "x-tag" in repr(one.metadata)


def test_ids_are_in_initial_and_trailing_metadata_of_every_call(emulator: Emulator) -> None:
    with stub_of(emulator) as stub:
        answered = stub.Completion(a_request(), metadata=AUTHORIZATION)
        list(answered)
        emulator.fail("ABORTED")
        failed = stub.Completion(a_request(), metadata=AUTHORIZATION)
        with pytest.raises(grpc.RpcError):
            next(failed)
    for call, recorded in zip((answered, failed), emulator.requests, strict=True):
        ids = {"x-request-id": recorded.server_request_id, "x-server-trace-id": recorded.trace_id}
        assert dict(call.initial_metadata()) == ids
        assert ids.items() <= dict(call.trailing_metadata()).items()
    assert len({request.server_request_id for request in emulator.requests}) == 2


def test_requests_can_be_waited_for_and_cleared(emulator: Emulator) -> None:
    with pytest.raises(TimeoutError, match="0 of 1"):
        emulator.wait_for_requests(1, timeout=0.01)
    with stub_of(emulator) as stub:
        call = stub.Completion(a_request(), metadata=AUTHORIZATION)
        assert len(emulator.wait_for_requests(1)) == 1
        list(call)
        emulator.reply("unused")
        emulator.fail("INTERNAL")
        emulator.clear()
        assert emulator.requests == []
        assert emulator.peak_in_flight == 0
        assert complete(stub)[-1].alternatives[0].message.text == "раз два три"


# Cancellation and deadlines


def test_a_cancelled_call_ends_at_the_server(emulator: Emulator) -> None:
    emulator.fail("INTERNAL", after=2, delay=FOREVER)
    with stub_of(emulator) as stub:
        call = stub.Completion(a_request(), metadata=AUTHORIZATION)
        next(call)
        next(call)
        (recorded,) = emulator.requests
        assert (recorded.outcome, recorded.sent, emulator.in_flight) == (None, 2, 1)
        with pytest.raises(TimeoutError, match="still runs"):
            recorded.wait(0.01)
        call.cancel()
        assert recorded.wait() == "CANCELLED"
        assert emulator.in_flight == 0


@pytest.mark.parametrize("script", [{"delay": FOREVER}, {"delay": FOREVER, "partials": ["а"]}])
def test_expired_deadline_ends_the_call_at_the_server(emulator: Emulator, script: dict[str, Any]) -> None:
    emulator.reply("б", times=3, **script)
    with stub_of(emulator) as stub:
        for timeout in (0.2, 2.0, 20.0):  # a slow machine needs a longer one for the call to arrive
            with pytest.raises(grpc.RpcError) as caught:
                complete(stub, timeout=timeout)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if emulator.requests:
                break
    assert {(recorded.wait(), recorded.sent) for recorded in emulator.requests} == {("CANCELLED", 0)}


def test_cancelled_call_does_not_wait_for_its_scripted_failure(emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE", delay=FOREVER)
    with stub_of(emulator) as stub:
        call = stub.Completion(a_request(), metadata=AUTHORIZATION)
        (recorded,) = emulator.wait_for_requests(1)
        call.cancel()
        assert recorded.wait() == "CANCELLED"


class CancelledContext:
    """A gRPC context of a call that was cancelled before its handler ran."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def time_remaining(self) -> float:
        return 1.0

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def add_callback(self, callback: Any) -> bool:
        return False

    def send_initial_metadata(self, metadata: Any) -> None:
        pass


def test_a_call_that_ended_before_its_handler_ran_is_recorded_as_cancelled() -> None:
    recorder = Recorder()
    context: Any = CancelledContext()
    call = Call(recorder, COMPLETION, a_request(), context)
    done: list[str] = []
    call.add_done_callback(lambda: done.append("released"))
    assert not call.pause(FOREVER)
    assert not call.pause(0)
    assert done == ["released"]
    assert recorder.snapshot()[0].wait(0) == "CANCELLED"


# Validation


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "secret-of-the-test"),),
        (("authorization", "Basic secret-of-the-test"),),
        (("authorization", "Bearer "),),
        (*AUTHORIZATION, *AUTHORIZATION),
    ],
)
def test_a_malformed_authorization_is_unauthenticated(emulator: Emulator, metadata: Any) -> None:
    with stub_of(emulator) as stub:
        error, details = refused(stub, metadata=metadata)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "secret" not in details_of(error)
    (recorded,) = emulator.requests
    assert details["RequestInfo"].request_id == recorded.server_request_id
    assert recorded.wait() == "UNAUTHENTICATED"


def test_only_the_expected_authorization_is_accepted() -> None:
    with Emulator(authorization="Bearer right") as emulator, stub_of(emulator) as stub:
        assert len(complete(stub, metadata=(("authorization", "Bearer right"),))) == 4
        error, _ = refused(stub, metadata=(("authorization", "Bearer wrong"),))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "right" not in details_of(error)
        assert emulator.environment()["IAM_TOKEN"] == "right"
        assert "API_KEY" not in emulator.environment()


@pytest.mark.parametrize(
    "uri",
    [
        "gpt://folder/yandexgpt",
        "gpt://folder/yandexgpt/latest",
        "gpt://folder/yandexgpt/latest@tuned",
        "gpt://<идентификатор_каталога>/yandexgpt-lite",
        "ds://bt1abc",
    ],
)
def test_model_uris_of_the_service_are_accepted(emulator: Emulator, uri: str) -> None:
    with stub_of(emulator) as stub:
        assert complete(stub, a_request(model_uri=uri))


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        ({"model_uri": ""}, "model_uri"),
        ({"model_uri": "yandexgpt"}, "model_uri"),
        ({"model_uri": "gpt:///yandexgpt"}, "model_uri"),
        ({"model_uri": "gpt://folder"}, "model_uri"),
        ({"model_uri": "gpt://folder/model/latest/more"}, "model_uri"),
        ({"model_uri": "ds://"}, "model_uri"),
        ({"completion_options": {"temperature": {"value": 1.01}}}, "completion_options.temperature"),
        ({"completion_options": {"temperature": {"value": -0.1}}}, "completion_options.temperature"),
        ({"completion_options": {"temperature": {"value": float("nan")}}}, "completion_options.temperature"),
        ({"completion_options": {"max_tokens": {"value": 0}}}, "completion_options.max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "text": "а"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "text": "а"}, {"role": "user"}]}, "messages[1]"),
        ({"tools": [{"function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": {"mode": "REQUIRED"}}, "tool_choice.mode"),
        ({"tools": [{"function": {"name": "f"}}], "tool_choice": {"function_name": "g"}}, "tool_choice.function_name"),
    ],
)
def test_a_malformed_request_is_an_invalid_argument_that_names_the_field(
    emulator: Emulator, fields: dict[str, Any], violation: str
) -> None:
    emulator.reply("left alone")
    with stub_of(emulator) as stub:
        error, details = refused(stub, a_request(**fields))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [each.field for each in details["BadRequest"].field_violations] == [violation]
        assert violation in details_of(error)
        assert complete(stub)[-1].alternatives[0].message.text == "left alone"


def test_at_most_ten_violations_are_named_with_short_values(emulator: Emulator) -> None:
    wrong = a_request(model_uri="x" * 10_000, messages=[{"role": "robot", "text": "а"}] * 100)
    with stub_of(emulator) as stub:
        error, details = refused(stub, wrong)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(details["BadRequest"].field_violations) == 10
    assert "x..." in details["BadRequest"].field_violations[0].description


def test_other_methods_are_unimplemented(emulator: Emulator) -> None:
    with grpc.insecure_channel(emulator.endpoint) as channel:
        batch = text_generation_service_pb2_grpc.TextGenerationBatchServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            batch.Completion(text_generation_service_pb2.BatchCompletionRequest(), metadata=AUTHORIZATION)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# Quotas


def test_generation_above_the_concurrency_limit_is_rejected() -> None:
    with Emulator(max_concurrent=2) as emulator, stub_of(emulator) as stub:
        emulator.fail("INTERNAL", after=1, delay=FOREVER, times=2)
        calls = [stub.Completion(a_request(), metadata=AUTHORIZATION) for _ in range(2)]
        for call in calls:
            next(call)
        error, details = refused(stub)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details["QuotaFailure"].violations[0].subject == "concurrent generations"
        assert (emulator.in_flight, emulator.peak_in_flight) == (2, 2)
        for call in calls:
            call.cancel()
        for request in emulator.requests:
            request.wait()
        assert len(complete(stub)) == 4


def test_next_call_may_start_right_after_the_last_message() -> None:
    with Emulator(max_concurrent=1) as emulator, stub_of(emulator) as stub:
        for _ in range(200):
            assert len(complete(stub, a_request(completion_options={}))) == 1
        assert emulator.peak_in_flight == 1


def test_generation_above_the_rate_is_rejected_with_retry_info() -> None:
    with Emulator(rate=0.001) as emulator, stub_of(emulator) as stub:
        assert len(complete(stub)) == 4
        error, details = refused(stub)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details["QuotaFailure"].violations[0].subject == "generations per second"
        assert 990 < details["RetryInfo"].retry_delay.seconds <= 1000


def test_the_rate_is_a_token_bucket_of_one_second() -> None:
    now = 100.0
    quota = Quota(None, 4.0, clock=lambda: now)
    assert all(isinstance(quota.acquire(), Slot) for _ in range(4))
    assert isinstance(quota.acquire(), ErrorStatus)
    now += 0.25
    assert isinstance(quota.acquire(), Slot)
    assert isinstance(quota.acquire(), ErrorStatus)
    now += 60
    assert [isinstance(quota.acquire(), Slot) for _ in range(5)] == [True] * 4 + [False]
    assert (quota.in_flight, quota.peak) == (9, 9)


def test_streams_above_the_limit_of_a_connection_are_queued() -> None:
    with Emulator(max_concurrent_streams=1) as emulator, stub_of(emulator) as stub:
        assert len(complete(stub)) == 4
        emulator.fail("INTERNAL", after=1, delay=FOREVER)
        held = stub.Completion(a_request(), metadata=AUTHORIZATION)
        next(held)
        waiting = stub.Completion(a_request(), metadata=AUTHORIZATION)
        with pytest.raises(TimeoutError):
            emulator.wait_for_requests(3, timeout=0.1)
        held.cancel()
        assert len(list(waiting)) == 4


def test_server_options_are_passed_to_grpc() -> None:
    with Emulator(options=[("grpc.max_receive_message_length", 1000)]) as emulator, stub_of(emulator) as stub:
        assert len(complete(stub)) == 4
        with pytest.raises(grpc.RpcError) as caught:
            complete(stub, a_request(messages=[{"role": "user", "text": "а" * 1000}]))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# Clients


def test_environment_configures_a_client(emulator: Emulator) -> None:
    assert emulator.environment() == {
        "YANDEXGPT_ENDPOINT": emulator.endpoint,
        "YANDEXGPT_TLS": "false",
        "API_KEY": "emulator",
        "FOLDER_ID": "emulator",
    }


@pytest.mark.parametrize("name", ["client", "async_client"])
def test_client_arguments_can_be_overridden(emulator: Emulator, name: str) -> None:
    own = getattr(emulator, name)()
    assert repr(own).endswith(f"(folder_id='emulator', model='yandexgpt-lite', endpoint={emulator.endpoint!r})")
    other = getattr(emulator, name)(timeout=5, folder_id="mine")
    assert repr(other).endswith(f"(folder_id='mine', model='yandexgpt-lite', endpoint={emulator.endpoint!r})")


@pytest.mark.parametrize("tls", [False, True])
def test_client_of_the_emulator_completes_and_streams(tls: bool) -> None:
    with Emulator(tls=tls, authorization="Api-Key abc") as emulator, emulator.client(timeout=30) as client:
        assert client.complete("раз два").text == "раз два"
        with client.stream("раз два три") as stream:
            assert "".join(stream.text()) == "раз два три"
        assert [request.wait() for request in emulator.requests] == ["OK", "OK"]


@pytest.mark.parametrize("authorization", ["Api-Key abc", "Bearer abc"])
def test_client_of_the_emulator_sends_the_expected_credential(authorization: str) -> None:
    with Emulator(authorization=authorization) as emulator, emulator.client() as client:
        client.complete("раз")
        assert emulator.requests[-1].metadata["authorization"] == authorization
        assert list(emulator.environment().values()).count("abc") == 1


def test_metadata_is_a_mapping() -> None:
    metadata = Metadata([("A", "1"), ("b", "2"), ("a", "3")])
    assert dict(metadata) == {"a": "1", "b": "2"}
