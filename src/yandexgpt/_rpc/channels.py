"""Connections: how channels are made, and which of them a call goes over."""

from __future__ import annotations

import contextlib
import itertools
import sys
import weakref
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import grpc
import grpc.experimental
from grpc import _channel
from grpc._cython import cygrpc

from yandexgpt._concurrency import fork_safety as forks
from yandexgpt._concurrency.threads import Alarm, hand_over
from yandexgpt._concurrency.weak_registry import Holders
from yandexgpt._config import Endpoint, is_loopback
from yandexgpt._models import NO_METADATA, ReceivedMetadata
from yandexgpt._rpc.failures import code_of, initial_metadata_of, trailing_metadata_of
from yandexgpt._version import __version__
from yandexgpt.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from yandexgpt._rpc.call import Call
    from yandexgpt._rpc.methods import Method

__all__ = [
    "FAILURES",
    "SINGLE_THREADED",
    "Attempts",
    "ChannelPool",
    "PooledChannel",
    "asynchronous",
    "check_aio",
    "check_interceptors",
    "free",
    "give_up",
    "inherited",
    "keep_core",
    "open_aio_channel",
    "open_channel",
    "received",
    "replaced",
    "underlying",
    "went_silent",
]

R = TypeVar("R")

_SCALES = tuple(map(int, grpc.__version__.split(".")[:2])) >= (1, 84)
"""Whether gRPC opens another connection when the server allows no further stream on the first. Before, calls wait for
a stream, in silence, and nobody is told how many streams the server allows."""
_CONNECTIONS_PER_CHANNEL = 10

LOCKED_SECONDS = 0.5
"""After how long a lock of gRPC's counts as left taken. gRPC itself holds one for microseconds."""

STREAMS_PER_CHANNEL = 100 if _SCALES else 10
"""Calls that go over one channel at a time; for more, another is opened. HTTP/2 servers commonly allow 100 streams a
connection; where a server allows fewer, and gRPC cannot help, calls would wait behind each other."""

_DEFAULT_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Connections are ours: two channels to one address do not end up on one connection.
    ("grpc.use_local_subchannel_pool", 1),
    # Retries are ours too (yandexgpt.retry): gRPC's own, configured from DNS or not, must not multiply them.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.service_config", f'{{"connectionScaling": {{"maxConnectionsPerSubchannel": {_CONNECTIONS_PER_CHANNEL}}}}}'),
    # A dead peer is noticed by a ping, but only during calls and no more often than strict servers allow.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # After an outage gRPC would stay away for up to 120 s, longer than calls are retried; it is the retries' own
    # backoff that spares the service, and a connection attempt a second costs nobody anything.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # An answer is far smaller; the limit is against a peer gone mad (gRPC's own is 4 MB, and counts the whole text).
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.primary_user_agent", f"yandexgpt-python/{__version__}"),
)


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


