"""Requests from Python arguments and from REST bodies, and their validation before sending."""

from __future__ import annotations

import copy
import json
import math
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yandexgpt import Completion, ConfigurationError, Message, load_request, tool
from yandexgpt._messages import ToolResult
from yandexgpt._models import CompletionResponse
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._request import CompletionRequest, build_request, model_uri
from yandexgpt._struct_json import to_python, to_struct_value

FOLDER = "b1g0123456789abcdefg"
WEATHER = {
    "name": "weather",
    "description": "Погода в городе",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city"],
    },
}


def build(prompt: Any = "Привет", **options: Any) -> CompletionRequest:
    arguments = {"folder_id": FOLDER, "default_model": "yandexgpt-lite", "stream": False, **options}
    return build_request(prompt, **arguments)


def roles_and_texts(request: CompletionRequest) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in request.messages]


def answer(text: str, role: str = "assistant") -> Completion:
    message = text_common_pb2.Message(role=role, text=text)
    return Completion(
        CompletionResponse(
            alternatives=[
                text_common_pb2.Alternative(
                    message=message, status=text_common_pb2.Alternative.ALTERNATIVE_STATUS_FINAL
                )
            ]
        )
    )


# Prompts


def test_string_prompt_is_one_user_message() -> None:
    request = build("Ашипки саме сибя ни исрпвят", system="Исправь ошибки в тексте.")
    assert roles_and_texts(request) == [("system", "Исправь ошибки в тексте."), ("user", "Ашипки саме сибя ни исрпвят")]
    assert request.model_uri == f"gpt://{FOLDER}/yandexgpt-lite"


def test_prompt_may_mix_messages_mappings_and_completions() -> None:
    conversation = [
        Message("system", "Ты умный ассистент"),
        {"role": "user", "text": "Привет! Какими науками занимался Эйнштейн?"},
        answer("Физикой"),
        {"role": "user", "text": "Подробнее"},
    ]
    assert roles_and_texts(build(conversation)) == [
        ("system", "Ты умный ассистент"),
        ("user", "Привет! Какими науками занимался Эйнштейн?"),
        ("assistant", "Физикой"),
        ("user", "Подробнее"),
    ]


def test_prompt_may_be_any_iterable() -> None:
    assert roles_and_texts(build(Message("user", text) for text in "ab")) == [("user", "a"), ("user", "b")]
    assert roles_and_texts(build((Message("user", "a"),))) == [("user", "a")]


def test_tool_calls_and_results_may_be_mappings() -> None:
    calls = {"toolCalls": [{"functionCall": {"name": "weather", "arguments": {"city": "Москва", "days": 3}}}]}
    results = {"toolResults": [{"functionResult": {"name": "weather", "content": "+5"}}]}
    request = build(
        [
            {"role": "user", "text": "Погода?"},
            {"role": "assistant", "toolCallList": calls},
            {"role": "user", "toolResultList": results},
        ]
    )
    assert Message.from_proto(request.messages[1]).tool_calls[0].arguments == {"city": "Москва", "days": 3}
    assert request.messages[2].tool_result_list.tool_results[0].function_result.content == "+5"


def test_completion_with_tool_calls_is_converted_to_its_message() -> None:
    calls = {"tool_calls": [{"function_call": {"name": "weather"}}]}
    message = text_common_pb2.Message(role="assistant", tool_call_list=calls)
    completion = Completion(CompletionResponse(alternatives=[text_common_pb2.Alternative(message=message)]))
    assert build([completion]).messages[0] == message


@pytest.mark.parametrize(
    ("prompt", "error", "words"),
    [
        ("", ValueError, "prompt must not be empty"),
        ([], ValueError, "prompt must hold at least one message"),
        (CompletionRequest(), ValueError, "prompt must hold at least one message"),
        ("a\ud800", ValueError, "prompt holds a lone surrogate at 1"),
        (b"a", TypeError, "prompt must be a str, a sequence of messages or a CompletionRequest, got bytes"),
        (5, TypeError, "got int"),
        (None, TypeError, "got NoneType"),
        ({"role": "user", "text": "a"}, TypeError, "got dict"),
        (Message("user", "a"), TypeError, "got Message"),
        (answer("a"), TypeError, "got Completion"),
        ([Message("user", "a"), "b"], TypeError, r"prompt\[1\] must be a Message, a mapping or a Completion, got str"),
        ([{"role": "robot", "text": "a"}], ValueError, r"prompt\[0\]\['role'\] must be one of system, user, assistant"),
        ([{"role": 5, "text": "a"}], ValueError, r"prompt\[0\]\['role'\] .* got 5"),
        ([{"role": "user", "text": 5}], ValueError, r"prompt\[0\]\['text'\] must be a str, got 5"),
        ([{"role": "user", "text": "\udfff"}], ValueError, r"prompt\[0\]\['text'\] holds a lone surrogate at 0"),
        ([{"role": "user"}], ValueError, r"prompt\[0\]: a message needs one of text, toolCallList, toolResultList"),
        ([{"text": "a"}], ValueError, r"prompt\[0\]: role must be one of system, user, assistant, got ''"),
        ([{"role": "user", "content": "a"}], ValueError, r'prompt\[0\]: .* no field named "content"'),
        ([{5: "a"}], ValueError, r"prompt\[0\]: "),
    ],
)
def test_invalid_prompt_is_rejected(prompt: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build(prompt)


def test_completion_without_a_message_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"prompt\[0\]"):
        build([Completion(CompletionResponse()), Message("user", "a")])


