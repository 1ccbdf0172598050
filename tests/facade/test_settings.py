"""What a client is set up with: arguments, environment, and what is refused before a byte leaves."""

from __future__ import annotations

import math
import pickle
import traceback
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yandexgpt import Client, ConfigurationError, Retry
from yandexgpt._checks import check_metadata, check_seconds
from yandexgpt._config import UNSET, Settings
from yandexgpt._endpoint import is_loopback
from yandexgpt.credentials import ApiKey, IamToken, MetadataService, NoCredentials

SECRET = "s3cr3t-AQVN-value"
AUTHORIZATION = (("authorization", f"Bearer {SECRET}"),)
SERVICE = "llm.api.cloud.yandex.net:443"
OPERATIONS = "operation.api.cloud.yandex.net:443"
IAM = "iam.api.cloud.yandex.net:443"

DEFAULTS: dict[str, Any] = {
    "folder_id": None,
    "credentials": SECRET,
    "model": "yandexgpt-lite",
    "endpoint": None,
    "operation_endpoint": None,
    "iam_endpoint": None,
    "tls": None,
    "timeout": 60.0,
    "attempt_timeout": None,
    "retry": Retry(),
    "max_concurrency": None,
    "log_data": True,
    "metadata": (),
    "channel_options": (),
    "interceptors": (),
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("YC_", "YANDEX")) or name in ("API_KEY", "IAM_TOKEN", "FOLDER_ID"):
            monkeypatch.delenv(name)


def resolve(**arguments: Any) -> Settings:
    return Settings.resolve(**{**DEFAULTS, **arguments})


def refused(**arguments: Any) -> str:
    """The words with which arguments are refused, by the client itself; they never hold a secret."""
    with pytest.raises(ConfigurationError) as caught:
        Client(**{"credentials": SECRET, "folder_id": "f", **arguments})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


# Folder


def test_the_folder_that_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YC_FOLDER_ID", "environment")
    assert resolve(folder_id=" given \n").folder_id == "given"


def test_the_folder_comes_from_the_first_variable_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve().folder_id is None
    for name in ("YANDEX_CLOUD_FOLDER", "FOLDER_ID", "YC_FOLDER_ID"):
        monkeypatch.setenv(name, f"from-{name}")
        assert resolve().folder_id == f"from-{name}"
    monkeypatch.setenv("YC_FOLDER_ID", "")
    assert resolve().folder_id == "from-FOLDER_ID"


@pytest.mark.parametrize("folder", ["", " ", "\n"])
def test_an_empty_folder_is_refused(folder: str) -> None:
    assert "folder_id must not be empty" in refused(folder_id=folder)


@pytest.mark.parametrize("folder", ["a/b", "<folder>", "a@b", "a b", "каталог", "a\x7f"])
def test_what_is_no_folder_is_refused(folder: str) -> None:
    words = refused(folder_id=folder)
    assert "folder_id must be the id of a folder" in words
    assert repr(folder) in words


def test_a_folder_that_is_no_string_is_not_called_empty() -> None:
    words = refused(folder_id=5)
    assert "folder_id" in words
    assert "5" in words
    assert "empty" not in words


def test_an_environment_variable_that_is_at_fault_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER_ID", "a/b")
    with pytest.raises(ConfigurationError, match="FOLDER_ID"):
        resolve()


# Endpoints and TLS


def test_the_endpoints_are_the_services_own_over_tls() -> None:
    found = resolve()
    assert [str(found.endpoint), str(found.operation_endpoint), str(found.iam_endpoint)] == [SERVICE, OPERATIONS, IAM]
    assert found.endpoint.tls is True


def test_an_endpoint_stands_for_the_whole_service() -> None:
    found = resolve(endpoint=" localhost:50051 ")
    assert {str(found.endpoint), str(found.operation_endpoint), str(found.iam_endpoint)} == {"localhost:50051"}


def test_other_endpoints_can_be_given_beside_it() -> None:
    found = resolve(endpoint="a:1", operation_endpoint="b:2", iam_endpoint="c:3")
    assert [str(found.endpoint), str(found.operation_endpoint), str(found.iam_endpoint)] == ["a:1", "b:2", "c:3"]
    assert str(resolve(iam_endpoint="c:3").endpoint) == SERVICE


