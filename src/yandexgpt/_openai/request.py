"""The arguments of openai's ``responses.create``, converted to those of :meth:`yandexgpt.Client.complete`.

A parameter that gRPC cannot carry is an error that names the parameter and an alternative; nothing is silently dropped.
Sources: the names and forms are those of the openai package's ``ResponseCreateParams``; the fields that gRPC has are
those of the pinned interface (``text_generation_service.proto``, ``text_common.proto``).
"""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._request import CompletionRequest
from yandexgpt._struct_json import check_text, to_struct_value

__all__ = ["UnsupportedParameters", "prompt_and_options"]


class UnsupportedParameters(TypedDict, total=False):
    """Parameters of openai's client that gRPC cannot carry. Only None is allowed: the parameter is not given."""

    context_management: None
    conversation: None
    extra_body: None
    extra_headers: None
    extra_query: None
    include: None
    max_tool_calls: None
    metadata: None
    moderation: None
    previous_response_id: None
    prompt: None
    prompt_cache_key: None
    prompt_cache_options: None
    prompt_cache_retention: None
    safety_identifier: None
    service_tier: None
    stream_options: None
    top_logprobs: None
    top_p: None
    user: None


_USE_CHAT = "keep the conversation with client.chat(), or pass earlier items in input"
_NO_PROMPT_CACHE = "the service has no prompt cache that a request could steer; leave it out"
_NO_HTTP_REQUEST = "there is no HTTP request; use client.with_options(metadata=...) for what goes along with a call"
_NO_END_USERS = "the service is told of no end users; keep it beside response.id"
_ALTERNATIVES = {
    "context_management": "shorten input yourself, or use client.chat() and its trim()",
    "conversation": _USE_CHAT,
    "extra_body": _NO_HTTP_REQUEST,
    "extra_headers": _NO_HTTP_REQUEST,
    "extra_query": _NO_HTTP_REQUEST,
    "include": "a response holds all that the service sends; leave it out",
    "max_tool_calls": "the service calls no tools itself; bound the rounds with client.run_tools(max_rounds=...)",
    "metadata": "the service stores nothing with a response; keep it beside response.id",
    "moderation": "the service filters by rules of its own, see response.incomplete_details",
    "previous_response_id": _USE_CHAT,
    "prompt": "the service keeps no prompt templates; use instructions and input",
    "prompt_cache_key": _NO_PROMPT_CACHE,
    "prompt_cache_options": _NO_PROMPT_CACHE,
    "prompt_cache_retention": _NO_PROMPT_CACHE,
    "safety_identifier": _NO_END_USERS,
    "service_tier": "there is one tier; use background=True for what is not urgent",
    "stream_options": "use client.stream()",
    "top_logprobs": "the service sends no probabilities; leave it out",
    "top_p": "use temperature",
    "user": _NO_END_USERS,
}
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXT_FIELDS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
_REASONING_MODES = {
    "none": "disabled",
    "minimal": "hidden",
    "low": "hidden",
    "medium": "hidden",
    "high": "hidden",
    "xhigh": "hidden",
}


def prompt_and_options(
    *,
    input: object,  # noqa: A002
    instructions: str | None,
    max_output_tokens: int | None,
    reasoning: Mapping[str, Any] | None,
    text: Mapping[str, Any] | None,
    tools: Iterable[Any] | None,
    tool_choice: str | Mapping[str, Any] | None,
    background: bool | None,
    store: bool | None,
    stream: bool | None,
    truncation: str | None,
    refused: Mapping[str, Any],
) -> tuple[CompletionRequest, dict[str, Any]]:
    """The prompt and the keyword arguments for ``complete`` or ``submit``. Arguments as for ``responses.create``.

    Raises:
        TypeError: openai's client has no such keyword, or the input is not a str or a list.
        ValueError: gRPC cannot carry a parameter, or a parameter is out of range or malformed.
    """
    for name, value in refused.items():
        if name not in _ALTERNATIVES:
            raise TypeError(f"create() got an unexpected keyword argument {name!r}")
        if value is not None:
            raise _unsupported(name, _ALTERNATIVES[name])
    if stream:
        raise _unsupported("stream=True", "use client.stream()")
    if truncation not in (None, "disabled"):
        raise _unsupported(f"truncation={truncation!r}", _ALTERNATIVES["context_management"])
    if store and not background:
        raise _unsupported("store=True", "only a background response is kept, for three days: use background=True")
    if store is False and background:
        raise _unsupported(
            "store=False", "the result of a background response is kept for three days; leave one of them out"
        )
    if max_output_tokens is not None and (type(max_output_tokens) is not int or max_output_tokens < 1):
        raise ValueError(f"max_output_tokens must be a whole number greater than 0, got {max_output_tokens!r}")
    return _prompt(instructions, input), {
        "max_tokens": max_output_tokens,
        "reasoning": None if reasoning is None else _reasoning(reasoning),
        "response_format": None if text is None else _response_format(text),
        "tools": None if tools is None else list(_tools(tools)),
        "tool_choice": _tool_choice(tool_choice) if isinstance(tool_choice, Mapping) else tool_choice,
    }


