"""Helpers for synchronous calls of gRPC: failures, cancellation, and freeing."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Generator
from typing import Any

import grpc
from grpc import _channel
from grpc._cython import cygrpc

from yandexgpt._concurrency import fork_safety
from yandexgpt._models import NO_METADATA, ReceivedMetadata
from yandexgpt._rpc.failures import code_of, initial_metadata_of, trailing_metadata_of
from yandexgpt._rpc.interceptors import InterceptorDeadlineError

__all__ = [
    "CALL_ERRORS",
    "CAN_FREE_RPC",
    "cancel_unfinished",
    "cancellable_rpc",
    "free_rpc",
    "peer_was_silent",
    "received_metadata",
]

CAN_FREE_RPC = hasattr(getattr(_channel, "_SingleThreadedRendezvous", None), "_consume_next_event")
"""Whether this version of gRPC has what :func:`free_rpc` needs. If not, single-threaded calls are not used."""
_RENDEZVOUS: tuple[Any, ...] = (_channel._SingleThreadedRendezvous,) if CAN_FREE_RPC else ()


def cancellable_rpc(response: Any) -> Any:
    """Return the object that can cancel a response: itself, or gRPC's call to which generators delegate; or None."""
    while response is not None and not hasattr(response, "cancel"):
        response = getattr(response, "gi_yieldfrom", None)
    return response


def received_metadata(rpc: Any) -> ReceivedMetadata:
    """Return the initial and trailing metadata, as far as the call provides them."""
    if isinstance(rpc, _RENDEZVOUS):
        return ReceivedMetadata(rpc.initial_metadata(), rpc.trailing_metadata())
    return NO_METADATA if rpc is None else ReceivedMetadata(initial_metadata_of(rpc), trailing_metadata_of(rpc))


CALL_ERRORS = (grpc.RpcError, grpc.FutureCancelledError)
"""The exceptions of a failed call. gRPC raises the second one for a unary call that was cancelled on this side."""


_MAX_MESSAGES_AFTER_CANCEL = 100
"""How many messages, received before a cancellation, are read after it at most to reach the end of the call."""


def cancel_unfinished(response: Any, rpc: Any, *, interrupted: bool) -> None:
    """Cancel a synchronous call that has not ended.

    Args:
        response: the object that the channel returned, or None if the channel was interrupted before.
        rpc: gRPC's call, or None if it is not known.
        interrupted: an exception such as Ctrl-C was raised while the call waited for a message.
    """
    if rpc is not None:
        rpc.cancel()
        if response is not None and response is not rpc and not interrupted:
            # Instrumentation ends its span when it receives the end of the call.
            with contextlib.suppress(*CALL_ERRORS):
                for _ in itertools.islice(response, _MAX_MESSAGES_AFTER_CANCEL):
                    pass
    if isinstance(response, Generator):
        response.close()


def free_rpc(rpc: Any) -> None:
    """Make gRPC free a single-threaded call that has ended before its last message was read.

    gRPC frees such a call, and releases its connection, when the remaining events of the call are consumed, which takes
    a fraction of a millisecond. No public method does that. Do not use it for a call that an exception such as Ctrl-C
    has interrupted while gRPC waited for a message: gRPC has freed the call already, and it must not be accessed.
    """
    if isinstance(rpc, _RENDEZVOUS) and rpc._state.due and not (sys.is_finalizing() or fork_safety.grpc_is_unusable()):
        # After a message that is not valid protobuf gRPC does not cancel the call in its core, and rpc.cancel() has no
        # effect.
        rpc._call.cancel(cygrpc.StatusCode.cancelled, "given up")
        while rpc._state.due:
            rpc._consume_next_event()


def peer_was_silent(error: Any, last: Any) -> bool:
    """Return whether a call ended at its deadline without any data from the peer.

    Its connection may be dead, and gRPC would notice that only by a keepalive ping, a minute later.
    """
    if isinstance(error, InterceptorDeadlineError) or code_of(error) is not grpc.StatusCode.DEADLINE_EXCEEDED:
        return False
    return last is None and not initial_metadata_of(error)
