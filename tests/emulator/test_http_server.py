"""The HTTP server of the emulator: start, stop, disconnected clients, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import http.client
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
import uvicorn
from driver import PATIENCE, Background, until
from starlette.applications import Starlette

from yandexgpt.emulator import Emulator
from yandexgpt.emulator.http_api.grpc_client import GrpcClient
from yandexgpt.emulator.http_api.server import _Server
from yandexgpt.emulator.server_sockets import bind

COMPLETION = "/foundationModels/v1/completion"
FOREVER = 3600.0
STOPPED = {"code": 14, "message": "the emulator was stopped", "details": []}
PROMPT = {"modelUri": "gpt://folder/yandexgpt", "messages": [{"role": "user", "text": "раз два три"}]}


@contextlib.contextmanager
def connection(emulator: Emulator, context: ssl.SSLContext | None = None) -> Iterator[http.client.HTTPConnection]:
    address = urlsplit(emulator.http_url).netloc
    if context is None:
        made = http.client.HTTPConnection(address, timeout=PATIENCE)
    else:
        made = http.client.HTTPSConnection(address, timeout=PATIENCE, context=context)
    try:
        yield made
    finally:
        made.close()


def ask(made: http.client.HTTPConnection, *, stream: bool = False) -> http.client.HTTPResponse:
    body = {**PROMPT, "completionOptions": {"stream": stream}}
    send(made, body)
    return made.getresponse()


def send(made: http.client.HTTPConnection, body: Any = None) -> None:
    made.request("POST", COMPLETION, json.dumps(body or PROMPT), {"authorization": "Api-Key key"})


def text_of(response: http.client.HTTPResponse) -> str:
    text: str = json.loads(response.read())["result"]["alternatives"][0]["message"]["text"]
    return text


def address_of(emulator: Emulator) -> tuple[str, int]:
    url = urlsplit(emulator.http_url)
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port


def no_server_is_left() -> bool:
    return not any("emulator" in thread.name for thread in threading.enumerate())


# Start and stop


def test_without_an_http_port_there_is_no_http_server() -> None:
    with Emulator() as emulator:
        with pytest.raises(RuntimeError, match=r"no HTTP port: use Emulator\(http_port=0\)"):
            _ = emulator.http_url
        assert not any(name.startswith("OPENAI") for name in emulator.environment())


def test_address_is_known_after_the_first_start() -> None:
    emulator = Emulator(http_port=0)
    with pytest.raises(RuntimeError, match="was not started"):
        _ = emulator.http_url
    with emulator:
        url = emulator.http_url
        assert url.startswith("http://127.0.0.1:")
        assert emulator.environment()["OPENAI_BASE_URL"] == f"{url}/v1"
    assert emulator.http_url == url


@pytest.mark.parametrize("port", [-1, 65536, 1.5])
def test_invalid_port_is_rejected(port: Any) -> None:
    with pytest.raises(ValueError, match="http_port"):
        Emulator(http_port=port)


def test_second_start_uses_the_same_ports() -> None:
    emulator = Emulator(http_port=0)
    addresses = set()
    for _ in range(3):
        with emulator, connection(emulator) as made:
            assert text_of(ask(made)) == "раз два три"
            addresses.add((emulator.endpoint, emulator.http_url))
        assert no_server_is_left()
    assert len(addresses) == 1


def test_port_in_use_is_named_and_nothing_is_left() -> None:
    with bind("127.0.0.1", 0) as reserved:  # reserves a free port; it does not listen
        port = reserved.getsockname()[1]
        emulator = Emulator(http_port=port)
        with bind("127.0.0.1", port) as taken:
            taken.listen()
            with pytest.raises(OSError, match=f"127.0.0.1:{port}") as caught:
                emulator.start()
        assert caught.value.errno == errno.EADDRINUSE
        assert no_server_is_left()
        with emulator, connection(emulator) as made:
            assert text_of(ask(made)) == "раз два три"


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "yandexgpt.emulator.http_api.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"yandexgpt\[emulator\]"):
        Emulator(http_port=0).start()
    assert no_server_is_left()


def test_failed_start_raises_the_reason_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(_: uvicorn.Config) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(uvicorn.Config, "load", disk_full)
        with pytest.raises(OSError, match="no room"):
            Emulator(http_port=0).start()
    assert no_server_is_left()


def test_listens_on_the_given_host_and_returns_a_reachable_url() -> None:
    with Emulator(host="0.0.0.0", http_port=0) as emulator, connection(emulator) as made:
        assert emulator.http_url.startswith("http://127.0.0.1:")
        assert text_of(ask(made)) == "раз два три"


def test_ipv6_url_has_brackets() -> None:
    with Emulator(host="::1", http_port=0) as emulator, connection(emulator) as made:
        assert emulator.http_url.startswith("http://[::1]:")
        assert text_of(ask(made)) == "раз два три"


@pytest.fixture
def long_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop waits until the last message of each active request was sent."""
    monkeypatch.setattr("yandexgpt.emulator.http_api.server._GRACE", PATIENCE)


