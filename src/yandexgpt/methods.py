"""The calls that this package makes, and what a driver must know of each."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2_grpc import (
    TextGenerationServiceStub,
)

__all__ = ["GENERATE", "Method"]


class Method(NamedTuple):
    """A method of a generated stub."""

    stub: type[Any]
    name: str
    endpoint: Literal["endpoint", "operation_endpoint"] = "endpoint"
    """Which of a client's endpoints it is called at."""
    generates: bool = False
    """Whether its answers are completions, written while the caller waits: they may be partial, and count against
    ``max_concurrency``."""


GENERATE = Method(TextGenerationServiceStub, "Completion", generates=True)
