"""Builds a ``CompletionRequest`` from Python arguments, and checks every argument of a prompt.

A wrong value raises a ``ValueError`` with the argument, the value and the allowed values, before anything is sent.
Source of the ranges: the pinned interface (``text_common.proto``) and the service's documentation.
"""

from __future__ import annotations

import functools
import json
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from google.protobuf import json_format

from yandexgpt._messages import ROLES, Message, set_function, set_tool_choice
from yandexgpt._models import Completion
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt._struct_json import check_text, parse_json, to_struct_value
from yandexgpt._structured_output import Structure, is_type
from yandexgpt.errors import ConfigurationError

__all__ = ["CompletionRequest", "Prompt", "build_request", "load_request", "model_uri", "positive_int"]

CompletionRequest = text_generation_service_pb2.CompletionRequest
TokenizeRequest = text_generation_service_pb2.TokenizeRequest

Prompt = str | Sequence[Message | Completion | Mapping[str, Any]] | CompletionRequest
"""One user message, a conversation (of a completion the assistant message is sent), or a complete request."""

Reasoning = Literal["disabled", "hidden"]
ResponseFormat = Literal["json"] | Mapping[str, Any] | type


class DescribedFunction(Protocol):
    """A function with its description for the model: a :class:`yandexgpt.Tool`."""

    @property
    def parameters(self) -> Mapping[str, Any]: ...

    def to_dict(self) -> dict[str, Any]: ...


ToolLike = Mapping[str, Any] | DescribedFunction
"""A function that the model may call: a :class:`yandexgpt.Tool`, or a mapping with name, description and parameters."""

_REASONING_MODES = {
    "disabled": text_common_pb2.ReasoningOptions.DISABLED,
    "hidden": text_common_pb2.ReasoningOptions.ENABLED_HIDDEN,
}
_MODEL_NAME = re.compile(r"[^\s/<>@:]+(/[^\s/<>@:]+)?(@[^\s/<>@]+)?")
_MODEL_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s<>/][^\s<>]*")
_MAX_INT64 = 2**63 - 1


def build_request(
    prompt: Prompt,
    *,
    folder_id: str | None,
    default_model: str,
    stream: bool,
    system: str | None = None,
    model: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    reasoning: Reasoning | None = None,
    tools: Iterable[ToolLike] | None = None,
    tool_choice: str | None = None,
    parallel_tool_calls: bool | None = None,
    response_format: ResponseFormat | None = None,
) -> CompletionRequest:
    """The request for a prompt. Arguments as for ``complete()``, and those of the client.

    If the prompt is a ``CompletionRequest``, a copy is returned in which the arguments override its options.

    Args:
        folder_id: the folder for the model's URI, or None.
        default_model: the model, if neither ``model`` nor the prompt names one.
        stream: whether partials are requested.

    Raises:
        ValueError: an argument is out of range or malformed.
        TypeError: the prompt has an unsupported type.
        ConfigurationError: the model is a name, and there is no folder for its URI.
    """
    request = CompletionRequest()
    if isinstance(prompt, str):
        if not prompt:
            raise ValueError("prompt must not be empty")
        request.messages.add(role="user", text=check_text(prompt, "prompt"))
    elif isinstance(prompt, CompletionRequest):
        request.CopyFrom(prompt)
    else:
        _add_messages(request, prompt)
    if not request.messages:
        raise ValueError("prompt must hold at least one message")
    if system is not None:
        _add_system(request, system)
    if model is not None or not request.model_uri:
        request.model_uri = model_uri(default_model if model is None else model, folder_id)
    elif "://" in request.model_uri:
        _check_uri(request.model_uri)
    else:
        raise ValueError(
            f"the model URI of the request must be one, such as gpt://<folder>/<name>, got {request.model_uri!r}; "
            "or pass the name as model=..."
        )
    _set_options(request, stream, temperature, max_tokens, reasoning)
    if tools is not None:
        if not isinstance(tools, Iterable):
            raise ValueError(f"tools must be a sequence of mappings, got {tools!r}")
        del request.tools[:]
        for index, tool in enumerate(tools):
            _add_tool(request, tool, f"tools[{index}]")
    if tool_choice is not None:
        set_tool_choice(request.tool_choice, tool_choice, (tool.function.name for tool in request.tools))
    if parallel_tool_calls is not None:
        if not isinstance(parallel_tool_calls, bool):
            raise ValueError(f"parallel_tool_calls must be True or False, got {parallel_tool_calls!r}")
        request.parallel_tool_calls.value = parallel_tool_calls
    if response_format is not None:
        _set_response_format(request, response_format)
    return request


