"""The identity service and the metadata server, over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from types import SimpleNamespace

import grpc
import jwt
import pytest
from driver import Clock, details_of

from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2 as iam
from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2_grpc as iam_grpc
from yandexgpt.emulator.identity import AUDIENCE, Identity
from yandexgpt.emulator.metadata_server import METADATA_PATH, MetadataServer

DEADLINE = 20.0


@pytest.fixture
def identity() -> Identity:
    return Identity()


@pytest.fixture
def key(identity: Identity) -> dict[str, str]:
    return identity.service_account_key()


@pytest.fixture
def channel(identity: Identity) -> Iterator[grpc.Channel]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    identity.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(0).wait()


def create(channel: grpc.Channel, timeout: float = DEADLINE, /, **fields: str) -> iam.CreateIamTokenResponse:
    return iam_grpc.IamTokenServiceStub(channel).Create(iam.CreateIamTokenRequest(**fields), timeout=timeout)


def refusal(channel: grpc.Channel, **fields: str) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        create(channel, **fields)
    return error.value.code().name, details_of(error.value)


def pem(key: dict[str, str]) -> str:
    return key["private_key"].split("\n", 1)[1]


def signed(key: dict[str, str], algorithm: str = "PS256", kid: str | None = None, **changed: object) -> str:
    now = time.time()
    claims = {"aud": AUDIENCE, "iss": key["service_account_id"], "iat": now, "exp": now + 3600, **changed}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, pem(key), algorithm, {"kid": kid or key["id"]})


def test_tokens_have_the_configured_lifetime(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("yandexgpt.emulator.identity.time", SimpleNamespace(time=clock))
    long, short, ended = identity.issue(), identity.issue(0.2), identity.issue(0)
    assert long.startswith("t1.")
    assert identity.issued == [long, short, ended]
    assert identity.expires_at(long) == clock() + 12 * 3600
    assert identity.is_valid(long)
    assert identity.is_valid(short)
    assert identity.why_invalid(ended) == "the token has expired"
    clock.now = identity.expires_at(short)
    assert identity.why_invalid(short) == "the token has expired"


def test_a_token_may_be_unknown_or_revoked(identity: Identity) -> None:
    token = identity.issue()
    identity.revoke(token)
    assert identity.why_invalid(token) == "the token was revoked"
    assert identity.why_invalid("t1.other") == "the token is unknown"
    with pytest.raises(KeyError, match="unknown"):
        identity.revoke("t1.other")


def test_service_account_key_has_the_format_of_yandex_cloud(key: dict[str, str]) -> None:
    assert list(key) == ["id", "service_account_id", "created_at", "key_algorithm", "public_key", "private_key"]
    assert key["key_algorithm"] == "RSA_2048"
    warning, private = key["private_key"].split("\n", 1)
    assert warning == f"PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <{key['id']}>"
    assert private.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert key["public_key"].startswith("-----BEGIN PUBLIC KEY-----\n")
    assert key["created_at"].endswith("Z")
    json.dumps(key)


def test_a_signed_jwt_is_exchanged_for_a_token(identity: Identity, channel: grpc.Channel, key: dict[str, str]) -> None:
    identity.token_lifetime = 100.5
    before = time.time()
    response = create(channel, jwt=signed(key))
    assert identity.issued == [response.iam_token]
    assert identity.is_valid(response.iam_token)
    assert before + 100.5 <= response.expires_at.ToNanoseconds() / 1e9 + 1e-3 <= time.time() + 100.6
    ahead = time.time() + 3
    create(channel, jwt=signed(key, aud=[AUDIENCE], iat=ahead, exp=ahead + 3600))
    assert identity.exchanges == 2


def test_failed_exchange_names_the_failed_check(identity: Identity, channel: grpc.Channel, key: dict[str, str]) -> None:
    now = time.time()
    other = identity.service_account_key()
    for token, words in [
        (signed(other, kid=key["id"]), "signature"),
        (signed(key, kid="unknown"), "kid is not the id"),
        (signed(key, "RS256"), "signed by RS256, not by PS256"),
        (signed(key, aud="https://example.org"), f"aud is not {AUDIENCE}"),
        (signed(key, aud=None), "aud"),
        (signed(key, iss=other["service_account_id"]), "iss"),
        (signed(key, iat=now + 60), "iat is in the future"),
        (signed(key, iat=now - 60, exp=now - 1), "exp is in the past"),
        (signed(key, exp=now + 3700), "more than 3600 s"),
        (signed(key, exp=None), "exp is not a time"),
        (signed(key, iat="now"), "iat is not a time"),
    ]:
        code, details = refusal(channel, jwt=token)
        assert code == "UNAUTHENTICATED"
        assert words in details
        assert token not in details
    assert identity.issued == []


def test_a_malformed_request_is_an_invalid_argument(channel: grpc.Channel, key: dict[str, str]) -> None:
    header = signed(key).split(".")[0]
    for fields in ({}, {"jwt": ""}, {"jwt": "a.b"}, {"jwt": f"{header}.e30.AA.."}):
        assert refusal(channel, **fields)[0] == "INVALID_ARGUMENT"
    assert "required" in refusal(channel)[1]
    unread = jwt.api_jws.encode(b"not JSON", pem(key), "PS256", {"kid": key["id"]})
    assert refusal(channel, jwt=unread)[0] == "INVALID_ARGUMENT"


def test_an_oauth_token_is_exchanged_if_it_is_known(identity: Identity, channel: grpc.Channel) -> None:
    token = identity.oauth_token()
    assert identity.is_valid(create(channel, yandex_passport_oauth_token=token).iam_token)
    assert refusal(channel, yandex_passport_oauth_token="y0_other") == (
        "UNAUTHENTICATED",
        "the OAuth token is unknown",
    )


def test_exchanges_can_be_made_to_fail(identity: Identity, channel: grpc.Channel) -> None:
    token = identity.oauth_token()
    identity.fail("UNAVAILABLE", times=2, message="out to lunch")
    identity.fail(grpc.StatusCode.INTERNAL)
    seen = [refusal(channel, yandex_passport_oauth_token=token) for _ in range(3)]
    assert seen == [("UNAVAILABLE", "out to lunch")] * 2 + [("INTERNAL", "ordered to fail")]
    create(channel, yandex_passport_oauth_token=token)
    assert identity.exchanges == 4
    with pytest.raises(KeyError):
        identity.fail("NO_SUCH_CODE")


def test_delayed_exchange_ends_with_its_call(identity: Identity, channel: grpc.Channel) -> None:
    token = identity.oauth_token()
    identity.delay = 0.1
    started = time.monotonic()
    create(channel, yandex_passport_oauth_token=token)
    assert time.monotonic() - started >= 0.1
    identity.delay = 60.0  # longer than the fixture may wait for the server to stop
    with pytest.raises(grpc.RpcError) as error:
        create(channel, 0.1, yandex_passport_oauth_token=token)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_concurrent_exchanges_get_different_tokens(identity: Identity, channel: grpc.Channel) -> None:
    token = identity.oauth_token()
    with futures.ThreadPoolExecutor(16) as pool:
        tokens = set(pool.map(lambda _: create(channel, yandex_passport_oauth_token=token).iam_token, range(100)))
    assert len(tokens) == identity.exchanges == 100


def test_without_the_extra_the_error_names_it(
    identity: Identity, channel: grpc.Channel, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = signed(key)
    monkeypatch.setitem(sys.modules, "jwt", None)
    code, details = refusal(channel, jwt=token)
    assert code == "FAILED_PRECONDITION"
    assert "yandexgpt[auth]" in details
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(ImportError, match=r"yandexgpt\[auth\]"):
        identity.service_account_key()
    create(channel, yandex_passport_oauth_token=identity.oauth_token())


@pytest.fixture(autouse=True)
def long_request_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may be slow between the connection and the request."""
    monkeypatch.setattr("yandexgpt.emulator.metadata_server._Handler.timeout", DEADLINE)


