"""Where the authorization of a call comes from, what is said when there is none, and that no secret is ever shown."""

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


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "YC_METADATA_ADDR"):
        monkeypatch.delenv(name, raising=False)


def exchange(*, jwt: str = "", oauth_token: str = "") -> ExpiringToken:
    """Plays the token service: gives back the proof it was given."""
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
    """All that a traceback shows of an error."""
    return "".join(traceback.format_exception(error))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and whatever it holds on to."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def held(error: BaseException) -> str:
    """All that an error and those behind it hold, shown or not."""
    return "\n".join(
        f"{one} {one!r} {vars(one)} {[getattr(one, name, None) for name in ('doc', 'object', 'output', 'stdout')]}"
        for one in chain(error)
    )


# Fixed ones


@pytest.mark.parametrize(
    ("kind", "header"), [(ApiKey, f"Api-Key {SECRET}"), (IamToken, f"Bearer {SECRET}")], ids=["key", "token"]
)
@pytest.mark.parametrize("around", ["{}", " {}", "{}\n", "\t{}\r\n", "\u00a0{}\u2028"])
def test_white_space_around_a_secret_is_stripped(kind: Any, header: str, around: str) -> None:
    assert kind(around.format(SECRET)).header == header


def test_no_credentials_send_nothing() -> None:
    assert NoCredentials().header == ""


