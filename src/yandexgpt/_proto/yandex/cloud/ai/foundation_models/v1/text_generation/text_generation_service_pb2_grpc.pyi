from collections.abc import AsyncIterator as _AsyncIterator, Awaitable as _Awaitable, Iterator as _Iterator
from typing import Any as _Any, type_check_only as _type_check_only
import grpc
import grpc.aio
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2 as _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2
from yandexgpt._proto.yandex.cloud.operation import operation_pb2 as _yandex_cloud_operation_operation_pb2

class TextGenerationServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Completion: grpc.UnaryStreamMultiCallable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionRequest, _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionResponse]

@_type_check_only
class TextGenerationServiceAsyncStub:
    """What a TextGenerationServiceStub on a grpc.aio.Channel is."""
    Completion: grpc.aio.UnaryStreamMultiCallable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionRequest, _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionResponse]

class TextGenerationServiceServicer:
    def Completion(self, request: _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionRequest, context: _Any) -> _Iterator[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionResponse] | _AsyncIterator[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionResponse]: ...

def add_TextGenerationServiceServicer_to_server(servicer: TextGenerationServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...

class TextGenerationAsyncServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Completion: grpc.UnaryUnaryMultiCallable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionRequest, _yandex_cloud_operation_operation_pb2.Operation]

@_type_check_only
class TextGenerationAsyncServiceAsyncStub:
    """What a TextGenerationAsyncServiceStub on a grpc.aio.Channel is."""
    Completion: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionRequest, _yandex_cloud_operation_operation_pb2.Operation]

class TextGenerationAsyncServiceServicer:
    def Completion(self, request: _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionRequest, context: _Any) -> _yandex_cloud_operation_operation_pb2.Operation | _Awaitable[_yandex_cloud_operation_operation_pb2.Operation]: ...

def add_TextGenerationAsyncServiceServicer_to_server(servicer: TextGenerationAsyncServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...

class TextGenerationBatchServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Completion: grpc.UnaryUnaryMultiCallable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.BatchCompletionRequest, _yandex_cloud_operation_operation_pb2.Operation]

@_type_check_only
class TextGenerationBatchServiceAsyncStub:
    """What a TextGenerationBatchServiceStub on a grpc.aio.Channel is."""
    Completion: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.BatchCompletionRequest, _yandex_cloud_operation_operation_pb2.Operation]

class TextGenerationBatchServiceServicer:
    def Completion(self, request: _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.BatchCompletionRequest, context: _Any) -> _yandex_cloud_operation_operation_pb2.Operation | _Awaitable[_yandex_cloud_operation_operation_pb2.Operation]: ...

def add_TextGenerationBatchServiceServicer_to_server(servicer: TextGenerationBatchServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...

class TokenizerServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    Tokenize: grpc.UnaryUnaryMultiCallable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeRequest, _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeResponse]
    TokenizeCompletion: grpc.UnaryUnaryMultiCallable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionRequest, _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeResponse]

@_type_check_only
class TokenizerServiceAsyncStub:
    """What a TokenizerServiceStub on a grpc.aio.Channel is."""
    Tokenize: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeRequest, _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeResponse]
    TokenizeCompletion: grpc.aio.UnaryUnaryMultiCallable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionRequest, _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeResponse]

class TokenizerServiceServicer:
    def Tokenize(self, request: _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeRequest, context: _Any) -> _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeResponse | _Awaitable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeResponse]: ...
    def TokenizeCompletion(self, request: _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.CompletionRequest, context: _Any) -> _yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeResponse | _Awaitable[_yandex_cloud_ai_foundation_models_v1_text_generation_text_generation_service_pb2.TokenizeResponse]: ...

def add_TokenizerServiceServicer_to_server(servicer: TokenizerServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...
