"""Sources of the authorization of a call, errors without one, and that no secret is shown."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import os
import pickle
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from yandexgpt.credentials import (
    ApiKey,
    Credentials,
    ExpiringToken,
    IamToken,
    MetadataService,
    NoCredentials,
    OAuthToken,
    ServiceAccountKey,
    TokenProvider,
    YcCli,
    from_env,
)
from yandexgpt.errors import APIError, AuthenticationError, ConfigurationError, UnavailableError

SECRET = "AQVN-s3cr3t-value"
VARIABLES = (
    "YC_API_KEY",
    "YANDEX_CLOUD_API_KEY",
    "YC_IAM_TOKEN",
    "YC_SERVICE_ACCOUNT_KEY_FILE",
    "YC_OAUTH_TOKEN",
    "YC_TOKEN",
    "IAM_TOKEN",
    "API_KEY",
)
WARNING_LINE = "PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <ajekey>\n"


def exchange(*, jwt: str = "", oauth_token: str = "") -> ExpiringToken:
    """A token service that returns the given JWT or OAuth token as the IAM token."""
    return ExpiringToken(jwt or oauth_token, lifetime=60)


def no_exchange(**_: str) -> ExpiringToken:
    raise AssertionError("there is nothing to exchange")


def pem(key: Any, encryption: KeySerializationEncryption | None = None) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return text.decode()


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def key_data(rsa_key: rsa.RSAPrivateKey) -> dict[str, Any]:
    return {
        "id": "ajekey",
        "service_account_id": "ajeaccount",
        "created_at": "2026-01-01T00:00:00Z",
        "key_algorithm": "RSA_2048",
        "private_key": WARNING_LINE + pem(rsa_key),
    }


@pytest.fixture
def key_file(tmp_path: Path, key_data: dict[str, Any]) -> Path:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(key_data), encoding="utf-8")
    return file


def shown(error: BaseException) -> str:
    """The formatted traceback of an error."""
    return "".join(traceback.format_exception(error))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes and contexts."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def held(error: BaseException) -> str:
    """All texts and attributes of an error and of its causes."""
    return "\n".join(
        f"{one} {one!r} {vars(one)} {[getattr(one, name, None) for name in ('doc', 'object', 'output', 'stdout')]}"
        for one in chain(error)
    )


# Fixed credentials


@pytest.mark.parametrize(
    ("kind", "header"), [(ApiKey, f"Api-Key {SECRET}"), (IamToken, f"Bearer {SECRET}")], ids=["key", "token"]
)
@pytest.mark.parametrize("around", ["{}", " {}", "{}\n", "\t{}\r\n", "\u00a0{}\u2028"])
def test_white_space_around_a_secret_is_stripped(kind: Any, header: str, around: str) -> None:
    assert kind(around.format(SECRET)).header == header


def test_no_credentials_send_no_header() -> None:
    assert NoCredentials().header == ""


def test_fetch_of_fixed_credentials_is_an_error() -> None:
    with pytest.raises(NotImplementedError):
        ApiKey(SECRET).fetch(no_exchange)


@pytest.mark.parametrize(
    ("kind", "name"), [(ApiKey, "the API key"), (IamToken, "the IAM token"), (OAuthToken, "the OAuth token")]
)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (None, "must be a str, got NoneType"),
        (SECRET.encode(), "must be a str, got bytes"),
        (f"{SECRET}ё", f"holds a character at position {len(SECRET)} that gRPC metadata cannot carry"),
        (f"A\n{SECRET}", "holds a character at position 1"),
        (f" \ufeff{SECRET}", "holds a character at position 0"),
        (f"A\x00{SECRET}", "only printable ASCII is allowed"),
        (f"A\x7f{SECRET}", "only printable ASCII is allowed"),
    ],
)
def test_unsendable_secret_is_rejected_and_not_in_the_error(kind: Any, name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(value)
    assert str(caught.value).startswith(f"{name} {words}") or words in str(caught.value)
    assert str(caught.value).startswith(name)
    assert SECRET not in shown(caught.value)


# Credentials that are exchanged for a token


def test_oauth_token_is_exchanged() -> None:
    credentials = OAuthToken(f" {SECRET}\n")
    assert credentials.header is None
    token = credentials.fetch(exchange)
    assert (token.value, token.lifetime) == (SECRET, 60)


@pytest.mark.parametrize("kind", [str, Path, lambda path: json.loads(path.read_text())], ids=["str", "path", "mapping"])
def test_service_account_key_signs_a_jwt(
    kind: Callable[[Path], Any], key_file: Path, rsa_key: rsa.RSAPrivateKey
) -> None:
    credentials = ServiceAccountKey(kind(key_file))
    assert credentials.header is None
    proof = credentials.fetch(exchange).value
    assert jwt.get_unverified_header(proof) == {"alg": "PS256", "typ": "JWT", "kid": "ajekey"}
    audience = "https://iam.api.cloud.yandex.net/iam/v1/tokens"
    claims = jwt.decode(proof, rsa_key.public_key(), algorithms=["PS256"], audience=audience)
    assert claims["iss"] == "ajeaccount"
    assert 0 < claims["exp"] - claims["iat"] <= 3600


def test_private_key_without_the_warning_line_is_accepted(key_data: dict[str, Any], rsa_key: rsa.RSAPrivateKey) -> None:
    before = copy.deepcopy(key_data)
    assert ServiceAccountKey({**key_data, "private_key": pem(rsa_key)}).fetch(exchange).value
    assert key_data == before


@pytest.mark.parametrize("field", ["id", "service_account_id", "private_key"])
@pytest.mark.parametrize("value", [None, "", 5, ["a"]], ids=["missing", "empty", "number", "list"])
def test_key_file_with_a_missing_field_error_names_file_and_field(key_file: Path, field: str, value: Any) -> None:
    data = json.loads(key_file.read_text())
    if value is None:
        del data[field]
    else:
        data[field] = value
    key_file.write_text(json.dumps(data))
    with pytest.raises(ConfigurationError) as caught:
        ServiceAccountKey(key_file)
    assert str(caught.value) == (
        f"service account key file {key_file}: the field {field!r} is missing or is not a string"
    )


def test_key_mapping_with_a_missing_field_error_names_the_field(key_data: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="service account key: the field 'id' is missing"):
        ServiceAccountKey({name: value for name, value in key_data.items() if name != "id"})


def unknown_algorithm() -> str:
    der = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    changed = der.replace(bytes.fromhex("06032b6570"), bytes.fromhex("06032b6577"))
    return f"-----BEGIN PRIVATE KEY-----\n{base64.b64encode(changed).decode()}\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda key: SECRET, "holds no PEM block (-----BEGIN PRIVATE KEY-----)"),
        (lambda key: pem(key).replace("BEGIN", "START"), "holds no PEM block"),
        (lambda key: pem(key)[:300], "is not a PEM private key"),
        (lambda key: pem(key).replace("M", "?"), "is not a PEM private key"),
        (lambda key: f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----", "is not a PEM private key"),
        (lambda key: f"-----BEGIN PRIVATE KEY-----\n{SECRET}\ud800", "is not a PEM private key"),
        (lambda key: pem(key, BestAvailableEncryption(b"password")), "is not a PEM private key"),
        (lambda key: pem(ec.generate_private_key(ec.SECP256R1())), "is not an RSA key, which PS256 needs"),
        (lambda key: pem(ed25519.Ed25519PrivateKey.generate()), "is not an RSA key, which PS256 needs"),
        (lambda key: unknown_algorithm(), "private_key"),
    ],
    ids=["no PEM", "no BEGIN", "cut", "not base64", "garbage", "surrogate", "encrypted", "EC", "Ed25519", "unknown"],
)
def test_invalid_private_key_error_names_file_and_field(
    key_file: Path, rsa_key: rsa.RSAPrivateKey, make: Callable[[rsa.RSAPrivateKey], str], words: str
) -> None:
    private_key = make(rsa_key)
    key_file.write_text(json.dumps({**json.loads(key_file.read_text()), "private_key": private_key}))
    with pytest.raises(ConfigurationError) as caught:
        ServiceAccountKey(key_file)
    assert str(caught.value).startswith(f"service account key file {key_file}: the field 'private_key' ")
    assert words in str(caught.value)
    for secret in (SECRET, private_key[100:140] or SECRET):
        assert secret not in shown(caught.value)


BROKEN_FILES = {
    "not JSON": (f'{{"private_key": "{SECRET}"'.encode(), "is not a JSON file"),
    "PEM": (f"-----BEGIN PRIVATE KEY-----\n{SECRET}".encode(), "is not a JSON file"),
    "not UTF-8": (f'{{"private_key": "{SECRET}\xff"}}'.encode("latin-1"), "is not a JSON file"),
    "empty": (b"", "is not a JSON file"),
    "list": (f'["{SECRET}"]'.encode(), "must hold a JSON object with id, service_account_id and private_key"),
    "string": (f'"{SECRET}"'.encode(), "must hold a JSON object"),
}


@pytest.mark.parametrize(("content", "words"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_invalid_key_file_error_names_the_file(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "key.json"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        ServiceAccountKey(file)
    assert str(caught.value).startswith(f"service account key file {file}: {words}")
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("content", [content for content, _ in BROKEN_FILES.values()], ids=BROKEN_FILES)
def test_invalid_key_file_error_does_not_contain_the_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key.json"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        ServiceAccountKey(file)
    assert SECRET not in held(caught.value)


def test_key_file_with_a_byte_order_mark_is_read(key_file: Path) -> None:
    key_file.write_bytes(b"\xef\xbb\xbf" + key_file.read_bytes())
    assert ServiceAccountKey(key_file).fetch(exchange).value


@pytest.mark.parametrize("kind", [str, Path])
def test_unreadable_key_file_error_names_the_file(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServiceAccountKey(kind(tmp_path / "key.json"))
    assert str(caught.value) == (
        f"service account key file {tmp_path / 'key.json'}: cannot be read: No such file or directory"
    )
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        ServiceAccountKey(kind(tmp_path))


@pytest.mark.parametrize(
    "missing", ["jwt", "cryptography.hazmat.primitives.asymmetric.rsa", "cryptography.hazmat.primitives.serialization"]
)
def test_error_without_the_extra_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, key_data: dict[str, Any], missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'yandexgpt\[auth\]'"):
        ServiceAccountKey(key_data)


def test_distribution_has_the_extra() -> None:
    from importlib.metadata import metadata

    assert "auth" in (metadata("yandexgpt").get_all("Provides-Extra") or [])


# The command line tool


@pytest.fixture
def yc(tmp_path: Path) -> Callable[[str], str]:
    """A factory of ``yc`` replacements from the lines of a shell script."""

    def make(lines: str) -> str:
        tool = tmp_path / "yc"
        tool.write_text(f"#!/bin/sh\n{lines}\n")
        tool.chmod(0o755)
        return str(tool)

    return make


def test_yc_output_is_the_token(yc: Callable[[str], str]) -> None:
    credentials = YcCli(yc('[ "$*" = "iam create-token" ] && echo; echo " t1.token "'))
    assert credentials.header is None
    token = credentials.fetch(no_exchange)
    assert (token.value, token.lifetime) == ("t1.token", None)


def test_profile_is_passed_to_yc(yc: Callable[[str], str]) -> None:
    assert YcCli(yc('echo "$*"'), profile="prod").fetch(no_exchange).value == "iam create-token --profile prod"


def test_yc_can_be_given_as_a_path(yc: Callable[[str], str]) -> None:
    assert YcCli(Path(yc("echo t1.token"))).fetch(no_exchange).value == "t1.token"  # type: ignore[arg-type]


def test_yc_has_no_standard_input(yc: Callable[[str], str]) -> None:
    assert YcCli(yc("read answer; echo t1.token")).fetch(no_exchange).value == "t1.token"


def test_error_of_a_failed_yc_contains_its_standard_error(yc: Callable[[str], str]) -> None:
    tool = yc(f"echo {SECRET}; echo 'ERROR: profile' >&2; echo '  not found' >&2; exit 3")
    with pytest.raises(AuthenticationError) as caught:
        YcCli(tool).fetch(no_exchange)
    assert f"`{tool} iam create-token` failed with exit code 3: ERROR: profile not found" in str(caught.value)
    assert SECRET not in shown(caught.value)
    assert SECRET not in held(caught.value)


def test_error_of_a_failed_yc_without_output_states_that(yc: Callable[[str], str]) -> None:
    with pytest.raises(AuthenticationError, match="failed with exit code 1: it printed nothing to standard error"):
        YcCli(yc("exit 1")).fetch(no_exchange)


def test_standard_error_that_is_not_utf8_is_in_the_error(yc: Callable[[str], str]) -> None:
    with pytest.raises(AuthenticationError, match="exit code 1: \N{REPLACEMENT CHARACTER} wrong"):
        YcCli(yc(r"printf '\377 wrong' >&2; exit 1")).fetch(no_exchange)


def test_yc_is_stopped_after_the_timeout(yc: Callable[[str], str]) -> None:
    tool = yc(f"echo {SECRET}; exec sleep 30")
    with pytest.raises(UnavailableError, match=r"did not finish within 0\.3 s") as caught:
        YcCli(tool, timeout=0.3).fetch(no_exchange)
    assert SECRET not in shown(caught.value)


def test_timeout_error_does_not_contain_the_output_of_yc(yc: Callable[[str], str]) -> None:
    with pytest.raises(UnavailableError) as caught:
        YcCli(yc(f"echo {SECRET}; exec sleep 30"), timeout=0.3).fetch(no_exchange)
    assert SECRET not in held(caught.value)


def test_error_of_a_missing_yc_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        YcCli(str(tmp_path / "yc")).fetch(no_exchange)
    assert str(caught.value) == f"`{tmp_path / 'yc'} iam create-token` cannot be run: No such file or directory"


def test_error_of_a_non_executable_yc_names_it(tmp_path: Path) -> None:
    (tmp_path / "yc").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be run: Permission denied"):
        YcCli(str(tmp_path / "yc")).fetch(no_exchange)


def test_error_of_yc_with_empty_output_states_that(yc: Callable[[str], str]) -> None:
    with pytest.raises(ConfigurationError, match=r"what `.*yc iam create-token` printed is empty"):
        YcCli(yc("true")).fetch(no_exchange)


def test_error_of_yc_with_more_output_does_not_contain_it(yc: Callable[[str], str]) -> None:
    with pytest.raises(ConfigurationError, match="printed holds a character at position 3") as caught:
        YcCli(yc(f"echo new; echo {SECRET}")).fetch(no_exchange)
    assert SECRET not in shown(caught.value)


# A function of the user


def test_token_function_may_return_a_string_or_a_token() -> None:
    assert TokenProvider(lambda: f" {SECRET}\n").fetch(no_exchange).value == SECRET
    token = TokenProvider(lambda: ExpiringToken(f"{SECRET}\n", lifetime=5)).fetch(no_exchange)
    assert (token.value, token.lifetime) == (SECRET, 5)
    assert TokenProvider(lambda: "a").header is None


def test_token_function_may_be_a_coroutine_function() -> None:
    async def token() -> ExpiringToken:
        await asyncio.sleep(0)
        return ExpiringToken(SECRET, lifetime=5)

    class Provider:
        async def __call__(self) -> str:
            return SECRET

    assert TokenProvider(token).fetch(no_exchange).lifetime == 5
    assert TokenProvider(Provider()).fetch(no_exchange).value == SECRET


def test_exception_of_a_token_function_is_raised() -> None:
    def fails() -> str:
        raise LookupError("the vault is sealed")

    async def fails_later() -> str:
        raise LookupError("the vault is sealed")

    for provider in (fails, fails_later):
        with pytest.raises(LookupError, match="the vault is sealed"):
            TokenProvider(provider).fetch(no_exchange)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "the provider's token must be a str, got NoneType"),
        (SECRET.encode(), "the provider's token must be a str, got bytes"),
        ("", "the provider's token is empty"),
        (ExpiringToken(f"A\x00{SECRET}"), "the provider's token holds a character at position 1"),
        (ExpiringToken(None), "the provider's token must be a str, got NoneType"),  # type: ignore[arg-type]
    ],
)
def test_invalid_token_of_a_function_is_rejected_and_not_in_the_error(value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TokenProvider(lambda: value).fetch(no_exchange)
    assert words in str(caught.value)
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("provider", [SECRET, None, 5])
def test_invalid_token_function_is_rejected_and_not_in_the_error(provider: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"TokenProvider needs a function, got {type(provider).__name__}"):
        TokenProvider(provider)


# The metadata service


class FakeMetadataService(ThreadingHTTPServer):
    """A metadata service with a configurable response."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MetadataHandler)
        self.status = 200
        self.body = b""
        self.seen: list[tuple[str, str | None]] = []
        self.address = f"127.0.0.1:{self.server_address[1]}"


