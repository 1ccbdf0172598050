"""The user's interceptors, and ours below them."""

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
    "Attempts",
    "Innermost",
    "TooLate",
    "asynchronous",
    "check_interceptors",
    "replaced",
    "synchronous",
]


class Attempts:
    """The attempts that are under way on a channel with interceptors: which call a request is of.

    Attributes:
        watched: whether there are interceptors.
    """

    def __init__(self) -> None:
        self.watched = False
        self._calls: dict[int, weakref.ref[Call]] = {}

    def expect(self, request: Any, call: Call) -> None:
        """An attempt with this request object is about to begin."""
        self._calls[id(request)] = weakref.ref(call)

    def forget(self, request: Any) -> None:
        """It has ended."""
        self._calls.pop(id(request), None)

    def of(self, request: Any) -> Call | None:
        """Whose request it is; None if an interceptor has put another in its place."""
        reference = self._calls.get(id(request))
        return None if reference is None else reference()


class TooLate(grpc.RpcError):
    """Interceptors have taken all the time that there was for an attempt."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED

    def details(self) -> str:
        return "the deadline passed in an interceptor"


class Innermost(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """The interceptor next to gRPC. Those of the user may hand out something else than gRPC's call: a generator, or a
    wrapper without ``cancel``. This one keeps the call, and gives it the time that the others have left.
    """

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        attempts.watched = True

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = self._attempts.of(request)
        if call is None:
            return continuation(client_call_details, request)
        timeout = call.within(client_call_details.timeout)
        if timeout == 0.0:
            raise TooLate  # gRPC might send the request, and read a part of the answer, all the same
        rpc = continuation(replaced(client_call_details, timeout=timeout), request)
        call.started(rpc)
        return rpc

    intercept_unary_stream = intercept_unary_unary


class _AsyncInnermost:
    """The same for ``grpc.aio``, whose calls can be cancelled whatever interceptors hand out."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        attempts.watched = True

    async def _continue(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = self._attempts.of(request)
        if call is not None:
            client_call_details = client_call_details._replace(timeout=call.within(client_call_details.timeout))
        return await continuation(client_call_details, request)


class AsyncInnermostUnary(_AsyncInnermost, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _AsyncInnermost._continue


class AsyncInnermostStream(_AsyncInnermost, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _AsyncInnermost._continue


_KINDS = (grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor)


_AIO_KINDS = (grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor)


def check_interceptors(interceptors: Sequence[Any], *, for_aio: bool) -> None:
    """Refuse what is no interceptor of the client's kind, or is for calls that the service does not have.

    Args:
        for_aio: for an ``AsyncClient``. A ``Client`` takes both kinds, because ``complete_many`` makes its calls
            over ``grpc.aio``.

    Raises:
        ConfigurationError: there is such an object among them.
    """
    allowed = _AIO_KINDS if for_aio else (*_KINDS, *_AIO_KINDS)
    for index, each in enumerate(interceptors):
        if not isinstance(each, allowed):
            kinds = "grpc.aio.UnaryStreamClientInterceptor or grpc.aio.UnaryUnaryClientInterceptor"
            if not for_aio:
                kinds = f"grpc.UnaryStreamClientInterceptor, grpc.UnaryUnaryClientInterceptor, {kinds}"
            raise ConfigurationError(f"interceptors[{index}] must be a {kinds}, got {type(each).__name__}")


def synchronous(interceptors: Sequence[Any]) -> tuple[Any, ...]:
    """Those of the interceptors that are for synchronous calls."""
    return tuple(each for each in interceptors if isinstance(each, _KINDS))


def asynchronous(interceptors: Sequence[Any]) -> tuple[Any, ...]:
    """Those of the interceptors that are for ``grpc.aio``."""
    return tuple(each for each in interceptors if isinstance(each, _AIO_KINDS))


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class _ClientCallDetails(_Details, grpc.ClientCallDetails):
    pass


def replaced(details: Any, **changes: Any) -> Any:
    """The details of an intercepted call, with some of them changed."""
    return _ClientCallDetails(
        details.method,
        details.timeout,
        details.metadata,
        details.credentials,
        details.wait_for_ready,
        getattr(details, "compression", None),  # an interceptor's own details may lack it
    )._replace(**changes)
