"""gRPC client for YandexGPT text generation.

    import yandexgpt

    with yandexgpt.Client() as client:
        print(client.complete("Расскажи о Байкале").text)

The public interface is this module, ``yandexgpt.credentials``, ``yandexgpt.errors`` and ``yandexgpt.emulator``. Every
name is loaded on first use, so that importing the package is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from yandexgpt._version import __version__ as __version__

if TYPE_CHECKING:
    from yandexgpt import credentials as credentials
    from yandexgpt import emulator as emulator
    from yandexgpt import errors as errors
    from yandexgpt._async.batch import AsyncResults as AsyncResults
    from yandexgpt._async.chat import AsyncChat as AsyncChat
    from yandexgpt._async.client import AsyncClient as AsyncClient
    from yandexgpt._async.operation import AsyncOperation as AsyncOperation
    from yandexgpt._async.stream import AsyncStream as AsyncStream
    from yandexgpt._chunks import Chunk as Chunk
    from yandexgpt._features.batch import Result as Result
    from yandexgpt._messages import (
        Message as Message,
    )
    from yandexgpt._messages import (
        ToolCall as ToolCall,
    )
    from yandexgpt._messages import (
        ToolResult as ToolResult,
    )
    from yandexgpt._models import (
        Alternative as Alternative,
    )
    from yandexgpt._models import (
        Completion as Completion,
    )
    from yandexgpt._models import (
        Status as Status,
    )
    from yandexgpt._models import (
        Token as Token,
    )
    from yandexgpt._models import (
        Usage as Usage,
    )
    from yandexgpt._openai.response import Response as Response
    from yandexgpt._request import (
        CompletionRequest as CompletionRequest,
    )
    from yandexgpt._request import (
        load_request as load_request,
    )
    from yandexgpt._retry import Retry as Retry
    from yandexgpt._structured_output import Parsed as Parsed
    from yandexgpt._sync.batch import Results as Results
    from yandexgpt._sync.chat import Chat as Chat
    from yandexgpt._sync.client import Client as Client
    from yandexgpt._sync.operation import Operation as Operation
    from yandexgpt._sync.stream import Stream as Stream
    from yandexgpt._tools import (
        Tool as Tool,
    )
    from yandexgpt._tools import (
        tool as tool,
    )
    from yandexgpt.errors import (
        APIError as APIError,
    )
    from yandexgpt.errors import (
        AuthenticationError as AuthenticationError,
    )
    from yandexgpt.errors import (
        CancelledError as CancelledError,
    )
    from yandexgpt.errors import (
        ConfigurationError as ConfigurationError,
    )
    from yandexgpt.errors import (
        ContentFilterError as ContentFilterError,
    )
    from yandexgpt.errors import (
        DeadlineExceededError as DeadlineExceededError,
    )
    from yandexgpt.errors import (
        FailedPreconditionError as FailedPreconditionError,
    )
    from yandexgpt.errors import (
        InternalServerError as InternalServerError,
    )
    from yandexgpt.errors import (
        InvalidAnswerError as InvalidAnswerError,
    )
    from yandexgpt.errors import (
        InvalidArgumentError as InvalidArgumentError,
    )
    from yandexgpt.errors import (
        NotFoundError as NotFoundError,
    )
    from yandexgpt.errors import (
        OperationFailed as OperationFailed,
    )
    from yandexgpt.errors import (
        OperationTimeout as OperationTimeout,
    )
    from yandexgpt.errors import (
        PermissionDeniedError as PermissionDeniedError,
    )
    from yandexgpt.errors import (
        PromptTooLongError as PromptTooLongError,
    )
    from yandexgpt.errors import (
        QuotaExceededError as QuotaExceededError,
    )
    from yandexgpt.errors import (
        RevisedError as RevisedError,
    )
    from yandexgpt.errors import (
        ToolRoundsError as ToolRoundsError,
    )
    from yandexgpt.errors import (
        TruncatedError as TruncatedError,
    )
    from yandexgpt.errors import (
        UnavailableError as UnavailableError,
    )
    from yandexgpt.errors import (
        UnimplementedError as UnimplementedError,
    )
    from yandexgpt.errors import (
        YandexGPTError as YandexGPTError,
    )

_PUBLIC_MODULES = ("credentials", "emulator", "errors")
_NAMES_BY_MODULE = {
    "_async.batch": "AsyncResults",
    "_async.chat": "AsyncChat",
    "_async.client": "AsyncClient",
    "_async.operation": "AsyncOperation",
    "_async.stream": "AsyncStream",
    "_chunks": "Chunk",
    "_features.batch": "Result",
    "_messages": "Message ToolCall ToolResult",
    "_models": "Alternative Completion Status Token Usage",
    "_openai.response": "Response",
    "_request": "CompletionRequest load_request",
    "_retry": "Retry",
    "_structured_output": "Parsed",
    "_sync.batch": "Results",
    "_sync.chat": "Chat",
    "_sync.client": "Client",
    "_sync.operation": "Operation",
    "_sync.stream": "Stream",
    "_tools": "Tool tool",
    "errors": (
        "APIError AuthenticationError CancelledError ConfigurationError ContentFilterError "
        "DeadlineExceededError FailedPreconditionError InternalServerError InvalidAnswerError "
        "InvalidArgumentError NotFoundError OperationFailed OperationTimeout PermissionDeniedError "
        "PromptTooLongError QuotaExceededError RevisedError ToolRoundsError TruncatedError UnavailableError "
        "UnimplementedError YandexGPTError"
    ),
}
"""The public names by module. The same names as in the imports above, which are for type checkers."""
_MODULE_BY_NAME = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}

__all__ = sorted([*_MODULE_BY_NAME, *_PUBLIC_MODULES, "__version__"])

if not TYPE_CHECKING:  # with __getattr__ a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name in _PUBLIC_MODULES:
            return importlib.import_module(f"yandexgpt.{name}")
        if name not in _MODULE_BY_NAME:
            raise AttributeError(f"module 'yandexgpt' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"yandexgpt.{_MODULE_BY_NAME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
