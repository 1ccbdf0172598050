"""Responses that are kept, for ``GET /v1/responses/<id>`` and ``previous_response_id``: a bounded memory."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["ResponseStore", "StoredResponse"]

_LARGEST = 64 * 2**20
"""Bytes of JSON that are kept; a response of a short talk has two thousand."""


@dataclass(frozen=True)
class StoredResponse:
    """A response and the conversation that led to it.

    Attributes:
        response: its JSON; of a background response as it was when it was submitted.
        conversation: the items that it answers, those of responses before it included, without instructions.
        authorization: the credential of its maker; nobody else gets it.
        folder: nor does anybody for another folder.
    """

    response: Mapping[str, Any]
    conversation: Sequence[Mapping[str, Any]]
    authorization: str | None
    folder: str | None


class ResponseStore:
    """Keeps the newest responses. For one event loop.

    Args:
        largest: bytes of JSON to keep at most; what goes beyond it is forgotten, the oldest first.
    """

    def __init__(self, largest: int = _LARGEST) -> None:
        self._largest = largest
        self._kept: OrderedDict[str, tuple[StoredResponse, int]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, kept: StoredResponse) -> None:
        """Keep a response under its id."""
        response_id = kept.response["id"]
        self._size -= self._kept.pop(response_id, (kept, 0))[1]
        size = len(json.dumps([kept.response, *kept.conversation], ensure_ascii=False).encode())
        self._kept[response_id] = kept, size
        self._size += size
        while self._size > self._largest:
            _, (_, freed) = self._kept.popitem(last=False)
            self._size -= freed

    def get(self, response_id: str, authorization: str | None, folder: str | None) -> StoredResponse | None:
        """The response of that id, if it is kept and the client may see it."""
        found = self._kept.get(response_id)
        if found is None or (found[0].authorization, found[0].folder) != (authorization, folder):
            return None
        return found[0]
