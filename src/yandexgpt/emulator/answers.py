"""An answer (scripted or default), and its encoding as protobuf messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct

__all__ = [
    "DEFAULT_MODEL_VERSION",
    "Answer",
    "AnswerAlternative",
    "AnswerMessages",
    "AnswerUsage",
    "count_words",
    "encode_answer",
    "fill_struct",
    "first_words",
    "tool_call_list",
    "word_ends",
]

DEFAULT_MODEL_VERSION = "emulator"

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class AnswerAlternative:
    """An alternative of the final message.

    Attributes:
        text: the text; None for a message without text.
        status: the number of the alternative's status.
        tool_calls: a serialized ``ToolCallList``, instead of text.
        role: the role of the message.
    """

    text: str | None
    status: int
    tool_calls: bytes | None = None
    role: str = "assistant"


@dataclass(frozen=True)
class AnswerUsage:
    """The token counts of the final message; None: counted by the rule of :class:`Emulator`."""

    input_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    reasoning_tokens: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer of the model.

    Attributes:
        partials: for each partial message, the whole text so far, one per alternative.
        alternatives: the alternatives of the final message.
        final: whether the final message is sent.
        usage: the token counts of the final message.
        model_version: on every message.
        delay: seconds before each message.
    """

    partials: tuple[tuple[str, ...], ...]
    alternatives: tuple[AnswerAlternative, ...]
    final: bool = True
    usage: AnswerUsage = AnswerUsage()
    model_version: str = DEFAULT_MODEL_VERSION
    delay: float = 0.0


@dataclass(frozen=True)
class AnswerMessages:
    """Serialized ``CompletionResponse`` messages: the partials, and the final message if it is sent."""

    partials: tuple[bytes, ...]
    final: bytes | None


def count_words(text: str) -> int:
    """The number of words: runs of characters without white space."""
    return sum(1 for _ in _WORD.finditer(text))


def word_ends(text: str) -> list[int]:
    """The end position of each word."""
    return [word.end() for word in _WORD.finditer(text)]


def first_words(text: str, count: int) -> str:
    """The text up to the end of the word number `count`."""
    return text[: word_ends(text)[count - 1]]


def tool_call_list(calls: Iterable[tuple[str, Mapping[str, Any]]]) -> bytes:
    """A serialized ``ToolCallList``, made from names and arguments."""
    message = text_common_pb2.ToolCallList()
    for name, arguments in calls:
        call = message.tool_calls.add().function_call
        call.name = name
        fill_struct(call.arguments, arguments)
    return message.SerializeToString()


def fill_struct(struct: Struct, value: Mapping[str, Any]) -> None:
    """Copy a JSON object into a ``Struct``. The ``Struct`` is set even if the object is empty."""
    struct.SetInParent()
    json_format.ParseDict(dict(value), struct)


def encode_answer(answer: Answer, input_words: int) -> AnswerMessages:
    """The messages of an answer to a prompt with this number of words.

    The final message reports ``T`` completion tokens: the number in the answer's usage, or else the number ``W`` of
    words of its longest message. A partial of ``w`` words reports ``T * w // W`` tokens, but not fewer than the partial
    before it.
    """
    lengths = [sum(map(count_words, texts)) for texts in answer.partials]
    final_length = sum(count_words(alternative.text or "") for alternative in answer.alternatives)
    longest = max(final_length, *lengths) if lengths else final_length
    usage = answer.usage
    input_tokens = input_words if usage.input_tokens is None else usage.input_tokens
    tokens = longest if usage.completion_tokens is None else usage.completion_tokens
    partials = []
    spent = 0
    for texts, length in zip(answer.partials, lengths, strict=True):
        spent = max(spent, tokens * length // longest if longest else 0)
        partials.append(_partial(texts, input_tokens, spent, answer.model_version))
    final = _final(answer, input_tokens, tokens) if answer.final else None
    return AnswerMessages(tuple(partials), final)


def _partial(texts: Sequence[str], input_tokens: int, completion_tokens: int, model_version: str) -> bytes:
    response = text_generation_service_pb2.CompletionResponse(model_version=model_version)
    for text in texts:
        alternative = response.alternatives.add(status=text_common_pb2.Alternative.ALTERNATIVE_STATUS_PARTIAL)
        alternative.message.role = "assistant"
        alternative.message.text = text
    response.usage.input_text_tokens = input_tokens
    response.usage.completion_tokens = completion_tokens
    response.usage.total_tokens = input_tokens + completion_tokens
    return response.SerializeToString()


def _final(answer: Answer, input_tokens: int, completion_tokens: int) -> bytes:
    response = text_generation_service_pb2.CompletionResponse(model_version=answer.model_version)
    for scripted in answer.alternatives:
        # A scripted status may be a number that the enum does not define.
        alternative = response.alternatives.add()
        alternative.status = scripted.status  # type: ignore[assignment]
        alternative.message.role = scripted.role
        if scripted.tool_calls is not None:
            alternative.message.tool_call_list.ParseFromString(scripted.tool_calls)
        elif scripted.text is not None:
            alternative.message.text = scripted.text
    usage = answer.usage
    total = input_tokens + completion_tokens if usage.total_tokens is None else usage.total_tokens
    response.usage.input_text_tokens = input_tokens
    response.usage.completion_tokens = completion_tokens
    response.usage.total_tokens = total
    if usage.reasoning_tokens:
        response.usage.completion_tokens_details.reasoning_tokens = usage.reasoning_tokens
    return response.SerializeToString()
