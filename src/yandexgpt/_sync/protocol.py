# Generated from ../_async by scripts/unasync.py. Do not edit.
"""The methods of a client that other modules of the facade call.

Those modules import this protocol and not the client: the client imports them, and an import circle is not allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from yandexgpt._config import Settings
    from yandexgpt._models import Completion
    from yandexgpt._sync.operation import Operation
    from yandexgpt._sync.stream import Stream

__all__ = ["ClientProtocol"]


class ClientProtocol(Protocol):
    """An :class:`~yandexgpt.Client`, as far as the other modules of the facade use it."""

    @property
    def _settings(self) -> Settings: ...
    def complete(self, *args: Any, **kwargs: Any) -> Completion: ...
    def submit(self, *args: Any, **kwargs: Any) -> Operation: ...
    def count_tokens(self, *args: Any, **kwargs: Any) -> int: ...
    def stream(self, *args: Any, **kwargs: Any) -> Stream: ...
    def operation(self, operation_id: str) -> Operation: ...
