from collections.abc import AsyncIterator as _AsyncIterator, Awaitable as _Awaitable, Iterator as _Iterator
from typing import Any as _Any, type_check_only as _type_check_only
import grpc
import grpc.aio
from yandexgpt._proto.yandex.cloud.operation import operation_pb2 as _yandex_cloud_operation_operation_pb2
from yandexgpt._proto.yandex.cloud.operation import operation_service_pb2 as _yandex_cloud_operation_operation_service_pb2

class OperationServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Get: grpc.UnaryUnaryMultiCallable[_yandex_cloud_operation_operation_service_pb2.GetOperationRequest, _yandex_cloud_operation_operation_pb2.Operation]
    Cancel: grpc.UnaryUnaryMultiCallable[_yandex_cloud_operation_operation_service_pb2.CancelOperationRequest, _yandex_cloud_operation_operation_pb2.Operation]

@_type_check_only
class OperationServiceAsyncStub:
    """What a OperationServiceStub on a grpc.aio.Channel is."""
    Get: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_operation_operation_service_pb2.GetOperationRequest, _yandex_cloud_operation_operation_pb2.Operation]
    Cancel: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_operation_operation_service_pb2.CancelOperationRequest, _yandex_cloud_operation_operation_pb2.Operation]

class OperationServiceServicer:
    def Get(self, request: _yandex_cloud_operation_operation_service_pb2.GetOperationRequest, context: _Any) -> _yandex_cloud_operation_operation_pb2.Operation | _Awaitable[_yandex_cloud_operation_operation_pb2.Operation]: ...
    def Cancel(self, request: _yandex_cloud_operation_operation_service_pb2.CancelOperationRequest, context: _Any) -> _yandex_cloud_operation_operation_pb2.Operation | _Awaitable[_yandex_cloud_operation_operation_pb2.Operation]: ...

def add_OperationServiceServicer_to_server(servicer: OperationServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...
