"""The answers of the emulator: default answers, and scripted answers and failures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import (
    text_generation_service_pb2,
    text_generation_service_pb2_grpc,
)
from yandexgpt._struct_json import to_python
from yandexgpt.emulator import Emulator
from yandexgpt.emulator.json_schema_example import example

AUTHORIZATION = (("authorization", "Api-Key key"),)
PARTIAL, TRUNCATED, FINAL, CONTENT_FILTER, TOOL_CALLS = range(1, 6)
GUIDE_ANSWERS = json.loads(
    resources.files("yandexgpt.emulator").joinpath("guide_answers.json").read_text(encoding="utf-8")
)["answers"]


def a_request(*messages: Any, model: str = "yandexgpt-lite", **fields: Any) -> Any:
    """A streamed request. A message is the text of a user, a (role, text) pair or a mapping."""
    made = [
        {"role": "user", "text": each}
        if isinstance(each, str)
        else {"role": each[0], "text": each[1]}
        if isinstance(each, tuple)
        else each
        for each in messages
    ]
    options = {"stream": True, **fields.pop("options", {})}
    return text_generation_service_pb2.CompletionRequest(
        model_uri=f"gpt://folder/{model}", messages=made, completion_options=options, **fields
    )


class Asker:
    """A raw stub that returns the responses of each call."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)

    def __call__(self, *messages: Any, **fields: Any) -> list[Any]:
        return list(self.call(*messages, **fields))

    def call(self, *messages: Any, **fields: Any) -> Any:
        return self._stub.Completion(a_request(*messages or ("раз два три",), **fields), metadata=AUTHORIZATION)


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: Emulator) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.endpoint) as opened:
        yield opened


@pytest.fixture
def emulator(server: Emulator) -> Emulator:
    server.clear()
    return server


@pytest.fixture
def ask(emulator: Emulator, channel: grpc.Channel) -> Asker:
    return Asker(channel)


def text_of(response: Any) -> str:
    return str(response.alternatives[0].message.text)


def shape(responses: list[Any]) -> list[tuple[str, int]]:
    return [(text_of(response), response.alternatives[0].status) for response in responses]


def tokens(response: Any) -> tuple[int, int, int]:
    usage = response.usage
    return usage.input_text_tokens, usage.completion_tokens, usage.total_tokens


# Default answers


def test_the_last_user_message_is_echoed_word_by_word(ask: Asker) -> None:
    responses = ask(("system", "Повтори за мной"), "нет", ("assistant", "что?"), "раз  два\nтри ")
    assert shape(responses) == [
        ("раз", PARTIAL),
        ("раз  два", PARTIAL),
        ("раз  два\nтри", PARTIAL),
        ("раз  два\nтри ", FINAL),
    ]
    assert [tokens(response) for response in responses] == [(8, 1, 9), (8, 2, 10), (8, 3, 11), (8, 3, 11)]
    assert {response.model_version for response in responses} == {"emulator"}
    assert {response.alternatives[0].message.role for response in responses} == {"assistant"}


def test_a_unary_answer_is_one_message(ask: Asker) -> None:
    assert shape(ask("раз два", options={"stream": False})) == [("раз два", FINAL)]


def test_without_a_user_message_the_last_one_is_echoed(ask: Asker) -> None:
    assert text_of(ask(("system", "Молчи"))[-1]) == "Молчи"


def test_an_empty_prompt_gets_an_empty_answer(ask: Asker) -> None:
    responses = ask("")
    assert shape(responses) == [("", FINAL)]
    assert tokens(responses[0]) == (0, 0, 0)


def test_max_tokens_truncates_the_answer(ask: Asker) -> None:
    responses = ask("раз два три четыре", options={"max_tokens": {"value": 2}})
    assert shape(responses) == [("раз", PARTIAL), ("раз два", PARTIAL), ("раз два", TRUNCATED)]
    assert tokens(responses[-1]) == (4, 2, 6)
    assert shape(ask("раз два", options={"max_tokens": {"value": 2}}))[-1] == ("раз два", FINAL)


