# Generated from ../_async by scripts/unasync.py. Do not edit.
"""What the rooms of the facade need of a client: so that none of them imports it, and it can import all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from yandexgpt._config import Settings
    from yandexgpt._models import Completion
    from yandexgpt._sync.operation import Operation
    from yandexgpt._sync.stream import Stream

__all__ = ["ClientProtocol"]


class ClientProtocol(Protocol):
    """An :class:`~yandexgpt.Client`."""

    @property
    def _settings(self) -> Settings: ...
    def complete(self, *args: Any, **kwargs: Any) -> Completion: ...
    def submit(self, *args: Any, **kwargs: Any) -> Operation: ...
    def count_tokens(self, *args: Any, **kwargs: Any) -> int: ...
    def stream(self, *args: Any, **kwargs: Any) -> Stream: ...
    def operation(self, operation_id: str) -> Operation: ...
