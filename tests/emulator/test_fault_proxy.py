"""The fault proxy: the effect of each fault on a gRPC client, and the exact bytes."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import itertools
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from driver import OVERLOOKS_RESETS, Clock, details_of
from hypothesis import given
from hypothesis import strategies as st

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2 as pb
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import (
    text_generation_service_pb2_grpc as rpc,
)
from yandexgpt.emulator import ErrorCode, Fault, FaultProxy
from yandexgpt.emulator.fault_proxy import frames as h2

MESSAGES = 5
DEADLINE = 20.0
SILENCE = 0.5
PAUSE = 2.0 if OVERLOOKS_RESETS else 0.05
"""Seconds before a RST. grpcio 1.71 to 1.78 may not notice a RST directly after data until it writes."""
OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 20_000),
    ("grpc.enable_retries", 0),
)
Outcome = tuple[int, str, str]
"""Of a call: the number of messages, the code and the details."""


class Service(rpc.TextGenerationServiceServicer):
    """A server. The temperature of a request is the number of messages, and max_tokens is their length."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.calls = 0
        self.running = 0

    def Completion(
        self, request: pb.CompletionRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.CompletionResponse]:
        with self.changed:
            self.calls += 1
            self.running += 1
            self.changed.notify_all()
        if not context.add_callback(self.ended):
            self.ended()
        options = request.completion_options
        context.set_trailing_metadata((("x-asked-by", request.model_uri),))
        for index in range(int(options.temperature.value)):
            yield pb.CompletionResponse(model_version=str(index).ljust(options.max_tokens.value, "."))

    def ended(self) -> None:
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def idle(self) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.running == 0, DEADLINE)


@pytest.fixture(scope="module")
def service() -> Service:
    return Service()


@pytest.fixture(scope="module")
def upstream(service: Service) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    rpc.add_TextGenerationServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.fixture
def proxy(upstream: str) -> Iterator[FaultProxy]:
    with FaultProxy(upstream) as proxy:
        yield proxy


@pytest.fixture
def channel(proxy: FaultProxy) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(proxy.endpoint, options=OPTIONS) as channel:
        yield channel


def request(messages: int = MESSAGES, size: int = 1, name: str = "") -> pb.CompletionRequest:
    asked = pb.CompletionRequest(model_uri=name)
    asked.completion_options.temperature.value = messages
    asked.completion_options.max_tokens.value = size
    return asked


def ask(channel: grpc.Channel, timeout: float = DEADLINE, wait: bool = False) -> Outcome:
    received = 0
    try:
        for _ in rpc.TextGenerationServiceStub(channel).Completion(request(), timeout=timeout, wait_for_ready=wait):
            received += 1
    except grpc.RpcError as error:
        return received, error.code().name, details_of(error)
    return received, "OK", ""


async def ask_aio(channel: grpc.aio.Channel, timeout: float = DEADLINE) -> Outcome:
    stub = cast("rpc.TextGenerationServiceAsyncStub", rpc.TextGenerationServiceStub(channel))
    received = 0
    try:
        async for _ in stub.Completion(request(), timeout=timeout):
            received += 1
    except grpc.RpcError as error:
        return received, error.code().name, details_of(error)
    return received, "OK", ""


def recovers(channel: grpc.Channel) -> bool:
    """Whether calls work again. The first call may still use the broken connection."""
    return any(ask(channel, wait=True)[1] == "OK" for _ in range(5))


