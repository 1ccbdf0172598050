"""The REST API: its responses, and its common state with the gRPC server."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
import pytest
from driver import PATIENCE, details_of, until
from google.protobuf import json_format, struct_pb2
from google.rpc import error_details_pb2  # type: ignore[import-untyped]

import yandexgpt
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import (
    text_generation_service_pb2,
    text_generation_service_pb2_grpc,
)
from yandexgpt.emulator import Emulator
from yandexgpt.emulator.http_api import openapi
from yandexgpt.emulator.http_api.grpc_client import GrpcClient

COMPLETION = "/foundationModels/v1/completion"
ASYNC = "/foundationModels/v1/completionAsync"
KEY = "Api-Key secret-of-the-test"
FOREVER = 3600.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def lines(self) -> list[Any]:
        assert self.content.endswith(b"\n")
        return [json.loads(line) for line in self.content.splitlines()]

    @property
    def blamed(self) -> list[str]:
        """The invalid fields."""
        (bad,) = (detail for detail in self.json["details"] if detail["@type"].endswith("BadRequest"))
        return [violation["field"] for violation in bad["fieldViolations"]]


class RestApi:
    """A raw HTTP client for the REST API of an emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self.address = urlsplit(emulator.http_url).netloc

    @contextlib.contextmanager
    def open(self, verb: str, path: str, body: Any = None, **headers: str | None) -> Iterator[http.client.HTTPResponse]:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        named = {"authorization": KEY, **headers}
        sent = {name.replace("_", "-"): value for name, value in named.items() if value is not None}
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        try:
            connection.request(verb, path, content, sent)
            yield connection.getresponse()
        finally:
            connection.close()

    def __call__(self, verb: str, path: str, body: Any = None, **headers: str | None) -> Answer:
        with self.open(verb, path, body, **headers) as response:
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )

    def complete(self, body: Any = None, **headers: str | None) -> Answer:
        return self("POST", COMPLETION, a_body() if body is None else body, **headers)

    def stream(self, body: Any = None, **headers: str | None) -> Answer:
        return self.complete({**(body or a_body()), "completionOptions": {"stream": True}}, **headers)


def a_body(text: str = "раз два три", **fields: Any) -> dict[str, Any]:
    return {"modelUri": "gpt://folder/yandexgpt-lite", "messages": [{"role": "user", "text": text}], **fields}


def by_grpc(emulator: Emulator, body: dict[str, Any], **metadata: str) -> list[Any]:
    request = json_format.ParseDict(body, text_generation_service_pb2.CompletionRequest())
    sent = {"authorization": KEY, **metadata}
    with grpc.insecure_channel(emulator.endpoint) as channel:
        stub = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
        return list(stub.Completion(request, metadata=tuple((name.replace("_", "-"), sent[name]) for name in sent)))


def refused_by_grpc(emulator: Emulator, body: dict[str, Any], **metadata: str) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        by_grpc(emulator, body, **metadata)
    return caught.value.code(), details_of(caught.value)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(http_port=0) as running:
        yield running


@pytest.fixture
def rest(emulator: Emulator) -> RestApi:
    return RestApi(emulator)


# Answers


def test_unary_answer_is_a_result_with_request_ids(emulator: Emulator, rest: RestApi) -> None:
    answer = rest.complete()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {
        "result": {
            "alternatives": [
                {"message": {"role": "assistant", "text": "раз два три"}, "status": "ALTERNATIVE_STATUS_FINAL"}
            ],
            "usage": {"inputTextTokens": "3", "completionTokens": "3", "totalTokens": "6"},
            "modelVersion": "emulator",
        }
    }
    (recorded,) = emulator.requests
    assert answer.headers["x-request-id"] == recorded.server_request_id
    assert answer.headers["x-server-trace-id"] == recorded.trace_id
    assert yandexgpt.Completion.from_dict(answer.json).text == "раз два три"


@pytest.mark.parametrize("stream", [False, True])
def test_rest_and_grpc_give_the_same_answer(emulator: Emulator, rest: RestApi, stream: bool) -> None:
    body = a_body("Привет, мир", completionOptions={"stream": stream, "maxTokens": "1"})
    answers = [json_format.MessageToDict(message) for message in by_grpc(emulator, body)]
    assert [line["result"] for line in map(json.loads, rest.complete(body).content.splitlines())] == answers


