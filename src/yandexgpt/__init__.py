"""gRPC client for YandexGPT text generation.

    import yandexgpt

    with yandexgpt.Client() as client:
        print(client.complete("Расскажи о Байкале").text)

Everything public is here, and in the modules ``yandexgpt.credentials``, ``yandexgpt.errors`` and
``yandexgpt.emulator``. All of it is loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from yandexgpt._version import __version__

if TYPE_CHECKING:
    from yandexgpt import credentials, emulator, errors
    from yandexgpt.aio import AsyncClient
    from yandexgpt.aio_batch import AsyncResults
    from yandexgpt.batch import Results
    from yandexgpt.batch_plan import Result
    from yandexgpt.chat import AsyncChat, Chat
    from yandexgpt.client import Client
    from yandexgpt.completion import Alternative, Completion, Status, Token, Usage
    from yandexgpt.errors import (
        APIError,
        AuthenticationError,
        CancelledError,
        ConfigurationError,
        ContentFilterError,
        DeadlineExceededError,
        FailedPreconditionError,
        InternalServerError,
        InvalidAnswerError,
        InvalidArgumentError,
        NotFoundError,
        OperationFailed,
        OperationTimeout,
        PermissionDeniedError,
        PromptTooLongError,
        QuotaExceededError,
        RevisedError,
        ToolRoundsError,
        TruncatedError,
        UnavailableError,
        UnimplementedError,
        YandexGPTError,
    )
    from yandexgpt.folding import Chunk
    from yandexgpt.messages import Message, ToolCall, ToolResult
    from yandexgpt.operation import AsyncOperation, Operation
    from yandexgpt.request import CompletionRequest, load_request
    from yandexgpt.response import Response
    from yandexgpt.retry import Retry
    from yandexgpt.streaming import AsyncStream, Stream
    from yandexgpt.structure import Parsed
    from yandexgpt.tools import Tool, tool

__all__ = [
    "APIError",
    "Alternative",
    "AsyncChat",
    "AsyncClient",
    "AsyncOperation",
    "AsyncResults",
    "AsyncStream",
    "AuthenticationError",
    "CancelledError",
    "Chat",
    "Chunk",
    "Client",
    "Completion",
    "CompletionRequest",
    "ConfigurationError",
    "ContentFilterError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalServerError",
    "InvalidAnswerError",
    "InvalidArgumentError",
    "Message",
    "NotFoundError",
    "Operation",
    "OperationFailed",
    "OperationTimeout",
    "Parsed",
    "PermissionDeniedError",
    "PromptTooLongError",
    "QuotaExceededError",
    "Response",
    "Result",
    "Results",
    "Retry",
    "RevisedError",
    "Status",
    "Stream",
    "Token",
    "Tool",
    "ToolCall",
    "ToolResult",
    "ToolRoundsError",
    "TruncatedError",
    "UnavailableError",
    "UnimplementedError",
    "Usage",
    "YandexGPTError",
    "__version__",
    "credentials",
    "emulator",
    "errors",
    "load_request",
    "tool",
]

_MODULES = ("credentials", "emulator", "errors")
_HOME = {
    "AsyncChat": "chat",
    "AsyncClient": "aio",
    "AsyncResults": "aio_batch",
    "AsyncStream": "streaming",
    "Chat": "chat",
    "Client": "client",
    "Result": "batch_plan",
    "Results": "batch",
    "Stream": "streaming",
    "Alternative": "completion",
    "Completion": "completion",
    "Status": "completion",
    "Token": "completion",
    "Usage": "completion",
    "Chunk": "folding",
    "Message": "messages",
    "ToolCall": "messages",
    "ToolResult": "messages",
    "AsyncOperation": "operation",
    "Operation": "operation",
    "CompletionRequest": "request",
    "load_request": "request",
    "Response": "response",
    "Retry": "retry",
    "Parsed": "structure",
    "Tool": "tools",
    "tool": "tools",
}


if not TYPE_CHECKING:  # a checker that saw it would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'yandexgpt' has no attribute {name!r}")
        if name in _MODULES:
            return importlib.import_module(f"yandexgpt.{name}")
        value = getattr(importlib.import_module(f"yandexgpt.{_HOME.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