def test_default_answer_has_the_configured_delay() -> None:
    with Emulator(delay=0.01) as paced, grpc.insecure_channel(paced.endpoint) as opened:
        assert len(Asker(opened)()) == 4


@pytest.mark.parametrize(
    "printed", GUIDE_ANSWERS, ids=[f"{each['guide']}-{each['text'][:9]}" for each in GUIDE_ANSWERS]
)
def test_guide_examples_get_the_answers_printed_in_the_guides(ask: Asker, printed: dict[str, Any]) -> None:
    messages = [(message["role"], message["text"]) for message in printed["messages"]]
    responses = ask(*messages, model=printed["model"], options={"max_tokens": {"value": 2000}})
    assert shape(responses)[-1] == (printed["text"], FINAL)
    assert all(printed["text"].startswith(text_of(response)) for response in responses)
    if "input_tokens" in printed:
        prompt_count, answer_count = printed["input_tokens"], printed["completion_tokens"]
        assert tokens(responses[-1]) == (prompt_count, answer_count, prompt_count + answer_count)
        assert responses[-1].model_version == printed["model_version"]


def test_guide_stream_is_the_stream_printed_in_the_guide(ask: Asker) -> None:
    responses = ask(("system", "Исправь ошибки в тексте."), "Ашипки саме сибя ни исрпвят", model="yandexgpt")
    assert "\n".join(text_format.MessageToString(response, as_utf8=True) for response in responses) == (
        """\
alternatives {
  message {
    role: "assistant"
    text: "О"
  }
  status: ALTERNATIVE_STATUS_PARTIAL
}
usage {
  input_text_tokens: 29
  completion_tokens: 1
  total_tokens: 30
}
model_version: "07.03.2024"

alternatives {
  message {
    role: "assistant"
    text: "Ошибки сами себя не исправят."
  }
  status: ALTERNATIVE_STATUS_FINAL
}
usage {
  input_text_tokens: 29
  completion_tokens: 9
  total_tokens: 38
}
model_version: "07.03.2024"
"""
    )


def test_guide_chat_works_with_its_own_answers(ask: Asker) -> None:
    turns = [each for each in GUIDE_ANSWERS if each["guide"] == "a series of requests in chat mode"]
    history: list[Any] = [("system", "Ты умный ассистент")]
    for turn in turns:
        history.append(("user", turn["messages"][-1]["text"]))
        (response,) = ask(*history, options={"stream": False})
        assert text_of(response) == turn["text"]
        assert response.usage.total_tokens == turn["input_tokens"] + turn["completion_tokens"]
        history.append(("assistant", text_of(response)))
    assert len(turns) == 3


@pytest.mark.parametrize(("model", "words"), [("yandexgpt-lite", " - "), ("yandexgpt", "быть: "), ("other", " - ")])
def test_model_selects_between_two_guides_with_the_same_prompt(ask: Asker, model: str, words: str) -> None:
    responses = ask(("system", "Переведи текст"), "To be, or not to be: that is the question.", model=model)
    assert words in text_of(responses[-1])


@pytest.mark.parametrize(("limit", "kept"), [(10, 9), (9, 8), (5, 4), (1, 1)])
def test_guide_answer_is_truncated_in_proportion(ask: Asker, limit: int, kept: int) -> None:
    responses = ask(
        ("system", "Переведи текст"),
        "To be, or not to be: that is the question.",
        options={"max_tokens": {"value": limit}},
    )
    words = ["Быть", "или", "не", "быть", "-", "вот", "в", "чём", "вопрос."]
    assert text_of(responses[-1]).split() == words[:kept]
    assert responses[-1].usage.completion_tokens == limit
    counted = [response.usage.completion_tokens for response in responses]
    assert counted == sorted(counted)


TOOLS = [
    {"function": {"name": "now"}},
    {
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
                "required": ["city", "days"],
            },
        }
    },
]


