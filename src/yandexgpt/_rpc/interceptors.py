"""The interceptors of the application, and the interceptor of this package below them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from yandexgpt._rpc.call import Call

__all__ = [
    "AsyncInnermostStream",
    "AsyncInnermostUnary",
    "AttemptRegistry",
    "Innermost",
    "InterceptorDeadlineError",
    "aio_interceptors",
    "check_interceptors",
    "replace_details",
    "sync_interceptors",
]


class AttemptRegistry:
    """Maps the requests of the attempts in flight to their calls, on a channel with interceptors.

    Attributes:
        enabled: whether there are interceptors.
    """

    def __init__(self) -> None:
        self.enabled = False
        self._calls: dict[int, weakref.ref[Call]] = {}

    def register(self, request: Any, call: Call) -> None:
        """Register the attempt that is about to be made with this request object."""
        self._calls[id(request)] = weakref.ref(call)

    def unregister(self, request: Any) -> None:
        """Unregister the attempt of a request."""
        self._calls.pop(id(request), None)

    def call_of(self, request: Any) -> Call | None:
        """Return the call of a request; None if an interceptor has replaced the request."""
        reference = self._calls.get(id(request))
        return None if reference is None else reference()


class InterceptorDeadlineError(grpc.RpcError):
    """The deadline of an attempt has passed while interceptors ran."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED

    def details(self) -> str:
        return "the deadline passed in an interceptor"


class Innermost(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """The interceptor next to gRPC, below those of the application.

    Those may return something else than gRPC's call: a generator, or a wrapper without ``cancel``. This one keeps a
    reference to gRPC's call, and reduces its timeout by the time that the others have used.
    """

    def __init__(self, attempts: AttemptRegistry) -> None:
        self._attempts = attempts
        attempts.enabled = True

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = self._attempts.call_of(request)
        if call is None:
            return continuation(client_call_details, request)
        timeout = call.limit_to_attempt(client_call_details.timeout)
        if timeout == 0.0:
            raise InterceptorDeadlineError  # otherwise gRPC might still send the request, and read a part of the answer
        rpc = continuation(replace_details(client_call_details, timeout=timeout), request)
        call.attach_rpc(rpc)
        return rpc

    intercept_unary_stream = intercept_unary_unary


class _AsyncInnermost:
    """Reduces the timeout for ``grpc.aio``, whose calls can be cancelled whatever interceptors return."""

    def __init__(self, attempts: AttemptRegistry) -> None:
        self._attempts = attempts
        attempts.enabled = True

    async def _continue(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = self._attempts.call_of(request)
        if call is not None:
            client_call_details = client_call_details._replace(
                timeout=call.limit_to_attempt(client_call_details.timeout)
            )
        return await continuation(client_call_details, request)


class AsyncInnermostUnary(_AsyncInnermost, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _AsyncInnermost._continue


class AsyncInnermostStream(_AsyncInnermost, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _AsyncInnermost._continue


_SYNC_KINDS = (grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor)


_AIO_KINDS = (grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor)


def check_interceptors(interceptors: Sequence[Any], *, for_aio: bool) -> None:
    """Refuse objects that are no interceptors for this client, or intercept calls of a kind that the service lacks.

    Args:
        for_aio: whether they are for an ``AsyncClient``. A ``Client`` accepts both kinds, because ``complete_many``
            makes its calls over ``grpc.aio``.

    Raises:
        ConfigurationError: there is such an object.
    """
    allowed = _AIO_KINDS if for_aio else (*_SYNC_KINDS, *_AIO_KINDS)
    for index, interceptor in enumerate(interceptors):
        if not isinstance(interceptor, allowed):
            kinds = "grpc.aio.UnaryStreamClientInterceptor or grpc.aio.UnaryUnaryClientInterceptor"
            if not for_aio:
                kinds = f"grpc.UnaryStreamClientInterceptor, grpc.UnaryUnaryClientInterceptor, {kinds}"
            raise ConfigurationError(f"interceptors[{index}] must be a {kinds}, got {type(interceptor).__name__}")


def sync_interceptors(interceptors: Sequence[Any]) -> tuple[Any, ...]:
    """Return the interceptors for synchronous calls."""
    return tuple(interceptor for interceptor in interceptors if isinstance(interceptor, _SYNC_KINDS))


def aio_interceptors(interceptors: Sequence[Any]) -> tuple[Any, ...]:
    """Return the interceptors for ``grpc.aio``."""
    return tuple(interceptor for interceptor in interceptors if isinstance(interceptor, _AIO_KINDS))


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class _ClientCallDetails(_Details, grpc.ClientCallDetails):
    pass


def replace_details(details: Any, **changes: Any) -> Any:
    """Return the details of an intercepted call with some of them changed."""
    return _ClientCallDetails(
        details.method,
        details.timeout,
        details.metadata,
        details.credentials,
        details.wait_for_ready,
        getattr(details, "compression", None),  # the details of another interceptor may lack it
    )._replace(**changes)