def _unsupported(name: str, instead: str) -> ValueError:
    return ValueError(f"{name} cannot be honoured over gRPC: {instead}")


def _prompt(instructions: str | None, given: object) -> CompletionRequest:
    conversation = _MessageBuilder()
    if instructions is not None:
        conversation.request.messages.add(role="system", text=check_text(instructions, "instructions"))
    if isinstance(given, str):
        if not given:
            raise ValueError("input must not be empty")
        conversation.request.messages.add(role="user", text=check_text(given, "input"))
        return conversation.request
    if not isinstance(given, Iterable) or isinstance(given, Mapping | bytes):
        raise TypeError(f"input must be a str or a list of items, got {type(given).__name__}")
    items = list(given)
    if not items:
        raise ValueError("input must hold at least one item")
    for index, item in enumerate(items):
        conversation.add(_to_mapping(item, f"input[{index}]"), f"input[{index}]")
    return conversation.request


class _MessageBuilder:
    """Converts openai's items to messages.

    The service matches results with calls by name and order, openai by `call_id`: results are sorted into the order of
    their calls.
    """

    def __init__(self) -> None:
        self.request = CompletionRequest()
        self._positions: dict[str, tuple[int, str]] = {}
        self._result_positions: list[int] = []

    def add(self, item: Mapping[str, Any], where: str) -> None:
        kind = item.get("type", "message")
        if kind == "message":
            self._add_message(item, where)
        elif kind == "function_call":
            self._add_call(item, where)
        elif kind == "function_call_output":
            self._add_result(item, where)
        else:
            raise ValueError(
                f"{where}['type'] must be one of message, function_call, function_call_output (gRPC has no others), "
                f"got {kind!r}"
            )

    def _add_message(self, item: Mapping[str, Any], where: str) -> None:
        _check_keys(item, where, "type", "role", "content", "id", "status", "phase")
        role = item.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise ValueError(f"{where}['role'] must be one of {', '.join(_ROLES)}, got {role!r}")
        self.request.messages.add(role=_ROLES[role], text=_text(item.get("content"), f"{where}['content']"))

    def _add_call(self, item: Mapping[str, Any], where: str) -> None:
        _check_keys(item, where, "type", "call_id", "name", "arguments", "id", "status")
        name = check_text(item.get("name"), f"{where}['name']")
        self._positions[check_text(item.get("call_id"), f"{where}['call_id']")] = len(self._positions), name
        try:
            arguments = json.loads(check_text(item.get("arguments"), f"{where}['arguments']"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{where}['arguments'] must be a JSON object as a str: {error}") from error
        if not isinstance(arguments, dict):
            raise ValueError(f"{where}['arguments'] must be a JSON object as a str, got {item['arguments']!r}")
        call = self._last_or_new("assistant", "tool_call_list").tool_call_list.tool_calls.add().function_call
        call.name = name
        call.arguments.update(to_struct_value(arguments, f"{where}['arguments']"))

    def _add_result(self, item: Mapping[str, Any], where: str) -> None:
        _check_keys(item, where, "type", "call_id", "output", "id", "status")
        call_id = item.get("call_id")
        if not isinstance(call_id, str) or call_id not in self._positions:
            raise ValueError(f"{where}['call_id'] must be that of a function_call before it in input, got {call_id!r}")
        order, name = self._positions[call_id]
        message = self._last_or_new("user", "tool_result_list")
        results = message.tool_result_list.tool_results
        if not results:
            self._result_positions.clear()
        at = bisect(self._result_positions, order)
        self._result_positions.insert(at, order)
        content = _text(item.get("output"), f"{where}['output']")
        function_result = text_common_pb2.FunctionResult(name=name, content=content)
        results.insert(at, text_common_pb2.ToolResult(function_result=function_result))

    def _last_or_new(self, role: str, content: str) -> text_common_pb2.Message:
        """The last message if its content is of this kind, else a new message."""
        messages = self.request.messages
        if messages and messages[-1].WhichOneof("Content") == content:
            return messages[-1]
        return messages.add(role=role)


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return check_text(content, where)
    if not isinstance(content, Iterable) or isinstance(content, Mapping | bytes):
        raise ValueError(f"{where} must be a str or a list of parts with type and text, got {content!r}")
    texts = []
    for index, given in enumerate(content):
        here = f"{where}[{index}]"
        part = _to_mapping(given, here)
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in _TEXT_FIELDS:
            raise ValueError(
                f"{here}['type'] must be one of {', '.join(_TEXT_FIELDS)} (gRPC carries text), got {kind!r}"
            )
        _check_keys(part, here, "type", _TEXT_FIELDS[kind], "annotations", "logprobs")
        texts.append(check_text(part.get(_TEXT_FIELDS[kind]), f"{here}[{_TEXT_FIELDS[kind]!r}]"))
    return "\n".join(texts)


def _tools(tools: Iterable[Any]) -> Iterator[Any]:
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            yield tool  # `complete` takes it, or refuses it
            continue
        if tool.get("type") != "function":
            raise _unsupported(
                f"tools[{index}] of the type {tool.get('type')!r}", 'use functions: {"type": "function", ...}'
            )
        if "function" in tool:
            raise ValueError(f"tools[{index}] must have name, description and parameters beside type, not in function")
        yield {key: value for key, value in tool.items() if key != "type" and value is not None}


def _tool_choice(choice: Mapping[str, Any]) -> str:
    name = choice.get("name")
    if choice.get("type") != "function" or not isinstance(name, str):
        raise _unsupported(
            f"tool_choice={dict(choice)!r}", 'use "none", "auto", "required" or {"type": "function", "name": ...}'
        )
    _check_keys(choice, "tool_choice", "type", "name")
    return name


def _response_format(text: Mapping[str, Any]) -> Any:
    _check_keys(_to_mapping(text, "text"), "text", "format")
    if text.get("format") is None:
        return None
    form = _to_mapping(text["format"], "text['format']")
    kind = form.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise ValueError(f"text['format']['type'] must be one of text, json_object, json_schema, got {kind!r}")
    if kind != "json_schema":
        _check_keys(form, "text['format']", "type")
        return None if kind == "text" else "json"
    # openai requires a name, for which the service has no field. The service enforces a schema even without `strict`.
    _check_keys(form, "text['format']", "type", "name", "schema", "strict")
    schema = _to_mapping(form.get("schema"), "text['format']['schema']")
    return to_struct_value(schema, "text['format']['schema']")


def _reasoning(reasoning: Mapping[str, Any]) -> str | None:
    _check_keys(_to_mapping(reasoning, "reasoning"), "reasoning", "effort")
    effort = reasoning.get("effort")
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in _REASONING_MODES:
        raise ValueError(f"reasoning['effort'] must be one of {', '.join(_REASONING_MODES)}, got {effort!r}")
    return _REASONING_MODES[effort]


def _to_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """The value, or the result of its `to_dict`: items of a response can be passed as input unchanged."""
    if not isinstance(value, Mapping) and hasattr(value, "to_dict"):
        value = value.to_dict()
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping, got {value!r}")
    return value


def _check_keys(value: Mapping[str, Any], where: str, *known: str) -> None:
    """Refuse keys that would be silently dropped.

    Raises:
        ValueError: a key is not known, and its value is not None.
    """
    for key, item in value.items():
        if key not in known and item is not None:
            raise _unsupported(f"{where}[{key!r}]", f"what is known is {', '.join(known)}")