@pytest.mark.parametrize(
    ("choice", "name", "arguments"),
    [
        ({"mode": "REQUIRED"}, "now", {}),
        ({"function_name": "weather"}, "weather", {"city": "city", "days": 1}),
    ],
)
def test_required_tool_is_called(ask: Asker, choice: Any, name: str, arguments: Any) -> None:
    (response,) = ask("Погода?", tools=TOOLS, tool_choice=choice)
    (alternative,) = response.alternatives
    assert alternative.status == TOOL_CALLS
    assert alternative.message.WhichOneof("Content") == "tool_call_list"
    (call,) = alternative.message.tool_call_list.tool_calls
    assert call.function_call.name == name
    assert call.function_call.HasField("arguments")
    assert to_python(call.function_call.arguments) == arguments


@pytest.mark.parametrize("choice", [{"mode": "AUTO"}, {"mode": "NONE"}, {}])
def test_optional_tool_is_not_called(ask: Asker, choice: Any) -> None:
    assert text_of(ask("Погода?", tools=TOOLS, tool_choice=choice)[-1]) == "Погода?"


def test_tool_results_are_echoed_even_if_a_tool_is_required(ask: Asker) -> None:
    results = {
        "role": "user",
        "tool_result_list": {
            "tool_results": [
                {"function_result": {"name": "weather", "content": "плюс пять"}},
                {"function_result": {"name": "now", "content": "полдень"}},
            ]
        },
    }
    responses = ask("Погода?", results, tools=TOOLS, tool_choice={"mode": "REQUIRED"})
    assert text_of(responses[-1]) == "плюс пять\nполдень"
    assert tokens(responses[-1]) == (4, 3, 7)


def test_json_object_wraps_the_echo(ask: Asker) -> None:
    assert json.loads(text_of(ask('раз "два"', json_object=True)[-1])) == {"answer": 'раз "два"'}


def test_json_schema_gets_an_example_value(ask: Asker) -> None:
    schema = {"type": "object", "properties": {"имя": {"type": "string"}}, "required": ["имя"]}
    assert text_of(ask("Кто?", json_schema={"schema": schema})[-1]) == '{"имя": "имя"}'


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "value"),
        ({"type": "string", "minLength": 8}, "valuexxx"),
        ({"type": "string", "maxLength": 3}, "val"),
        ({"type": "string", "format": "date"}, "2024-01-18"),
        ({"type": "string", "format": "unknown"}, "value"),
        ({}, "value"),
        (True, "value"),
        (False, None),
        ({"type": "null"}, None),
        ({"type": "boolean"}, True),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 2.5}, 3),
        ({"type": "integer", "exclusiveMinimum": 0}, 1),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "integer", "exclusiveMaximum": -2}, -3),
        ({"type": "integer", "exclusiveMinimum": 0, "multipleOf": 5}, 5),
        ({"type": "number", "minimum": 0.5}, 0.5),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, 0.5),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, 0.25),
        ({"type": "number", "exclusiveMinimum": 2}, 3),
        ({"type": "number", "minimum": 2, "maximum": 1}, 0),
        ({"type": ["integer", "null"]}, 0),
        ({"type": []}, "value"),
        ({"type": "array"}, []),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"type": "object"}, {}),
        ({"properties": {"a": {}}}, {}),
        ({"properties": {"a": {}}, "required": ["a", "b"]}, {"a": "a", "b": "b"}),
        ({"const": 5}, 5),
        ({"default": "да"}, "да"),
        ({"enum": ["первый", "второй"]}, "первый"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0),
        ({"oneOf": [{"const": "а"}, {"const": "б"}]}, "а"),
        (
            {
                "allOf": [
                    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                    {"properties": {"b": {"type": "null"}}, "required": ["b"]},
                ]
            },
            {"a": 0, "b": None},
        ),
        (
            {"$defs": {"a/b": {"type": "boolean"}}, "type": "array", "minItems": 1, "items": {"$ref": "#/$defs/a~1b"}},
            [True],
        ),
        ({"$ref": "#/nowhere/at/all"}, "value"),
        ({"$ref": "#/enum", "enum": ["а"]}, "а"),
    ],
)
def test_a_schema_has_an_example(schema: Any, value: Any) -> None:
    assert example(schema) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
        {"allOf": [{"$ref": "#"}]},
    ],
)
def test_infinite_schema_gets_a_finite_value(schema: Any) -> None:
    json.dumps(example(schema))


