"""The OpenAI API of the emulator: Responses, unary, streamed, in the background and stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from driver import until
from openai_api import KEY, MODEL, RESPONSES, OpenAiApi

from yandexgpt.emulator import Emulator

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Погода",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
CANCEL = "/yandex.cloud.operation.OperationService/Cancel"
GET = "/yandex.cloud.operation.OperationService/Get"
SUBMIT = "/yandex.cloud.ai.foundation_models.v1.TextGenerationAsyncService/Completion"


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator(http_port=0) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    running.clear()
    running.operations.time = 3600.0
    return running


@pytest.fixture
def api(emulator: Emulator) -> OpenAiApi:
    return OpenAiApi(emulator)


def retrieve(api: OpenAiApi, response_id: str, headers: dict[str, str] | None = None) -> Any:
    return api.ask("GET", f"{RESPONSES}/{response_id}", headers=headers)


def text_of(response: Any) -> str:
    (message,) = response["output"]
    assert message["type"] == "message"
    return "".join(part.get("text", "") for part in message["content"])


# Unary


def test_an_answer_is_a_response(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("Ответ", usage={"input_tokens": 7, "completion_tokens": 5, "reasoning_tokens": 2})
    answer = api.respond(instructions="Кратко", temperature=0.8, max_output_tokens=1500, metadata={"a": "b"})
    body = answer.body
    response_id = body.pop("id")
    assert response_id.startswith("resp_")
    assert isinstance(body.pop("created_at"), int)
    assert body == {
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": MODEL,
        "output": [
            {
                "id": f"msg_{response_id}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Ответ", "annotations": [], "logprobs": []}],
            }
        ],
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 12,
        },
        "instructions": "Кратко",
        "max_output_tokens": 1500,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 0.8,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }
    (request,) = emulator.requests
    assert answer.headers["x-request-id"] == request.server_request_id
    options = request.message.completion_options
    assert (options.stream, options.temperature.value, options.max_tokens.value) == (False, 0.8, 1500)
    assert [(message.role, message.text) for message in request.message.messages] == [
        ("system", "Кратко"),
        ("user", "раз два три"),
    ]
    assert request.metadata["x-emulator-face"] == "openai"


def test_every_option_is_forwarded(api: OpenAiApi, emulator: Emulator) -> None:
    items = [
        {"role": "developer", "content": "Кратко"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "раз"}]},
    ]
    api.respond(
        items,
        reasoning={"effort": "high"},
        text={"format": {"type": "json_schema", "name": "n", "strict": True, "schema": {"type": "integer"}}},
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=False,
        truncation="disabled",
        include=[],
        top_p=1,
        user="u",
    )
    request = emulator.requests[0].message
    assert [(message.role, message.text) for message in request.messages] == [("system", "Кратко"), ("user", "раз")]
    assert request.completion_options.reasoning_options.mode == 2
    assert dict(request.json_schema.schema) == {"type": "integer"}
    assert request.tools[0].function.name == request.tool_choice.function_name == "weather"
    assert request.HasField("parallel_tool_calls")


@pytest.mark.parametrize(
    ("status", "reported", "details"),
    [
        ("FINAL", "completed", None),
        ("TRUNCATED_FINAL", "incomplete", {"reason": "max_output_tokens"}),
        ("CONTENT_FILTER", "incomplete", {"reason": "content_filter"}),
        ("PARTIAL", "incomplete", {"reason": None}),
    ],
)
def test_status_is_returned(api: OpenAiApi, emulator: Emulator, status: str, reported: str, details: Any) -> None:
    emulator.reply("Ответ", status=status, times=2)
    body = api.respond().body
    assert (body["status"], body["incomplete_details"], text_of(body)) == (reported, details, "Ответ")
    last = api.events()[-1]
    assert last["type"] == f"response.{reported}"
    assert (last["response"]["incomplete_details"], text_of(last["response"])) == (details, "Ответ")


def test_tool_calls_and_results_work(api: OpenAiApi, emulator: Emulator) -> None:
    calls = [{"name": "weather", "arguments": {"city": "Москва"}}, {"name": "time", "arguments": {}}]
    emulator.reply(tool_calls=calls)
    output = api.respond(tools=[WEATHER]).body["output"]
    assert [(item["type"], item["name"], json.loads(item["arguments"])) for item in output] == [
        ("function_call", "weather", {"city": "Москва"}),
        ("function_call", "time", {}),
    ]
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": item["name"]}
        for item in reversed(output)
    ]
    answer = api.respond([{"role": "user", "content": "?"}, *output, *results])
    assert text_of(answer.body) == "weather\ntime", "in the order of the calls"


# Streamed


def test_stream_has_events(api: OpenAiApi, emulator: Emulator) -> None:
    events = api.events()
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    created, in_progress, added, part_added, *pieces, text_done, part_done, done, completed = events
    assert created["response"] == in_progress["response"]
    assert (created["response"]["status"], created["response"]["output"]) == ("in_progress", [])
    assert (added["item"]["status"], added["item"]["content"]) == ("in_progress", [])
    assert part_added["part"]["text"] == ""
    assert [piece["delta"] for piece in pieces] == ["раз", " два", " три"]
    assert text_done["text"] == part_done["part"]["text"] == "раз два три"
    assert {event["item_id"] for event in (part_added, *pieces, text_done, part_done)} == {added["item"]["id"]}
    assert completed["response"]["output"] == [done["item"]]
    assert completed["response"]["usage"]["total_tokens"] == 6
    assert completed["response"]["id"] == created["response"]["id"]
    assert emulator.requests[0].message.completion_options.stream


def test_stream_ends_with_the_same_response_as_a_unary_answer(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("Ответ", partials=["От"], times=2)
    whole = api.respond().body
    streamed = api.events()[-1]["response"]
    for body in (whole, streamed):
        response_id = body.pop("id")
        assert body["output"][0].pop("id") == f"msg_{response_id}"
        body.pop("created_at")
    assert streamed == whole


def test_an_empty_answer_is_an_empty_message(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("", times=2)
    assert text_of(api.respond().body) == ""
    events = api.events()
    assert text_of(events[-1]["response"]) == ""
    assert "response.output_text.delta" not in [event["type"] for event in events]


def test_tool_calls_are_streamed(api: OpenAiApi, emulator: Emulator) -> None:
    calls = [{"name": "weather", "arguments": {"city": "Москва"}}, {"name": "time", "arguments": {}}]
    emulator.reply(partials=["Смотрю", "Смотрю"], tool_calls=calls)
    events = api.events(tools=[WEATHER])
    reported = [event for event in events if "function_call" in event["type"]]
    assert [event["type"].rpartition(".")[2] for event in reported] == ["delta", "done"] * 2
    assert [event["output_index"] for event in reported] == [1, 1, 2, 2]
    assert [json.loads(event["arguments"]) for event in reported[1::2]] == [{"city": "Москва"}, {}]
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in added] == ["message", "function_call", "function_call"]
    assert [item["id"] for item in added] == [item["id"] for item in done]
    assert [item["status"] for item in added] == ["in_progress"] * 3
    assert added[1]["arguments"] == ""
    assert events[-1]["response"]["output"] == done


def test_text_of_the_content_filter_is_a_refusal(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("Не буду", partials=["раз", "раз два"], status="CONTENT_FILTER")
    events = api.events()
    assert events[-1]["type"] == "response.incomplete"
    (message,) = events[-1]["response"]["output"]
    assert [part.get("text") or part["refusal"] for part in message["content"]] == ["раз", "Не буду"]
    assert [event["content_index"] for event in events if event["type"].startswith("response.refusal")] == [1, 1]
    following = api.respond("два", previous_response_id=events[-1]["response"]["id"])
    assert following.status == 200
    assert emulator.requests[-1].message.messages[1].text == "раз\nНе буду"


def test_answer_that_contradicts_sent_text_fails(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("другое", partials=["раз", "раз два"])
    last = api.events()[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"]["code"] == "server_error"
    assert text_of(last["response"]) == "раз"
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert retrieve(api, last["response"]["id"]).status == 404, "it is not kept"


@pytest.mark.parametrize(
    ("code", "reported"),
    [("UNAVAILABLE", "server_error"), ("RESOURCE_EXHAUSTED", "rate_limit_exceeded")],
)
def test_failure_during_the_stream_is_reported(api: OpenAiApi, emulator: Emulator, code: str, reported: str) -> None:
    emulator.reply("раз два три", partials=["раз", "раз два"])
    emulator.fail(code, "слова", after=2)
    last = api.events()[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": reported, "message": "слова"}
    assert text_of(last["response"]) == "раз два", "what was held back comes before the error"


def test_failure_before_any_text_has_no_output(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply("👍", partials=["\ufffd"])
    emulator.fail("UNAVAILABLE", after=1)
    events = api.events()
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.failed"]
    assert events[-1]["response"]["output"] == []


def test_failure_before_the_first_message_has_an_http_status(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.fail("PERMISSION_DENIED", times=2)
    for stream in (False, True):
        assert api.respond(stream=stream).blamed == (403, "permission_denied", None)


# In the background


def test_background_response_is_an_operation(api: OpenAiApi, emulator: Emulator) -> None:
    answer = api.respond(background=True, metadata={"a": "b"}, temperature=0.5)
    body = answer.body
    assert answer.headers["x-request-id"] == emulator.requests[0].server_request_id
    assert (body["status"], body["background"], body["output"], body["usage"]) == ("queued", True, [], None)
    (operation_id,) = emulator.operations.ids[-1:]
    assert body["id"] == f"resp_{operation_id}"

    pending = retrieve(api, body["id"])
    assert pending.body == {**body, "status": "in_progress"}
    assert pending.headers["x-request-id"] == emulator.requests[-1].server_request_id
    emulator.operations.finish(operation_id)
    ended = retrieve(api, body["id"]).body
    assert (ended["status"], text_of(ended), ended["usage"]["total_tokens"]) == ("completed", "раз два три", 6)
    assert (ended["model"], ended["metadata"], ended["temperature"]) == (MODEL, {"a": "b"}, 0.5)
    assert [request.method for request in emulator.requests] == [SUBMIT, GET, GET]


def test_an_operation_of_another_client_can_be_retrieved(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.operations.time = 0.0
    with emulator.client() as client:
        operation = client.submit("раз")
        operation.wait()
    for response_id in (operation.id, f"resp_{operation.id}"):
        body = retrieve(api, response_id).body
        assert (body["id"], body["model"], text_of(body)) == (f"resp_{operation.id}", None, "раз")


def test_a_background_response_can_fail(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.operations.time = 0.0
    emulator.fail("INVALID_ARGUMENT", "слова", operation=True)
    body = retrieve(api, api.respond(background=True).body["id"]).body
    assert (body["status"], body["output"]) == ("failed", [])
    assert body["error"] == {"code": "invalid_prompt", "message": "слова"}


def test_a_background_response_can_be_cancelled(api: OpenAiApi, emulator: Emulator) -> None:
    response_id = api.respond(background=True).body["id"]
    cancelled = api.ask("POST", f"{RESPONSES}/{response_id}/cancel")
    assert (cancelled.status, cancelled.body["status"], cancelled.body["error"]) == (200, "cancelled", None)
    assert cancelled.headers["x-request-id"] == emulator.requests[-1].server_request_id
    assert emulator.requests[-1].method == CANCEL
    assert retrieve(api, response_id).body == cancelled.body
    assert api.ask("POST", f"{RESPONSES}/resp_none/cancel").blamed == (404, "not_found", "response_id")


def test_completed_response_cannot_be_cancelled(api: OpenAiApi, emulator: Emulator) -> None:
    response_id = api.respond().body["id"]
    assert api.ask("POST", f"{RESPONSES}/{response_id}/cancel").blamed == (400, "invalid_value", "response_id")
    assert len(emulator.requests) == 1


def test_completed_background_response_can_be_continued(api: OpenAiApi, emulator: Emulator) -> None:
    response_id = api.respond("раз", background=True).body["id"]
    early = api.respond("два", previous_response_id=response_id)
    assert early.blamed == (400, "invalid_value", "previous_response_id")
    assert "in_progress" in early.error["message"]
    emulator.operations.finish(emulator.operations.ids[-1])
    assert text_of(api.respond("два", previous_response_id=response_id).body) == "два"
    sent = emulator.requests[-1].message.messages
    assert [(message.role, message.text) for message in sent] == [
        ("user", "раз"),
        ("assistant", "раз"),
        ("user", "два"),
    ]


def test_same_idempotency_key_gets_the_same_background_response(api: OpenAiApi, emulator: Emulator) -> None:
    headers = {**KEY, "Idempotency-Key": "key"}
    first, second = (api.respond(headers=headers, background=True).body for _ in range(2))
    assert first == second
    emulator.operations.finish(emulator.operations.ids[-1])
    assert api.respond(headers=headers, background=True).body["status"] == "completed"


# Stored responses


def test_response_is_stored(api: OpenAiApi, emulator: Emulator) -> None:
    whole = api.respond().body
    streamed = api.events()[-1]["response"]
    for body in (whole, streamed):
        kept = retrieve(api, body["id"])
        assert kept.body == body
        assert kept.headers["x-request-id"]
    assert len(emulator.requests) == 2


def test_response_is_not_stored_with_store_false(api: OpenAiApi) -> None:
    assert retrieve(api, api.respond(store=False).body["id"]).blamed == (404, "not_found", "response_id")


def test_response_is_only_readable_with_the_same_credential_and_folder() -> None:
    with Emulator(http_port=0) as emulator:
        api = OpenAiApi(emulator)
        response_id = api.respond().body["id"]
        assert retrieve(api, response_id, {}).blamed == (401, "invalid_api_key", None)
        assert retrieve(api, response_id, {"Authorization": "Bearer other"}).status == 404
        assert retrieve(api, response_id, {**KEY, "OpenAI-Project": "other"}).status == 404
        assert retrieve(api, response_id).status == 200


def test_retrieve_can_be_scripted_to_fail(api: OpenAiApi, emulator: Emulator) -> None:
    response_id = api.respond(background=True).body["id"]
    emulator.fail("UNAVAILABLE", "слова")
    assert retrieve(api, response_id).blamed == (503, "unavailable", None)
    assert retrieve(api, response_id).status == 200


def test_conversation_can_be_continued(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.reply(tool_calls=[{"name": "weather", "arguments": {"city": "Москва"}}])
    first = api.respond("раз", instructions="Кратко", tools=[WEATHER]).body
    result = {"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "+20"}
    second = api.respond([result], previous_response_id=first["id"], tools=[WEATHER]).body
    assert (text_of(second), second["previous_response_id"]) == ("+20", first["id"])
    third = api.respond("три", previous_response_id=second["id"]).body
    assert text_of(third) == "три"
    sent = emulator.requests[-1].message.messages
    assert [(message.role, message.WhichOneof("Content")) for message in sent] == [
        ("user", "text"),
        ("assistant", "tool_call_list"),
        ("user", "tool_result_list"),
        ("assistant", "text"),
        ("user", "text"),
    ], "instructions are not carried over"


def test_conversation_that_is_not_stored_cannot_be_continued(api: OpenAiApi, emulator: Emulator) -> None:
    answer = api.respond("раз", previous_response_id="resp_none")
    assert answer.blamed == (400, "previous_response_not_found", "previous_response_id")
    assert emulator.requests == []


def test_error_names_the_path_in_the_request(api: OpenAiApi) -> None:
    first = api.respond("раз").body["id"]
    answer = api.respond([{"role": "robot", "content": "?"}], previous_response_id=first)
    assert answer.blamed == (400, "invalid_value", "input[0].role")
    assert answer.error["message"].startswith("input[0].role must be one of")


def test_operation_of_another_service_is_not_found(api: OpenAiApi, emulator: Emulator) -> None:
    emulator.operations.time = 0.0
    emulator.reply(final=False)
    body = api.respond(background=True).body
    until(lambda: retrieve(api, body["id"]).status != 200)
    assert retrieve(api, body["id"]).blamed == (404, "not_found", None)
