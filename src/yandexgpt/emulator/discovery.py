"""ApiEndpointService: returns the addresses of the services to clients that ask for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import grpc

from yandexgpt._proto.yandex.cloud.endpoint import api_endpoint_pb2, api_endpoint_service_pb2
from yandexgpt.emulator.error_status import abbreviated

__all__ = ["ENDPOINTS", "Discovery"]

_SERVICE = api_endpoint_service_pb2.DESCRIPTOR.services_by_name["ApiEndpointService"].full_name

ENDPOINTS = (
    "ai-assistants",
    "ai-files",
    "ai-foundation-models",
    "ai-llm",
    "ai-speechkit",
    "ai-stt",
    "ai-stt-v3",
    "ai-translate",
    "ai-tts-v3",
    "ai-vision",
    "ai-vision-ocr",
    "endpoint",
    "iam",
    "llm",
    "operation",
    "searchapi",
)
"""The service ids that Yandex's SDKs look up for AI services and their dependencies.

The list includes services that are not emulated. Calls to them must fail in the emulator and not reach the cloud.
"""
_ADDRESS = re.compile(r"\S+:\d{1,5}")


class Discovery:
    """Returns the emulator's own address for every service, as the client used it.

    This works for an emulator behind another host name or a mapped port too. No credential is required, because clients
    send none. Calls are not recorded and use no scripted failure, so the script affects clients with and without
    discovery in the same way. Lists are returned on one page.

    Args:
        own_address: returns ``host:port`` of the emulator, for calls without a known address.
    """

    def __init__(self, own_address: Callable[[], str]) -> None:
        self._own_address = own_address

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler for ``grpc.Server.add_generic_rpc_handlers``."""
        get: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            self._get,
            request_deserializer=api_endpoint_service_pb2.GetApiEndpointRequest.FromString,
            response_serializer=api_endpoint_pb2.ApiEndpoint.SerializeToString,
        )
        listing: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            self._list,
            request_deserializer=api_endpoint_service_pb2.ListApiEndpointsRequest.FromString,
            response_serializer=api_endpoint_service_pb2.ListApiEndpointsResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(_SERVICE, {"Get": get, "List": listing})

    def _get(
        self, request: api_endpoint_service_pb2.GetApiEndpointRequest, context: grpc.ServicerContext
    ) -> api_endpoint_pb2.ApiEndpoint:
        if request.api_endpoint_id not in ENDPOINTS:
            context.abort(grpc.StatusCode.NOT_FOUND, f"API endpoint {abbreviated(request.api_endpoint_id)} not found")
        return api_endpoint_pb2.ApiEndpoint(id=request.api_endpoint_id, address=self._address(context))

    def _list(
        self, _request: api_endpoint_service_pb2.ListApiEndpointsRequest, context: grpc.ServicerContext
    ) -> api_endpoint_service_pb2.ListApiEndpointsResponse:
        address = self._address(context)
        endpoints = [api_endpoint_pb2.ApiEndpoint(id=name, address=address) for name in ENDPOINTS]
        return api_endpoint_service_pb2.ListApiEndpointsResponse(endpoints=endpoints)

    def _address(self, context: grpc.ServicerContext) -> str:
        """The ``:authority`` of the call. gRPC offers no public API for it."""
        details = getattr(getattr(context, "_rpc_event", None), "call_details", None)
        host = getattr(details, "host", None)
        used = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
        return used if _ADDRESS.fullmatch(used) else self._own_address()
