"""Asynchronous mode: operations, which the service runs whether or not a client waits for them."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from yandexgpt._config import UNSET, Unset
from yandexgpt._features.polling import PollSchedule
from yandexgpt._models import NO_METADATA, Completion, CompletionResponse, ReceivedMetadata
from yandexgpt._proto.yandex.cloud.operation import operation_pb2
from yandexgpt._proto.yandex.cloud.operation.operation_service_pb2 import CancelOperationRequest, GetOperationRequest
from yandexgpt._rpc.call import CallOptions
from yandexgpt._rpc.failures import decode_details
from yandexgpt._rpc.methods import OperationService
from yandexgpt.errors import DeadlineExceededError, NotFoundError, OperationFailed, YandexGPTError

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from typing_extensions import Self

    from yandexgpt._rpc.async_invoker import AsyncInvoker
    from yandexgpt._rpc.call import Answer
    from yandexgpt._rpc.methods import Method

__all__ = ["DEFAULT_TIMEOUT", "AsyncOperation", "check_id", "poll_schedule", "wait_for_all"]

DEFAULT_TIMEOUT = 600.0
"""The longest wait, in seconds. An answer takes seconds to minutes; a client's ``timeout`` is for one call."""
_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class AsyncOperation:
    """An asynchronous request, in its state of the last poll. Safe to share between tasks.

    The service runs it whether or not a client waits, and keeps its result for three days. Store its :attr:`id` to
    attach to it later. Operations with the same id are equal.
    """

    __slots__ = (
        "__weakref__",
        "_completion",
        "_invoker",
        "_looked_up",
        "_not_found_error",
        "_proto",
        "_received_metadata",
        "_request_id",
    )

    def __init__(self, invoker: AsyncInvoker, operation_id: str, submission: Answer | None = None) -> None:
        self._invoker = invoker
        self._not_found_error: NotFoundError | None = None
        self._completion: Completion | None = None
        self._request_id: str | None = None
        self._received_metadata: ReceivedMetadata = NO_METADATA
        self._looked_up = submission is not None
        """Whether more than the id is known."""
        if submission is None:
            self._proto = operation_pb2.Operation(id=operation_id)
        else:
            self._proto, self._request_id, self._received_metadata = submission

    @property
    def id(self) -> str:
        """The id to store: ``client.operation(id)`` attaches to the operation again, also from another process."""
        return self._proto.id

    @property
    def done(self) -> bool:
        """Whether it had ended at the last poll: with an answer, with an error, or unknown to the service."""
        return self._proto.done or self._not_found_error is not None

    @property
    def cancelled(self) -> bool:
        """Whether it ended because it was cancelled."""
        return self._proto.done and self._proto.error.code == grpc.StatusCode.CANCELLED.value[0]

    @property
    def error(self) -> OperationFailed | NotFoundError | None:
        """The error that :meth:`result` raises; None while it is pending, or if it ended with an answer."""
        proto = self._proto
        if self._not_found_error is not None:
            return copy.copy(self._not_found_error)
        if not proto.done or proto.WhichOneof("result") != "error":
            return None
        status = proto.error
        code = _STATUS_CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        return OperationFailed(proto.id, code, status.message, decode_details(status.SerializeToString()), self)

    @property
    def created_at(self) -> datetime | None:
        """The time of its submission (UTC); None if it was attached by id and not polled yet."""
        return _to_datetime(self._proto, "created_at", self._proto.created_at)

    @property
    def modified_at(self) -> datetime | None:
        """The time of its last change (UTC); None if it was attached by id and not polled yet."""
        return _to_datetime(self._proto, "modified_at", self._proto.modified_at)

    @property
    def created_by(self) -> str:
        """The id of the account that submitted it; empty if it was attached by id and not polled yet."""
        return self._proto.created_by

    @property
    def description(self) -> str:
        """The service's description of it; empty if it was attached by id and not polled yet."""
        return self._proto.description

    @property
    def request_id(self) -> str | None:
        """The client's id of the submission (``x-client-request-id``); None if it was not submitted by this object."""
        return self._request_id

    @property
    def proto(self) -> operation_pb2.Operation:
        """The protobuf message of the last poll."""
        return self._proto

    def result(self) -> Completion:
        """The answer of an operation that has ended. Makes no call.

        Raises:
            OperationFailed: it ended in an error, or was cancelled.
            NotFoundError: the service does not know it (any more): results are kept for three days.
            YandexGPTError: it was not done at the last poll, or it is not an operation of text generation.
        """
        if self._completion is not None:
            return self._completion
        if (error := self.error) is not None:
            raise error from self._not_found_error
        if not self._proto.done:
            raise YandexGPTError(f"operation {self.id} is not done: call wait(), or refresh() and look at done")
        response = CompletionResponse()
        if not self._proto.response.Unpack(response):
            kind = self._proto.response.TypeName() or "nothing"
            raise YandexGPTError(f"operation {self.id} is not of text generation: it holds {kind}, not an answer")
        self._completion = Completion(response, self._request_id, self._received_metadata)
        return self._completion

    async def refresh(self, *, timeout: float | Unset | None = UNSET) -> Self:
        """Poll it once: read its state and its result from the service.

        Args:
            timeout: seconds for the call, retries included (> 0), or None; by default the client's.

        Returns:
            The operation itself.

        Raises:
            NotFoundError: the service does not know it (any more): results are kept for three days.
            ConfigurationError: the client is closed.
            APIError: the call failed.
        """
        request = GetOperationRequest(operation_id=self.id)
        await self._call(OperationService.Get, request, CallOptions(timeout))
        return self

    async def wait(self, timeout: float | None = DEFAULT_TIMEOUT) -> Completion:
        """Wait for the answer. Polls at intervals that grow from 0.5 s to 10 s.

        One rate limit holds for all polls of a client, in all its threads and tasks: the service allows 50 a second. A
        poll is retried by the client's ``retry``; one attempt may take the client's ``attempt_timeout``, or its
        ``timeout`` if that is None.

        Args:
            timeout: seconds for the whole wait (> 0), or None for no deadline.

        Raises:
            OperationTimeout: it was not done in time. The service continues it, and it can be waited for again.
            OperationFailed: it ended in an error, or was cancelled.
            NotFoundError: the service does not know it (any more): results are kept for three days.
            CancelledError: the client was closed during the wait.
            ConfigurationError: the client was closed before the wait.
            APIError: a poll failed. The service continues the operation.
            ValueError: ``timeout`` is not a number of seconds greater than 0.
        """
        async for _ in wait_for_all(self._invoker, PollSchedule((self,), timeout)):
            pass
        return self.result()

    async def cancel(self, *, timeout: float | Unset | None = UNSET) -> Self:
        """Ask the service to cancel it. An operation that has ended does not change.

        Args:
            timeout: seconds for the call, retries included (> 0), or None; by default the client's.

        Returns:
            The operation itself, in its new state: :attr:`cancelled` is True if it is already cancelled.

        Raises:
            NotFoundError: the service does not know it (any more).
            ConfigurationError: the client is closed.
            APIError: the call failed.
        """
        request = CancelOperationRequest(operation_id=self.id)
        await self._call(OperationService.Cancel, request, CallOptions(timeout))
        return self

    async def _poll(self, remaining: float | None) -> None:
        """Poll it within a wait. One attempt may take the client's ``attempt_timeout``, or ``timeout`` if that is None.

        Args:
            remaining: seconds to the deadline of the wait, or None if it has none.
        """
        settings = self._invoker.settings
        attempt_timeout = settings.timeout if settings.attempt_timeout is None else settings.attempt_timeout
        request = GetOperationRequest(operation_id=self.id)
        await self._call(OperationService.Get, request, CallOptions(remaining, attempt_timeout))

    async def _call(self, method: Method, request: Any, options: CallOptions) -> None:
        try:
            answer = await self._invoker.unary(method, request, options)
        except NotFoundError as error:
            self._not_found_error = error
            raise
        self._not_found_error = None
        self._looked_up = True
        if not self._proto.done:  # polls may overlap: an older answer may arrive after a newer one
            self._proto = answer.message

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: store operation.id, and attach to it again by "
            "client.operation(id)"
        )

    def __repr__(self) -> str:
        if self._not_found_error is not None:
            state = "lost"
        elif not self._looked_up:
            state = "not looked up yet"
        elif not self._proto.done:
            state = "pending"
        elif self.cancelled:
            state = "cancelled"
        else:
            state = "failed" if self._proto.WhichOneof("result") == "error" else "done"
        return f"{type(self).__name__}(id={self.id!r}, {state})"