BROKEN = "reset by peer|[Cc]onnection reset|Socket closed|Broken pipe|Transport closed"
TIMED_OUT = ("DEADLINE_EXCEEDED", "Deadline Exceeded")
# Each fault, the maximum number of messages, the code and a part of the details.
FAULTS = [
    (Fault("break", "connect"), 0, "UNAVAILABLE", f"failed to connect.*({BROKEN})"),
    (Fault("break", "connect", fin=True), 0, "UNAVAILABLE", f"failed to connect.*({BROKEN})"),
    (Fault("break", "request", seconds=PAUSE), 0, "UNAVAILABLE", BROKEN),
    (Fault("break", "request", fin=True), 0, "UNAVAILABLE", BROKEN),
    (Fault("break", 0, seconds=PAUSE), 0, "UNAVAILABLE", BROKEN),
    (Fault("break", 2, seconds=PAUSE), 2, "UNAVAILABLE", BROKEN),
    (Fault("break", 2, fin=True), 2, "UNAVAILABLE", BROKEN),
    (Fault("break", "last", seconds=PAUSE), MESSAGES, "UNAVAILABLE", BROKEN),
    (Fault("break", "end"), MESSAGES, "OK", ""),
    (Fault("break", "end", fin=True), MESSAGES, "OK", ""),
    (Fault("stall", "connect"), 0, "(UNAVAILABLE|DEADLINE_EXCEEDED)", "before receiving SETTINGS|Deadline Exceeded"),
    (Fault("stall", "request"), 0, *TIMED_OUT),
    (Fault("stall", 0), 0, *TIMED_OUT),
    (Fault("stall", 2), 2, *TIMED_OUT),
    (Fault("stall", "last"), MESSAGES, *TIMED_OUT),
    (Fault("goaway", "request"), MESSAGES, "OK", ""),
    (Fault("goaway", 2), MESSAGES, "OK", ""),
    (Fault("goaway", "end"), MESSAGES, "OK", ""),
    (Fault("goaway", 2, close=True), 2, "UNAVAILABLE", "Socket closed|GOAWAY"),
    (Fault("goaway", "request", last_stream=0), 0, "UNAVAILABLE", "GOAWAY received; Error code: 0"),
    (Fault("goaway", 2, last_stream=0, code=2), 2, "UNAVAILABLE", "GOAWAY received; Error code: 2"),
    (
        Fault("goaway", 0, last_stream=0, code=ErrorCode.ENHANCE_YOUR_CALM, debug=b"too_many_pings", close=True),
        0,
        "UNAVAILABLE",
        "GOAWAY received; Error code: 11; Debug Text: too_many_pings",
    ),
    (Fault("reset", "request", code=ErrorCode.REFUSED_STREAM), 0, "UNAVAILABLE", "RST_STREAM with error code 7"),
    (Fault("reset", "request", code=ErrorCode.CANCEL), 0, "CANCELLED", "RST_STREAM with error code 8"),
    (Fault("reset", 0, code=ErrorCode.INTERNAL_ERROR), 0, "INTERNAL", "RST_STREAM with error code 2"),
    (Fault("reset", 2, code=ErrorCode.ENHANCE_YOUR_CALM), 2, "RESOURCE_EXHAUSTED", "RST_STREAM with error code 11"),
    (Fault("reset", "last", code=ErrorCode.INTERNAL_ERROR), MESSAGES, "INTERNAL", "RST_STREAM with error code 2"),
    (Fault("reset", "end", code=ErrorCode.CANCEL), MESSAGES, "OK", ""),
    (Fault("delay", "connect", seconds=0.05), MESSAGES, "OK", ""),
    (Fault("delay", 2, seconds=0.05), MESSAGES, "OK", ""),
    (Fault("delay", "last", seconds=0.05), MESSAGES, "OK", ""),
    (Fault("drip", "request", size=30, seconds=0.005), MESSAGES, "OK", ""),
    (Fault("drip", "connect", size=30, seconds=0.005), MESSAGES, "OK", ""),
]


def name(value: object) -> str | None:
    return f"{value.kind}-{value.after}-{value.code}" if isinstance(value, Fault) else None


def check(seen: Outcome, fault: Fault, most: int, code: str, details: str) -> None:
    received, seen_code, seen_details = seen
    assert re.fullmatch(code, seen_code), seen
    assert re.search(details, seen_details), seen
    assert received <= most
    if code in ("OK", "DEADLINE_EXCEEDED"):  # no error can discard messages before the client reads them
        assert received == most


def outcome_of(proxy: FaultProxy, fault: Fault, most: int, attempt: Callable[[float], Outcome]) -> Outcome:
    """The result of a call with the fault. For a stall, the deadline is increased until all earlier messages arrive."""
    for seconds in (SILENCE, 3.0, 3.0, DEADLINE) if fault.kind == "stall" else (DEADLINE,):
        proxy.clear()
        before = len(proxy.faults_played)
        proxy.inject(fault)
        seen = attempt(seconds)
        played = [played.fault for played in proxy.faults_played[before:]]
        if played and seen[0] == most:
            break
    assert played == [fault]
    return seen


