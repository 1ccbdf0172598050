from collections.abc import AsyncIterator as _AsyncIterator, Awaitable as _Awaitable, Iterator as _Iterator
from typing import Any as _Any, type_check_only as _type_check_only
import grpc
import grpc.aio
from yandexgpt._proto.yandex.cloud.endpoint import api_endpoint_pb2 as _yandex_cloud_endpoint_api_endpoint_pb2
from yandexgpt._proto.yandex.cloud.endpoint import api_endpoint_service_pb2 as _yandex_cloud_endpoint_api_endpoint_service_pb2

class ApiEndpointServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Get: grpc.UnaryUnaryMultiCallable[_yandex_cloud_endpoint_api_endpoint_service_pb2.GetApiEndpointRequest, _yandex_cloud_endpoint_api_endpoint_pb2.ApiEndpoint]
    List: grpc.UnaryUnaryMultiCallable[_yandex_cloud_endpoint_api_endpoint_service_pb2.ListApiEndpointsRequest, _yandex_cloud_endpoint_api_endpoint_service_pb2.ListApiEndpointsResponse]

@_type_check_only
class ApiEndpointServiceAsyncStub:
    """What a ApiEndpointServiceStub on a grpc.aio.Channel is."""
    Get: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_endpoint_api_endpoint_service_pb2.GetApiEndpointRequest, _yandex_cloud_endpoint_api_endpoint_pb2.ApiEndpoint]
    List: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_endpoint_api_endpoint_service_pb2.ListApiEndpointsRequest, _yandex_cloud_endpoint_api_endpoint_service_pb2.ListApiEndpointsResponse]

class ApiEndpointServiceServicer:
    def Get(self, request: _yandex_cloud_endpoint_api_endpoint_service_pb2.GetApiEndpointRequest, context: _Any) -> _yandex_cloud_endpoint_api_endpoint_pb2.ApiEndpoint | _Awaitable[_yandex_cloud_endpoint_api_endpoint_pb2.ApiEndpoint]: ...
    def List(self, request: _yandex_cloud_endpoint_api_endpoint_service_pb2.ListApiEndpointsRequest, context: _Any) -> _yandex_cloud_endpoint_api_endpoint_service_pb2.ListApiEndpointsResponse | _Awaitable[_yandex_cloud_endpoint_api_endpoint_service_pb2.ListApiEndpointsResponse]: ...

def add_ApiEndpointServiceServicer_to_server(servicer: ApiEndpointServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...
