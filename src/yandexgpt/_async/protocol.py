"""The methods of a client that other modules of the facade call.

Those modules import this protocol and not the client: the client imports them, and an import circle is not allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from yandexgpt._async.operation import AsyncOperation
    from yandexgpt._async.stream import AsyncStream
    from yandexgpt._config import Settings
    from yandexgpt._models import Completion

__all__ = ["AsyncClientProtocol"]


class AsyncClientProtocol(Protocol):
    """An :class:`~yandexgpt.AsyncClient`, as far as the other modules of the facade use it."""

    @property
    def _settings(self) -> Settings: ...
    async def complete(self, *args: Any, **kwargs: Any) -> Completion: ...
    async def submit(self, *args: Any, **kwargs: Any) -> AsyncOperation: ...
    async def count_tokens(self, *args: Any, **kwargs: Any) -> int: ...
    def stream(self, *args: Any, **kwargs: Any) -> AsyncStream: ...
    def operation(self, operation_id: str) -> AsyncOperation: ...