@pytest.mark.parametrize(("fault", "most", "code", "details"), FAULTS, ids=name)
def test_a_client_sees_the_fault_and_the_next_call_works(
    service: Service, proxy: FaultProxy, channel: grpc.Channel, fault: Fault, most: int, code: str, details: str
) -> None:
    check(outcome_of(proxy, fault, most, lambda seconds: ask(channel, seconds)), fault, most, code, details)
    if fault.kind == "stall":
        proxy.clear()
    assert recovers(channel)
    assert service.idle()


@pytest.mark.parametrize(("fault", "most", "code", "details"), FAULTS, ids=name)
def test_an_asyncio_client_sees_the_fault(
    service: Service, proxy: FaultProxy, fault: Fault, most: int, code: str, details: str
) -> None:
    async def run(seconds: float) -> Outcome:
        async with grpc.aio.insecure_channel(proxy.endpoint, options=OPTIONS) as channel:
            return await ask_aio(channel, seconds)

    check(outcome_of(proxy, fault, most, lambda seconds: asyncio.run(run(seconds))), fault, most, code, details)
    proxy.clear()
    assert service.idle()


def test_refused_connections_are_refused_until_accepted_again(proxy: FaultProxy, channel: grpc.Channel) -> None:
    endpoint = proxy.endpoint
    proxy.inject(Fault("refuse"))
    received, code, details = ask(channel)
    assert (received, code) == (0, "UNAVAILABLE")
    assert "refused" in details
    assert proxy.connections == 0
    assert proxy.faults_played[0] == (Fault("refuse"), 0, 0)
    proxy.inject(Fault("refuse"))  # a second injection changes nothing
    proxy.accept()
    proxy.accept()
    assert proxy.endpoint == endpoint
    assert recovers(channel)


def test_refused_connections_are_accepted_after_the_given_seconds(proxy: FaultProxy, channel: grpc.Channel) -> None:
    proxy.inject(Fault("refuse", seconds=0.05))
    started = time.monotonic()
    proxy.inject(Fault("refuse", seconds=0.2))
    assert ask(channel, wait=True) == (MESSAGES, "OK", "")
    assert time.monotonic() - started >= 0.15
    assert proxy.connections == 1


def test_faults_are_queued_and_played_the_given_number_of_times(proxy: FaultProxy, channel: grpc.Channel) -> None:
    reset, other = Fault("reset", code=2), Fault("reset", code=8)
    proxy.inject(reset, times=2)
    proxy.inject(other)
    assert [ask(channel)[1] for _ in range(4)] == ["INTERNAL", "INTERNAL", "CANCELLED", "OK"]
    assert [played.fault for played in proxy.faults_played] == [reset, reset, other]
    assert [played.connection for played in proxy.faults_played] == [1, 1, 1]
    assert len({played.stream for played in proxy.faults_played}) == 3
    proxy.inject(reset, times=None)
    assert {ask(channel)[1] for _ in range(5)} == {"INTERNAL"}
    proxy.clear()
    assert ask(channel)[1] == "OK"


def test_fault_whose_point_is_not_reached_is_not_reported(proxy: FaultProxy, channel: grpc.Channel) -> None:
    proxy.inject(Fault("break", after=MESSAGES + 1))
    assert ask(channel)[1] == "OK"
    assert ask(channel)[1] == "OK"
    assert proxy.faults_played == ()


@pytest.mark.parametrize("fin", [False, True])
def test_breaking_all_connections_ends_the_calls_on_them(
    proxy: FaultProxy, channel: grpc.Channel, service: Service, fin: bool
) -> None:
    proxy.inject(Fault("stall", after=1), times=None)
    call = rpc.TextGenerationServiceStub(channel).Completion(request(), timeout=DEADLINE, wait_for_ready=True)
    assert next(call).model_version == "0"
    proxy.break_all(fin=fin)
    with pytest.raises(grpc.RpcError) as error:
        next(call)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    proxy.clear()
    assert recovers(channel)
    assert service.idle()


def test_stall_all_stalls_all_connections(proxy: FaultProxy, channel: grpc.Channel) -> None:
    assert ask(channel)[1] == "OK"
    proxy.stall_all()
    assert ask(channel, SILENCE)[1] == "DEADLINE_EXCEEDED"
    proxy.clear()
    assert recovers(channel)