def test_rest_and_grpc_requests_are_recorded(emulator: Emulator, rest: RestApi) -> None:
    headers = {
        "x_folder_id": "folder",
        "x_data_logging_enabled": "false",
        "x_client_request_id": "1",
        "x_client_trace_id": "2",
        "idempotency_key": "3",
    }
    rest.complete(**headers)
    by_grpc(emulator, a_body(), **headers)
    mine, theirs = emulator.wait_for_requests(2)
    assert (mine.method, mine.message) == (theirs.method, theirs.message)
    assert (mine.wait(), mine.sent) == (theirs.wait(), theirs.sent) == ("OK", 1)
    for name, value in {"authorization": KEY, **headers}.items():
        assert mine.metadata[name.replace("_", "-")] == theirs.metadata[name.replace("_", "-")] == value
    assert mine.metadata["x-emulator-face"] == "rest"
    assert "x-emulator-face" not in theirs.metadata


def test_scripted_answer_works_for_rest(emulator: Emulator, rest: RestApi) -> None:
    emulator.reply(tool_calls=[{"name": "погода", "arguments": {"город": "Уфа"}}])
    emulator.reply("второй")
    message = rest.complete().json["result"]["alternatives"][0]["message"]
    call = {"functionCall": {"name": "погода", "arguments": {"город": "Уфа"}}}
    assert message == {"role": "assistant", "toolCallList": {"toolCalls": [call]}}
    assert by_grpc(emulator, a_body())[0].alternatives[0].message.text == "второй"


def test_names_and_numbers_may_be_written_as_proto3_json_allows(emulator: Emulator, rest: RestApi) -> None:
    bodies = [
        a_body(completionOptions={"maxTokens": 5, "temperature": "0.5"}, toolChoice={"mode": 2}),
        {
            "model_uri": "gpt://folder/yandexgpt-lite",
            "completion_options": {"max_tokens": "5", "temperature": 0.5},
            "messages": [{"role": "user", "text": "раз два три", "toolCallList": None}],
            "tool_choice": {"mode": "AUTO"},
            "tools": None,
        },
    ]
    assert [rest.complete(body).status for body in bodies] == [200, 200]
    first, second = emulator.requests
    assert first.message == second.message


@pytest.mark.parametrize(
    "kind", [None, "application/json; charset=utf-8", "application/x-www-form-urlencoded", "text/plain"]
)
def test_default_media_types_of_clients_are_read_as_json(rest: RestApi, kind: str | None) -> None:
    assert rest.complete(content_type=kind).status == 200


def test_tokenizer_works(rest: RestApi) -> None:
    text = {"modelUri": "gpt://folder/yandexgpt", "text": "раз два"}
    tokens = rest("POST", "/foundationModels/v1/tokenize", text).json["tokens"]
    assert [(token["text"], token["special"]) for token in tokens] == [("раз", False), (" два", False)]
    answer = rest("POST", "/foundationModels/v1/tokenizeCompletion", a_body())
    assert len(answer.json["tokens"]) == 3


def test_iam_token_from_rest_is_valid_for_grpc(emulator: Emulator, rest: RestApi) -> None:
    body = {"yandexPassportOauthToken": emulator.identity.oauth_token()}
    issued = rest("POST", "/iam/v1/tokens", body, authorization=None).json
    assert issued["expiresAt"].endswith("Z")
    bearer = f"Bearer {issued['iamToken']}"
    assert rest.complete(authorization=bearer).status == 200
    assert len(by_grpc(emulator, a_body(), authorization=bearer)) == 1
    emulator.identity.revoke(issued["iamToken"])
    assert rest.complete(authorization=bearer).status == 401


def test_discovery_works_with_query_parameters(emulator: Emulator, rest: RestApi) -> None:
    (llm,) = [each for each in rest("GET", "/endpoints?pageSize=1000").json["endpoints"] if each["id"] == "llm"]
    assert llm["address"] == emulator.endpoint
    assert rest("GET", "/endpoints/llm").json == llm
    assert rest("GET", "/endpoints/none").status == 404
    for query, field in [("pageSize=x", "pageSize"), ("folder=a", "folder"), ("page_size.x=1", "page_size.x")]:
        answer = rest("GET", f"/endpoints?{query}")
        assert (answer.status, answer.blamed) == (400, [field])


