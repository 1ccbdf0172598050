"""Asynchronous mode: operations of the service, which go on whether or not somebody waits."""

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

__all__ = ["DEFAULT_TIMEOUT", "AsyncOperation", "check_id", "schedule", "wait_for_all"]

DEFAULT_TIMEOUT = 600.0
"""Seconds that a wait lasts at most. Answers take seconds to minutes; a client's ``timeout`` is for one call."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class AsyncOperation:
    """An asynchronous request at the service, as of the last look-up. Safe to share between tasks.

    It goes on whether or not somebody waits, and its result is kept for three days. What to store is its :attr:`id`.
    Two that have the same id are equal.
    """

    __slots__ = ("__weakref__", "_completion", "_invoker", "_lost", "_proto", "_received", "_request_id", "_seen")

    def __init__(self, invoker: AsyncInvoker, operation_id: str, submission: Answer | None = None) -> None:
        self._invoker = invoker
        self._lost: NotFoundError | None = None
        self._completion: Completion | None = None
        self._request_id: str | None = None
        self._received: ReceivedMetadata = NO_METADATA
        self._seen = submission is not None
        """Whether anything but its id is known."""
        if submission is None:
            self._proto = operation_pb2.Operation(id=operation_id)
        else:
            self._proto, self._request_id, self._received = submission

    @property
    def id(self) -> str:
        """What to keep of it: ``client.operation(id)`` attaches to it again, in another process too."""
        return self._proto.id

    @property
    def done(self) -> bool:
        """Whether it had ended when it was last looked up: with an answer, with an error, or lost."""
        return self._proto.done or self._lost is not None

    @property
    def cancelled(self) -> bool:
        """Whether it ended because it was cancelled."""
        return self._proto.done and self._proto.error.code == grpc.StatusCode.CANCELLED.value[0]

    @property
    def error(self) -> OperationFailed | NotFoundError | None:
        """Why there is no answer, once it has ended without one: what :meth:`result` raises."""
        proto = self._proto
        if self._lost is not None:
            return copy.copy(self._lost)
        if not proto.done or proto.WhichOneof("result") != "error":
            return None
        status = proto.error
        code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        return OperationFailed(proto.id, code, status.message, decode_details(status.SerializeToString()), self)

    @property
    def created_at(self) -> datetime | None:
        """When it was submitted (UTC); None if it has not been looked up yet."""
        return _moment(self._proto, "created_at", self._proto.created_at)

    @property
    def modified_at(self) -> datetime | None:
        """When it last changed (UTC); None if it has not been looked up yet."""
        return _moment(self._proto, "modified_at", self._proto.modified_at)

    @property
    def created_by(self) -> str:
        """The id of the account that submitted it; empty if it has not been looked up yet."""
        return self._proto.created_by

    @property
    def description(self) -> str:
        """The service's words for what it is; empty if it has not been looked up yet."""
        return self._proto.description

    @property
    def request_id(self) -> str | None:
        """The client's id of the submission (``x-client-request-id``); None if it was not submitted by this object."""
        return self._request_id

    @property
    def proto(self) -> operation_pb2.Operation:
        """The protobuf message itself, as of the last look-up."""
        return self._proto

    def result(self) -> Completion:
        """The answer of an operation that has ended; asks nothing.

        Raises:
            OperationFailed: it ended in an error, or was cancelled.
            NotFoundError: the service no longer knows it: results are kept for three days.
            YandexGPTError: it was not done when it was last looked up.
        """
        if self._completion is not None:
            return self._completion
        if (error := self.error) is not None:
            raise error from self._lost
        if not self._proto.done:
            raise YandexGPTError(f"operation {self.id} is not done: call wait(), or refresh() and look at done")
        response = CompletionResponse()
        if not self._proto.response.Unpack(response):
            kind = self._proto.response.TypeName() or "nothing"
            raise YandexGPTError(f"operation {self.id} is not of text generation: it holds {kind}, not an answer")
        self._completion = Completion(response, self._request_id, self._received)
        return self._completion

    async def refresh(self, *, timeout: float | Unset | None = UNSET) -> Self:
        """Look it up: whether it is done, and what came of it.

        Args:
            timeout: seconds for the look-up, retries included (> 0), or None; by default the client's.

        Returns:
            The operation itself.

        Raises:
            NotFoundError: the service does not know it (any more): results are kept for three days.
            ConfigurationError: the client is closed.
            APIError: the look-up failed.
        """
        request = GetOperationRequest(operation_id=self.id)
        await self._ask(OperationService.Get, request, CallOptions(timeout))
        return self

    async def wait(self, timeout: float | None = DEFAULT_TIMEOUT) -> Completion:
        """Wait for the answer, looking it up at intervals that grow from half a second to ten.

        All look-ups of a client, by whomever, keep within the 50 a second that the service allows. Each is sent again
        as the client's ``retry`` says, with ``attempt_timeout`` (or else ``timeout``) of the client for one attempt.

        Args:
            timeout: seconds to wait in all (> 0), or None for as long as it takes.

        Raises:
            OperationTimeout: it was not done in time. It goes on, and can be waited for again.
            OperationFailed: it ended in an error, or was cancelled.
            NotFoundError: the service no longer knows it: results are kept for three days.
            CancelledError: the client was closed meanwhile.
            ConfigurationError: the client is closed.
            APIError: a look-up failed. The operation goes on all the same.
            ValueError: an impossible timeout.
        """
        async for _ in wait_for_all(self._invoker, PollSchedule((self,), timeout)):
            pass
        return self.result()

    async def cancel(self, *, timeout: float | Unset | None = UNSET) -> Self:
        """Ask the service to end it. One that has ended stays as it is.

        Args:
            timeout: seconds for the call, retries included (> 0), or None; by default the client's.

        Returns:
            The operation itself, as the service has it now: :attr:`cancelled` says whether it is cancelled already.

        Raises:
            NotFoundError: the service does not know it (any more).
            ConfigurationError: the client is closed.
            APIError: the call failed.
        """
        request = CancelOperationRequest(operation_id=self.id)
        await self._ask(OperationService.Cancel, request, CallOptions(timeout))
        return self

    async def _poll(self, remaining: float | None) -> None:
        """Look it up on behalf of a wait: what the client allows a call is what an attempt gets here.

        Args:
            remaining: seconds to the end of the wait, or None if it has none.
        """
        settings = self._invoker.settings
        limit = settings.timeout if settings.attempt_timeout is None else settings.attempt_timeout
        request = GetOperationRequest(operation_id=self.id)
        await self._ask(OperationService.Get, request, CallOptions(remaining, limit))

    async def _ask(self, method: Method, request: Any, options: CallOptions) -> None:
        try:
            answer = await self._invoker.unary(method, request, options)
        except NotFoundError as error:
            self._lost = error
            raise
        self._lost = None
        self._seen = True
        if not self._proto.done:  # an older answer may come in after a newer one
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
        if self._lost is not None:
            state = "lost"
        elif not self._seen:
            state = "not looked up yet"
        elif not self._proto.done:
            state = "pending"
        elif self.cancelled:
            state = "cancelled"
        else:
            state = "failed" if self._proto.WhichOneof("result") == "error" else "done"
        return f"{type(self).__name__}(id={self.id!r}, {state})"


