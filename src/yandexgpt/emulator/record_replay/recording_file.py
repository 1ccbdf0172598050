"""The format of a recording: JSON Lines, one call per line. See ``docs/recordings.md``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2  # type: ignore[import-untyped]

from yandexgpt.emulator.arguments import check_seconds
from yandexgpt.emulator.error_status import STATUS_DETAILS_KEY, ErrorStatus
from yandexgpt.emulator.record_replay.message_encoding import encode_fields, from_base64, from_json, to_base64
from yandexgpt.emulator.record_replay.methods import Method, find_method, methods
from yandexgpt.emulator.record_replay.redaction import without_secrets

__all__ = [
    "PUSHBACK_KEY",
    "VERSION",
    "RecordedCall",
    "RecordedResponse",
    "RecordedStatus",
    "encode_call",
    "read_recording",
    "select_metadata",
]

VERSION = 1
PUSHBACK_KEY = "grpc-retry-pushback-ms"
METADATA = ("x-client-request-id", "x-request-id", "x-server-trace-id", PUSHBACK_KEY)
"""The recorded metadata: the client's id of the call, the service's ids, and the service's retry pushback."""
_KEYS = (
    "version",
    "began",
    "method",
    "request",
    "request_raw",
    "texts",
    "metadata",
    "responses",
    "status",
    "unfinished",
)
_RESPONSE_KEYS = {"after", "message", "raw"}
_STATUS_KEYS = ("after", "code", "message", "details", "raw")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


class RecordedResponse(NamedTuple):
    """A response message.

    Attributes:
        after: seconds since the previous message, or since the start of the call.
        content: the serialized message.
    """

    after: float
    content: bytes


@dataclass(frozen=True)
class RecordedStatus(ErrorStatus):
    """A status other than OK, with the recorded details.

    Attributes:
        after: seconds since the last message, or since the start of the call.
        packed: the value of ``grpc-status-details-bin``; None: not present.
    """

    after: float = 0.0
    packed: bytes | None = None

    def trailing_metadata(self, request_id: str) -> tuple[tuple[str, str | bytes], ...]:  # noqa: ARG002 - the recorded details contain it
        """The recorded trailing metadata."""
        return (*self.metadata, *([] if self.packed is None else [(STATUS_DETAILS_KEY, self.packed)]))


@dataclass(frozen=True)
class RecordedCall:
    """A recorded call.

    Attributes:
        method: the method.
        request: the request, without secrets.
        responses: the response messages.
        status: the error status; None: OK, or no status at all.
        unfinished: whether the client ended the call before the service, by cancellation or at its deadline.
        texts: whether the texts were recorded; False: they are masked.
        metadata: the values of :data:`METADATA`; None: not recorded, as in a line written by hand.
        began: the start as an ISO 8601 time in UTC; empty: not recorded.
        where: ``file:line``.
    """

    method: Method
    request: Message
    responses: Sequence[RecordedResponse] = ()
    status: RecordedStatus | None = None
    unfinished: bool = False
    texts: bool = True
    metadata: Mapping[str, str] | None = None
    began: str = ""
    where: str = ""