def test_a_program_can_be_pointed_elsewhere_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YANDEXGPT_ENDPOINT", "localhost:50051")
    monkeypatch.setenv("YANDEXGPT_TLS", "0")
    found = resolve()
    assert str(found.iam_endpoint) == str(found.endpoint) == "localhost:50051"
    assert found.endpoint.tls is False
    given = resolve(endpoint="other:1", tls=True)
    assert str(given.endpoint) == "other:1"
    assert given.endpoint.tls is True
    monkeypatch.setenv("YANDEXGPT_ENDPOINT", "")
    monkeypatch.setenv("YANDEXGPT_TLS", "")
    assert str(resolve().endpoint) == SERVICE


@pytest.mark.parametrize(
    ("value", "tls"),
    [
        ("1", True),
        ("true", True),
        ("Yes", True),
        ("on", True),
        (" ", True),
        ("0", 0),
        ("FALSE", 0),
        ("no", 0),
        ("off", 0),
    ],
)
def test_tls_from_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, tls: bool) -> None:
    monkeypatch.setenv("YANDEXGPT_ENDPOINT", "localhost:1")
    monkeypatch.setenv("YANDEXGPT_TLS", value)
    assert resolve().endpoint.tls is bool(tls)


def test_tls_may_be_the_path_of_a_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    assert resolve(tls=bundle).endpoint.tls == str(bundle)
    assert resolve(tls=str(bundle)).iam_endpoint.tls == str(bundle)
    monkeypatch.setenv("YANDEXGPT_TLS", str(bundle))
    assert resolve().endpoint.tls == str(bundle)


@pytest.mark.parametrize("tls", ["", "/nowhere/ca.pem", Path("/nowhere/ca.pem"), "/"])
def test_a_bundle_that_is_not_there_is_refused(tls: Any) -> None:
    assert f"tls: there is no file {str(tls)!r}" in refused(tls=tls)


@pytest.mark.parametrize("tls", [0, 1, 5.0, b"ca.pem", ["ca.pem"]])
def test_a_tls_of_the_wrong_type_is_refused(tls: Any) -> None:
    assert "tls" in refused(tls=tls, endpoint="localhost:1")


@pytest.mark.parametrize("name", ["endpoint", "operation_endpoint", "iam_endpoint"])
@pytest.mark.parametrize(
    "target",
    ["localhost", ":443", "host:", "host:0", "host:65536", "host:-1", "host:http", "https://host:443", " ", 5, b"h:1"],
)
def test_what_is_no_endpoint_is_refused(name: str, target: Any) -> None:
    words = refused(**{name: target})
    assert words.startswith(f"{name} must be host:port, got ")


@pytest.mark.parametrize("target", ["::1:443", "[::1:443", "::1]:443"])
def test_an_ipv6_address_needs_brackets(target: str) -> None:
    assert "endpoint: an IPv6 address stands in brackets, [::1]:443; got" in refused(endpoint=target)


@pytest.mark.parametrize("target", ["host:²", "host:٣", "exa mple:443", "host/path:443", "user@host:443", "unix:"])
def test_an_endpoint_that_could_never_be_reached_is_refused(target: str) -> None:
    assert "endpoint" in refused(endpoint=target)


@pytest.mark.parametrize(
    "target", ["localhost:1", "127.0.0.1:65535", "[::1]:443", "unix:/tmp/socket", "a-b.example:443"]
)
def test_what_is_an_endpoint_is_taken(target: str) -> None:
    assert str(resolve(endpoint=target).endpoint) == target


# Secrets and plaintext

LOOPBACK = ["localhost:1", "LOCALHOST:1", "127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "unix:/tmp/socket"]
ELSEWHERE = [
    "llm.example:80",
    "10.0.0.1:1",
    "0.0.0.0:1",
    "[::]:1",
    "[fe80::1]:1",
    "localhost.example:1",
    "127.0.0.1.example:1",
    "127.0.0.1@example:1",
    "1270.0.1:1",
]


@pytest.mark.parametrize("target", LOOPBACK)
def test_loopback_is_known(target: str) -> None:
    assert is_loopback(target)
    assert resolve(endpoint=target, tls=False).endpoint.tls is False


@pytest.mark.parametrize("target", ELSEWHERE)
def test_everything_else_is_not_loopback(target: str) -> None:
    assert not is_loopback(target)


@given(st.integers(0, 2**32 - 1))
def test_only_addresses_that_begin_with_127_are_loopback(address: int) -> None:
    host = ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))
    assert is_loopback(f"{host}:443") is (address >> 24 == 127)


