"""The methods of the service that this package calls: the one table of them."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2_grpc import (
    TextGenerationAsyncServiceStub,
    TextGenerationServiceStub,
    TokenizerServiceStub,
)
from yandexgpt._proto.yandex.cloud.operation.operation_service_pb2_grpc import OperationServiceStub

__all__ = ["Method", "OperationService", "TextGenerationAsyncService", "TextGenerationService", "TokenizerService"]


class Method(NamedTuple):
    """A method of a generated stub, and how it is called."""

    name: str
    """In the log."""
    of_channel: Callable[[Any], Any]
    """The stub's method, on a channel."""
    kind: Literal["unary-unary", "unary-stream"] = "unary-unary"
    endpoint: Literal["endpoint", "operation_endpoint"] = "endpoint"
    """Which of a client's endpoints it is called at."""
    limit: Literal["max_concurrency", "polls"] | None = None
    """What bounds how many of its calls are in flight."""
    retry: Literal["safe", "idempotency-key"] = "safe"
    """Why an attempt may be sent again: nothing is created, or a key that all attempts carry makes it one creation.
    A stream is sent again only while nothing of it has been handed out."""
    subject: Callable[[Any], str] = attrgetter("model_uri")
    """What a request is about, in the log."""
    not_found: str = ""
    """What a person can do about NOT_FOUND."""

    @property
    def streams(self) -> bool:
        """Whether its answers are streams of completions, the last of which is the whole one."""
        return self.kind == "unary-stream"


_OPERATION_LOST = (
    "results are kept for three days: check the operation's id, and that the account may see the folder that it was "
    "submitted in"
)


class TextGenerationService:
    Completion = Method(
        "Completion",
        lambda channel: TextGenerationServiceStub(channel).Completion,
        kind="unary-stream",
        limit="max_concurrency",
    )


class TextGenerationAsyncService:
    Completion = Method(
        "Completion", lambda channel: TextGenerationAsyncServiceStub(channel).Completion, retry="idempotency-key"
    )


class TokenizerService:
    Tokenize = Method("Tokenize", lambda channel: TokenizerServiceStub(channel).Tokenize)
    TokenizeCompletion = Method("TokenizeCompletion", lambda channel: TokenizerServiceStub(channel).TokenizeCompletion)


class OperationService:
    Get = Method(
        "Get",
        lambda channel: OperationServiceStub(channel).Get,
        endpoint="operation_endpoint",
        limit="polls",
        subject=attrgetter("operation_id"),
        not_found=_OPERATION_LOST,
    )
    Cancel = Method(
        "Cancel",
        lambda channel: OperationServiceStub(channel).Cancel,
        endpoint="operation_endpoint",
        subject=attrgetter("operation_id"),
        not_found=_OPERATION_LOST,
    )
