"""Validation and conversion of arguments of :class:`Emulator`, of its methods and of script files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._struct_json import to_struct_value
from yandexgpt.emulator.answers import Answer, AnswerAlternative, AnswerUsage, tool_call_list
from yandexgpt.emulator.error_status import ErrorStatus, retry_info
from yandexgpt.emulator.script import Failure

__all__ = ["check_count", "check_seconds", "make_answer", "make_failure"]

_T = TypeVar("_T")
_STATUS_PREFIX = "ALTERNATIVE_STATUS_"
_USAGE_NAMES = ("input_tokens", "completion_tokens", "total_tokens", "reasoning_tokens")
_ALTERNATIVE_KEYS = ("text", "status", "tool_calls", "role")
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_LARGEST_INT32 = 2**31 - 1
_LARGEST_INT64 = 2**63 - 1


def make_answer(
    text: str | None,
    *,
    partials: Iterable[str | Sequence[str]] | None,
    delay: float,
    status: str | int | None,
    tool_calls: Iterable[Mapping[str, Any]] | None,
    alternatives: Iterable[str | Mapping[str, Any]] | None,
    usage: Mapping[str, int] | None,
    model_version: str,
    final: bool,
) -> Answer:
    """Convert the arguments of :meth:`Emulator.reply`.

    Raises:
        ValueError: an argument is invalid; the message names it.
    """
    if alternatives is None:
        made: tuple[AnswerAlternative, ...] = (_alternative("reply", text, status, tool_calls, "assistant"),)
    elif text or status is not None or tool_calls is not None:
        raise ValueError("alternatives stand in place of text, status and tool_calls: give one or the other")
    else:
        items = _items("alternatives", alternatives, "texts or mappings")
        made = tuple(_from_mapping(f"alternatives[{index}]", each) for index, each in enumerate(items))
    return Answer(
        partials=tuple(
            _partial(f"partials[{index}]", each)
            for index, each in enumerate(_items("partials", partials or (), "texts"))
        ),
        alternatives=made,
        final=bool(final),
        usage=_usage(usage),
        model_version=_text("model_version", model_version),
        delay=check_seconds("delay", delay),
    )


def make_failure(
    code: str | grpc.StatusCode,
    message: str | None,
    *,
    after: int,
    details: Iterable[Message],
    retry_after: float | None,
    pushback: int | None,
    delay: float,
    operation: bool = False,
) -> Failure:
    """Convert the arguments of :meth:`Emulator.fail`.

    Raises:
        ValueError: an argument is invalid; the message names it.
    """
    status = code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.__members__.get(str(code))
    if status is None or status is grpc.StatusCode.OK:
        names = ", ".join(name for name in grpc.StatusCode.__members__ if name != "OK")
        raise ValueError(f"code must be a grpc.StatusCode or one of {names}, not {code!r}")
    packed = list(details)
    for index, detail in enumerate(packed):
        if not isinstance(detail, Message):
            raise ValueError(f"details[{index}] must be a google.rpc.error_details_pb2 message, not {detail!r}")
    if retry_after is not None:
        packed.append(retry_info(check_seconds("retry_after", retry_after)))
    if pushback is not None and (isinstance(pushback, bool) or not isinstance(pushback, int)):
        raise ValueError(f"pushback must be a whole number of milliseconds, not {pushback!r}")
    if operation and (after or pushback is not None):
        raise ValueError("after and pushback are for calls that fail, not for an operation")
    status_message = f"scripted {status.name}" if message is None else _text("message", message)
    metadata = () if pushback is None else ((_PUSHBACK_KEY, str(pushback)),)
    return Failure(
        status=ErrorStatus(status, status_message, tuple(packed), metadata),
        after=check_count("after", after, least=0),
        delay=check_seconds("delay", delay),
        operation=bool(operation),
    )


def check_seconds(name: str, value: float) -> float:
    """Return `value` if it is a finite number of seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number of seconds, 0 or more, not {value!r}")
    return float(value)


def check_count(name: str, value: int, *, least: int = 1) -> int:
    """Return `value` if it is an integer, `least` or more."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST_INT64:
        raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")
    return value


def _items(name: str, given: Iterable[_T], of: str) -> Iterable[_T]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"{name} must be a list of {of}, not {given!r}")
    return given


def _from_mapping(where: str, given: str | Mapping[str, Any]) -> AnswerAlternative:
    if isinstance(given, str):
        return _alternative(where, given, None, None, "assistant")
    if not isinstance(given, Mapping) or set(given) - set(_ALTERNATIVE_KEYS):
        raise ValueError(f"{where} must be a text or a mapping of {', '.join(_ALTERNATIVE_KEYS)}, not {given!r}")
    role = _text(f"{where}: role", given.get("role", "assistant"))
    return _alternative(where, given.get("text"), given.get("status"), given.get("tool_calls"), role)


def _alternative(
    where: str,
    text: str | None,
    status: str | int | None,
    tool_calls: Iterable[Mapping[str, Any]] | None,
    role: str,
) -> AnswerAlternative:
    checked_text = None if text is None else _text(f"{where}: text", text)
    if tool_calls is None:
        return AnswerAlternative(checked_text, _status(where, "FINAL" if status is None else status), None, role)
    if text:
        raise ValueError(f"{where}: an answer holds either text or tool_calls")
    items = _items(f"{where}: tool_calls", tool_calls, "mappings")
    calls = tool_call_list(_tool_call(f"{where}: tool_calls[{i}]", each) for i, each in enumerate(items))
    return AnswerAlternative(None, _status(where, "TOOL_CALLS" if status is None else status), calls, role)


def _tool_call(where: str, given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(given, Mapping) or set(given) - {"name", "arguments"} or not given.get("name"):
        raise ValueError(f"{where} must be a mapping of name and arguments, not {given!r}")
    arguments = given.get("arguments", {})
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{where}.arguments must be a mapping, not {arguments!r}")
    return _text(f"{where}.name", given["name"]), to_struct_value(arguments, f"{where}.arguments")


def _status(where: str, given: str | int) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        if not 0 <= given <= _LARGEST_INT32:
            raise ValueError(f"{where}: status must be from 0 to {_LARGEST_INT32}, not {given}")
        return int(given)
    numbers = text_common_pb2.Alternative.AlternativeStatus
    names = {name.removeprefix(_STATUS_PREFIX): number for name, number in numbers.items()}
    names["TRUNCATED"] = names["TRUNCATED_FINAL"]
    number = names.get(str(given).removeprefix(_STATUS_PREFIX))
    if number is None:
        raise ValueError(f"{where}: status must be a number or one of {', '.join(sorted(names))}, not {given!r}")
    return int(number)


def _partial(where: str, given: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        return (_text(where, given),)
    if not isinstance(given, Sequence) or isinstance(given, bytes):
        raise ValueError(f"{where} must be a text, or a list with one text per alternative, not {given!r}")
    return tuple(_text(f"{where}[{index}]", each) for index, each in enumerate(given))


def _usage(given: Mapping[str, int] | None) -> AnswerUsage:
    if given is None:
        return AnswerUsage()
    if not isinstance(given, Mapping) or set(given) - set(_USAGE_NAMES):
        raise ValueError(f"usage must be a mapping of {', '.join(_USAGE_NAMES)}, not {given!r}")
    return AnswerUsage(**{name: check_count(f"usage: {name}", value, least=0) for name, value in given.items()})


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds half of a surrogate pair, which UTF-8 cannot carry: {value!r}") from error
    return value