def _set_options(
    request: CompletionRequest,
    stream: bool,
    temperature: float | None,
    max_tokens: int | None,
    reasoning: Reasoning | None,
) -> None:
    options = request.completion_options
    options.stream = stream
    if temperature is not None:
        options.temperature.value = _check_temperature(temperature)
    if max_tokens is not None:
        options.max_tokens.value = positive_int("max_tokens", max_tokens)
    if reasoning is not None:
        options.reasoning_options.mode = _REASONING_MODES[_check_one_of("reasoning", reasoning, _REASONING_MODES)]


def build_tokenization(
    prompt: Prompt,
    *,
    folder_id: str | None,
    default_model: str,
    system: str | None = None,
    model: str | None = None,
    tools: Iterable[ToolLike] | None = None,
) -> CompletionRequest | TokenizeRequest:
    """The request for the tokens of a text (a ``str`` without ``system`` and ``tools``), or of a prompt.

    Raises:
        ValueError, TypeError, ConfigurationError: as for :func:`build_request`.
    """
    request = build_request(
        prompt,
        folder_id=folder_id,
        default_model=default_model,
        stream=False,
        system=system,
        model=model,
        tools=tools,
    )
    if isinstance(prompt, str) and system is None and tools is None:
        return TokenizeRequest(model_uri=request.model_uri, text=prompt)
    return request


def model_uri(model: str, folder_id: str | None) -> str:
    """``gpt://<folder>/<name>[/<version>]`` for a name; a URI is returned unchanged.

    Raises:
        ValueError: ``model`` is neither a name, nor ``name/version``, nor a URI.
        ConfigurationError: ``model`` is a name, and there is no folder.
    """
    if not isinstance(model, str):
        raise ValueError(f"model must be a name, name/version or a URI such as gpt://<folder>/<name>, got {model!r}")
    return _cached_model_uri(model, folder_id)


@functools.lru_cache(maxsize=128)  # a client has few models, and every call needs a URI
def _cached_model_uri(model: str, folder_id: str | None) -> str:
    if "://" in model:
        return _check_uri(model)
    if not _MODEL_NAME.fullmatch(model):
        raise ValueError(f"model must be a name, name/version or a URI such as gpt://<folder>/<name>, got {model!r}")
    if not folder_id:
        raise ConfigurationError(
            f"no folder for the model {model!r}: pass folder_id=..., set one of YC_FOLDER_ID, FOLDER_ID, "
            "YANDEX_CLOUD_FOLDER, or give the model as a whole URI"
        )
    return f"gpt://{folder_id}/{model}"


