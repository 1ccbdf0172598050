"""``client.responses``: code for the OpenAI client works over gRPC."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import time
from typing import Any

import pytest
from driver import FOREVER, output_of, program

import yandexgpt
from yandexgpt._openai.request import UnsupportedParameters
from yandexgpt._openai.response import OutputMessage
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt.emulator import Emulator

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "Погода в городе",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


def sent(emulator: Emulator) -> Any:
    return emulator.requests[-1].message


def texts(emulator: Emulator) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in sent(emulator).messages]


# The example of the guide


def test_code_of_the_guide_works(client: Any, emulator: Emulator) -> None:
    folder, model = "b1g0123456789abcdefg", "yandexgpt-lite"
    emulator.reply("1. **Бюро случайных поездок.**\n\n2. …")

    response = client.responses.create(
        model=f"gpt://{folder}/{model}",
        input="Придумай 3 необычные идеи для стартапа в сфере путешествий.",
        temperature=0.8,
        max_output_tokens=1500,
    )

    assert response.output[0].content[0].text == "1. **Бюро случайных поездок.**\n\n2. …"
    request = sent(emulator)
    assert request.model_uri == f"gpt://{folder}/{model}"
    assert texts(emulator) == [("user", "Придумай 3 необычные идеи для стартапа в сфере путешествий.")]
    assert request.completion_options.temperature.value == 0.8
    assert request.completion_options.max_tokens.value == 1500
    assert not request.completion_options.stream


def test_response_has_the_attributes_of_openai(client: Any, emulator: Emulator) -> None:
    usage = {"input_tokens": 7, "completion_tokens": 20, "total_tokens": 27, "reasoning_tokens": 12}
    emulator.reply("Байкал глубок.", usage=usage)
    before = time.time()
    response = client.responses.create(model="yandexgpt", input="Расскажи о Байкале")

    assert isinstance(response, yandexgpt.Response)
    assert response.object == "response"
    assert response.status == "completed"
    assert response.completion is not None
    assert response.id == emulator.requests[-1].metadata["x-client-request-id"] == response.completion.request_id
    assert response.created_at is not None
    assert before <= response.created_at <= time.time()
    assert response.model == "gpt://emulator/yandexgpt"
    assert response.output_text == "Байкал глубок."
    assert response.error is None
    assert response.incomplete_details is None
    assert not response.background
    (item,) = response.output
    assert isinstance(item, OutputMessage)
    assert (item.type, item.role, item.status) == ("message", "assistant", "completed")
    assert item.id.startswith("msg_")
    (part,) = item.content
    assert (part.type, part.text) == ("output_text", "Байкал глубок.")
    assert not part.annotations
    assert response.usage is not None
    assert response.usage.input_tokens == 7
    assert response.usage.output_tokens == 20
    assert response.usage.total_tokens == 27
    assert response.usage.output_tokens_details.reasoning_tokens == 12


def test_model_of_the_client_is_the_default(client: Any, emulator: Emulator) -> None:
    assert client.responses.create(input="Привет").model == "gpt://emulator/yandexgpt-lite"
    assert sent(emulator).model_uri == "gpt://emulator/yandexgpt-lite"


def test_to_dict_gives_the_json_of_the_api(client: Any, emulator: Emulator) -> None:
    emulator.reply("Да", usage={"input_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
    response = client.responses.create(input="Так?")
    assert json.loads(json.dumps(response.to_dict())) == {
        "id": response.id,
        "object": "response",
        "created_at": response.created_at,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": "gpt://emulator/yandexgpt-lite",
        "output": [
            {
                "id": f"msg_{response.id}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Да", "annotations": []}],
            }
        ],
        "usage": {
            "input_tokens": 1,
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 3,
        },
    }


def test_response_is_immutable_and_can_be_compared_copied_and_pickled(client: Any, emulator: Emulator) -> None:
    response = client.responses.create(input="Привет")
    assert pickle.loads(pickle.dumps(response)) == copy.deepcopy(response) == response
    assert hash(copy.copy(response)) == hash(response)
    for frozen in (response, response.output[0], response.output[0].content[0], response.usage):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.id = "other"
    response.output.clear()
    assert response.output


@pytest.mark.parametrize(
    ("status", "reason"),
    [("TRUNCATED", "max_output_tokens"), ("CONTENT_FILTER", "content_filter"), ("PARTIAL", None)],
)
def test_truncated_or_filtered_answer_is_incomplete(
    client: Any, emulator: Emulator, status: str, reason: str | None
) -> None:
    emulator.reply("Раз, два", status=status)
    response = client.responses.create(input="Считай")
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == reason
    assert response.output[0].status == "incomplete"
    assert response.output_text == "Раз, два"
    assert response.to_dict()["incomplete_details"] == {"reason": reason}


def test_unknown_status_is_completed(client: Any, emulator: Emulator) -> None:
    emulator.reply("Ответ", status=77)
    assert client.responses.create(input="Привет").status == "completed"


def test_failed_call_raises_the_error_of_complete(client: Any, emulator: Emulator) -> None:
    emulator.fail("PERMISSION_DENIED")
    with pytest.raises(yandexgpt.PermissionDeniedError):
        client.responses.create(input="Привет")


def test_timeout_applies_to_the_whole_call(client: Any, emulator: Emulator) -> None:
    emulator.reply("Поздно", delay=30)
    with pytest.raises(yandexgpt.DeadlineExceededError):
        client.responses.create(input="Привет", timeout=0.2)


# Input


def test_instructions_are_a_system_message(client: Any, emulator: Emulator) -> None:
    client.responses.create(instructions="Отвечай стихами.", input="Привет")
    assert texts(emulator) == [("system", "Отвечай стихами."), ("user", "Привет")]


def test_message_content_may_be_text_or_parts(client: Any, emulator: Emulator) -> None:
    client.responses.create(
        input=[
            {"role": "developer", "content": "Будь краток."},
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Раз"}, {"type": "input_text", "text": "два"}],
            },
            {"role": "assistant", "content": [{"type": "output_text", "text": "Три", "annotations": []}]},
            {
                "role": "assistant",
                "content": [{"type": "refusal", "refusal": "Не могу"}],
                "id": "x",
                "status": "completed",
            },
            {"role": "system", "content": "Строже."},
            {"role": "user", "content": "Дальше"},
        ]
    )
    assert texts(emulator) == [
        ("system", "Будь краток."),
        ("user", "Раз\nдва"),
        ("assistant", "Три"),
        ("assistant", "Не могу"),
        ("system", "Строже."),
        ("user", "Дальше"),
    ]


def test_output_items_can_be_used_as_input(client: Any, emulator: Emulator) -> None:
    conversation: list[Any] = [{"role": "user", "content": "Загадай число"}]
    emulator.reply("Семь")
    first = client.responses.create(input=conversation)
    conversation += first.output
    conversation.append({"role": "user", "content": "А теперь другое"})
    emulator.reply("Восемь")
    second = client.responses.create(input=conversation)
    client.responses.create(input=conversation + second.output + [item.to_dict() for item in first.output])
    assert [text for _, text in texts(emulator)] == ["Загадай число", "Семь", "А теперь другое", "Восемь", "Семь"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("", ValueError, "input must not be empty"),
        ([], ValueError, "input must hold at least one item"),
        (None, TypeError, "input must be a str or a list of items, got NoneType"),
        ({"role": "user", "content": "?"}, TypeError, "input must be a str or a list of items, got dict"),
        ("\ud800", ValueError, "input holds a lone surrogate"),
        (["?"], ValueError, r"input\[0\] must be a mapping, got '\?'"),
        (
            [{"role": "tool", "content": "?"}],
            ValueError,
            r"input\[0\]\['role'\] must be one of user, assistant",
        ),
        ([{"role": [], "content": "?"}], ValueError, r"input\[0\]\['role'\] must be one of"),
        ([{"role": "user"}], ValueError, r"input\[0\]\['content'\] must be a str or a list of parts"),
        ([{"role": "user", "text": "?"}], ValueError, r"input\[0\]\['text'\] cannot be honoured over gRPC"),
        ([{"role": "user", "content": {}}], ValueError, r"input\[0\]\['content'\] must be a str or a list of parts"),
        ([{"role": "user", "content": ["?"]}], ValueError, r"input\[0\]\['content'\]\[0\] must be a mapping"),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "https://example.org/"}]}],
            ValueError,
            r"input\[0\]\['content'\]\[0\]\['type'\] must be one of input_text, output_text, refusal .*'input_image'",
        ),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": 5}]}],
            ValueError,
            r"input\[0\]\['content'\]\[0\]\['text'\] must be a str, got 5",
        ),
        (
            [{"type": "item_reference", "id": "x"}],
            ValueError,
            r"input\[0\]\['type'\] must be one of message, fun",
        ),
        ([{"type": "reasoning", "id": "x"}], ValueError, r"input\[0\]\['type'\] must be one of message, function_call"),
    ],
)
def test_invalid_input_is_rejected(
    client: Any, emulator: Emulator, given: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        client.responses.create(input=given)
    assert not emulator.requests


def test_instructions_must_be_a_string(client: Any) -> None:
    with pytest.raises(ValueError, match="instructions must be a str, got 5"):
        client.responses.create(instructions=5, input="Привет")


# Functions


def test_function_calls_are_output_items(client: Any, emulator: Emulator) -> None:
    calls: list[dict[str, Any]] = [{"name": "weather", "arguments": {"city": "Москва", "days": 3}}, {"name": "now"}]
    emulator.reply(tool_calls=calls)
    response = client.responses.create(input="Какая погода?", tools=[WEATHER])
    assert response.status == "completed"
    assert response.output_text == ""
    first, second = response.output
    assert (first.type, first.name, first.status) == ("function_call", "weather", "completed")
    assert first.arguments == '{"city": "Москва", "days": 3}'
    assert (second.name, second.arguments) == ("now", "{}")
    assert first.call_id != second.call_id
    assert first.id != second.id
    function = sent(emulator).tools[0].function
    assert (function.name, function.description, function.strict) == ("weather", "Погода в городе", True)
    assert function.parameters["properties"]["city"]["type"] == "string"


def test_function_results_are_sent_in_the_order_of_their_calls(client: Any, emulator: Emulator) -> None:
    cities = ["Москва", "Тула", "Орёл"]
    emulator.reply(tool_calls=[{"name": "weather", "arguments": {"city": city}} for city in cities])
    conversation: list[Any] = [{"role": "user", "content": "Где теплее?"}]
    response = client.responses.create(input=conversation, tools=[WEATHER])
    conversation += response.output
    for call in reversed(response.output):  # in any order
        city = json.loads(call.arguments)["city"]
        conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": f"{city}: +5"})
    client.responses.create(input=conversation, tools=[WEATHER])

    question, calls, results = sent(emulator).messages
    assert (question.role, calls.role, results.role) == ("user", "assistant", "user")
    assert [call.function_call.arguments["city"] for call in calls.tool_call_list.tool_calls] == cities
    sent_results = [
        (one.function_result.name, one.function_result.content) for one in results.tool_result_list.tool_results
    ]
    assert sent_results == [("weather", f"{city}: +5") for city in cities]


def test_calls_of_several_iterations_are_separate_messages(client: Any, emulator: Emulator) -> None:
    items: list[Any] = [{"role": "user", "content": "?"}]
    for call_id in ("a", "b"):
        items.append({"type": "function_call", "call_id": call_id, "name": f"f{call_id}", "arguments": '{"x": 1}'})
        items.append(
            {"type": "function_call_output", "call_id": call_id, "output": [{"type": "input_text", "text": call_id}]}
        )
    client.responses.create(input=items)
    kinds = [message.WhichOneof("Content") for message in sent(emulator).messages]
    assert kinds == ["text", "tool_call_list", "tool_result_list", "tool_call_list", "tool_result_list"]
    last = sent(emulator).messages[-1].tool_result_list.tool_results[0].function_result
    assert (last.name, last.content) == ("fb", "b")


CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{**CALL, "arguments": "{"}], r"input\[0\]\['arguments'\] must be a JSON object as a str: "),
        ([{**CALL, "arguments": "[]"}], r"input\[0\]\['arguments'\] must be a JSON object as a str, got '\[\]'"),
        ([{**CALL, "arguments": {}}], r"input\[0\]\['arguments'\] must be a str, got {}"),
        (
            [{**CALL, "arguments": '{"n": 9007199254740993}'}],
            r"\.n: the integer 9007199254740993 does not",
        ),
        ([{**CALL, "call_id": None}], r"input\[0\]\['call_id'\] must be a str"),
        ([{**CALL, "name": None}], r"input\[0\]\['name'\] must be a str"),
        ([{**CALL, "namespace": "x"}], r"input\[0\]\['namespace'\] cannot be honoured over gRPC"),
        (
            [CALL, {"type": "function_call_output", "call_id": "b", "output": ""}],
            r"input\[1\]\['call_id'\] must be th",
        ),
        ([CALL, {"type": "function_call_output", "call_id": "a"}], r"input\[1\]\['output'\] must be a str or a list"),
    ],
)
def test_invalid_function_calls_and_results_are_rejected(client: Any, items: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        client.responses.create(input=items)


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_tool_choice_as_a_string(client: Any, emulator: Emulator, choice: str) -> None:
    client.responses.create(input="?", tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    assert sent(emulator).tool_choice.mode == text_common_pb2.ToolChoice.ToolChoiceMode.Value(choice.upper())
    assert sent(emulator).parallel_tool_calls.value is False
    assert sent(emulator).HasField("parallel_tool_calls")


def test_tool_choice_by_function_name(client: Any, emulator: Emulator) -> None:
    now = {"type": "function", "name": "now", "description": None, "parameters": None, "strict": None}
    client.responses.create(input="?", tools=[WEATHER, now], tool_choice={"type": "function", "name": "now"})
    assert sent(emulator).tool_choice.function_name == "now"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tools": [{"type": "web_search"}]},
            r"tools\[0\] of the type 'web_search' cannot be honoured over gRPC: use",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, r"tools\[0\] must have name, .* beside type"),
        ({"tools": [{"type": "function"}]}, r"tools\[0\] must have a name"),
        ({"tools": [{**WEATHER, "defer_loading": True}]}, r"tools\[0\] must have a name, and may have"),
        ({"tools": [5]}, r"tools\[0\] must be"),
        ({"tool_choice": {"type": "file_search"}}, r"tool_choice={'type': 'file_search'} cannot be honoured over gRPC"),
        ({"tool_choice": {"type": "function"}}, "tool_choice="),
        ({"tool_choice": {"type": "function", "name": "other"}}, "tool_choice must be one of none, auto, required, w"),
    ],
)
def test_unsupported_tools_are_rejected(client: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        client.responses.create(input="?", **{"tools": [WEATHER], **options})


# Text format and reasoning


def test_json_object_and_json_schema_formats_are_sent(client: Any, emulator: Emulator) -> None:
    client.responses.create(input="?", text={"format": {"type": "json_object"}})
    assert sent(emulator).json_object
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    form = {"type": "json_schema", "name": "city", "schema": schema, "strict": True, "description": None}
    response = client.responses.create(input="?", text={"format": form})
    assert sent(emulator).json_schema.schema["properties"]["city"]["type"] == "string"
    assert list(json.loads(response.output_text)) == ["city"]
    for text in ({}, {"format": None, "verbosity": None}, {"format": {"type": "text"}}):
        client.responses.create(input="?", text=text)
        assert sent(emulator).WhichOneof("ResponseFormat") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"verbosity": "low"}, r"text\['verbosity'\] cannot be honoured over gRPC"),
        ("json", "text must be a mapping, got 'json'"),
        ({"format": "json"}, r"text\['format'\] must be a mapping, got 'json'"),
        ({"format": {"type": "xml"}}, r"text\['format'\]\['type'\] must be one of text, json_object, json_schema"),
        ({"format": {"type": "json_schema", "name": "x"}}, r"text\['format'\]\['schema'\] must be a mapping, got None"),
        (
            {"format": {"type": "json_schema", "schema": {}, "description": "x"}},
            r"text\['format'\]\['description'\] cannot be honoured over gRPC",
        ),
        (
            {"format": {"type": "json_schema", "schema": {"maximum": float("nan")}}},
            r"text\['format'\]\['schema'\].maximum: nan is not a JSON number",
        ),
    ],
)
def test_invalid_text_format_is_rejected(client: Any, text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        client.responses.create(input="?", text=text)


@pytest.mark.parametrize(
    ("effort", "mode"),
    [
        ("none", "DISABLED"),
        *((effort, "ENABLED_HIDDEN") for effort in ("minimal", "low", "medium", "high", "xhigh")),
        (None, "REASONING_MODE_UNSPECIFIED"),
    ],
)
def test_reasoning_effort_enables_or_disables_reasoning(
    client: Any, emulator: Emulator, effort: str | None, mode: str
) -> None:
    client.responses.create(input="?", reasoning={"effort": effort, "summary": None})
    wanted = text_common_pb2.ReasoningOptions.ReasoningMode.Value(mode)
    assert sent(emulator).completion_options.reasoning_options.mode == wanted


@pytest.mark.parametrize(
    ("reasoning", "message"),
    [
        ({"effort": "utmost"}, r"reasoning\['effort'\] must be one of none, minimal, low"),
        ({"effort": "low", "summary": "auto"}, r"reasoning\['summary'\] cannot be honoured over gRPC"),
        ("high", "reasoning must be a mapping, got 'high'"),
    ],
)
def test_unsupported_reasoning_is_rejected(client: Any, reasoning: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        client.responses.create(input="?", reasoning=reasoning)


# Parameters without a gRPC equivalent

VALUES: dict[str, Any] = {
    "include": ["reasoning.encrypted_content"],
    "metadata": {"topic": "demo"},
    "previous_response_id": "resp_1",
    "conversation": "conv_1",
    "top_p": 0.5,
    "extra_headers": {"x-y": "z"},
}


@pytest.mark.parametrize("name", sorted(UnsupportedParameters.__annotations__))
def test_parameter_without_a_grpc_equivalent_is_rejected_by_name(client: Any, emulator: Emulator, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} cannot be honoured over gRPC: .{{10}}"):
        client.responses.create(input="Привет", **{name: VALUES.get(name, "x")})
    assert not emulator.requests
    assert client.responses.create(input="Привет", **{name: None}).status == "completed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stream": True}, r"stream=True cannot be honoured over gRPC: use client\.stream\(\)"),
        ({"truncation": "auto"}, "truncation='auto' cannot be honoured over gRPC"),
        ({"store": True}, "store=True cannot be honoured over gRPC: .*background=True"),
        ({"store": False, "background": True}, "store=False cannot be honoured over gRPC: .* three days"),
        ({"temperature": 1.5}, "temperature must be a number from 0 to 1, got 1.5"),
        ({"max_output_tokens": 0}, "max_output_tokens must be a whole number greater than 0, got 0"),
        ({"max_output_tokens": True}, "max_output_tokens must be a whole number greater than 0, got True"),
        ({"max_output_tokens": 1.5}, "max_output_tokens must be a whole number greater than 0, got 1.5"),
        ({"model": "два слова"}, "model must be a name"),
        ({"timeout": -1}, "timeout must be"),
    ],
)
def test_value_without_a_grpc_equivalent_is_rejected(
    client: Any, emulator: Emulator, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        client.responses.create(input="Привет", **options)
    assert not emulator.requests


def test_parameters_with_default_values_are_accepted(client: Any) -> None:
    response = client.responses.create(input="Привет", stream=False, truncation="disabled", store=False, timeout=None)
    assert response.status == "completed"


def test_unknown_keyword_is_a_type_error(client: Any) -> None:
    with pytest.raises(TypeError, match=r"create\(\) got an unexpected keyword argument 'max_tokens'"):
        client.responses.create(input="Привет", max_tokens=5)
    with pytest.raises(TypeError, match="input"):
        client.responses.create(model="yandexgpt")


def test_closed_client_raises_an_error(factory: Any, emulator: Emulator) -> None:
    client = factory.client(emulator)
    client.close()
    with pytest.raises(yandexgpt.ConfigurationError, match="closed"):
        client.responses.create(input="Привет")


# In the background


def test_completed_background_response_is_retrieved(client: Any, emulator: Emulator) -> None:
    emulator.operations.time = FOREVER
    emulator.reply("Байкал глубок.", usage={"input_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
    response = client.responses.create(
        model="yandexgpt", instructions="Кратко.", input="Расскажи о Байкале", max_output_tokens=50, background=True
    )
    assert texts(emulator) == [("system", "Кратко."), ("user", "Расскажи о Байкале")]
    assert sent(emulator).completion_options.max_tokens.value == 50
    assert emulator.operations.ids == [response.id]
    assert response.background
    assert response.status == "in_progress"
    assert response.model == "gpt://emulator/yandexgpt"
    assert response.created_at == pytest.approx(time.time(), abs=10)
    assert (response.output, response.output_text, response.usage, response.error) == ([], "", None, None)
    assert response.incomplete_details is None
    assert client.responses.retrieve(response.id).to_dict() == {**response.to_dict(), "model": None}

    emulator.operations.finish(response.id)
    done = client.responses.retrieve(response.id, timeout=5)
    assert (done.id, done.created_at, done.status) == (response.id, response.created_at, "completed")
    assert done.output[0].content[0].text == done.output_text == "Байкал глубок."
    assert done.usage.total_tokens == 5
    assert response.status == "in_progress"


def test_polling_code_gets_the_completed_response(client: Any, emulator: Emulator) -> None:
    emulator.operations.time = 0.1
    response = client.responses.create(input="раз два", background=True, store=True)
    while response.status in {"queued", "in_progress"}:
        time.sleep(0.02)
        response = client.responses.retrieve(response.id)
    assert response.output_text == "раз два"


def test_background_response_is_retrieved_in_another_process(client: Any, emulator: Emulator) -> None:
    response = client.responses.create(input="раз два", background=True)
    source = """
