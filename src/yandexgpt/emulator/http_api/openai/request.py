"""Items of the Responses API and options as a ``CompletionRequest``: what both of OpenAI's paths are told in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from google.protobuf.message import DecodeError, EncodeError

from yandexgpt.emulator.http_api.openai.errors import bad_request
from yandexgpt.request import CompletionRequest, build_request
from yandexgpt.responses_request import prompt_and_options

__all__ = ["completion_request", "named"]

_PLACE = re.compile(r"(?:[a-z_]+(?:\['[^']*'\]|\[\d+\]|\.\w+)*)?")
_ANY_MODEL = "gpt://folder/model"
"""Passes the package's own check."""
_KEY = re.compile(r"\['([^']*)'\]")


@contextmanager
def named(rename: Callable[[str], str]) -> Iterator[None]:
    """Tell a ValueError of the package's own checks, which begins with the place, in the words of the request.

    Args:
        rename: the place as the request has it, for one such as ``input[0].content``.

    Raises:
        Problem: there was a ValueError, or something is nested deeper than protobuf allows.
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
    """The request. The ranges of numbers and the form of the model's URI are the service's to check.

    Raises:
        ValueError: something has no form that gRPC could carry; see :func:`named`.
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
    request = build_request(
        prompt,
        folder_id=None,
        default_model=_ANY_MODEL,
        stream=stream,
        parallel_tool_calls=parallel_tool_calls,
        **options,
    )
    request.model_uri = model_uri
    if temperature is not None:
        request.completion_options.temperature.value = temperature
    if max_tokens is not None:
        request.completion_options.max_tokens.value = max_tokens
    CompletionRequest.FromString(request.SerializeToString())  # the server could not read what is nested too deeply
    return request
