"""Script rules: the conditions for a request, and the answer or failure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt.emulator.answers import DEFAULT_MODEL_VERSION, Answer, word_ends
from yandexgpt.emulator.arguments import check_count, make_answer, make_failure
from yandexgpt.emulator.default_answer import last_text
from yandexgpt.emulator.script import Failure, Rule
from yandexgpt.emulator.validation import ROLES

__all__ = ["ANSWER_KEYS", "FAIL_KEYS", "MATCH_KEYS", "RULE_KEYS", "make_rule"]

RULE_KEYS = ("match", "answer", "fail", "times")
MATCH_KEYS = ("model", "role", "text", "pattern", "any")
ANSWER_KEYS = (
    "text",
    "partials",
    "delay",
    "status",
    "tool_calls",
    "alternatives",
    "usage",
    "model_version",
    "final",
)
FAIL_KEYS = ("code", "message", "times", "after", "retry_after", "pushback", "delay", "operation")

_TOOL = "tool"
"""The role of tool results in a rule. In the protocol, a message of another role contains them."""
_MATCH_ROLES = (*ROLES, _TOOL)


@dataclass(frozen=True)
class _RequestMatcher:
    """The condition of a rule. None means that the property is not checked.

    Attributes:
        model: the model URI, the URI without the folder, or the model name.
        role: the role of the messages to check.
        text: a part of the text.
        pattern: a regular expression to search in the text.
        any_message: True: check all messages; False: check only the last one.
    """

    model: str | None = None
    role: str | None = None
    text: str | None = None
    pattern: re.Pattern[str] | None = None
    any_message: bool = False

    def __call__(self, request: text_generation_service_pb2.CompletionRequest) -> bool:
        if self.model is not None and self.model not in _model_names(request.model_uri):
            return False
        return any(
            (self.text is None or self.text in text) and (self.pattern is None or self.pattern.search(text) is not None)
            for text in self._texts(request)
        )

    def _texts(self, request: text_generation_service_pb2.CompletionRequest) -> list[str]:
        messages = request.messages
        if self.role == _TOOL:
            contents = [_results(message) for message in (messages if self.any_message else messages[-1:])]
            return [content for content in contents if content is not None]
        if self.role is None:
            return [message.text for message in messages] if self.any_message else [last_text(request)]
        texts = [message.text for message in messages if message.role == self.role and _results(message) is None]
        return texts if self.any_message else texts[-1:]


def make_rule(
    *,
    match: Mapping[str, Any] | None,
    answer: str | Mapping[str, Any] | None,
    fail: str | Mapping[str, Any] | None,
    times: int | None,
    delay: float,
) -> Rule:
    """Convert the arguments of :meth:`Emulator.rule`.

    Args:
        match, answer, fail, times: see there.
        delay: the default for the seconds before each message.

    Raises:
        ValueError: an argument is invalid; the message begins with its name.
    """
    if answer is None and fail is None:
        raise ValueError("answer, fail or both of them must say what the rule does")
    failure_times: float = math.inf
    scripted_failure: Failure | None = None
    if fail is not None:
        scripted_failure, failure_times = _failure({"code": fail} if isinstance(fail, str) else fail)
    return Rule(
        matches=_match({} if match is None else match),
        answer=None if answer is None else _answer({"text": answer} if isinstance(answer, str) else answer, delay),
        failure=scripted_failure,
        remaining=math.inf if times is None else check_count("times", times),
        failures_remaining=failure_times,
    )


def _match(given: Mapping[str, Any]) -> _RequestMatcher:
    _check_keys("match", given, MATCH_KEYS)
    for name in ("model", "role", "text", "pattern"):
        if not isinstance(given.get(name, ""), str):
            raise ValueError(f"match: {name} must be a string, not {given[name]!r}")
    role = given.get("role")
    if role is not None and role not in _MATCH_ROLES:
        raise ValueError(f"match: role must be one of {', '.join(_MATCH_ROLES)}, not {role!r}")
    any_message = _flag("match: any", given.get("any", False))
    pattern = given.get("pattern")
    try:
        compiled = None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise ValueError(f"match: pattern {pattern!r} is not a regular expression: {error}") from error
    return _RequestMatcher(given.get("model"), role, given.get("text"), compiled, any_message)


def _answer(given: Mapping[str, Any], delay: float) -> Answer:
    _check_keys("answer", given, ANSWER_KEYS)
    try:
        answer = make_answer(
            given.get("text", None if "alternatives" in given or "tool_calls" in given else ""),
            partials=given.get("partials"),
            delay=given.get("delay", delay),
            status=given.get("status"),
            tool_calls=given.get("tool_calls"),
            alternatives=given.get("alternatives"),
            usage=given.get("usage"),
            model_version=given.get("model_version", DEFAULT_MODEL_VERSION),
            final=_flag("final", given.get("final", True)),
        )
    except ValueError as error:
        raise ValueError(f"answer: {str(error).removeprefix('reply: ')}") from error
    if "partials" in given or len(answer.alternatives) != 1:
        return answer
    text = answer.alternatives[0].text or ""
    return replace(answer, partials=tuple((text[:end],) for end in word_ends(text)))


def _failure(given: Mapping[str, Any]) -> tuple[Failure, float]:
    _check_keys("fail", given, FAIL_KEYS)
    if "code" not in given:
        raise ValueError("fail: code is missing")
    try:
        made = make_failure(
            given["code"],
            given.get("message"),
            after=given.get("after", 0),
            details=(),
            retry_after=given.get("retry_after"),
            pushback=given.get("pushback"),
            delay=given.get("delay", 0.0),
            operation=_flag("operation", given.get("operation", False)),
        )
        return made, check_count("times", given["times"]) if "times" in given else math.inf
    except ValueError as error:
        raise ValueError(f"fail: {error}") from error


def _flag(name: str, given: bool) -> bool:
    if not isinstance(given, bool):
        raise ValueError(f"{name} must be true or false, not {given!r}")
    return given


def _check_keys(name: str, given: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping):
        or_text = "" if name == "match" else "a text or "
        raise ValueError(f"{name} must be {or_text}a mapping of {', '.join(allowed)}, not {given!r}")
    for key in given:
        if key not in allowed:
            raise ValueError(f"{name}: unknown key {key!r}; allowed: {', '.join(allowed)}")


def _model_names(uri: str) -> set[str]:
    """The names that a rule may use for the model: the URI, the URI without the folder, the name."""
    before, _, after = uri.partition("://")[2].partition("/")
    model = after or before
    return {uri, model, re.split("[/@]", model)[0]}


def _results(message: text_common_pb2.Message) -> str | None:
    """The contents of the tool results in a message, one per line; None if it contains something else."""
    if message.WhichOneof("Content") != "tool_result_list":
        return None
    return "\n".join(result.function_result.content for result in message.tool_result_list.tool_results)
