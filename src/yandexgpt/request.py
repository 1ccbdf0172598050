"""Python arguments to a ``CompletionRequest``: every check of a prompt and its options stands here.

A wrong value is a ``ValueError`` that names the argument, the value and what is allowed, before anything is sent.
The ranges are those of the pinned interface (``text_common.proto``) and of the service's documentation.
"""

from __future__ import annotations

import json
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from google.protobuf import json_format

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt.completion import Completion
from yandexgpt.errors import ConfigurationError
from yandexgpt.messages import ROLES, Message, encodable
from yandexgpt.structs import checked

__all__ = ["CompletionRequest", "Prompt", "build_request", "load_request", "model_uri"]

CompletionRequest = text_generation_service_pb2.CompletionRequest

Prompt = str | Sequence[Message | Completion | Mapping[str, Any]] | CompletionRequest
"""One user message, a conversation (a completion stands for its assistant message), or a ready request."""

Reasoning = Literal["disabled", "hidden"]
ResponseFormat = Literal["json"] | Mapping[str, Any] | type

_REASONING = {
    "disabled": text_common_pb2.ReasoningOptions.DISABLED,
    "hidden": text_common_pb2.ReasoningOptions.ENABLED_HIDDEN,
}
_TOOL_CHOICE_MODES = {
    "none": text_common_pb2.ToolChoice.NONE,
    "auto": text_common_pb2.ToolChoice.AUTO,
    "required": text_common_pb2.ToolChoice.REQUIRED,
}
_MODEL_NAME = re.compile(r"[^\s/<>@:]+(/[^\s/<>@:]+)?(@[^\s/<>@]+)?")
_MODEL_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s<>]+")
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
    tools: Iterable[Mapping[str, Any]] | None = None,
    tool_choice: str | None = None,
    parallel_tool_calls: bool | None = None,
    response_format: ResponseFormat | None = None,
) -> CompletionRequest:
    """The request for a prompt; options given here win over those of a ready request, which is left as it was.

    Raises:
        ValueError: an argument has an impossible value.
        TypeError: the prompt is of none of the forms it may have.
        ConfigurationError: the model is a name, and there is no folder to make its URI with.
    """
    request = CompletionRequest()
    if isinstance(prompt, str):
        if not prompt:
            raise ValueError("prompt must not be empty")
        request.messages.add(role="user", text=encodable(prompt, "prompt"))
    elif isinstance(prompt, CompletionRequest):
        request.CopyFrom(prompt)
    else:
        _add_messages(request, prompt)
    if not request.messages:
        raise ValueError("prompt must hold at least one message")
    if system is not None:
        if any(message.role == "system" for message in request.messages):
            raise ValueError("system must not be given for a prompt that has a message of the role system already")
        request.messages.insert(0, text_common_pb2.Message(role="system", text=encodable(system, "system")))

    if model is not None or not request.model_uri:
        request.model_uri = model_uri(model if model is not None else default_model, folder_id)
    else:
        _check_uri(request.model_uri)

    options = request.completion_options
    options.stream = stream
    if temperature is not None:
        options.temperature.value = _temperature(temperature)
    if max_tokens is not None:
        options.max_tokens.value = _positive_int("max_tokens", max_tokens)
    if reasoning is not None:
        options.reasoning_options.mode = _REASONING[_one_of("reasoning", reasoning, _REASONING)]

    if tools is not None:
        del request.tools[:]
        for index, tool in enumerate(tools):
            _add_tool(request, tool, f"tools[{index}]")
    if tool_choice is not None:
        _set_tool_choice(request, tool_choice)
    if parallel_tool_calls is not None:
        request.parallel_tool_calls.value = bool(parallel_tool_calls)
    if response_format is not None:
        _set_response_format(request, response_format)
    return request


def model_uri(model: str, folder_id: str | None) -> str:
    """``gpt://<folder>/<name>[/<version>]`` for a name; a whole URI stays as it is.

    Raises:
        ValueError: it is neither a name, nor ``name/version``, nor a URI.
        ConfigurationError: a name, and no folder.
    """
    if isinstance(model, str) and "://" in model:
        return _check_uri(model)
    if not isinstance(model, str) or not _MODEL_NAME.fullmatch(model):
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
        source: a path, or the parsed JSON.

    Raises:
        ValueError: it is not JSON, or not such a body; the message names the file and the field.
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
        if not isinstance(body, dict):
            raise ValueError(f"{where}: the body of a request is a JSON object, this is {type(body).__name__}")
    request = CompletionRequest()
    try:
        json_format.ParseDict(body, request)
    except json_format.ParseError as error:
        raise ValueError(f"{where}: not the body of a completion request: {error}") from error
    for index, message in enumerate(request.messages):
        _one_of(f"{where}: messages[{index}].role", message.role, ROLES)
    return request


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
            request.messages.append(item.message.proto)
        elif isinstance(item, Mapping):
            if item.keys() == {"role", "text"}:
                role = _one_of(f"{where}['role']", item["role"], ROLES)
                request.messages.add(role=role, text=encodable(item["text"], f"{where}['text']"))
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


def _temperature(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"temperature must be a number from 0 to 1, got {value!r}")
    return float(value)


def _positive_int(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or not 0 < number <= _MAX_INT64:
        raise ValueError(f"{name} must be a whole number greater than 0, got {value!r}")
    return number


def _one_of(name: str, value: Any, allowed: Iterable[str]) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def _add_tool(request: CompletionRequest, tool: Mapping[str, Any], where: str) -> None:
    if not isinstance(tool, Mapping):
        raise ValueError(f"{where} must be a mapping with name, description and parameters, got {tool!r}")
    function = tool.get("function", tool)
    unknown = set(function) - {"name", "description", "parameters", "strict"}
    if unknown or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError(
            f"{where} must have a name, and may have description, parameters (a JSON Schema) and strict; "
            f"got {', '.join(map(repr, function)) or 'nothing'}"
        )
    proto = request.tools.add().function
    proto.name = function["name"]
    proto.description = function.get("description", "")
    proto.parameters.update(checked(function.get("parameters", {}), f"{where}['parameters']"))
    proto.strict = function.get("strict", False)


def _set_tool_choice(request: CompletionRequest, choice: str) -> None:
    if choice in _TOOL_CHOICE_MODES:
        request.tool_choice.mode = _TOOL_CHOICE_MODES[choice]
        return
    names = [tool.function.name for tool in request.tools]
    request.tool_choice.function_name = _one_of("tool_choice", choice, [*_TOOL_CHOICE_MODES, *names])


def _set_response_format(request: CompletionRequest, response_format: Any) -> None:
    if response_format == "json":
        request.json_object = True
        return
    schema = getattr(response_format, "model_json_schema", None)
    if callable(schema):
        response_format = schema()
    if not isinstance(response_format, Mapping):
        raise ValueError(
            f'response_format must be "json", a JSON Schema as a mapping, or a pydantic model, got {response_format!r}'
        )
    request.json_schema.schema.update(checked(response_format, "response_format"))