def test_many_calls_work_on_a_connection_where_streams_were_reset(
    proxy: FaultProxy, channel: grpc.Channel, service: Service
) -> None:
    """The state of header compression stays valid, and discarded bytes are returned to the flow control."""
    stub = rpc.TextGenerationServiceStub(channel)
    for index in range(150):
        if broken := index % 2 == 0:
            proxy.inject(Fault("reset", after=("request", 0, 1, "last")[index // 2 % 4], code=2))
        call = stub.Completion(request(4, 20_000, f"call-{index}"), timeout=DEADLINE, metadata=(("x-n", f"{index}"),))
        if broken:
            with pytest.raises(grpc.RpcError):
                list(call)
        else:
            assert [answer.model_version[0] for answer in call] == list("0123")
            assert dict(call.trailing_metadata())["x-asked-by"] == f"call-{index}"
    assert len(proxy.faults_played) == 75
    assert proxy.connections == 1
    assert service.idle()


def test_cancelled_call_uses_up_its_fault(proxy: FaultProxy, channel: grpc.Channel, service: Service) -> None:
    proxy.inject(Fault("drip", after="request", size=200, seconds=0.001))
    call = rpc.TextGenerationServiceStub(channel).Completion(request(200, 500), timeout=DEADLINE)
    next(call)
    call.cancel()
    proxy.inject(Fault("break", after=1, seconds=60.0))
    call = rpc.TextGenerationServiceStub(channel).Completion(request(), timeout=DEADLINE)
    next(call)
    call.cancel()
    assert service.idle()
    proxy.clear()
    assert ask(channel)[1] == "OK"
    assert [played.fault.kind for played in proxy.faults_played] == ["drip"]


def test_drip_ends_with_its_call(proxy: FaultProxy, channel: grpc.Channel) -> None:
    stub = rpc.TextGenerationServiceStub(channel)
    proxy.inject(Fault("drip", after=1, size=1000, seconds=0.01))
    started = time.monotonic()
    assert len(list(stub.Completion(request(5, 10_000), timeout=DEADLINE))) == 5
    assert time.monotonic() - started >= 0.38  # 40,000 bytes
    assert len(list(stub.Completion(request(50, 100_000), timeout=DEADLINE))) == 50  # 50 s with the fault


def test_unreachable_server_closes_the_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with (
            FaultProxy(f"127.0.0.1:{unused.getsockname()[1]}") as proxy,
            grpc.insecure_channel(proxy.endpoint, options=OPTIONS) as channel,
        ):
            assert ask(channel)[1] == "UNAVAILABLE"


@pytest.mark.parametrize(
    "impossible",
    [
        {"kind": "explode"},
        {"kind": "break", "after": "lunch"},
        {"kind": "break", "after": -1},
        {"kind": "reset", "after": "connect"},
        {"kind": "goaway", "after": "connect"},
        {"kind": "break", "seconds": -1.0},
        {"kind": "delay"},
        {"kind": "drip"},
        {"kind": "drip", "seconds": 1.0, "size": 0},
    ],
)
def test_invalid_fault_is_rejected(impossible: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|cannot be"):
        Fault(**impossible)


def test_a_fault_cannot_be_played_less_than_once(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match="times"):
        proxy.inject(Fault("break"), times=0)


def test_closed_proxy_leaves_no_thread_and_raises_an_error(upstream: str) -> None:
    before = set(threading.enumerate())
    proxy = FaultProxy(upstream)
    with socket.create_connection(("127.0.0.1", int(proxy.endpoint.split(":")[1]))):
        proxy.inject(Fault("refuse"))
        assert len(set(threading.enumerate()) - before) == 1
        proxy.close()
    proxy.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError, match="closed"):
        proxy.clear()


# The bytes on the connection: both peers are plain sockets.


class Ends:
    """The sockets of the client and of the server of one proxied connection."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.readers = {client: h2.FrameReader(), server: h2.FrameReader()}
        self.frames: dict[socket.socket, list[h2.Frame]] = {client: [], server: []}

    def read(self, end: socket.socket, count: int = 1) -> list[h2.Frame]:
        frames = self.frames[end]
        while len(frames) < count:
            frames += self.readers[end].feed(end.recv(4096) or pytest.fail("closed"))
        taken, frames[:] = frames[:count], frames[count:]
        return taken


@contextmanager
def ends(prepare: Callable[[FaultProxy], object] = lambda _: None) -> Iterator[tuple[FaultProxy, Ends]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        with FaultProxy(f"127.0.0.1:{listener.getsockname()[1]}") as proxy:
            prepare(proxy)
            host, port = proxy.endpoint.split(":")
            with socket.create_connection((host, int(port)), DEADLINE) as client:
                server, _ = listener.accept()
                with server:
                    server.settimeout(DEADLINE)
                    yield proxy, Ends(client, server)


def exactly(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += end.recv(count - len(data)) or pytest.fail("closed")
    return data


def send_until_error(end: socket.socket) -> None:
    while True:
        end.sendall(bytes(1_000_000))


def send_preface(both: Ends) -> None:
    both.client.sendall(h2.PREFACE)
    assert exactly(both.server, len(h2.PREFACE)) == h2.PREFACE


def message(body: bytes) -> bytes:
    return struct.pack("!BI", 0, len(body)) + body


def call(stream: int) -> bytes:
    return h2.build(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, b"request").raw


def headers(stream: int, flags: int = h2.END_HEADERS) -> h2.Frame:
    return h2.build(h2.HEADERS, flags, stream, b"response")


def test_data_frame_is_split_at_the_fault() -> None:
    with ends(lambda proxy: proxy.inject(Fault("stall", after=2))) as (proxy, both):
        send_preface(both)
        both.client.sendall(call(1))
        both.read(both.server)
        body = message(b"one") + message(b"") + message(b"three")
        both.server.sendall(headers(1).raw + h2.build(h2.DATA, h2.END_STREAM, 1, body).raw)
        first, second = both.read(both.client, 2)
        assert first == headers(1)
        assert second == h2.build(h2.DATA, 0, 1, message(b"one") + message(b""))
        assert proxy.faults_played[0].stream == 1


def test_discarded_data_of_a_reset_stream_is_credited_and_headers_are_forwarded() -> None:
    with ends(lambda proxy: proxy.inject(Fault("reset", after=1, code=2))) as (_, both):
        send_preface(both)
        both.client.sendall(call(1) + call(3))
        both.read(both.server, 2)
        data = h2.build(h2.DATA, 0, 1, message(b"one") + message(b"two"))
        trailers = headers(1, h2.END_HEADERS | h2.END_STREAM)
        both.server.sendall(headers(1).raw + data.raw + h2.build(h2.DATA, 0, 1, b"").raw + trailers.raw)
        both.server.sendall(h2.rst_stream(1, 0) + headers(3).raw)
        seen = both.read(both.client, 5)
        assert [(frame.kind, frame.stream) for frame in seen] == [
            (h2.HEADERS, 1),
            (h2.DATA, 1),
            (h2.RST_STREAM, 1),
            (h2.HEADERS, 1),
            (h2.HEADERS, 3),
        ]
        assert seen[2].raw == h2.rst_stream(1, 2)
        cancel, credit = both.read(both.server, 2)
        assert cancel.raw == h2.rst_stream(1, 8)
        assert credit.raw == h2.window_update(len(message(b"two")))
        both.client.sendall(h2.build(h2.DATA, 0, 1, b"late").raw + h2.rst_stream(1, 8) + call(5))
        assert both.read(both.client)[0].raw == h2.window_update(4)
        assert both.read(both.server)[0].raw == call(5)


def test_calls_above_the_last_stream_of_a_goaway_are_cancelled() -> None:
    with ends(lambda proxy: proxy.inject(Fault("goaway", after=0, last_stream=1, code=2, debug=b"why"))) as (_, both):
        send_preface(both)
        both.client.sendall(call(1) + call(3))
        both.read(both.server, 2)
        both.server.sendall(headers(1).raw)
        assert both.read(both.client, 2)[1].raw == h2.goaway(1, 2, b"why")
        assert both.read(both.server)[0].raw == h2.rst_stream(3, 8)
        both.client.sendall(call(5))
        assert [frame.raw for frame in both.read(both.server, 2)] == [call(5), h2.rst_stream(5, 8)]
        both.server.sendall(h2.rst_stream(1, 2))
        assert both.read(both.client)[0].raw == h2.rst_stream(1, 2)


def test_clear_removes_a_scheduled_fault() -> None:
    with ends(lambda proxy: proxy.inject(Fault("reset", after=0, seconds=60.0))) as (proxy, both):
        send_preface(both)
        both.client.sendall(call(1))
        both.read(both.server)
        answer = h2.build(h2.DATA, 0, 1, message(b"one"))
        both.server.sendall(headers(1).raw + answer.raw)
        assert both.read(both.client)[0] == headers(1)
        proxy.clear()
        assert both.read(both.client)[0] == answer
        assert proxy.faults_played == ()


def test_play_plays_a_scheduled_fault() -> None:
    fault = Fault("reset", after=0, seconds=60.0, code=ErrorCode.INTERNAL_ERROR)
    with ends(lambda proxy: proxy.inject(fault)) as (proxy, both):
        send_preface(both)
        assert proxy.play() == 0
        for stream in (1, 3):
            both.client.sendall(call(stream))
            both.read(both.server)
        both.server.sendall(headers(1).raw + h2.build(h2.DATA, 0, 1, message(b"one")).raw + headers(3).raw)
        assert both.read(both.client)[0] == headers(1)
        assert proxy.play() == 1
        assert proxy.faults_played == ((fault, 1, 1),)
        assert both.read(both.client)[0].raw == h2.rst_stream(1, ErrorCode.INTERNAL_ERROR)
        assert both.read(both.client)[0] == headers(3)  # the message of stream 1 was discarded
        assert proxy.play() == 0


def test_play_counts_only_played_faults() -> None:
    with ends(lambda proxy: proxy.inject(Fault("reset", after=0, seconds=60.0))) as (proxy, both):
        send_preface(both)
        both.client.sendall(call(1))
        both.read(both.server)
        both.server.sendall(headers(1).raw)
        assert both.read(both.client)[0] == headers(1)
        proxy.stall_all()
        assert proxy.play() == 0
        assert proxy.faults_played == ()


def test_scheduled_fault_is_not_played_on_an_ended_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    for module in ("connection", "event_loop"):
        monkeypatch.setattr(f"yandexgpt.emulator.fault_proxy.{module}.time", SimpleNamespace(monotonic=clock))
    with ends(lambda proxy: proxy.inject(Fault("reset", after=0, seconds=60.0))) as (proxy, both):
        send_preface(both)
        both.client.sendall(call(1))
        both.read(both.server)
        both.server.sendall(headers(1).raw)
        both.read(both.client)
        both.client.sendall(h2.rst_stream(1, 8))
        assert both.read(both.server)[0].raw == h2.rst_stream(1, 8)
        clock.now += 60.0  # the delay of the fault has passed
        proxy.accept()  # only wakes the proxy, so that it reads the clock
        both.server.sendall(headers(3).raw)
        assert both.read(both.client)[0].stream == 3
        assert proxy.faults_played == ()


@pytest.mark.parametrize("fin", [False, True])
def test_broken_connection_delivers_earlier_data(fin: bool) -> None:
    with ends(lambda proxy: proxy.inject(Fault("break", after=1, fin=fin))) as (_, both):
        send_preface(both)
        both.client.sendall(call(1))
        both.read(both.server)
        both.server.sendall(headers(1).raw + h2.build(h2.DATA, 0, 1, message(b"one")).raw)
        both.read(both.client, 2)
        if fin:
            assert both.client.recv(1) == b""
        else:
            with pytest.raises(ConnectionResetError):
                both.client.recv(1)
        assert both.server.recv(1) == b""


def test_peer_that_does_not_close_is_closed_after_a_timeout() -> None:
    with ends() as (proxy, both):
        send_preface(both)
        proxy.break_all(fin=True)
        both.server.sendall(b"late")
        assert both.client.recv(1) == b""
        with pytest.raises(OSError, match=r"reset|pipe"):
            send_until_error(both.client)


def test_stalled_connection_stays_open_until_the_client_closes() -> None:
    with ends(lambda proxy: proxy.inject(Fault("stall", after="connect"))) as (proxy, both):
        both.client.sendall(h2.PREFACE)
        both.server.close()
        both.client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            both.client.recv(1)
        both.client.sendall(b"more")
        proxy.clear()
        both.client.settimeout(DEADLINE)
        with pytest.raises(ConnectionResetError):
            both.client.recv(1)


@pytest.mark.parametrize("opening", [b"hello, I am no HTTP/2", b"PRI * HTTP/1.1\r\n"])
def test_other_protocols_are_forwarded_unchanged(opening: bytes) -> None:
    with ends() as (_, both):
        for byte in opening:
            both.client.sendall(bytes([byte]))
        assert exactly(both.server, len(opening)) == opening
        both.server.sendall(b"answer")
        assert exactly(both.client, 6) == b"answer"
        both.server.close()
        assert both.client.recv(1) == b""


def test_slow_reader_gets_all_data() -> None:
    size = 8_000_000
    with ends() as (_, both):
        both.client.sendall(b"\x16")
        writer = threading.Thread(target=lambda: both.server.sendall(bytes(size)))
        writer.start()
        assert both.server.recv(1) == b"\x16"
        received = 0
        while received < size:
            received += len(both.client.recv(1_000_000))
        writer.join()


@pytest.fixture(scope="module")
def tls(service: Service) -> Iterator[tuple[str, bytes]]:
    """A TLS server and its certificate."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    rpc.add_TextGenerationServiceServicer_to_server(service, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(private, certificate)]))
    server.start()
    yield f"127.0.0.1:{port}", certificate
    server.stop(0).wait()


def test_tls_connection_is_forwarded_and_has_connection_faults(tls: tuple[str, bytes]) -> None:
    upstream, certificate = tls
    with FaultProxy(upstream) as proxy:
        proxy.inject(Fault("delay", after="connect", seconds=0.05))
        proxy.inject(Fault("break", after=1))
        credentials = grpc.ssl_channel_credentials(certificate)
        with grpc.secure_channel(proxy.endpoint, credentials, options=OPTIONS) as channel:
            assert ask(channel) == (MESSAGES, "OK", "")
            assert [played.fault.kind for played in proxy.faults_played] == ["delay"]
            proxy.stall_all()
            assert ask(channel, SILENCE)[1] == "DEADLINE_EXCEEDED"
            proxy.clear()
            assert recovers(channel)


# Frames and messages.

FRAMES = st.lists(
    st.builds(
        h2.build,
        st.sampled_from([h2.DATA, h2.HEADERS, h2.RST_STREAM, 4, 6, h2.GOAWAY, h2.WINDOW_UPDATE]),
        st.integers(0, 255).map(lambda flags: flags | h2.END_HEADERS),
        st.integers(0, h2.STREAM_MASK),
        st.binary(max_size=60),
    ),
    max_size=12,
)


def chopped(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return (data[begin:end] for begin, end in itertools.pairwise(at))


@given(FRAMES, st.lists(st.integers(0, 2000), max_size=30))
def test_frames_do_not_depend_on_the_chunks(frames: list[h2.Frame], cuts: list[int]) -> None:
    reader = h2.FrameReader()
    pieces = chopped(b"".join(frame.raw for frame in frames), cuts)
    assert [frame for piece in pieces for frame in reader.feed(piece)] == frames


@given(st.lists(st.binary(max_size=20), min_size=2, max_size=5), st.lists(st.integers(0, 200), max_size=20))
def test_header_block_is_one_frame(parts: list[bytes], cuts: list[int]) -> None:
    kinds = [h2.HEADERS] + [9] * (len(parts) - 1)
    flags = [h2.END_STREAM] + [0] * (len(parts) - 2) + [h2.END_HEADERS]
    data = b"".join(h2.build(kind, flag, 7, part).raw for kind, flag, part in zip(kinds, flags, parts, strict=True))
    ping = h2.build(6, 0, 0, bytes(8))
    reader = h2.FrameReader()
    block, after = [frame for piece in chopped(data + ping.raw, cuts) for frame in reader.feed(piece)]
    assert block == h2.Frame(h2.HEADERS, h2.END_STREAM | h2.END_HEADERS, 7, data)
    assert block.end_stream
    assert after == ping


@given(st.lists(st.binary(max_size=300), max_size=10), st.lists(st.integers(0, 4000), max_size=30))
def test_message_ends_do_not_depend_on_the_frames(bodies: list[bytes], cuts: list[int]) -> None:
    messages = [message(body) for body in bodies]
    counter, at, found = h2.MessageCounter(), 0, []
    for piece in chopped(b"".join(messages), cuts):
        found += [at + end for end in counter.feed(piece)]
        at += len(piece)
    assert found == list(itertools.accumulate(map(len, messages)))