def select_metadata(metadata: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """The part of the metadata that is recorded, in both directions."""
    return {key: value for key, value in metadata if key in METADATA and _is_printable(value)}


def _is_printable(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()


def encode_call(entry: RecordedCall) -> bytes:
    """The call as a line, with the line end."""
    line: dict[str, Any] = {"version": VERSION}
    if entry.began:
        line["began"] = entry.began
    line["method"] = entry.method.name
    line.update(encode_fields("request", "request_raw", entry.request))
    if not entry.texts:
        line["texts"] = False
    if entry.metadata is not None:
        line["metadata"] = dict(entry.metadata)
    line["responses"] = [_response_line(entry.method, each) for each in entry.responses]
    if entry.status is not None:
        line["status"] = _status_line(entry.status)
    if entry.unfinished:
        line["unfinished"] = True
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _response_line(method: Method, response: RecordedResponse) -> dict[str, Any]:
    line: dict[str, Any] = {"after": _rounded(response.after)}
    try:
        message = method.response_type.FromString(response.content)
    except DecodeError:
        return {**line, "raw": to_base64(response.content)}
    return {**line, **encode_fields("message", "raw", message)}


def _status_line(recorded: RecordedStatus) -> dict[str, Any]:
    line: dict[str, Any] = {
        "after": _rounded(recorded.after),
        "code": recorded.code.name,
        "message": recorded.message,
    }
    if recorded.packed is None:
        return line
    try:
        status = status_pb2.Status.FromString(recorded.packed)
    except DecodeError:
        return {**line, "raw": to_base64(recorded.packed)}
    encoded = encode_fields("status", "raw", status)
    details = encoded.get("status", {}).get("details", [])
    if "raw" in encoded or (status.code, status.message) != (recorded.code.value[0], recorded.message):
        line["raw"] = to_base64(recorded.packed)
    return {**line, "details": details}


def _rounded(seconds: float) -> float:
    return round(seconds, 4)


def read_recording(path: Path, name: str) -> list[RecordedCall]:
    """The calls of a recording, sorted by their start. A call without a time stays behind the line before it.

    Args:
        path: the file.
        name: the name of the argument, for error messages.

    Raises:
        ValueError: the file cannot be read or is not a recording; the message is one line with the file and the line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ValueError(f"{name}: {path}: {error.strerror or error}") from error
    entries = [_LineParser(f"{path}:{number}", line).entry() for number, line in enumerate(lines, 1) if line.strip()]
    moments: list[str] = []
    for entry in entries:
        # Without the Z, the texts sort like the times, with and without fractions.
        moments.append(entry.began.rstrip("Z") or (moments[-1] if moments else ""))
    return [entry for _, entry in sorted(zip(moments, entries, strict=True), key=lambda pair: pair[0])]


class _LineParser:
    """Parses a line to a :class:`RecordedCall`."""

    def __init__(self, where: str, line: bytes) -> None:
        self._where = where
        try:
            data = json.loads(line, object_pairs_hook=self._object, parse_constant=self._constant)
        except json.JSONDecodeError as error:
            self._fail(f"not JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError) as error:
            self._fail(f"not JSON: {error}")
        self._data = self._mapping("the line", data, _KEYS)

    def entry(self) -> RecordedCall:
        version = self._data.get("version", VERSION)
        if version != VERSION or isinstance(version, bool):
            self._fail(f"version must be {VERSION}, not {version!r}")
        method = self._method()
        if not self._data.keys() & {"responses", "status", "unfinished"}:
            self._fail("a call needs responses, a status or unfinished")
        return RecordedCall(
            method=method,
            request=without_secrets(self._request(method)),
            responses=tuple(self._responses(method)),
            status=self._status(),
            unfinished=self._unfinished(),
            texts=self._boolean("texts", default=True),
            metadata=self._metadata(),
            began=self._began(),
            where=self._where,
        )

    def _fail(self, reason: str) -> NoReturn:
        raise ValueError(f"{self._where}: {reason}") from None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands in one object twice")
        return found

    def _constant(self, name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON number")

    def _mapping(self, what: str, data: object, keys: Iterable[str]) -> dict[str, Any]:
        if not isinstance(data, dict):
            self._fail(f"{what} must be an object, not {_abbreviated(data)}")
        for key in data:
            if key not in keys:
                self._fail(f"{what} has no key {key!r}; its keys are {', '.join(keys)}")
        return data

    def _method(self) -> Method:
        name = self._data.get("method")
        method = find_method(name) if isinstance(name, str) else None
        if method is None:
            known = ", ".join(each.name for each in methods().values())
            self._fail(f"method must be one of {known}, not {_abbreviated(name)}")
        return method

    def _request(self, method: Method) -> Message:
        if "request_raw" in self._data:
            content = self._raw("request_raw", self._data["request_raw"])
            try:
                return method.request_type.FromString(content)
            except DecodeError:
                self._fail(f"request_raw is not a {method.request_type.DESCRIPTOR.name}")
        if "request" not in self._data:
            self._fail("request is missing")
        return self._message("request", self._data["request"], method.request_type)

    def _message(self, what: str, data: object, message_type: type[Message]) -> Message:
        if not isinstance(data, dict):
            self._fail(f"{what} must be an object, not {_abbreviated(data)}")
        try:
            return from_json(data, message_type)
        except ValueError as error:
            self._fail(f"{what} is not a {message_type.DESCRIPTOR.name}: {error}")

    def _raw(self, what: str, data: object) -> bytes:
        try:
            return from_base64(data)
        except ValueError as error:
            self._fail(f"{what} {error}")

    def _seconds(self, what: str, value: Any) -> float:
        try:
            return check_seconds(what, value)
        except ValueError as error:
            self._fail(str(error))

    def _responses(self, method: Method) -> Iterable[RecordedResponse]:
        responses = self._data.get("responses", [])
        if not isinstance(responses, list):
            self._fail(f"responses must be a list, not {_abbreviated(responses)}")
        if len(responses) > 1 and not method.is_generation:
            self._fail(f"{method.name} has one answer, not {len(responses)}")
        for index, each in enumerate(responses):
            what = f"responses[{index}]"
            bare = isinstance(each, dict) and not each.keys() & _RESPONSE_KEYS
            fields = {"message": each} if bare else self._mapping(what, each, sorted(_RESPONSE_KEYS))
            after = self._seconds(f"{what}.after", fields.get("after", 0.0))
            if "raw" in fields:
                yield RecordedResponse(after, self._raw(f"{what}.raw", fields["raw"]))
            elif "message" in fields:
                message = self._message(f"{what}.message", fields["message"], method.response_type)
                yield RecordedResponse(after, message.SerializeToString(deterministic=True))
            else:
                self._fail(f"{what} needs a message")

    def _status(self) -> RecordedStatus | None:
        if "status" not in self._data:
            return None
        status = self._mapping("status", self._data["status"], _STATUS_KEYS)
        name, message = status.get("code"), status.get("message", "")
        if not isinstance(name, str) or name == "OK" or name not in grpc.StatusCode.__members__:
            known = ", ".join(each for each in grpc.StatusCode.__members__ if each != "OK")
            self._fail(f"status.code must be one of {known}, not {_abbreviated(name)}")
        if not isinstance(message, str):
            self._fail(f"status.message must be a string, not {_abbreviated(message)}")
        code = grpc.StatusCode[name]
        details: bytes | None = None
        if "raw" in status:
            details = self._raw("status.raw", status["raw"])
        elif "details" in status:
            whole = {"code": code.value[0], "message": message, "details": status["details"]}
            details = self._message("status", whole, status_pb2.Status).SerializeToString(deterministic=True)
        pushback = (self._metadata() or {}).get(PUSHBACK_KEY)
        return RecordedStatus(
            code,
            message,
            metadata=() if pushback is None else ((PUSHBACK_KEY, pushback),),
            after=self._seconds("status.after", status.get("after", 0.0)),
            packed=details,
        )

    def _unfinished(self) -> bool:
        unfinished = self._boolean("unfinished", default=False)
        if unfinished and "status" in self._data:
            self._fail("a call has either a status or is unfinished")
        return unfinished

    def _boolean(self, key: str, *, default: bool) -> bool:
        value = self._data.get(key, default)
        if not isinstance(value, bool):
            self._fail(f"{key} must be true or false, not {_abbreviated(value)}")
        return value

    def _metadata(self) -> Mapping[str, str] | None:
        if "metadata" not in self._data:
            return None
        metadata = self._mapping("metadata", self._data["metadata"], METADATA)
        for key, value in metadata.items():
            if not _is_printable(value):
                self._fail(f"metadata.{key} must be a string of printable ASCII, not {_abbreviated(value)}")
        return metadata

    def _began(self) -> str:
        began = self._data.get("began", "")
        if began and not (isinstance(began, str) and _MOMENT.fullmatch(began)):
            self._fail(f"began must be a time such as 2026-11-20T09:30:00.25Z, not {_abbreviated(began)}")
        return str(began)


def _abbreviated(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