def test_tool_with_a_non_object_schema_gets_no_arguments(ask: Asker) -> None:
    tools = [{"function": {"name": "f", "parameters": {"type": "string"}}}]
    (response,) = ask("а", tools=tools, tool_choice={"mode": "REQUIRED"})
    assert not response.alternatives[0].message.tool_call_list.tool_calls[0].function_call.arguments.fields


# Scripted answers


def test_scripted_answers_are_used_in_order_before_the_default(emulator: Emulator, ask: Asker) -> None:
    emulator.reply("первый", times=2)
    emulator.reply("второй", partials=["вто", "втр", "второй"], delay=0.001, model_version="м")
    assert shape(ask()) == shape(ask()) == [("первый", FINAL)]
    responses = ask()
    assert shape(responses) == [("вто", PARTIAL), ("втр", PARTIAL), ("второй", PARTIAL), ("второй", FINAL)]
    assert {response.model_version for response in responses} == {"м"}
    assert text_of(ask()[-1]) == "раз два три"


def test_a_unary_call_gets_the_final_message_only(emulator: Emulator, ask: Asker) -> None:
    emulator.reply("весь", partials=["в", "ве"])
    assert shape(ask(options={"stream": False})) == [("весь", FINAL)]


def test_a_stream_may_end_without_its_final_message(emulator: Emulator, ask: Asker) -> None:
    emulator.reply(partials=["раз", "раз два"], final=False)
    responses = ask("а")
    assert shape(responses) == [("раз", PARTIAL), ("раз два", PARTIAL)]
    assert [tokens(response) for response in responses] == [(1, 1, 2), (1, 2, 3)]
    assert emulator.requests[0].wait() == "OK"


@pytest.mark.parametrize(
    ("status", "number"),
    [
        ("FINAL", FINAL),
        ("TRUNCATED", TRUNCATED),
        ("TRUNCATED_FINAL", TRUNCATED),
        ("CONTENT_FILTER", CONTENT_FILTER),
        ("ALTERNATIVE_STATUS_TOOL_CALLS", TOOL_CALLS),
        ("PARTIAL", PARTIAL),
        ("UNSPECIFIED", 0),
        (99, 99),
    ],
)
def test_an_answer_may_end_in_any_status(emulator: Emulator, ask: Asker, status: Any, number: int) -> None:
    emulator.reply("а", status=status)
    assert shape(ask()) == [("а", number)]


def test_tool_calls_are_scripted_as_mappings(emulator: Emulator, ask: Asker) -> None:
    arguments = {"city": "Москва", "days": 2, "flags": [True, None], "more": {}}
    emulator.reply(tool_calls=[{"name": "weather", "arguments": arguments}, {"name": "now"}])
    (response,) = ask()
    (alternative,) = response.alternatives
    assert alternative.status == TOOL_CALLS
    first, second = alternative.message.tool_call_list.tool_calls
    assert (first.function_call.name, to_python(first.function_call.arguments)) == ("weather", arguments)
    assert (second.function_call.name, to_python(second.function_call.arguments)) == ("now", {})


def test_any_number_of_alternatives_can_be_scripted(emulator: Emulator, ask: Asker) -> None:
    emulator.reply(
        partials=["а", ["а", "б"], []],
        alternatives=[
            "а в",
            {"text": None, "status": "CONTENT_FILTER"},
            {"tool_calls": [{"name": "f"}], "role": "model"},
        ],
    )
    one, two, none, last = ask()
    assert [len(response.alternatives) for response in (one, two, none, last)] == [1, 2, 0, 3]
    assert [each.message.text for each in two.alternatives] == ["а", "б"]
    contents = [each.message.WhichOneof("Content") for each in last.alternatives]
    assert contents == ["text", None, "tool_call_list"]
    assert [each.status for each in last.alternatives] == [FINAL, CONTENT_FILTER, TOOL_CALLS]
    assert [each.message.role for each in last.alternatives] == ["assistant", "assistant", "model"]
    emulator.reply(alternatives=[])
    assert [len(response.alternatives) for response in ask()] == [0]


def test_an_answer_without_text_can_be_scripted(emulator: Emulator, ask: Asker) -> None:
    emulator.reply(None)
    assert ask()[0].alternatives[0].message.WhichOneof("Content") is None


