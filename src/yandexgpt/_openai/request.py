"""The arguments of openai's ``responses.create``, told in those of :meth:`yandexgpt.Client.complete`.

What gRPC cannot honour is refused by name, with what to use in its place; nothing is dropped without a word. The names
and forms are those of the openai package's ``ResponseCreateParams``; which of them there is a field for is settled by
the pinned interface (``text_generation_service.proto``, ``text_common.proto``).
"""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._request import CompletionRequest
from yandexgpt._struct_json import check_text, to_struct_value

__all__ = ["Refused", "prompt_and_options"]


class Refused(TypedDict, total=False):
    """Parameters of openai's that gRPC cannot honour: None, as if not given, is all they may be."""

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


_CONVERSATION = "keep the conversation with client.chat(), or pass earlier items in input"
_CACHE = "the service has no prompt cache that a request could steer; leave it out"
_RAW = "there is no HTTP request; use client.with_options(metadata=...) for what goes along with a call"
_USER = "the service is told of no end users; keep it beside response.id"
_INSTEAD = {
    "context_management": "shorten input yourself, or use client.chat() and its trim()",
    "conversation": _CONVERSATION,
    "extra_body": _RAW,
    "extra_headers": _RAW,
    "extra_query": _RAW,
    "include": "a response holds all that the service sends; leave it out",
    "max_tool_calls": "the service calls no tools itself; bound the rounds with client.run_tools(max_rounds=...)",
    "metadata": "the service stores nothing with a response; keep it beside response.id",
    "moderation": "the service filters by rules of its own, see response.incomplete_details",
    "previous_response_id": _CONVERSATION,
    "prompt": "the service keeps no prompt templates; use instructions and input",
    "prompt_cache_key": _CACHE,
    "prompt_cache_options": _CACHE,
    "prompt_cache_retention": _CACHE,
    "safety_identifier": _USER,
    "service_tier": "there is one tier; use background=True for what is not urgent",
    "stream_options": "use client.stream()",
    "top_logprobs": "the service sends no probabilities; leave it out",
    "top_p": "use temperature",
    "user": _USER,
}
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXT_OF = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
_REASONING = {
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
    """The prompt and the keywords for ``complete`` or ``submit``.

    Raises:
        TypeError: a keyword that openai's client does not have either, or an input of no known form.
        ValueError: a parameter that gRPC cannot honour, or that has an impossible value.
    """
    for name, value in refused.items():
        if name not in _INSTEAD:
            raise TypeError(f"create() got an unexpected keyword argument {name!r}")
        if value is not None:
            raise _cannot(name, _INSTEAD[name])
    if stream:
        raise _cannot("stream=True", "use client.stream()")
    if truncation not in (None, "disabled"):
        raise _cannot(f"truncation={truncation!r}", _INSTEAD["context_management"])
    if store and not background:
        raise _cannot("store=True", "only a background response is kept, for three days: use background=True")
    if store is False and background:
        raise _cannot(
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


def _cannot(name: str, instead: str) -> ValueError:
    return ValueError(f"{name} cannot be honoured over gRPC: {instead}")


def _prompt(instructions: str | None, given: object) -> CompletionRequest:
    conversation = _Conversation()
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
        conversation.add(_mapping(item, f"input[{index}]"), f"input[{index}]")
    return conversation.request


class _Conversation:
    """Items of openai's as messages. The service matches results with calls by name and order, openai by `call_id`:
    so results go into the order of their calls."""

    def __init__(self) -> None:
        self.request = CompletionRequest()
        self._calls: dict[str, tuple[int, str]] = {}
        self._results: list[int] = []

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
        _only(item, where, "type", "role", "content", "id", "status", "phase")
        role = item.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise ValueError(f"{where}['role'] must be one of {', '.join(_ROLES)}, got {role!r}")
        self.request.messages.add(role=_ROLES[role], text=_text(item.get("content"), f"{where}['content']"))

    def _add_call(self, item: Mapping[str, Any], where: str) -> None:
        _only(item, where, "type", "call_id", "name", "arguments", "id", "status")
        name = check_text(item.get("name"), f"{where}['name']")
        self._calls[check_text(item.get("call_id"), f"{where}['call_id']")] = len(self._calls), name
        try:
            arguments = json.loads(check_text(item.get("arguments"), f"{where}['arguments']"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{where}['arguments'] must be a JSON object as a str: {error}") from error
        if not isinstance(arguments, dict):
            raise ValueError(f"{where}['arguments'] must be a JSON object as a str, got {item['arguments']!r}")
        call = self._last("assistant", "tool_call_list").tool_call_list.tool_calls.add().function_call
        call.name = name
        call.arguments.update(to_struct_value(arguments, f"{where}['arguments']"))

    def _add_result(self, item: Mapping[str, Any], where: str) -> None:
        _only(item, where, "type", "call_id", "output", "id", "status")
        call_id = item.get("call_id")
        if not isinstance(call_id, str) or call_id not in self._calls:
            raise ValueError(f"{where}['call_id'] must be that of a function_call before it in input, got {call_id!r}")
        order, name = self._calls[call_id]
        message = self._last("user", "tool_result_list")
        results = message.tool_result_list.tool_results
        if not results:
            self._results.clear()
        at = bisect(self._results, order)
        self._results.insert(at, order)
        content = _text(item.get("output"), f"{where}['output']")
        function_result = text_common_pb2.FunctionResult(name=name, content=content)
        results.insert(at, text_common_pb2.ToolResult(function_result=function_result))

    def _last(self, role: str, content: str) -> text_common_pb2.Message:
        """The last message if it holds such content, else a new one."""
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
        part = _mapping(given, here)
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in _TEXT_OF:
            raise ValueError(f"{here}['type'] must be one of {', '.join(_TEXT_OF)} (gRPC carries text), got {kind!r}")
        _only(part, here, "type", _TEXT_OF[kind], "annotations", "logprobs")
        texts.append(check_text(part.get(_TEXT_OF[kind]), f"{here}[{_TEXT_OF[kind]!r}]"))
    return "\n".join(texts)


def _tools(tools: Iterable[Any]) -> Iterator[Any]:
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            yield tool  # a function made by `yandexgpt.tool`, or what `complete` has a word for
            continue
        if tool.get("type") != "function":
            raise _cannot(
                f"tools[{index}] of the type {tool.get('type')!r}", 'use functions: {"type": "function", ...}'
            )
        if "function" in tool:
            raise ValueError(f"tools[{index}] must have name, description and parameters beside type, not in function")
        yield {key: value for key, value in tool.items() if key != "type" and value is not None}


def _tool_choice(choice: Mapping[str, Any]) -> str:
    name = choice.get("name")
    if choice.get("type") != "function" or not isinstance(name, str):
        raise _cannot(
            f"tool_choice={dict(choice)!r}", 'use "none", "auto", "required" or {"type": "function", "name": ...}'
        )
    _only(choice, "tool_choice", "type", "name")
    return name


def _response_format(text: Mapping[str, Any]) -> Any:
    _only(_mapping(text, "text"), "text", "format")
    if text.get("format") is None:
        return None
    form = _mapping(text["format"], "text['format']")
    kind = form.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise ValueError(f"text['format']['type'] must be one of text, json_object, json_schema, got {kind!r}")
    if kind != "json_schema":
        _only(form, "text['format']", "type")
        return None if kind == "text" else "json"
    # The name is a label that openai demands; a schema is enforced here whether `strict` says so or not.
    _only(form, "text['format']", "type", "name", "schema", "strict")
    schema = _mapping(form.get("schema"), "text['format']['schema']")
    return to_struct_value(schema, "text['format']['schema']")


def _reasoning(reasoning: Mapping[str, Any]) -> str | None:
    _only(_mapping(reasoning, "reasoning"), "reasoning", "effort")
    effort = reasoning.get("effort")
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in _REASONING:
        raise ValueError(f"reasoning['effort'] must be one of {', '.join(_REASONING)}, got {effort!r}")
    return _REASONING[effort]


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    """The value, or what its `to_dict` gives: items of a response can be passed on as they are."""
    if not isinstance(value, Mapping) and hasattr(value, "to_dict"):
        value = value.to_dict()
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping, got {value!r}")
    return value


def _only(value: Mapping[str, Any], where: str, *known: str) -> None:
    """Refuse keys that would be dropped.

    Raises:
        ValueError: there is one that is not known, and not None.
    """
    for key, item in value.items():
        if key not in known and item is not None:
            raise _cannot(f"{where}[{key!r}]", f"what is known is {', '.join(known)}")