# Operations


def test_operation_is_created_and_completed(emulator: Emulator, rest: RestApi) -> None:
    emulator.operations.time = FOREVER
    made = rest("POST", ASYNC, a_body()).json
    assert (made["done"], made["metadata"], made["description"]) == (False, None, "Async GPT Completion")
    path = f"/operations/{made['id']}"
    assert rest("GET", path).json == made
    emulator.operations.finish(made["id"])
    done = rest("GET", path).json
    assert done["done"] is True
    assert "metadata" not in done
    response = done["response"]
    assert response.pop("@type") == "type.googleapis.com/yandex.cloud.ai.foundation_models.v1.CompletionResponse"
    assert response == rest.complete().json["result"]


def test_operation_is_cancelled(emulator: Emulator, rest: RestApi) -> None:
    emulator.operations.time = FOREVER
    made = rest("POST", ASYNC, a_body()).json
    cancelled = rest("GET", f"/operations/{made['id']}:cancel").json
    assert cancelled["done"] is True
    assert cancelled["error"] == {"code": 1, "message": "the operation was cancelled", "details": []}


def test_failed_operation_has_its_status(emulator: Emulator, rest: RestApi) -> None:
    emulator.fail("INTERNAL", "сломалось", operation=True, retry_after=1.5)
    made = rest("POST", ASYNC, a_body()).json
    error = rest("GET", f"/operations/{made['id']}").json["error"]
    assert (error["code"], error["message"]) == (13, "сломалось")
    assert error["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s"}]


def test_an_unknown_operation_is_not_found(rest: RestApi) -> None:
    answer = rest("GET", "/operations/d7qno")
    assert (answer.status, answer.json["code"]) == (404, 5)
    assert "d7qno" in answer.json["message"]


# Streams


def test_a_stream_is_a_line_for_each_message(rest: RestApi) -> None:
    answer = rest.stream()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    alternatives = [line["result"]["alternatives"][0] for line in answer.lines]
    assert [each["message"]["text"] for each in alternatives] == ["раз", "раз два", "раз два три", "раз два три"]
    assert [each["status"][19:] for each in alternatives] == ["PARTIAL", "PARTIAL", "PARTIAL", "FINAL"]
    assert answer.headers["x-request-id"]


def test_ndjson_is_the_media_type_if_requested(rest: RestApi) -> None:
    answer = rest.stream(accept="application/x-ndjson, */*")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert len(answer.lines) == 4


def test_lines_are_sent_immediately(emulator: Emulator, rest: RestApi) -> None:
    emulator.reply("раз два", partials=["раз"])
    emulator.fail("UNAVAILABLE", after=1, delay=FOREVER)
    body = a_body(completionOptions={"stream": True})
    with rest.open("POST", COMPLETION, body) as response:
        line = json.loads(response.readline())
        assert line["result"]["alternatives"][0]["message"]["text"] == "раз"
        (recorded,) = emulator.requests
        assert (recorded.sent, recorded.outcome) == (1, None)
    assert recorded.wait() == "CANCELLED"


def test_failed_stream_ends_with_an_error_line(emulator: Emulator, rest: RestApi) -> None:
    emulator.fail("UNAVAILABLE", "занято", after=2, retry_after=1)
    answer = rest.stream()
    assert answer.status == 200
    assert [sorted(line) for line in answer.lines] == [["result"], ["result"], ["error"]]
    error = answer.lines[-1]["error"]
    assert (error["code"], error["message"]) == (14, "занято")
    assert error["details"][-1]["requestId"] == answer.headers["x-request-id"]


def test_failure_before_the_first_line_has_an_http_status(emulator: Emulator, rest: RestApi) -> None:
    emulator.fail("UNAVAILABLE")
    answer = rest.stream()
    assert (answer.status, answer.json["code"]) == (503, 14)


def test_a_stream_without_messages_is_empty(emulator: Emulator, rest: RestApi) -> None:
    emulator.reply("", final=False)
    answer = rest.stream()
    assert (answer.status, answer.content) == (200, b"")


def test_missing_unary_answer_is_an_internal_error(emulator: Emulator, rest: RestApi) -> None:
    emulator.reply("", final=False)
    answer = rest.complete()
    assert (answer.status, answer.json["message"]) == (500, "no answer came")


# Errors

STATUSES = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


