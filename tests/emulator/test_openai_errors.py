"""The OpenAI API of the emulator: quotas, errors, and parameters that gRPC does not support."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai_api import CHAT, MODEL, RESPONSES, OpenAiApi, chat_body

from yandexgpt.emulator import Emulator


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


# Quotas and errors


def test_quotas_apply() -> None:
    with Emulator(http_port=0, rate=0.01) as emulator:
        api = OpenAiApi(emulator)
        assert api.chat().status == 200
        answer = api.chat()
        assert answer.blamed == (429, "rate_limit_exceeded", None)
        assert answer.error["type"] == "requests"
        assert 0 < int(answer.headers["retry-after"]) <= 100
        assert 0 < int(answer.headers["retry-after-ms"]) <= 100_000


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("PERMISSION_DENIED", 403, "invalid_request_error"),
        ("NOT_FOUND", 404, "invalid_request_error"),
        ("DEADLINE_EXCEEDED", 504, "server_error"),
        ("INTERNAL", 500, "server_error"),
        ("UNIMPLEMENTED", 501, "server_error"),
    ],
)
def test_a_scripted_failure_is_an_error(api: OpenAiApi, emulator: Emulator, code: str, status: int, kind: str) -> None:
    emulator.fail(code, "слова", retry_after=1.5)
    answer = api.chat()
    assert answer.status == status
    assert answer.error == {"message": "слова", "type": kind, "param": None, "code": code.lower()}
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1500")
    assert answer.headers["x-request-id"] == emulator.requests[0].server_request_id


def test_service_validates_ranges(api: OpenAiApi, emulator: Emulator) -> None:
    assert api.chat(temperature=1.5).blamed == (400, "invalid_value", "temperature")
    assert api.chat(max_tokens=0).blamed == (400, "invalid_value", "max_tokens")
    assert api.chat(tool_choice="required").blamed == (400, "invalid_value", "tool_choice")
    assert [request.wait() for request in emulator.requests] == ["INVALID_ARGUMENT"] * 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": "раз"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "раз"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "раз", "name": "Пётр"}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": 5}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [5]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages[0].tool_calls[0].function"),
        ({"messages": [{"role": "tool", "content": "раз"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "tool", "content": "раз", "tool_call_id": "1"}]}, "messages[0].tool_call_id"),
        ({"temperature": "много"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 2**63}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"stream": "да"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "include_usage"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "include_obfuscation"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "custom"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 5}}]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "function", "function": {"name": "a", "strict": 5}}]}, "tools[0].function.strict"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "нет"}}}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "text", "a": 1}}, "response_format.a"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"maximum": 2**53 + 1}}}},
            "response_format.json_schema.schema.maximum",
        ),
        ({"reasoning_effort": "сильно"}, "reasoning_effort"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"top_p": 0.5}, "top_p"),
        ({"seed": 1}, "seed"),
        ({"stop": "раз"}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"functions": []}, "functions"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_unsupported_parameter_is_rejected_by_name(
    api: OpenAiApi, emulator: Emulator, fields: dict[str, Any], param: str
) -> None:
    answer = api.ask("POST", CHAT, {**chat_body(), **fields})
    assert (answer.status, answer.error["param"]) == (400, param), answer
    assert param.split(".")[0].split("[")[0] in answer.error["message"]
    assert "\n" not in answer.error["message"]
    assert answer.headers["x-request-id"]
    assert emulator.requests == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"{}"',
        b"\xff",
        b'{"temperature": NaN}',
        b"[" * 100_000,
        b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
        b'{"max_tokens": ' + b"9" * 5000 + b"}",
    ],
)
def test_invalid_json_is_rejected(api: OpenAiApi, emulator: Emulator, raw: bytes) -> None:
    answer = api.ask("POST", CHAT, raw)
    assert answer.blamed == (400, "invalid_json", None)
    assert emulator.requests == []


@pytest.mark.parametrize("depth", [40, 400])
def test_deeply_nested_json_is_rejected(api: OpenAiApi, emulator: Emulator, depth: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"properties": schema}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    answer = api.chat(response_format=form)
    assert answer.status == 400
    assert "nested too deeply" in answer.error["message"]
    assert emulator.requests == []


def test_large_body_is_rejected(api: OpenAiApi) -> None:
    assert api.ask("POST", CHAT, b" " * (16 * 2**20 + 1)).blamed == (413, "too_large", None)


@pytest.mark.parametrize(("method", "path"), [("GET", CHAT), ("POST", "/v1/embeddings"), ("DELETE", "/v1/responses/1")])
def test_unknown_path_is_an_error_in_openai_format(api: OpenAiApi, method: str, path: str) -> None:
    answer = api.ask(method, path)
    assert answer.blamed == (404, "unknown_url", None)
    assert answer.error["message"] == f"there is no {method} {path} here"


# Responses


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["раз"]}, "input[0]"),
        ({"input": [{"type": "reasoning"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": ""}]}, "input[0].call_id"),
        ({"model": None}, "model"),
        ({"instructions": 5}, "instructions"),
        ({"temperature": "много"}, "temperature"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"type": "function", "name": "a", "parameters": 5}]}, "tools[0].parameters"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"reasoning": {"effort": "сильно"}}, "reasoning.effort"),
        ({"metadata": "a"}, "metadata"),
        ({"background": True, "stream": True}, "stream"),
        ({"background": True, "store": False}, "store"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "include_obfuscation"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"conversation": "conv"}, "conversation"),
        ({"max_tool_calls": 1}, "max_tool_calls"),
        ({"max_tokens": 1}, "max_tokens"),
    ],
)
def test_unsupported_parameter_of_responses_is_rejected_by_name(
    api: OpenAiApi, emulator: Emulator, fields: dict[str, Any], param: str
) -> None:
    answer = api.ask("POST", RESPONSES, {"model": MODEL, "input": "раз", **fields})
    assert (answer.status, answer.error["param"]) == (400, param), answer
    assert param.split(".")[0].split("[")[0] in answer.error["message"]
    assert emulator.requests == []


def test_service_validates_ranges_of_responses(api: OpenAiApi) -> None:
    assert api.respond(temperature=2).blamed == (400, "invalid_value", "temperature")
    assert api.respond(max_output_tokens=0).blamed == (400, "invalid_value", "max_output_tokens")


def test_retrieve_rejects_parameters(api: OpenAiApi) -> None:
    response_id = api.respond().body["id"]
    assert api.ask("GET", f"{RESPONSES}/{response_id}?stream=true").blamed == (400, "unsupported_parameter", "stream")
    assert api.ask("GET", f"{RESPONSES}/{response_id}?stream=false").status == 200
