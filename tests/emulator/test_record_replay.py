"""Record and replay over real sockets: a client gets the same from the recording as from the service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import grpc
import pytest
from driver import Background, in_threads, stall_after, until

import yandexgpt
from yandexgpt._endpoint import Endpoint
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import (
    text_generation_service_pb2 as generation,
)
from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2 as iam
from yandexgpt._proto.yandex.cloud.operation import operation_service_pb2
from yandexgpt.credentials import ApiKey, OAuthToken, ServiceAccountKey
from yandexgpt.emulator import Emulator
from yandexgpt.emulator.identity import Identity
from yandexgpt.emulator.quota import Quota
from yandexgpt.emulator.received import Recorder
from yandexgpt.emulator.record_replay.forwarder import Forwarder
from yandexgpt.emulator.record_replay.methods import find_method
from yandexgpt.emulator.record_replay.writer import RecordingWriter
from yandexgpt.emulator.service import Service

KEY = (("authorization", "Api-Key secret-key-of-the-test"),)
PATIENCE = 20.0
FOREVER = 3600.0


class Seen(NamedTuple):
    """The result of a call at the client."""

    messages: list[bytes]
    code: str
    words: str
    initial: dict[str, Any]
    trailing: dict[str, Any]


@contextlib.contextmanager
def channel_to(emulator: Emulator) -> Iterator[grpc.Channel]:
    tls = emulator.tls
    if isinstance(tls, str):
        credentials = grpc.ssl_channel_credentials(Path(tls).read_bytes())
        with grpc.secure_channel(emulator.endpoint, credentials) as channel:
            yield channel
    else:
        with grpc.insecure_channel(emulator.endpoint) as channel:
            yield channel


def start(
    channel: grpc.Channel, name: str, request: Any, *, timeout: float | None = PATIENCE, metadata: Any = KEY
) -> Any:
    method = find_method(name)
    assert method is not None
    data = request if isinstance(request, bytes) else request.SerializeToString()
    starter: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method.path)
    return starter(data, timeout=timeout, metadata=metadata)


def call(channel: grpc.Channel, name: str, request: Any, **options: Any) -> Seen:
    running = start(channel, name, request, **options)
    messages: list[bytes] = []
    with contextlib.suppress(grpc.RpcError):
        messages.extend(running)
    response_type = find_method(name).response_type  # type: ignore[union-attr]
    return Seen(
        # The order of map entries is not fixed. All other bytes must be equal.
        [response_type.FromString(each).SerializeToString(deterministic=True) for each in messages],
        running.code().name,
        running.details() or "",
        dict(running.initial_metadata() or ()),
        dict(running.trailing_metadata() or ()),
    )


def completion_request(text: str = "раз два три", *, stream: bool = False, **fields: Any) -> Any:
    return generation.CompletionRequest(
        model_uri="gpt://folder/yandexgpt",
        messages=[{"role": "user", "text": text}],
        completion_options={"stream": stream},
        **fields,
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


@contextlib.contextmanager
def recording(service: Emulator, path: Path | None, **options: Any) -> Iterator[Emulator]:
    given = {"upstream": service.endpoint, "upstream_tls": service.tls, "record": path, **options}
    with Emulator(**given) as recorder:
        yield recorder


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}


def every_kind(channel: grpc.Channel) -> list[Seen]:
    """Calls of every kind."""
    tool = {"function": {"name": "weather", "parameters": SCHEMA}}
    seen = [
        call(channel, "TextGenerationService/Completion", completion_request()),
        call(channel, "TextGenerationService/Completion", completion_request("Привет", stream=True)),
        call(channel, "TextGenerationService/Completion", completion_request("Пересмотри", stream=True)),
        call(
            channel,
            "TextGenerationService/Completion",
            completion_request("Погода?", tools=[tool], tool_choice={"mode": "REQUIRED"}),
        ),
        call(
            channel,
            "TextGenerationService/Completion",
            completion_request("Анна", json_schema={"schema": SCHEMA}, stream=True),
        ),
        call(channel, "TextGenerationService/Completion", completion_request("Сломайся", stream=True)),
        call(channel, "TextGenerationService/Completion", completion_request("Сломайся", stream=True)),
        call(channel, "TextGenerationService/Completion", generation.CompletionRequest(model_uri="wrong")),
        call(channel, "TextGenerationBatchService/Completion", generation.BatchCompletionRequest()),
        call(channel, "TokenizerService/Tokenize", generation.TokenizeRequest(model_uri="gpt://f/m", text="раз два")),
        call(channel, "TokenizerService/TokenizeCompletion", completion_request()),
        call(channel, "OperationService/Get", operation_service_pb2.GetOperationRequest(operation_id="nope")),
    ]
    for text in ("операция", "неудача"):
        submitted = call(channel, "TextGenerationAsyncService/Completion", completion_request(text))
        seen.append(submitted)
        operation_id = find_method("OperationService/Get").response_type.FromString(submitted.messages[0]).id  # type: ignore[union-attr]
        request = operation_service_pb2.GetOperationRequest(operation_id=operation_id)
        seen.append(call(channel, "OperationService/Get", request))
        seen.append(
            call(
                channel,
                "OperationService/Cancel",
                operation_service_pb2.CancelOperationRequest(operation_id=operation_id),
            )
        )
        seen.append(call(channel, "OperationService/Get", request))
    return seen


def script(service: Emulator) -> None:
    """The script for the calls of `every_kind`."""
    service.reply("раз два три")
    service.reply("Привет\U0001f600", partials=["При", "Привет\ufffd"], usage={"input_tokens": 7})
    service.reply(None, alternatives=["Другой", {"status": 4711}], partials=[["Один", ""], ["Один конец", "я"], "Друг"])
    service.reply(
        None, tool_calls=[{"name": "weather", "arguments": {"city": "Москва", "days": 2, "deep": [None, {}]}}]
    )
    service.reply("{}", status=4711, model_version="")
    service.rule(
        match={"text": "Сломайся"},
        answer={"text": "Сломался", "partials": ["Слом", "Слома"]},
        fail={"code": "UNAVAILABLE", "message": "сломалось", "after": 1, "retry_after": 0.5, "pushback": -1},
    )
    service.rule(match={"text": "неудача"}, fail={"code": "INTERNAL", "message": "out of luck", "operation": True})


@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "tls"])
def test_replay_equals_the_recorded_calls(tls: bool, path: Path) -> None:
    with Emulator(tls=tls, operation_time=FOREVER) as service:
        script(service)
        with recording(service, path, tls=tls) as recorder, channel_to(recorder) as channel:
            recorded = every_kind(channel)
            for request in (*recorder.requests, *service.requests):
                request.wait()
            # The service does not have the batch method and does not record its call.
            batches = find_method("TextGenerationBatchService/Completion").path  # type: ignore[union-attr]
            assert [fields_of(each) for each in recorder.requests if each.method != batches] == [
                fields_of(each) for each in service.requests
            ]
    assert {seen.code for seen in recorded} == {"OK", "UNAVAILABLE", "INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND"}
    assert [len(seen.messages) for seen in recorded[:7]] == [1, 3, 4, 1, 1, 1, 1]
    assert "secret-key-of-the-test" not in path.read_text()
    for match in ("request", "order"):
        with Emulator(replay=path, tls=tls, match=match) as player, channel_to(player) as channel:
            assert every_kind(channel) == recorded
            assert [each.server_request_id for each in player.requests] == [
                seen.trailing.get("x-request-id", "") for seen in recorded
            ]


def fields_of(request: Any) -> tuple[Any, ...]:
    return (request.method, request.message, request.outcome, request.sent, request.server_request_id, request.trace_id)


def test_token_exchange_is_replayed_with_new_tokens(path: Path) -> None:
    with Emulator() as service:
        oauth = OAuthToken(service.identity.oauth_token())
        key = ServiceAccountKey(service.identity.service_account_key())
        with recording(service, path) as recorder:
            for credentials in (oauth, key):
                with recorder.client(credentials=credentials) as client:
                    assert client.complete("Привет").text == "Привет"
            service.identity.fail("PERMISSION_DENIED", message="no role")
            again = OAuthToken(service.identity.oauth_token())
            with recorder.client(credentials=again) as client, pytest.raises(yandexgpt.PermissionDeniedError) as first:
                client.complete("Привет")
            assert "no role" in first.value.message
            kept = repr([request.message for request in recorder.requests])
        issued = service.identity.issued
        assert len(issued) == 2
    for secret in (*issued, "y0_", "eyJ"):
        assert secret not in path.read_text()
        assert secret not in kept
    # The replay accepts other credentials.
    with Emulator(replay=path) as player:
        other = Emulator().identity.service_account_key()
        for credentials in (OAuthToken("y0_another"), ServiceAccountKey(other)):
            with player.client(credentials=credentials) as client:
                assert client.complete("Привет").text == "Привет"
        used = [str(request.metadata.get("authorization")) for request in player.requests]
        assert used[1::2] == [f"Bearer {token}" for token in player.identity.issued]
        wrong = OAuthToken("y0_a_third")
        with player.client(credentials=wrong) as client, pytest.raises(yandexgpt.PermissionDeniedError) as second:
            client.complete("Привет")
        assert second.value.message == first.value.message


def test_token_in_a_handwritten_recording_is_returned(path: Path) -> None:
    path.write_text(
        '{"method": "IamTokenService/Create", "request": {"jwt": ""}, "responses": [{"iamToken": "t1.mine"}]}\n'
        '{"method": "IamTokenService/Revoke", "request": {"iamToken": "t1"}, "responses": [{"subjectId": "aje"}]}\n'
        '{"method": "IamTokenService/Create", "request": {"yandexPassportOauthToken": ""}, '
        '"responses": [{"iamToken": "removed", "expiresAt": "2001-02-03T04:05:06Z"}]}\n'
    )
    with Emulator(replay=path) as player, channel_to(player) as channel:
        created = call(channel, "IamTokenService/Create", iam.CreateIamTokenRequest(jwt="a.b.c"), metadata=())
        assert [iam.CreateIamTokenResponse.FromString(each).iam_token for each in created.messages] == ["t1.mine"]
        request = iam.CreateIamTokenRequest(yandex_passport_oauth_token="y0_a")
        created = call(channel, "IamTokenService/Create", request, metadata=())
        (token,) = [iam.CreateIamTokenResponse.FromString(each) for each in created.messages]
        assert [token.iam_token] == player.identity.issued
        assert token.expires_at.ToJsonString() == "2001-02-03T04:05:06Z"
        revoked = call(channel, "IamTokenService/Revoke", iam.RevokeIamTokenRequest(iam_token="t1.other"), metadata=())
        assert [iam.RevokeIamTokenResponse.FromString(each).subject_id for each in revoked.messages] == ["aje"]


def test_recording_without_texts_replays_masked_texts(path: Path) -> None:
    with Emulator() as service, recording(service, path, record_texts=False) as recorder, recorder.client() as client:
        with client.stream("Расскажи о Байкале", system="Тайна") as stream:
            recorded = [len(chunk.text) for chunk in stream]
        client.tokenize("Расскажи")
    assert recorded == [8, 10, 18, 18]
    assert not any(word in path.read_text() for word in ("Расскажи", "Байкал", "Тайна"))
    with Emulator(replay=path) as player, player.client() as client:
        with client.stream("Сочиняла о Каспии!", system="Тайна") as stream:
            assert [len(chunk.text) for chunk in stream] == recorded
        with pytest.raises(yandexgpt.FailedPreconditionError, match="recorded 'xxxxxxxx x xxxxxxx', got 'xxxxx'"):
            client.stream("Иначе", system="Тайна").finish()
        assert client.count_tokens("Погибшие") == 1


# Forwarding


def test_stream_is_forwarded_message_by_message_and_recorded_until_cancellation(path: Path) -> None:
    with Emulator() as service, recording(service, path) as recorder, channel_to(recorder) as channel:
        stall_after(service, 2)
        running = start(channel, "TextGenerationService/Completion", completion_request(stream=True), timeout=None)
        (request,) = service.wait_for_requests(1)
        assert dict(running.initial_metadata())["x-request-id"] == request.server_request_id
        assert len([next(running), next(running)]) == 2
        assert recorder.in_flight == 1
        running.cancel()
        assert (request.wait(), recorder.requests[0].wait()) == ("CANCELLED", "CANCELLED")
        (line,) = lines_of(path)
        assert (len(line["responses"]), line["unfinished"], "status" in line) == (2, True, False)
        assert recorder.in_flight == 0
    # The service did not end the call before the client cancelled it. The replay does not end it either.
    with Emulator(replay=path) as player, channel_to(player) as channel:
        running = start(channel, "TextGenerationService/Completion", completion_request(stream=True), timeout=None)
        assert len([next(running), next(running)]) == 2
        reader = Background(next, running, None)
        assert player.requests[0].outcome is None
        running.cancel()
        assert isinstance(reader.error(), grpc.RpcError | None)
        assert player.requests[0].wait() == "CANCELLED"


class Silent(grpc.GenericRpcHandler):
    """A service that sends nothing for the first call and answers all other calls."""

    def __init__(self) -> None:
        self.called, self.over = threading.Event(), threading.Event()

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        if not self.called.is_set():
            context.add_callback(self.over.set)
            self.called.set()
            self.over.wait(PATIENCE)
        yield generation.CompletionResponse(model_version="others").SerializeToString()


def test_call_without_a_response_can_be_cancelled_and_does_not_block_others(path: Path) -> None:
    silent = Silent()
    service = grpc.server(futures.ThreadPoolExecutor(2), handlers=[silent])
    target = f"127.0.0.1:{service.add_insecure_port('127.0.0.1:0')}"
    service.start()
    try:
        with Emulator(upstream=target, upstream_tls=False, record=path) as recorder, channel_to(recorder) as channel:
            running = start(channel, "TextGenerationService/Completion", completion_request(stream=True), timeout=None)
            assert silent.called.wait(PATIENCE)
            running.cancel()
            assert recorder.requests[0].wait() == "CANCELLED"
            assert silent.over.wait(PATIENCE)
            assert call(channel, "TextGenerationService/Completion", completion_request()).code == "OK"
    finally:
        service.stop(None).wait()


def test_deadline_is_forwarded_and_ends_the_replay_too(path: Path) -> None:
    def call_with_deadline(channel: grpc.Channel) -> tuple[Seen, float]:
        """A call whose deadline is increased until one message arrives."""
        for timeout in (0.5, 5.0, PATIENCE):
            seen = call(channel, "TextGenerationService/Completion", completion_request(stream=True), timeout=timeout)
            if seen.messages:
                break
        return seen, timeout

    with Emulator() as service:
        stall_after(service, 1, times=3)
        with recording(service, path) as recorder, channel_to(recorder) as channel:
            recorded, timeout = call_with_deadline(channel)
            deadlines = [each.requests[-1].deadline for each in (service, recorder)]
            assert all(deadline is not None and deadline < timeout + 0.1 for deadline in deadlines)
            assert [each.requests[-1].wait() for each in (service, recorder)] == ["CANCELLED"] * 2
    last = lines_of(path)[-1]
    assert last["unfinished"]
    path.write_text(json.dumps(last))
    with Emulator(replay=path) as player, channel_to(player) as channel:
        replayed, _ = call_with_deadline(channel)
    assert (replayed.messages, replayed.code) == (recorded.messages, recorded.code)
    assert recorded.code == "DEADLINE_EXCEEDED"


def test_deadline_exceeded_from_the_service_is_recorded_as_a_status(path: Path) -> None:
    with Emulator() as service, recording(service, path) as recorder, channel_to(recorder) as channel:
        service.fail("DEADLINE_EXCEEDED", "its own")
        assert call(channel, "TokenizerService/TokenizeCompletion", completion_request()).words == "its own"
    assert lines_of(path)[0]["status"]["code"] == "DEADLINE_EXCEEDED"


def test_metadata_is_forwarded_and_only_ids_are_recorded(path: Path) -> None:
    sent = (*KEY, ("x-client-request-id", "mine"), ("x-folder-id", "b1g"), ("test-bin", b"\0"), ("test", "1"))
    with Emulator() as service, recording(service, path) as recorder, channel_to(recorder) as channel:
        marked = (*sent, ("x-emulator-face", "rest"))
        seen = call(channel, "TextGenerationService/Completion", completion_request(), metadata=marked)
        at_the_service, at_the_recorder = service.requests[0].metadata, recorder.requests[0].metadata
        assert [at_the_service[key] for key, _ in sent] == [value for _, value in sent]
        assert "x-emulator-face" not in at_the_service
        assert at_the_recorder["x-emulator-face"] == "rest"
    ids = {key: seen.trailing[key] for key in ("x-request-id", "x-server-trace-id")}
    assert seen.initial == seen.trailing == ids
    assert lines_of(path)[0]["metadata"] == {"x-client-request-id": "mine", **ids}


def test_concurrent_calls_are_written_as_whole_lines(path: Path) -> None:
    text = "слово " * 100
    with Emulator() as service, recording(service, path) as recorder, recorder.client() as client:
        in_threads(16, lambda number: [client.complete(f"{number} {turn} {text}") for turn in range(5)])
    lines = lines_of(path)
    texts = sorted(line["request"]["messages"][0]["text"] for line in lines)
    assert texts == sorted(f"{number} {turn} {text}" for number in range(16) for turn in range(5))
    assert all(line["responses"][0]["message"]["alternatives"] for line in lines)
    with Emulator(replay=path) as player, player.client() as client:
        answers = in_threads(16, lambda number: client.complete(f"{number} 0 {text}").text)
    assert answers == [f"{number} 0 {text}" for number in range(16)]


def test_concurrent_calls_by_order_get_an_answer_each(path: Path) -> None:
    with Emulator() as service, recording(service, path) as recorder, recorder.client() as client:
        for number in range(20):
            client.complete(str(number))
    with Emulator(replay=path, match="order") as player, player.client() as client:
        answers = in_threads(20, lambda _: client.complete("what?").text)
        assert sorted(answers, key=int) == [str(number) for number in range(20)]
        with pytest.raises(yandexgpt.FailedPreconditionError, match=r"all 20 calls of .* have been replayed") as error:
            client.complete("what?")
        assert error.value.attempts == 1


@pytest.mark.parametrize("ending", ["responses", "status"])
def test_slow_replay_ends_when_the_client_cancels(ending: str, path: Path) -> None:
    line = {"method": "TextGenerationService/Completion", "request": json.loads(JSON_REQUEST)}
    late = {"responses": [{"after": FOREVER, "message": {}}], "status": {"after": FOREVER, "code": "INTERNAL"}}
    path.write_text(json.dumps({**line, ending: late[ending]}))
    with Emulator(replay=path) as player, channel_to(player) as channel:
        running = start(channel, "TextGenerationService/Completion", completion_request(), timeout=None)
        (request,) = player.wait_for_requests(1)
        running.cancel()
        assert (request.wait(), request.sent) == ("CANCELLED", 0)
        until(lambda: player.in_flight == 0)


def test_call_cancelled_before_its_handler_is_not_forwarded(path: Path) -> None:
    gone = SimpleNamespace(
        invocation_metadata=tuple, time_remaining=lambda: 1.0, peer=str, add_callback=lambda callback: False
    )
    writer = RecordingWriter(path, texts=True)
    writer.open()
    forwarder = Forwarder(Endpoint("127.0.0.1:1", False), writer)
    service = Service(Recorder(), forwarder.script, None, Identity())
    quota = Quota(None, None)
    method = find_method("TextGenerationService/Completion")
    handler: Any = forwarder.handler(service, quota).service(SimpleNamespace(method=method.path))  # type: ignore[union-attr]
    request = handler.request_deserializer(completion_request().SerializeToString())
    assert list(handler.unary_stream(request, gone)) == []
    forwarder.stop()
    (line,) = lines_of(path)
    assert line["unfinished"]
    assert [each.outcome for each in service.recorder.snapshot()] == ["CANCELLED"]
    assert quota.in_flight == 0


def test_stop_ends_and_records_active_calls(path: Path) -> None:
    with Emulator() as service:
        stall_after(service, 1)
        with recording(service, path) as recorder, channel_to(recorder) as channel:
            running = start(channel, "TextGenerationService/Completion", completion_request(stream=True), timeout=None)
            next(running)
            recorder.stop()
            assert running.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        assert service.requests[0].wait() == "CANCELLED"
    (line,) = lines_of(path)
    assert (len(line["responses"]), line["unfinished"]) == (1, True)


def test_recorder_can_be_restarted_and_continues_its_file(path: Path) -> None:
    with Emulator() as service:
        recorder = Emulator(upstream=service.endpoint, upstream_tls=False, record=path)
        for text in ("раз", "два"):
            with recorder, recorder.client() as client:
                client.complete(text)
    assert [line["request"]["messages"][0]["text"] for line in lines_of(path)] == ["раз", "два"]


def test_replay_restarts_with_each_start(path: Path) -> None:
    with Emulator() as service, recording(service, path) as recorder, recorder.client() as client:
        service.reply("первый")
        service.reply("второй")
        for _ in range(2):
            client.complete("раз")
    player = Emulator(replay=path)
    for _ in range(2):
        with player, player.client() as client:
            assert [client.complete("раз").text for _ in range(3)] == ["первый", "второй", "второй"]


def test_the_timing_of_a_stream_is_replayed(path: Path) -> None:
    line = {"method": "TextGenerationService/Completion", "request": json.loads(JSON_REQUEST)}
    message = {"alternatives": [{"message": {"text": "да"}}]}
    path.write_text(json.dumps({**line, "responses": [{"after": 0.2, "message": message}] * 2}))
    with Emulator(replay=path) as player, channel_to(player) as channel:
        began = time.monotonic()
        running = start(channel, "TextGenerationService/Completion", completion_request())
        next(running)
        assert time.monotonic() - began >= 0.2
        assert len(list(running)) == 1
        assert time.monotonic() - began >= 0.4


JSON_REQUEST = '{"modelUri": "gpt://any/yandexgpt", "messages": [{"role": "user", "text": "раз два три"}]}'


def test_unreachable_upstream_is_named(path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{unused.getsockname()[1]}"
        with Emulator(upstream=free, upstream_tls=False, record=path) as recorder, channel_to(recorder) as channel:
            seen = call(channel, "TextGenerationService/Completion", completion_request())
    assert seen.code == "UNAVAILABLE"
    assert seen.words.startswith(f"upstream {free}: ")
    assert lines_of(path)[0]["status"]["message"] == seen.words


def test_without_a_file_calls_are_only_forwarded(tmp_path: Path) -> None:
    with Emulator() as service, recording(service, None) as forwarder, forwarder.client() as client:
        assert client.complete("Привет").server_request_id == service.requests[0].server_request_id
    assert list(tmp_path.iterdir()) == []


def test_services_of_the_real_endpoint_have_their_own_hosts() -> None:
    forwarder = Forwarder(Endpoint("llm.api.cloud.yandex.net:443", True), None)
    elsewhere = Forwarder(Endpoint("proxy.example:443", True), None)
    wanted = {
        "TextGenerationService/Completion": "llm.api.cloud.yandex.net:443",
        "TokenizerService/Tokenize": "llm.api.cloud.yandex.net:443",
        "OperationService/Get": "operation.api.cloud.yandex.net:443",
        "IamTokenService/Create": "iam.api.cloud.yandex.net:443",
    }
    for name, target in wanted.items():
        method = find_method(name)
        assert method is not None
        assert forwarder.endpoint(method) == Endpoint(target, True)
        assert elsewhere.endpoint(method).target == "proxy.example:443"


def test_an_unknown_method_is_not_forwarded(path: Path) -> None:
    with (
        Emulator() as service,
        recording(service, path) as recorder,
        grpc.insecure_channel(recorder.endpoint) as channel,
    ):
        unknown: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/yandex.cloud.ai.Unknown/Call")
        with pytest.raises(grpc.RpcError) as error:
            unknown(b"", metadata=KEY, timeout=PATIENCE)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert path.read_bytes() == b""


def test_http_apis_work_with_a_recording(path: Path) -> None:
    answers = []
    for source in ("upstream", "replay"):
        with Emulator() as service:
            given = {"upstream": service.endpoint, "upstream_tls": False, "record": path}
            with Emulator(http_port=0, **(given if source == "upstream" else {"replay": path})) as emulator:
                request = urllib.request.Request(
                    f"{emulator.http_url}/foundationModels/v1/completion",
                    data=JSON_REQUEST.encode(),
                    headers={"Authorization": "Api-Key secret-key-of-the-test", "Content-Type": "application/json"},
                )
                with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                    answers.append(json.load(response))
                assert emulator.requests[0].metadata["x-emulator-face"] == "rest"
    assert answers[0] == answers[1]
    assert answers[0]["result"]["alternatives"][0]["message"]["text"] == "раз два три"
    assert "secret-key" not in path.read_text()


# Features of the emulator with a backend


@pytest.mark.parametrize("kind", ["upstream", "replay"])
def test_given_credentials_and_quotas_are_checked(kind: str, path: Path) -> None:
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(Emulator())
        with recording(service, path) as recorder, recorder.client() as client:
            client.complete("Привет")
            client.tokenize("Привет")
        source: dict[str, Any] = {"upstream": service.endpoint, "upstream_tls": False}
        if kind == "replay":
            source = {"replay": path}
        options = {**source, "authorization": "Api-Key right", "rate": 0.001}
        emulator = stack.enter_context(Emulator(**options))
        forwarded = len(service.requests)
        with emulator.client(credentials=ApiKey("wrong")) as client, pytest.raises(yandexgpt.AuthenticationError):
            client.tokenize("Привет")
        with emulator.client(retry=yandexgpt.Retry.none()) as client:
            assert client.complete("Привет").text == "Привет"
            with pytest.raises(yandexgpt.QuotaExceededError):
                client.complete("Привет")
            assert client.count_tokens("Привет") == 1
        assert [request.wait() for request in emulator.requests[:3]] == ["UNAUTHENTICATED", "OK", "RESOURCE_EXHAUSTED"]
        assert len(service.requests) - forwarded == (0 if kind == "replay" else 2)


def test_replay_requires_a_credential(path: Path) -> None:
    path.write_text(f'{{"method": "TextGenerationService/Completion", "request": {JSON_REQUEST}, "responses": []}}')
    with Emulator(replay=path) as player, channel_to(player) as channel:
        assert (
            call(channel, "TextGenerationService/Completion", completion_request(), metadata=()).code
            == "UNAUTHENTICATED"
        )
        seen = call(channel, "TextGenerationService/Completion", completion_request())
        assert (seen.messages, seen.code) == ([], "OK")
        assert set(seen.initial) == {"x-request-id", "x-server-trace-id"}  # not in the handwritten recording: generated


def test_failures_come_before_replayed_calls(path: Path) -> None:
    with Emulator() as service, recording(service, path) as recorder, recorder.client() as client:
        assert client.stream("раз два три").finish().text == "раз два три"
    with Emulator(replay=path) as player, player.client(retry=yandexgpt.Retry.none()) as client:
        player.fail("UNAVAILABLE")
        player.fail("INTERNAL", "scripted", after=2)
        with pytest.raises(yandexgpt.UnavailableError):
            client.stream("раз два три").finish()
        with pytest.raises(yandexgpt.InternalServerError, match="scripted") as error:
            client.stream("раз два три").finish()
        assert error.value.partial is not None
        assert error.value.partial.text == "раз два"
        assert client.stream("раз два три").finish().text == "раз два три"
        with pytest.raises(RuntimeError, match=r"reply\(\): the answers of this emulator come from .*calls\.jsonl"):
            player.reply("нет")
        with pytest.raises(RuntimeError, match=r"rules: the answers of this emulator come from .*calls\.jsonl"):
            player.rule(answer="нет")
        with pytest.raises(RuntimeError, match=r"fail\(\): how this emulator's operations end comes from"):
            player.fail("INTERNAL", operation=True)


def test_forwarded_calls_cannot_be_scripted() -> None:
    emulator = Emulator(upstream="localhost:1", upstream_tls=False)
    with pytest.raises(
        RuntimeError, match=r"fail\(\): how this emulator's calls end comes from the upstream localhost:1"
    ):
        emulator.fail("INTERNAL")
    with pytest.raises(
        RuntimeError, match=r"reply\(\): the answers of this emulator come from the upstream localhost:1"
    ):
        emulator.reply("нет")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"record": "calls.jsonl"}, "record needs upstream, the host:port of the service"),
        ({"replay": "a", "upstream": "b:1"}, "replay answers by itself: it goes with neither upstream nor record"),
        ({"replay": "a", "record": "b"}, "replay answers by itself"),
        ({"replay": "missing.jsonl"}, "replay: missing.jsonl: No such file or directory"),
        ({"replay": os.devnull}, f"replay: {os.devnull} holds no call"),
        ({"replay": 5}, "replay must be the path of a file, not 5"),
        ({"match": "text"}, "match must be one of request, order, not 'text'"),
        ({"match": "order"}, "match='order' needs replay"),
        ({"upstream": "localhost"}, "upstream must be host:port, got 'localhost'"),
        (
            {"upstream": "example.org:443", "upstream_tls": False},
            "upstream_tls=False would send credentials to example",
        ),
        ({"upstream": "example.org:443", "upstream_tls": "no.pem"}, "upstream_tls: there is no file 'no.pem'"),
        ({"upstream": "example.org:443", "record": b"a"}, "record must be the path of a file, not b'a'"),
    ],
    ids=str,
)
def test_invalid_arguments_are_one_error(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        Emulator(**options)
    assert "\n" not in str(error.value)


def test_recording_that_cannot_be_opened_leaves_nothing(path: Path) -> None:
    emulator = Emulator(upstream="localhost:1", upstream_tls=False, record=path / "in" / "a file.jsonl")
    with pytest.raises(ValueError, match=r"record: .*a file\.jsonl: No such file or directory"):
        emulator.start()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("yandexgpt-emulator")]