@pytest.mark.parametrize("target", [target for target in ELSEWHERE if "@" not in target])
@pytest.mark.parametrize(
    "credentials", [SECRET, ApiKey(SECRET), IamToken(SECRET), MetadataService("127.0.0.1:1")], ids=lambda c: type(c)
)
def test_a_secret_is_not_sent_over_plaintext_to_another_machine(credentials: Any, target: str) -> None:
    words = refused(credentials=credentials, endpoint=target, tls=False)
    assert "tls=False would send the credential to endpoint" in words
    assert target in words


@pytest.mark.parametrize("name", ["endpoint", "operation_endpoint", "iam_endpoint"])
def test_no_endpoint_gets_a_secret_over_plaintext(name: str) -> None:
    endpoints = dict.fromkeys(("endpoint", "operation_endpoint", "iam_endpoint"), "localhost:1")
    words = refused(**{**endpoints, name: "llm.example:80"}, tls=False)
    assert f"tls=False would send the credential to {name} llm.example:80 unencrypted" in words


def test_plaintext_from_the_environment_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YANDEXGPT_ENDPOINT", "llm.example:80")
    monkeypatch.setenv("YANDEXGPT_TLS", "false")
    assert "unencrypted" in refused()


def test_without_a_secret_plaintext_may_go_anywhere() -> None:
    assert resolve(credentials=NoCredentials(), endpoint="proxy.example:80", tls=False).endpoint.tls is False


def test_a_secret_in_a_clients_metadata_is_a_secret() -> None:
    words = refused(credentials=NoCredentials(), endpoint="llm.example:80", tls=False, metadata=AUTHORIZATION)
    assert "unencrypted" in words


def test_a_secret_in_a_calls_metadata_is_a_secret() -> None:
    with (
        Client(credentials=NoCredentials(), folder_id="f", endpoint="192.0.2.1:80", tls=False) as client,
        pytest.raises(ConfigurationError, match="unencrypted") as caught,
    ):
        client.stream("a", metadata=AUTHORIZATION)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("options", [{"tls": False}, {"credentials": ApiKey(SECRET)}, {"metadata": AUTHORIZATION}])
def test_plaintext_cannot_be_reached_by_way_of_with_options(options: dict[str, Any]) -> None:
    start: dict[str, Any] = {"credentials": NoCredentials(), "tls": False}
    if "tls" in options:
        start = {"credentials": ApiKey(SECRET), "tls": True}
    with (
        Client(folder_id="f", endpoint="llm.example:80", **start) as client,
        pytest.raises(ConfigurationError, match="unencrypted"),
    ):
        client.with_options(**options)


# Everything else


def test_a_string_is_taken_as_an_api_key() -> None:
    assert resolve(credentials=f" {SECRET}\n").credentials.header == f"Api-Key {SECRET}"


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(resolve(credentials=None).credentials, MetadataService)
    monkeypatch.setenv("IAM_TOKEN", "t1.token")
    assert resolve(credentials=None).credentials.header == "Bearer t1.token"
    assert resolve().credentials.header == f"Api-Key {SECRET}"


@pytest.mark.parametrize("credentials", [5, {"key": SECRET}, (SECRET,), lambda: SECRET, ApiKey])
def test_what_are_no_credentials_is_refused_without_being_shown(credentials: Any) -> None:
    words = refused(credentials=credentials)
    assert "credentials must be an API key as a str or an object of yandexgpt.credentials" in words
    assert type(credentials).__name__ in words


@pytest.mark.parametrize("name", ["timeout", "attempt_timeout"])
@pytest.mark.parametrize("value", [0, 0.0, -1, math.nan, math.inf, "60", True, [60]])
def test_what_is_no_time_span_is_refused(name: str, value: Any) -> None:
    words = refused(**{name: value})
    assert words == f"{name} must be a number of seconds greater than 0, or None, got {value!r}"