@pytest.mark.parametrize(
    ("system", "words"), [(5, "system must be a str, got 5"), ("\ud800", "system holds a lone surrogate")]
)
def test_invalid_system_message_is_rejected(system: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build("a", system=system)


@pytest.mark.parametrize("prompt", [[Message("user", "a"), Message("system", "b")], [Message("system", "b")]])
def test_two_system_messages_are_rejected(prompt: Any) -> None:
    with pytest.raises(ValueError, match="system must not be given for a prompt that has a message of the role system"):
        build(prompt, system="c")


@given(st.text(min_size=1).filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text)))
def test_any_text_is_sent_unchanged(text: str) -> None:
    sent = CompletionRequest.FromString(build(text, system=text).SerializeToString())
    assert roles_and_texts(sent) == [("system", text), ("user", text)]
    assert roles_and_texts(build([{"role": "assistant", "text": text}, Message("user", text)])) == [
        ("assistant", text),
        ("user", text),
    ]


# Models


@pytest.mark.parametrize(
    ("model", "uri"),
    [
        ("yandexgpt", f"gpt://{FOLDER}/yandexgpt"),
        ("yandexgpt/rc", f"gpt://{FOLDER}/yandexgpt/rc"),
        ("yandexgpt-lite/latest@tuned1", f"gpt://{FOLDER}/yandexgpt-lite/latest@tuned1"),
        ("llama3.1-70b", f"gpt://{FOLDER}/llama3.1-70b"),
        ("gpt://other/yandexgpt/latest", "gpt://other/yandexgpt/latest"),
        ("gpt://other/yandexgpt/latest@suffix", "gpt://other/yandexgpt/latest@suffix"),
        ("ds://bt1tuned", "ds://bt1tuned"),
    ],
)
def test_model_is_a_name_a_version_or_a_uri(model: str, uri: str) -> None:
    assert model_uri(model, FOLDER) == uri
    assert build(model=model).model_uri == uri


def test_model_uri_needs_no_folder() -> None:
    assert model_uri("gpt://other/yandexgpt", None) == "gpt://other/yandexgpt"


@pytest.mark.parametrize("model", ["", " ", "a b", "/a", "a/", "a/b/c", "a:b", "a\n", "<model>", None, 5, b"a"])
def test_invalid_model_is_rejected(model: Any) -> None:
    with pytest.raises(ValueError, match="model must be a name, name/version or a URI such as gpt://") as caught:
        model_uri(model, FOLDER)
    assert str(caught.value).endswith(f"got {model!r}")


@pytest.mark.parametrize("uri", ["GPT://a/b", "://a", "gpt://", "gpt://a b"])
def test_invalid_model_uri_is_rejected(uri: str) -> None:
    with pytest.raises(ValueError, match="model must be") as caught:
        model_uri(uri, FOLDER)
    assert repr(uri) in str(caught.value)


@pytest.mark.parametrize("uri", ["gpt://<folder>/yandexgpt", "gpt://<идентификатор_каталога>/yandexgpt-lite"])
def test_error_of_a_uri_with_a_placeholder_explains_it(uri: str) -> None:
    with pytest.raises(ValueError, match="still holds a placeholder: put your folder id in its place") as caught:
        model_uri(uri, FOLDER)
    assert repr(uri) in str(caught.value)


@pytest.mark.parametrize("uri", ["gpt:///yandexgpt", "gpt://"])
def test_uri_with_an_empty_folder_is_rejected(uri: str) -> None:
    with pytest.raises(ValueError, match="model"):
        model_uri(uri, FOLDER)


