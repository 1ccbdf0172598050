"""ApiEndpointService: where the services are, for clients that ask before they call."""

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
"""The ids that Yandex's SDKs look up for AI services, and for the services that those need.

Those of services that are not emulated are among them: their calls are to fail here, not to go to the cloud.
"""
_ADDRESS = re.compile(r"\S+:\d{1,5}")


class Discovery:
    """Every service is at the emulator's own address, as the client used it.

    So an emulator behind another name or a mapped port is found again. No credential is asked for, as clients send none
    here; a call is neither recorded nor touched by the script, so that a client that looks up meets what was scripted
    in the same way as one that does not. Answers come on one page.

    Args:
        own_address: ``host:port`` of the emulator, for calls that do not say which address they used.
    """

    def __init__(self, own_address: Callable[[], str]) -> None:
        self._own_address = own_address

    def handler(self) -> grpc.GenericRpcHandler:
        """The service for ``grpc.Server.add_generic_rpc_handlers``."""
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
        """The ``:authority`` of the call: gRPC keeps it out of the metadata, and out of the public interface."""
        details = getattr(getattr(context, "_rpc_event", None), "call_details", None)
        host = getattr(details, "host", None)
        used = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
        return used if _ADDRESS.fullmatch(used) else self._own_address()
