"""The format of a recording: write and read, redaction, errors of invalid files; matching."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, json_format
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from yandexgpt._proto import POOL
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2 as common
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import (
    text_generation_service_pb2 as generation,
)
from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2 as iam
from yandexgpt._proto.yandex.cloud.operation import operation_pb2
from yandexgpt.emulator.error_status import ErrorStatus
from yandexgpt.emulator.record_replay import recording_file
from yandexgpt.emulator.record_replay.matching import RecordedCalls, nearest
from yandexgpt.emulator.record_replay.message_encoding import canonical_bytes
from yandexgpt.emulator.record_replay.methods import Method, find_method, methods
from yandexgpt.emulator.record_replay.recording_file import RecordedCall, RecordedResponse, RecordedStatus
from yandexgpt.emulator.record_replay.redaction import find_secrets, without_secrets, without_texts
from yandexgpt.emulator.record_replay.writer import RecordingWriter


def the_method(name: str) -> Method:
    method = find_method(name)
    assert method is not None
    return method


GENERATE = the_method("TextGenerationService/Completion")
SUBMIT = the_method("TextGenerationAsyncService/Completion")
LOOK_UP = the_method("OperationService/Get")
TOKENIZE = the_method("TokenizerService/Tokenize")
CREATE_TOKEN = the_method("IamTokenService/Create")
SECRET = "AQVN-0123456789-abcdefghijklmnopqrstuvwxyz"
UNKNOWN_FIELD = b"\xc2\x3e\x05hello"
"""Field 1000, which a newer service could send."""

FLOATS = st.floats(allow_nan=True) | st.just(-0.0)
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: st.text(max_size=8) | st.just("\u2028\x85\ufffd"),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_DOUBLE: FLOATS,
    FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 7) | st.just(4711),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
}
ANYTHING = st.sampled_from(
    [
        generation.CompletionResponse(model_version="1", alternatives=[{"message": {"text": ""}, "status": 9}]),
        error_details_pb2.RequestInfo(request_id="7"),
        generation.CompletionResponse.FromString(UNKNOWN_FIELD),
    ]
)


@st.composite
def messages(draw: st.DrawFn, message_type: Any, depth: int = 4) -> Any:
    """Any message of the type, including values that JSON cannot represent."""
    message = message_type()
    for field in message_type.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is None:
            values: st.SearchStrategy[Any] = SCALARS.get(field.cpp_type, st.just(None))
            if field.type == FieldDescriptor.TYPE_BYTES:
                values = st.binary(max_size=3)
            if hasattr(getattr(message, field.name), "append"):
                getattr(message, field.name).extend(draw(st.lists(values, max_size=2)))
            else:
                setattr(message, field.name, draw(values))
        elif depth:
            fill(draw, message, field, depth - 1)
    if draw(st.integers(0, 9)) == 0:
        message.MergeFromString(UNKNOWN_FIELD)
    return message


def fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    inner = getattr(message, field.name)
    assert field.message_type is not None
    if field.message_type.GetOptions().map_entry:
        for key in draw(st.lists(st.text(max_size=3), max_size=2)):
            inner[key].CopyFrom(draw(messages(type(inner[key]), depth)))
    elif field.message_type.full_name == "google.protobuf.Any":
        for each in [inner.add() if hasattr(inner, "add") else inner]:
            each.type_url = draw(st.sampled_from(["", "x/y"]))
            if not each.type_url:
                value = draw(ANYTHING)
                each.type_url = f"type.googleapis.com/{value.DESCRIPTOR.full_name}"
                each.value = value.SerializeToString()
    elif hasattr(inner, "add"):
        for _ in range(draw(st.integers(0, 2))):
            each = inner.add()
            each.CopyFrom(draw(messages(type(each), depth)))
    else:
        inner.CopyFrom(draw(messages(type(inner), depth)))
        inner.SetInParent()


def read_back(tmp_path_factory: Any, *entries: RecordedCall) -> list[RecordedCall]:
    path = tmp_path_factory.getbasetemp() / "read_back.jsonl"
    path.write_bytes(b"".join(map(recording_file.encode_call, entries)))
    return recording_file.read_recording(path, "replay")


@pytest.mark.parametrize("method", [GENERATE, SUBMIT, LOOK_UP, TOKENIZE], ids=lambda method: method.name)
@given(data=st.data())
def test_any_message_is_read_as_it_was_written(method: Any, data: st.DataObject, tmp_path_factory: Any) -> None:
    request = data.draw(messages(method.request_type))
    answers = data.draw(st.lists(messages(method.response_type), max_size=3 if method.is_generation else 1))
    entry = RecordedCall(
        method, request, tuple(RecordedResponse(0.5, each.SerializeToString()) for each in answers), where="x:1"
    )
    (again,) = read_back(tmp_path_factory, entry)
    assert canonical_bytes(again.request) == canonical_bytes(request)
    read = [method.response_type.FromString(each.content) for each in again.responses]
    assert list(map(canonical_bytes, read)) == list(map(canonical_bytes, answers))
    assert [each.after for each in again.responses] == [0.5] * len(answers)


@pytest.mark.parametrize(
    "refusal",
    [
        RecordedStatus(grpc.StatusCode.INTERNAL, "words\nin two lines", after=0.25),
        RecordedStatus(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", metadata=(("grpc-retry-pushback-ms", "-1"),), packed=b""
        ),
        RecordedStatus(grpc.StatusCode.ABORTED, "", packed=b"\xff no status"),
        RecordedStatus(
            grpc.StatusCode.NOT_FOUND,
            "other words than in the details",
            packed=status_pb2.Status(code=5, message="no").SerializeToString(),
        ),
    ],
    ids=["no details", "empty details", "no status", "other words"],
)
def test_a_status_is_read_as_it_was_written(refusal: RecordedStatus, tmp_path_factory: Any) -> None:
    metadata = {"x-request-id": "1", **dict(refusal.metadata)}
    entry = RecordedCall(
        LOOK_UP, LOOK_UP.request_type(operation_id="d7q"), status=refusal, metadata=metadata, where="x:1"
    )
    (again,) = read_back(tmp_path_factory, entry)
    assert again.status == refusal
    assert again.metadata == metadata


def test_status_details_are_readable_json(tmp_path_factory: Any) -> None:
    refused = ErrorStatus(grpc.StatusCode.UNAVAILABLE, "later", (error_details_pb2.RetryInfo(),))
    ((_, packed),) = refused.trailing_metadata("id-1")
    assert isinstance(packed, bytes)
    entry = RecordedCall(TOKENIZE, TOKENIZE.request_type(), status=RecordedStatus(refused.code, "later", packed=packed))
    line = json.loads(recording_file.encode_call(entry))
    assert line["status"]["details"] == [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo"},
        {"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "id-1"},
    ]
    assert "raw" not in line["status"]
    (again,) = read_back(tmp_path_factory, entry)
    assert again.status is not None
    assert again.status.packed == packed


def test_undecodable_response_is_recorded(tmp_path_factory: Any) -> None:
    entry = RecordedCall(TOKENIZE, TOKENIZE.request_type(), (RecordedResponse(0.0, b"\xff"),))
    assert read_back(tmp_path_factory, entry)[0].responses == (RecordedResponse(0.0, b"\xff"),)


def test_completed_operation_is_recorded_as_json() -> None:
    done = operation_pb2.Operation(id="d7q", done=True)
    answer = generation.CompletionResponse(alternatives=[{"message": {"text": "да"}}])
    done.response.type_url = f"type.googleapis.com/{answer.DESCRIPTOR.full_name}"
    done.response.value = answer.SerializeToString()
    failed = operation_pb2.Operation(id="d7r", done=True)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RequestInfo(request_id="7"))
    failed.error.details.add().MergeFromString(detail.SerializeToString())
    for operation, place, field in ((done, "response", "alternatives"), (failed, "error", "details")):
        entry = RecordedCall(LOOK_UP, LOOK_UP.request_type(), (RecordedResponse(0, operation.SerializeToString()),))
        (response,) = json.loads(recording_file.encode_call(entry))["responses"]
        assert field in response["message"][place]
        assert "raw" not in response


def test_calls_are_sorted_by_their_start(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    times = ["2026-11-20T09:30:02Z", "2026-11-20T09:30:01.5Z", "", "2026-11-20T09:30:01Z"]
    lines = []
    for number, began in enumerate(times):
        line = {"method": "TokenizerService/Tokenize", "request": {"text": str(number)}, "responses": []}
        lines.append(json.dumps({"began": began, **line} if began else line))
    path.write_text("\r\n\n".join(lines))
    requests = [entry.request for entry in recording_file.read_recording(path, "replay")]
    assert requests == [generation.TokenizeRequest(text=text) for text in ("3", "1", "2", "0")]
    assert recording_file.read_recording(path, "replay")[0].where == f"{path}:7"


BY_HAND = """\
{"method": "TextGenerationService/Completion", "request": {"modelUri": "gpt://f/m", "messages": [{"role": "user"}]}, \
"responses": [{"modelVersion": "1"}, {"after": 0.5, "message": {"model_version": "2"}}]}
{"method": "yandex.cloud.operation.OperationService/Get", "request": {}, "status": {"code": "NOT_FOUND"}}
{"method": "/yandex.cloud.iam.v1.IamTokenService/Create", "request": {"jwt": "a.b.c"}, "unfinished": true}
"""


def test_handwritten_line_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text(BY_HAND)
    first, second, third = recording_file.read_recording(path, "replay")
    assert [each.after for each in first.responses] == [0.0, 0.5]
    assert [generation.CompletionResponse.FromString(each.content).model_version for each in first.responses] == [
        "1",
        "2",
    ]
    assert second.status is not None
    assert (second.status.code, second.status.message, second.status.packed) == (grpc.StatusCode.NOT_FOUND, "", None)
    assert third.unfinished
    assert isinstance(third.request, iam.CreateIamTokenRequest)
    assert third.request.jwt == "removed"
    assert [entry.metadata for entry in (first, second, third)] == [None] * 3


def test_lines_in_the_documentation_are_valid(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "recordings.md").read_text(encoding="utf-8")
    written, by_hand = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "calls.jsonl"
    path.write_text(by_hand, encoding="utf-8")
    assert len(recording_file.read_recording(path, "replay")) == 3
    path.write_text(written, encoding="utf-8")
    again = [json.loads(recording_file.encode_call(entry)) for entry in recording_file.read_recording(path, "replay")]
    assert again == [json.loads(line) for line in written.splitlines()]


CALL = {"method": "TextGenerationService/Completion", "request": {}, "responses": []}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        ("\xff", "not JSON: "),
        ('{"method": NaN}', "not JSON: NaN is not a JSON number"),
        ('{"method": 1, "method": 2}', "not JSON: 'method' stands in one object twice"),
        ("[" * 100_000, "not JSON: "),
        ("[]", "the line must be an object, not []"),
        ({**CALL, "answer": 1}, "the line has no key 'answer'; its keys are version, began, method, request"),
        ({**CALL, "version": 2}, "version must be 1, not 2"),
        ({**CALL, "version": True}, "version must be 1, not True"),
        ({**CALL, "method": "Completion"}, "method must be one of TextGenerationService/Completion, "),
        ({"responses": []}, "method must be one of"),
        ({"method": CALL["method"], "responses": []}, "request is missing"),
        ({**CALL, "request": []}, "request must be an object, not []"),
        ({**CALL, "request": {"model": 1}}, 'request is not a CompletionRequest: Message type "yandex.cloud.ai'),
        ({**CALL, "request": {"messages": {"role": 1}}}, "request is not a CompletionRequest: "),
        ({**CALL, "request": {"tools": [{"function": {"parameters": 5}}]}}, "request is not a CompletionRequest: "),
        ({**CALL, "request_raw": 5}, "request_raw must be base64 in a string, not 5"),
        ({**CALL, "request_raw": "*"}, "request_raw must be base64: "),
        ({**CALL, "request_raw": "/w=="}, "request_raw is not a CompletionRequest"),
        ({"method": CALL["method"], "request": {}}, "a call needs responses, a status or unfinished"),
        ({**CALL, "responses": {}}, "responses must be a list, not {}"),
        ({**CALL, "responses": ["text"]}, "responses[0] must be an object, not 'text'"),
        ({**CALL, "responses": [{"after": 1}]}, "responses[0] needs a message"),
        ({**CALL, "responses": [{"after": -1, "message": {}}]}, "responses[0].after must be a number of seconds, 0 or"),
        (
            {**CALL, "responses": [{"message": {}, "delay": 1}]},
            "responses[0] has no key 'delay'; its keys are after, m",
        ),
        ({**CALL, "responses": [{"raw": 1}]}, "responses[0].raw must be base64 in a string, not 1"),
        ({**CALL, "responses": [{"message": {"text": ""}}]}, "responses[0].message is not a CompletionResponse: "),
        (
            {"method": "OperationService/Get", "request": {}, "responses": [{}, {}]},
            "OperationService/Get has one answer, not 2",
        ),
        ({**CALL, "status": "UNAVAILABLE"}, "status must be an object, not 'UNAVAILABLE'"),
        ({**CALL, "status": {"code": "OK"}}, "status.code must be one of CANCELLED, UNKNOWN, INVALID_ARGUMENT, "),
        ({**CALL, "status": {"code": 14}}, "not 14"),
        ({**CALL, "status": {"code": "INTERNAL", "message": 1}}, "status.message must be a string, not 1"),
        ({**CALL, "status": {"code": "INTERNAL", "after": "1"}}, "status.after must be a number of seconds"),
        ({**CALL, "status": {"code": "INTERNAL", "details": [{"@type": "x/no"}]}}, "status is not a Status: "),
        ({**CALL, "status": {"code": "INTERNAL", "raw": 1}}, "status.raw must be base64"),
        ({**CALL, "unfinished": 1}, "unfinished must be true or false, not 1"),
        ({**CALL, "texts": "no"}, "texts must be true or false, not 'no'"),
        ({**CALL, "unfinished": True, "status": {"code": "ABORTED"}}, "a call has either a status or is unfinished"),
        ({**CALL, "metadata": {"authorization": "x"}}, "metadata has no key 'authorization'; its keys are x-client-re"),
        ({**CALL, "metadata": {"x-request-id": "\n"}}, "metadata.x-request-id must be a string of printable ASCII, no"),
        ({**CALL, "began": "yesterday"}, "began must be a time such as 2026-11-20T09:30:00.25Z, not 'yesterday'"),
        ({**CALL, "began": 5}, "began must be a time"),
    ],
    ids=str,
)
def test_invalid_line_is_one_error_with_the_position_and_the_reason(line: Any, says: str, tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_bytes(f"{json.dumps(CALL)}\n".encode() + text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"calls\.jsonl:2: ") as error:
        recording_file.read_recording(path, "replay")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_line_is_read_or_raises_value_error(tmp_path_factory: Any, line: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(line)
    if line.strip():
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}:"):
            recording_file.read_recording(path, "replay")
    else:
        assert recording_file.read_recording(path, "replay") == []


# Redaction


def texts_in(message: Any) -> list[str]:
    """All strings of a message at any depth, except names."""
    data = json.dumps(json_format.MessageToDict(message, descriptor_pool=POOL), ensure_ascii=False)
    return [word for word in ("Анна", "Казань", "секрет", "4711", "30", "true") if word in data]


CONVERSATION = generation.CompletionRequest(
    model_uri="gpt://folder/yandexgpt",
    messages=[
        {"role": "system", "text": "Анна, секрет"},
        {"role": "user", "text": "Казань\n Анна\ufffd"},
        {
            "role": "assistant",
            "tool_call_list": {"tool_calls": [{"function_call": {"name": "weather", "arguments": {"city": "Казань"}}}]},
        },
        {"role": "user", "tool_result_list": {"tool_results": [{"function_result": {"content": "секрет"}}]}},
    ],
    tools=[
        {
            "function": {
                "name": "weather",
                "description": "секрет",
                "parameters": {
                    "type": "object",
                    "description": "Анна",
                    "properties": {
                        "description": {"type": "string", "enum": ["Казань", 4711, True], "default": {"a": ["Анна"]}},
                        "days": {"type": "integer", "minimum": 1, "title": "секрет"},
                    },
                    "required": ["description"],
                },
            }
        }
    ],
    json_schema={"schema": {"type": "array", "examples": [[30, True]], "items": {"const": "Анна"}}},
)


def test_texts_are_masked() -> None:
    stripped = without_texts(CONVERSATION)
    assert texts_in(CONVERSATION) == ["Анна", "Казань", "секрет", "4711", "30", "true"]
    assert texts_in(stripped) == []
    assert stripped.model_uri == "gpt://folder/yandexgpt"
    assert [message.role for message in stripped.messages] == ["system", "user", "assistant", "user"]
    assert [message.text for message in stripped.messages[:2]] == ["xxxxx xxxxxx", "xxxxxx\n xxxx\ufffd"]
    function = stripped.tools[0].function
    assert (function.name, function.description) == ("weather", "xxxxxx")
    parameters = json_format.MessageToDict(function.parameters)
    assert parameters["required"] == ["description"]
    assert parameters["properties"]["days"] == {"type": "integer", "minimum": 1, "title": "xxxxxx"}
    assert parameters["properties"]["description"] == {
        "type": "string",
        "enum": ["xxxxxx", 0, False],
        "default": {"a": ["xxxx"]},
    }
    assert without_texts(stripped) == stripped


def test_tokens_of_a_text_are_masked() -> None:
    answer = generation.TokenizeResponse(tokens=[{"id": 7, "text": "Анна"}, {"id": 1, "special": True}])
    tokens = without_texts(answer).tokens
    assert [(token.id, token.text, token.special) for token in tokens] == [(0, "xxxx", False), (0, "", True)]


def test_answer_in_an_operation_is_masked() -> None:
    operation = operation_pb2.Operation(id="d7q", description="Async GPT Completion", done=True)
    answer = generation.CompletionResponse(alternatives=[{"message": {"role": "assistant", "text": "Анна"}}])
    operation.response.type_url = f"type.googleapis.com/{answer.DESCRIPTOR.full_name}"
    operation.response.value = answer.SerializeToString()
    operation.metadata.type_url = "type.googleapis.com/not.known"
    operation.metadata.value = b"secret"
    stripped = without_texts(operation)
    assert generation.CompletionResponse.FromString(stripped.response.value).alternatives[0].message.text == "xxxx"
    assert stripped.metadata.value == b""
    assert (stripped.id, stripped.description) == ("d7q", "Async GPT Completion")


def test_error_message_of_the_service_is_not_masked() -> None:
    operation = operation_pb2.Operation(id="d7q", done=True)
    operation.error.message = "out of luck"
    assert without_texts(operation) == operation


@given(messages(generation.CompletionRequest), messages(generation.CompletionResponse))
def test_redaction_never_fails_and_is_idempotent(request: Any, response: Any) -> None:
    for message in (request, response):
        once = without_texts(message)
        assert canonical_bytes(without_texts(once)) == canonical_bytes(once)


def test_every_text_field_is_singular() -> None:
    """`without_texts` relies on this."""
    seen: set[str] = set()

    def visit(descriptor: Any) -> None:
        if descriptor.full_name in seen or descriptor.full_name.startswith("google."):
            return
        seen.add(descriptor.full_name)
        message = next(iter(methods().values())).request_type  # any method: only the descriptor pool matters
        assert message.DESCRIPTOR.file.pool is descriptor.file.pool
        for field in descriptor.fields:
            if field.type == FieldDescriptor.TYPE_STRING:
                assert field.default_value == "", field.full_name
            if field.message_type is not None:
                visit(field.message_type)

    for method in methods().values():
        visit(method.request_type.DESCRIPTOR)
        visit(method.response_type.DESCRIPTOR)
    assert len(seen) > 20


def test_tokens_and_keys_are_redacted() -> None:
    for request in (
        iam.CreateIamTokenRequest(jwt=SECRET),
        iam.CreateIamTokenRequest(yandex_passport_oauth_token=SECRET),
    ):
        assert find_secrets(request) == [SECRET]
        cleaned = without_secrets(request)
        assert cleaned.WhichOneof("identity") == request.WhichOneof("identity")
        assert getattr(cleaned, cleaned.WhichOneof("identity")) == "removed"
    answer = iam.CreateIamTokenResponse(iam_token=SECRET)
    answer.expires_at.GetCurrentTime()
    assert without_secrets(answer) == iam.CreateIamTokenResponse(iam_token="removed")
    assert find_secrets(answer) == [SECRET]
    assert find_secrets(CONVERSATION) == []
    assert without_secrets(CONVERSATION) is CONVERSATION


CREDENTIALS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=20, max_size=60).map(
    lambda text: f"AQVN.{text}"
)


@given(
    scheme=st.sampled_from(["Api-Key ", "Bearer ", "Basic ", ""]),
    secret=CREDENTIALS,
    token=CREDENTIALS,
    texts=st.booleans(),
    in_details=st.booleans(),
)
def test_secrets_are_never_written(
    scheme: str, secret: str, token: str, texts: bool, in_details: bool, tmp_path_factory: Any
) -> None:
    """This holds for every credential, even if the service repeats it in a message."""
    path = tmp_path_factory.getbasetemp() / "secrets.jsonl"
    path.unlink(missing_ok=True)
    words = f"Unknown key {secret}, token {token}"
    details = (error_details_pb2.DebugInfo(detail=words), error_details_pb2.RetryInfo())
    ((_, packed),) = ErrorStatus(grpc.StatusCode.UNAUTHENTICATED, words, details).trailing_metadata(secret)
    assert isinstance(packed, bytes)
    refusal = RecordedStatus(
        grpc.StatusCode.UNAUTHENTICATED, words, packed=packed if in_details else b"\xff" + secret.encode()
    )
    answer = iam.CreateIamTokenResponse(iam_token=token).SerializeToString()
    writer = RecordingWriter(path, texts=texts)
    writer.open()
    for request in (iam.CreateIamTokenRequest(jwt=token), iam.CreateIamTokenRequest(yandex_passport_oauth_token=token)):
        request.MergeFromString(UNKNOWN_FIELD)
        entry = RecordedCall(
            CREATE_TOKEN, request, (RecordedResponse(0, answer), RecordedResponse(0, b"\xff")), refusal
        )
        writer.write(dataclasses.replace(entry, metadata={"x-request-id": secret}), [f"{scheme}{secret}"])
    writer.close()
    written = path.read_text()
    for each in (secret, token):
        assert each not in written
        assert json.dumps(each)[1:-1] not in written
    lines = [json.loads(line) for line in written.splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert line["status"]["message"] == "Unknown key removed, token removed"
        kept = [{"@type": "type.googleapis.com/google.rpc.RetryInfo"}] if in_details else None
        assert line["status"].get("details") == kept


# The file


def test_existing_recording_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text(json.dumps(CALL))  # without a newline at the end, as some editors write it
    for _ in range(2):
        writer = RecordingWriter(path, texts=True)
        writer.open()
        writer.write(RecordedCall(TOKENIZE, TOKENIZE.request_type(text="а")), [])
        writer.close()
        writer.write(
            RecordedCall(TOKENIZE, TOKENIZE.request_type(text="b")), []
        )  # a call that ends after the file was closed
    assert len(recording_file.read_recording(path, "replay")) == 3


def test_file_that_is_not_a_recording_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with pytest.raises(ValueError, match=r"notes\.txt:1: not JSON: .*; only a recording is gone on with: name another"):
        RecordingWriter(path, texts=True)
    assert path.read_text() == "my notes"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "missing" / "calls.jsonl", texts=True)
    with pytest.raises(ValueError, match=r"record: .*calls\.jsonl: No such file or directory"):
        writer.open()
    with pytest.raises(ValueError, match=r"record: .*: Is a directory; only a recording"):
        RecordingWriter(tmp_path, texts=True)


# Matching


def completion_request(text: str, **fields: Any) -> Any:
    fields.setdefault("model_uri", "gpt://b1g/yandexgpt")
    return generation.CompletionRequest(messages=[{"role": "user", "text": text}], **fields)


def recorded(*requests: Any, match: Any = "request", method: Any = GENERATE, texts: bool = True) -> RecordedCalls:
    entries = [
        RecordedCall(method, request, texts=texts, where=f"/tmp/c.jsonl:{n}") for n, request in enumerate(requests, 1)
    ]
    return RecordedCalls(Path("/tmp/c.jsonl"), entries, match)


def line_of(taken: Any) -> int:
    assert isinstance(taken, RecordedCall), taken
    return int(taken.where.rpartition(":")[2])


def test_equal_requests_get_their_responses_in_order_and_then_the_last() -> None:
    calls = recorded(completion_request("а"), completion_request("b"), completion_request("а"))
    assert [line_of(calls.take(GENERATE, completion_request("а"))) for _ in range(4)] == [1, 3, 3, 3]
    assert line_of(calls.take(GENERATE, completion_request("b"))) == 2


def test_folder_and_empty_options_are_ignored() -> None:
    calls = recorded(completion_request("а"))
    other = completion_request("а", model_uri="gpt://emulator/yandexgpt", completion_options={"stream": False})
    assert line_of(calls.take(GENERATE, other)) == 1
    unlike = completion_request("а", model_uri="gpt://b1g/yandexgpt/rc")
    assert isinstance(calls.take(GENERATE, unlike), ErrorStatus)
    zero = completion_request("а", completion_options={"temperature": {"value": 0}})
    assert isinstance(calls.take(GENERATE, zero), ErrorStatus)


def test_match_by_order_ignores_the_request() -> None:
    calls = recorded(completion_request("а"), completion_request("b"), match="order")
    assert [line_of(calls.take(GENERATE, completion_request("c"))) for _ in range(2)] == [1, 2]
    miss = calls.take(GENERATE, completion_request("а"))
    assert isinstance(miss, ErrorStatus)
    assert (miss.code, miss.message) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "all 2 calls of TextGenerationService/Completion in c.jsonl have been replayed",
    )


def test_requests_match_by_masked_texts() -> None:
    calls = recorded(without_texts(completion_request("Привет, мир")), texts=False)
    assert line_of(calls.take(GENERATE, completion_request("Здоров, ты!"))) == 1
    miss = calls.take(GENERATE, completion_request("Привет"))
    assert isinstance(miss, ErrorStatus)
    assert "messages[0].text: recorded 'xxxxxxx xxx', got 'xxxxxx'" in miss.message


def test_any_token_request_matches() -> None:
    calls = recorded(iam.CreateIamTokenRequest(jwt="removed"), method=CREATE_TOKEN)
    assert line_of(calls.take(CREATE_TOKEN, iam.CreateIamTokenRequest(jwt=SECRET))) == 1
    miss = calls.take(CREATE_TOKEN, iam.CreateIamTokenRequest(yandex_passport_oauth_token=SECRET))
    assert isinstance(miss, ErrorStatus)
    assert SECRET not in miss.message


def test_error_of_a_missing_request_shows_the_most_similar_one() -> None:
    long = "слово " * 50
    calls = recorded(
        completion_request("Совсем другое", completion_options={"temperature": {"value": 0.1}}),
        completion_request(f"{long}Раз два три", completion_options={"temperature": {"value": 0.3}}),
        completion_request("Раз"),
    )
    miss = calls.take(GENERATE, completion_request(f"{long}Раз два четыре", completion_options={"stream": True}))
    assert isinstance(miss, ErrorStatus)
    assert miss.message == (
        "c.jsonl holds no call of TextGenerationService/Completion with this request; the nearest, of line 2, differs "
        "in completionOptions.stream: recorded nothing, got True; completionOptions.temperature: recorded 0.3, got "
        "nothing; messages[0].text: recorded ...слово слово Раз два три', got ...слово слово Раз два четыре'"
    )


def test_missing_method_lists_the_recorded_methods() -> None:
    miss = recorded(completion_request("а"), completion_request("б")).take(
        LOOK_UP, LOOK_UP.request_type(operation_id="d7q")
    )
    assert isinstance(miss, ErrorStatus)
    assert (
        miss.message == "c.jsonl holds no call of OperationService/Get; it holds TextGenerationService/Completion (2)"
    )


def test_many_differences_are_counted() -> None:
    calls = recorded(generation.CompletionRequest(messages=[{"text": "а"}] * 5))
    miss = calls.take(GENERATE, generation.CompletionRequest())
    assert isinstance(miss, ErrorStatus)
    assert miss.message.endswith("messages[2].text: recorded 'а', got nothing; and 2 more")


def test_unknown_fields_are_reported() -> None:
    newer = completion_request("а")
    newer.MergeFromString(UNKNOWN_FIELD)
    miss = recorded(newer).take(GENERATE, completion_request("а"))
    assert isinstance(miss, ErrorStatus)
    assert miss.message.endswith("differs in fields that this interface does not know")


def test_schemas_are_compared_value_by_value() -> None:
    def tool(**parameters: Any) -> Any:
        return generation.CompletionRequest(tools=[{"function": {"name": "f", "parameters": parameters}}])

    calls = recorded(tool(type="object", required=["a", None], deep={}))
    miss = calls.take(GENERATE, tool(type="object", required=["b", None], deep=[True]))
    assert isinstance(miss, ErrorStatus)
    assert miss.message.partition("differs in ")[2] == (
        "tools[0].function.parameters.deep[0]: recorded nothing, got True; tools[0].function.parameters.deep: recorded "
        "{}, got nothing; tools[0].function.parameters.required[0]: recorded 'a', got 'b'"
    )


@given(st.lists(messages(generation.CompletionRequest), min_size=1, max_size=4), messages(generation.CompletionRequest))
def test_any_missing_request_has_a_most_similar_one(requests: list[Any], request: Any) -> None:
    entries = [RecordedCall(GENERATE, each, where=f"c:{number}") for number, each in enumerate(requests, 1)]
    entry, found = nearest(entries, request)
    assert entry in entries
    assert all("\n" not in each and len(each) < 500 for each in found)
    assert nearest([*entries, RecordedCall(GENERATE, request, where="same")], request)[1] == []


@given(st.text(max_size=3000), st.text(max_size=3000))
def test_message_of_a_missing_request_fits_into_metadata(one: str, other: str) -> None:
    taken = recorded(completion_request(one, tools=[{"function": {"name": other}}])).take(
        GENERATE, completion_request(other)
    )
    if isinstance(taken, ErrorStatus):
        assert len(taken.message.encode()) * 3 < 4096


def test_infinite_and_missing_numbers_are_compared() -> None:
    odd = generation.CompletionRequest(tools=[{"function": {"parameters": {"a": 0}}}])
    odd.tools[0].function.parameters.fields["a"].number_value = math.nan
    odd.tools[0].function.parameters.fields["b"].SetInParent()
    calls = recorded(odd)
    assert line_of(calls.take(GENERATE, odd)) == 1
    assert isinstance(calls.take(GENERATE, completion_request("а")), ErrorStatus)


def test_method_names_are_unique() -> None:
    names = [method.name for method in methods().values()]
    assert len(set(names)) == len(names)
    assert all(find_method(method.name) is find_method(path) is method for path, method in methods().items())
    assert find_method("Completion") is None
    assert common.Message.DESCRIPTOR.file.pool is POOL