@pytest.mark.parametrize("folder", [None, ""])
def test_error_of_a_model_name_without_a_folder_lists_the_sources(folder: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(folder_id=folder)
    for words in ("'yandexgpt-lite'", "folder_id=", "YC_FOLDER_ID", "FOLDER_ID", "YANDEX_CLOUD_FOLDER", "whole URI"):
        assert words in str(caught.value)


# Options


def test_omitted_options_are_not_sent() -> None:
    request = build()
    assert [field.name for field, _ in request.ListFields()] == ["model_uri", "completion_options", "messages"]
    assert request.completion_options.ListFields() == []


@pytest.mark.parametrize("stream", [True, False])
def test_stream_option_is_set_by_the_kind_of_call(stream: bool) -> None:
    ready = build()
    ready.completion_options.stream = not stream
    assert build(ready, stream=stream).completion_options.stream is stream


@pytest.mark.parametrize("temperature", [0, 1, 0.0, 0.3, 1.0])
def test_temperature_is_sent_including_zero(temperature: float) -> None:
    options = build(temperature=temperature).completion_options
    assert options.HasField("temperature")
    assert options.temperature.value == temperature


@pytest.mark.parametrize("temperature", [-0.01, 1.01, 2, math.nan, math.inf, "0.5", True, 1j, [0.5]])
def test_invalid_temperature_is_rejected(temperature: Any) -> None:
    with pytest.raises(ValueError, match="temperature must be a number from 0 to 1, got") as caught:
        build(temperature=temperature)
    assert str(caught.value).endswith(repr(temperature))


class Index:
    """An integer type of another library, such as numpy's."""

    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(("max_tokens", "sent"), [(1, 1), (2000, 2000), (2**63 - 1, 2**63 - 1), (Index(), 7)])
def test_max_tokens_is_sent(max_tokens: Any, sent: int) -> None:
    assert build(max_tokens=max_tokens).completion_options.max_tokens.value == sent


@pytest.mark.parametrize("max_tokens", [0, -1, 1.0, "2000", True, math.inf, [1]])
def test_invalid_max_tokens_is_rejected(max_tokens: Any) -> None:
    with pytest.raises(ValueError, match="max_tokens must be a whole number greater than 0, got") as caught:
        build(max_tokens=max_tokens)
    assert str(caught.value).endswith(repr(max_tokens))


def test_error_of_max_tokens_above_int64_shows_the_range() -> None:
    with pytest.raises(ValueError, match=r"max_tokens must be .* (9223372036854775807|2\*\*63 ?- ?1)"):
        build(max_tokens=2**63)


@pytest.mark.parametrize(
    ("reasoning", "mode"),
    [
        ("disabled", text_common_pb2.ReasoningOptions.DISABLED),
        ("hidden", text_common_pb2.ReasoningOptions.ENABLED_HIDDEN),
    ],
)
def test_reasoning_is_sent(reasoning: str, mode: int) -> None:
    assert build(reasoning=reasoning).completion_options.reasoning_options.mode == mode


@pytest.mark.parametrize("reasoning", ["", "enabled", "HIDDEN", True, ["hidden"], 1])
def test_unknown_reasoning_is_rejected(reasoning: Any) -> None:
    with pytest.raises(ValueError, match="reasoning must be one of disabled, hidden, got") as caught:
        build(reasoning=reasoning)
    assert repr(reasoning) in str(caught.value)


@pytest.mark.parametrize("allowed", [True, False])
def test_parallel_tool_calls_is_sent_including_false(allowed: bool) -> None:
    request = build(parallel_tool_calls=allowed)
    assert request.HasField("parallel_tool_calls")
    assert request.parallel_tool_calls.value is allowed


@pytest.mark.parametrize("allowed", ["no", "false", 2, []])
def test_parallel_tool_calls_that_is_not_a_bool_is_rejected(allowed: Any) -> None:
    with pytest.raises(ValueError, match="parallel_tool_calls"):
        build(parallel_tool_calls=allowed)


# Tools


def test_tools_are_sent() -> None:
    [tool] = build(tools=[WEATHER]).tools
    assert (tool.function.name, tool.function.description, tool.function.strict) == (
        "weather",
        "Погода в городе",
        False,
    )
    assert to_python(tool.function.parameters) == WEATHER["parameters"]


def test_tool_may_have_the_form_of_the_rest_body_and_be_strict() -> None:
    [wrapped, bare] = build(tools=iter([{"function": {**WEATHER, "strict": True}}, {"name": "now"}])).tools
    assert wrapped.function.strict is True
    assert (bare.function.name, bare.function.description) == ("now", "")
    assert to_python(bare.function.parameters) == {}


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("weather", r"tools\[1\] must be a mapping with name, description and parameters.*, got 'weather'"),
        (None, r"tools\[1\] must be a mapping"),
        ({}, r"tools\[1\] must have a name, .* got nothing"),
        ({"description": "a"}, r"tools\[1\] must have a name, .* got 'description'"),
        ({"name": ""}, r"tools\[1\] must have a name"),
        ({"name": 5}, r"tools\[1\] must have a name"),
        ({"name": "a", "arguments": {}}, r"tools\[1\] .* may have description, parameters .* got 'name', 'arguments'"),
        ({"name": "a", "parameters": {"x": {1}}}, r"tools\[1\]\['parameters'\]\.x: set is not a JSON value"),
        ({"name": "a", "parameters": {5: 1}}, r"tools\[1\]\['parameters'\]: the key 5 is not a string"),
    ],
)
def test_error_of_an_invalid_tool_names_its_index(tool: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(tools=[WEATHER, tool])


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "a", "parameters": "x"},
        {"name": "a", "parameters": [1]},
        {"name": "a", "description": 5},
        {"name": "a", "description": "\ud800"},
        {"name": "\ud800"},
        {"name": "a", "strict": "yes"},
        {"function": 5},
        {"function": []},
        {"function": None},
        {"function": "name"},
    ],
    ids=repr,
)
def test_error_of_a_tool_field_of_the_wrong_type_names_its_path(tool: Any) -> None:
    with pytest.raises(ValueError, match=r"tools\[1\]"):
        build(tools=[WEATHER, tool])


