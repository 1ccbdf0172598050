"""OpenAI's face of the emulator: Responses, whole, streamed, in the background, kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from driver import until
from openai_api import KEY, MODEL, RESPONSES, Face

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
def face(emulator: Emulator) -> Face:
    return Face(emulator)


def retrieve(face: Face, response_id: str, headers: dict[str, str] | None = None) -> Any:
    return face.ask("GET", f"{RESPONSES}/{response_id}", headers=headers)


def text_of(response: Any) -> str:
    (message,) = response["output"]
    assert message["type"] == "message"
    return "".join(part.get("text", "") for part in message["content"])


# Whole


def test_an_answer_is_a_response(face: Face, emulator: Emulator) -> None:
    emulator.reply("Ответ", usage={"input_tokens": 7, "completion_tokens": 5, "reasoning_tokens": 2})
    answer = face.respond(instructions="Кратко", temperature=0.8, max_output_tokens=1500, metadata={"a": "b"})
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


def test_every_option_arrives(face: Face, emulator: Emulator) -> None:
    items = [
        {"role": "developer", "content": "Кратко"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "раз"}]},
    ]
    face.respond(
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
    ("status", "told", "details"),
    [
        ("FINAL", "completed", None),
        ("TRUNCATED_FINAL", "incomplete", {"reason": "max_output_tokens"}),
        ("CONTENT_FILTER", "incomplete", {"reason": "content_filter"}),
        ("PARTIAL", "incomplete", {"reason": None}),
    ],
)
def test_the_status_is_told(face: Face, emulator: Emulator, status: str, told: str, details: Any) -> None:
    emulator.reply("Ответ", status=status, times=2)
    body = face.respond().body
    assert (body["status"], body["incomplete_details"], text_of(body)) == (told, details, "Ответ")
    last = face.events()[-1]
    assert last["type"] == f"response.{told}"
    assert (last["response"]["incomplete_details"], text_of(last["response"])) == (details, "Ответ")


def test_tools_are_called_and_their_results_taken(face: Face, emulator: Emulator) -> None:
    calls = [{"name": "weather", "arguments": {"city": "Москва"}}, {"name": "time", "arguments": {}}]
    emulator.reply(tool_calls=calls)
    output = face.respond(tools=[WEATHER]).body["output"]
    assert [(item["type"], item["name"], json.loads(item["arguments"])) for item in output] == [
        ("function_call", "weather", {"city": "Москва"}),
        ("function_call", "time", {}),
    ]
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": item["name"]}
        for item in reversed(output)
    ]
    answer = face.respond([{"role": "user", "content": "?"}, *output, *results])
    assert text_of(answer.body) == "weather\ntime", "in the order of the calls"


# Streamed


def test_a_stream_is_events(face: Face, emulator: Emulator) -> None:
    events = face.events()
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


def test_a_stream_tells_what_the_whole_answer_does(face: Face, emulator: Emulator) -> None:
    emulator.reply("Ответ", partials=["От"], times=2)
    whole = face.respond().body
    streamed = face.events()[-1]["response"]
    for body in (whole, streamed):
        response_id = body.pop("id")
        assert body["output"][0].pop("id") == f"msg_{response_id}"
        body.pop("created_at")
    assert streamed == whole


def test_an_empty_answer_is_an_empty_message(face: Face, emulator: Emulator) -> None:
    emulator.reply("", times=2)
    assert text_of(face.respond().body) == ""
    events = face.events()
    assert text_of(events[-1]["response"]) == ""
    assert "response.output_text.delta" not in [event["type"] for event in events]


def test_calls_of_tools_are_streamed(face: Face, emulator: Emulator) -> None:
    calls = [{"name": "weather", "arguments": {"city": "Москва"}}, {"name": "time", "arguments": {}}]
    emulator.reply(partials=["Смотрю", "Смотрю"], tool_calls=calls)
    events = face.events(tools=[WEATHER])
    told = [event for event in events if "function_call" in event["type"]]
    assert [event["type"].rpartition(".")[2] for event in told] == ["delta", "done"] * 2
    assert [event["output_index"] for event in told] == [1, 1, 2, 2]
    assert [json.loads(event["arguments"]) for event in told[1::2]] == [{"city": "Москва"}, {}]
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in added] == ["message", "function_call", "function_call"]
    assert [item["id"] for item in added] == [item["id"] for item in done]
    assert [item["status"] for item in added] == ["in_progress"] * 3
    assert added[1]["arguments"] == ""
    assert events[-1]["response"]["output"] == done


def test_the_words_of_the_content_filter_are_a_refusal(face: Face, emulator: Emulator) -> None:
    emulator.reply("Не буду", partials=["раз", "раз два"], status="CONTENT_FILTER")
    events = face.events()
    assert events[-1]["type"] == "response.incomplete"
    (message,) = events[-1]["response"]["output"]
    assert [part.get("text") or part["refusal"] for part in message["content"]] == ["раз", "Не буду"]
    assert [event["content_index"] for event in events if event["type"].startswith("response.refusal")] == [1, 1]
    following = face.respond("два", previous_response_id=events[-1]["response"]["id"])
    assert following.status == 200
    assert emulator.requests[-1].message.messages[1].text == "раз\nНе буду"


def test_an_answer_that_contradicts_what_was_sent_has_failed(face: Face, emulator: Emulator) -> None:
    emulator.reply("другое", partials=["раз", "раз два"])
    last = face.events()[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"]["code"] == "server_error"
    assert text_of(last["response"]) == "раз"
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert retrieve(face, last["response"]["id"]).status == 404, "it is not kept"


@pytest.mark.parametrize(
    ("code", "told"),
    [("UNAVAILABLE", "server_error"), ("RESOURCE_EXHAUSTED", "rate_limit_exceeded")],
)
def test_what_fails_on_the_way_is_told(face: Face, emulator: Emulator, code: str, told: str) -> None:
    emulator.reply("раз два три", partials=["раз", "раз два"])
    emulator.fail(code, "слова", after=2)
    last = face.events()[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": told, "message": "слова"}
    assert text_of(last["response"]) == "раз два", "what was held back comes before the error"


def test_what_fails_before_anything_was_said_has_no_output(face: Face, emulator: Emulator) -> None:
    emulator.reply("👍", partials=["\ufffd"])
    emulator.fail("UNAVAILABLE", after=1)
    events = face.events()
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.failed"]
    assert events[-1]["response"]["output"] == []


def test_what_fails_before_the_first_message_has_a_status(face: Face, emulator: Emulator) -> None:
    emulator.fail("PERMISSION_DENIED", times=2)
    for stream in (False, True):
        assert face.respond(stream=stream).blamed == (403, "permission_denied", None)


# In the background


def test_a_background_response_lives_as_an_operation(face: Face, emulator: Emulator) -> None:
    answer = face.respond(background=True, metadata={"a": "b"}, temperature=0.5)
    body = answer.body
    assert answer.headers["x-request-id"] == emulator.requests[0].server_request_id
    assert (body["status"], body["background"], body["output"], body["usage"]) == ("queued", True, [], None)
    (operation_id,) = emulator.operations.ids[-1:]
    assert body["id"] == f"resp_{operation_id}"

    pending = retrieve(face, body["id"])
    assert pending.body == {**body, "status": "in_progress"}
    assert pending.headers["x-request-id"] == emulator.requests[-1].server_request_id
    emulator.operations.finish(operation_id)
    ended = retrieve(face, body["id"]).body
    assert (ended["status"], text_of(ended), ended["usage"]["total_tokens"]) == ("completed", "раз два три", 6)
    assert (ended["model"], ended["metadata"], ended["temperature"]) == (MODEL, {"a": "b"}, 0.5)
    assert [request.method for request in emulator.requests] == [SUBMIT, GET, GET]


def test_an_operation_of_another_client_can_be_retrieved(face: Face, emulator: Emulator) -> None:
    emulator.operations.time = 0.0
    with emulator.client() as client:
        operation = client.submit("раз")
        operation.wait()
    for response_id in (operation.id, f"resp_{operation.id}"):
        body = retrieve(face, response_id).body
        assert (body["id"], body["model"], text_of(body)) == (f"resp_{operation.id}", None, "раз")


def test_a_background_response_can_fail(face: Face, emulator: Emulator) -> None:
    emulator.operations.time = 0.0
    emulator.fail("INVALID_ARGUMENT", "слова", operation=True)
    body = retrieve(face, face.respond(background=True).body["id"]).body
    assert (body["status"], body["output"]) == ("failed", [])
    assert body["error"] == {"code": "invalid_prompt", "message": "слова"}


def test_a_background_response_can_be_cancelled(face: Face, emulator: Emulator) -> None:
    response_id = face.respond(background=True).body["id"]
    cancelled = face.ask("POST", f"{RESPONSES}/{response_id}/cancel")
    assert (cancelled.status, cancelled.body["status"], cancelled.body["error"]) == (200, "cancelled", None)
    assert cancelled.headers["x-request-id"] == emulator.requests[-1].server_request_id
    assert emulator.requests[-1].method == CANCEL
    assert retrieve(face, response_id).body == cancelled.body
    assert face.ask("POST", f"{RESPONSES}/resp_none/cancel").blamed == (404, "not_found", "response_id")


def test_a_response_that_has_ended_cannot_be_cancelled(face: Face, emulator: Emulator) -> None:
    response_id = face.respond().body["id"]
    assert face.ask("POST", f"{RESPONSES}/{response_id}/cancel").blamed == (400, "invalid_value", "response_id")
    assert len(emulator.requests) == 1


def test_a_background_response_is_continued_when_it_has_ended(face: Face, emulator: Emulator) -> None:
    response_id = face.respond("раз", background=True).body["id"]
    early = face.respond("два", previous_response_id=response_id)
    assert early.blamed == (400, "invalid_value", "previous_response_id")
    assert "in_progress" in early.error["message"]
    emulator.operations.finish(emulator.operations.ids[-1])
    assert text_of(face.respond("два", previous_response_id=response_id).body) == "два"
    sent = emulator.requests[-1].message.messages
    assert [(message.role, message.text) for message in sent] == [
        ("user", "раз"),
        ("assistant", "раз"),
        ("user", "два"),
    ]


def test_the_same_key_gets_the_same_background_response(face: Face, emulator: Emulator) -> None:
    headers = {**KEY, "Idempotency-Key": "key"}
    first, second = (face.respond(headers=headers, background=True).body for _ in range(2))
    assert first == second
    emulator.operations.finish(emulator.operations.ids[-1])
    assert face.respond(headers=headers, background=True).body["status"] == "completed"


# Kept


def test_a_response_is_kept(face: Face, emulator: Emulator) -> None:
    whole = face.respond().body
    streamed = face.events()[-1]["response"]
    for body in (whole, streamed):
        kept = retrieve(face, body["id"])
        assert kept.body == body
        assert kept.headers["x-request-id"]
    assert len(emulator.requests) == 2


def test_a_response_is_not_kept_if_told_so(face: Face) -> None:
    assert retrieve(face, face.respond(store=False).body["id"]).blamed == (404, "not_found", "response_id")


def test_a_response_is_for_its_maker_alone() -> None:
    with Emulator(http_port=0) as emulator:
        face = Face(emulator)
        response_id = face.respond().body["id"]
        assert retrieve(face, response_id, {}).blamed == (401, "invalid_api_key", None)
        assert retrieve(face, response_id, {"Authorization": "Bearer other"}).status == 404
        assert retrieve(face, response_id, {**KEY, "OpenAI-Project": "other"}).status == 404
        assert retrieve(face, response_id).status == 200


def test_a_failure_can_be_scripted_for_a_retrieval(face: Face, emulator: Emulator) -> None:
    response_id = face.respond(background=True).body["id"]
    emulator.fail("UNAVAILABLE", "слова")
    assert retrieve(face, response_id).blamed == (503, "unavailable", None)
    assert retrieve(face, response_id).status == 200


def test_a_conversation_goes_on(face: Face, emulator: Emulator) -> None:
    emulator.reply(tool_calls=[{"name": "weather", "arguments": {"city": "Москва"}}])
    first = face.respond("раз", instructions="Кратко", tools=[WEATHER]).body
    result = {"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "+20"}
    second = face.respond([result], previous_response_id=first["id"], tools=[WEATHER]).body
    assert (text_of(second), second["previous_response_id"]) == ("+20", first["id"])
    third = face.respond("три", previous_response_id=second["id"]).body
    assert text_of(third) == "три"
    sent = emulator.requests[-1].message.messages
    assert [(message.role, message.WhichOneof("Content")) for message in sent] == [
        ("user", "text"),
        ("assistant", "tool_call_list"),
        ("user", "tool_result_list"),
        ("assistant", "text"),
        ("user", "text"),
    ], "instructions are not carried over"


def test_a_conversation_that_is_not_kept_cannot_go_on(face: Face, emulator: Emulator) -> None:
    answer = face.respond("раз", previous_response_id="resp_none")
    assert answer.blamed == (400, "previous_response_not_found", "previous_response_id")
    assert emulator.requests == []


def test_a_mistake_is_named_by_its_place_in_this_request(face: Face) -> None:
    first = face.respond("раз").body["id"]
    answer = face.respond([{"role": "robot", "content": "?"}], previous_response_id=first)
    assert answer.blamed == (400, "invalid_value", "input[0].role")
    assert answer.error["message"].startswith("input[0].role must be one of")


def test_the_operation_must_be_of_text_generation(face: Face, emulator: Emulator) -> None:
    emulator.operations.time = 0.0
    emulator.reply(final=False)
    body = face.respond(background=True).body
    until(lambda: retrieve(face, body["id"]).status != 200)
    assert retrieve(face, body["id"]).blamed == (404, "not_found", None)