def schedule(operations: Iterable[AsyncOperation], timeout: float | None) -> PollSchedule[AsyncOperation]:
    """When to look up each of the operations.

    Raises:
        ValueError: an impossible timeout.
        TypeError: something among them is no operation of this kind of client.
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
    """The operations as they end."""
    for operation in schedule.ended:
        yield operation
    if schedule:
        invoker.check_open()
    while schedule:
        now = time.monotonic()
        remaining = schedule.remaining(now)
        if delay := schedule.delay(now):
            await invoker.pause(delay)
            continue
        operation = schedule.first
        try:
            await operation._poll(remaining)
        except NotFoundError:
            pass  # the operation knows, and has ended
        except DeadlineExceededError as error:
            schedule.check(error, time.monotonic())
            raise
        if schedule.polled(time.monotonic()):
            yield operation


def check_id(operation_id: object) -> str:
    """The id of an operation, without white space around it.

    Raises:
        ValueError: it cannot be one.
    """
    if not isinstance(operation_id, str) or not _ID.fullmatch(stripped := operation_id.strip()):
        raise ValueError(
            "operation_id must be the id of an operation, such as d7q0123456789abcdefg (Operation.id), "
            f"got {operation_id!r}"
        )
    return stripped


def _moment(proto: operation_pb2.Operation, field: str, timestamp: Timestamp) -> datetime | None:
    return timestamp.ToDatetime(timezone.utc) if proto.HasField(field) else None
