"""Generated requests, valid and invalid, for the tests and `make fuzz`.

Each check sends one request. It fails if there is no response, or an unexpected server error.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt._proto.yandex.cloud.endpoint import api_endpoint_service_pb2
from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2
from yandexgpt._proto.yandex.cloud.operation import operation_service_pb2

KEY = "Api-Key secret"
EVENTS = "text/event-stream; charset=utf-8"
PATIENCE = 30.0
"""Timeout of a request in seconds. A response takes less than a hundredth of it."""
UNORDERED = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}
"""Statuses that must not occur. The deadline of the client is far away."""


def _method(module: Any, service: str, name: str) -> MethodDescriptor:
    found: MethodDescriptor = module.DESCRIPTOR.services_by_name[service].methods_by_name[name]
    return found


METHODS = [
    _method(text_generation_service_pb2, "TextGenerationService", "Completion"),
    _method(text_generation_service_pb2, "TextGenerationAsyncService", "Completion"),
    _method(text_generation_service_pb2, "TokenizerService", "Tokenize"),
    _method(text_generation_service_pb2, "TokenizerService", "TokenizeCompletion"),
    _method(operation_service_pb2, "OperationService", "Get"),
    _method(operation_service_pb2, "OperationService", "Cancel"),
    _method(iam_token_service_pb2, "IamTokenService", "Create"),
    _method(api_endpoint_service_pb2, "ApiEndpointService", "Get"),
    _method(api_endpoint_service_pb2, "ApiEndpointService", "List"),
]
"""The emulated methods."""

# Values

_long_texts = st.builds(lambda part, times: part * times, st.sampled_from("x🙂\0"), st.sampled_from([1000, 9000]))
_texts = st.one_of(st.text(max_size=20), _long_texts, st.sampled_from(["", "а б в", "\ufffd", "\r\n"]))
_numbers = st.one_of(
    st.integers(-(2**31), 2**31 - 1), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([1e308, 5e-324])
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, _texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_texts, inner, max_size=4)),
    max_leaves=12,
)
_KEYWORDS = [
    *("type", "properties", "required", "items", "minItems", "enum", "const", "default", "anyOf", "oneOf", "allOf"),
    *("$ref", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
    *("format", "additionalProperties", "$defs"),
]
_TYPES = ["object", "array", "string", "integer", "number", "boolean", "null", "nothing"]
schemas = st.recursive(
    st.fixed_dictionaries(
        {}, optional={"type": st.sampled_from(_TYPES), "$ref": st.sampled_from(["#", "#/$defs/a", "x"])}
    ),
    lambda inner: st.dictionaries(
        st.sampled_from(_KEYWORDS),
        st.one_of(
            inner,
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["a", "b", "type"]), inner, max_size=3),
            st.sampled_from(_TYPES),
            st.lists(st.sampled_from(["a", "b"]), max_size=2),
            _numbers,
            st.sampled_from([0, 1, 1e12, -1, 1e308]),
            json_values,
        ),
        max_size=6,
    ),
    max_leaves=10,
)
"""JSON Schemas, valid and invalid."""


def messages(descriptor: Descriptor, depth: int = 4) -> st.SearchStrategy[Message]:
    """Any message of a type."""

    def fill(values: dict[str, Any]) -> Message:
        message = message_factory.GetMessageClass(descriptor)()
        for name, value in values.items():
            if isinstance(value, list):
                getattr(message, name).extend(value)
            elif isinstance(value, dict):
                getattr(message, name).SetInParent()
                json_format.ParseDict(value, getattr(message, name))
            elif isinstance(value, Message):
                getattr(message, name).CopyFrom(value)
            else:
                setattr(message, name, value)
        return message

    fields = {field.name: _values(field, depth - 1) for field in descriptor.fields}
    return st.fixed_dictionaries({}, optional=fields).map(fill)


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    inner = field.message_type
    if inner is not None and inner.full_name == "google.protobuf.Struct":
        return st.one_of(schemas, st.dictionaries(_texts, json_values, max_size=3))
    if inner is not None:
        value: st.SearchStrategy[Any] = (
            messages(inner, depth) if depth > 0 else st.builds(message_factory.GetMessageClass(inner))
        )
    elif field.name == "role":
        value = st.one_of(st.sampled_from(["system", "user", "assistant"]), _texts)
    elif field.name == "model_uri":
        value = st.one_of(st.just("gpt://f/yandexgpt"), _texts)
    else:
        value = _SCALARS[field.cpp_type]
    return st.lists(value, max_size=3) if isinstance(field.default_value, list) else value


_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: _texts,
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_INT64: st.one_of(st.integers(1, 9), st.integers(-(2**63), 2**63 - 1)),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(-2, 9),
}

_names = st.sampled_from(["a", "b", "ж"])
_right_messages: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(dict, role=st.sampled_from(["system", "user", "assistant"]), text=_texts),
    st.builds(
        dict,
        role=st.just("user"),
        toolResultList=st.builds(
            dict,
            toolResults=st.lists(
                st.builds(dict, functionResult=st.builds(dict, name=_names, content=_texts)), max_size=2
            ),
        ),
    ),
)
prompts = st.fixed_dictionaries(
    {
        "modelUri": st.sampled_from(["gpt://f/yandexgpt", "ds://1", "gpt://каталог/m/rc@x"]),
        "messages": st.lists(_right_messages, min_size=1, max_size=4),
    },
    optional={
        "completionOptions": st.fixed_dictionaries(
            {},
            optional={
                "stream": st.booleans(),
                "temperature": st.floats(0, 1),
                "maxTokens": st.one_of(st.integers(1, 9), st.integers(1, 2**63 - 1)).map(str),
            },
        ),
        "tools": st.lists(
            st.fixed_dictionaries({"name": _names}, optional={"parameters": schemas}).map(
                lambda tool: {"function": tool}
            ),
            min_size=1,
            max_size=3,
        ),
        "toolChoice": st.sampled_from([{"mode": "REQUIRED"}, {"functionName": "a"}, {"mode": "AUTO"}, {}]),
        "jsonSchema": st.builds(dict, schema=schemas),
    },
)
"""Bodies of completion requests, mostly valid, so that they get an answer."""

# gRPC


def _bytes(method: MethodDescriptor) -> st.SearchStrategy[bytes]:
    any_message = messages(method.input_type).map(lambda message: message.SerializeToString())
    cut = st.tuples(any_message, st.integers(0, 50)).map(lambda pair: pair[0][: pair[1]])
    kinds = [any_message, cut, st.binary(max_size=100)]
    if method.input_type.name == "CompletionRequest":
        kinds.append(prompts.map(_serialized))
    return st.one_of(kinds)


def _serialized(body: dict[str, Any]) -> bytes:
    request = text_generation_service_pb2.CompletionRequest()
    return json_format.ParseDict(body, request).SerializeToString()


class GrpcCall(NamedTuple):
    """A call of an existing method with any bytes."""

    method: MethodDescriptor
    data: bytes
    authorization: str | None

    @property
    def name(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


_authorizations = st.one_of(
    *[st.just(KEY)] * 4,  # otherwise few calls pass the authorization check
    st.none(),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)
grpc_calls = st.sampled_from(METHODS).flatmap(
    lambda method: st.builds(GrpcCall, st.just(method), _bytes(method), _authorizations)
)


def check_grpc(channel: grpc.Channel, call: GrpcCall) -> grpc.StatusCode:
    """Make the call. Any response and any client error is accepted."""
    metadata = () if call.authorization is None else (("authorization", call.authorization),)
    start: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(call.name)
    answers = start(call.data, metadata=metadata, timeout=PATIENCE)
    received: list[bytes] = []
    with contextlib.suppress(grpc.RpcError):
        received.extend(answers)
    assert answers.code() not in UNORDERED, f"{call.name}: {answers.code()}: {answers.details()}"
    for answer in received:
        message_factory.GetMessageClass(call.method.output_type).FromString(answer)
    return answers.code()


# REST


class HttpCall(NamedTuple):
    """A request to an existing path with any content."""

    verb: str
    path: str
    body: bytes | None
    headers: dict[str, str]


def _mangled(body: dict[str, Any]) -> st.SearchStrategy[Any]:
    """The body with one changed value, or with an additional field."""
    paths = [*_value_paths(body), ("more",)]
    return st.builds(lambda path, value: _with(body, path, value), st.sampled_from(paths), json_values)


def _value_paths(value: Any) -> Iterator[tuple[Any, ...]]:
    """The path of a value: keys and indices."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield (key,)
            yield from ((key, *rest) for rest in _value_paths(each))


