"""The methods that can be forwarded, recorded and replayed: all emulated methods."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2
from yandexgpt._proto.yandex.cloud.operation import operation_service_pb2

__all__ = ["AllMethodsHandler", "Method", "RawRequest", "find_method", "methods"]

_FILES = (text_generation_service_pb2, operation_service_pb2, iam_token_service_pb2)


class Method(NamedTuple):
    """A method of the service.

    Attributes:
        path: the full name on the wire: ``"/yandex.cloud.operation.OperationService/Get"``.
        name: the short name in a recording: ``"OperationService/Get"``.
        request_type, response_type: the message classes.
    """

    path: str
    name: str
    request_type: type[Message]
    response_type: type[Message]

    @property
    def service(self) -> str:
        """The name of its service, without the package."""
        return self.name.partition("/")[0]

    @property
    def is_generation(self) -> bool:
        """Whether it generates answers synchronously."""
        return self.service == "TextGenerationService"

    @property
    def needs_credentials(self) -> bool:
        """Whether its calls need a credential."""
        return self.service != "IamTokenService"


@functools.cache
def methods() -> Mapping[str, Method]:
    """All methods by their path."""
    found = (
        Method(
            f"/{service.full_name}/{method.name}",
            f"{service.name}/{method.name}",
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
        )
        for file in _FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    )
    return {method.path: method for method in found}


def find_method(name: str) -> Method | None:
    """The method with this name, short (``OperationService/Get``) or full, with or without a leading slash."""
    wanted = name.removeprefix("/")
    return next((each for each in methods().values() if wanted in (each.name, each.path[1:])), None)


class RawRequest(NamedTuple):
    """A request: the received bytes and the parsed message."""

    data: bytes
    message: Message


class AllMethodsHandler(grpc.GenericRpcHandler):
    """Handles all methods with one function.

    All methods are registered as response streams. On the wire, a single response is a stream of one message.

    Args:
        serve: gets the method, the request and gRPC's context, and returns the serialized response messages.
    """

    def __init__(self, serve: Callable[[Method, RawRequest, grpc.ServicerContext], Iterator[bytes]]) -> None:
        self._serve = serve

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a method; None for an unknown method."""
        method = methods().get(handler_call_details.method)
        if method is None:
            return None
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
            functools.partial(self._serve, method),
            request_deserializer=lambda data: RawRequest(data, method.request_type.FromString(data)),
        )
        return handler