def test_every_status_has_its_http_code_and_the_same_body_as_grpc(emulator: Emulator, rest: RestApi) -> None:
    assert STATUSES.keys() == {code.name for code in grpc.StatusCode} - {"OK"}
    for name, status in STATUSES.items():
        emulator.fail(name, "слово", times=2)
        answer = rest.complete()
        code, message = refused_by_grpc(emulator, a_body())
        assert (answer.status, answer.json["code"], answer.json["message"]) == (status, code.value[0], message)
        mine, theirs = emulator.requests[-2:]
        assert mine.wait() == theirs.wait() == code.name
        assert answer.headers["x-request-id"] == mine.server_request_id


@pytest.mark.parametrize(("seconds", "header"), [(0.3, "1"), (7, "7"), (0, "0")])
def test_retry_after_header_is_sent(emulator: Emulator, rest: RestApi, seconds: float, header: str) -> None:
    emulator.fail("RESOURCE_EXHAUSTED", retry_after=seconds)
    assert rest.complete().headers["retry-after"] == header


def test_detail_of_any_type_is_printed(emulator: Emulator, rest: RestApi) -> None:
    ours = text_generation_service_pb2.TokenizeRequest(text="текст")
    info = error_details_pb2.ErrorInfo(reason="ПОЧЕМУ")
    emulator.fail("ABORTED", details=[ours, info, struct_pb2.Value(number_value=math.pi)])
    details = rest.complete().json["details"]
    assert (details[0]["text"], details[1]["reason"], details[2]["value"]) == ("текст", "ПОЧЕМУ", math.pi)


def test_rest_and_grpc_share_the_concurrency_limit() -> None:
    with Emulator(http_port=0, max_concurrent=1) as emulator:
        rest = RestApi(emulator)
        emulator.fail("INTERNAL", after=1, delay=FOREVER)
        with rest.open("POST", COMPLETION, a_body(completionOptions={"stream": True})) as response:
            response.readline()
            refusal = rest.complete()
            code, message = refused_by_grpc(emulator, a_body())
            assert (refusal.status, code) == (429, grpc.StatusCode.RESOURCE_EXHAUSTED)
            assert refusal.json["message"] == message
            assert emulator.peak_in_flight == 1
        assert emulator.requests[0].wait() == "CANCELLED"
        assert rest.complete().status == 200


def test_rest_and_grpc_share_the_rate() -> None:
    with Emulator(http_port=0, rate=0.01) as emulator:
        assert len(by_grpc(emulator, a_body())) == 1
        answer = RestApi(emulator).complete()
        assert answer.status == 429
        assert 0 < int(answer.headers["retry-after"]) <= 100


@pytest.mark.parametrize("given", [None, "Api-Key wrong", "secret-of-the-test", "Basic YTpi"])
def test_rest_and_grpc_require_the_same_credential(given: str | None) -> None:
    with Emulator(http_port=0, authorization=KEY) as emulator:
        rest = RestApi(emulator)
        assert rest.complete().status == 200
        answer = rest.complete(authorization=given)
        assert (answer.status, answer.json["code"]) == (401, 16)
        if given is not None:
            assert refused_by_grpc(emulator, a_body(), authorization=given)[1] == answer.json["message"]


def test_rejected_request_names_the_field(rest: RestApi) -> None:
    answer = rest.complete(a_body(modelUri="yandexgpt", completionOptions={"temperature": 2}))
    assert (answer.status, answer.blamed) == (400, ["model_uri", "completion_options.temperature"])


def test_error_for_a_long_value_fits_into_metadata(emulator: Emulator, rest: RestApi) -> None:
    long = "🙂" * 5000
    body = {"modelUri": long, "messages": [{"role": long, "text": ""}] * 20, "toolChoice": {"functionName": long}}
    answer = rest.complete(body)
    code, message = refused_by_grpc(emulator, body)
    assert (answer.status, code) == (400, grpc.StatusCode.INVALID_ARGUMENT)
    assert answer.json["message"] == message
    assert 1 < len(answer.blamed) < 10
    assert rest("GET", f"/operations/{'x' * 50_000}").status == 404


