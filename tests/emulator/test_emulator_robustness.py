"""The emulator survives bad clients: invalid bytes, partial frames, silence, large bodies, many connections."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest
from driver import PATIENCE, until

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import (
    text_generation_service_pb2,
    text_generation_service_pb2_grpc,
)
from yandexgpt.emulator import Emulator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes.fromhex("000000040000000000")
PATHS = ("/foundationModels/v1/completion", "/v1/chat/completions", "/v1/responses")
HEADERS = {"Authorization": "Api-Key a", "Content-Type": "application/json"}
METADATA = (("authorization", "Api-Key a"),)
MEBIBYTE = 2**20
STREAMS = 1000
HTTP_STREAMS = 200
FLOOD = 300


@pytest.fixture(scope="module")
def shared_emulator() -> Iterator[Emulator]:
    """One emulator for all tests, so that a test detects damage done by an earlier one."""
    with Emulator(http_port=0) as running:
        yield running


@pytest.fixture(autouse=True)
def still_answers(shared_emulator: Emulator) -> Iterator[None]:
    """After each test, all APIs work and no call is active."""
    yield
    check(shared_emulator)
    until(lambda: shared_emulator.in_flight == 0)


def check(emulator: Emulator) -> None:
    """A normal call of each API is answered in time."""
    with emulator.client(timeout=PATIENCE) as client:
        assert client.complete("как дела").text == "как дела"
    assert ask_rest(emulator, "как дела") == "как дела"
    body = {"model": "gpt://b1g/yandexgpt", "messages": [{"role": "user", "content": "как дела"}]}
    status, answer = post(emulator, "/v1/chat/completions", json.dumps(body).encode())
    assert status == 200
    assert json.loads(answer)["choices"][0]["message"]["content"] == "как дела"


def post(emulator: Emulator, path: str, body: Any, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*http_address(emulator), timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {**HEADERS, **headers})
        response = connection.getresponse()
        return response.status, response.read()


def rest_body(text: str, *, stream: bool = False) -> bytes:
    options = {"stream": stream}
    message = {"role": "user", "text": text}
    return json.dumps({"modelUri": "gpt://b1g/m", "completionOptions": options, "messages": [message]}).encode()


def ask_rest(emulator: Emulator, text: str, *, stream: bool = False) -> str:
    """The text of the final message. The messages of a stream are checked too."""
    status, answer = post(emulator, "/foundationModels/v1/completion", rest_body(text, stream=stream))
    assert status == 200, answer
    texts = [json.loads(line)["result"]["alternatives"][0]["message"]["text"] for line in answer.splitlines()]
    words = text.split()
    assert not stream or texts == [*(" ".join(words[: n + 1]) for n in range(len(words))), text]
    return str(texts[-1])


def grpc_address(emulator: Emulator) -> tuple[str, int]:
    host, _, port = emulator.endpoint.rpartition(":")
    return host, int(port)


def http_address(emulator: Emulator) -> tuple[str, int]:
    host, _, port = emulator.http_url.removeprefix("http://").rpartition(":")
    return host, int(port)


def cut(connection: socket.socket) -> None:
    """Close the socket with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


