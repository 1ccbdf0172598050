"""The record of received requests: the message and metadata of each call, and its outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import json_format

__all__ = ["Metadata", "RecordedRequest", "Recorder"]


class Metadata(Mapping[str, "str | bytes"]):
    """The metadata of a call. Keys are in lower case, in the order of arrival. Values are ``bytes`` for ``-bin`` keys.

    If a key was sent several times, ``metadata[key]`` is its first value, and :meth:`get_all` returns all values. The
    ``repr`` shows only keys, because a value may be a secret.
    """

    def __init__(self, pairs: Iterable[tuple[str, str | bytes]]) -> None:
        self._values: dict[str, list[str | bytes]] = {}
        for key, value in pairs:
            self._values.setdefault(key.lower(), []).append(value)

    def __getitem__(self, key: str) -> str | bytes:
        return self._values[key.lower()][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get_all(self, key: str) -> tuple[str | bytes, ...]:
        """All values of the key (in any case), in the order of arrival; empty if there is none."""
        return tuple(self._values.get(key.lower(), ()))

    def __repr__(self) -> str:
        return f"Metadata({', '.join(self._values)})"


class RecordedRequest:
    """A call that the server received.

    Attributes:
        method: the full name, such as ``"/yandex.cloud.ai.foundation_models.v1.TextGenerationService/Completion"``.
        message: the request message.
        metadata: see :class:`Metadata`.
        deadline: seconds until the deadline of the caller at arrival; None without a deadline. Some versions of gRPC
            round it up on the wire, by less than 1 %.
        peer: the address of the client in gRPC's format. Calls on the same connection have the same peer.
        arrived: ``time.monotonic()`` at arrival, in seconds.
        server_request_id, trace_id: the ids sent as ``x-request-id`` and ``x-server-trace-id``.
        sent: number of messages sent so far. A client that cancelled may not have received the last of them.
    """

    def __init__(
        self,
        method: str,
        message: Any,
        metadata: Metadata,
        *,
        deadline: float | None,
        peer: str,
        server_request_id: str,
        trace_id: str,
    ) -> None:
        self.method = method
        self.message = message
        self.metadata = metadata
        self.deadline = deadline
        self.peer = peer
        self.arrived = time.monotonic()
        self.server_request_id = server_request_id
        self.trace_id = trace_id
        self.sent = 0
        self._outcome: str | None = None
        self._ended = threading.Event()

    @property
    def outcome(self) -> str | None:
        """None while the call runs; then ``"OK"``, the name of the status sent, or ``"CANCELLED"``.

        ``"CANCELLED"`` means that the server did not end the call: the client cancelled it, its deadline passed, its
        connection broke, or the emulator was stopped.
        """
        return self._outcome

    def wait(self, timeout: float | None = 10.0) -> str:
        """Wait until the call has ended at the server.

        Args:
            timeout: seconds; None: no limit.

        Returns:
            The :attr:`outcome`.

        Raises:
            TimeoutError: the call still runs.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.method} still runs after {timeout} s, {self.sent} messages sent")
        assert self._outcome is not None  # noqa: S101 - set before the event
        return self._outcome

    def to_dict(self) -> dict[str, Any]:
        """The message as the body of a REST request (proto3 JSON).

        Names are in camelCase, an int64 is a string, and fields with their default value are left out.
        ``request.to_dict()["messages"][-1] == {"role": "user", "text": "Привет"}``
        """
        result: dict[str, Any] = json_format.MessageToDict(self.message)
        return result

    def end(self, outcome: str) -> None:
        """Set the outcome. Only the emulator calls it."""
        self._outcome = outcome
        self._ended.set()

    def __repr__(self) -> str:
        return f"RecordedRequest({self.method}, outcome={self._outcome}, sent={self.sent})"


class Recorder:
    """The list of received calls, in the order of arrival. Thread-safe."""

    def __init__(self) -> None:
        self._requests: list[RecordedRequest] = []
        self._arrival = threading.Condition()

    def add(self, request: RecordedRequest) -> None:
        """Add a call."""
        with self._arrival:
            self._requests.append(request)
            self._arrival.notify_all()

    def snapshot(self) -> list[RecordedRequest]:
        """A copy of the list."""
        with self._arrival:
            return list(self._requests)

    def wait_for(self, count: int, timeout: float | None) -> list[RecordedRequest]:
        """A copy of the list, once it has at least `count` calls.

        Raises:
            TimeoutError: fewer calls arrived within `timeout` seconds.
        """
        with self._arrival:
            if not self._arrival.wait_for(lambda: len(self._requests) >= count, timeout):
                raise TimeoutError(f"{len(self._requests)} of {count} requests arrived within {timeout} s")
            return list(self._requests)

    def clear(self) -> None:
        """Remove all calls."""
        with self._arrival:
            self._requests.clear()