@pytest.fixture
def metadata(identity: Identity) -> Iterator[MetadataServer]:
    with MetadataServer(identity) as metadata:
        yield metadata


def get(metadata: MetadataServer, path: str = METADATA_PATH, flavor: str | None = "Google") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(metadata.endpoint, timeout=DEADLINE)
    connection.request("GET", path, headers={"Metadata-Flavor": flavor} if flavor else {})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


@pytest.mark.parametrize("lifetime", [12 * 3600.0, 100.5])
def test_metadata_server_issues_tokens(identity: Identity, metadata: MetadataServer, lifetime: float) -> None:
    identity.token_lifetime = lifetime
    status, body = get(metadata)
    answer = json.loads(body)
    assert status == 200
    assert answer == {"access_token": identity.issued[0], "expires_in": lifetime, "token_type": "Bearer"}
    assert identity.is_valid(answer["access_token"])
    assert isinstance(answer["expires_in"], int) is lifetime.is_integer()
    assert metadata.url == f"http://{metadata.endpoint}{METADATA_PATH}"


def test_metadata_server_rejects_the_same_requests_as_the_real_one(
    metadata: MetadataServer, identity: Identity
) -> None:
    assert get(metadata, flavor=None)[0] == 403
    assert get(metadata, path="/computeMetadata/v1/elsewhere")[0] == 404
    metadata.missing = True
    assert get(metadata)[0] == 404
    assert identity.issued == []
    assert metadata.requests == 3


