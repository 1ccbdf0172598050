"""What the rooms of the facade need of a client: so that none of them imports it, and it can import all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from yandexgpt._async.operation import AsyncOperation
    from yandexgpt._async.stream import AsyncStream
    from yandexgpt._config import Settings
    from yandexgpt._models import Completion

__all__ = ["AsyncClientProtocol"]


class AsyncClientProtocol(Protocol):
    """An :class:`~yandexgpt.AsyncClient`."""

    @property
    def _settings(self) -> Settings: ...
    async def complete(self, *args: Any, **kwargs: Any) -> Completion: ...
    async def submit(self, *args: Any, **kwargs: Any) -> AsyncOperation: ...
    async def count_tokens(self, *args: Any, **kwargs: Any) -> int: ...
    def stream(self, *args: Any, **kwargs: Any) -> AsyncStream: ...
    def operation(self, operation_id: str) -> AsyncOperation: ...
