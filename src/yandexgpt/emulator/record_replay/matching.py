"""Finds the recorded call for a request, or the nearest one for an error message."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import grpc
from google.protobuf.message import Message

from yandexgpt.emulator.error_status import ErrorStatus
from yandexgpt.emulator.record_replay.message_encoding import canonical_bytes
from yandexgpt.emulator.record_replay.methods import Method
from yandexgpt.emulator.record_replay.recording_file import RecordedCall
from yandexgpt.emulator.record_replay.redaction import without_secrets, without_texts

__all__ = ["MatchMode", "RecordedCalls", "differences", "nearest"]

MatchMode = Literal["request", "order"]

_Group = tuple[str, bytes, bool]
"""A method, a request, and whether its texts were recorded. Calls of the same group are replayed in turn."""
_Fields = Mapping[str, str]
_FOLDER = re.compile(r"\Agpt://[^/]+/")
_SHOWN = 40
"""Maximum length of a value in an error message. Metadata is limited to 8 KiB; a Cyrillic letter takes six bytes."""
_DIFFERENCES_SHOWN = 3
_LONG = 20
"""Values of this length or more have the full weight: texts identify a request better than options."""
_ANY_DIFFERENCE = 0.1
"""The minimum weight of a difference."""


class RecordedCalls:
    """The calls of a recording, in the order of replay. Thread-safe.

    Args:
        path: the file, for error messages.
        entries: the calls.
        match: ``"request"``: a request gets the responses recorded for an equal request, in their order, and then the
            last of them again. ``"order"``: a request gets the next responses recorded for its method, each once.
    """

    def __init__(self, path: Path, entries: Iterable[RecordedCall], match: MatchMode) -> None:
        self._name = path.name
        self._entries = list(entries)
        self._match = match
        self._groups: dict[_Group, list[RecordedCall]] = {}
        for entry in self._entries:
            self._groups.setdefault(self._group(entry.method, entry.request, entry.texts), []).append(entry)
        self._used: Counter[_Group] = Counter()
        self._lock = threading.Lock()

    def _group(self, method: Method, request: Message, texts: bool) -> _Group:
        return (
            (method.name, canonical_bytes(_normalized(request)), texts)
            if self._match == "request"
            else (method.name, b"", True)
        )

    def take(self, method: Method, request: Message) -> RecordedCall | ErrorStatus:
        """The recorded call for a request, or an error status if there is none."""
        request = without_secrets(request)
        group = self._group(method, request, True)
        if group not in self._groups:
            group = self._group(method, without_texts(request), False)
        with self._lock:
            entries = self._groups.get(group, [])
            used = self._used[group]
            if entries and (used < len(entries) or self._match == "request"):
                self._used[group] += 1
                return entries[min(used, len(entries) - 1)]
        return ErrorStatus(grpc.StatusCode.FAILED_PRECONDITION, self._not_found(method, request, used))

    def _not_found(self, method: Method, request: Message, used: int) -> str:
        if used:
            return f"all {used} calls of {method.name} in {self._name} have been replayed"
        candidates = [entry for entry in self._entries if entry.method == method]
        if not candidates:
            counts = Counter(entry.method.name for entry in self._entries)
            there = ", ".join(f"{name} ({number})" for name, number in counts.items())
            return f"{self._name} holds no call of {method.name}; it holds {there}"
        entry, found = nearest(candidates, request)
        shown = "; ".join(found[:_DIFFERENCES_SHOWN])
        more = len(found) - _DIFFERENCES_SHOWN
        return (
            f"{self._name} holds no call of {method.name} with this request; the nearest, of line "
            f"{entry.where.rpartition(':')[2]}, differs in "
            f"{shown or 'fields that this interface does not know'}{f'; and {more} more' if more > 0 else ''}"
        )


def nearest(entries: Sequence[RecordedCall], request: Message) -> tuple[RecordedCall, list[str]]:
    """The recorded call with the most similar request (the first of equals), and the differences.

    Args:
        entries: one or more calls.
        request: the received request, without secrets.
    """
    leaves = {True: _flatten(request), False: _flatten(without_texts(request))}
    compared = [(entry, _flatten(entry.request), leaves[entry.texts]) for entry in entries]
    entry, recorded, got = min(compared, key=lambda each: _distance(each[1], each[2]))
    return entry, differences(recorded, got)


def differences(recorded: _Fields, got: _Fields) -> list[str]:
    """The differing fields of two messages; those with the greatest weight first."""
    paths = [path for path in dict.fromkeys((*recorded, *got)) if recorded.get(path) != got.get(path)]
    paths.sort(key=lambda path: _weight(recorded.get(path), got.get(path)), reverse=True)
    found = []
    for path in paths:
        was, now = recorded.get(path), got.get(path)
        begin = 0 if was is None or now is None else max(0, _common_prefix(was, now) - _SHOWN // 2)
        found.append(f"{path}: recorded {_excerpt(was, begin)}, got {_excerpt(now, begin)}")
    return found


def _distance(recorded: _Fields, got: _Fields) -> float:
    """The distance between two messages."""
    return sum(_weight(recorded.get(path), got.get(path)) for path in recorded.keys() | got.keys())


def _weight(was: str | None, now: str | None) -> float:
    """The weight of a difference: greater for longer values with more differences; 0 for equal values."""
    if was == now:
        return 0.0
    one, other = was or "", now or ""
    length = max(len(one), len(other))
    alike = _common_prefix(one, other) + _common_prefix(one[::-1], other[::-1])
    return (1 - min(1.0, alike / length)) * min(1.0, length / _LONG) + _ANY_DIFFERENCE


def _common_prefix(one: str, other: str) -> int:
    """The length of the common prefix of two texts."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _excerpt(value: str | None, begin: int) -> str:
    if value is None:
        return "nothing"
    end = begin + _SHOWN
    return f"{'...' if begin else ''}{value[begin:end]}{'...' if len(value) > end else ''}"