@pytest.mark.usefixtures("long_grace_period")
def test_stop_ends_active_requests_with_unavailable(emulator: Emulator) -> None:
    emulator.fail("INTERNAL", after=1, delay=FOREVER, times=2)
    with connection(emulator) as streaming, connection(emulator) as whole:
        stream = ask(streaming, stream=True)
        stream.readline()
        send(whole)
        emulator.wait_for_requests(2)
        emulator.stop()
        assert json.loads(stream.readline()) == {"error": STOPPED}
        assert stream.read() == b""
        refusal = whole.getresponse()
        assert (refusal.status, json.loads(refusal.read())) == (503, STOPPED)
    assert [recorded.wait() for recorded in emulator.requests] == ["CANCELLED", "CANCELLED"]
    assert no_server_is_left()


def test_stop_does_not_wait_for_idle_connections(emulator: Emulator) -> None:
    emulator.reply("x" * 1_000_000, partials=["x" * 1_000_000] * 50)
    address = address_of(emulator)
    with connection(emulator) as idle, connection(emulator) as unread, socket.create_connection(address) as half:
        assert text_of(ask(idle)) != ""  # the connection is kept alive
        emulator.reply("x" * 1_000_000, partials=["x" * 1_000_000] * 50)
        half.sendall(f"POST {COMPLETION} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n".encode())
        ask(unread, stream=True)  # the response is not read
        began = time.monotonic()
        emulator.stop()
        assert time.monotonic() - began < PATIENCE / 3
        assert half.recv(1) == b""
    assert no_server_is_left()


def test_connection_is_kept_alive(emulator: Emulator) -> None:
    with connection(emulator) as made:
        for _ in range(3):
            assert text_of(ask(made)) == "раз два три"
        assert len(ask(made, stream=True).read().splitlines()) == 4
        assert text_of(ask(made)) == "раз два три"


# Disconnected clients


@pytest.mark.parametrize("stream", [False, True])
def test_disconnect_cancels_the_call(emulator: Emulator, stream: bool) -> None:
    emulator.fail("INTERNAL", delay=FOREVER)
    with connection(emulator) as made:
        send(made, {**PROMPT, "completionOptions": {"stream": stream}})
        (recorded,) = emulator.wait_for_requests(1)
        assert recorded.outcome is None
    assert recorded.wait() == "CANCELLED"
    until(lambda: emulator.in_flight == 0)


def test_disconnect_during_a_stream_cancels_the_call(emulator: Emulator) -> None:
    emulator.fail("INTERNAL", after=2, delay=FOREVER)
    with connection(emulator) as made:
        ask(made, stream=True).readline()
        (recorded,) = emulator.requests
    assert recorded.wait() == "CANCELLED"


def test_disconnect_during_the_body_makes_no_call(emulator: Emulator) -> None:
    with socket.create_connection(address_of(emulator)) as half:
        half.sendall(f"POST {COMPLETION} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{{".encode())
    with connection(emulator) as made:
        assert text_of(ask(made)) == "раз два три"
    assert len(emulator.requests) == 1


