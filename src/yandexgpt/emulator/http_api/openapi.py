"""The OpenAPI document of the REST API, generated from the protobuf descriptors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from yandexgpt._version import __version__
from yandexgpt.emulator.http_api.json_validation import WELL_KNOWN, is_repeated
from yandexgpt.emulator.http_api.transcoding import Binding, bindings
from yandexgpt.emulator.validation import MODEL_URI, ROLES

__all__ = ["document"]

_V1 = "yandex.cloud.ai.foundation_models.v1"
_IAM = "yandex.cloud.iam.v1.IamTokenService"
_NOT_EMULATED = {
    f"/{_V1}.TextGenerationBatchService/Completion",
    f"/{_IAM}/CreateForServiceAccount",
    f"/{_IAM}/Revoke",
}
"""Methods that answer UNIMPLEMENTED. They have a path, but are not documented."""
_OPERATION = "yandex.cloud.operation.Operation"
_UNAUTHENTICATED = {_IAM, "yandex.cloud.endpoint.ApiEndpointService"}
"""Services that need no credential."""
_PRINTABLE = "^([!-~]([ -~]*[!-~])?)?$"
_HEADERS = ("x-folder-id", "x-client-request-id", "x-client-trace-id", "x-data-logging-enabled", "idempotency-key")

_CONSTRAINTS: dict[str, dict[str, Any]] = {
    f"{_V1}.CompletionRequest.model_uri": {"pattern": f"^({MODEL_URI.pattern})$"},
    f"{_V1}.CompletionRequest.messages": {"minItems": 1},
    f"{_V1}.TokenizeRequest.model_uri": {"pattern": f"^({MODEL_URI.pattern})$"},
    f"{_V1}.TokenizeRequest.text": {"minLength": 1},
    f"{_V1}.CompletionOptions.temperature": {"minimum": 0, "maximum": 1},
    f"{_V1}.CompletionOptions.max_tokens": {"minimum": 1},
    f"{_V1}.Message.role": {"enum": list(ROLES)},
    f"{_V1}.FunctionTool.name": {"minLength": 1},
}
"""Constraints of fields that the service validates."""
_REQUIRED = {
    f"{_V1}.CompletionRequest": ["modelUri", "messages"],
    f"{_V1}.TokenizeRequest": ["modelUri", "text"],
    f"{_V1}.Message": ["role"],
    f"{_V1}.Tool": ["function"],
    f"{_V1}.FunctionTool": ["name"],
}
_ONE_OF = {f"{_V1}.Message": "Content", "yandex.cloud.iam.v1.CreateIamTokenRequest": "identity"}
"""Messages with a required oneof."""

_INT64 = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
_INTEGERS = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32, *_INT64}
_LONGEST_INT64 = 18
"""Number of digits that every 64-bit integer may have."""
_Schema = dict[str, Any]
_NULL: _Schema = {"type": "null"}


def document(base_url: str) -> _Schema:
    """The OpenAPI 3.1 document of the REST API as a JSON value.

    Args:
        base_url: the address of the REST API.
    """
    return {**_document(), "servers": [{"url": base_url.rstrip("/")}]}


@functools.cache
def _document() -> _Schema:
    schemas = _Schemas()
    paths: dict[str, Any] = {}
    for binding in bindings():
        if binding.full_name not in _NOT_EMULATED:
            paths.setdefault(binding.path, {})[binding.verb.lower()] = _operation(binding, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "The REST face of the YandexGPT emulator", "version": __version__},
        "security": [{"authorization": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "authorization": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "Api-Key <key> or Bearer <IAM token>",
                }
            },
            "schemas": {**schemas.made, "Status": _STATUS},
        },
    }


def _operation(binding: Binding, schemas: _Schemas) -> _Schema:
    method = binding.method
    answer: _Schema = schemas.response(method.output_type)
    content: _Schema = {"application/json": {"schema": answer}}
    if method.server_streaming:
        wrapped = {"type": "object", "properties": {"result": answer}, "required": ["result"]}
        content = {
            "application/json": {"schema": {**wrapped, "additionalProperties": False}},
            "application/x-ndjson": {"schema": {"type": "string", "description": "A line for each partial answer."}},
        }
    operation: _Schema = {
        "operationId": f"{method.containing_service.name}.{method.name}",
        "parameters": [
            *_parameters(binding),
            *({"name": name, "in": "header", "schema": {"type": "string", "pattern": _PRINTABLE}} for name in _HEADERS),
        ],
        "responses": {
            "200": {"description": "The answer.", "content": content, "links": _links(method.output_type)},
            "default": {
                "description": "An error, with the HTTP status of its code.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Status"}}},
            },
        },
    }
    if method.containing_service.full_name in _UNAUTHENTICATED:
        operation["security"] = []
    if binding.body:
        content = {"application/json": {"schema": schemas.body(method.input_type, binding.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _links(answer: Descriptor) -> _Schema:
    """Links to the methods that take the id of an operation."""
    if answer.full_name != _OPERATION:
        return {}
    return {
        name: {"operationId": f"OperationService.{name}", "parameters": {"operation_id": "$response.body#/id"}}
        for name in ("Get", "Cancel")
    }


def _parameters(binding: Binding) -> list[_Schema]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in binding.variables
    ]
    if binding.body != "*":
        found += [
            {"name": field.json_name, "in": "query", "schema": _scalar(field)}
            for field in binding.method.input_type.fields
            if field.name not in (*binding.variables, binding.body)
        ]
    return found


class _Schemas:
    """The schemas of messages. Requests and responses have different schemas: fields of a request may be left out."""

    def __init__(self) -> None:
        self.made: dict[str, _Schema] = {}

    def request(self, descriptor: Descriptor) -> _Schema:
        """A reference to the schema of a request message."""
        return self._reference(descriptor, f"{descriptor.full_name}.sent", self._request_schema)

    def body(self, descriptor: Descriptor, body: str) -> _Schema:
        """The schema of a request body: the whole message, or one of its fields."""
        if body == "*":
            return self.request(descriptor)
        return self._field(descriptor.fields_by_name[body], self.request, _scalar)

    def response(self, descriptor: Descriptor) -> _Schema:
        """A reference to the schema of a response message."""
        return self._reference(descriptor, f"{descriptor.full_name}.answered", self._response_schema)

    def _reference(self, descriptor: Descriptor, name: str, make: Callable[[Descriptor], _Schema]) -> _Schema:
        if name not in self.made:
            self.made[name] = {}  # a message may contain itself
            self.made[name] = make(descriptor)
        return {"$ref": f"#/components/schemas/{name}"}

    def _request_schema(self, descriptor: Descriptor) -> _Schema:
        properties: dict[str, Any] = {}
        required = _REQUIRED.get(descriptor.full_name, [])
        for field in descriptor.fields:
            schema = {**self._field(field, self.request, _scalar), **_CONSTRAINTS.get(field.full_name, {})}
            properties[field.json_name] = schema if field.json_name in required else {"anyOf": [schema, _NULL]}
        return {**_object(properties, required), **_oneofs(descriptor)}

    def _response_schema(self, descriptor: Descriptor) -> _Schema:
        properties = {field.json_name: self._field(field, self.response, _printed) for field in descriptor.fields}
        always = [field.json_name for field in descriptor.fields if not field.has_presence]
        if descriptor.full_name == _OPERATION:
            properties["metadata"] = {"anyOf": [properties["metadata"], _NULL]}
        return _object(properties, always)

    def _field(
        self,
        field: FieldDescriptor,
        inner: Callable[[Descriptor], _Schema],
        scalar: Callable[[FieldDescriptor], _Schema],
    ) -> _Schema:
        message = field.message_type
        well_known = None if message is None else _WELL_KNOWN.get(message.full_name)
        if well_known is not None:
            schema = well_known
        elif message is None:
            schema = scalar(field)
        elif "value" in message.fields_by_name and message.full_name.startswith(WELL_KNOWN):
            schema = scalar(message.fields_by_name["value"])
        else:
            schema = inner(message)
        return {"type": "array", "items": schema} if is_repeated(field) else schema


def _object(properties: dict[str, Any], required: list[str]) -> _Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _oneofs(descriptor: Descriptor) -> _Schema:
    """At most one field of each oneof, and exactly one of a required oneof. A null field counts as absent."""
    clauses: list[_Schema] = []
    for oneof in descriptor.oneofs:
        names = [field.json_name for field in oneof.fields]
        clauses += [{"not": _present(*pair)} for pair in itertools.combinations(names, 2)]
        if _ONE_OF.get(descriptor.full_name) == oneof.name:
            clauses.append({"anyOf": [_present(name) for name in names]})
    return {"allOf": clauses} if clauses else {}


def _present(*names: str) -> _Schema:
    return {"required": list(names), "properties": {name: {"not": _NULL} for name in names}}


def _scalar(field: FieldDescriptor) -> _Schema:
    """A scalar value in a request."""
    if field.cpp_type in _INT64:
        digits: _Schema = {"type": "string", "pattern": f"^[1-9][0-9]{{0,{_LONGEST_INT64 - 1}}}$"}
        return {"anyOf": [_integer(field), digits]}
    return _integer(field) if field.cpp_type in _INTEGERS else _printed(field)


def _printed(field: FieldDescriptor) -> _Schema:
    """A scalar value in a response."""
    if field.cpp_type in _INT64:
        return {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
    if field.cpp_type in _INTEGERS:
        return _integer(field)
    if field.enum_type is not None:
        return _enum(field.enum_type)
    return {
        FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
        FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
        FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
        FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    }[field.cpp_type]


def _integer(field: FieldDescriptor) -> _Schema:
    bits = 64 if field.cpp_type in _INT64 else 32
    signed = field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return {"type": "integer", "minimum": low, "maximum": high}


def _enum(descriptor: EnumDescriptor) -> _Schema:
    """A name, or a number: unknown values of a newer interface are kept."""
    numbers = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
    return {"anyOf": [{"enum": [value.name for value in descriptor.values]}, numbers]}


_ANY: _Schema = {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]}
_STATUS: _Schema = _object(
    {"code": {"type": "integer"}, "message": {"type": "string"}, "details": {"type": "array", "items": _ANY}},
    ["code", "message", "details"],
)
_WELL_KNOWN: dict[str, _Schema] = {
    "google.protobuf.Any": _ANY,
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.rpc.Status": {"$ref": "#/components/schemas/Status"},
}
