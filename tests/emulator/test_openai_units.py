"""The OpenAI API of the emulator: functions without I/O, with generated input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_api import CHAT as CHAT_PATH
from openai_api import MODEL, OpenAiApi
from openai_api import RESPONSES as RESPONSES_PATH

from yandexgpt._models import CompletionResponse, Status
from yandexgpt.emulator import Emulator
from yandexgpt.emulator.http_api.openai.append_only import AppendOnlyText, TextRetracted
from yandexgpt.emulator.http_api.openai.chat_messages import ChatMessages
from yandexgpt.emulator.http_api.openai.request import completion_request
from yandexgpt.emulator.http_api.openai.response_store import ResponseStore, StoredResponse
from yandexgpt.emulator.http_api.openai.sse import event

TEXT = st.text(st.sampled_from("ab я👍\ufffd\n"), max_size=8)


def message(text: str, status: Status = Status.PARTIAL) -> CompletionResponse:
    response = CompletionResponse()
    response.alternatives.add(status=int(status)).message.text = text
    return response


# Append-only text


@given(st.lists(TEXT, max_size=6), TEXT)
def test_growing_partials_are_sent_completely(pieces: list[str], rest: str) -> None:
    texts = ["".join(pieces[: end + 1]) for end in range(len(pieces))]
    final = "".join(pieces) + rest
    appended = AppendOnlyText()
    sent = "".join(appended.push(message(text)) for text in texts)
    sent += appended.push(message(final, Status.FINAL)) + appended.end()
    assert sent == appended.sent_text == final


@given(st.lists(TEXT, max_size=6), TEXT, st.sampled_from([Status.FINAL, Status.PARTIAL]))
def test_only_text_confirmed_by_two_messages_is_sent(texts: list[str], final: str, status: Status) -> None:
    appended = AppendOnlyText()
    messages = [*(message(text) for text in texts), message(final, status)]
    sent, previous = "", ""
    for each in messages:
        piece = appended.push(each)
        text = each.alternatives[0].message.text
        if piece:
            sent += piece
            assert text.startswith(sent)
            assert previous.startswith(sent)
        previous = text
    try:
        sent += appended.end()
    except TextRetracted:
        assert not final.startswith(sent)
    else:
        assert sent == final


@given(st.text(st.sampled_from("ab я👍")), st.data())
def test_incomplete_character_is_never_sent(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    appended = AppendOnlyText()
    sent = "".join(appended.push(message(raw[:cut].decode(errors="replace"))) for cut in cuts)
    if data.draw(st.booleans()):
        sent += appended.flush()
        assert text.startswith(sent)
    else:
        sent += appended.push(message(text, Status.FINAL)) + appended.end()
        assert sent == text


def test_tool_calls_may_follow_text() -> None:
    appended = AppendOnlyText()
    appended.push(message("раз"))
    appended.push(message("раз"))
    appended.push(message("", Status.TOOL_CALLS))
    assert (appended.end(), appended.sent_text) == ("", "раз")


# Events


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5))
def test_event_is_one_sse_block(value: Any) -> None:
    frame = event({"value": value}, "name").decode()
    assert frame.endswith("\n\n")
    name, data = frame.removesuffix("\n\n").split("\n")
    assert name == "event: name"
    assert json.loads(data.removeprefix("data: ")) == {"value": value}


# Messages


ROLES_AND_TEXTS = st.tuples(st.sampled_from(["system", "developer", "user", "assistant"]), TEXT)


@given(st.lists(ROLES_AND_TEXTS, min_size=1, max_size=6), st.booleans())
def test_messages_are_converted_unchanged(pairs: list[tuple[str, str]], parts: bool) -> None:
    messages = [{"role": role, "content": [{"type": "text", "text": text}] if parts else text} for role, text in pairs]
    request = completion_request(ChatMessages(messages).items, model_uri=MODEL, stream=False)
    assert [(message.role, message.text) for message in request.messages] == [
        ("system" if role == "developer" else role, text) for role, text in pairs
    ]


@given(st.data())
def test_tool_results_have_the_order_of_their_calls(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5))
    order = data.draw(st.permutations(range(len(names))))
    calls = [
        {"id": str(index), "type": "function", "function": {"name": name, "arguments": json.dumps({"n": index})}}
        for index, name in enumerate(names)
    ]
    results = [{"role": "tool", "tool_call_id": str(index), "content": str(index)} for index in order]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": calls}]
    request = completion_request(ChatMessages([*messages, *results]).items, model_uri=MODEL, stream=False)
    _, called, answered = request.messages
    assert [
        (call.function_call.name, call.function_call.arguments["n"]) for call in called.tool_call_list.tool_calls
    ] == [(name, index) for index, name in enumerate(names)]
    assert [
        (result.function_result.name, result.function_result.content)
        for result in answered.tool_result_list.tool_results
    ] == [(name, str(index)) for index, name in enumerate(names)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CHAT = {
    "model": MODEL,
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "раз"}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "два"},
    ],
    "temperature": 0.5,
    "max_tokens": 5,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "reasoning_effort": "low",
    "n": 1,
}
RESPONSE = {
    "model": MODEL,
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "раз"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "два"},
    ],
    "instructions": "Кратко",
    "temperature": 0.5,
    "max_output_tokens": 5,
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    "reasoning": {"effort": "low"},
    "truncation": "disabled",
}


def paths(value: Any) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *path) for key, inner in pairs for path in paths(inner))]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = replaced(value[path[0]], path[1:], by)
    return copied


@pytest.fixture(scope="module")
def api() -> Iterator[OpenAiApi]:
    with Emulator(http_port=0) as emulator:
        yield OpenAiApi(emulator)


GOOD = [(CHAT_PATH, CHAT), (RESPONSES_PATH, RESPONSE)]


@pytest.mark.parametrize(("path", "good"), GOOD)
def test_valid_request_is_answered(api: OpenAiApi, path: str, good: dict[str, Any]) -> None:
    assert api.ask("POST", path, good).status == 200


@pytest.mark.parametrize(("path", "good"), GOOD)
@given(st.data())
def test_any_json_is_answered_or_rejected(api: OpenAiApi, path: str, good: dict[str, Any], data: st.DataObject) -> None:
    body = replaced(good, data.draw(st.sampled_from(paths(good))), data.draw(JSON))
    answer = api.ask("POST", path, body)
    assert answer.status in (200, 400), answer
    assert answer.status == 200 or answer.error["message"]


# Stored responses


def stored(number: int, text: str) -> StoredResponse:
    return StoredResponse({"id": str(number), "text": text}, [{"text": text}], "key", None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=30))
def test_newest_responses_are_stored_up_to_the_size_limit(puts: list[tuple[int, int]]) -> None:
    largest = 400
    store = ResponseStore(largest)
    newest: dict[int, StoredResponse] = {}
    for number, length in puts:
        each = stored(number, "x" * length)
        store.put(each)
        newest.pop(number, None)
        newest[number] = each
        remaining = largest
        for known, value in reversed(list(newest.items())):
            remaining -= len(json.dumps([value.response, *value.conversation]).encode())
            assert store.get(str(known), "key", None) == (value if remaining >= 0 else None)
            if remaining < 0:
                del newest[known]
        assert len(store) == len(newest)
