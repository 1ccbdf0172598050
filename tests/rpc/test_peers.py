"""Broken peers, and peers that are not gRPC services: the error class, and the number of attempts.

The texts are those of gRPC's core, observed with grpcio 1.71.0 and 1.85.1 with `peer.Peer` and grpcio servers.
"""

from __future__ import annotations

import struct
from typing import Any

import grpc
import peer
import pytest
from driver import FAST, ClientFactory

from yandexgpt import Retry, errors
from yandexgpt._checks import grpc_timeout
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionResponse,
)
from yandexgpt._retry import is_transient
from yandexgpt._rpc.failures import error_class
from yandexgpt.emulator.fault_proxy import frames as h2

Code = grpc.StatusCode
Unavailable, Internal, Invalid = errors.UnavailableError, errors.InternalServerError, errors.InvalidArgumentError
Quota, Other = errors.QuotaExceededError, errors.APIError
NO_CONNECTION = "failed to connect to all addresses; last error: "
SSL = "SSL_ERROR_SSL: error:"

BROKEN: list[tuple[Code, str, type[errors.APIError]]] = [
    (Code.UNAVAILABLE, "Socket closed", Unavailable),
    (Code.UNAVAILABLE, "Stream removed (Socket closed)", Unavailable),
    (Code.UNAVAILABLE, "recvmsg:Connection reset by peer", Unavailable),
    (Code.UNAVAILABLE, "Stream removed (recvmsg:Connection reset by peer (104))", Unavailable),
    (Code.UNAVAILABLE, "GOAWAY received; Error code: 2; Debug Text: why not", Unavailable),
    (Code.UNAVAILABLE, "Stream removed (GOAWAY received; Error code: 2; Debug Text: why not)", Unavailable),
    (Code.UNAVAILABLE, "Stream removed (Socket closed (GOAWAY received; Error code: 0; Debug Text: bye))", Unavailable),
    (Code.UNAVAILABLE, "Received RST_STREAM with error code 7", Unavailable),
    (Code.UNAVAILABLE, "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))", Unavailable),
    (Code.RESOURCE_EXHAUSTED, "Stream removed (RST_STREAM (Received RST_STREAM with error code 11))", Quota),
    (Code.CANCELLED, "Received RST_STREAM with error code 8", errors.CancelledError),
    (Code.CANCELLED, "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))", errors.CancelledError),
    *(
        (Code.INTERNAL, form.format(number), Internal)
        for number in (0, 1, 2, 4, 5, 10)
        for form in (
            "Received RST_STREAM with error code {}",
            "Stream removed (RST_STREAM (Received RST_STREAM with error code {}))",
        )
    ),
    (Code.UNKNOWN, "Stream removed", Other),  # the whole message of grpcio 1.71
    (Code.UNKNOWN, "Stream removed (Data frame with END_STREAM flag received)", Other),  # an HTML page of a proxy
    (Code.UNAVAILABLE, "Received http2 header with status: 502", Unavailable),
    (Code.UNAVAILABLE, "Received http2 header with status: 429", Unavailable),
    (Code.UNAVAILABLE, f"{NO_CONNECTION}UNKNOWN: ipv4:1.2.3.4:5: Failed to connect: Connection refused", Unavailable),
    (Code.UNAVAILABLE, f"{NO_CONNECTION}UNAVAILABLE: ipv4:1.2.3.4:5: Socket closed", Unavailable),
    (
        Code.UNAVAILABLE,
        f"{NO_CONNECTION}INTERNAL: ipv4:1.2.3.4:5: Trying to connect an http1.x server (HTTP status 503)",
        Unavailable,
    ),
    (Code.UNAVAILABLE, "DNS resolution failed for a:1: C-ares status is not ARES_SUCCESS", Unavailable),
    (Code.RESOURCE_EXHAUSTED, "received metadata size exceeds soft limit (12600 vs. 8192); :path:107B", Invalid),
    (Code.RESOURCE_EXHAUSTED, "received metadata size exceeds soft limit (16039 vs. 8192); :status:42B", Internal),
    (Code.RESOURCE_EXHAUSTED, "too many requests: wait until the rate is no larger", Quota),
]
"""Retried failures."""

