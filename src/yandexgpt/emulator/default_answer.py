"""The default answers, for requests without a scripted answer."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt._struct_json import to_python
from yandexgpt.emulator.answers import (
    DEFAULT_MODEL_VERSION,
    Answer,
    AnswerAlternative,
    AnswerUsage,
    count_words,
    first_words,
    tool_call_list,
    word_ends,
)
from yandexgpt.emulator.json_schema_example import example

__all__ = ["default_answer", "input_texts", "input_words", "last_text"]

_PARTIALS_SIZE = 8_000_000
"""Twice the maximum number of characters of all partials of an answer."""
_FINAL = text_common_pb2.Alternative.ALTERNATIVE_STATUS_FINAL
_TRUNCATED = text_common_pb2.Alternative.ALTERNATIVE_STATUS_TRUNCATED_FINAL
_TOOL_CALLS = text_common_pb2.Alternative.ALTERNATIVE_STATUS_TOOL_CALLS

_PromptKey = tuple[tuple[str, str], ...]
"""Roles and texts of the system and user messages. They identify a prompt."""


@dataclass(frozen=True)
class _GuideAnswer:
    """An answer printed in a guide of Yandex Cloud. Counts are None if the guide prints none."""

    model: str
    prompt_key: _PromptKey
    text: str
    partials: tuple[str, ...] | None
    input_tokens: int | None
    completion_tokens: int | None
    model_version: str


def default_answer(request: text_generation_service_pb2.CompletionRequest, delay: float) -> Answer:
    """The answer by the rule that :class:`Emulator` documents, with `delay` seconds before each message."""
    tool = _required_tool(request)
    results = _tool_results(request)
    if tool is not None and results is None:
        arguments = example(to_python(tool.parameters))
        calls = tool_call_list([(tool.name, arguments if isinstance(arguments, dict) else {})])
        return Answer((), (AnswerAlternative(None, _TOOL_CALLS, calls),), delay=delay)
    if request.WhichOneof("ResponseFormat") == "json_schema":
        return _text_answer(
            request, json.dumps(example(to_python(request.json_schema.schema)), ensure_ascii=False), delay
        )
    if request.json_object:
        return _text_answer(request, json.dumps({"answer": last_text(request)}, ensure_ascii=False), delay)
    if results is not None:
        return _text_answer(request, results, delay)
    guide_answer = _find_guide_answer(request)
    if guide_answer is not None:
        return _text_answer(request, guide_answer.text, delay, guide_answer)
    return _text_answer(request, last_text(request), delay)


def input_words(request: text_generation_service_pb2.CompletionRequest) -> int:
    """The number of words in all texts and tool results of a prompt."""
    return sum(map(count_words, input_texts(request)))


def input_texts(request: text_generation_service_pb2.CompletionRequest) -> Iterator[str]:
    """All texts and tool results of a prompt."""
    for message in request.messages:
        yield message.text
        for result in message.tool_result_list.tool_results:
            yield result.function_result.content


def _text_answer(
    request: text_generation_service_pb2.CompletionRequest,
    text: str,
    delay: float,
    guide_answer: _GuideAnswer | None = None,
) -> Answer:
    """An answer with this text, streamed word by word and truncated to ``max_tokens``."""
    words = count_words(text)
    tokens = words
    partials = _growing_partials(text)
    model_version = DEFAULT_MODEL_VERSION
    input_tokens = None
    if guide_answer is not None:
        tokens = words if guide_answer.completion_tokens is None else guide_answer.completion_tokens
        partials = partials if guide_answer.partials is None else list(guide_answer.partials)
        model_version = guide_answer.model_version
        input_tokens = guide_answer.input_tokens
    status = _FINAL
    options = request.completion_options
    if options.HasField("max_tokens") and options.max_tokens.value < tokens:
        kept = max(1, words * options.max_tokens.value // tokens)
        text = first_words(text, kept)
        partials = [partial for partial in partials if len(partial) <= len(text)]
        tokens = options.max_tokens.value
        status = _TRUNCATED
    return Answer(
        partials=tuple((partial,) for partial in partials),
        alternatives=(AnswerAlternative(text, status),),
        usage=AnswerUsage(input_tokens, tokens),
        model_version=model_version,
        delay=delay,
    )


def _growing_partials(text: str) -> list[str]:
    """The text after each word. For a long text, only after every second (third, ...) word, to limit the memory."""
    ends = word_ends(text)
    step = 1 + len(ends) * len(text) // _PARTIALS_SIZE
    return [text[:end] for end in ends[step - 1 :: step]]


def _required_tool(request: text_generation_service_pb2.CompletionRequest) -> text_common_pb2.FunctionTool | None:
    """The tool that the request requires: the named tool, or the first one for ``REQUIRED``."""
    choice = request.tool_choice
    if choice.WhichOneof("ToolChoice") == "function_name":
        return next(tool.function for tool in request.tools if tool.function.name == choice.function_name)
    return request.tools[0].function if choice.mode == text_common_pb2.ToolChoice.REQUIRED else None


def _tool_results(request: text_generation_service_pb2.CompletionRequest) -> str | None:
    """The contents of the tool results at the end of the prompt, one per line; None if the prompt ends with something
    else.
    """
    last = request.messages[-1]
    if last.WhichOneof("Content") != "tool_result_list":
        return None
    return "\n".join(result.function_result.content for result in last.tool_result_list.tool_results)


def last_text(request: text_generation_service_pb2.CompletionRequest) -> str:
    """The text of the last user message with text. If there is none, the text of the last message."""
    texts = [message.text for message in request.messages if message.role == "user" and message.text]
    return texts[-1] if texts else request.messages[-1].text


def _find_guide_answer(request: text_generation_service_pb2.CompletionRequest) -> _GuideAnswer | None:
    """The guides' answer to these system and user messages. If there are several, the one for the requested model."""
    prompt_key = _prompt_key([(message.role, message.text) for message in request.messages])
    candidates = [answer for answer in _guide_answers() if answer.prompt_key == prompt_key]
    model = request.model_uri.split("/")[3:4]
    return next((answer for answer in candidates if [answer.model] == model), candidates[0] if candidates else None)


def _prompt_key(messages: Sequence[tuple[str, str]]) -> _PromptKey:
    return tuple((role, text.strip()) for role, text in messages if role != "assistant")


@functools.cache
def _guide_answers() -> tuple[_GuideAnswer, ...]:
    data = resources.files("yandexgpt.emulator").joinpath("guide_answers.json").read_text(encoding="utf-8")
    return tuple(_guide_answer(each) for each in json.loads(data)["answers"])


def _guide_answer(data: dict[str, Any]) -> _GuideAnswer:
    return _GuideAnswer(
        model=data["model"],
        prompt_key=_prompt_key([(message["role"], message["text"]) for message in data["messages"]]),
        text=data["text"],
        partials=tuple(data["partials"]) if "partials" in data else None,
        input_tokens=data.get("input_tokens"),
        completion_tokens=data.get("completion_tokens"),
        model_version=data.get("model_version", DEFAULT_MODEL_VERSION),
    )
