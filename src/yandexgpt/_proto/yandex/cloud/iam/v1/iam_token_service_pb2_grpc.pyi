from collections.abc import AsyncIterator as _AsyncIterator, Awaitable as _Awaitable, Iterator as _Iterator
from typing import Any as _Any, type_check_only as _type_check_only
import grpc
import grpc.aio
from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2 as _yandex_cloud_iam_v1_iam_token_service_pb2

class IamTokenServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Create: grpc.UnaryUnaryMultiCallable[_yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenRequest, _yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenResponse]
    CreateForServiceAccount: grpc.UnaryUnaryMultiCallable[_yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenForServiceAccountRequest, _yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenResponse]
    Revoke: grpc.UnaryUnaryMultiCallable[_yandex_cloud_iam_v1_iam_token_service_pb2.RevokeIamTokenRequest, _yandex_cloud_iam_v1_iam_token_service_pb2.RevokeIamTokenResponse]

@_type_check_only
class IamTokenServiceAsyncStub:
    """What a IamTokenServiceStub on a grpc.aio.Channel is."""
    Create: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenRequest, _yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenResponse]
    CreateForServiceAccount: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenForServiceAccountRequest, _yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenResponse]
    Revoke: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_iam_v1_iam_token_service_pb2.RevokeIamTokenRequest, _yandex_cloud_iam_v1_iam_token_service_pb2.RevokeIamTokenResponse]

class IamTokenServiceServicer:
    def Create(self, request: _yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenRequest, context: _Any) -> _yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenResponse | _Awaitable[_yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenResponse]: ...
    def CreateForServiceAccount(self, request: _yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenForServiceAccountRequest, context: _Any) -> _yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenResponse | _Awaitable[_yandex_cloud_iam_v1_iam_token_service_pb2.CreateIamTokenResponse]: ...
    def Revoke(self, request: _yandex_cloud_iam_v1_iam_token_service_pb2.RevokeIamTokenRequest, context: _Any) -> _yandex_cloud_iam_v1_iam_token_service_pb2.RevokeIamTokenResponse | _Awaitable[_yandex_cloud_iam_v1_iam_token_service_pb2.RevokeIamTokenResponse]: ...

def add_IamTokenServiceServicer_to_server(servicer: IamTokenServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...