@pytest.mark.parametrize("field", ["description", "parameters", "strict"])
def test_tool_field_that_is_none_is_omitted_or_rejected_with_its_path(field: str) -> None:
    try:
        request = build(tools=[{"name": "a", field: None}])
    except ValueError as error:
        message = str(error)
    else:
        assert request == build(tools=[{"name": "a"}])
        return
    assert "tools[0]" in message


@pytest.mark.parametrize("tools", [5, True])
def test_tools_that_are_not_a_sequence_are_rejected(tools: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="tools"):
        build(tools=tools)


@pytest.mark.parametrize(("choice", "mode"), [("none", "NONE"), ("auto", "AUTO"), ("required", "REQUIRED")])
def test_tool_choice_is_sent(choice: str, mode: str) -> None:
    sent = build(tool_choice=choice, tools=[WEATHER]).tool_choice
    assert sent.mode == text_common_pb2.ToolChoice.ToolChoiceMode.Value(mode)
    assert not sent.function_name


def test_tool_choice_may_be_a_tool_name() -> None:
    assert build(tool_choice="weather", tools=[WEATHER]).tool_choice.function_name == "weather"
    assert build(build(tools=[WEATHER]), tool_choice="weather").tool_choice.function_name == "weather"


def test_tool_choice_of_an_unknown_tool_is_rejected() -> None:
    with pytest.raises(ValueError, match="tool_choice must be one of none, auto, required, weather, got 'forecast'"):
        build(tool_choice="forecast", tools=[WEATHER])


@pytest.mark.parametrize("choice", [5, True, ["auto"], {"mode": "auto"}])
def test_tool_choice_that_is_not_a_string_is_rejected(choice: Any) -> None:
    with pytest.raises(ValueError, match="tool_choice must be one of none, auto, required"):
        build(tool_choice=choice)


# Response format

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 150}}, "additionalProperties": False}


