"""The status for requests that cannot be decoded."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from yandexgpt.emulator.error_status import ErrorStatus

__all__ = ["DecodeErrorInterceptor"]


class _DecodeFailure:
    """Replaces a request whose bytes are not a message of its type."""


class DecodeErrorInterceptor(grpc.ServerInterceptor):
    """Answers INVALID_ARGUMENT to a request that cannot be decoded. gRPC would answer INTERNAL and log a traceback."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of the method, with a request deserializer that does not raise an error."""
        handler = continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler  # the request is not decoded
        deserialize = handler.request_deserializer

        def read(data: bytes) -> Any:
            try:
                return deserialize(data)
            except DecodeError:
                return _DecodeFailure()

        def checked(respond: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
            def handle(request: Any, context: grpc.ServicerContext) -> Any:
                if isinstance(request, _DecodeFailure):
                    status = ErrorStatus(grpc.StatusCode.INVALID_ARGUMENT, f"this is no request of {method}")
                    context.set_trailing_metadata(status.trailing_metadata(str(uuid.uuid4())))
                    context.abort(status.code, status.message)
                return respond(request, context)

            return handle

        method = handler_call_details.method
        codecs = {"request_deserializer": read, "response_serializer": handler.response_serializer}
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(checked(handler.unary_stream), **codecs)
        assert handler.unary_unary is not None  # noqa: S101 - the interface has no methods of other kinds
        return grpc.unary_unary_rpc_method_handler(checked(handler.unary_unary), **codecs)
