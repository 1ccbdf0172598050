"""Converts messages of Chat Completions to items of the Responses API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from yandexgpt.emulator.http_api.openai.body import abbreviated
from yandexgpt.emulator.http_api.openai.errors import bad_request

__all__ = ["ChatMessages", "response_format", "tool_choice", "tools"]

_ROLES = ("system", "developer", "user", "assistant", "tool")
_ITEM = re.compile(r"input\[(\d+)\]")
_TOOL = re.compile(r"tools\[\d+\](?=\.)")
_FORMATS = ("text", "json_object", "json_schema")


class ChatMessages:
    """The messages of a request.

    Attributes:
        items: the messages as items.

    Raises:
        ApiError: a message cannot be converted.
    """

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.items: list[Mapping[str, Any]] = []
        self._places: list[str] = []
        self._calls: set[str] = set()
        for index, message in enumerate(messages):
            self._add(message, f"messages[{index}]")

    def rename(self, place: str) -> str:
        """The place in the request that corresponds to a place in the items."""
        if place == "input":
            return "messages"
        place = _ITEM.sub(lambda match: self._places[int(match[1])], place)
        place = place.replace("text.format", "response_format.json_schema").replace("reasoning.", "reasoning_")
        return _TOOL.sub(lambda match: f"{match[0]}.function", place)

    def _add(self, message: dict[str, Any], where: str) -> None:
        role = message.get("role")
        if role not in _ROLES:
            raise bad_request(
                f"{where}.role must be one of {', '.join(_ROLES)}, not {abbreviated(role)}", f"{where}.role"
            )
        if role == "tool":
            _only(message, where, "role", "content", "tool_call_id")
            output = _content(message.get("content"), f"{where}.content")
            call_id = _string(message, "tool_call_id", where)
            if call_id not in self._calls:
                raise bad_request(
                    f"{where}.tool_call_id must be that of a call in a message before it, not {abbreviated(call_id)}",
                    f"{where}.tool_call_id",
                )
            self._item({"type": "function_call_output", "call_id": call_id, "output": output}, where)
        elif role == "assistant":
            self._add_answer(message, where)
        else:
            _only(message, where, "role", "content")
            self._item({"role": role, "content": _content(message.get("content"), f"{where}.content")}, where)

    def _add_answer(self, message: dict[str, Any], where: str) -> None:
        # `parsed` is what openai's client makes of the content, and sends back with it.
        _only(message, where, "role", "content", "refusal", "tool_calls", "parsed")
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise bad_request(f"{where}.tool_calls must be an array, not {abbreviated(calls)}", f"{where}.tool_calls")
        contents = [each for each in (message.get("content"), message.get("refusal")) if each]
        for each in contents if calls or contents else [message.get("content")]:
            self._item({"role": "assistant", "content": _content(each, f"{where}.content")}, where)
        for index, call in enumerate(calls):
            self._add_call(call, f"{where}.tool_calls[{index}]")

    def _add_call(self, call: Any, where: str) -> None:
        if not isinstance(call, dict) or call.get("type", "function") != "function":
            raise bad_request(
                f'{where} must be {{"id", "type": "function", "function"}}, not {abbreviated(call)}', where
            )
        _only(call, where, "id", "type", "function", "index")
        function = call.get("function")
        if not isinstance(function, dict):
            raise bad_request(f"{where}.function must be an object, not {abbreviated(function)}", f"{where}.function")
        _only(function, f"{where}.function", "name", "arguments", "parsed_arguments")
        item = {
            "type": "function_call",
            "call_id": _string(call, "id", where),
            "name": _string(function, "name", f"{where}.function"),
            "arguments": _string(function, "arguments", f"{where}.function"),
        }
        self._calls.add(item["call_id"])
        self._item(item, f"{where}.function")

    def _item(self, item: Mapping[str, Any], where: str) -> None:
        self.items.append(item)
        self._places.append(where)


def tools(given: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """The tools in the form of the Responses API: name and parameters are beside the type.

    Raises:
        ApiError: a tool is not a function.
    """
    return None if given is None else [_tool(tool, f"tools[{index}]") for index, tool in enumerate(given)]


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
        raise bad_request(f'{where} must be {{"type": "function", "function": ...}}, not {abbreviated(tool)}', where)
    _only(tool, where, "type", "function")
    return {**tool["function"], "type": "function"}


def tool_choice(given: Any) -> str | dict[str, Any] | None:
    """The tool choice in the form of the Responses API.

    Raises:
        ApiError: it is neither a mode nor a function.
    """
    if given is None or given in ("none", "auto", "required"):
        return given  # type: ignore[no-any-return]
    name = given.get("function", {}) if isinstance(given, dict) and given.get("type") == "function" else None
    if not isinstance(name, dict) or not isinstance(name.get("name"), str):
        raise bad_request(
            'tool_choice must be "none", "auto", "required" or {"type": "function", "function": {"name"}}, not '
            f"{abbreviated(given)}",
            "tool_choice",
        )
    return {"type": "function", "name": name["name"]}


def response_format(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """The response format as the field ``text`` of the Responses API.

    Raises:
        ApiError: it cannot be converted.
    """
    if given is None:
        return None
    if given.get("type") != "json_schema":
        if given.get("type") not in _FORMATS:
            raise bad_request(
                f"response_format.type must be one of {', '.join(_FORMATS)}, not {abbreviated(given.get('type'))}",
                "response_format.type",
            )
        _only(given, "response_format", "type")
        return {"format": given}
    _only(given, "response_format", "type", "json_schema")
    schema = given.get("json_schema")
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        raise bad_request(
            f"response_format.json_schema must be an object with a schema, not {abbreviated(schema)}",
            "response_format.json_schema",
        )
    _only(schema, "response_format.json_schema", "name", "schema", "strict")
    return {"format": {**schema, "type": "json_schema"}}


def _content(content: Any, where: str) -> Any:
    """The content of a message: a string, or a list of text parts in the form of the Responses API."""
    if not isinstance(content, list):
        if not isinstance(content, str):
            raise bad_request(
                f"{where} must be a string or an array of parts of text, not {abbreviated(content)}", where
            )
        return content
    return [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in ("text", "refusal"):
        raise bad_request(
            f'{where} must be {{"type": "text", "text"}}: gRPC carries text, not {abbreviated(part)}', where
        )
    _only(part, where, "type", kind)
    return {"type": "input_text", "text": _string(part, kind, where)}


def _string(value: Mapping[str, Any], key: str, where: str) -> str:
    given = value.get(key)
    if not isinstance(given, str):
        raise bad_request(f"{where}.{key} must be a string, not {abbreviated(given)}", f"{where}.{key}")
    return given


def _only(value: Mapping[str, Any], where: str, *known: str) -> None:
    """Reject keys that would be ignored. A value that is null, false or empty has no effect and is accepted."""
    for key, item in value.items():
        if key not in known and item:
            raise bad_request(
                f"{where}.{key} cannot be honoured over gRPC: what is known is {', '.join(known)}",
                f"{where}.{key}",
                "unsupported_parameter",
            )
