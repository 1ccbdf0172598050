"""TextGenerationAsyncService and OperationService: asynchronous generation."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt._proto.yandex.cloud.operation import operation_pb2, operation_service_pb2
from yandexgpt.emulator.answers import Answer, encode_answer
from yandexgpt.emulator.call import Call
from yandexgpt.emulator.default_answer import default_answer, input_words
from yandexgpt.emulator.error_status import ErrorStatus, invalid_argument
from yandexgpt.emulator.identity import new_id
from yandexgpt.emulator.script import Failure
from yandexgpt.emulator.service import Service
from yandexgpt.emulator.validation import check_request

__all__ = ["RETENTION", "Operations"]

_SUBMISSION = text_generation_service_pb2.DESCRIPTOR.services_by_name["TextGenerationAsyncService"].full_name
_OPERATION = operation_service_pb2.DESCRIPTOR.services_by_name["OperationService"].full_name
_ANSWER = f"type.googleapis.com/{text_generation_service_pb2.CompletionResponse.DESCRIPTOR.full_name}"

_ID_SHOWN = 80
"""Maximum length of an operation id in an error message."""
RETENTION = 3 * 24 * 3600.0
"""Seconds that the service keeps a result (source: its documentation)."""


@dataclass
class _OperationState:
    """An operation. Its result is existing from the start, and visible after `ends_at`."""

    proto: operation_pb2.Operation
    ends_at: float
    outcome: bytes | None = None
    status: ErrorStatus | None = None
    ended: bool = False


class Operations:
    """The operations of an emulator. Thread-safe.

    An operation is pending for :attr:`time` seconds and the ``delay`` of its answer. Then it is done: with the next
    scripted answer, with the default answer, or with the error of ``Emulator.fail(..., operation=True)``.

    Attributes:
        time: duration of new operations in seconds; may be set at any time.
        delay: additional seconds for a default answer; may be set at any time.
        kept: seconds after its end when an operation is removed; may be set at any time.
    """

    def __init__(self, service: Service, *, time: float, delay: float) -> None:
        self.time = time
        self.kept = RETENTION
        self._service = service
        self.delay = delay
        self._account = new_id("aje")
        self._operations: dict[str, _OperationState] = {}
        self._idempotency_keys: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def ids(self) -> list[str]:
        """The ids of all operations, in the order of submission (a copy)."""
        with self._lock:
            return [operation_id for operation_id in tuple(self._operations) if self._current(operation_id) is not None]

    def finish(self, operation_id: str) -> None:
        """End a pending operation immediately; raises KeyError for an unknown operation."""
        with self._lock:
            self._known(operation_id).ends_at = time.monotonic()

    def expire(self, operation_id: str) -> None:
        """Remove an operation, as after the retention time; raises KeyError for an unknown operation."""
        with self._lock:
            self._known(operation_id)
            del self._operations[operation_id]

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """The handlers for ``grpc.Server.add_generic_rpc_handlers``. Their responses are serialized already."""
        service = self._service
        submit = service.unary_handler(
            f"/{_SUBMISSION}/Completion", text_generation_service_pb2.CompletionRequest, self._submit, check_request
        )
        get = service.unary_handler(
            f"/{_OPERATION}/Get", operation_service_pb2.GetOperationRequest, self._get, _check_id
        )
        cancel = service.unary_handler(
            f"/{_OPERATION}/Cancel", operation_service_pb2.CancelOperationRequest, self._cancel, _check_id
        )
        return [
            grpc.method_handlers_generic_handler(_SUBMISSION, {"Completion": submit}),
            grpc.method_handlers_generic_handler(_OPERATION, {"Get": get, "Cancel": cancel}),
        ]

    def _submit(self, call: Call, request: text_generation_service_pb2.CompletionRequest) -> Message | ErrorStatus:
        key = str(call.recorded.metadata.get("idempotency-key", ""))
        with self._lock:
            existing = self._current(self._idempotency_keys.get(key, "")) if key else None
            if existing is not None:
                return existing
            failure, answer = self._service.script.take_outcome(request)
            call_failure = None if failure is None or failure.operation else failure
            if call_failure is None or call_failure.after:
                state = self._begin(request, failure if call_failure is None else None, answer)
                self._operations[state.proto.id] = state
                if key:
                    self._idempotency_keys[key] = state.proto.id
            if call_failure is None:
                return _copy(state.proto)
        call.pause(call_failure.delay)
        return call_failure.status

    def _begin(
        self, request: text_generation_service_pb2.CompletionRequest, failure: Failure | None, answer: Answer | None
    ) -> _OperationState:
        proto = operation_pb2.Operation(id=new_id("d7q"), description="Async GPT Completion", created_by=self._account)
        proto.created_at.GetCurrentTime()
        proto.modified_at.CopyFrom(proto.created_at)
        ends_at = time.monotonic() + self.time
        if failure is not None:
            return _OperationState(proto, ends_at + failure.delay, status=failure.status)
        if answer is None:
            answer = default_answer(request, self.delay)
        return _OperationState(proto, ends_at + answer.delay, encode_answer(answer, input_words(request)).final)

    def _get(self, _call: Call, request: operation_service_pb2.GetOperationRequest) -> Message | ErrorStatus:
        with self._lock:
            current = self._current(request.operation_id)
            return _not_found(request.operation_id) if current is None else current

    def _cancel(self, _call: Call, request: operation_service_pb2.CancelOperationRequest) -> Message | ErrorStatus:
        with self._lock:
            if self._current(request.operation_id) is None:
                return _not_found(request.operation_id)
            state = self._operations[request.operation_id]
            if not state.ended:
                state.status = ErrorStatus(grpc.StatusCode.CANCELLED, "the operation was cancelled")
                state.ends_at = time.monotonic()
                self._end(state, state.ends_at)
            return _copy(state.proto)

    def _known(self, operation_id: str) -> _OperationState:
        if self._current(operation_id) is None:
            raise KeyError(f"there is no operation {operation_id!r}")
        return self._operations[operation_id]

    def _current(self, operation_id: str) -> operation_pb2.Operation | None:
        """A copy of the operation in its current state; None for an unknown or expired operation."""
        state = self._operations.get(operation_id)
        if state is None:
            return None
        now = time.monotonic()
        if now > state.ends_at + self.kept:
            del self._operations[operation_id]
            return None
        if now >= state.ends_at and not state.ended:
            self._end(state, now)
        return _copy(state.proto)

    @staticmethod
    def _end(state: _OperationState, now: float) -> None:
        state.ended = state.proto.done = True
        state.proto.modified_at.FromNanoseconds(time.time_ns() - int((now - state.ends_at) * 1e9))
        if state.status is not None:
            state.proto.error.ParseFromString(state.status.status().SerializeToString())
        elif state.outcome is not None:
            state.proto.response.type_url = _ANSWER
            state.proto.response.value = state.outcome


def _copy(proto: operation_pb2.Operation) -> operation_pb2.Operation:
    copied = operation_pb2.Operation()
    copied.CopyFrom(proto)
    return copied


def _check_id(
    request: operation_service_pb2.GetOperationRequest | operation_service_pb2.CancelOperationRequest,
) -> ErrorStatus | None:
    return None if request.operation_id else invalid_argument([("operation_id", "must not be empty")])


def _not_found(operation_id: str) -> ErrorStatus:
    return ErrorStatus(grpc.StatusCode.NOT_FOUND, f"Operation with id {operation_id[:_ID_SHOWN]} not found")