NOISE = random.Random(6).randbytes(4096)
FOR_GRPC = {
    "nothing": b"",
    "noise": NOISE,
    "zeros": bytes(4096),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + NOISE[:500],
    "half a preface": PREFACE[:11],
    "a preface": PREFACE,
    "a preface and noise": PREFACE + NOISE,
    "half a frame": PREFACE + SETTINGS + frame(0, 0, 1, b"half", length=16384),
    "half a header": PREFACE + SETTINGS + b"\x00\x00",
    "a frame too large": PREFACE + SETTINGS + frame(0, 0, 1, b"", length=2**24 - 1),
    "headers that are none": PREFACE + SETTINGS + frame(1, 4, 1, NOISE[:200]),
    "headers without an end": PREFACE + SETTINGS + frame(1, 0, 1, b"\x82"),
    "data of no stream": PREFACE + SETTINGS + frame(0, 1, 7, b"abc"),
    "an even stream": PREFACE + SETTINGS + frame(1, 5, 2, b"\x82\x86\x84"),
    "a window of nothing": PREFACE + SETTINGS + frame(8, 0, 0, bytes(4)),
    "an unknown frame": PREFACE + SETTINGS + frame(250, 255, 0, NOISE[:100]),
    "resets": PREFACE + SETTINGS + frame(3, 0, 1, bytes(4)) * 1000,
    "pings": PREFACE + SETTINGS + frame(6, 0, 0, bytes(8)) * 1000,
}
FOR_HTTP = {
    "nothing": b"",
    "noise": NOISE,
    "zeros": bytes(4096),
    "HTTP/2": PREFACE + SETTINGS,
    "TLS": bytes.fromhex("1603010200010001fc0303") + NOISE[:500],
    "an unknown version": b"GET / HTTP/9.9\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "no host": b"POST /foundationModels/v1/completion HTTP/1.1\r\n\r\n",
    "half a request line": b"POST /foundationMod",
    "half a header": b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Le",
    "a header too long": b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * MEBIBYTE,
    "a path too long": b"GET /" + b"a" * MEBIBYTE + b" HTTP/1.1\r\n\r\n",
    "a path of garbage": b"GET /%ff%00\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "half a body": b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
    "a negative length": b"POST /v1/responses HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n{}",
    "two lengths": b"POST /v1/responses HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n{}",
    "half a chunk": b"POST /v1/responses HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{",
    "no last chunk": b"POST /v1/responses HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "a chunk of garbage": b"POST /v1/responses HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a hundred requests": b"GET /openapi.jso HTTP/1.1\r\nHost: a\r\n\r\n" * 100,
    "a websocket": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
}
DELIVERIES = [
    *(pytest.param(grpc_address, sent, id=f"gRPC-{name}") for name, sent in FOR_GRPC.items()),
    *(pytest.param(http_address, sent, id=f"HTTP-{name}") for name, sent in FOR_HTTP.items()),
]


@pytest.mark.parametrize(("address", "sent"), DELIVERIES)
def test_invalid_bytes_do_not_affect_other_clients(address: Any, sent: bytes, shared_emulator: Emulator) -> None:
    """Other clients are answered while the connection is open, and after it was reset or closed."""
    connections = [socket.create_connection(address(shared_emulator), timeout=PATIENCE) for _ in range(3)]
    for connection in connections:
        with contextlib.suppress(ConnectionError):  # the server may close the connection early
            connection.sendall(sent)
    check(shared_emulator)
    cut(connections[0])
    connections[1].close()
    with connections[2] as connection, contextlib.suppress(OSError):  # the server may have closed it
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):  # until the server closes the connection
            pass


def test_a_body_over_the_limit_of_grpc_is_rejected(shared_emulator: Emulator) -> None:
    with grpc.insecure_channel(shared_emulator.endpoint) as channel:
        stub: Any = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
        for _ in range(3):
            call = stub.Completion(request("a" * 5 * MEBIBYTE), metadata=METADATA, timeout=PATIENCE)
            assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        answers = list(stub.Completion(request("слово"), metadata=METADATA, timeout=PATIENCE))
        assert answers[-1].alternatives[0].message.text == "слово"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mebibytes", [17, 64])
def test_a_huge_body_over_http_is_rejected(path: str, mebibytes: int, shared_emulator: Emulator) -> None:
    """The body has a content length, or is chunked."""
    piece = b" " * MEBIBYTE
    for body in (piece * mebibytes, itertools.repeat(piece, mebibytes)):
        status, answer = post(shared_emulator, path, body)
        assert status == 413
        assert "larger than" in str(json.loads(answer))


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000, b'"\\ud800"', b"\xff\xfe", b"nul"]
)
@pytest.mark.parametrize("path", PATHS)
def test_unparsable_body_is_a_client_error(path: str, body: bytes, shared_emulator: Emulator) -> None:
    status, answer = post(shared_emulator, path, body)
    assert status == 400
    assert json.loads(answer)


