"""The gRPC client that the HTTP APIs use to call the emulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import status_pb2  # type: ignore[import-untyped]

__all__ = ["CallFailed", "GrpcClient"]

_STATUS_DETAILS = "grpc-status-details-bin"
_REQUEST_ID = "x-request-id"
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_Response = TypeVar("_Response", bound=Message)


class CallFailed(Exception):  # noqa: N818 - it is converted to a response
    """A gRPC call ended with a status other than OK.

    Attributes:
        code: the gRPC status code.
        message: the status message.
        status: the code, the message and the details as ``google.rpc.Status``.
        request_id: the service's id of the call; None if the call did not reach the service.
    """

    def __init__(self, code: grpc.StatusCode, message: str, status: status_pb2.Status, request_id: str | None) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.request_id = request_id


class GrpcClient:
    """A connection to the gRPC server of the emulator, bound to the current event loop.

    Args:
        target: ``host:port`` of the gRPC server.
        authority: the PEM certificate of its authority; None: plaintext.
    """

    def __init__(self, target: str, authority: bytes | None) -> None:
        options = [*_UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
        if authority is None:
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            self._channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(authority), options)
        self._calls: set[grpc.aio.UnaryStreamCall[Any, Any]] = set()
        self._closed = False

    async def close(self) -> None:
        """Cancel the active calls (they fail with UNAVAILABLE) and close the connection."""
        self._closed = True
        for call in tuple(self._calls):
            call.cancel()
        await self._channel.close()

    async def stream(
        self,
        method: str,
        request: Message,
        response_type: type[_Response],
        metadata: Sequence[tuple[str, str]],
        timeout: float | None = None,
        received: dict[str, str] | None = None,
    ) -> AsyncGenerator[_Response, None]:
        """Make a call and yield its messages. Closing the iterator, or cancelling its task, cancels the call.

        Args:
            method: the full name, such as ``"/yandex.cloud.operation.OperationService/Get"``.
            request: the request.
            response_type: the message class of the responses.
            metadata: the metadata to send, such as ``authorization``.
            timeout: seconds for the whole call; None: no limit.
            received: is updated with the initial metadata, such as ``x-request-id``, before the first message is
                yielded.

        Raises:
            CallFailed: the call ended with a status other than OK.
        """
        start: grpc.aio.UnaryStreamMultiCallable[Any, _Response] = self._channel.unary_stream(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response_type.FromString,
        )
        if self._closed:
            raise _stopped()
        call = start(request, metadata=tuple(metadata), timeout=timeout)
        self._calls.add(call)
        try:
            async for response in call:
                if received is not None:
                    received.update((key, str(value)) for key, value in await call.initial_metadata())
                    received = None
                yield response
        except grpc.aio.AioRpcError as error:
            raise _call_failed(error) from error
        except asyncio.CancelledError:
            if not (self._closed and call.cancelled()):
                raise
            raise _stopped() from None
        finally:
            self._calls.discard(call)
            call.cancel()

    async def unary(
        self,
        method: str,
        request: Message,
        response_type: type[_Response],
        metadata: Sequence[tuple[str, str]],
        timeout: float | None = None,
        received: dict[str, str] | None = None,
    ) -> _Response:
        """Make a call with one response (the last message). Arguments and errors are those of :meth:`stream`."""
        response: _Response | None = None
        async for message in self.stream(method, request, response_type, metadata, timeout, received):
            response = message
        if response is None:
            raise _own(grpc.StatusCode.INTERNAL, "no answer came")
        return response


def _stopped() -> CallFailed:
    return _own(grpc.StatusCode.UNAVAILABLE, "the emulator was stopped")


def _own(code: grpc.StatusCode, message: str) -> CallFailed:
    return CallFailed(code, message, status_pb2.Status(code=code.value[0], message=message), None)


def _call_failed(error: grpc.aio.AioRpcError) -> CallFailed:
    code, message = error.code(), error.details() or ""
    status = status_pb2.Status(code=code.value[0], message=message)
    request_id: str | None = None
    for key, value in (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())):
        if key == _STATUS_DETAILS:
            status = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode("latin-1"))
        elif key == _REQUEST_ID:
            request_id = str(value)
    return CallFailed(code, message, status, request_id)