class _TooLate(grpc.RpcError):
    """Interceptors have taken all the time that there was for an attempt."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED

    def details(self) -> str:
        return "the deadline passed in an interceptor"


class _Innermost(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
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
            raise _TooLate  # gRPC might send the request, and read a part of the answer, all the same
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


class _AsyncInnermostUnary(_AsyncInnermost, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _AsyncInnermost._continue


class _AsyncInnermostStream(_AsyncInnermost, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _AsyncInnermost._continue


class PooledChannel:
    """A channel, with the calls on it. It is opened when the first of them begins.

    Attributes:
        calls: what counts against the number of calls that it carries.
        attempts: those on it, for interceptors.
    """

    def __init__(self, open_channel: Callable[[Attempts], Any]) -> None:
        self.attempts = Attempts()
        self._open = open_channel
        self._opened: dict[str, Any] = {}
        self._multicallables: dict[Method, Any] = {}
        self._starting: set[Call] = set()
        self._closed = False
        self.calls: Holders[object] = Holders()

    @property
    def channel(self) -> Any:
        """The channel itself.

        Raises:
            ConfigurationError: the PEM bundle cannot be read.
        """
        channel = self.opened
        if channel is None:
            opened = self._open(self.attempts)
            channel = self._opened.setdefault("channel", opened)
            if channel is not opened:  # another thread was quicker
                opened.close()
        return channel

    def multicallable(self, method: Method) -> Any:
        """What makes calls of a method on this channel."""
        multicallable = self._multicallables.get(method)
        if multicallable is None:
            multicallable = self._multicallables[method] = getattr(method.stub(self.channel), method.name)
        return multicallable

    def start(self, call: Call, begin: Callable[..., R], *arguments: Any) -> R:
        """Begin a synchronous call, unless the channel is closed: to use it then may crash the process.

        No lock is held, because interceptors run in here. Whoever closes the channel meanwhile leaves it to this.

        Args:
            begin: called with this object and the arguments.

        Raises:
            CancelledError: the client was closed.
        """
        self._starting.add(call)
        try:
            if self._closed:
                raise call.ended_here()
            return begin(self, *arguments)
        finally:
            self._starting.discard(call)
            if self._closed:
                self.close()

    @property
    def single_threaded(self) -> bool:
        """Whether no thread of gRPC's has to do with a stream on the channel."""
        channel = _grpc_channel(self.opened)
        return channel is not None and bool(channel._single_threaded_unary_stream)

    def is_unharmed(self, call: Call, *, alone: bool) -> bool:
        """Whether gRPC's locks are free, after an exception such as Ctrl-C in the middle of its code for a call.

        The thread that was interrupted may take them again, if it holds them: this asks another.

        Args:
            alone: no thread of gRPC's has to do with the call.
        """
        channel, rpc = _grpc_channel(self.opened), call.rpc
        if channel is None or not (alone or hasattr(rpc, "_state")):
            return False
        looked = Alarm()

        def look() -> None:
            if not alone:  # gRPC's thread for the channel takes this one
                with rpc._state.condition:
                    pass
            with contextlib.suppress(ValueError):  # the channel is closed
                channel._channel.check_connectivity_state(False)
            looked.set()

        hand_over(look)
        return looked.wait(LOCKED_SECONDS)

    @property
    def opened(self) -> Any:
        """The channel, if it is open; else None."""
        return self._opened.get("channel")

    def close(self) -> None:
        """Close a synchronous channel: now, or when the calls that are just beginning have begun. Idempotent."""
        self._closed = True
        if not self._starting and self.opened is not None:
            self.opened.close()


class ChannelPool(forks.Forkable):
    """The channels to one endpoint: a call takes the first that has room, and another is opened if none has.

    Filling the first before the second lets connections that a burst has opened fall idle again. There is no lock: a
    call joins first, and looks then whether there was room.

    Args:
        open_channel: opens one, with what its interceptors are to know of the attempts on it.
    """

    def __init__(self, open_channel: Callable[[Attempts], Any]) -> None:
        self._open = open_channel
        self._channels: dict[int, PooledChannel] = {}
        self._closed = False
        forks.register(self)

    def after_fork(self) -> None:
        """The parent's connections are not the child's, which opens its own."""
        inherited.extend(self._channels.values())
        self._channels = {}

    def acquire(self, call: object) -> PooledChannel:
        """A channel with room for the call, which gives it back by leaving its ``calls``.

        Raises:
            ConfigurationError: the client was closed.
        """
        for number in itertools.count():
            pooled = self._channels.get(number) or self._channels.setdefault(number, PooledChannel(self._open))
            pooled.calls.add(call)
            if self._closed:
                raise ConfigurationError("the client is closed")
            if len(pooled.calls) <= STREAMS_PER_CHANNEL:
                return pooled
            pooled.calls.discard(call)
        raise AssertionError("whole numbers have come to an end")

    def evict(self, pooled: PooledChannel) -> None:
        """Begin no further calls on a channel; it is closed when those on it have ended."""
        for number in list(self._channels):
            if self._channels.get(number) is pooled:
                self._channels.pop(number, None)

    def interrupted(self, pooled: PooledChannel, call: Call, *, streamed: bool) -> None:
        """An exception such as Ctrl-C came in the middle of gRPC's code, and may have left one of its locks taken.

        Other calls on that channel would then wait for ever, and so would whoever closes it, or drops the last
        reference to it: it is kept to the end of the process, unless the locks turn out to be free.
        """
        import ctypes  # seldom needed

        kept = ctypes.py_object(pooled)
        ctypes.pythonapi.Py_IncRef(kept)  # a global variable would let go of it as the interpreter ends
        self.evict(pooled)
        alone = streamed and pooled.single_threaded
        if pooled.is_unharmed(call, alone=alone):
            if call.rpc is not None:
                self._put_back(pooled)
            ctypes.pythonapi.Py_DecRef(kept)
        if call.rpc is None and not pooled.calls:
            # gRPC may have begun the call, and nothing else cancels it now. Only this thread gets past the lock; but
            # closing waits for gRPC's thread, if there is one, and that one may wait for the lock.
            if alone:
                pooled.close()
            else:
                hand_over(pooled.close)

    def _put_back(self, pooled: PooledChannel) -> None:
        for number in itertools.count():
            if self._channels.setdefault(number, pooled) is pooled:
                break
        if self._closed:  # by somebody who did not see it
            pooled.close()

    def close(self) -> list[PooledChannel]:
        """Begin no further calls.

        Returns:
            The channels, to be closed.
        """
        self._closed = True
        return list(self._channels.values())


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
    if isinstance(rpc, _RENDEZVOUS) and rpc._state.due and not (sys.is_finalizing() or forks.unusable()):
        # gRPC's core is not told of the end after a message that is no protobuf, and rpc.cancel() does nothing.
        rpc._call.cancel(cygrpc.StatusCode.cancelled, "given up")
        while rpc._state.due:
            rpc._consume_next_event()


