"""The calls that this package makes, and what a driver must know of each."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2_grpc import (
    TextGenerationAsyncServiceStub,
    TextGenerationServiceStub,
    TokenizerServiceStub,
)
from yandexgpt._proto.yandex.cloud.operation.operation_service_pb2_grpc import OperationServiceStub

__all__ = ["CANCEL", "GENERATE", "LOOK_UP", "SUBMIT", "TOKENIZE", "TOKENIZE_PROMPT", "Method"]


class Method(NamedTuple):
    """A method of a generated stub."""

    stub: type[Any]
    name: str
    endpoint: Literal["endpoint", "operation_endpoint"] = "endpoint"
    """Which of a client's endpoints it is called at."""
    generates: bool = False
    """Whether its answers are completions, written while the caller waits: they may be partial, and count against
    ``max_concurrency``."""
    paced: bool = False
    """Whether its calls are spaced, so that no more than the service allows arrive in a second."""
    not_found: str = ""
    """What a person can do about NOT_FOUND."""


_LOST = (
    "results are kept for three days: check the operation's id, and that the account may see the folder that it was "
    "submitted in"
)

GENERATE = Method(TextGenerationServiceStub, "Completion", generates=True)
SUBMIT = Method(TextGenerationAsyncServiceStub, "Completion")
LOOK_UP = Method(OperationServiceStub, "Get", "operation_endpoint", paced=True, not_found=_LOST)
CANCEL = Method(OperationServiceStub, "Cancel", "operation_endpoint", not_found=_LOST)
TOKENIZE = Method(TokenizerServiceStub, "Tokenize")
TOKENIZE_PROMPT = Method(TokenizerServiceStub, "TokenizeCompletion")