FOR_EVER: list[tuple[Code, str, type[errors.APIError]]] = [
    (Code.UNKNOWN, "Stream removed (Failed parsing HTTP/2 (Unexpected CONTINUATION frame))", Other),
    (Code.UNKNOWN, "Stream removed (Failed parsing HTTP/2 (invalid rst_stream: length=3, flags=00))", Other),
    (Code.UNKNOWN, "Stream removed (Failed parsing HTTP/2 (goaway frame too short (3 bytes)))", Other),
    (
        Code.UNKNOWN,
        "Stream removed (Failed parsing HTTP/2 (Frame size 16738145 is larger than max frame size 4194304))",
        Other,
    ),
    (
        Code.INTERNAL,
        "Stream removed (Failed parsing HTTP/2 (Frame size 4740180 is larger than max frame size 4194304) "
        "(Trying to connect an http1.x server (HTTP status 400)))",
        Internal,
    ),
    (Code.INTERNAL, "Trying to connect an http1.x server (HTTP status 400)", Internal),
    (Code.INTERNAL, "Stream removed (Failed parsing HTTP/2 (Invalid HPACK index received (126)))", Internal),
    (Code.INTERNAL, "Stream removed (Error parsing ':status' metadata)", Internal),
    (Code.INTERNAL, "Stream removed (Illegal header key: X-Upper)", Internal),
    (Code.INTERNAL, "Stream removed (Metadata keys cannot be zero length)", Internal),
    (Code.INTERNAL, "Stream removed (unsupported data flags: 0x08 stream: 1)", Internal),
    (Code.INTERNAL, "Stream removed (frame of size 16005 overflows local window of 994)", Internal),
    (Code.INTERNAL, "frame of size 16005 overflows local window of 994", Internal),
    (Code.INTERNAL, "Compression bit set but no encoding configured", Internal),
    (Code.INTERNAL, "Decompression failed due to data error", Internal),
    (Code.INTERNAL, "Exception deserializing response!", Internal),
    (Code.INTERNAL, "Received http2 header with status: 400", Internal),
    (Code.UNKNOWN, "Received http2 header with status: 500", Other),
    (Code.UNIMPLEMENTED, "Received http2 header with status: 404", errors.UnimplementedError),
    (Code.UNKNOWN, "No status received", Other),
    *(
        (Code.INTERNAL, form.format(number), Internal)
        for number in (3, 6, 9, 13)
        for form in (
            "Received RST_STREAM with error code {}",
            "Stream removed (RST_STREAM (Received RST_STREAM with error code {}))",
        )
    ),
    (Code.PERMISSION_DENIED, "Received RST_STREAM with error code 12", errors.PermissionDeniedError),
    *(
        (Code.UNAVAILABLE, f"{NO_CONNECTION}{reason}", Unavailable)
        for reason in (
            "UNAVAILABLE: ipv4:1.2.3.4:5: Failed parsing HTTP/2",
            "UNAVAILABLE: ipv4:1.2.3.4:5: Failed parsing HTTP/2 (Expected SETTINGS frame as the first frame, got 114)",
            "INTERNAL: ipv4:1.2.3.4:5: Trying to connect an http1.x server (HTTP status 400)",
            "UNKNOWN: ipv4:1.2.3.4:5: Cannot check peer: missing selected ALPN property.",
            f"UNKNOWN: ipv4:1.2.3.4:5: Ssl handshake failed (TSI_PROTOCOL_FAILURE): {SSL}100000f7:SSL "
            "routines:OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate verification context",
            f"UNKNOWN: ipv4:1.2.3.4:5: Tls handshake failed (TSI_PROTOCOL_FAILURE): {SSL}1000007d:SSL "
            "routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed certificate: OK",
            "UNKNOWN: ipv4:1.2.3.4:5: Peer name 1.2.3.4 is not in peer certificate",
            "UNKNOWN: ipv4:1.2.3.4:5: Custom verification check failed with error: UNAUTHENTICATED: Hostname "
            "Verification Check failed.",
        )
    ),
    *(
        (Code.RESOURCE_EXHAUSTED, message, kind)
        for message, kind in (
            ("CLIENT: Received message larger than max (5242880 vs. 4194304)", Internal),
            ("Stream removed (CLIENT: Received message larger than max (5242880 vs. 4194304))", Internal),
            ("SERVER: Sent message larger than max (50 vs. 10)", Internal),
            ("grpc: trying to send message larger than max (50 vs. 10)", Internal),  # a server in Go
            ("CLIENT: Sent message larger than max (20 vs. 10)", Invalid),
            ("SERVER: Received message larger than max (5242880 vs. 4194304)", Invalid),
            ("grpc: received message larger than max (5242880 vs. 4194304)", Invalid),  # a server in Go
            ("gRPC message exceeds maximum size 4194304: 5242880", Invalid),  # a server in Java
            ("Received message exceeds the maximum configured message size.", Invalid),  # a server in C#
            ("received metadata size exceeds hard limit (24219 vs. 16384); :path:107B :authority:57B", Invalid),
            ("received metadata size exceeds hard limit (24219 vs. 16384); :status:42B x-big:8039B", Internal),
            ("Stream removed (received metadata size exceeds hard limit (value length 20000 vs. 16384))", Internal),
        )
    ),
]
"""Failures that are not retried."""


