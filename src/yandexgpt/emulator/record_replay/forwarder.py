"""Forwards calls to a real service byte for byte, and records them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

import grpc

from yandexgpt._endpoint import ENDPOINT, IAM_ENDPOINT, OPERATION_ENDPOINT, Endpoint
from yandexgpt.emulator.call import Call, time_left
from yandexgpt.emulator.error_status import STATUS_DETAILS_KEY, ErrorStatus
from yandexgpt.emulator.quota import Quota, Slot
from yandexgpt.emulator.received import Metadata, RecordedRequest
from yandexgpt.emulator.record_replay.methods import AllMethodsHandler, Method, RawRequest
from yandexgpt.emulator.record_replay.recording_file import (
    PUSHBACK_KEY,
    RecordedCall,
    RecordedResponse,
    RecordedStatus,
    select_metadata,
)
from yandexgpt.emulator.record_replay.redaction import without_secrets
from yandexgpt.emulator.record_replay.restricted_script import RestrictedScript
from yandexgpt.emulator.record_replay.upstream import Upstream
from yandexgpt.emulator.record_replay.writer import RecordingWriter
from yandexgpt.emulator.service import Service
from yandexgpt.emulator.validation import check_authorization

__all__ = ["Forwarder"]

_ENDPOINTS = {"OperationService": OPERATION_ENDPOINT, "IamTokenService": IAM_ENDPOINT}
"""Services with a separate endpoint in the cloud."""
_NOT_FORWARDED = ("content-type", "te", "user-agent", "x-emulator-face")
"""Metadata of a single connection. Keys with the prefix ``grpc-`` are not forwarded either, except a status's."""
_STATUS_KEYS = (STATUS_DETAILS_KEY, PUSHBACK_KEY)
_CLOCK_TOLERANCE = 0.05
"""Seconds by which two clocks may differ about a deadline."""