def _normalized(request: Message) -> Message:
    """The request without irrelevant parts: the folder, and empty options."""
    copy: Any = type(request)()
    copy.CopyFrom(request)
    if "model_uri" in copy.DESCRIPTOR.fields_by_name:
        copy.model_uri = _FOLDER.sub("gpt://<folder>/", copy.model_uri)
    if "completion_options" in copy.DESCRIPTOR.fields_by_name and not copy.completion_options.ByteSize():
        copy.ClearField("completion_options")
    result: Message = copy
    return result


def _flatten(message: Message) -> dict[str, str]:
    return dict(_walk("", _normalized(message)))


def _walk(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """The fields of a message with their paths as in a recording, and their values as short texts."""
    if not isinstance(value, Message):
        yield path, repr(value)
        return
    message: Any = value
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Value":
        kind = message.WhichOneof("kind")
        yield from _walk(path, getattr(message, kind) if kind else None)
    elif name == "google.protobuf.Struct":
        yield from _walk_fields(path, ((key, message.fields[key]) for key in sorted(message.fields)))
    elif name == "google.protobuf.ListValue":
        yield from _walk_items(path, message.values)
    elif name.startswith("google.protobuf."):  # a wrapper of a number or a boolean
        yield path, repr(message.value)
    else:
        yield from _walk_fields(path, ((field.json_name, found) for field, found in message.ListFields()))


def _walk_fields(path: str, fields: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    empty = True
    for name, value in fields:
        empty = False
        where = f"{path}.{name}" if path else name
        if isinstance(value, Message | str | bytes | int | float):
            yield from _walk(where, value)
        else:
            yield from _walk_items(where, value)
    if empty and path:
        yield path, "{}"


def _walk_items(path: str, items: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for index, each in enumerate(items):
        yield from _walk(f"{path}[{index}]", each)