@pytest.mark.parametrize(("code", "message", "kind"), BROKEN)
def test_a_broken_connection_is_retried(code: Code, message: str, kind: type[errors.APIError]) -> None:
    error = error_class(code, message)(message, code=code)
    assert type(error) is kind
    assert is_transient(Retry(), error, own_deadline=False)


@pytest.mark.parametrize(("code", "message", "kind"), FOR_EVER)
def test_a_permanent_failure_is_not_retried(code: Code, message: str, kind: type[errors.APIError]) -> None:
    error = error_class(code, message)(message, code=code)
    assert type(error) is kind
    assert not is_transient(Retry(), error, own_deadline=False)


# The same with real bytes


def failure(factory: ClientFactory, server: peer.Peer) -> errors.APIError:
    client: Any = factory.make(
        endpoint=server.endpoint, tls=False, folder_id="f", credentials="k", retry=FAST, timeout=20.0
    )
    with pytest.raises(errors.APIError) as caught:
        client.complete("a")
    return caught.value


@pytest.mark.parametrize("trailers", [False, True])
def test_a_response_with_too_much_metadata_is_not_retried(factory: ClientFactory, trailers: bool) -> None:
    big = b"".join(peer.literal(f"x-big-{index}", "v" * 8000) for index in range(5))

    def answer(stream: int) -> bytes:
        if not trailers:
            return peer.headers(stream, peer.HEADERS + big)
        return peer.headers(stream, peer.HEADERS) + peer.headers(stream, peer.TRAILERS + big, end=True)

    with peer.Peer(answer) as server:
        error = failure(factory, server)
        assert type(error) is Internal
        assert error.code is Code.RESOURCE_EXHAUSTED
        assert (server.requests, error.attempts) == (1, 1)


UNREADABLE = {
    "a header in upper case": lambda stream: peer.headers(stream, peer.HEADERS + peer.literal("X-Upper", "v")),
    "an index that is in no table": lambda stream: peer.headers(stream, b"\x88\xfe"),
    "a frame out of turn": lambda stream: h2.build(peer.CONTINUATION, h2.END_HEADERS, stream, b"").raw,
    "settings cut short": lambda stream: h2.build(peer.SETTINGS, 0, 0, b"abc").raw,
    "no HTTP/2": lambda stream: b"\xffno HTTP/2" * 30,
    "HTTP/1.1": lambda stream: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
}


def message(payload: bytes) -> bytes:
    """A message with the gRPC frame header."""
    return struct.pack("!BI", 0, len(payload)) + payload


PARTIAL = CompletionResponse(
    alternatives=[{"message": {"role": "assistant", "text": "раз"}, "status": "ALTERNATIVE_STATUS_PARTIAL"}]
).SerializeToString()
FINAL = CompletionResponse(
    alternatives=[{"message": {"role": "assistant", "text": "раз два"}, "status": "ALTERNATIVE_STATUS_FINAL"}]
).SerializeToString()


