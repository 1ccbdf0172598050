"""Stores responses for ``GET /v1/responses/<id>`` and ``previous_response_id``, up to a maximum size."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["ResponseStore", "StoredResponse"]

_LARGEST = 64 * 2**20
"""Maximum size of the store in bytes of JSON. A response of a short conversation has two thousand bytes."""


@dataclass(frozen=True)
class StoredResponse:
    """A response and its conversation.

    Attributes:
        response: the JSON; for a background response, its state at submission.
        conversation: the input items, including those of previous responses, without instructions.
        authorization: the credential of the request. Other credentials cannot read the response.
        folder: the folder of the request. Other folders cannot read the response.
    """

    response: Mapping[str, Any]
    conversation: Sequence[Mapping[str, Any]]
    authorization: str | None
    folder: str | None


class ResponseStore:
    """Stores the newest responses. It must be used in one event loop.

    Args:
        largest: maximum size in bytes of JSON. The oldest responses are removed first.
    """

    def __init__(self, largest: int = _LARGEST) -> None:
        self._largest = largest
        self._kept: OrderedDict[str, tuple[StoredResponse, int]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, kept: StoredResponse) -> None:
        """Store a response."""
        response_id = kept.response["id"]
        self._size -= self._kept.pop(response_id, (kept, 0))[1]
        size = len(json.dumps([kept.response, *kept.conversation], ensure_ascii=False).encode())
        self._kept[response_id] = kept, size
        self._size += size
        while self._size > self._largest:
            _, (_, freed) = self._kept.popitem(last=False)
            self._size -= freed

    def get(self, response_id: str, authorization: str | None, folder: str | None) -> StoredResponse | None:
        """The response with this id, if it is stored and the caller may read it."""
        found = self._kept.get(response_id)
        if found is None or (found[0].authorization, found[0].folder) != (authorization, folder):
            return None
        return found[0]
