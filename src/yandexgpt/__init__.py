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
    from yandexgpt._async.batch import AsyncResults
    from yandexgpt._async.chat import AsyncChat, Chat
    from yandexgpt._async.client import AsyncClient
    from yandexgpt._async.operation import AsyncOperation, Operation
    from yandexgpt._async.stream import AsyncStream, Stream
    from yandexgpt._chunks import Chunk
    from yandexgpt._features.batch import Result
    from yandexgpt._messages import Message, ToolCall, ToolResult
    from yandexgpt._models import Alternative, Completion, Status, Token, Usage
    from yandexgpt._openai.response import Response
    from yandexgpt._request import CompletionRequest, load_request
    from yandexgpt._retry import Retry
    from yandexgpt._rpc.batch import Results
    from yandexgpt._structured_output import Parsed
    from yandexgpt._sync.client import Client
    from yandexgpt._tools import Tool, tool
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
    "AsyncChat": "_async.chat",
    "AsyncClient": "_async.client",
    "AsyncResults": "_async.batch",
    "AsyncStream": "_async.stream",
    "Chat": "_async.chat",
    "Client": "_sync.client",
    "Result": "_features.batch",
    "Results": "_rpc.batch",
    "Stream": "_async.stream",
    "Alternative": "_models",
    "Completion": "_models",
    "Status": "_models",
    "Token": "_models",
    "Usage": "_models",
    "Chunk": "_chunks",
    "Message": "_messages",
    "ToolCall": "_messages",
    "ToolResult": "_messages",
    "AsyncOperation": "_async.operation",
    "Operation": "_async.operation",
    "CompletionRequest": "_request",
    "load_request": "_request",
    "Response": "_openai.response",
    "Retry": "_retry",
    "Parsed": "_structured_output",
    "Tool": "_tools",
    "tool": "_tools",
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
