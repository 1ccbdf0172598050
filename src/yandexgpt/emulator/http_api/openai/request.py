"""Builds a ``CompletionRequest`` from items of the Responses API and options. Chat Completions uses it too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from google.protobuf.message import DecodeError, EncodeError

from yandexgpt._messages import set_function, set_tool_choice
from yandexgpt._openai.request import prompt_and_options
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionRequest,
)
from yandexgpt.emulator.http_api.openai.errors import bad_request

__all__ = ["completion_request", "translated_errors"]

_PLACE = re.compile(r"(?:[a-z_]+(?:\['[^']*'\]|\[\d+\]|\.\w+)*)?")
_REASONING_MODES = {
    "disabled": text_common_pb2.ReasoningOptions.DISABLED,
    "hidden": text_common_pb2.ReasoningOptions.ENABLED_HIDDEN,
}
_KEY = re.compile(r"\['([^']*)'\]")


@contextmanager
def translated_errors(rename: Callable[[str], str]) -> Iterator[None]:
    """Convert a ValueError about a place in the items to an error about the parameter of the HTTP request.

    Args:
        rename: converts a place such as ``input[0].content`` to the parameter.

    Raises:
        ApiError: a ValueError was raised, or a value is nested too deeply for protobuf.
    """
    try:
        yield
    except ValueError as error:
        message = str(error)
        place = _PLACE.match(message)[0]  # type: ignore[index]  # it always matches
        param = rename(_KEY.sub(r".\1", place))
        raise bad_request(f"{param}{message[len(place) :]}", param or None) from error
    except (RecursionError, DecodeError, EncodeError) as error:
        raise bad_request("a JSON value in the request is nested too deeply") from error


def completion_request(
    items: Iterable[Mapping[str, Any]],
    *,
    model_uri: str,
    stream: bool,
    instructions: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    reasoning: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    tools: Iterable[Mapping[str, Any]] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    parallel_tool_calls: bool | None = None,
) -> CompletionRequest:
    """Build the request. The server validates the ranges of numbers and the form of the model URI.

    Raises:
        ValueError: a value cannot be represented in gRPC; see :func:`translated_errors`.
    """
    prompt, options = prompt_and_options(
        input=items,
        instructions=instructions,
        max_output_tokens=None,
        reasoning=reasoning,
        text=text,
        tools=tools,
        tool_choice=tool_choice,
        background=None,
        store=None,
        stream=None,
        truncation=None,
        refused={},
    )
    request = CompletionRequest(model_uri=model_uri, messages=prompt.messages)
    request.completion_options.stream = stream
    if temperature is not None:
        request.completion_options.temperature.value = temperature
    if max_tokens is not None:
        request.completion_options.max_tokens.value = max_tokens
    if options["reasoning"] is not None:
        request.completion_options.reasoning_options.mode = _REASONING_MODES[options["reasoning"]]
    for index, tool in enumerate(options["tools"] or ()):
        set_function(request.tools.add().function, tool, f"tools[{index}]")
    if options["tool_choice"] is not None:
        set_tool_choice(request.tool_choice, options["tool_choice"], (tool.function.name for tool in request.tools))
    if parallel_tool_calls is not None:
        request.parallel_tool_calls.value = parallel_tool_calls
    if options["response_format"] == "json":
        request.json_object = True
    elif options["response_format"] is not None:
        request.json_schema.schema.SetInParent()
        request.json_schema.schema.update(options["response_format"])
    # Serialize and parse the request here: the server could not parse a value that is nested too deeply.
    CompletionRequest.FromString(request.SerializeToString())
    return request