class Forwarder:
    """Forwards calls to a service.

    Attributes:
        script: accepts nothing.

    Args:
        upstream: the address of the service. With the endpoint of the real service, services with a separate endpoint
            are called there.
        writer: writes the calls to a file; None: calls are not recorded.
    """

    def __init__(self, upstream: Endpoint, writer: RecordingWriter | None) -> None:
        self._upstream = upstream
        self._writer = writer
        self._upstreams: dict[Endpoint, Upstream] = {}
        self._lock = threading.Lock()
        self.script = RestrictedScript(f"the upstream {upstream}", fails=False)

    def start(self) -> None:
        """Open the recording; raises ValueError if it cannot be written."""
        if self._writer is not None:
            self._writer.open()

    def stop(self) -> None:
        """Close the connections and the recording. No call may be in progress."""
        with self._lock:
            upstreams, self._upstreams = self._upstreams, {}
        for upstream in upstreams.values():
            upstream.close()
        if self._writer is not None:
            self._writer.close()

    def handler(self, service: Service, quota: Quota) -> grpc.GenericRpcHandler:
        """The handler of all methods for ``grpc.Server.add_generic_rpc_handlers``."""

        def serve(method: Method, request: RawRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
            return self._serve(service, quota, method, request, context)

        return AllMethodsHandler(serve)

    def _serve(
        self, service: Service, quota: Quota, method: Method, request: RawRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        status: ErrorStatus | None = None
        if service.authorization is not None and method.needs_credentials:
            metadata = Metadata(context.invocation_metadata())
            status = check_authorization(metadata, service.authorization, service.identity)
        admitted = status or (quota.acquire() if method.is_generation else None)
        if isinstance(admitted, ErrorStatus):
            Call(service.recorder, method.path, without_secrets(request.message), context).fail(admitted)
            return
        endpoint = self.endpoint(method)
        forwarded = _ForwardedCall(method, request, context, endpoint, self._writer, admitted)
        service.recorder.add(forwarded.recorded)
        forwarded.watch()
        with self._upstream_at(endpoint).channel() as channel:
            yield from forwarded.run(channel)

    def endpoint(self, method: Method) -> Endpoint:
        """The endpoint to call a method at."""
        if self._upstream.target != ENDPOINT:
            return self._upstream
        return Endpoint(_ENDPOINTS.get(method.service, ENDPOINT), self._upstream.tls)

    def _upstream_at(self, endpoint: Endpoint) -> Upstream:
        with self._lock:
            if endpoint not in self._upstreams:
                self._upstreams[endpoint] = Upstream(endpoint)
            return self._upstreams[endpoint]


class _ForwardedCall:
    """A forwarded call.

    Its line is written to the recording before its status is sent, so a client that has seen the end of a call can find
    it in the recording. The line is written once: by the handler, or when the call is cancelled.
    """

    def __init__(
        self,
        method: Method,
        request: RawRequest,
        context: grpc.ServicerContext,
        endpoint: Endpoint,
        writer: RecordingWriter | None,
        slot: Slot | None,
    ) -> None:
        self._method = method
        self._request = request
        self._context = context
        self._endpoint = endpoint
        self._writer = writer
        self._slot = slot
        self._client_metadata = context.invocation_metadata()
        self.recorded = RecordedRequest(
            method.path,
            without_secrets(request.message),
            Metadata(self._client_metadata),
            deadline=time_left(context),
            peer=context.peer(),
            server_request_id="",
            trace_id="",
        )
        self._started_at = datetime.now(timezone.utc)
        self._last_event_at = time.monotonic()
        self._upstream_metadata: list[tuple[str, Any]] = []
        self._responses: list[RecordedResponse] = []
        self._call: Any = None
        self._status: str | None = None
        self._lock = threading.Lock()
        self._line_written = False

    def watch(self) -> None:
        """Cancel the upstream call when the call of the client ends."""
        if not self._context.add_callback(self._on_end):
            self._on_end()

    def run(self, channel: grpc.Channel) -> Iterator[bytes]:
        """Start the upstream call and forward its messages."""
        multicallable: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(self._method.path)
        with self._lock:
            if self._line_written:
                return
            self._call = multicallable(
                self._request.data, metadata=_forwarded(self._client_metadata), timeout=time_left(self._context)
            )
        try:
            for content in self._call:
                if not self._responses:
                    # Not earlier: while gRPC waits for the initial metadata only, the call cannot be cancelled.
                    self._forward_initial_metadata()
                self._responses.append(RecordedResponse(self._since_last(), content))
                self.recorded.sent += 1
                yield content
        except grpc.RpcError:
            # `_finish` reads the status from the call.
            pass
        self._finish()

    def _forward_initial_metadata(self) -> None:
        self._add_upstream_metadata(self._call.initial_metadata())
        self._context.send_initial_metadata(_forwarded(self._upstream_metadata))

    def _add_upstream_metadata(self, metadata: Iterable[tuple[str, Any]] | None) -> None:
        self._upstream_metadata += metadata or ()
        ids = dict(self._upstream_metadata)
        self.recorded.server_request_id = str(ids.get("x-request-id", ""))
        self.recorded.trace_id = str(ids.get("x-server-trace-id", ""))

    def _since_last(self) -> float:
        before, self._last_event_at = self._last_event_at, time.monotonic()
        return self._last_event_at - before

    def _finish(self) -> None:
        """Forward the status of the upstream call."""
        code, message, trailing = self._call.code(), self._call.details() or "", self._call.trailing_metadata() or ()
        if not self._responses:
            self._forward_initial_metadata()
        self._add_upstream_metadata(trailing)
        if code is grpc.StatusCode.UNAVAILABLE and not trailing:
            # gRPC made this status itself; the service did not send it.
            message = f"upstream {self._endpoint}: {message}"
        left = time_left(self._context)
        at_deadline = code is grpc.StatusCode.DEADLINE_EXCEEDED and left is not None and left < _CLOCK_TOLERANCE
        status: RecordedStatus | None = None
        if code is not grpc.StatusCode.OK:
            packed = next((value for key, value in trailing if key == STATUS_DETAILS_KEY), None)
            status = RecordedStatus(code, message, after=self._since_last(), packed=packed)
            self._context.set_details(message)
            self._context.set_code(code)
        self._context.set_trailing_metadata(_forwarded(trailing))
        if self._write(None if at_deadline else status, unfinished=at_deadline) and not at_deadline:
            self._status = code.name
        self._release()

    def _release(self) -> None:
        if self._slot is not None:
            self._slot.release()

    def _on_end(self) -> None:
        try:
            self._write(None, unfinished=True)
        finally:
            if self._call is not None:
                self._call.cancel()
            self._release()
            self.recorded.end(self._status or "CANCELLED")

    def _write(self, status: RecordedStatus | None, *, unfinished: bool) -> bool:
        """Write the line if it is not written yet; return whether it was written now."""
        with self._lock:
            if self._line_written:
                return False
            self._line_written = True
            if self._writer is not None:
                self._writer.write(
                    RecordedCall(
                        method=self._method,
                        request=self._request.message,
                        responses=tuple(self._responses),
                        status=status,
                        unfinished=unfinished,
                        metadata=select_metadata((*self._client_metadata, *self._upstream_metadata)),
                        began=self._started_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
                    ),
                    secrets=[str(value) for key, value in self._client_metadata if key == "authorization"],
                )
            return True


def _forwarded(metadata: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """The part of the metadata that is forwarded."""
    return tuple(
        (key, value)
        for key, value in metadata
        if key in _STATUS_KEYS or not (key in _NOT_FORWARDED or key.startswith((":", "grpc-")))
    )
