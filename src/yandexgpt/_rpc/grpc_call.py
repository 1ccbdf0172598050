"""gRPC's synchronous calls: how they fail, are cancelled and are freed."""

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
from yandexgpt._rpc.interceptors import TooLate

__all__ = ["CAN_FREE", "FAILURES", "free", "give_up", "received", "underlying", "went_silent"]

CAN_FREE = hasattr(getattr(_channel, "_SingleThreadedRendezvous", None), "_consume_next_event")
"""Whether this version of gRPC has what :func:`free` needs. If not, calls are of the other kind."""
_RENDEZVOUS: tuple[Any, ...] = (_channel._SingleThreadedRendezvous,) if CAN_FREE else ()


def underlying(response: Any) -> Any:
    """What a response can be cancelled by: itself, or gRPC's call behind generators that delegate to it; else None."""
    while response is not None and not hasattr(response, "cancel"):
        response = getattr(response, "gi_yieldfrom", None)
    return response


def received(rpc: Any) -> ReceivedMetadata:
    """What the service sent around the answer, as far as the call says."""
    if isinstance(rpc, _RENDEZVOUS):
        return ReceivedMetadata(rpc.initial_metadata(), rpc.trailing_metadata())
    return NO_METADATA if rpc is None else ReceivedMetadata(initial_metadata_of(rpc), trailing_metadata_of(rpc))


FAILURES = (grpc.RpcError, grpc.FutureCancelledError)
"""What a call fails with; the second is a unary call's word for having been cancelled on this side."""


_MESSAGES_AFTER_A_CANCEL = 100
"""How many messages that had come already are read after a cancel, before the word of its end."""


def give_up(response: Any, rpc: Any, *, interrupted: bool) -> None:
    """Cancel a synchronous call before its end.

    Args:
        response: what the channel handed out, or None if it was interrupted before.
        rpc: gRPC's call, if it is known.
        interrupted: an exception such as Ctrl-C came while a message was waited for.
    """
    if rpc is not None:
        rpc.cancel()
        if response is not None and response is not rpc and not interrupted:
            # An instrumentation's span ends when it is told how the call ended.
            with contextlib.suppress(*FAILURES):
                for _ in itertools.islice(response, _MESSAGES_AFTER_A_CANCEL):
                    pass
    if isinstance(response, Generator):
        response.close()


def free(rpc: Any) -> None:
    """Have gRPC free a call of its single-threaded kind that has ended before its last message was read.

    Such a call is freed, and lets go of its connection, when the events that gRPC still has for it are consumed, which
    takes a fraction of a millisecond. Nothing public does that. Not for a call that an exception such as Ctrl-C has
    interrupted while gRPC waited for a message: gRPC has freed it then, and nothing of it must be touched any more.
    """
    if isinstance(rpc, _RENDEZVOUS) and rpc._state.due and not (sys.is_finalizing() or fork_safety.grpc_is_unusable()):
        # gRPC's core is not told of the end after a message that is no protobuf, and rpc.cancel() does nothing.
        rpc._call.cancel(cygrpc.StatusCode.cancelled, "given up")
        while rpc._state.due:
            rpc._consume_next_event()


def went_silent(error: Any, last: Any) -> bool:
    """Whether a call ended at its deadline without a sign of life from the peer.

    Its connection may be dead without anybody having been told; only a keepalive, a minute later, would find out.
    """
    if isinstance(error, TooLate) or code_of(error) is not grpc.StatusCode.DEADLINE_EXCEEDED:
        return False
    return last is None and not initial_metadata_of(error)