class MetadataHandler(BaseHTTPRequestHandler):
    server: FakeMetadataService

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Metadata-Flavor"]))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def machine() -> Iterator[FakeMetadataService]:
    with FakeMetadataService() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def answer(**fields: Any) -> bytes:
    return json.dumps({"access_token": SECRET, "expires_in": 3600, "token_type": "Bearer", **fields}).encode()


def test_metadata_service_response_is_the_token(machine: FakeMetadataService) -> None:
    machine.body = answer(access_token=f"{SECRET}\n")
    credentials = MetadataService(machine.address)
    assert credentials.header is None
    token = credentials.fetch(no_exchange)
    assert (token.value, token.lifetime) == (SECRET, 3600)
    assert machine.seen == [("/computeMetadata/v1/instance/service-accounts/default/token", "Google")]


def test_metadata_address_can_come_from_the_environment(
    machine: FakeMetadataService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YC_METADATA_ADDR", machine.address)
    machine.body = answer()
    assert MetadataService().fetch(no_exchange).value == SECRET
    monkeypatch.setenv("YC_METADATA_ADDR", "elsewhere.example")
    assert MetadataService(machine.address).fetch(no_exchange).value == SECRET


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_error_of_a_metadata_service_without_an_account_states_that(machine: FakeMetadataService, status: int) -> None:
    machine.status = status
    with pytest.raises(AuthenticationError) as caught:
        MetadataService(machine.address).fetch(no_exchange)
    assert f"the metadata service at {machine.address} answered {status} (has this machine a service account?)" in str(
        caught.value
    )


@pytest.mark.parametrize("status", [500, 503])
def test_failure_of_the_metadata_service_is_unavailable(machine: FakeMetadataService, status: int) -> None:
    machine.status = status
    with pytest.raises(UnavailableError, match=f"metadata service at {machine.address} answered {status}"):
        MetadataService(machine.address).fetch(no_exchange)


GARBAGE = [
    b"",
    b"garbage",
    b"\xff\xfe",
    f'{{"access_token": "{SECRET}"'.encode(),
    f'["{SECRET}"]'.encode(),
    f'"{SECRET}"'.encode(),
    b"null",
    answer(access_token=None),
    answer(access_token=""),
    answer(access_token=f"A\x00{SECRET}"),
    answer(expires_in="soon"),
    answer(expires_in=None),
    json.dumps({"access_token": SECRET}).encode(),
]


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_invalid_metadata_response_is_not_in_the_error(machine: FakeMetadataService, body: bytes) -> None:
    machine.body = body
    with pytest.raises(UnavailableError, match="gave an answer that is not a token") as caught:
        MetadataService(machine.address).fetch(no_exchange)
    assert machine.address in str(caught.value)
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_invalid_metadata_response_is_not_in_the_exception_chain(machine: FakeMetadataService, body: bytes) -> None:
    machine.body = body
    with pytest.raises(UnavailableError) as caught:
        MetadataService(machine.address).fetch(no_exchange)
    assert SECRET not in held(caught.value)


def test_too_long_metadata_response_is_rejected(machine: FakeMetadataService) -> None:
    machine.body = answer(padding="a" * 100_000)
    words = ""
    try:
        MetadataService(machine.address).fetch(no_exchange)
    except UnavailableError as error:
        words = shown(error)
    assert "gave an answer that is not a token" in words
    assert SECRET not in words


def test_error_of_an_unreachable_metadata_service_names_the_address(closed_port: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        MetadataService(closed_port).fetch(no_exchange)
    assert f"the metadata service at {closed_port} did not answer: " in str(caught.value)
    assert "refused" in str(caught.value)
    assert caught.value.endpoint == closed_port


def test_silent_metadata_service_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=r"did not answer: .*timed out"):
            MetadataService(address, timeout=0.1).fetch(no_exchange)


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{" + b" " * 1000


@pytest.mark.parametrize("at_once", [0, ANSWER.index(b"{")], ids=["headers", "body"])
def test_slow_metadata_response_times_out(at_once: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sent = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):  # until the client disconnects
                connection.recv(65536)
                connection.sendall(ANSWER[:at_once])
                for byte in ANSWER[at_once:]:
                    connection.sendall(bytes([byte]))
                    sent.wait(0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r"did not answer: .*timed out"):
            MetadataService(f"127.0.0.1:{server.getsockname()[1]}", timeout=0.5).fetch(no_exchange)
        assert 0.4 < time.monotonic() - began < 5.0
        sent.set()
        thread.join()


def test_all_addresses_of_the_metadata_service_share_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    # A listening socket with a full backlog: further connections are not accepted.
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for early in (first, second):
            early.setblocking(False)
            early.connect_ex(full.getsockname())
        where = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", full.getsockname())] * 10
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: where)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r"did not answer: .*timed out"):
            MetadataService("many.example", timeout=0.5).fetch(no_exchange)
        assert 0.4 < time.monotonic() - began < 3.0