@pytest.mark.parametrize("garbage", [b"\xff\xff", PARTIAL.replace("раз".encode(), b"\xff" * 6)], ids=["bytes", "text"])
@pytest.mark.parametrize("rest", ["nothing", "messages", "the end"])
@pytest.mark.parametrize("method", ["complete", "stream"])
def test_undecodable_message_ends_the_call_immediately(
    factory: ClientFactory, garbage: bytes, rest: str, method: str
) -> None:
    def answer(stream: int) -> bytes:
        more = {"nothing": b"", "messages": message(PARTIAL) * 3, "the end": message(FINAL)}[rest]
        sent = peer.headers(stream, peer.HEADERS) + peer.data(stream, message(PARTIAL) + message(garbage) + more)
        return sent + (peer.headers(stream, peer.TRAILERS, end=True) if rest == "the end" else b"")

    with peer.Peer(answer) as server:
        client: Any = factory.make(endpoint=server.endpoint, tls=False, folder_id="f", credentials="k", timeout=None)
        with pytest.raises(Internal, match="Exception deserializing response!") as caught:
            client.complete("a") if method == "complete" else list(client.stream("a"))
        assert (server.requests, caught.value.attempts) == (1, 1)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "раз"


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_response_is_not_retried(factory: ClientFactory, answer: peer.Answer) -> None:
    with peer.Peer(answer) as server:
        error = failure(factory, server)
        # An older gRPC reports only this text, which a broken connection causes too.
        expected = 4 if error.message == "Stream removed" else 1
        assert (server.requests, error.attempts) == (expected, expected), error


@pytest.mark.parametrize(
    ("banner", "attempts"),
    [
        (b"SSH-2.0-OpenSSH_9.0\r\n", 1),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 1),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 4),
        (b"", 4),
    ],
)
def test_peer_without_http2_is_retried_only_if_the_failure_may_be_temporary(
    factory: ClientFactory, banner: bytes, attempts: int
) -> None:
    with peer.Peer(lambda _: banner, greet=False) as server:
        error = failure(factory, server)
        assert type(error) is Unavailable
        assert error.attempts == attempts, error


CUT = {
    "at once": lambda stream: b"",
    "after the headers": lambda stream: peer.headers(stream, peer.HEADERS),
    "inside a message": lambda stream: peer.headers(stream, peer.HEADERS) + peer.data(stream, b"\0\0\0\0\x09abc"),
    "inside a frame": lambda stream: peer.headers(stream, peer.HEADERS) + peer.data(stream, b"\0\0\0\0\x09abc")[:-2],
}


@pytest.mark.parametrize("answer", CUT.values(), ids=CUT)
def test_a_call_whose_connection_is_cut_is_retried(factory: ClientFactory, answer: peer.Answer) -> None:
    with peer.Peer(answer, close=True) as server:
        error = failure(factory, server)
        assert type(error) is Unavailable
        assert (server.requests, error.attempts) == (4, 4)


@pytest.mark.parametrize(("number", "attempts"), [(2, 4), (3, 1), (7, 4), (8, 4), (9, 1)])
def test_reset_is_retried_unless_its_code_means_invalid_client_frames(
    factory: ClientFactory, number: int, attempts: int
) -> None:
    with peer.Peer(lambda stream: h2.rst_stream(stream, number)) as server:
        error = failure(factory, server)
        assert (server.requests, error.attempts) == (attempts, attempts), error


@pytest.mark.parametrize("seconds", [1e9, 7.5e9, 9.2e9])
def test_timeout_above_the_range_of_grpc_does_not_end_a_call_immediately(seconds: float) -> None:
    with (
        peer.Peer(lambda stream: peer.headers(stream, peer.HEADERS + peer.TRAILERS, end=True)) as server,
        grpc.insecure_channel(server.endpoint) as channel,
    ):
        call: Any = channel.unary_stream("/a/b")
        assert list(call(b"", timeout=grpc_timeout(seconds))) == []


def test_timeouts_in_the_range_of_grpc_are_unchanged() -> None:
    for seconds in (None, 0.001, 60.0, 86_400 * 365.0):
        assert grpc_timeout(seconds) == seconds
