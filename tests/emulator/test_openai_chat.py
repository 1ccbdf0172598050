"""The OpenAI API of the emulator: Chat Completions, disconnected clients, models and credentials."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from driver import FOREVER, stall_after, until
from openai_api import CHAT, KEY, MODEL, RESPONSES, OpenAiApi, chat_body, choice_of, deltas

from yandexgpt.emulator import Emulator

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Погода",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    },
}


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator(http_port=0) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    running.clear()
    return running


@pytest.fixture
def api(emulator: Emulator) -> OpenAiApi:
    return OpenAiApi(emulator)


# Answers


def test_an_answer_is_a_chat_completion(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("Ответ", usage={"input_tokens": 7, "completion_tokens": 5, "reasoning_tokens": 2})
    answer = api.chat()
    assert answer.status == 200
    body = answer.body
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "chat.completion",
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Ответ", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 5,
            "total_tokens": 12,
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }
    assert answer.headers["x-request-id"] == emulator.requests[0].server_request_id


def test_every_option_is_forwarded(api: OpenAiApi, emulator: Emulator) -> None:
    messages = [
        {"role": "system", "content": "Система"},
        {"role": "developer", "content": "Разработчик"},
        {"role": "user", "content": [{"type": "text", "text": "раз"}, {"type": "text", "text": "два"}]},
        {"role": "assistant", "content": "три", "refusal": None, "annotations": [], "audio": None, "parsed": {"a": 1}},
        {"role": "assistant", "content": None, "refusal": "не буду"},
        {"role": "user", "content": ""},
    ]
    api.chat(
        messages,
        temperature=0.5,
        max_completion_tokens=10,
        max_tokens=10,
        reasoning_effort="low",
        tools=[WEATHER],
        tool_choice="auto",
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        n=1,
        top_p=1.0,
        stop=None,
        logit_bias={},
        frequency_penalty=0,
        user="u",
        metadata={"a": "b"},
        store=True,
    )
    request = emulator.requests[0].message
    assert request.model_uri == MODEL
    assert [(message.role, message.text) for message in request.messages] == [
        ("system", "Система"),
        ("system", "Разработчик"),
        ("user", "раз\nдва"),
        ("assistant", "три"),
        ("assistant", "не буду"),
        ("user", ""),
    ]
    options = request.completion_options
    assert (options.stream, options.temperature.value, options.max_tokens.value) == (False, 0.5, 10)
    assert options.reasoning_options.mode == 2
    assert [tool.function.name for tool in request.tools] == ["weather"]
    assert (request.tools[0].function.description, request.tools[0].function.strict) == ("Погода", True)
    assert dict(request.json_schema.schema) == {"type": "object"}
    assert request.HasField("parallel_tool_calls")
    assert not request.parallel_tool_calls.value
    assert request.tool_choice.mode == 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [("FINAL", "stop"), ("TRUNCATED_FINAL", "length"), ("CONTENT_FILTER", "content_filter"), (42, "stop")],
)
def test_the_status_is_the_finish_reason(api: OpenAiApi, emulator: Emulator, status: Any, reason: str) -> None:
    emulator.reply("Ответ", partials=["От"], status=status, times=2)
    choice = api.chat().body["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Ответ", reason)
    chunks = api.chunks()
    assert [choice["finish_reason"] for chunk in chunks if "finish_reason" in (choice := choice_of(chunk) or {})] == [
        reason
    ]


def test_tool_calls_and_results_work(api: OpenAiApi, emulator: Emulator) -> None:
    calls = [{"name": "weather", "arguments": {"city": "Москва", "days": 3}}, {"name": "time", "arguments": {}}]
    emulator.reply(tool_calls=calls)
    message = api.chat(tools=[WEATHER]).body["choices"][0]["message"]
    assert message["content"] is None
    called = [(call["type"], call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]
    assert called == [("function", "weather", '{"city": "Москва", "days": 3}'), ("function", "time", "{}")]
    first, second = (call["id"] for call in message["tool_calls"])
    assert first != second

    results = [
        {"role": "tool", "tool_call_id": second, "content": "полдень"},
        {"role": "tool", "tool_call_id": first, "content": [{"type": "text", "text": "+20"}]},
    ]
    answer = api.chat([{"role": "user", "content": "?"}, message, *results])
    assert answer.body["choices"][0]["message"]["content"] == "+20\nполдень", "in the order of the calls"
    sent = emulator.requests[-1].message.messages
    assert [call.function_call.name for call in sent[1].tool_call_list.tool_calls] == ["weather", "time"]
    assert dict(sent[1].tool_call_list.tool_calls[0].function_call.arguments) == {"city": "Москва", "days": 3}
    assert len(sent) == 3


def test_a_tool_is_chosen_by_name(api: OpenAiApi, emulator: Emulator) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    body = api.chat(tools=[WEATHER], tool_choice=choice).body
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert emulator.requests[0].message.tool_choice.function_name == "weather"


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ({"type": "text"}, "раз"),
        ({"type": "json_object"}, '{"answer": "раз"}'),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "integer"}}},
            "0",
        ),
    ],
)
def test_answer_has_the_requested_format(api: OpenAiApi, form: Any, content: str) -> None:
    assert api.chat("раз", response_format=form).body["choices"][0]["message"]["content"] == content


# Streams


def test_stream_has_chunks_and_done(api: OpenAiApi, emulator: Emulator) -> None:
    chunks = api.chunks()
    assert chunks.pop() == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}}],
        [{"index": 0, "delta": {"content": "раз"}}],
        [{"index": 0, "delta": {"content": " два"}}],
        [{"index": 0, "delta": {"content": " три"}}],
        [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}],
    ]
    assert not any("usage" in chunk for chunk in chunks)
    assert emulator.requests[0].message.completion_options.stream


def test_usage_is_the_last_chunk_if_requested(api: OpenAiApi) -> None:
    *chunks, last, done = api.chunks(stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 6
    assert not any("usage" in chunk for chunk in chunks)


def test_tool_calls_are_streamed(api: OpenAiApi, emulator: Emulator) -> None:
    calls = [{"name": "weather", "arguments": {"city": "Москва"}}, {"name": "time", "arguments": {}}]
    emulator.reply(partials=["Смотрю", "Смотрю"], tool_calls=calls)
    chunks = api.chunks(tools=[WEATHER])
    assert deltas(chunks) == ["Смотрю"]
    called = [call for chunk in chunks if choice_of(chunk) for call in choice_of(chunk)["delta"].get("tool_calls", ())]
    assert [(call["index"], call["function"]["name"]) for call in called] == [(0, "weather"), (1, "time")]
    assert json.loads(called[0]["function"]["arguments"]) == {"city": "Москва"}
    assert choice_of(chunks[-2])["finish_reason"] == "tool_calls"


def test_incomplete_character_is_not_sent(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("Да 👍!", partials=["Да \ufffd", "Да \ufffd", "Да 👍"])
    assert deltas(api.chunks()) == ["Да ", "👍", "!"]


def test_text_changed_by_the_next_message_is_not_sent(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("Привет, мир", partials=["Привед", "Привет", "Привет, "])
    assert deltas(api.chunks()) == ["Приве", "т", ", ", "мир"]


def test_contradicting_partial_is_skipped(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("раз два три", partials=["раз", "раз два", "раз два", "раз дв", "раз", "раз два т"])
    assert deltas(api.chunks()) == ["раз", " два", " т", "ри"]


def test_answer_that_contradicts_sent_text_is_an_error(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("другое", partials=["раз", "раз два"])
    *chunks, last = api.chunks()
    assert deltas(chunks) == ["раз"]
    assert last == {
        "error": {
            "message": "the service took back text that was already sent; ask again without stream",
            "type": "server_error",
            "param": None,
            "code": "internal",
        }
    }


def test_text_of_the_content_filter_is_the_last_chunk(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("Не буду", partials=["раз", "раз два"], status="CONTENT_FILTER")
    chunks = api.chunks()
    assert deltas(chunks) == ["раз", "Не буду"]
    assert choice_of(chunks[-2]) == {"index": 0, "delta": {"content": "Не буду"}, "finish_reason": "content_filter"}


def test_incomplete_answer_is_an_error(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply(partials=["раз", "раз \ufffd"], final=False)
    *chunks, last = api.chunks()
    assert deltas(chunks) == ["раз", " "]
    assert last["error"]["message"] == "the service ended its answer without a last message"
    emulator.reply("раз", status="PARTIAL")
    assert api.chat().blamed == (500, "internal", None)


def test_missing_answer_is_an_error(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply(final=False, times=2)
    assert api.chat(stream=True).blamed == (500, "internal", None)
    assert api.chat().blamed == (500, "internal", None)


def test_failure_before_the_first_message_has_an_http_status(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE", "перерыв")
    answer = api.chat(stream=True)
    assert answer.blamed == (503, "unavailable", None)
    assert answer.error["message"] == "перерыв"


def test_later_failure_is_the_last_event(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("раз два три", partials=["раз", "раз два"])
    emulator.fail("RESOURCE_EXHAUSTED", "хватит", after=2)
    *chunks, last = api.chunks()
    assert deltas(chunks) == ["раз", " два"], "what was held back comes before the error"
    assert last["error"] == {
        "message": "хватит",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }


def test_chunks_are_sent_immediately(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("раз два три", partials=["раз", "раз два"])
    emulator.fail("UNAVAILABLE", after=2, delay=FOREVER)
    with api.stream(CHAT, chat_body()) as stream:
        events = iter(stream)
        assert [choice_of(next(events).data)["delta"].get("content") for _ in range(2)] == ["", "раз"]
        assert emulator.requests[0].outcome is None
    assert emulator.requests[0].wait() == "CANCELLED"


# Disconnected clients


@pytest.mark.parametrize("partials", [0, 1, 2])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_disconnect_cancels_a_streamed_call(api: OpenAiApi, emulator: Emulator, path: str, partials: int) -> None:
    stall_after(emulator, partials)
    body = chat_body(stream=True) if path == CHAT else {"model": MODEL, "input": "раз", "stream": True}
    connection = api.send("POST", path, body)
    if partials:
        connection.getresponse().readline()
    (request,) = emulator.wait_for_requests(1)
    until(lambda: request.sent == partials)
    connection.close()
    assert request.wait() == "CANCELLED"
    until(lambda: emulator.in_flight == 0)


def test_disconnect_cancels_a_unary_call(api: OpenAiApi, emulator: Emulator) -> None:
    stall_after(emulator, 0)
    connection = api.send("POST", CHAT, chat_body())
    (request,) = emulator.wait_for_requests(1)
    connection.close()
    assert request.wait() == "CANCELLED"


def test_disconnect_during_the_request_makes_no_call(api: OpenAiApi, emulator: Emulator) -> None:
    connection = api.send("GET", "/v1/models")
    connection.getresponse().read()
    connection.putrequest("POST", CHAT)
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"{")
    assert isinstance(connection.sock, socket.socket)
    connection.close()
    assert api.chat().status == 200
    assert len(emulator.requests) == 1


# Models, folders, credentials


def test_models_are_those_of_the_folder(api: OpenAiApi) -> None:
    body = api.ask("GET", "/v1/models", headers={**KEY, "OpenAI-Project": "b1g"}).body
    assert body["object"] == "list"
    assert "gpt://b1g/yandexgpt-lite/latest" in [model["id"] for model in body["data"]]
    assert {model["object"] for model in body["data"]} == {"model"}
    assert api.ask("GET", "/v1/models").body["data"][0]["id"] == "gpt://emulator/yandexgpt/latest"
    assert api.ask("GET", "/v1/models", headers={}).blamed == (401, "invalid_api_key", None)


@pytest.mark.parametrize(
    ("headers", "uri"),
    [
        ({"OpenAI-Project": "b1g"}, "gpt://b1g/yandexgpt"),
        ({"x-folder-id": "b1h"}, "gpt://b1h/yandexgpt"),
        ({"OpenAI-Project": "b1g", "x-folder-id": "b1h"}, "gpt://b1g/yandexgpt"),
    ],
)
def test_model_name_is_completed_with_the_folder(
    api: OpenAiApi, emulator: Emulator, headers: dict[str, str], uri: str
) -> None:
    answer = api.chat(headers={**KEY, **headers}, model="yandexgpt")
    assert answer.body["model"] == uri
    assert emulator.requests[0].message.model_uri == uri
    assert emulator.requests[0].metadata["x-folder-id"] == uri.split("/")[2]


def test_model_name_without_a_folder_is_rejected(api: OpenAiApi, emulator: Emulator) -> None:
    answer = api.chat(model="yandexgpt")
    assert answer.blamed == (400, "invalid_value", "model")
    assert "OpenAI-Project" in answer.error["message"]
    assert api.chat(model=None).blamed == (400, "invalid_value", "model")
    assert emulator.requests == []
    for model in ("gpt://folder", "gpt:// /", "://"):
        assert api.chat(model=model).blamed == (400, "invalid_value", "model")
    assert [request.wait() for request in emulator.requests] == ["INVALID_ARGUMENT"] * 3


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("Bearer AQVN-key", "Api-Key AQVN-key"),
        ("bearer AQVN-key", "Api-Key AQVN-key"),
        ("Api-Key AQVN-key", "Api-Key AQVN-key"),
        ("api-key AQVN-key", "Api-Key AQVN-key"),
        ("Bearer t1.token", "Bearer t1.token"),
    ],
)
def test_api_key_and_iam_token_are_distinguished(api: OpenAiApi, emulator: Emulator, given: str, passed: str) -> None:
    assert api.chat(headers={"Authorization": given}).status == 200
    assert emulator.requests[0].metadata["authorization"] == passed


def test_headers_are_forwarded_as_metadata(api: OpenAiApi, emulator: Emulator) -> None:
    sent = {
        "x-data-logging-enabled": "false",
        "x-client-request-id": "id",
        "x-client-trace-id": "trace",
        "idempotency-key": "key",
    }
    api.chat(headers={**KEY, **sent})
    metadata = emulator.requests[0].metadata
    assert {name: metadata[name] for name in sent} == sent
    assert metadata["x-emulator-face"] == "openai"


def test_credentials_are_checked_by_the_service() -> None:
    with Emulator(http_port=0, authorization="Bearer secret") as emulator:
        api = OpenAiApi(emulator)
        for headers in ({}, {"Authorization": "Basic secret"}, {"Authorization": "Bearer other"}):
            answer = api.chat(headers=headers)
            assert answer.blamed == (401, "invalid_api_key", None), answer
            assert answer.headers["x-request-id"] == emulator.requests[-1].server_request_id
        assert api.chat(headers={"Authorization": "Bearer secret"}).status == 200
        token = emulator.identity.issue()
        assert api.chat(headers={"Authorization": f"Bearer {token}"}).status == 200
        emulator.identity.revoke(token)
        assert api.chat(headers={"Authorization": f"Bearer {token}"}).status == 401


def test_non_ascii_header_is_rejected(api: OpenAiApi) -> None:
    answer = api.chat(headers={**KEY, "x-client-request-id": "\xe9"})
    assert answer.blamed == (400, "invalid_value", "x-client-request-id")