def test_next_address_of_the_metadata_service_is_tried(
    monkeypatch: pytest.MonkeyPatch, machine: FakeMetadataService, closed_port: str
) -> None:
    machine.body = answer()
    where = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, int(port)))
        for host, _, port in (closed_port.rpartition(":"), machine.address.rpartition(":"))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: where)
    assert MetadataService("many.example").fetch(no_exchange).value == SECRET


def test_metadata_response_that_is_not_http_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 welcome to ftp\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(UnavailableError, match="did not answer"):
            MetadataService(f"127.0.0.1:{server.getsockname()[1]}").fetch(no_exchange)
        thread.join()


@pytest.mark.parametrize("address", ["http://169.254.169.254", "host:http", "bad host", "a..b", "a\nb"])
def test_invalid_metadata_address_is_a_configuration_error(address: str) -> None:
    with pytest.raises((ConfigurationError, APIError)) as caught:
        MetadataService(address, timeout=0.1).fetch(no_exchange)
    assert address.split("\n")[0] in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, "5", float("nan")])
@pytest.mark.parametrize("kind", [MetadataService, YcCli])
def test_invalid_timeout_error_names_the_timeout(kind: Any, timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        kind(timeout=timeout)


# The environment


def test_first_variable_that_is_set_is_used(monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    expected = [
        (ApiKey, "Api-Key in-YC_API_KEY"),
        (ApiKey, "Api-Key in-YANDEX_CLOUD_API_KEY"),
        (IamToken, "Bearer in-YC_IAM_TOKEN"),
        (ServiceAccountKey, None),
        (OAuthToken, None),
        (OAuthToken, None),
        (IamToken, "Bearer in-IAM_TOKEN"),
        (ApiKey, "Api-Key in-API_KEY"),
    ]
    for name in VARIABLES:
        monkeypatch.setenv(name, str(key_file) if name == "YC_SERVICE_ACCOUNT_KEY_FILE" else f"in-{name}")
    for name, (kind, header) in zip(VARIABLES, expected, strict=True):
        found = from_env()
        assert type(found) is kind
        assert found.header == header
        if kind is OAuthToken:
            assert found.fetch(exchange).value == f"in-{name}"
        monkeypatch.setenv(name, "")
    assert isinstance(from_env(), MetadataService)


def test_mapping_replaces_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YC_API_KEY", "other")
    assert from_env({"IAM_TOKEN": f"{SECRET}\n"}).header == f"Bearer {SECRET}"


def test_metadata_address_can_come_from_a_mapping(machine: FakeMetadataService) -> None:
    machine.body = answer()
    assert repr(from_env({"YC_METADATA_ADDR": machine.address})) == f"MetadataService({machine.address!r})"


@pytest.mark.parametrize(
    ("token", "kind"), [("t1.9euelZ", IamToken), (" t1.9euelZ\n", IamToken), ("y0_AgAAAA", OAuthToken)]
)
def test_yc_token_is_an_iam_or_an_oauth_token(token: str, kind: type[Credentials]) -> None:
    assert type(from_env({"YC_TOKEN": token})) is kind


@pytest.mark.parametrize("name", VARIABLES)
def test_error_of_an_invalid_variable_names_it(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        from_env({name: f"{SECRET}\x00ё"} if "FILE" not in name else {name: "/nowhere/key.json"})
    assert SECRET not in shown(caught.value)


def test_error_without_credentials_lists_the_variables_and_the_metadata_address(
    monkeypatch: pytest.MonkeyPatch, closed_port: str
) -> None:
    monkeypatch.setenv("YC_METADATA_ADDR", closed_port)
    with pytest.raises(ConfigurationError) as caught:
        from_env().fetch(no_exchange)
    message = str(caught.value)
    assert f"no credentials: pass credentials=..., or set one of {', '.join(VARIABLES)}; none of them is set" in message
    assert f"metadata service at {closed_port}" in message
    assert isinstance(caught.value.__cause__, UnavailableError)


def test_metadata_service_is_used_without_variables(
    monkeypatch: pytest.MonkeyPatch, machine: FakeMetadataService
) -> None:
    monkeypatch.setenv("YC_METADATA_ADDR", machine.address)
    machine.body = answer()
    assert from_env().fetch(no_exchange).value == SECRET


def test_error_of_an_invalid_metadata_address_lists_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YC_METADATA_ADDR", "http://169.254.169.254")
    with pytest.raises(ConfigurationError, match="YC_API_KEY"):
        from_env().fetch(no_exchange)


# Secrets are not shown

KINDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ApiKey": lambda key: ApiKey(SECRET),
    "IamToken": lambda key: IamToken(SECRET),
    "OAuthToken": lambda key: OAuthToken(SECRET),
    "ServiceAccountKey": ServiceAccountKey,
    "TokenProvider": lambda key: TokenProvider(lambda: SECRET),
    "NoCredentials": lambda key: NoCredentials(),
    "YcCli": lambda key: YcCli(),
    "MetadataService": lambda key: MetadataService("127.0.0.1"),
    "ExpiringToken": lambda key: ExpiringToken(SECRET, lifetime=5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_repr_shows_no_secret_and_credentials_cannot_be_pickled_or_copied(kind: str, key_data: dict[str, Any]) -> None:
    made = KINDS[kind](key_data)
    for text in (repr(made), str(made), f"{made}", f"{[made]}"):
        assert kind in text
        assert SECRET not in text
        assert "PRIVATE KEY" not in text
    for copies in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=f"{kind} cannot be pickled or copied: it holds a secret") as caught:
            copies(made)
        assert SECRET not in shown(caught.value)


def test_repr_of_a_token_shows_its_lifetime() -> None:
    assert repr(ExpiringToken(SECRET, lifetime=5)) == "ExpiringToken(..., lifetime=5)"
    assert ExpiringToken(SECRET).lifetime is None


@pytest.mark.parametrize("lifetime", ["3600", [1], object()])
def test_non_numeric_lifetime_is_rejected(lifetime: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="lifetime"):
        ExpiringToken(SECRET, lifetime=lifetime)


def test_test_environment_has_no_credentials() -> None:
    assert not any(name in os.environ for name in VARIABLES)
