"""The table of the methods of the service that this package calls."""

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
    """A method of a generated stub, and the rules for its calls."""

    name: str
    """Its name in the log."""
    of_channel: Callable[[Any], Any]
    """Returns the stub's method for a channel."""
    kind: Literal["unary-unary", "unary-stream"] = "unary-unary"
    endpoint: Literal["endpoint", "operation_endpoint"] = "endpoint"
    """The attribute of the settings that holds its endpoint."""
    limit: Literal["max_concurrency", "polls"] | None = None
    """The limit on the number of its calls in flight, if there is one."""
    retry: Literal["safe", "idempotency-key"] = "safe"
    """Why a retry is safe: the method creates nothing, or all attempts carry the same key, so that the service creates
    one object. A stream is retried only before its first message was returned."""
    subject: Callable[[Any], str] = attrgetter("model_uri")
    """Returns what a request refers to, for the log."""
    not_found: str = ""
    """Advice to the user for NOT_FOUND."""

    @property
    def streams(self) -> bool:
        """Whether it returns a stream of completions, the last of which holds the whole answer."""
        return self.kind == "unary-stream"


_OPERATION_NOT_FOUND_ADVICE = (
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
        not_found=_OPERATION_NOT_FOUND_ADVICE,
    )
    Cancel = Method(
        "Cancel",
        lambda channel: OperationServiceStub(channel).Cancel,
        endpoint="operation_endpoint",
        subject=attrgetter("operation_id"),
        not_found=_OPERATION_NOT_FOUND_ADVICE,
    )