def test_fixed_credentials_have_no_token_to_fetch() -> None:
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
def test_a_secret_that_cannot_be_sent_is_refused_without_being_shown(
    kind: Any, name: str, value: Any, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(value)
    assert str(caught.value).startswith(f"{name} {words}") or words in str(caught.value)
    assert str(caught.value).startswith(name)
    assert SECRET not in shown(caught.value)


# Exchanged ones


def test_an_oauth_token_is_exchanged() -> None:
    credentials = OAuthToken(f" {SECRET}\n")
    assert credentials.header is None
    token = credentials.fetch(exchange)
    assert (token.value, token.lifetime) == (SECRET, 60)


@pytest.mark.parametrize("kind", [str, Path, lambda path: json.loads(path.read_text())], ids=["str", "path", "mapping"])
def test_a_key_of_a_service_account_signs_a_jwt(
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


def test_a_key_may_come_without_the_warning_line(key_data: dict[str, Any], rsa_key: rsa.RSAPrivateKey) -> None:
    before = copy.deepcopy(key_data)
    assert ServiceAccountKey({**key_data, "private_key": pem(rsa_key)}).fetch(exchange).value
    assert key_data == before


@pytest.mark.parametrize("field", ["id", "service_account_id", "private_key"])
@pytest.mark.parametrize("value", [None, "", 5, ["a"]], ids=["missing", "empty", "number", "list"])
def test_a_key_file_with_a_field_missing_is_refused_by_file_and_field(key_file: Path, field: str, value: Any) -> None:
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


def test_a_mapping_with_a_field_missing_is_refused_by_the_field(key_data: dict[str, Any]) -> None:
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
def test_a_private_key_that_is_none_is_refused_by_file_and_field(
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
def test_a_file_that_is_no_key_is_refused_by_its_name(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "key.json"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        ServiceAccountKey(file)
    assert str(caught.value).startswith(f"service account key file {file}: {words}")
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("content", [content for content, _ in BROKEN_FILES.values()], ids=BROKEN_FILES)
def test_a_file_that_is_no_key_is_not_held_by_the_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key.json"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        ServiceAccountKey(file)
    assert SECRET not in held(caught.value)


def test_a_key_file_with_a_byte_order_mark_is_read(key_file: Path) -> None:
    key_file.write_bytes(b"\xef\xbb\xbf" + key_file.read_bytes())
    assert ServiceAccountKey(key_file).fetch(exchange).value


@pytest.mark.parametrize("kind", [str, Path])
def test_a_key_file_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path, kind: Any) -> None:
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
def test_without_the_extra_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, key_data: dict[str, Any], missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'yandexgpt\[auth\]'"):
        ServiceAccountKey(key_data)


def test_the_extra_exists() -> None:
    from importlib.metadata import metadata

    assert "auth" in (metadata("yandexgpt").get_all("Provides-Extra") or [])


# The command line tool


@pytest.fixture
def yc(tmp_path: Path) -> Callable[[str], str]:
    """Makes a tool of the lines of a shell script."""

    def make(lines: str) -> str:
        tool = tmp_path / "yc"
        tool.write_text(f"#!/bin/sh\n{lines}\n")
        tool.chmod(0o755)
        return str(tool)

    return make


def test_the_tool_prints_a_token(yc: Callable[[str], str]) -> None:
    credentials = YcCli(yc('[ "$*" = "iam create-token" ] && echo; echo " t1.token "'))
    assert credentials.header is None
    token = credentials.fetch(no_exchange)
    assert (token.value, token.lifetime) == ("t1.token", None)


def test_the_tool_is_told_the_profile(yc: Callable[[str], str]) -> None:
    assert YcCli(yc('echo "$*"'), profile="prod").fetch(no_exchange).value == "iam create-token --profile prod"


def test_the_tool_may_be_given_as_a_path(yc: Callable[[str], str]) -> None:
    assert YcCli(Path(yc("echo t1.token"))).fetch(no_exchange).value == "t1.token"  # type: ignore[arg-type]


def test_the_tool_does_not_wait_for_input(yc: Callable[[str], str]) -> None:
    assert YcCli(yc("read answer; echo t1.token")).fetch(no_exchange).value == "t1.token"


def test_the_standard_error_of_a_tool_that_fails_is_shown(yc: Callable[[str], str]) -> None:
    tool = yc(f"echo {SECRET}; echo 'ERROR: profile' >&2; echo '  not found' >&2; exit 3")
    with pytest.raises(AuthenticationError) as caught:
        YcCli(tool).fetch(no_exchange)
    assert f"`{tool} iam create-token` failed with exit code 3: ERROR: profile not found" in str(caught.value)
    assert SECRET not in shown(caught.value)
    assert SECRET not in held(caught.value)


def test_a_tool_that_fails_without_output_is_an_error_that_says_so(yc: Callable[[str], str]) -> None:
    with pytest.raises(AuthenticationError, match="failed with exit code 1: it printed nothing to standard error"):
        YcCli(yc("exit 1")).fetch(no_exchange)


def test_a_tool_whose_words_are_not_utf8_is_quoted_all_the_same(yc: Callable[[str], str]) -> None:
    with pytest.raises(AuthenticationError, match="exit code 1: \N{REPLACEMENT CHARACTER} wrong"):
        YcCli(yc(r"printf '\377 wrong' >&2; exit 1")).fetch(no_exchange)


def test_a_tool_that_takes_too_long_is_stopped(yc: Callable[[str], str]) -> None:
    tool = yc(f"echo {SECRET}; exec sleep 30")
    with pytest.raises(UnavailableError, match=r"did not finish within 0\.3 s") as caught:
        YcCli(tool, timeout=0.3).fetch(no_exchange)
    assert SECRET not in shown(caught.value)


def test_what_a_slow_tool_had_printed_is_not_held_by_the_error(yc: Callable[[str], str]) -> None:
    with pytest.raises(UnavailableError) as caught:
        YcCli(yc(f"echo {SECRET}; exec sleep 30"), timeout=0.3).fetch(no_exchange)
    assert SECRET not in held(caught.value)


def test_a_tool_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        YcCli(str(tmp_path / "yc")).fetch(no_exchange)
    assert str(caught.value) == f"`{tmp_path / 'yc'} iam create-token` cannot be run: No such file or directory"


def test_a_tool_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "yc").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be run: Permission denied"):
        YcCli(str(tmp_path / "yc")).fetch(no_exchange)


def test_a_tool_that_prints_nothing_is_an_error_that_says_so(yc: Callable[[str], str]) -> None:
    with pytest.raises(ConfigurationError, match=r"what `.*yc iam create-token` printed is empty"):
        YcCli(yc("true")).fetch(no_exchange)


def test_a_tool_that_prints_more_than_a_token_is_not_quoted(yc: Callable[[str], str]) -> None:
    with pytest.raises(ConfigurationError, match="printed holds a character at position 3") as caught:
        YcCli(yc(f"echo new; echo {SECRET}")).fetch(no_exchange)
    assert SECRET not in shown(caught.value)


# A function of the user's own


def test_a_function_may_return_a_string_or_a_token() -> None:
    assert TokenProvider(lambda: f" {SECRET}\n").fetch(no_exchange).value == SECRET
    token = TokenProvider(lambda: ExpiringToken(f"{SECRET}\n", lifetime=5)).fetch(no_exchange)
    assert (token.value, token.lifetime) == (SECRET, 5)
    assert TokenProvider(lambda: "a").header is None


def test_a_function_may_be_a_coroutine_function() -> None:
    async def token() -> ExpiringToken:
        await asyncio.sleep(0)
        return ExpiringToken(SECRET, lifetime=5)

    class Provider:
        async def __call__(self) -> str:
            return SECRET

    assert TokenProvider(token).fetch(no_exchange).lifetime == 5
    assert TokenProvider(Provider()).fetch(no_exchange).value == SECRET


def test_what_a_function_raises_comes_through() -> None:
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
def test_what_is_no_token_is_refused_without_being_shown(value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TokenProvider(lambda: value).fetch(no_exchange)
    assert words in str(caught.value)
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("provider", [SECRET, None, 5])
def test_what_is_no_function_is_refused_without_being_shown(provider: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"TokenProvider needs a function, got {type(provider).__name__}"):
        TokenProvider(provider)


# The metadata service


class Machine(ThreadingHTTPServer):
    """The metadata service of a machine."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MachineHandler)
        self.status = 200
        self.body = b""
        self.seen: list[tuple[str, str | None]] = []
        self.address = f"127.0.0.1:{self.server_address[1]}"


class MachineHandler(BaseHTTPRequestHandler):
    server: Machine

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Metadata-Flavor"]))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as server:
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


def test_the_metadata_service_gives_a_token(machine: Machine) -> None:
    machine.body = answer(access_token=f"{SECRET}\n")
    credentials = MetadataService(machine.address)
    assert credentials.header is None
    token = credentials.fetch(no_exchange)
    assert (token.value, token.lifetime) == (SECRET, 3600)
    assert machine.seen == [("/computeMetadata/v1/instance/service-accounts/default/token", "Google")]


def test_the_address_of_the_metadata_service_may_come_from_the_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YC_METADATA_ADDR", machine.address)
    machine.body = answer()
    assert MetadataService().fetch(no_exchange).value == SECRET
    monkeypatch.setenv("YC_METADATA_ADDR", "elsewhere.example")
    assert MetadataService(machine.address).fetch(no_exchange).value == SECRET


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_a_metadata_service_without_an_account_is_an_error_that_says_so(machine: Machine, status: int) -> None:
    machine.status = status
    with pytest.raises(AuthenticationError) as caught:
        MetadataService(machine.address).fetch(no_exchange)
    assert f"the metadata service at {machine.address} answered {status} (has this machine a service account?)" in str(
        caught.value
    )


@pytest.mark.parametrize("status", [500, 503])
def test_a_metadata_service_that_fails_is_unavailable(machine: Machine, status: int) -> None:
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
def test_an_answer_that_is_no_token_is_not_shown(machine: Machine, body: bytes) -> None:
    machine.body = body
    with pytest.raises(UnavailableError, match="gave an answer that is not a token") as caught:
        MetadataService(machine.address).fetch(no_exchange)
    assert machine.address in str(caught.value)
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_an_answer_that_is_no_token_is_not_held_by_the_error(machine: Machine, body: bytes) -> None:
    machine.body = body
    with pytest.raises(UnavailableError) as caught:
        MetadataService(machine.address).fetch(no_exchange)
    assert SECRET not in held(caught.value)


def test_an_answer_that_is_too_long_is_refused(machine: Machine) -> None:
    machine.body = answer(padding="a" * 100_000)
    words = ""
    try:
        MetadataService(machine.address).fetch(no_exchange)
    except UnavailableError as error:
        words = shown(error)
    assert "gave an answer that is not a token" in words
    assert SECRET not in words


def test_where_no_metadata_service_answers_the_error_names_the_address(closed_port: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        MetadataService(closed_port).fetch(no_exchange)
    assert f"the metadata service at {closed_port} did not answer: " in str(caught.value)
    assert "refused" in str(caught.value)
    assert caught.value.endpoint == closed_port


def test_a_metadata_service_that_sends_nothing_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=r"did not answer: .*timed out"):
            MetadataService(address, timeout=0.1).fetch(no_exchange)


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{" + b" " * 1000


@pytest.mark.parametrize("at_once", [0, ANSWER.index(b"{")], ids=["headers", "body"])
def test_a_metadata_service_that_sends_byte_by_byte_times_out(at_once: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sent = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):  # until the client has gone
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


def test_all_addresses_of_a_metadata_service_share_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    # A socket that listens and whose line is full: it accepts nobody any more.
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


def test_the_next_address_of_a_metadata_service_is_tried(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, closed_port: str
) -> None:
    machine.body = answer()
    where = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, int(port)))
        for host, _, port in (closed_port.rpartition(":"), machine.address.rpartition(":"))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: where)
    assert MetadataService("many.example").fetch(no_exchange).value == SECRET


def test_a_metadata_service_that_does_not_speak_http_is_unavailable() -> None:
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
def test_an_impossible_address_is_refused_with_the_documented_error(address: str) -> None:
    with pytest.raises((ConfigurationError, APIError)) as caught:
        MetadataService(address, timeout=0.1).fetch(no_exchange)
    assert address.split("\n")[0] in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, "5", float("nan")])
@pytest.mark.parametrize("kind", [MetadataService, YcCli])
def test_an_impossible_timeout_is_refused_by_name(kind: Any, timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        kind(timeout=timeout)


# The environment


def test_the_first_variable_that_is_set_wins(monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
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


def test_a_mapping_can_stand_for_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YC_API_KEY", "other")
    assert from_env({"IAM_TOKEN": f"{SECRET}\n"}).header == f"Bearer {SECRET}"


def test_the_metadata_service_named_in_a_mapping_is_the_one_asked(machine: Machine) -> None:
    machine.body = answer()
    assert repr(from_env({"YC_METADATA_ADDR": machine.address})) == f"MetadataService({machine.address!r})"


@pytest.mark.parametrize(
    ("token", "kind"), [("t1.9euelZ", IamToken), (" t1.9euelZ\n", IamToken), ("y0_AgAAAA", OAuthToken)]
)
def test_yc_token_may_be_of_either_kind(token: str, kind: type[Credentials]) -> None:
    assert type(from_env({"YC_TOKEN": token})) is kind


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_holds_nonsense_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        from_env({name: f"{SECRET}\x00ё"} if "FILE" not in name else {name: "/nowhere/key.json"})
    assert SECRET not in shown(caught.value)


def test_where_nothing_is_found_the_error_lists_what_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, closed_port: str
) -> None:
    monkeypatch.setenv("YC_METADATA_ADDR", closed_port)
    with pytest.raises(ConfigurationError) as caught:
        from_env().fetch(no_exchange)
    said = str(caught.value)
    assert f"no credentials: pass credentials=..., or set one of {', '.join(VARIABLES)}; none of them is set" in said
    assert f"metadata service at {closed_port}" in said
    assert isinstance(caught.value.__cause__, UnavailableError)


def test_without_variables_the_metadata_service_is_asked(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setenv("YC_METADATA_ADDR", machine.address)
    machine.body = answer()
    assert from_env().fetch(no_exchange).value == SECRET


def test_an_address_that_makes_no_sense_lists_what_was_looked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YC_METADATA_ADDR", "http://169.254.169.254")
    with pytest.raises(ConfigurationError, match="YC_API_KEY"):
        from_env().fetch(no_exchange)


# Nothing shows a secret

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
def test_no_secret_is_shown_pickled_or_copied(kind: str, key_data: dict[str, Any]) -> None:
    made = KINDS[kind](key_data)
    for text in (repr(made), str(made), f"{made}", f"{[made]}"):
        assert kind in text
        assert SECRET not in text
        assert "PRIVATE KEY" not in text
    for copies in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=f"{kind} cannot be pickled or copied: it holds a secret") as caught:
            copies(made)
        assert SECRET not in shown(caught.value)


def test_a_token_shows_how_long_it_lives() -> None:
    assert repr(ExpiringToken(SECRET, lifetime=5)) == "ExpiringToken(..., lifetime=5)"
    assert ExpiringToken(SECRET).lifetime is None


@pytest.mark.parametrize("lifetime", ["3600", [1], object()])
def test_a_lifetime_that_is_no_number_is_refused(lifetime: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="lifetime"):
        ExpiringToken(SECRET, lifetime=lifetime)


def test_the_tests_run_in_an_environment_without_credentials() -> None:
    assert not any(name in os.environ for name in VARIABLES)