@pytest.mark.parametrize("value", [None, 1, 0.001, 86400])
def test_a_time_span_or_none_is_taken(value: float | None) -> None:
    assert resolve(timeout=value, attempt_timeout=value).timeout == value
    check_seconds("timeout", value)


@pytest.mark.parametrize("value", [10**400, 1e300])
def test_a_time_span_that_no_clock_can_count_is_refused(value: float) -> None:
    assert "timeout" in refused(timeout=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, "10", [1], math.inf, True])
def test_a_max_concurrency_that_is_no_positive_integer_is_refused(value: Any) -> None:
    words = refused(max_concurrency=value)
    assert words == f"max_concurrency must be a whole number greater than 0, or None, got {value!r}"


def test_an_impossible_model_is_refused_at_once() -> None:
    assert "model must be a name, name/version or a URI" in refused(model="a b")
    assert "placeholder" in refused(model="gpt://<folder>/yandexgpt")
    assert resolve(model="yandexgpt").folder_id is None


@pytest.mark.parametrize("retry", [None, 4, {"attempts": 4}, Retry])
def test_what_is_no_retry_is_refused(retry: Any) -> None:
    assert refused(retry=retry) == f"retry must be a yandexgpt.Retry, got {type(retry).__name__}"


@pytest.mark.parametrize("log_data", ["false", "no", None])
def test_a_data_logging_option_that_is_no_bool_is_refused(log_data: Any) -> None:
    assert "log_data" in refused(log_data=log_data)


@pytest.mark.parametrize("name", ["metadata", "channel_options", "interceptors"])
@pytest.mark.parametrize("value", [5, None], ids=repr)
def test_what_is_no_sequence_is_refused_by_name(name: str, value: Any) -> None:
    assert name in refused(**{name: value})


@pytest.mark.parametrize("options", [{"grpc.a": 1}, ["grpc.a"], [("grpc.a",)], [(1, 2)]], ids=repr)
def test_channel_options_that_are_no_pairs_are_refused(options: Any) -> None:
    assert "channel_options" in refused(channel_options=options)


def test_every_call_carries_the_folder_and_the_wish_not_to_be_logged() -> None:
    assert resolve().call_metadata() == ()
    assert resolve(folder_id="f", log_data=False, metadata=[("a", "b")]).call_metadata() == (
        ("x-folder-id", "f"),
        ("x-data-logging-enabled", "false"),
        ("a", "b"),
    )


def test_clients_that_agree_in_what_a_connection_depends_on_can_share_one() -> None:
    assert resolve().connection_key == resolve(model="other", timeout=1, folder_id="f", credentials="k").connection_key
    assert resolve().connection_key != resolve(endpoint="a:1").connection_key
    assert resolve().connection_key != resolve(channel_options=[("grpc.a", 1)]).connection_key
    assert resolve(endpoint="localhost:1").connection_key != resolve(endpoint="localhost:1", tls=False).connection_key


# Metadata


def test_metadata_is_taken_as_pairs() -> None:
    pairs = (("a-b_c.9", "value ~!"), ("trace-bin", b"\x00\xff"), ("empty", ""))
    assert check_metadata(list(pairs)) == pairs
    assert resolve(metadata=iter(pairs)).metadata == pairs


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("Authorization", SECRET), "metadata key 'Authorization' may hold lower-case letters, digits and"),
        (("a b", SECRET), "metadata key 'a b' may hold"),
        (("", SECRET), "metadata key '' may hold"),
        ((b"a", SECRET), "metadata key b'a' may hold"),
        (("ключ", SECRET), "may hold"),
        (("a\n", SECRET), "may hold"),
        (("a-bin", SECRET), "metadata value of 'a-bin' must be bytes, got str"),
        (("a", SECRET.encode()), "metadata value of 'a' must be a str of printable ASCII"),
        (("a", f"{SECRET}\n"), "metadata value of 'a' must be a str of printable ASCII"),
        (("a", f"{SECRET}ё"), "metadata value of 'a' must be a str of printable ASCII"),
        (("a", None), "metadata value of 'a' must be a str of printable ASCII"),
        (("a", [SECRET]), "metadata value of 'a' must be"),
        (("a", SECRET, 1), "metadata must be pairs of key and value"),
        (["a", SECRET], "metadata must be pairs of key and value"),
        (SECRET, "metadata must be pairs of key and value"),
    ],
)
def test_metadata_that_grpc_cannot_carry_is_refused_without_its_value(pair: Any, words: str) -> None:
    assert words in refused(metadata=[("ok", SECRET), pair])
    with pytest.raises(ValueError, match="metadata") as caught:
        check_metadata([pair])
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    with Client(credentials=SECRET, folder_id="f") as client:
        with pytest.raises(ValueError, match="metadata") as caught:
            client.stream("a", metadata=[pair])
        assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("kind", [dict, MappingProxyType])