@pytest.mark.parametrize("address", [grpc_address, http_address])
def test_many_connections_do_not_affect_other_clients(address: Any, shared_emulator: Emulator) -> None:
    connections = [socket.create_connection(address(shared_emulator), timeout=PATIENCE) for _ in range(FLOOD)]
    for index, connection in enumerate(connections):
        with contextlib.suppress(ConnectionError):
            connection.sendall(PREFACE if index % 2 else b"GET / HTTP/1.1\r\n")
    check(shared_emulator)
    for index, connection in enumerate(connections):
        cut(connection) if index % 3 else connection.close()


def request(text: str) -> Any:
    made = text_generation_service_pb2.CompletionRequest(
        model_uri="gpt://b1g/m", messages=[{"role": "user", "text": text}]
    )
    made.completion_options.stream = True
    return made


@pytest.mark.slow
def test_a_thousand_concurrent_streams_over_grpc() -> None:
    """All streams run at the same time, and each gets its own answer."""

    async def main(emulator: Emulator) -> None:
        all_run = asyncio.Event()
        running = 0

        async def one(stub: Any, number: int) -> None:
            nonlocal running
            texts: list[str] = []
            async for answer in stub.Completion(request(f"раз два {number}"), metadata=METADATA, timeout=PATIENCE):
                if not texts:
                    running += 1
                    if running == STREAMS:
                        all_run.set()
                    await all_run.wait()
                texts.append(answer.alternatives[0].message.text)
            assert texts == ["раз", "раз два", *[f"раз два {number}"] * 2]

        async with grpc.aio.insecure_channel(emulator.endpoint) as channel:
            stub = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
            await asyncio.wait_for(asyncio.gather(*(one(stub, number) for number in range(STREAMS))), PATIENCE)

    with Emulator() as emulator:
        asyncio.run(main(emulator))
        assert len(emulator.requests) == STREAMS
        assert {each.wait() for each in emulator.requests} == {"OK"}


def test_hundreds_of_concurrent_streams_over_http(shared_emulator: Emulator) -> None:
    before = len(shared_emulator.requests)
    with ThreadPoolExecutor(HTTP_STREAMS) as pool:
        texts = [f"раз два {number}" for number in range(HTTP_STREAMS)]
        assert list(pool.map(lambda text: ask_rest(shared_emulator, text, stream=True), texts)) == texts
    assert len(shared_emulator.requests) - before == HTTP_STREAMS


def test_client_that_does_not_read_does_not_block_others(shared_emulator: Emulator) -> None:
    """A stream of many megabytes is not buffered in memory, and ends when the client disconnects."""
    shared_emulator.reply("конец", partials=["а" * 100_000] * 300)
    before = len(shared_emulator.requests)
    connection = socket.create_connection(http_address(shared_emulator), timeout=PATIENCE)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = rest_body("раз", stream=True)
    fields = f"Host: a\r\nAuthorization: Api-Key a\r\nContent-Length: {len(body)}"
    connection.sendall(f"POST {PATHS[0]} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body)
    (recorded,) = shared_emulator.wait_for_requests(before + 1)[before:]
    until(lambda: recorded.sent > 0)
    check(shared_emulator)
    assert recorded.outcome is None
    cut(connection)
    assert recorded.wait(PATIENCE) == "CANCELLED"


def test_stop_does_not_wait_for_connected_clients() -> None:
    with Emulator(http_port=0) as emulator:
        held = [
            socket.create_connection(address(emulator), timeout=PATIENCE)
            for address in (grpc_address, http_address)
            for _ in range(10)
        ]
        for connection in held:
            connection.sendall(
                PREFACE if connection.getpeername() == grpc_address(emulator) else b"POST / HTTP/1.1\r\nHo"
            )
        threads = threading.active_count()
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert threading.active_count() <= threads
    for connection in held:
        connection.close()