def test_an_empty_body_is_an_empty_request(emulator: Emulator, rest: RestApi) -> None:
    bodies: tuple[bytes | dict[str, Any] | None, ...] = (None, b"", b" \n", {})
    for body in bodies:
        answer = rest("POST", COMPLETION, body)
        assert (answer.status, answer.blamed) == (400, ["model_uri", "messages"])
    assert len(emulator.requests) == 4


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (a_body(foo=1), "foo", "no such field"),
        ({"messages": [{"role": "user", "texts": ""}]}, "messages[0].texts", "role, text, toolCallList"),
        ({"messages": [{"text": 5}]}, "messages[0].text", "a string is wanted, not 5"),
        ({"messages": [[]]}, "messages[0]", "an object is wanted, not an array"),
        ({"messages": [None]}, "messages[0]", "an object is wanted, not null"),
        ({"messages": {}}, "messages", "an array is wanted, not an object"),
        ({"completionOptions": []}, "completionOptions", "an object is wanted"),
        ({"completionOptions": {"stream": "true"}}, "completionOptions.stream", "true or false is wanted"),
        ({"completionOptions": {"maxTokens": True}}, "completionOptions.maxTokens", "an integer is wanted, not true"),
        ({"completionOptions": {"maxTokens": "1_0"}}, "completionOptions.maxTokens", "an integer is wanted"),
        ({"completionOptions": {"maxTokens": 1.5}}, "completionOptions.maxTokens", "an integer is wanted"),
        ({"completionOptions": {"maxTokens": 2**63}}, "completionOptions.maxTokens", "an integer is wanted"),
        ({"completionOptions": {"maxTokens": "9" * 5000}}, "completionOptions.maxTokens", "an integer is wanted"),
        ({"completionOptions": {"temperature": "warm"}}, "completionOptions.temperature", "a number is wanted"),
        (
            {"completionOptions": {"reasoningOptions": {"mode": "MUCH"}}},
            "completionOptions.reasoningOptions.mode",
            "ONE",
        ),
        ({"toolChoice": {"mode": 2**31}}, "toolChoice.mode", "an integer is wanted"),
        ({"parallelToolCalls": 1}, "parallelToolCalls", "true or false is wanted"),
        ({"jsonSchema": {"schema": "{}"}}, "jsonSchema.schema", "an object is wanted"),
        ({"jsonSchema": {"schema": {"a": 10**400}}}, "jsonSchema.schema.a", "a double can hold"),
        ({"jsonSchema": {"schema": {"a": ["\ud800"]}}}, "jsonSchema.schema.a[0]", "UTF-8"),
        ({"jsonSchema": {"schema": {"\ud800": 1}}}, "jsonSchema.schema", "UTF-8"),
        ({"modelUri": "\ud800"}, "modelUri", "a string is wanted"),
        (b'{"modelUri": "a", "modelUri": "b"}', "modelUri", "twice"),
        ({"x" * 5000: 1}, "x" * 200 + "...", "no such field"),
    ],
)
def test_body_of_the_wrong_type_is_rejected_with_its_path(
    emulator: Emulator, rest: RestApi, body: Any, field: str, words: str
) -> None:
    answer = rest("POST", COMPLETION, body)
    assert (answer.status, answer.json["code"], answer.blamed) == (400, 3, [field])
    assert words.replace("ONE", "one of REASONING_MODE_UNSPECIFIED, DISABLED") in answer.json["message"]
    assert len(answer.json["message"]) < 500
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a":', "not JSON: Expecting value at line 1, column 6"),
        (b"{} {}", "Extra data at line 1, column 4"),
        (b"[]", "an object is wanted, not an array"),
        (b"null", "an object is wanted, not null"),
        (b"NaN", "NaN is no value of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no value of JSON"),
        (b"\xff", "not UTF-8: invalid start byte at byte 0"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "Exceeds the limit"),
        (json.dumps(a_body(tools=[{}])).encode()[:-1] + b', "jsonObject": true, "jsonSchema": {}}', "ResponseFormat"),
        (
            b'{"jsonSchema": {"schema": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}}",
            "more than 30 levels of objects and arrays",
        ),
        (
            b'{"jsonSchema": {"schema": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}}",
            "more than 30 levels of objects and arrays",
        ),
    ],
)
def test_invalid_body_is_rejected_with_one_line(rest: RestApi, body: bytes, words: str) -> None:
    answer = rest("POST", COMPLETION, body)
    assert (answer.status, answer.json["code"]) == (400, 3)
    assert words in answer.json["message"]
    assert "\n" not in answer.json["message"]