def poll_schedule(operations: Iterable[AsyncOperation], timeout: float | None) -> PollSchedule[AsyncOperation]:
    """The schedule of polls for a wait.

    Raises:
        ValueError: ``timeout`` is not a number of seconds greater than 0.
        TypeError: one of the operations is not an operation of this kind of client.
    """
    waiting = tuple(operations)
    for index, operation in enumerate(waiting):
        if not isinstance(operation, AsyncOperation):
            raise TypeError(
                f"operations[{index}] must be an {AsyncOperation.__name__} of this kind of client, by submit() or "
                f"operation(id), got {type(operation).__name__}"
            )
    return PollSchedule(waiting, timeout)


async def wait_for_all(invoker: AsyncInvoker, schedule: PollSchedule[AsyncOperation]) -> AsyncIterator[AsyncOperation]:
    """Poll the operations until all are done, and yield each when it is done.

    Raises:
        OperationTimeout: the deadline of the wait passed.
        CancelledError: the client was closed during the wait.
        ConfigurationError: the client was closed before the wait.
        APIError: a poll failed.
    """
    for operation in schedule.already_done:
        yield operation
    if schedule:
        invoker.check_open()
    while schedule:
        now = time.monotonic()
        remaining = schedule.remaining(now)
        if delay := schedule.delay(now):
            await invoker.pause(delay)
            continue
        operation = schedule.next_operation
        try:
            await operation._poll(remaining)
        except NotFoundError:
            pass  # _poll has stored the error: the operation is done
        except DeadlineExceededError as error:
            schedule.raise_if_timed_out(error, time.monotonic())
            raise
        if schedule.record_poll(time.monotonic()):
            yield operation


def check_id(operation_id: object) -> str:
    """The id of an operation, without leading and trailing white space.

    Raises:
        ValueError: it does not have the form of an operation's id.
    """
    if not isinstance(operation_id, str) or not _ID_PATTERN.fullmatch(stripped := operation_id.strip()):
        raise ValueError(
            "operation_id must be the id of an operation, such as d7q0123456789abcdefg (Operation.id), "
            f"got {operation_id!r}"
        )
    return stripped


def _to_datetime(proto: operation_pb2.Operation, field: str, timestamp: Timestamp) -> datetime | None:
    return timestamp.ToDatetime(timezone.utc) if proto.HasField(field) else None
