"""HTTP/JSON transcoding: HTTP requests to messages, and messages to JSON, by the ``google.api.http`` annotations.

Sources: ``google/api/http.proto`` for paths, bodies and query parameters; the proto3 JSON mapping for the rest.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]
from google.protobuf import descriptor_pool, empty_pb2, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

import yandexgpt._proto
from yandexgpt.emulator.http_api.json_validation import WELL_KNOWN, InvalidRequest, check_json, field_named, is_repeated

__all__ = ["Binding", "bindings", "bindings_of", "dump", "to_dict"]

_PATH = re.compile(r"(?:/(?:[^/{}]+|\{[a-z0-9_]+\}))+(?::[A-Za-z]+)?")
_VARIABLE = re.compile(r"\{([a-z0-9_]+)\}")
_PARSE_ERROR_PREFIX = re.compile(r"Failed to parse \S+ field: ")


@dataclass(frozen=True)
class Binding:
    """The HTTP verb and path of a method.

    Attributes:
        verb: the HTTP method, such as ``"POST"``.
        path: the path; ``{name}`` is a field of the request.
        body: the field that the body contains; ``"*"``: the whole request; empty: no body.
        method: the gRPC method.
    """

    verb: str
    path: str
    body: str
    method: MethodDescriptor

    @property
    def full_name(self) -> str:
        """The gRPC name of the method: ``/package.Service/Method``."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def variables(self) -> list[str]:
        """The fields in the path."""
        return _VARIABLE.findall(self.path)

    @property
    def request_type(self) -> type[Message]:
        """The request class."""
        return message_factory.GetMessageClass(self.method.input_type)

    @property
    def response_type(self) -> type[Message]:
        """The response class."""
        return message_factory.GetMessageClass(self.method.output_type)

    def request(self, variables: Mapping[str, str], query: Iterable[tuple[str, str]], body: bytes) -> Message:
        """Convert an HTTP request to a message.

        Args:
            variables: the values of :attr:`variables`.
            query: the query parameters. They are fields that are neither in the path nor in the body.
            body: the body; an empty body is an empty object.

        Raises:
            InvalidRequest: it is not a valid message.
        """
        descriptor = self.method.input_type
        data: dict[str, Any] = {}
        if self.body == "*":
            data = _parse_body(body)
        else:
            if self.body:
                data[self.body] = _parse_body(body)
            for name, value in query:
                _set_parameter(data, descriptor, name, value)
        for name, value in variables.items():
            _set_parameter(data, descriptor, name, value)
        check_json(data, descriptor, "")
        message = self.request_type()
        try:
            json_format.ParseDict(data, message, descriptor_pool=_POOLS)
        except json_format.ParseError as error:
            raise InvalidRequest("", _PARSE_ERROR_PREFIX.sub("", str(error)).rstrip(".")) from None
        return message


def bindings() -> list[Binding]:
    """The bindings of all methods; longer paths first, so that ``{id}:cancel`` comes before ``{id}``.

    Raises:
        ValueError: an annotation is not supported.
    """
    found = [binding for method in _methods() for binding in bindings_of(method)]
    return sorted(found, key=lambda binding: (-len(_VARIABLE.sub("", binding.path)), binding.path))


def to_dict(message: Message) -> dict[str, Any]:
    """The message as JSON: camelCase names, 64-bit numbers as strings, with default values."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True, descriptor_pool=_POOLS)


def dump(value: Any) -> bytes:
    """JSON on one line, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _methods() -> Iterator[MethodDescriptor]:
    package = yandexgpt._proto
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name.endswith("_pb2"):
            for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
                yield from service.methods


def bindings_of(method: MethodDescriptor) -> Iterator[Binding]:
    """The bindings in the annotation of a method; none without an annotation."""
    options = method.GetOptions()
    if options.HasExtension(annotations_pb2.http):
        first: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]
        for rule in (first, *first.additional_bindings):
            yield _binding(rule, method)


def _binding(rule: http_pb2.HttpRule, method: MethodDescriptor) -> Binding:
    kind = rule.WhichOneof("pattern") or "custom"
    verb, path = (rule.custom.kind, rule.custom.path) if kind == "custom" else (kind, getattr(rule, kind))
    fields = method.input_type.fields_by_name
    named = [*_VARIABLE.findall(path), *([] if rule.body in ("", "*") else [rule.body])]
    if not _PATH.fullmatch(path) or rule.response_body or any(name not in fields for name in named):
        raise ValueError(f"{method.full_name}: cannot translate the annotation {verb} {path!r}, body {rule.body!r}")
    return Binding(verb.upper(), path, rule.body, method)


class _Pools:
    """Finds the types in an ``Any``: types of this package or of the process. Other types have no fields."""

    def FindMessageTypeByName(self, name: str) -> Descriptor:  # noqa: N802 - the pool's own name
        with contextlib.suppress(KeyError):
            return yandexgpt._proto.POOL.FindMessageTypeByName(name)
        with contextlib.suppress(KeyError):
            return descriptor_pool.Default().FindMessageTypeByName(name)
        return empty_pb2.Empty.DESCRIPTOR


_POOLS = cast("descriptor_pool.DescriptorPool", _Pools())


def _parse_body(body: bytes) -> Any:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("", f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_reject_constant) if text.strip() else {}
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest("", f"the body is not JSON: {error.msg} at {where}") from None
    except ValueError as error:  # an integer with thousands of digits
        raise InvalidRequest("", f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("", "the body is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(twice, "the key stands twice in one object")
    return made


def _reject_constant(name: str) -> Any:
    raise InvalidRequest("", f"the body is not JSON: {name} is no value of JSON")


def _set_parameter(data: dict[str, Any], descriptor: Descriptor, name: str, value: str) -> None:
    """Set a field from the text of a path or query parameter. ``name`` may contain dots for nested messages."""
    *messages, last = name.split(".")
    for part in messages:
        inner = field_named(descriptor, part)
        if inner is None or inner.message_type is None or is_repeated(inner):
            raise InvalidRequest(name, "the parameter names no field of the request")
        descriptor = inner.message_type
        data = data.setdefault(inner.json_name, {})
    field = field_named(descriptor, last)
    if field is None or (field.message_type is not None and not field.message_type.full_name.startswith(WELL_KNOWN)):
        raise InvalidRequest(name, "the parameter names no field of the request")
    parsed = {"true": True, "false": False}.get(value, value) if field.type == FieldDescriptor.TYPE_BOOL else value
    if is_repeated(field):
        data.setdefault(field.json_name, []).append(parsed)
    else:
        data[field.json_name] = parsed