def _with(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    changed = value.copy()
    changed[path[0]] = _with(value[path[0]], path[1:], other) if len(path) > 1 else other
    return changed


_bodies = st.one_of(
    prompts.map(json.dumps),
    prompts.flatmap(_mangled).map(json.dumps),
    messages(text_generation_service_pb2.DESCRIPTOR.message_types_by_name["CompletionRequest"]).map(
        lambda message: json.dumps(json_format.MessageToDict(message))
    ),
    json_values.map(json.dumps),
    st.sampled_from(["", "{", "[" * 5000, "NaN", '{"a": 1, "a": 2}', '{"modelUri": "\\ud800"}', "9" * 5000]),
    st.builds(lambda text: json.dumps({"modelUri": "gpt://f/m", "text": text}), _texts),
    st.builds(lambda jwt: json.dumps({"jwt": jwt}), _texts),
).map(str.encode) | st.binary(max_size=50)
_ids = st.one_of(st.text(max_size=20), st.just("x" * 9000), st.text(max_size=5).map(lambda text: f"{text}:cancel"))
_paths = st.one_of(
    st.sampled_from(
        [
            *(
                "/foundationModels/v1/completion",
                "/foundationModels/v1/completionAsync",
                "/foundationModels/v1/tokenize",
            ),
            *("/foundationModels/v1/tokenizeCompletion", "/iam/v1/tokens", "/endpoints", "/openapi.json"),
        ]
    ),
    _ids.map(lambda text: f"/operations/{quote(text, safe='')}"),
    _ids.map(lambda text: f"/endpoints/{quote(text, safe='')}"),
    st.dictionaries(st.sampled_from(["pageSize", "pageToken", "x", "page_size.a"]), _ids, max_size=2).map(
        lambda query: "/endpoints?" + "&".join(f"{name}={quote(value)}" for name, value in query.items())
    ),
)
_headers = st.fixed_dictionaries(
    {"authorization": _authorizations.map(lambda value: KEY if value is None else value)},
    optional={
        "content-type": st.sampled_from(["application/json", "text/plain; charset=x", "application/xml", "é"]),
        "accept": st.sampled_from(["application/x-ndjson", "*/*"]),
        "x-folder-id": st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20),
    },
)
http_calls = st.builds(
    HttpCall, st.sampled_from(["POST", "POST", "POST", "GET", "GET", "PUT", "DELETE", "X"]), _paths, _bodies, _headers
)