def test_slow_reader_gets_the_whole_response(emulator: Emulator) -> None:
    long = "слово " * 20_000
    emulator.reply(long, partials=[long] * 20)
    with connection(emulator) as made:
        response = ask(made, stream=True)
        (recorded,) = emulator.requests
        lines = [json.loads(line) for line in response]
    assert [len(line["result"]["alternatives"][0]["message"]["text"]) for line in lines] == [len(long)] * 21
    assert recorded.wait() == "OK"


def test_many_concurrent_streams_work(emulator: Emulator) -> None:
    emulator.fail("INTERNAL", after=1, delay=FOREVER, times=50)
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            assert ask(stack.enter_context(connection(emulator)), stream=True).readline()
        assert emulator.in_flight == 50
    until(lambda: emulator.in_flight == 0)


# TLS


@pytest.fixture
def secure() -> Iterator[Emulator]:
    with Emulator(http_port=0, tls=True) as running:
        yield running


def test_with_tls_grpc_and_http_have_the_same_authority(secure: Emulator) -> None:
    assert secure.http_url.startswith("https://")
    assert secure.environment()["SSL_CERT_FILE"] == secure.tls
    trusting = ssl.create_default_context(cafile=str(secure.tls))
    with connection(secure, trusting) as made:
        assert text_of(ask(made)) == "раз два три"
        assert len(ask(made, stream=True).read().splitlines()) == 4
    assert secure.client().complete("да").text == "да"
    with connection(secure, ssl.create_default_context()) as stranger, pytest.raises(ssl.SSLCertVerificationError):
        ask(stranger)


@pytest.mark.usefixtures("long_grace_period")
def test_stop_with_tls_leaves_nothing(secure: Emulator) -> None:
    secure.fail("INTERNAL", after=1, delay=FOREVER)
    with connection(secure, ssl.create_default_context(cafile=str(secure.tls))) as made:
        response = ask(made, stream=True)
        response.readline()
        stopping = Background(secure.stop)
        assert json.loads(response.readline()) == {"error": STOPPED}
        stopping.result()
    assert no_server_is_left()


# gRPC


def test_undecodable_request_is_an_invalid_argument(emulator: Emulator) -> None:
    with grpc.insecure_channel(emulator.endpoint) as channel:
        for method in (
            "yandex.cloud.ai.foundation_models.v1.TextGenerationService/Completion",
            "yandex.cloud.operation.OperationService/Get",
            "yandex.cloud.iam.v1.IamTokenService/Create",
        ):
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{method}")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == f"this is no request of /{method}"
    assert emulator.requests == []


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(http_port=0) as running:
        yield running


@pytest.mark.parametrize("iterations", range(6))
def test_a_connection_accepted_as_the_server_stops_is_closed(emulator: Emulator, iterations: int) -> None:
    async def stop_during_a_connect() -> bytes:
        started: Future[None] = Future()
        config = uvicorn.Config(Starlette(), ws="none", lifespan="off", log_config=None)
        server = _Server(config, lambda: GrpcClient(emulator.endpoint, None), started)
        with bind("127.0.0.1", 0) as listener:
            serving = asyncio.ensure_future(server.serve([listener]))
            await asyncio.wait_for(asyncio.wrap_future(started), PATIENCE)
            with socket.create_connection(listener.getsockname(), PATIENCE) as client:
                for _ in range(iterations):  # the connection is accepted in one of these iterations of the loop
                    await asyncio.sleep(0)
                await server.shutdown()  # also ends all other work of the server
                await asyncio.wait([serving], timeout=PATIENCE)
                assert serving.done()
                listener.close()  # also closes a connection that was not accepted
                try:
                    return client.recv(1)
                except ConnectionResetError:
                    return b""

    assert asyncio.run(stop_during_a_connect()) == b""
    gc.collect()  # a connection that is not closed causes a ResourceWarning
