"""Writes a recording, without secrets."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2  # type: ignore[import-untyped]

from yandexgpt.emulator.record_replay import recording_file
from yandexgpt.emulator.record_replay.recording_file import RecordedCall, RecordedResponse, RecordedStatus
from yandexgpt.emulator.record_replay.redaction import REMOVED, find_secrets, without_secrets, without_texts

__all__ = ["RecordingWriter"]

_MIN_SECRET_LENGTH = 16
"""Minimum length of a secret to search for in other texts. Real keys are longer; shorter ones could match by chance."""


class RecordingWriter:
    """Appends calls to a recording. Thread-safe.

    Args:
        path: the file; an existing file must be a recording, and new calls are appended.
        texts: False: texts are masked.

    Raises:
        ValueError: the file exists and is not a recording.
    """

    def __init__(self, path: Path, *, texts: bool) -> None:
        self._path = path
        self._texts = texts
        self._file: int | None = None
        self._lock = threading.Lock()
        if path.exists():
            try:
                recording_file.read_recording(path, "record")
            except ValueError as error:
                raise ValueError(f"{error}; only a recording is gone on with: name another file for record") from error

    def open(self) -> None:
        """Open the file, or create it.

        Raises:
            ValueError: it cannot be opened.
        """
        try:
            ended = not self._path.exists() or self._path.read_bytes()[-1:] in (b"", b"\n")
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise ValueError(f"record: {self._path}: {error.strerror or error}") from error
        if not ended:
            os.write(self._file, b"\n")

    def close(self) -> None:
        """Close the file. Later calls are not written."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def write(self, entry: RecordedCall, secrets: Iterable[str]) -> None:
        """Append a call.

        Args:
            entry: the call, with secrets and texts.
            secrets: the values of its ``authorization`` metadata.
        """
        line = recording_file.encode_call(self._redact(entry, secrets))
        with self._lock:
            if self._file is not None:
                while line:
                    line = line[os.write(self._file, line) :]

    def _redact(self, entry: RecordedCall, secrets: Iterable[str]) -> RecordedCall:
        """The call without secrets, and with masked texts if required."""
        found = {secret for value in secrets for secret in (value, value.partition(" ")[2])}
        found.update(find_secrets(entry.request))
        responses = []
        for after, content in entry.responses:
            try:
                message = entry.method.response_type.FromString(content)
            except DecodeError:
                responses.append(
                    RecordedResponse(after, content if self._texts and entry.method.needs_credentials else b"")
                )
                continue
            found.update(find_secrets(message))
            responses.append(RecordedResponse(after, self._redacted(message).SerializeToString(deterministic=True)))
        hidden = [secret for secret in sorted(found, key=len, reverse=True) if len(secret) >= _MIN_SECRET_LENGTH]
        metadata = {key: _scrubbed(value, hidden) for key, value in (entry.metadata or {}).items()}
        return dataclasses.replace(
            entry,
            request=self._redacted(entry.request),
            responses=tuple(responses),
            status=entry.status and _scrubbed_error_status(entry.status, hidden),
            texts=self._texts,
            metadata=metadata,
        )

    def _redacted(self, message: Message) -> Message:
        message = without_secrets(message)
        return message if self._texts else without_texts(message)


def _scrubbed(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REMOVED)
    return text


def _scrubbed_error_status(status: RecordedStatus, secrets: Sequence[str]) -> RecordedStatus:
    packed = status.packed
    if packed is not None and any(secret.encode() in packed for secret in secrets):
        packed = _scrubbed_status(packed, secrets)
    return dataclasses.replace(status, message=_scrubbed(status.message, secrets), packed=packed)


def _scrubbed_status(packed: bytes, secrets: Sequence[str]) -> bytes | None:
    """The serialized status without details that contain a secret; None if it cannot be parsed."""
    try:
        status = status_pb2.Status.FromString(packed)
    except DecodeError:
        return None
    details = [each for each in status.details if not any(secret.encode() in each.value for secret in secrets)]
    clean = status_pb2.Status(code=status.code, message=_scrubbed(status.message, secrets), details=details)
    scrubbed: bytes = clean.SerializeToString()
    return scrubbed