_openai_tools = st.fixed_dictionaries({"name": _names}, optional={"parameters": schemas, "strict": st.booleans()})
_chat = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["gpt://f/yandexgpt", "yandexgpt"]),
        "messages": st.lists(
            st.one_of(
                st.builds(dict, role=st.sampled_from(["system", "developer", "user", "assistant"]), content=_texts),
                st.builds(dict, role=st.just("tool"), tool_call_id=_names, content=_texts),
                st.builds(
                    dict,
                    role=st.just("user"),
                    content=st.lists(st.builds(dict, type=st.just("text"), text=_texts), max_size=2),
                ),
            ),
            min_size=1,
            max_size=3,
        ),
    },
    optional={
        "stream": st.booleans(),
        "stream_options": st.builds(dict, include_usage=st.booleans()),
        "temperature": st.floats(0, 2),
        "max_tokens": st.integers(1, 9),
        "tools": st.lists(_openai_tools.map(lambda tool: {"type": "function", "function": tool}), max_size=2),
        "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "a"}}]),
        "response_format": st.one_of(
            st.just({"type": "json_object"}),
            schemas.map(lambda schema: {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}),
        ),
    },
)
_responses = st.fixed_dictionaries(
    {
        "model": st.just("gpt://f/yandexgpt"),
        "input": st.one_of(
            _texts,
            st.lists(st.builds(dict, role=st.sampled_from(["system", "user"]), content=_texts), min_size=1, max_size=3),
        ),
    },
    optional={
        "stream": st.booleans(),
        "background": st.booleans(),
        "instructions": _texts,
        "max_output_tokens": st.integers(1, 9),
        "tools": st.lists(_openai_tools.map(lambda tool: {"type": "function", **tool}), max_size=2),
        "text": schemas.map(lambda schema: {"format": {"type": "json_schema", "name": "a", "schema": schema}}),
    },
)


