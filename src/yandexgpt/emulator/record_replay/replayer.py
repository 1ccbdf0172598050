"""Answers calls from a recording, with the recorded timing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2 as iam
from yandexgpt.emulator.call import Call
from yandexgpt.emulator.error_status import ErrorStatus
from yandexgpt.emulator.identity import Identity
from yandexgpt.emulator.quota import Quota
from yandexgpt.emulator.received import Metadata
from yandexgpt.emulator.record_replay import recording_file
from yandexgpt.emulator.record_replay.matching import MatchMode, RecordedCalls
from yandexgpt.emulator.record_replay.methods import AllMethodsHandler, Method, RawRequest
from yandexgpt.emulator.record_replay.recording_file import RecordedCall
from yandexgpt.emulator.record_replay.redaction import REMOVED, without_secrets
from yandexgpt.emulator.record_replay.restricted_script import RestrictedScript
from yandexgpt.emulator.script import Failure
from yandexgpt.emulator.service import Service
from yandexgpt.emulator.validation import check_authorization

__all__ = ["Replayer"]

_SENT_BACK = ("x-request-id", "x-server-trace-id")


class Replayer:
    """Answers calls from a recording.

    Attributes:
        script: accepts failures, which have priority over the recording.

    Args:
        path: the recording.
        match: see :class:`RecordedCalls`.

    Raises:
        ValueError: the file is not a recording, or contains no call.
    """

    def __init__(self, path: Path, match: MatchMode) -> None:
        self._path = path
        self._match = match
        self._entries = recording_file.read_recording(path, "replay")
        if not self._entries:
            raise ValueError(f"replay: {path} holds no call")
        self._recorded = RecordedCalls(path, self._entries, match)
        self.script = RestrictedScript(str(path), fails=True)

    def start(self) -> None:
        """Start at the beginning of the recording, also after :meth:`stop`."""
        self._recorded = RecordedCalls(self._path, self._entries, self._match)

    def stop(self) -> None:
        """Nothing has to be closed."""

    def handler(self, service: Service, quota: Quota) -> grpc.GenericRpcHandler:
        """The handler of all methods for ``grpc.Server.add_generic_rpc_handlers``."""

        def serve(method: Method, request: RawRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
            return self._serve(service, quota, method, request, context)

        return AllMethodsHandler(serve)

    def _serve(
        self, service: Service, quota: Quota, method: Method, request: RawRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        failure: Failure | None = None
        result: RecordedCall | ErrorStatus | None = None
        if method.needs_credentials:
            metadata = Metadata(context.invocation_metadata())
            result = check_authorization(metadata, service.authorization, service.identity)
        slot = quota.acquire() if method.is_generation and result is None else None
        if isinstance(slot, ErrorStatus):
            result, slot = slot, None
        if result is None:
            failure = self.script.take_failure()
            if failure is None or failure.after:
                result = self._recorded.take(method, request.message)
        ids = _ids(result) if isinstance(result, RecordedCall) else None
        call = Call(service.recorder, method.path, without_secrets(request.message), context, ids)
        release = slot.release if slot is not None else _nothing
        call.add_done_callback(release)
        try:
            if isinstance(result, RecordedCall):
                yield from _answer(service.identity, call, result, failure, release)
            if isinstance(result, ErrorStatus):
                call.fail(result)
            elif failure is not None and call.pause(failure.delay):
                call.fail(failure.status)
        finally:
            release()


def _answer(
    identity: Identity, call: Call, entry: RecordedCall, failure: Failure | None, release: Callable[[], None]
) -> Iterator[bytes]:
    """The recorded messages, up to a scripted failure. The caller sends the failure."""
    responses = entry.responses if failure is None else entry.responses[:-1][: failure.after]
    succeeds = failure is None and entry.status is None and not entry.unfinished
    for index, response in enumerate(responses, 1):
        if not call.pause(response.after):
            return
        if succeeds and index == len(responses):
            release()
        call.recorded.sent += 1
        yield _with_token(identity, entry, response.content)
    if succeeds:
        call.finish()
    elif failure is None and entry.status is not None:
        if call.pause(entry.status.after):
            call.fail(entry.status)
    elif failure is None:
        call.pause(threading.TIMEOUT_MAX)


def _with_token(identity: Identity, entry: RecordedCall, content: bytes) -> bytes:
    """The message with a new token of this emulator, if the recorded token was redacted."""
    if entry.method.response_type is not iam.CreateIamTokenResponse:
        return content
    response = iam.CreateIamTokenResponse.FromString(content)
    if response.iam_token == REMOVED:
        response.iam_token = identity.issue()
        if not response.HasField("expires_at"):
            response.expires_at.FromNanoseconds(int(identity.expires_at(response.iam_token) * 1e9))
    return response.SerializeToString()


def _ids(entry: RecordedCall) -> list[tuple[str, str]] | None:
    """The ids to send; None: they were not recorded, and new ids are sent."""
    if entry.metadata is None:
        return None
    return [(key, entry.metadata[key]) for key in _SENT_BACK if key in entry.metadata]


def _nothing() -> None:
    """There is nothing to release."""