def test_usage_can_be_scripted_and_partials_count_up_to_it(emulator: Emulator, ask: Asker) -> None:
    usage = {"input_tokens": 10, "completion_tokens": 100, "total_tokens": 500, "reasoning_tokens": 7}
    emulator.reply("а б в г", partials=["а", "а б", "а", "", "а б в"], usage=usage)
    responses = ask()
    assert [response.usage.completion_tokens for response in responses] == [25, 50, 50, 50, 75, 100]
    assert tokens(responses[-1]) == (10, 100, 500)
    assert responses[-1].usage.completion_tokens_details.reasoning_tokens == 7
    emulator.reply("", partials=[""], usage={"completion_tokens": 3})
    assert [tokens(response) for response in ask("а")] == [(1, 0, 1), (1, 3, 4)]


@settings(max_examples=60, deadline=None)
@given(
    partials=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]) | st.just("\N{REPLACEMENT CHARACTER}"), max_size=30),
        max_size=6,
    ),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    status=st.integers(0, 2**31 - 1),
    final=st.booleans(),
    model_version=st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
def test_any_scripted_stream_is_received_unchanged(
    server: Emulator,
    channel: grpc.Channel,
    partials: list[str],
    text: str,
    status: int,
    final: bool,
    model_version: str,
) -> None:
    server.clear()
    server.reply(text, partials=partials, status=status, final=final, model_version=model_version)
    responses = Asker(channel)("один два")
    assert shape(responses) == [(partial, PARTIAL) for partial in partials] + [(text, status)] * final
    assert all(response.model_version == model_version for response in responses)
    counted = [response.usage.completion_tokens for response in responses[: len(partials)]]
    assert counted == sorted(counted)
    for response in responses:
        assert response.usage.total_tokens == response.usage.input_text_tokens + response.usage.completion_tokens
    (recorded,) = server.requests
    assert (recorded.wait(), recorded.sent) == ("OK", len(responses))


# Scripted failures


def failed(call: Any) -> tuple[list[Any], grpc.RpcError]:
    received = []
    with pytest.raises(grpc.RpcError) as caught:
        received.extend(call)
    with contextlib.suppress(StopIteration, grpc.RpcError):
        next(call)
    return received, caught.value


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_call_can_fail_with_any_status(emulator: Emulator, ask: Asker, code: grpc.StatusCode) -> None:
    emulator.fail(code)
    emulator.fail(code.name, "два\nслова", delay=0.001)
    for message in (f"scripted {code.name}", "два\nслова"):
        _, error = failed(ask.call())
        assert (error.code(), error.details()) == (code, message)
    assert [request.wait() for request in emulator.requests] == [code.name] * 2
    assert len(ask()) == 4


def test_failures_come_before_answers_and_do_not_use_them_up(emulator: Emulator, ask: Asker) -> None:
    emulator.reply("ответ")
    emulator.fail("UNAVAILABLE", times=2)
    emulator.fail("INTERNAL")
    codes = [failed(ask.call())[1].code().name for _ in range(3)]
    assert codes == ["UNAVAILABLE", "UNAVAILABLE", "INTERNAL"]
    assert text_of(ask()[-1]) == "ответ"


@pytest.mark.parametrize(("after", "seen"), [(1, 1), (2, 2), (99, 3)])
def test_a_failure_may_come_after_partials(emulator: Emulator, ask: Asker, after: int, seen: int) -> None:
    emulator.reply("а б в", partials=["а", "а б", "а б в"])
    emulator.fail("UNAVAILABLE", after=after, times=2)
    for texts in (["а", "а б", "а б в"], ["раз", "раз два", "раз два три"]):
        received, error = failed(ask.call())
        assert [text_of(response) for response in received] == texts[:seen]
        assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert [request.sent for request in emulator.requests] == [seen, seen]
    assert len(ask()) == 4


def test_a_unary_call_fails_before_its_only_message(emulator: Emulator, ask: Asker) -> None:
    emulator.fail("UNAVAILABLE", after=1)
    received, _ = failed(ask.call(options={"stream": False}))
    assert received == []


