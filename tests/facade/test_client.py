"""Both clients with the emulator: the results for the user, and the requests at the server."""

from __future__ import annotations

import copy
import json
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from driver import (
    FAST,
    FOREVER,
    PATIENCE,
    Background,
    ClientFactory,
    deadline_of,
    partial_of,
    run_loop,
    stall_after,
    until,
)

import yandexgpt
from yandexgpt._models import CompletionResponse
from yandexgpt.credentials import IamToken, NoCredentials, TokenProvider
from yandexgpt.emulator import Emulator, Fault, FaultProxy
from yandexgpt.emulator.certificates import issue

COMPLETION = "/yandex.cloud.ai.foundation_models.v1.TextGenerationService/Completion"


@pytest.fixture
def unused_endpoint() -> Iterator[str]:
    """An endpoint with a reserved port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


# complete


def test_complete_returns_the_whole_answer(client: Any, emulator: Emulator) -> None:
    completion = client.complete("раз два три")
    assert completion.text == "раз два три"
    assert completion.role == "assistant"
    assert completion.status is yandexgpt.Status.FINAL
    assert not completion.truncated
    assert not completion.filtered
    usage = completion.usage
    assert (usage.input_tokens, usage.completion_tokens, usage.total_tokens) == (3, 3, 6)
    assert completion.model_version == "emulator"
    (request,) = emulator.requests
    assert request.method == COMPLETION
    assert request.wait() == "OK"
    assert request.message.completion_options.stream is False
    assert completion.request_id == request.metadata["x-client-request-id"]
    assert completion.server_request_id == request.server_request_id
    assert completion.trace_id == request.trace_id


def test_every_call_option_is_sent(client: Any, emulator: Emulator) -> None:
    tool = {"name": "weather", "description": "Погода", "parameters": {"type": "object", "properties": {}}}
    client.complete(
        "Какая погода?",
        system="Ты метеоролог.",
        model="yandexgpt/rc",
        temperature=0,
        max_tokens=7,
        reasoning="hidden",
        tools=[tool],
        tool_choice="weather",
        parallel_tool_calls=False,
    )
    message = emulator.requests[0].message
    assert [(each.role, each.text) for each in message.messages] == [
        ("system", "Ты метеоролог."),
        ("user", "Какая погода?"),
    ]
    assert message.model_uri == "gpt://emulator/yandexgpt/rc"
    options = message.completion_options
    assert options.HasField("temperature")
    assert options.temperature.value == 0
    assert options.max_tokens.value == 7
    assert options.reasoning_options.mode == options.reasoning_options.ENABLED_HIDDEN
    assert message.tools[0].function.name == "weather"
    assert message.tool_choice.function_name == "weather"
    assert message.HasField("parallel_tool_calls")
    assert message.parallel_tool_calls.value is False


def test_omitted_options_are_not_sent(client: Any, emulator: Emulator) -> None:
    client.complete("Привет")
    message = emulator.requests[0].message
    assert {field.name for field, _ in message.ListFields()} == {"model_uri", "messages", "completion_options"}
    assert [field.name for field, _ in message.completion_options.ListFields()] == []


def test_status_tool_calls_and_alternatives_of_a_completion(client: Any, emulator: Emulator) -> None:
    assert client.complete("раз два три", max_tokens=2).truncated
    emulator.reply("Не могу обсуждать эту тему.", status="CONTENT_FILTER")
    assert client.complete("Привет").filtered
    emulator.reply(tool_calls=[{"name": "weather", "arguments": {"city": "Омск", "days": 5}}])
    completion = client.complete("Какая погода?")
    assert completion.status is yandexgpt.Status.TOOL_CALLS
    assert completion.text == ""
    assert [(call.name, call.arguments) for call in completion.tool_calls] == [("weather", {"city": "Омск", "days": 5})]
    emulator.reply(alternatives=["раз", {"text": "два", "status": "TRUNCATED"}])
    assert [(each.text, each.status.name) for each in client.complete("Привет").alternatives] == [
        ("раз", "FINAL"),
        ("два", "TRUNCATED"),
    ]


def test_json_and_schema_answers(client: Any) -> None:
    assert json.loads(client.complete("Привет", response_format="json").text) == {"answer": "Привет"}
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    assert set(json.loads(client.complete("Привет", response_format=schema).text)) == {"name"}


def test_prompt_accepts_messages_mappings_and_completions(client: Any, emulator: Emulator) -> None:
    first = client.complete([{"role": "system", "text": "Будь краток."}, yandexgpt.Message("user", "Привет")])
    client.complete(
        [yandexgpt.Message("user", "Привет"), first, {"role": "user", "text": "Как дела?"}], system="Будь краток."
    )
    assert [(each.role, each.text) for each in emulator.requests[1].message.messages] == [
        ("system", "Будь краток."),
        ("user", "Привет"),
        ("assistant", "Привет"),
        ("user", "Как дела?"),
    ]


def test_completion_with_tool_calls_can_be_sent_back_unchanged(client: Any, emulator: Emulator) -> None:
    emulator.reply(tool_calls=[{"name": "weather", "arguments": {"city": "Омск"}}])
    asked = client.complete("Какая погода?")
    results = {"role": "user", "toolResultList": {"toolResults": [{"functionResult": {"name": "weather"}}]}}
    client.complete([yandexgpt.Message("user", "Какая погода?"), asked, results])
    sent = emulator.requests[1].message.messages
    assert sent[1] == asked.message.proto
    assert sent[2].tool_result_list.tool_results[0].function_result.name == "weather"


def test_request_body_is_sent_unchanged(client: Any, emulator: Emulator, tmp_path: Path) -> None:
    body = {
        "modelUri": "gpt://b1g0/yandexgpt/latest",
        "completionOptions": {"stream": False, "temperature": 0.6, "maxTokens": "2000"},
        "messages": [{"role": "system", "text": "Исправь ошибки."}, {"role": "user", "text": "Ашипки"}],
    }
    path = tmp_path / "body.json"
    path.write_text(json.dumps(body), encoding="utf-8")
    request = yandexgpt.load_request(path)
    assert client.complete(request).text == "Ашипки"
    assert emulator.requests[0].message == request
    with client.stream(request, temperature=0.1, model="yandexgpt-lite") as stream:
        stream.finish()
    changed = emulator.requests[1].message
    assert changed.completion_options.stream is True
    assert changed.completion_options.temperature.value == 0.1
    assert changed.completion_options.max_tokens.value == 2000
    assert changed.model_uri == "gpt://emulator/yandexgpt-lite"
    assert request == yandexgpt.load_request(body)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": 1.5}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"reasoning": "loud"}, "reasoning"),
        ({"tool_choice": "weather"}, "tool_choice"),
        ({"response_format": 5}, "response_format"),
        ({"model": "два слова"}, "model"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"attempt_timeout": float("nan")}, "attempt_timeout"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "строка"}, "x-client-request-id"),
        ({"metadata": [("Key", "value")]}, "Key"),
        ({"metadata": {"key": "value"}}, "metadata"),
    ],
)
def test_invalid_argument_is_rejected_by_name_before_sending(
    client: Any, emulator: Emulator, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        client.complete("Привет", **options)
    with pytest.raises(ValueError, match=name):
        client.stream("Привет", **options)
    assert emulator.requests == []


@pytest.mark.parametrize("prompt", ["", [], [{"role": "robot", "text": "Привет"}], "\ud83d"])
def test_invalid_prompt_is_rejected_before_sending(client: Any, emulator: Emulator, prompt: Any) -> None:
    with pytest.raises(ValueError, match=r"prompt"):
        client.complete(prompt)
    with pytest.raises(ValueError, match=r"prompt"):
        client.stream(prompt)
    assert emulator.requests == []


# stream


REVISED = "Байкал - самое глубокое озеро 🌊 мира."
PARTIALS = ["Байкал", "Байкал - самое большое", "Байкал - самое глубокое озеро \ufffd", ""]


def test_chunks_give_the_text_and_never_end_in_an_incomplete_character(client: Any, emulator: Emulator) -> None:
    emulator.reply(REVISED, partials=PARTIALS)
    shown, revisions = "", []
    with client.stream("Расскажи о Байкале") as stream:
        for chunk in stream:
            shown = shown[: chunk.keep] + chunk.delta
            assert shown == chunk.text
            assert not shown.endswith("\ufffd")
            revisions.append(chunk.revised)
            assert stream.partial.text == chunk.text
    assert shown == stream.completion.text == REVISED
    assert revisions == [False, False, True, True, False]
    assert emulator.requests[0].message.completion_options.stream is True


def test_chunks_are_received_before_the_stream_ends(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 2)
    with client.stream("Привет") as stream:
        assert next(stream).text == "раз"
        chunk = next(stream)
        assert chunk.delta == " два"
        assert chunk.status is yandexgpt.Status.PARTIAL
        assert chunk.usage.completion_tokens == 2
        assert emulator.requests[0].outcome is None


def test_finish_reads_the_rest_of_the_stream(client: Any, emulator: Emulator) -> None:
    with client.stream("раз два три") as stream:
        assert next(stream).text == "раз"
        completion = stream.finish()
        assert completion.text == "раз два три"
        assert completion == stream.completion == stream.partial == stream.finish()
        assert list(stream) == []
    (request,) = emulator.requests
    assert completion.request_id == stream.request_id == request.metadata["x-client-request-id"]
    assert completion.server_request_id == request.server_request_id
    assert completion.trace_id == request.trace_id
    assert completion.usage.total_tokens == 6
    assert request.wait() == "OK"


def test_completion_of_a_stream_is_available_only_after_its_end(client: Any) -> None:
    with client.stream("раз два три") as stream:
        nothing = stream.partial
        assert nothing is None
        with pytest.raises(yandexgpt.YandexGPTError, match=r"finish\(\)"):
            _ = stream.completion
        next(stream)
        assert stream.partial.text == "раз"
        with pytest.raises(yandexgpt.YandexGPTError, match=r"finish\(\)"):
            _ = stream.completion
    with pytest.raises(yandexgpt.YandexGPTError, match=r"finish\(\)"):
        _ = stream.completion
    with pytest.raises(yandexgpt.YandexGPTError):
        stream.finish()
    assert stream.partial.text == "раз"


def test_partial_and_completion_can_be_pickled(client: Any) -> None:
    with client.stream("раз два три") as stream:
        next(stream)
        assert pickle.loads(pickle.dumps(stream.partial)).text == "раз"
        completion = stream.finish()
    again = pickle.loads(pickle.dumps(completion))
    assert again == completion
    assert (again.request_id, again.server_request_id, again.trace_id) == (
        completion.request_id,
        completion.server_request_id,
        completion.trace_id,
    )


def test_stream_without_a_final_message_has_the_last_partial_as_completion(client: Any, emulator: Emulator) -> None:
    emulator.reply("", partials=["раз", "раз дв\ufffd"], final=False)
    with client.stream("Привет") as stream:
        chunks = list(stream)
    assert chunks[-1].text == stream.completion.text == "раз дв\ufffd"
    assert stream.completion.status is yandexgpt.Status.PARTIAL


def test_answer_without_a_message_is_an_error(client: Any, emulator: Emulator) -> None:
    emulator.reply("", final=False, times=2)
    with pytest.raises(yandexgpt.InternalServerError, match="without an answer"):
        client.complete("Привет")
    with client.stream("Привет") as stream, pytest.raises(yandexgpt.InternalServerError, match="without an answer"):
        stream.finish()


def test_text_yields_pieces_of_the_text(client: Any, emulator: Emulator) -> None:
    emulator.reply("Привет 🌊!", partials=["При", "Привет", "Привет", "Привет \ufffd"])
    with client.stream("Привет") as stream:
        pieces = list(stream.text())
    assert "".join(pieces) == stream.completion.text == "Привет 🌊!"
    assert "" not in pieces
    assert pieces[:2] == ["При", "вет"]


def test_text_raises_on_a_revision(client: Any, emulator: Emulator) -> None:
    emulator.reply("Байкал глубок", partials=["Байкал мелок"])
    with client.stream("Привет") as stream:
        pieces = stream.text()
        assert next(pieces) == "Байкал мелок"
        with pytest.raises(yandexgpt.RevisedError) as caught:
            next(pieces)
        assert caught.value.text == "Байкал глубок"
        assert caught.value.keep == len("Байкал ")
        assert stream.finish().text == "Байкал глубок"


def test_text_with_holdback_hides_revisions(client: Any, emulator: Emulator) -> None:
    emulator.reply("Байкал глубок", partials=["Байкал мелок", "Байкал г"])
    with client.stream("Привет") as stream:
        pieces = list(stream.text(holdback=5))
    assert "".join(pieces) == "Байкал глубок"


def test_stream_sends_no_request_before_it_is_read(client: Any, emulator: Emulator) -> None:
    with client.stream("Привет"):
        pass
    client.complete("Пока")
    assert [request.message.messages[0].text for request in emulator.requests] == ["Пока"]


def test_concurrent_streams_of_one_client(client: Any) -> None:
    streams = [client.stream(f"вызов номер {number}") for number in range(5)]
    rounds = [[next(stream).text for stream in streams] for _ in range(2)]
    assert rounds == [["вызов"] * 5, ["вызов номер"] * 5]
    assert [stream.finish().text for stream in streams] == [f"вызов номер {number}" for number in range(5)]


# Metadata


def test_call_sends_metadata(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, log_data=False, metadata=[("x-team", "a"), ("x-trace-bin", b"\0\xff")])
    client.complete("Привет", metadata=[("x-team", "b")], request_id="мой-id".encode().hex())
    metadata = emulator.requests[0].metadata
    assert metadata["authorization"] == "Api-Key emulator"
    assert metadata["x-folder-id"] == "emulator"
    assert metadata["x-client-request-id"] == "мой-id".encode().hex()
    assert metadata["x-client-attempt"] == "1"
    assert metadata["x-data-logging-enabled"] == "false"
    assert metadata.get_all("x-team") == ("a", "b")
    assert metadata["x-trace-bin"] == b"\0\xff"
    assert str(metadata["user-agent"]).startswith(f"yandexgpt-python/{yandexgpt.__version__} ")


def test_data_logging_header_is_not_sent_by_default(client: Any, emulator: Emulator) -> None:
    client.complete("Привет")
    assert "x-data-logging-enabled" not in emulator.requests[0].metadata


def test_every_call_has_a_unique_request_id(client: Any, emulator: Emulator) -> None:
    ids = [client.complete("Привет").request_id for _ in range(5)]
    assert len(set(ids)) == 5
    assert ids == [request.metadata["x-client-request-id"] for request in emulator.requests]
    assert client.complete("Привет", request_id="abc").request_id == "abc"


def test_iam_token_is_sent_as_a_bearer_token(factory: ClientFactory) -> None:
    with Emulator(authorization="Bearer t1.abc") as emulator:
        client = factory.client(emulator, credentials=IamToken(" t1.abc\n"))
        assert client.complete("Привет").text == "Привет"


def test_no_authorization_is_sent_without_credentials(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, credentials=NoCredentials())
    with pytest.raises(yandexgpt.AuthenticationError, match="authorization metadata is missing"):
        client.complete("Привет")
    assert "authorization" not in emulator.requests[0].metadata


def test_client_is_configured_by_the_environment(
    factory: ClientFactory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    assert factory.make().complete("Привет").text == "Привет"
    assert emulator.requests[0].metadata["x-folder-id"] == "emulator"


# Errors


def test_wrong_api_key_is_an_authentication_error(factory: ClientFactory) -> None:
    with Emulator(authorization="Api-Key right-one") as emulator:
        client = factory.client(emulator, credentials="wrong-one")
        with pytest.raises(yandexgpt.AuthenticationError) as caught:
            client.complete("Привет")
        error = caught.value
        assert error.code is grpc.StatusCode.UNAUTHENTICATED
        assert error.attempts == 1
        assert len(emulator.requests) == 1
        assert error.request_id == emulator.requests[0].metadata["x-client-request-id"]
        assert error.server_request_id == emulator.requests[0].server_request_id
        assert error.trace_id == emulator.requests[0].trace_id
        assert error.endpoint == emulator.endpoint
        assert isinstance(error.__cause__, grpc.RpcError)
        line = str(error)
        assert "\n" not in line
        assert error.request_id in line
        assert "check the API key" in line
        assert "unknown API key" in line
        for shown in (line, repr(error), repr(error.__cause__), str(client)):
            assert "wrong-one" not in shown


def test_error_can_be_pickled(client: Any, emulator: Emulator) -> None:
    emulator.fail("RESOURCE_EXHAUSTED", "довольно", after=1, retry_after=1.5)
    with client.stream("раз два три") as stream, pytest.raises(yandexgpt.QuotaExceededError) as caught:
        stream.finish()
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is yandexgpt.QuotaExceededError
    assert str(again) == str(caught.value)
    assert partial_of(again).text == "раз"
    assert again.retry_after == 1.5
    assert [type(detail).__name__ for detail in again.details] == [
        type(detail).__name__ for detail in caught.value.details
    ]


def test_invalid_argument_error_names_the_field(client: Any, emulator: Emulator) -> None:
    with pytest.raises(yandexgpt.InvalidArgumentError) as caught:
        client.complete("Привет", model="gpt://b1g0/")
    assert "model_uri" in str(caught.value)
    assert {type(detail).__name__ for detail in caught.value.details} == {"BadRequest", "RequestInfo"}
    assert emulator.requests[0].wait() == "INVALID_ARGUMENT"


def test_missing_folder_error_names_the_variables(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.make(credentials="key", endpoint=emulator.endpoint, tls=False)
    for call in (client.complete, client.stream):
        with pytest.raises(yandexgpt.ConfigurationError, match="YC_FOLDER_ID"):
            call("Привет")
    assert emulator.requests == []
    assert client.complete("Привет", model="gpt://b1g0/yandexgpt").text == "Привет"
    assert "x-folder-id" not in emulator.requests[0].metadata


def test_unreachable_host_is_unavailable(factory: ClientFactory, unused_endpoint: str) -> None:
    client = factory.make(folder_id="f", credentials="key", endpoint=unused_endpoint, tls=False, retry=FAST)
    for attempt in (client.complete, lambda prompt: client.stream(prompt).finish()):
        with pytest.raises(yandexgpt.UnavailableError) as caught:
            attempt("Привет")
        assert caught.value.attempts == 4
        assert unused_endpoint in str(caught.value)
        assert "check the endpoint" in str(caught.value)
        assert str(caught.value.request_id) in str(caught.value)
        assert caught.value.elapsed < PATIENCE


def test_unknown_host_is_unavailable(factory: ClientFactory) -> None:
    client = factory.make(
        folder_id="f",
        credentials="key",
        endpoint="no-such-host.invalid:443",
        timeout=10.0,
        retry=yandexgpt.Retry.none(),
    )
    with pytest.raises(yandexgpt.UnavailableError, match=r"no-such-host\.invalid"):
        client.complete("Привет")


def test_plaintext_is_rejected_for_remote_hosts(factory: ClientFactory) -> None:
    with pytest.raises(yandexgpt.ConfigurationError, match="loopback"):
        factory.make(folder_id="f", credentials="key", endpoint="192.0.2.1:50051", tls=False)


# close


def operations_of(client: Any) -> list[Callable[[], Any]]:
    return [
        lambda: client.complete("Привет"),
        lambda: client.stream("Привет"),
        lambda: client.connect(timeout=1.0),
        lambda: client.raw,
        lambda: client.with_options(timeout=1.0),
        client.__enter__,
    ]


def test_closed_client_raises_an_error(client: Any, emulator: Emulator) -> None:
    with client:
        stream = client.stream("Привет")
    client.close()
    calls: list[Callable[[], Any]] = [*operations_of(client), lambda: next(stream)]
    for use in calls:
        with pytest.raises(yandexgpt.ConfigurationError, match="closed"):
            use()
    assert emulator.requests == []


def test_close_cancels_a_call_in_another_thread(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 0)
    call = Background(client.complete, "Привет")
    (request,) = emulator.wait_for_requests(1)
    client.close()
    error = call.error()
    assert type(error) is yandexgpt.CancelledError
    assert "closed" in str(error)
    assert error.request_id == request.metadata["x-client-request-id"]
    assert request.wait() == "CANCELLED"


def test_close_cancels_streams_with_and_without_a_reader(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 1, times=2)
    read, unread = client.stream("Привет"), client.stream("Привет")
    assert [next(read).text, next(unread).text] == ["раз", "раз"]
    reader = Background(next, read)
    client.close()
    errors = [reader.error()]
    with pytest.raises(yandexgpt.CancelledError) as caught:
        next(unread)
    errors.append(caught.value)
    for error in errors:
        assert type(error) is yandexgpt.CancelledError
        assert partial_of(error).text == "раз"
        assert "closed" in str(error)
    assert [request.wait() for request in emulator.requests] == ["CANCELLED"] * 2


def test_close_cancels_a_wait_for_the_next_attempt(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=yandexgpt.Retry(initial=FOREVER, maximum=FOREVER, jitter=0), timeout=None)
    emulator.fail("UNAVAILABLE")
    call = Background(client.complete, "Привет")
    assert emulator.wait_for_requests(1)[0].wait() == "UNAVAILABLE"
    call.until_blocked()
    client.close()
    assert type(call.error()) is yandexgpt.CancelledError
    assert len(emulator.requests) == 1


def test_close_cancels_a_call_queued_by_max_concurrency(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, max_concurrency=1, timeout=None)
    stall_after(emulator, 1)
    stream = client.stream("Привет")
    next(stream)
    call = Background(client.complete, "Привет").until_blocked()
    client.close()
    assert type(call.error()) is yandexgpt.CancelledError
    assert len(emulator.requests) == 1


def test_close_cancels_a_wait_for_a_token(factory: ClientFactory, emulator: Emulator) -> None:
    asked, answer = threading.Event(), threading.Event()

    def provide() -> str:
        asked.set()
        answer.wait(PATIENCE)
        return "t1.abc"

    client = factory.client(emulator, credentials=TokenProvider(provide), timeout=None)
    call = Background(client.complete, "Привет")
    try:
        assert asked.wait(PATIENCE)
        call.until_blocked()
        client.close()
        assert type(call.error()) is yandexgpt.CancelledError
    finally:
        answer.set()
    assert emulator.requests == []


# with_options


def test_with_options_shares_the_connection(client: Any, emulator: Emulator) -> None:
    client.complete("раз")
    other = client.with_options(model="yandexgpt", timeout=5.0, folder_id="other", metadata=[("x-team", "a")])
    other.complete("два")
    client.complete("три")
    first, second, third = emulator.requests
    assert first.peer == second.peer == third.peer
    assert second.message.model_uri == "gpt://other/yandexgpt"
    assert second.metadata["x-folder-id"] == "other"
    assert second.metadata["x-team"] == "a"
    assert deadline_of(second) < 5.1
    assert third.message.model_uri == first.message.model_uri == "gpt://emulator/yandexgpt-lite"
    assert "x-team" not in third.metadata
    assert deadline_of(third) > 50


def test_with_options_opens_a_connection_for_other_channel_options(client: Any, emulator: Emulator) -> None:
    client.complete("раз")
    other = client.with_options(channel_options=[("grpc.primary_user_agent", "mine")])
    with other:
        other.complete("два")
        client.complete("три")
    client.complete("четыре")
    peers = [request.peer for request in emulator.requests]
    assert peers[0] == peers[2] == peers[3] != peers[1]
    other = client.with_options(channel_options=[("grpc.primary_user_agent", "mine")])
    client.close()
    assert other.complete("пять").text == "пять"
    other.close()


def test_close_closes_derived_clients(client: Any) -> None:
    other = client.with_options(model="yandexgpt")
    client.close()
    for use in operations_of(other):
        with pytest.raises(yandexgpt.ConfigurationError, match="closed"):
            use()


def test_close_of_a_derived_client_keeps_the_connection(client: Any, emulator: Emulator) -> None:
    client.complete("раз")
    stall_after(emulator, 1)
    stream = client.stream("Привет")
    next(stream)
    with client.with_options(model="yandexgpt") as other:
        other.complete("два")
    for use in operations_of(other):
        with pytest.raises(yandexgpt.ConfigurationError, match="closed"):
            use()
    assert emulator.requests[1].outcome is None
    client.complete("три")
    assert len({request.peer for request in emulator.requests}) == 1


def test_close_of_a_derived_client_cancels_its_own_calls(client: Any, emulator: Emulator) -> None:
    stall_after(emulator, 1)
    with client.with_options(model="yandexgpt") as other:
        stream = other.stream("Привет")
        next(stream)
    assert emulator.requests[0].wait(5.0) == "CANCELLED"
    with pytest.raises(yandexgpt.CancelledError, match="closed"):
        next(stream)


def test_with_options_validates_its_arguments(client: Any) -> None:
    with pytest.raises(yandexgpt.ConfigurationError, match="timeout"):
        client.with_options(timeout=-1)
    with pytest.raises(TypeError, match="temperature"):
        client.with_options(temperature=1)


# Stubs

RPCS = [
    ("text_generation_async", "Completion", "CompletionRequest"),
    ("text_generation_batch", "Completion", "BatchCompletionRequest"),
    ("tokenizer", "Tokenize", "TokenizeRequest"),
    ("tokenizer", "TokenizeCompletion", "CompletionRequest"),
    ("operations", "Get", "GetOperationRequest"),
    ("operations", "Cancel", "CancelOperationRequest"),
    ("iam_tokens", "Create", "CreateIamTokenRequest"),
]


def raw_request(name: str) -> Any:
    from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
    from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2
    from yandexgpt._proto.yandex.cloud.operation import operation_service_pb2

    for module in (text_generation_service_pb2, operation_service_pb2, iam_token_service_pb2):
        if hasattr(module, name):
            return getattr(module, name)()
    raise LookupError(name)


def a_request() -> Any:
    return yandexgpt.load_request(
        {"modelUri": "gpt://f/yandexgpt", "messages": [{"role": "user", "text": "раз два"}], "completionOptions": {}}
    )


def check_raw(emulator: Emulator, responses: list[Any]) -> None:
    assert responses[-1].alternatives[0].message.text == "раз два"
    metadata = emulator.requests[0].metadata
    assert metadata["authorization"] == "Api-Key emulator"
    assert metadata["x-folder-id"] == "emulator"
    assert metadata["x-team"] == "a"
    assert metadata["x-mine"] == "1"
    assert metadata["x-client-request-id"]
    assert emulator.requests[0].deadline is None


def test_stubs_send_the_metadata_of_the_client(emulator: Emulator) -> None:
    with emulator.client(metadata=[("x-team", "a")]) as client:
        stub = client.raw.text_generation
        responses = list(stub.Completion(a_request(), metadata=(("x-mine", "1"),)))
        check_raw(emulator, responses)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Completion(raw_request("CompletionRequest"), timeout=5.0))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert deadline_of(emulator.requests[1]) < 5.1
        assert client.raw.text_generation is stub


def test_async_stubs_send_the_metadata_of_the_client(emulator: Emulator) -> None:
    async def main() -> None:
        async with emulator.async_client(metadata=[("x-team", "a")]) as client:
            stub = client.raw.text_generation
            responses = [each async for each in stub.Completion(a_request(), metadata=[("x-mine", "1")])]
            check_raw(emulator, responses)
            with pytest.raises(grpc.RpcError) as caught:
                _ = [each async for each in stub.Completion(raw_request("CompletionRequest"), timeout=5.0)]
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert deadline_of(emulator.requests[1]) < 5.1
            assert client.raw.text_generation is stub

    run_loop(main)


@pytest.mark.parametrize(("service", "method", "request_type"), RPCS)
def test_every_stub_method_calls_the_server(emulator: Emulator, service: str, method: str, request_type: str) -> None:
    async def main() -> Any:
        async with emulator.async_client() as client:
            with pytest.raises(grpc.RpcError) as caught:
                await getattr(getattr(client.raw, service), method)(raw_request(request_type))
            return caught.value.code()

    with emulator.client() as client, pytest.raises(grpc.RpcError) as caught:
        getattr(getattr(client.raw, service), method)(raw_request(request_type))
    assert caught.value.code() is run_loop(main)
    assert caught.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT)


def test_stubs_send_a_token_of_the_provider(emulator: Emulator) -> None:
    credentials = TokenProvider(lambda: "t1.abc")

    async def main() -> None:
        async with emulator.async_client(credentials=credentials) as client:
            _ = [each async for each in client.raw.text_generation.Completion(a_request())]

    with emulator.client(credentials=credentials) as client:
        list(client.raw.text_generation.Completion(a_request()))
    run_loop(main)
    assert [request.metadata["authorization"] for request in emulator.requests] == ["Bearer t1.abc"] * 2


def test_close_cancels_calls_of_the_stubs(emulator: Emulator) -> None:
    stall_after(emulator, 1, times=2)
    request = a_request()
    request.completion_options.stream = True

    async def main() -> None:
        async with emulator.async_client() as client:
            call = client.raw.text_generation.Completion(request, timeout=PATIENCE)
            assert (await anext(aiter(call))).alternatives[0].message.text == "раз"

    with emulator.client() as client:
        call = client.raw.text_generation.Completion(request, timeout=PATIENCE)
        assert next(call).alternatives[0].message.text == "раз"
    run_loop(main)
    assert [each.wait(5.0) for each in emulator.requests] == ["CANCELLED"] * 2


# Interceptors and channel options


class Details(grpc.ClientCallDetails):
    def __init__(self, details: Any) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = (*details.metadata, ("x-marked", "sync"))
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready


class SyncMark(grpc.UnaryStreamClientInterceptor):
    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(Details(client_call_details), request)


class AsyncMark(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*client_call_details.metadata, ("x-marked", "async"))
        return await continuation(client_call_details._replace(metadata=metadata), request)


@pytest.fixture
def marked(factory: ClientFactory, emulator: Emulator) -> Any:
    interceptor = SyncMark() if factory.kind == "sync" else AsyncMark()
    return factory.client(emulator, interceptors=[interceptor])


def test_interceptors_see_every_attempt(factory: ClientFactory, emulator: Emulator, marked: Any) -> None:
    emulator.fail("UNAVAILABLE")
    assert marked.complete("раз два").text == "раз два"
    with marked.stream("раз два") as stream:
        assert [chunk.text for chunk in stream] == ["раз", "раз два", "раз два"]
    assert [request.metadata["x-marked"] for request in emulator.requests] == [factory.kind] * 3


def test_errors_and_cancellation_work_with_interceptors(emulator: Emulator, marked: Any) -> None:
    emulator.fail("NOT_FOUND", "нет такого", after=1)
    with marked.stream("раз два") as stream, pytest.raises(yandexgpt.NotFoundError, match="нет такого") as caught:
        stream.finish()
    assert partial_of(caught.value).text == "раз"
    emulator.clear()
    stall_after(emulator, 1)
    with marked.stream("раз два") as stream:
        next(stream)
    assert emulator.requests[0].wait(5.0) == "CANCELLED"
    stall_after(emulator, 0)
    call = Background(marked.complete, "Привет")
    request = emulator.wait_for_requests(2)[1]
    marked.close()
    assert type(call.error()) is yandexgpt.CancelledError
    assert request.wait(5.0) == "CANCELLED"


def test_channel_options_override_defaults(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, channel_options=[("grpc.primary_user_agent", "mine/1")])
    client.complete("Привет")
    assert str(emulator.requests[0].metadata["user-agent"]).startswith("mine/1 ")


def test_answer_above_the_size_limit_is_not_retried(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, channel_options=[("grpc.max_receive_message_length", 1000)])
    with pytest.raises(yandexgpt.InternalServerError, match="larger than max") as caught:
        client.complete("слово " * 1000)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.attempts == len(emulator.requests) == 1


def test_answer_of_several_megabytes_is_received(client: Any, emulator: Emulator) -> None:
    text = "слово " * 800_000
    emulator.reply(text)
    assert client.complete("Привет").text == text


# TLS


def test_tls_with_the_right_authority(factory: ClientFactory) -> None:
    with Emulator(tls=True) as emulator:
        client = factory.client(emulator)
        assert client.complete("раз два").text == "раз два"
        with client.stream("раз два") as stream:
            assert stream.finish().text == "раз два"


def test_tls_with_the_wrong_authority_is_a_clear_error(factory: ClientFactory, tmp_path: Path) -> None:
    bundle = tmp_path / "other.pem"
    bundle.write_bytes(issue().authority)
    with Emulator(tls=True) as emulator:
        client = factory.client(emulator, tls=str(bundle), timeout=10.0)
        with pytest.raises(yandexgpt.UnavailableError, match=r"(?i)certificate") as caught:
            client.complete("Привет")
        assert "TLS" in str(caught.value)
        assert emulator.requests == []
        with pytest.raises(yandexgpt.UnavailableError):
            client.connect(timeout=0.5)


def test_missing_certificate_bundle_is_a_configuration_error(factory: ClientFactory, tmp_path: Path) -> None:
    with pytest.raises(yandexgpt.ConfigurationError, match=r"no-such\.pem"):
        factory.make(credentials="key", tls=tmp_path / "no-such.pem")


def test_tls_with_a_plaintext_server_is_unavailable(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, tls=True, timeout=10.0)
    with pytest.raises(yandexgpt.UnavailableError, match="TLS"):
        client.complete("Привет")


# connect, repr, pickling, reconnection


def test_connect_opens_the_connection_before_the_first_call(factory: ClientFactory, emulator: Emulator) -> None:
    with FaultProxy(upstream=emulator.endpoint) as proxy:
        client = factory.client(emulator, endpoint=proxy.endpoint)
        assert proxy.connections == 0
        client.connect(timeout=10.0)
        assert proxy.connections == 1
        client.connect()
        client.complete("Привет")
        assert proxy.connections == 1
        assert len(emulator.requests) == 1
        client.close()


def test_connect_error_names_the_unreachable_endpoint(factory: ClientFactory, unused_endpoint: str) -> None:
    client = factory.make(credentials="key", endpoint=unused_endpoint, tls=False)
    started = time.monotonic()
    with pytest.raises(yandexgpt.UnavailableError, match=unused_endpoint) as caught:
        client.connect(timeout=0.3)
    assert time.monotonic() - started >= 0.3
    assert caught.value.elapsed >= 0.3
    for timeout in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            client.connect(timeout=timeout)


def test_connect_uses_the_timeout_of_the_client(factory: ClientFactory, unused_endpoint: str) -> None:
    client = factory.make(credentials="key", endpoint=unused_endpoint, tls=False, timeout=0.3)
    with pytest.raises(yandexgpt.UnavailableError):
        client.connect()


def test_close_cancels_connect(factory: ClientFactory, emulator: Emulator) -> None:
    with FaultProxy(upstream=emulator.endpoint) as proxy:
        proxy.inject(Fault("stall", after="connect"), times=None)
        client = factory.client(emulator, endpoint=proxy.endpoint, timeout=PATIENCE)
        call = Background(client.connect)
        until(lambda: proxy.connections)
        started = time.monotonic()
        client.close()
        error = call.error()
        assert time.monotonic() - started < PATIENCE / 2
        assert type(error) is yandexgpt.CancelledError
        assert "closed" in str(error)


def test_repr_of_a_client_shows_its_endpoint_and_no_secret(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, credentials="secret-key", metadata=[("x-password", "hunter2")])
    shown = repr(client)
    assert emulator.endpoint in shown
    assert "yandexgpt-lite" in shown
    assert "emulator" in shown
    assert "secret-key" not in shown
    assert "hunter2" not in shown


def test_client_cannot_be_pickled_or_copied(client: Any) -> None:
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="pickled or copied"):
            way(client)


def test_broken_connection_is_opened_again(factory: ClientFactory, emulator: Emulator) -> None:
    with FaultProxy(upstream=emulator.endpoint) as proxy:
        client = factory.client(emulator, endpoint=proxy.endpoint)
        for number in range(3):
            assert client.complete("Привет").text == "Привет"
            assert proxy.connections == number + 1
            proxy.break_all(fin=number == 1)
        assert client.complete("Привет").text == "Привет"
        client.close()


def test_call_succeeds_after_the_server_restarts(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, retry=yandexgpt.Retry(attempts=1000, initial=0.1, maximum=0.1, budget=None))
    client.complete("раз")
    emulator.stop()
    call = Background(client.complete, "два").until_blocked()
    emulator.start()
    assert call.result().text == "два"


def test_text_continues_after_chunks_already_read(client: Any) -> None:
    stream = client.stream("раз два три")
    assert next(stream).text == "раз"
    assert "".join(stream.text()) == " два три"
    assert list(stream.text()) == []
    assert list(stream) == []


def test_text_continues_after_an_earlier_text_iterator(client: Any) -> None:
    stream = client.stream("раз два три четыре")
    pieces = stream.text(holdback=2)
    first = next(pieces)
    assert first == "р"
    rest = "".join(stream.text(holdback=3))
    assert first + rest == "раз два три четыре"
    assert stream.finish().text == "раз два три четыре"
    assert list(stream.text()) == []


class OneMessage(grpc.GenericRpcHandler):
    """Sends one message without metadata, and then nothing."""

    def __init__(self) -> None:
        self.peers: list[str] = []
        self.over = threading.Event()

    def service(self, details: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(self.serve)

    def serve(self, _: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.peers.append(context.peer())
        alternatives = [{"message": {"role": "assistant", "text": "раз"}, "status": 1}]
        yield CompletionResponse(alternatives=alternatives).SerializeToString()
        self.over.wait(PATIENCE)


def test_connection_with_a_received_message_is_kept_after_a_deadline(factory: ClientFactory) -> None:
    service = OneMessage()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = factory.make(endpoint=f"127.0.0.1:{port}", tls=False, credentials=NoCredentials(), folder_id="b1g0")
    for _ in range(2):
        with pytest.raises(yandexgpt.DeadlineExceededError) as caught:
            client.stream("Привет", timeout=2.0).finish()
        assert partial_of(caught.value).text == "раз"
    service.over.set()
    server.stop(None).wait()
    assert len(set(service.peers)) == 1
