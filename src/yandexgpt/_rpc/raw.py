"""The generated stubs, for features that the clients do not have."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import (
    text_generation_service_pb2_grpc as text_generation_grpc,
)
from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2_grpc
from yandexgpt._proto.yandex.cloud.operation import operation_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from yandexgpt._config import Settings
    from yandexgpt._endpoint import Endpoint

__all__ = ["AsyncRaw", "Raw"]


class Raw:
    """The generated stubs, on channels that send the client's metadata.

    Their calls are plain gRPC calls: no default deadline, no retries, and they raise ``grpc.RpcError``.
    """

    def __init__(
        self, settings: Settings, check_open: Callable[[], None], open_channel: Callable[[Endpoint], Any]
    ) -> None:
        self._settings = settings
        self._check_open = check_open
        self._open_channel = open_channel
        self._channels: dict[Endpoint, Any] = {}

    def _channel(self, endpoint: Endpoint) -> Any:
        self._check_open()  # creating a stub on a closed channel crashes the process
        channel = self._channels.get(endpoint)
        if channel is None:
            channel = self._channels[endpoint] = self._open_channel(endpoint)
        return channel

    @property
    def _generation_channel(self) -> Any:
        return self._channel(self._settings.endpoint)

    @cached_property
    def text_generation(self) -> text_generation_grpc.TextGenerationServiceStub:
        """``TextGenerationService``: ``Completion``, always streamed."""
        return text_generation_grpc.TextGenerationServiceStub(self._generation_channel)

    @cached_property
    def text_generation_async(self) -> text_generation_grpc.TextGenerationAsyncServiceStub:
        """``TextGenerationAsyncService``: ``Completion``, which returns an operation."""
        return text_generation_grpc.TextGenerationAsyncServiceStub(self._generation_channel)

    @cached_property
    def text_generation_batch(self) -> text_generation_grpc.TextGenerationBatchServiceStub:
        """``TextGenerationBatchService``, which the interface definition marks as not implemented."""
        return text_generation_grpc.TextGenerationBatchServiceStub(self._generation_channel)

    @cached_property
    def tokenizer(self) -> text_generation_grpc.TokenizerServiceStub:
        """``TokenizerService``: ``Tokenize``, ``TokenizeCompletion``."""
        return text_generation_grpc.TokenizerServiceStub(self._generation_channel)

    @cached_property
    def operations(self) -> operation_service_pb2_grpc.OperationServiceStub:
        """``OperationService``: ``Get``, ``Cancel``."""
        return operation_service_pb2_grpc.OperationServiceStub(self._channel(self._settings.operation_endpoint))

    @cached_property
    def iam_tokens(self) -> iam_token_service_pb2_grpc.IamTokenServiceStub:
        """``IamTokenService``: ``Create`` and others."""
        return iam_token_service_pb2_grpc.IamTokenServiceStub(self._channel(self._settings.iam_endpoint))


if TYPE_CHECKING:

    class AsyncRaw(Raw):
        """The stubs on channels of ``grpc.aio``, whose calls are awaited."""

        text_generation: text_generation_grpc.TextGenerationServiceAsyncStub  # type: ignore[assignment]
        text_generation_async: text_generation_grpc.TextGenerationAsyncServiceAsyncStub  # type: ignore[assignment]
        text_generation_batch: text_generation_grpc.TextGenerationBatchServiceAsyncStub  # type: ignore[assignment]
        tokenizer: text_generation_grpc.TokenizerServiceAsyncStub  # type: ignore[assignment]
        operations: operation_service_pb2_grpc.OperationServiceAsyncStub  # type: ignore[assignment]
        iam_tokens: iam_token_service_pb2_grpc.IamTokenServiceAsyncStub  # type: ignore[assignment]

else:
    AsyncRaw = Raw  # the channel decides whether the calls of a stub are synchronous or asynchronous