def test_a_mapping_of_metadata_is_told_what_to_pass(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"metadata must be pairs .* pass metadata\.items\(\)"):
        check_metadata(kind({"a": "b"}))
    assert "metadata.items()" in refused(metadata=kind({"a": "b"}))


# with_options


def test_options_that_are_not_changed_stay(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    everything: dict[str, Any] = {
        "folder_id": "f",
        "credentials": ApiKey(SECRET),
        "model": "yandexgpt/rc",
        "endpoint": "a:1",
        "operation_endpoint": "b:2",
        "iam_endpoint": "c:3",
        "tls": bundle,
        "timeout": 5,
        "attempt_timeout": 1,
        "retry": Retry(attempts=2),
        "max_concurrency": 3,
        "log_data": False,
        "metadata": [("a", "b")],
        "channel_options": [("grpc.a", 1)],
        "interceptors": [object()],
    }
    found = resolve(**everything)
    assert found.with_options({}) == found
    changed = found.with_options({"timeout": None, "model": "yandexgpt"})
    assert (changed.timeout, changed.model) == (None, "yandexgpt")
    assert changed.with_options({"timeout": 5, "model": "yandexgpt/rc"}) == found


def test_options_that_are_changed_are_checked() -> None:
    found = resolve()
    with pytest.raises(ConfigurationError, match="timeout must be a number of seconds"):
        found.with_options({"timeout": -1})
    with pytest.raises(TypeError, match=r"with_options\(\) has no argument a, temperature"):
        found.with_options({"temperature": 1, "a": 2, "model": "b"})


def test_what_was_set_up_stays_when_the_environment_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve(folder_id="f", endpoint="localhost:1", tls=False)
    monkeypatch.setenv("YC_FOLDER_ID", "other")
    monkeypatch.setenv("YANDEXGPT_ENDPOINT", "other:2")
    monkeypatch.setenv("YANDEXGPT_TLS", "1")
    assert found.with_options({"timeout": 1}).connection_key == found.connection_key
    assert found.with_options({"timeout": 1}).folder_id == "f"


def test_an_endpoint_that_is_changed_stands_for_the_whole_service_too() -> None:
    found = resolve(credentials=ApiKey(SECRET)).with_options({"endpoint": "localhost:50051", "tls": False})
    assert {str(found.endpoint), str(found.operation_endpoint), str(found.iam_endpoint)} == {"localhost:50051"}


def test_endpoints_that_were_given_stay_when_another_is_changed() -> None:
    found = resolve(endpoint="a:1", iam_endpoint="c:3").with_options({"endpoint": "d:4"})
    assert (str(found.endpoint), str(found.iam_endpoint)) == ("d:4", "c:3")


# What is shown


def test_no_secret_is_shown() -> None:
    found = resolve(metadata=AUTHORIZATION, folder_id="f")
    for shown in (repr(found), str(found), found.describe()):
        assert SECRET not in shown
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        pickle.dumps(found)


def test_a_client_shows_where_it_calls() -> None:
    with Client(credentials=SECRET, folder_id="f", metadata=AUTHORIZATION) as client:
        assert repr(client) == f"Client(folder_id='f', model='yandexgpt-lite', endpoint={SERVICE!r})"


def test_an_argument_that_was_not_given_says_so() -> None:
    assert repr(UNSET) == "UNSET"
