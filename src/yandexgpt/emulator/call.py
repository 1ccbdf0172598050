"""A call at the server. All emulated services use it to record the call, to send its metadata and to end it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from yandexgpt.emulator.error_status import ErrorStatus
from yandexgpt.emulator.received import Metadata, RecordedRequest, Recorder

__all__ = ["Call", "time_left"]

_NO_DEADLINE = 1e9
"""Seconds. For a call without a deadline, gRPC reports a remaining time of centuries."""


def time_left(context: grpc.ServicerContext) -> float | None:
    """Seconds until the deadline of the call; None without a deadline."""
    remaining = context.time_remaining()
    return remaining if remaining < _NO_DEADLINE else None


class Call:
    """Records a call, sends the service's ids in the initial and trailing metadata, and detects the end of the call.

    Args:
        recorder: the list of received requests.
        method: the full method name.
        message: the request.
        context: gRPC's context of the call.
        ids: the ids of the service as metadata; None: new ids.
    """

    def __init__(
        self,
        recorder: Recorder,
        method: str,
        message: Any,
        context: grpc.ServicerContext,
        ids: Iterable[tuple[str, str]] | None = None,
    ) -> None:
        if ids is None:
            ids = (("x-request-id", str(uuid.uuid4())), ("x-server-trace-id", uuid.uuid4().hex))
        self._ids = tuple(ids)
        sent = dict(self._ids)
        self.recorded = RecordedRequest(
            method,
            message,
            Metadata(context.invocation_metadata()),
            deadline=time_left(context),
            peer=context.peer(),
            server_request_id=sent.get("x-request-id", ""),
            trace_id=sent.get("x-server-trace-id", ""),
        )
        self._context = context
        self._status: str | None = None
        self._ended = threading.Event()
        self._at_end: list[Callable[[], None]] = []
        recorder.add(self.recorded)
        if not context.add_callback(self._on_end):
            self._on_end()
        context.send_initial_metadata(self._ids)

    def add_done_callback(self, action: Callable[[], None]) -> None:
        """Call a function when the call ends; immediately if it has ended.

        The function runs before :meth:`RecordedRequest.wait` returns.
        """
        self._at_end.append(action)
        if self._ended.is_set():
            action()

    def pause(self, seconds: float) -> bool:
        """Wait, but not longer than the call lasts.

        Returns:
            Whether the call is still active.
        """
        return not (self._ended.wait(seconds) if seconds > 0 else self._ended.is_set())

    def finish(self) -> None:
        """End the call with ``OK`` when the handler returns."""
        self._context.set_trailing_metadata(self._ids)
        self._status = "OK"

    def fail(self, status: ErrorStatus) -> None:
        """End the call with an error status when the handler returns."""
        request_id = self.recorded.server_request_id
        self._context.set_trailing_metadata((*self._ids, *status.trailing_metadata(request_id)))
        self._context.set_details(status.message)
        self._context.set_code(status.code)
        self._status = status.code.name

    def _on_end(self) -> None:
        self._ended.set()
        for action in tuple(self._at_end):
            action()
        self.recorded.end(self._status or "CANCELLED")
