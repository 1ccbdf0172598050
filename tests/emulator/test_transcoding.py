"""HTTP/JSON transcoding: annotations of all kinds, also those that the interface does not use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fuzzing import json_values, schemas
from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, struct_pb2, wrappers_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import status_pb2  # type: ignore[import-untyped]
from hypothesis import example, given, settings

from yandexgpt.emulator.http_api.json_validation import InvalidRequest
from yandexgpt.emulator.http_api.transcoding import Binding, bindings, bindings_of, to_dict
from yandexgpt.emulator.json_schema_example import example as example_of

_A_FEW = settings(max_examples=40)
_FIELD = descriptor_pb2.FieldDescriptorProto


def a_method(rule: http_pb2.HttpRule | None) -> MethodDescriptor:
    """A method with an annotation. Its request has fields of several types."""
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto3")
    request = file.message_type.add(name="Request")
    fields = [
        ("name", _FIELD.TYPE_STRING, _FIELD.LABEL_OPTIONAL, ""),
        ("page_size", _FIELD.TYPE_INT64, _FIELD.LABEL_OPTIONAL, ""),
        ("is_new", _FIELD.TYPE_BOOL, _FIELD.LABEL_OPTIONAL, ""),
        ("tags", _FIELD.TYPE_STRING, _FIELD.LABEL_REPEATED, ""),
        ("inner", _FIELD.TYPE_MESSAGE, _FIELD.LABEL_OPTIONAL, ".test.Request"),
        ("all", _FIELD.TYPE_MESSAGE, _FIELD.LABEL_REPEATED, ".test.Request"),
    ]
    for number, (name, kind, label, of) in enumerate(fields, start=1):
        request.field.add(name=name, number=number, type=kind, label=label, type_name=of or None)
    method = file.service.add(name="Service").method.add(
        name="Do", input_type=".test.Request", output_type=".test.Request"
    )
    if rule is not None:
        method.options.Extensions[annotations_pb2.http].CopyFrom(rule)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName("test.Service").methods_by_name["Do"]


def a_binding(**rule: Any) -> Binding:
    (binding,) = bindings_of(a_method(http_pb2.HttpRule(**rule)))
    return binding


def test_query_parameters_may_be_nested_and_repeated() -> None:
    query = [("pageSize", "5"), ("tags", "a"), ("tags", "b"), ("inner.is_new", "true"), ("inner.inner.name", "x")]
    assert to_dict(a_binding(get="/things/{name}").request({"name": "n"}, query, b"")) == to_dict(
        a_binding(post="/things", body="*").request(
            {},
            [],
            json.dumps(
                {
                    "name": "n",
                    "page_size": 5,
                    "tags": ["a", "b"],
                    "inner": {"isNew": True, "inner": {"name": "x"}},
                }
            ).encode(),
        )
    )


def test_a_body_may_be_one_field() -> None:
    request: Any = a_binding(post="/things/{name}", body="inner").request(
        {"name": "n"}, [("pageSize", "1")], b'{"name": "i"}'
    )
    assert (request.name, request.page_size, request.inner.name) == ("n", 1, "i")


def test_query_is_ignored_if_the_body_is_the_whole_request() -> None:
    request: Any = a_binding(post="/things", body="*").request({}, [("name", "n")], b"{}")
    assert request.name == ""


def test_a_method_may_be_bound_more_than_once_to_any_verb() -> None:
    rule = http_pb2.HttpRule(get="/a", additional_bindings=[http_pb2.HttpRule(delete="/b/{name}")])
    rule.additional_bindings.add().custom.CopyFrom(http_pb2.CustomHttpPattern(kind="report", path="/c"))
    assert [(each.verb, each.path) for each in bindings_of(a_method(rule))] == [
        ("GET", "/a"),
        ("DELETE", "/b/{name}"),
        ("REPORT", "/c"),
    ]
    assert list(bindings_of(a_method(None))) == []


@pytest.mark.parametrize("name", ["nothing", "inner", "all", "all.name", "name.x", "inner.nothing"])
def test_invalid_parameter_name_is_rejected(name: str) -> None:
    with pytest.raises(InvalidRequest, match="names no field") as caught:
        a_binding(get="/things").request({}, [(name, "1")], b"")
    assert caught.value.field == name


@pytest.mark.parametrize(
    "rule",
    [
        {"get": "/things/{name=a/*}"},
        {"get": "things"},
        {"get": "/things/{nothing}"},
        {"post": "/things", "body": "nothing"},
        {"get": "/things", "response_body": "name"},
        {},
    ],
)
def test_unsupported_annotation_is_an_error(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"test\.Service\.Do: cannot translate"):
        a_binding(**rule)


def test_longer_paths_come_first() -> None:
    paths = [binding.path for binding in bindings()]
    assert paths.index("/operations/{operation_id}:cancel") < paths.index("/operations/{operation_id}")


def test_every_path_of_the_interface_is_bound() -> None:
    assert {(binding.verb, binding.path) for binding in bindings()} >= {
        ("POST", "/foundationModels/v1/completion"),
        ("POST", "/foundationModels/v1/completionAsync"),
        ("POST", "/foundationModels/v1/tokenize"),
        ("POST", "/foundationModels/v1/tokenizeCompletion"),
        ("GET", "/operations/{operation_id}"),
        ("POST", "/iam/v1/tokens"),
        ("GET", "/endpoints"),
    }


def test_a_detail_of_an_unknown_type_shows_its_type_only() -> None:
    status = status_pb2.Status(
        code=3, details=[AnyMessage(type_url="type.googleapis.com/nobody.Knows", value=b"\x08\1")]
    )
    status.details.add().Pack(wrappers_pb2.Int64Value(value=5))
    status.details.add().Pack(empty_pb2.Empty())
    assert [each.get("value") for each in to_dict(status)["details"]] == [None, "5", None]
    assert to_dict(status)["details"][0] == {"@type": "type.googleapis.com/nobody.Knows"}


@_A_FEW
@given(json_values)
def test_any_json_is_a_request_or_one_line_error(value: Any) -> None:
    for binding in bindings():
        problem = why_malformed(binding, json.dumps(value).encode())
        assert "\n" not in problem
        assert len(problem) < 500


def why_malformed(binding: Binding, body: bytes) -> str:
    try:
        binding.request(dict.fromkeys(binding.variables, "x"), [], body)
    except InvalidRequest as malformed:
        return str(malformed)
    return ""


@_A_FEW
@given(json_values)
def test_arbitrary_json_is_converted_without_loss(value: Any) -> None:
    (binding,) = (each for each in bindings() if each.path.endswith("/completion"))
    body = json.dumps({"jsonSchema": {"schema": {"a": value}}}).encode()
    request: Any = binding.request({}, [], body)
    expected = struct_pb2.Struct()
    expected.update({"a": value})
    assert request.json_schema.schema.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


@_A_FEW
@given(schemas)
@example({"allOf": [{"$ref": "#"}, {"$ref": "#"}], "required": ["a"]})
@example({"type": "array", "minItems": 1e12, "items": {"type": "string", "minLength": 1e12}})
@example({"type": "integer", "minimum": 1e308, "multipleOf": 5e-324})
@example({"allOf": 5, "properties": [], "required": 5, "enum": {}, "anyOf": "x", "type": {}})
@example({"type": "number", "minimum": "a", "exclusiveMaximum": None})
@example({"type": "object", "required": [5, None], "properties": {"5": False}})
@example({"default": ["x" * 2_000_000]})
def test_any_schema_has_an_example_of_bounded_size(schema: Any) -> None:
    assert len(json.dumps(example_of(schema))) < 10_000_000