class Person:
    """Looks like a pydantic model."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return copy.deepcopy(SCHEMA)


def test_response_format_json_is_sent() -> None:
    assert build(response_format="json").json_object is True


@pytest.mark.parametrize("response_format", [SCHEMA, Person, Person()], ids=["schema", "model", "instance"])
def test_response_format_may_be_a_schema_or_a_model(response_format: Any) -> None:
    request = build(response_format=response_format)
    assert request.WhichOneof("ResponseFormat") == "json_schema"
    assert to_python(request.json_schema.schema) == SCHEMA


@pytest.mark.parametrize("response_format", ["JSON", "text", 5, [SCHEMA], True])
def test_unknown_response_format_is_rejected(response_format: Any) -> None:
    with pytest.raises(ValueError, match='response_format must be "json", a JSON Schema as a mapping, or a pydantic'):
        build(response_format=response_format)


def test_error_of_a_schema_that_is_not_json_names_the_path() -> None:
    with pytest.raises(ValueError, match=r"response_format\.properties\[1\]: bytes is not a JSON value"):
        build(response_format={"properties": [1, b"a"]})


def test_empty_schema_is_sent() -> None:
    assert build(response_format={}).WhichOneof("ResponseFormat") == "json_schema"


# Ready requests


def ready_request() -> CompletionRequest:
    return build(
        "Погода?",
        system="Коротко.",
        model="gpt://other/yandexgpt",
        stream=True,
        temperature=0.1,
        max_tokens=5,
        reasoning="hidden",
        tools=[WEATHER],
        tool_choice="weather",
        parallel_tool_calls=False,
        response_format=SCHEMA,
    )


def test_ready_request_is_sent_unchanged_except_for_the_stream_option() -> None:
    expected = ready_request()
    expected.completion_options.stream = False
    assert build(ready_request()) == expected


def test_options_override_those_of_a_ready_request_without_changing_it() -> None:
    ready = ready_request()
    request = build(
        ready,
        model="yandexgpt/rc",
        temperature=0.9,
        max_tokens=6,
        reasoning="disabled",
        tools=[{"name": "now"}],
        tool_choice="auto",
        parallel_tool_calls=True,
        response_format="json",
    )
    assert ready == ready_request()
    assert request.model_uri == f"gpt://{FOLDER}/yandexgpt/rc"
    assert request.completion_options.temperature.value == 0.9
    assert request.completion_options.max_tokens.value == 6
    assert request.completion_options.reasoning_options.mode == text_common_pb2.ReasoningOptions.DISABLED
    assert [tool.function.name for tool in request.tools] == ["now"]
    assert (request.tool_choice.mode, request.tool_choice.function_name) == (text_common_pb2.ToolChoice.AUTO, "")
    assert request.parallel_tool_calls.value is True
    assert request.WhichOneof("ResponseFormat") == "json_object"
    assert roles_and_texts(request) == roles_and_texts(ready)


def test_schema_replaces_that_of_a_ready_request() -> None:
    request = build(ready_request(), response_format={"type": "array"})
    assert to_python(request.json_schema.schema) == {"type": "array"}


def test_empty_list_of_tools_removes_those_of_a_ready_request() -> None:
    assert not build(ready_request(), tools=[], tool_choice="none").tools


def test_system_message_is_added_to_a_ready_request() -> None:
    ready = CompletionRequest(messages=[text_common_pb2.Message(role="user", text="a")])
    assert roles_and_texts(build(ready, system="b")) == [("system", "b"), ("user", "a")]
    assert roles_and_texts(ready) == [("user", "a")]
    with pytest.raises(ValueError, match="system must not be given"):
        build(ready_request(), system="b")


def test_ready_request_without_a_model_gets_the_model_of_the_client() -> None:
    ready = CompletionRequest(messages=[text_common_pb2.Message(role="user", text="a")])
    assert build(ready).model_uri == f"gpt://{FOLDER}/yandexgpt-lite"
    assert ready.model_uri == ""


def test_placeholder_in_a_ready_request_is_an_error_unless_a_model_is_given() -> None:
    ready = ready_request()
    ready.model_uri = "gpt://<идентификатор_каталога>/yandexgpt"
    with pytest.raises(ValueError, match="still holds a placeholder"):
        build(ready)
    assert build(ready, model="yandexgpt").model_uri == f"gpt://{FOLDER}/yandexgpt"


def test_error_of_a_ready_request_with_a_model_name_requires_a_uri() -> None:
    ready = ready_request()
    ready.model_uri = "yandexgpt-lite"
    with pytest.raises(ValueError, match="yandexgpt-lite") as caught:
        build(ready)
    assert "must be a name" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        lambda: ([{"role": "user", "text": "a"}, {"role": "assistant", "text": "b"}], {"system": "c"}),
        lambda: ([Message("user", "a"), answer("b")], {"system": "c", "tools": [copy.deepcopy(WEATHER)]}),
        lambda: ("a", {"tools": [{"function": copy.deepcopy(WEATHER)}], "response_format": copy.deepcopy(SCHEMA)}),
        lambda: (ready_request(), {"tools": [], "temperature": 1, "model": "other"}),
    ],
)
def test_arguments_are_not_modified(arguments: Callable[[], tuple[Any, dict[str, Any]]]) -> None:
    prompt, options = arguments()
    request = build(prompt, **options)
    request.messages[0].text = "changed"
    request.messages.add(role="user", text="more")
    assert (prompt, options) == arguments()


# REST bodies

BODY = {
    "modelUri": f"gpt://{FOLDER}/yandexgpt-lite",
    "completionOptions": {"stream": False, "temperature": 0.6, "maxTokens": "2000"},
    "messages": [
        {"role": "system", "text": "Ты умный ассистент"},
        {"role": "user", "text": "Привет! Как мне подготовиться к экзаменам?"},
        {"role": "assistant", "text": "Привет! По каким предметам?"},
        {"role": "user", "text": "Математике и физике"},
    ],
}


@pytest.mark.parametrize("kind", [str, Path])
def test_rest_body_is_read_from_a_file(tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    file = tmp_path / "body.json"
    file.write_text(json.dumps(BODY, ensure_ascii=False), encoding="utf-8")
    request = load_request(kind(file))
    assert request.model_uri == BODY["modelUri"]
    assert request.completion_options.max_tokens.value == 2000
    assert request.completion_options.temperature.value == 0.6
    assert roles_and_texts(request) == [(message["role"], message["text"]) for message in BODY["messages"]]  # type: ignore[index]
    assert build(request) == request


def test_rest_body_may_be_a_mapping_with_either_form_of_numbers_and_names() -> None:
    body = {
        "model_uri": f"gpt://{FOLDER}/yandexgpt",
        "completionOptions": {"maxTokens": 2000, "reasoningOptions": {"mode": "ENABLED_HIDDEN"}},
        "messages": [{"role": "user", "text": "a"}],
        "tools": [{"function": WEATHER}],
        "toolChoice": {"functionName": "weather"},
        "parallelToolCalls": False,
        "jsonSchema": {"schema": SCHEMA},
    }
    before = copy.deepcopy(body)
    request = load_request(body)
    assert body == before
    assert request == build(
        "a",
        model="yandexgpt",
        max_tokens=2000,
        reasoning="hidden",
        tools=[WEATHER],
        tool_choice="weather",
        parallel_tool_calls=False,
        response_format=SCHEMA,
    )


def test_options_override_those_of_a_rest_body() -> None:
    request = build(load_request(BODY), temperature=0, max_tokens=10, model="yandexgpt", stream=True)
    assert request.model_uri == f"gpt://{FOLDER}/yandexgpt"
    assert request.completion_options.max_tokens.value == 10
    assert request.completion_options.temperature.value == 0
    assert request.completion_options.stream is True


def test_rest_body_with_a_placeholder_is_loaded_and_rejected_when_sent() -> None:
    request = load_request({**BODY, "modelUri": "gpt://<идентификатор_каталога>/yandexgpt-lite"})
    with pytest.raises(ValueError, match=r"<идентификатор_каталога>.* still holds a placeholder"):
        build(request)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a JSON file"),
        (b"{", "not a JSON file"),
        (b'{"a": "\xff"}', "not a JSON file"),
        (b"[]", "a JSON object, this is list"),
        (b"null", "a JSON object, this is NoneType"),
        (b'{"model": "yandexgpt"}', '"model"'),
        (b'{"messages": [{"role": "user", "content": "a"}]}', '"content"'),
        (b'{"messages": [{"role": "robot", "text": "a"}]}', r"messages\[0\]\.role must be one of system, user, assist"),
        (b'{"messages": 5}', "messages"),
        (b'{"completionOptions": {"maxTokens": "many"}}', "maxTokens"),
        (b'{"completionOptions": {"maxTokens": "9223372036854775808"}}', "maxTokens"),
        (b'{"completionOptions": {"temperature": "warm"}}', "temperature"),
        (b'{"completionOptions": 5}', "completionOptions"),
        (b'{"jsonSchema": {"schema": 5}}', "jsonSchema"),
    ],
)
def test_error_of_an_invalid_body_file_names_file_and_field(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "body.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        load_request(file)
    assert str(file) in str(caught.value)


def test_error_of_an_invalid_body_mapping_names_the_field() -> None:
    with pytest.raises(ValueError, match=r"request: not the body of a completion request: .*maxTokens"):
        load_request({"completionOptions": {"maxTokens": []}})


def test_unreadable_body_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"body\.json"):
        load_request(tmp_path / "body.json")


words = st.sampled_from(
    ["modelUri", "messages", "role", "text", "completionOptions", "tools", "jsonSchema", "a", "user"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words
json_like = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4))


@given(st.dictionaries(words, json_like, max_size=5))
def test_any_invalid_body_is_a_value_error(body: dict[str, Any]) -> None:
    try:
        request = load_request(body)
    except ValueError as error:
        assert str(error).startswith("request: ")  # noqa: PT017
    else:
        assert isinstance(request, CompletionRequest)


# Structs

whole = st.integers(-(2**53), 2**53)
numbers = whole | st.floats(allow_nan=False, allow_infinity=False) | st.integers().filter(lambda n: abs(n) > 2**53)
encodable = st.text(max_size=5).filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))
json_values = st.recursive(
    st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | encodable,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(encodable, inner, max_size=3),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Whether the values and their types are equal. A whole float in `one` is an int in `other`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and one.is_integer():
        return type(other) is int and other == one
    return type(one) is type(other) and bool(one == other)


@given(st.dictionaries(encodable, json_values, max_size=4))
def test_json_is_unchanged_by_a_struct_and_whole_numbers_are_integers(value: dict[str, Any]) -> None:
    before = copy.deepcopy(value)
    request = build(response_format={"x": value})
    assert value == before
    received = CompletionRequest.FromString(request.SerializeToString())
    assert same(value, to_python(received.json_schema.schema)["x"])


@given(numbers)
def test_number_is_unchanged_by_a_struct_or_rejected(number: float) -> None:
    try:
        request = build(response_format={"n": [number]})
    except ValueError as error:
        message = str(error)
        assert isinstance(number, int)
        assert abs(number) > 2**53
        assert f"response_format.n[0]: the integer {number} does not fit a double" in message
    else:
        assert to_python(request.json_schema.schema)["n"] == [number]


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 10**400, 123456789012345678901])
def test_integer_that_is_not_exact_as_a_double_is_rejected(number: int) -> None:
    with pytest.raises(ValueError, match=r"here: the integer -?\d+ does not fit a double, .* pass it as a string"):
        to_struct_value(number, "here")


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**60, 10**22, 0, -1])
def test_integer_that_is_exact_as_a_double_stays_an_integer(number: int) -> None:
    request = build(response_format={"n": number})
    [value] = to_python(request.json_schema.schema).values()
    assert value == number
    assert type(value) is int


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, ["\udfff"]], ids=ascii)
def test_error_of_a_lone_surrogate_names_the_path(value: Any) -> None:
    with pytest.raises(ValueError, match=r"response_format\.x"):
        build(response_format={"x": value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_rejected(value: float) -> None:
    with pytest.raises(ValueError, match=rf"x\.y: {value} is not a JSON number"):
        to_struct_value({"y": value}, "x")


@pytest.mark.parametrize("value", [{1}, b"a", bytearray(b"a"), object(), 1j, {"a": (b"",)}])
def test_value_that_is_not_json_is_rejected(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a JSON value"):
        to_struct_value(value, "x")


def test_tuples_and_other_mappings_become_lists_and_dicts() -> None:
    from types import MappingProxyType

    assert to_struct_value(MappingProxyType({"a": (1, (2.5, None))}), "x") == {"a": [1, [2.5, None]]}


def test_struct_field_without_a_value_is_null() -> None:
    request = CompletionRequest()
    request.json_schema.schema.fields["a"].SetInParent()
    assert to_python(request.json_schema.schema) == {"a": None}


# Messages


def test_attributes_and_repr_of_a_message() -> None:
    message = Message("user", "Привет")
    assert (message.role, message.text, message.tool_calls) == ("user", "Привет", ())
    assert repr(message) == "Message(role='user', text='Привет')"
    assert message.to_dict() == {"role": "user", "text": "Привет"}
    assert message.proto.text == "Привет"


@pytest.mark.parametrize(
    ("role", "text", "words"),
    [
        ("robot", "a", "role must be one of system, user, assistant, got 'robot'"),
        (["user"], "a", r"role must be one of .* got \['user'\]"),
        (None, "a", "got None"),
        ("user", None, "text must be a str, got None"),
        ("user", "x\ud800", "text holds a lone surrogate at 1, which UTF-8 cannot carry"),
    ],
)
def test_invalid_message_is_rejected(role: Any, text: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Message(role, text)


@given(st.sampled_from(["system", "user", "assistant"]), encodable)
def test_message_is_equal_after_a_json_round_trip(role: str, text: str) -> None:
    message = Message(role, text)
    assert Message.from_dict(message.to_dict()) == message
    assert Message.from_dict(json.loads(json.dumps(message.to_dict()))) == message


def test_message_with_tool_calls_is_equal_after_a_json_round_trip() -> None:
    written = {
        "role": "assistant",
        "toolCallList": {"toolCalls": [{"functionCall": {"name": "weather", "arguments": {"days": 3.0}}}]},
    }
    message = Message.from_dict(written)
    assert message.to_dict() == written
    assert repr(message) == ("Message(role='assistant', tool_calls=(ToolCall(name='weather', arguments={'days': 3}),))")


def test_tool_results_make_a_message() -> None:
    result = ToolResult("weather", "+5")
    assert (result.name, result.content) == ("weather", "+5")
    assert repr(result) == "ToolResult(name='weather', content='+5')"
    message = Message.from_tool_results(iter([result, ToolResult("now", "")]))
    assert (message.role, message.text) == ("user", "")
    assert message.tool_results == (result, ToolResult("now", ""))
    assert message.tool_results[0] == pickle.loads(pickle.dumps(result))
    assert Message.from_dict(message.to_dict()) == message
    assert Message.from_tool_results([result], role="assistant").role == "assistant"
    assert repr(Message.from_tool_results([result])) == (
        "Message(role='user', tool_results=(ToolResult(name='weather', content='+5'),))"
    )
    assert build([Message("user", "a"), message]).messages[1] == message.proto


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ToolResult("", "a"), "name must not be empty"),
        (lambda: ToolResult(5, "a"), "name must be a str, got 5"),  # type: ignore[arg-type]
        (lambda: ToolResult("a", None), "content must be a str, got None"),  # type: ignore[arg-type]
        (lambda: ToolResult("a", "\ud800"), "content holds a lone surrogate at 0"),
        (lambda: Message.from_tool_results([]), "results must hold at least one ToolResult"),
        (lambda: Message.from_tool_results(["a"]), r"results\[0\] must be a ToolResult, got 'a'"),  # type: ignore[list-item]
        (lambda: Message.from_tool_results([ToolResult("a", "b")], role="tool"), "role must be one of .* got 'tool'"),
    ],
)
def test_invalid_tool_result_is_rejected(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "data", [{}, {"role": "user"}, {"role": "user", "text": None}, {"role": "user", "text": "a", "toolCallList": {}}]
)
def test_invalid_message_mapping_is_rejected(data: Any) -> None:
    with pytest.raises(ValueError, match=r"role|a message needs one of|not a message of the REST API"):
        Message.from_dict(data)


@given(st.dictionaries(words, json_like, max_size=4))
def test_any_invalid_message_mapping_is_a_value_error(data: dict[str, Any]) -> None:
    try:
        message = Message.from_dict(data)
    except ValueError:
        return
    assert message.role in ("system", "user", "assistant")


@pytest.mark.parametrize("data", [None, 5, "text", ["role"]])
def test_message_data_that_is_not_a_mapping_is_rejected(data: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="message"):
        Message.from_dict(data)


# Cached system prompts


def test_long_system_prompts_are_not_cached() -> None:
    build("a", system="warm")
    tracemalloc.start()
    try:
        for index in range(40):
            build("a", system=f"{index}" + "я" * 1_000_000)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > 1_000_000
    assert kept < 1_000_000


@pytest.mark.parametrize("length", [1, 16_384, 16_385, 100_000])
def test_system_prompt_of_any_length_is_the_first_message(length: int) -> None:
    for _ in range(2):
        request = build("a", system="я" * length, temperature=0.5)
        assert [(message.role, message.text) for message in request.messages] == [
            ("system", "я" * length),
            ("user", "a"),
        ]
        assert request.completion_options.temperature.value == 0.5


def test_long_system_prompt_with_a_lone_surrogate_is_rejected_by_name() -> None:
    with pytest.raises(ValueError, match="system holds a lone surrogate at 20000"):
        build("a", system="a" * 20_000 + "\ud83d")


# Too deep and recursive values


def nested(levels: int, *, lists: bool = False) -> dict[str, Any]:
    value: Any = "a"
    for _ in range(levels - 1):
        value = [value] if lists else {"a": value}
    return {"a": value}


def recursive(*, lists: bool = False) -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = [value] if lists else value
    return value


def with_response_format(schema: Any) -> CompletionRequest:
    return build("a", response_format=schema)


def with_tool_mapping(schema: Any) -> CompletionRequest:
    return build("a", tools=[{"name": "f", "parameters": schema}])


def with_tool_object(schema: Any) -> CompletionRequest:
    return build("a", tools=[tool(name="f", parameters=schema)(lambda: None)])


@pytest.mark.parametrize("make", [with_response_format, with_tool_mapping, with_tool_object])
@pytest.mark.parametrize("schema", [nested(32), nested(48, lists=True)], ids=["objects", "lists"])
def test_schema_of_the_maximum_depth_is_sent(make: Any, schema: dict[str, Any]) -> None:
    request = make(schema)
    assert CompletionRequest.FromString(request.SerializeToString()) == request


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (with_response_format, "response_format"),
        (with_tool_mapping, "tools[0]['parameters']"),
        (with_tool_object, "the parameters of f"),
    ],
)
@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (nested(33), ".a" * 32),
        (nested(49, lists=True), ".a" + "[0]" * 47),
        (nested(100_000), ".a" * 32),
        (nested(100_000, lists=True), ".a" + "[0]" * 47),
        (recursive(), ".a" * 32),
        (recursive(lists=True), ".a[0]" * 19),
    ],
    ids=["objects", "lists", "many objects", "many lists", "in itself", "in its own list"],
)
def test_error_of_a_too_deep_schema_names_the_path(make: Any, where: str, schema: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply, or inside itself") as caught:
        make(schema)
    assert str(caught.value).startswith(f"{where}{place}: ")


@pytest.mark.parametrize("schema", [nested(100_000), nested(100_000, lists=True), recursive(), recursive(lists=True)])
@pytest.mark.parametrize(
    ("read", "where"),
    [
        (lambda body: load_request({"tools": [{"function": {"name": "f", "parameters": body}}]}), "request: "),
        (
            lambda body: Message.from_dict(
                {"toolCallList": {"toolCalls": [{"functionCall": {"name": "f", "arguments": body}}]}}
            ),
            "not a message",
        ),
        (
            lambda body: Completion.from_dict(
                {
                    "alternatives": [
                        {
                            "message": {
                                "toolCallList": {"toolCalls": [{"functionCall": {"name": "f", "arguments": body}}]}
                            }
                        }
                    ]
                }
            ),
            "not an answer",
        ),
    ],
)
def test_too_deep_json_of_the_rest_api_is_rejected(read: Any, where: str, schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=where):
        read(schema)


def test_error_of_a_too_deep_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "body.json"
    path.write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(ValueError, match=r"body\.json: "):
        load_request(path)


def test_too_deep_type_is_rejected() -> None:
    kind: Any = int
    for _ in range(5000):
        kind = list[kind]

    def f(x: Any) -> None: ...

    f.__annotations__["x"] = kind
    with pytest.raises(ValueError, match="nested too deeply"):
        build("a", response_format=kind)
    with pytest.raises(ValueError, match=r"the tool f: .* nested too deeply"):
        tool(f)