def test_metadata_server_can_be_slow_and_return_garbage(metadata: MetadataServer) -> None:
    metadata.garbage = b"<html>"
    metadata.delay = 0.1
    started = time.monotonic()
    assert get(metadata) == (200, b"<html>")
    assert time.monotonic() - started >= 0.1


class SignallingServer(MetadataServer):
    """Signals a received request."""

    def __init__(self, identity: Identity) -> None:
        self.received = threading.Event()
        super().__init__(identity)

    def answer(self, path: str, flavor: str | None) -> tuple[int, bytes]:
        self.received.set()
        return super().answer(path, flavor)


def asking(metadata: MetadataServer) -> socket.socket:
    """Return a connection with a sent token request."""
    host, port = metadata.endpoint.split(":")
    connection = socket.create_connection((host, int(port)), DEADLINE)
    connection.sendall(f"GET {METADATA_PATH} HTTP/1.0\r\nMetadata-Flavor: Google\r\n\r\n".encode())
    return connection


def test_closed_metadata_server_leaves_no_thread_and_does_not_wait_for_delays(
    identity: Identity, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    metadata = SignallingServer(identity)
    metadata.delay = 60.0
    host, port = metadata.endpoint.split(":")
    with asking(metadata) as slow:
        assert metadata.received.wait(DEADLINE)
        # The second connection sends no request.
        monkeypatch.setattr("yandexgpt.emulator.metadata_server._Handler.timeout", 0.5)
        with socket.create_connection((host, int(port)), DEADLINE):
            metadata.close()
            metadata.close()
        assert slow.recv(12) == b"HTTP/1.0 200"
    assert set(threading.enumerate()) <= before
    assert capfd.readouterr().err == ""


def test_disconnect_is_not_logged_but_an_internal_error_is(
    identity: Identity, capfd: pytest.CaptureFixture[str]
) -> None:
    server = SignallingServer(identity)
    with server:
        server.delay = 60.0
        gone = asking(server)
        assert server.received.wait(DEADLINE)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
    assert capfd.readouterr().err == ""
    with MetadataServer(identity) as metadata:
        metadata.garbage = "text"  # type: ignore[assignment]
        with asking(metadata) as connection:
            while connection.recv(1000):
                pass
    assert "TypeError" in capfd.readouterr().err