def test_failure_has_details_and_pushback(emulator: Emulator, ask: Asker) -> None:
    info = error_details_pb2.ErrorInfo(reason="QUOTA", domain="ai", metadata={"folder": "f"})
    emulator.fail("RESOURCE_EXHAUSTED", "много", details=[info], retry_after=1.25, pushback=-1)
    _, error = failed(ask.call())
    trailing: dict[str, Any] = {each.key: each.value for each in error.trailing_metadata()}
    assert trailing["grpc-retry-pushback-ms"] == "-1"
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert (status.code, status.message) == (8, "много")
    first, second, third = status.details
    assert error_details_pb2.ErrorInfo.FromString(first.value) == info
    assert error_details_pb2.RetryInfo.FromString(second.value).retry_delay.ToMilliseconds() == 1250
    assert third.type_url == "type.googleapis.com/google.rpc.RequestInfo"


# Invalid values


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"text": 5}, "text"),
        ({"text": "\ud83d"}, "surrogate"),
        ({"partials": "строка"}, "partials"),
        ({"partials": [5]}, r"partials\[0\]"),
        ({"partials": [b"a"]}, r"partials\[0\]"),
        ({"partials": [["а", 5]]}, r"partials\[0\]\[1\]"),
        ({"delay": -1}, "delay"),
        ({"delay": float("inf")}, "delay"),
        ({"delay": "1"}, "delay"),
        ({"delay": True}, "delay"),
        ({"status": "DONE"}, "status"),
        ({"status": -1}, "status"),
        ({"status": 2**31}, "status"),
        ({"status": True}, "status"),
        ({"tool_calls": [{"arguments": {}}]}, r"tool_calls\[0\]"),
        ({"tool_calls": [{"name": "f", "args": {}}]}, r"tool_calls\[0\]"),
        ({"tool_calls": ["f"]}, r"tool_calls\[0\]"),
        ({"tool_calls": [{"name": "f", "arguments": [1]}]}, "arguments"),
        ({"tool_calls": [{"name": "f", "arguments": {"a": 2**60 + 1}}]}, r"arguments\.a"),
        ({"tool_calls": [{"name": "f"}], "text": "а"}, "either"),
        ({"alternatives": "а"}, "alternatives"),
        ({"alternatives": {"text": "а"}}, "alternatives"),
        ({"alternatives": [5]}, r"alternatives\[0\]"),
        ({"alternatives": [{"words": "а"}]}, r"alternatives\[0\]"),
        ({"alternatives": ["а"], "text": "б"}, "alternatives"),
        ({"alternatives": ["а"], "status": "FINAL"}, "alternatives"),
        ({"usage": {"tokens": 5}}, "usage"),
        ({"usage": [5]}, "usage"),
        ({"usage": {"input_tokens": -1}}, "input_tokens"),
        ({"model_version": None}, "model_version"),
        ({"times": 0}, "times"),
        ({"times": 1.0}, "times"),
    ],
)
def test_invalid_answer_is_rejected(emulator: Emulator, ask: Asker, arguments: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        emulator.reply(**arguments)
    assert len(ask()) == 4


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"code": "OK"}, "code"),
        ({"code": "BROKEN"}, "code"),
        ({"code": 14}, "code"),
        ({"code": grpc.StatusCode.OK}, "code"),
        ({"message": 5}, "message"),
        ({"times": 0}, "times"),
        ({"after": -1}, "after"),
        ({"details": ["а"]}, r"details\[0\]"),
        ({"retry_after": -1}, "retry_after"),
        ({"pushback": 1.5}, "pushback"),
        ({"pushback": True}, "pushback"),
        ({"delay": -1}, "delay"),
    ],
)
def test_invalid_failure_is_rejected(emulator: Emulator, ask: Asker, arguments: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        emulator.fail(**{"code": "INTERNAL", **arguments})
    assert len(ask()) == 4


def test_every_status_of_the_interface_has_a_name(emulator: Emulator, ask: Asker) -> None:
    for name, number in text_common_pb2.Alternative.AlternativeStatus.items():
        emulator.reply("а", status=name)
        assert shape(ask()) == [("а", number)]