def _openai_call(path: str, body: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[HttpCall]:
    bodies = st.one_of(body, body.flatmap(_mangled), body.flatmap(_mangled).flatmap(_mangled), json_values)
    return st.builds(
        HttpCall,
        st.sampled_from(["POST", "POST", "POST", "GET"]),
        st.just(path),
        bodies.map(lambda value: json.dumps(value).encode()),
        st.just({"authorization": KEY, "openai-project": "f"}),
    )


openai_calls = st.one_of(
    _openai_call("/v1/chat/completions", _chat),
    _openai_call("/v1/responses", _responses),
    _openai_call("/v1/responses/resp_x", st.just({})),
)


def check_http(url: str, call: HttpCall) -> int:
    """Make the request. Any JSON response with a media type is accepted, except a server error."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        headers = {name: value.strip().encode("latin-1") for name, value in call.headers.items()}
        connection.request(call.verb, call.path, call.body, headers)
        response = connection.getresponse()
        answered = response.read()
    finally:
        connection.close()
    assert response.status < 500, f"{call}: {response.status}: {answered!r}"
    if response.headers["content-type"] != EVENTS:
        for line in answered.splitlines():
            assert isinstance(json.loads(line), dict), f"{call}: {answered!r}"
    return response.status


# Long runs


def fuzz(check: Callable[[Any], object], calls: st.SearchStrategy[Any], seconds: float) -> int:
    """Check generated calls for some time.

    Returns:
        The number of calls.
    """
    count = 0
    ends = time.monotonic() + seconds
    first = time.time_ns()
    for number in itertools.takewhile(lambda _: time.monotonic() < ends, itertools.count(first)):

        @seed(number)
        @settings(max_examples=200, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(calls)
        def check_some(call: Any) -> None:
            nonlocal count
            count += 1
            check(call)

        check_some()
    return count


def main() -> None:
    """Fuzz an emulator that accepts `KEY`; at the end, it must answer valid requests."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--http-url", required=True)
    parser.add_argument("--seconds", type=float, required=True, help="for each api")
    arguments = parser.parse_args()
    body = json.dumps({"modelUri": "gpt://f/m", "messages": [{"role": "user", "text": "да"}]})
    right = HttpCall("POST", "/foundationModels/v1/completion", body.encode(), {"authorization": KEY})
    requests = st.one_of(http_calls, openai_calls)
    with grpc.insecure_channel(arguments.endpoint) as channel:
        calls_made = fuzz(lambda call: check_grpc(channel, call), grpc_calls, arguments.seconds)
        requests_made = fuzz(lambda call: check_http(arguments.http_url, call), requests, arguments.seconds)
        assert check_grpc(channel, GrpcCall(METHODS[0], _serialized(json.loads(body)), KEY)) is grpc.StatusCode.OK
        assert check_http(arguments.http_url, right) == 200
    print(f"{calls_made} gRPC calls, {requests_made} HTTP requests")


if __name__ == "__main__":
    main()