def load_request(source: str | os.PathLike[str] | Mapping[str, Any]) -> CompletionRequest:
    """Read the body of a REST request (``body.json``), to be passed as a prompt.

    Args:
        source: the path of the file, or the parsed JSON.

    Returns:
        The request. The arguments of ``complete()`` and the other calls override its options.

    Raises:
        ValueError: it is not JSON, or not the body of a completion request; the message names the file and the field.
        OSError: the file cannot be read.
    """
    if isinstance(source, Mapping):
        where, body = "request", dict(source)
    else:
        where = os.fspath(source)
        try:
            body = json.loads(Path(where).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{where}: not a JSON file: {error}") from error
        except RecursionError as error:
            raise ValueError(f"{where}: nested too deeply") from error
        if not isinstance(body, dict):
            raise ValueError(f"{where}: the body of a request is a JSON object, this is {type(body).__name__}")
    request = CompletionRequest()
    try:
        parse_json(body, request)
    except json_format.ParseError as error:
        raise ValueError(f"{where}: not the body of a completion request: {error}") from error
    for index, message in enumerate(request.messages):
        _check_one_of(f"{where}: messages[{index}].role", message.role, ROLES)
    return request


def _add_system(request: CompletionRequest, system: str) -> None:
    if any(message.role == "system" for message in request.messages):
        raise ValueError("system must not be given for a prompt that has a message of the role system already")
    request.messages.insert(0, text_common_pb2.Message(role="system", text=check_text(system, "system")))


def _add_messages(request: CompletionRequest, prompt: Iterable[Message | Completion | Mapping[str, Any]]) -> None:
    if isinstance(prompt, Mapping | Message | Completion | bytes) or not isinstance(prompt, Iterable):
        raise TypeError(
            f"prompt must be a str, a sequence of messages or a CompletionRequest, got {type(prompt).__name__}"
        )
    for index, item in enumerate(prompt):
        where = f"prompt[{index}]"
        if isinstance(item, Message):
            request.messages.append(item.proto)
        elif isinstance(item, Completion):
            if not item.alternatives:
                raise ValueError(f"{where}: the completion has no message: it holds no alternative")
            request.messages.append(item.message.proto)
        elif isinstance(item, Mapping):
            if item.keys() == {"role", "text"}:
                role = _check_one_of(f"{where}['role']", item["role"], ROLES)
                request.messages.add(role=role, text=check_text(item["text"], f"{where}['text']"))
                continue
            try:
                request.messages.append(Message.from_dict(item).proto)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
        else:
            raise TypeError(f"{where} must be a Message, a mapping or a Completion, got {type(item).__name__}")


def _check_uri(uri: str) -> str:
    if "<" in uri or ">" in uri:
        raise ValueError(f"the model URI {uri!r} still holds a placeholder: put your folder id in its place")
    if not _MODEL_URI.fullmatch(uri):
        raise ValueError(f"model must be a name, name/version or a URI such as gpt://<folder>/<name>, got {uri!r}")
    return uri


def _check_temperature(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"temperature must be a number from 0 to 1, got {value!r}")
    return float(value)


def positive_int(name: str, value: Any) -> int:
    """The value, if it is a whole number from 1 to 2**63 - 1.

    Raises:
        ValueError: it is not.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or not 0 < number <= _MAX_INT64:
        allowed = f"from 1 to {_MAX_INT64}" if number > _MAX_INT64 else "greater than 0"
        raise ValueError(f"{name} must be a whole number {allowed}, got {value!r}")
    return number


def _check_one_of(name: str, value: Any, allowed: Iterable[str]) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def _add_tool(request: CompletionRequest, tool: ToolLike, where: str) -> None:
    if not isinstance(tool, Mapping):
        if not hasattr(tool, "parameters"):
            raise ValueError(
                f"{where} must be a mapping with name, description and parameters, or a yandexgpt.Tool, got {tool!r}"
            )
        tool = tool.to_dict()
    function = tool.get("function", tool)
    if not isinstance(function, Mapping):
        raise ValueError(f"{where}['function'] must be a mapping, got {function!r}")
    set_function(request.tools.add().function, function, where)


def _set_response_format(request: CompletionRequest, response_format: Any) -> None:
    if response_format == "json":
        request.json_object = True
        return
    schema = getattr(response_format, "model_json_schema", None)
    if callable(schema):
        try:
            response_format = schema()
        except RecursionError as error:
            raise ValueError("response_format: the model is nested too deeply") from error
    elif is_type(response_format):
        response_format = Structure(response_format).schema
    if not isinstance(response_format, Mapping):
        raise ValueError(
            'response_format must be "json", a JSON Schema as a mapping, or a pydantic model, a dataclass or another '
            f"type that pydantic understands, got {response_format!r}"
        )
    request.json_schema.schema.Clear()
    request.json_schema.schema.SetInParent()
    request.json_schema.schema.update(to_struct_value(response_format, "response_format"))