SINGLE_THREADED = grpc.experimental.ChannelOptions.SingleThreadedUnaryStream
_CAN_FREE = hasattr(getattr(_channel, "_SingleThreadedRendezvous", None), "_consume_next_event")
"""Whether this version of gRPC has what :func:`free` needs. If not, calls are of the other kind."""
_RENDEZVOUS: tuple[Any, ...] = (_channel._SingleThreadedRendezvous,) if _CAN_FREE else ()


def went_silent(error: Any, last: Any) -> bool:
    """Whether a call ended at its deadline without a sign of life from the peer.

    Its connection may be dead without anybody having been told; only a keepalive, a minute later, would find out.
    """
    if isinstance(error, _TooLate) or code_of(error) is not grpc.StatusCode.DEADLINE_EXCEEDED:
        return False
    return last is None and not initial_metadata_of(error)


inherited: list[Any] = []
"""Channels that a forked child has inherited. Closing them there would wait for threads that exist only in the
parent, so they are kept, untouched, to the end of the process."""


def keep_core() -> None:
    """Keep gRPC itself from shutting down when its last channel goes.

    It would do so in a thread of its own, and a fork in that moment would leave the child waiting for that thread.
    """
    if not _core:
        _core.append(grpc.insecure_channel("localhost:1"))  # never connected


_core: list[grpc.Channel] = []


def open_channel(
    endpoint: Endpoint,
    options: Sequence[tuple[str, Any]],
    attempts: Attempts,
    interceptors: Sequence[Any] = (),
) -> Any:
    """A synchronous channel.

    Args:
        attempts: what makes the calls behind interceptors known to those who make them.
        interceptors: of either kind; the synchronous ones are used.

    Raises:
        ConfigurationError: the PEM bundle cannot be read; or gevent's threads are in use, and gRPC does not know.
    """
    _check_gevent()
    merged = _options(endpoint, options)
    # Streams are then driven by the thread that reads them, rather than by a thread for each call. Only where nobody
    # stands between this package and gRPC: such a call raises in code() before its end, and is to be freed by hand. Nor
    # under gevent, where each reader would hold a thread of its pool.
    # The option's mere presence turns it on, whatever its value.
    single_threaded = merged.pop(SINGLE_THREADED, 1) and _CAN_FREE and not _gevent_is_known()
    own = [each for each in interceptors if isinstance(each, _KINDS)]
    if single_threaded and not own:
        channel = _open(endpoint, {**merged, SINGLE_THREADED: 1})
        if type(channel) is _channel.Channel:
            return channel
        channel.close()  # instrumentation has put itself in gRPC's place
    channel = _open(endpoint, merged)
    innermost = _Innermost(attempts)
    if type(channel) is _channel.Channel or not _put_below(channel, innermost):
        own = [*own, innermost] if own else []
    return grpc.intercept_channel(channel, *own) if own else channel