import sys, yandexgpt
with yandexgpt.Client() as client:
    print(client.responses.retrieve(sys.argv[1]).output_text)
"""
    assert output_of(program(source, emulator, response.id)) == (0, "раз два\n", "")


def test_background_response_can_have_function_calls_or_be_incomplete(client: Any, emulator: Emulator) -> None:
    emulator.reply(tool_calls=[{"name": "weather", "arguments": {"city": "Тула"}}])
    response = client.responses.create(input="?", tools=[WEATHER], background=True)
    (call,) = client.responses.retrieve(response.id).output
    assert (call.name, call.arguments, call.call_id) == ("weather", '{"city": "Тула"}', f"call_{response.id}_0")
    response = client.responses.create(input="раз два три", max_output_tokens=2, background=True)
    assert client.responses.retrieve(response.id).incomplete_details.reason == "max_output_tokens"


def test_failed_background_response_has_the_error(client: Any, emulator: Emulator) -> None:
    emulator.fail("INTERNAL", "model fell over", operation=True)
    response = client.responses.retrieve(client.responses.create(input="?", background=True).id)
    assert response.status == "failed"
    assert (response.error.code, response.error.message) == ("INTERNAL", "model fell over")
    assert response.to_dict()["error"] == {"code": "INTERNAL", "message": "model fell over"}
    assert (response.output, response.usage) == ([], None)
    assert pickle.loads(pickle.dumps(response)) == response


def test_background_response_can_be_cancelled(client: Any, emulator: Emulator) -> None:
    emulator.operations.time = FOREVER
    response = client.responses.create(input="?", background=True)
    assert client.responses.cancel(response.id, timeout=5).status == "cancelled"
    assert client.responses.retrieve(response.id).status == "cancelled"


def test_cancel_of_a_completed_background_response_has_no_effect(client: Any, emulator: Emulator) -> None:
    response = client.responses.create(input="раз", background=True)
    emulator.operations.finish(response.id)
    assert client.responses.cancel(response.id).output_text == "раз"


def test_response_that_is_not_in_the_background_is_not_found(client: Any, emulator: Emulator) -> None:
    response = client.responses.create(input="?")
    for method in (client.responses.retrieve, client.responses.cancel):
        with pytest.raises(yandexgpt.NotFoundError, match="three days"):
            method(response.id)
    with pytest.raises(ValueError, match="operation"):
        client.responses.retrieve("")


def test_failed_submission_raises_the_error_of_submit(client: Any, emulator: Emulator) -> None:
    emulator.fail("RESOURCE_EXHAUSTED", pushback=-1)
    with pytest.raises(yandexgpt.QuotaExceededError):
        client.responses.create(input="?", background=True)
    assert not emulator.operations.ids


def test_tool_object_can_be_passed_as_a_tool(client: Any, emulator: Emulator) -> None:
    @yandexgpt.tool(parameters=WEATHER["parameters"])
    def weather(city: str) -> str:
        """Погода в городе"""
        return city

    client.responses.create(input="?", tools=[weather], tool_choice="required")
    assert sent(emulator).tools[0].function.description == "Погода в городе"