def test_arbitrary_json_may_be_as_deep_as_protobuf_allows(emulator: Emulator, rest: RestApi) -> None:
    deep: Any = 1
    for _ in range(29):
        deep = {"a": deep}
    arguments = {"toolCalls": [{"functionCall": {"name": "f", "arguments": {"a": deep}}}]}
    messages = [{"role": "assistant", "toolCallList": arguments}]
    assert rest.complete({**a_body(), "messages": messages}).status == 200


def test_non_ascii_header_is_rejected_by_rest(rest: RestApi) -> None:
    answer = rest.complete(x_folder_id="каталог".encode().decode("latin-1"))
    assert (answer.status, answer.blamed) == (400, ["the header x-folder-id"])


def test_body_above_the_grpc_limit_has_the_grpc_error(emulator: Emulator, rest: RestApi) -> None:
    body = a_body("x" * 5_000_000)
    answer = rest.complete(body)
    code, _ = refused_by_grpc(emulator, body)
    assert (answer.status, code) == (429, grpc.StatusCode.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize(
    ("verb", "path", "status", "code"),
    [
        ("GET", "/", 404, 5),
        ("POST", "/foundationModels/v1/unknown", 404, 5),
        ("POST", "/foundationModels/v1/completion/", 404, 5),
        ("GET", "/operations/a/b", 404, 5),
        ("GET", COMPLETION, 405, 12),
        ("WHAT", COMPLETION, 405, 12),
        ("POST", "/operations/a", 405, 12),
    ],
)
def test_unknown_path_is_a_status(rest: RestApi, verb: str, path: str, status: int, code: int) -> None:
    answer = rest(verb, path)
    assert (answer.status, answer.json["code"], answer.json["details"]) == (status, code, [])
    assert path in answer.json["message"]
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("kind", ["application/xml", "multipart/form-data; boundary=x", "json"])
def test_body_of_another_media_type_is_rejected(emulator: Emulator, rest: RestApi, kind: str) -> None:
    answer = rest.complete(content_type=kind)
    assert (answer.status, answer.json["code"]) == (415, 3)
    assert emulator.requests == []


def test_unimplemented_method_is_not_in_the_document(rest: RestApi) -> None:
    described = rest("GET", "/openapi.json").json["paths"]
    for path in (
        "/foundationModels/v1/completionBatch",
        "/iam/v1/tokens:revoke",
        "/iam/v1/tokens:createForServiceAccount",
    ):
        assert path not in described
        assert rest("POST", path, {}).status == 501
    for path, operations in described.items():
        for verb in operations:
            assert rest(verb.upper(), path.replace("{", "").replace("}", "")).status != 501


def test_head_is_get_without_its_body(rest: RestApi) -> None:
    answer = rest("HEAD", "/endpoints/llm")
    assert (answer.status, answer.content) == (200, b"")


def test_document_has_the_server_url(emulator: Emulator, rest: RestApi) -> None:
    document = rest("GET", "/openapi.json").json
    assert document["servers"] == [{"url": emulator.http_url}]
    schemas = document["components"]["schemas"]
    request = schemas["yandex.cloud.ai.foundation_models.v1.CompletionRequest.sent"]
    assert request["required"] == ["modelUri", "messages"]
    assert set(_references(document["paths"])) | set(_references(schemas)) <= set(schemas)


def _references(value: Any) -> Iterator[str]:
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _references(each)
    if isinstance(value, dict) and "$ref" in value:
        yield value["$ref"].removeprefix("#/components/schemas/")


def test_internal_error_is_a_status_and_is_logged(
    rest: RestApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("сломано")

    monkeypatch.setattr(openapi, "document", broken)
    monkeypatch.setattr(GrpcClient, "unary", broken)
    answer = rest("GET", "/openapi.json")
    assert (answer.status, answer.json["code"]) == (500, 13)
    assert "сломано" in answer.json["message"]
    body = {"model": "gpt://folder/yandexgpt", "messages": [{"role": "user", "content": "да"}]}
    answer = rest("POST", "/v1/chat/completions", body)
    assert (answer.status, answer.json["error"]["code"]) == (500, None)
    assert "сломано" in answer.json["error"]["message"]
    until(lambda: any(record.exc_info for record in caplog.records))