def _put_below(channel: Any, innermost: _Innermost) -> bool:
    """Put an interceptor below those of an instrumentation, which has wrapped the channel before we get it.

    Returns:
        Whether it could be done: the wrappers known have gRPC's channel in ``_channel``, and read it for each call.
    """
    wrapper, inner = channel, getattr(channel, "_channel", None)
    while inner is not None and type(inner) is not _channel.Channel:
        wrapper, inner = inner, getattr(inner, "_channel", None)
    if inner is None:
        return False
    wrapper._channel = grpc.intercept_channel(inner, innermost)
    return True


def _grpc_channel(channel: Any) -> Any:
    """gRPC's own channel, behind its wrappers; None if there is none, or it is not known."""
    while channel is not None and type(channel) is not _channel.Channel:
        channel = getattr(channel, "_channel", None)
    return channel


def _gevent_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _gevent_is_known() -> bool:
    return bool(getattr(cygrpc, "g_gevent_activated", True)) and "gevent" in sys.modules


def _check_gevent() -> None:
    if _gevent_patched() and not _gevent_is_known():
        raise ConfigurationError(
            "gevent has patched threading, and gRPC does not know: call grpc.experimental.gevent.init_gevent() after "
            "gevent.monkey.patch_all()"
        )


def check_aio() -> None:
    """Refuse to use ``grpc.aio`` where it hangs.

    Raises:
        ConfigurationError: gevent has patched threading, and grpc.aio needs a thread that is one.
    """
    if _gevent_patched():
        raise ConfigurationError(
            "gevent has patched threading, and grpc.aio, which AsyncClient and complete_many() use, hangs then: make "
            "calls by Client.complete() in greenlets, such as gevent.pool.Pool(10).imap_unordered(client.complete, ...)"
        )


def _open(endpoint: Endpoint, options: dict[str, Any]) -> Any:
    credentials = _channel_credentials(endpoint)
    if credentials is None:
        return grpc.insecure_channel(endpoint.target, tuple(options.items()))
    return grpc.secure_channel(endpoint.target, credentials, tuple(options.items()))


def open_aio_channel(
    endpoint: Endpoint,
    options: Sequence[tuple[str, Any]],
    attempts: Attempts,
    interceptors: Sequence[Any] = (),
) -> Any:
    """A channel of the running event loop. Of the interceptors the asynchronous ones are used.

    Raises:
        ConfigurationError: the PEM bundle cannot be read; or as for :func:`check_aio`.
    """
    check_aio()
    forks.leaves_cycles()  # calls behind interceptors are in cycles, and keep gRPC's thread busy
    merged = tuple(_options(endpoint, options).items())
    credentials = _channel_credentials(endpoint)
    own = [*asynchronous(interceptors)]
    if own:
        own += [_AsyncInnermostUnary(attempts), _AsyncInnermostStream(attempts)]
    if credentials is None:
        return grpc.aio.insecure_channel(endpoint.target, merged, interceptors=own)
    return grpc.aio.secure_channel(endpoint.target, credentials, merged, interceptors=own)


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


def _options(endpoint: Endpoint, options: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    merged = dict(_DEFAULT_OPTIONS)
    if is_loopback(endpoint.target):
        merged["grpc.enable_http_proxy"] = 0  # a proxy would look for the address on its own machine
    merged.update(options)
    return merged


def _channel_credentials(endpoint: Endpoint) -> grpc.ChannelCredentials | None:
    if endpoint.tls is False:
        return None
    if endpoint.tls is True:
        return grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(root_certificates=Path(endpoint.tls).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"tls: {endpoint.tls}: {error.strerror or error}") from error
