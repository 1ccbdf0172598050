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
    from yandexgpt.client import Client
    from yandexgpt.completion import Alternative, Completion, Status, Usage
    from yandexgpt.errors import (
        APIError,
        AuthenticationError,
        CancelledError,
        ConfigurationError,
        DeadlineExceededError,
        FailedPreconditionError,
        InternalServerError,
        InvalidArgumentError,
        NotFoundError,
        PermissionDeniedError,
        QuotaExceededError,
        RevisedError,
        UnavailableError,
        UnimplementedError,
        YandexGPTError,
    )
    from yandexgpt.folding import Chunk
    from yandexgpt.messages import Message, ToolCall
    from yandexgpt.request import load_request
    from yandexgpt.retry import Retry
    from yandexgpt.streaming import AsyncStream, Stream

__all__ = [
    "APIError",
    "Alternative",
    "AsyncClient",
    "AsyncStream",
    "AuthenticationError",
    "CancelledError",
    "Chunk",
    "Client",
    "Completion",
    "ConfigurationError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalServerError",
    "InvalidArgumentError",
    "Message",
    "NotFoundError",
    "PermissionDeniedError",
    "QuotaExceededError",
    "Retry",
    "RevisedError",
    "Status",
    "Stream",
    "ToolCall",
    "UnavailableError",
    "UnimplementedError",
    "Usage",
    "YandexGPTError",
    "__version__",
    "credentials",
    "emulator",
    "errors",
    "load_request",
]

_MODULES = ("credentials", "emulator", "errors")
_HOME = {
    "AsyncClient": "aio",
    "AsyncStream": "streaming",
    "Client": "client",
    "Stream": "streaming",
    "Alternative": "completion",
    "Completion": "completion",
    "Status": "completion",
    "Usage": "completion",
    "Chunk": "folding",
    "Message": "messages",
    "ToolCall": "messages",
    "load_request": "request",
    "Retry": "retry",
}


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
