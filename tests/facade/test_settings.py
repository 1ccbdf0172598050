"""Settings of a client: arguments, environment, and validation before anything is sent."""

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


def resolve(**arguments: Any) -> Settings:
    return Settings.resolve(**{**DEFAULTS, **arguments})


def refused(**arguments: Any) -> str:
    """The error message of rejected client arguments. It must not contain a secret."""
    with pytest.raises(ConfigurationError) as caught:
        Client(**{"credentials": SECRET, "folder_id": "f", **arguments})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


# Folder


def test_folder_argument_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YC_FOLDER_ID", "environment")
    assert resolve(folder_id=" given \n").folder_id == "given"


def test_folder_comes_from_the_first_variable_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve().folder_id is None
    for name in ("YANDEX_CLOUD_FOLDER", "FOLDER_ID", "YC_FOLDER_ID"):
        monkeypatch.setenv(name, f"from-{name}")
        assert resolve().folder_id == f"from-{name}"
    monkeypatch.setenv("YC_FOLDER_ID", "")
    assert resolve().folder_id == "from-FOLDER_ID"


@pytest.mark.parametrize("folder", ["", " ", "\n"])
def test_empty_folder_is_rejected(folder: str) -> None:
    assert "folder_id must not be empty" in refused(folder_id=folder)


@pytest.mark.parametrize("folder", ["a/b", "<folder>", "a@b", "a b", "каталог", "a\x7f"])
def test_invalid_folder_is_rejected(folder: str) -> None:
    words = refused(folder_id=folder)
    assert "folder_id must be the id of a folder" in words
    assert repr(folder) in words


def test_error_of_a_non_string_folder_does_not_call_it_empty() -> None:
    words = refused(folder_id=5)
    assert "folder_id" in words
    assert "5" in words
    assert "empty" not in words


def test_error_of_an_invalid_environment_variable_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER_ID", "a/b")
    with pytest.raises(ConfigurationError, match="FOLDER_ID"):
        resolve()


# Endpoints and TLS


def test_default_endpoints_are_those_of_the_service_over_tls() -> None:
    found = resolve()
    assert [str(found.endpoint), str(found.operation_endpoint), str(found.iam_endpoint)] == [SERVICE, OPERATIONS, IAM]
    assert found.endpoint.tls is True


def test_endpoint_applies_to_all_services() -> None:
    found = resolve(endpoint=" localhost:50051 ")
    assert {str(found.endpoint), str(found.operation_endpoint), str(found.iam_endpoint)} == {"localhost:50051"}


def test_other_endpoints_can_be_given_separately() -> None:
    found = resolve(endpoint="a:1", operation_endpoint="b:2", iam_endpoint="c:3")
    assert [str(found.endpoint), str(found.operation_endpoint), str(found.iam_endpoint)] == ["a:1", "b:2", "c:3"]
    assert str(resolve(iam_endpoint="c:3").endpoint) == SERVICE


def test_endpoints_can_be_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_tls_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, tls: bool) -> None:
    monkeypatch.setenv("YANDEXGPT_ENDPOINT", "localhost:1")
    monkeypatch.setenv("YANDEXGPT_TLS", value)
    assert resolve().endpoint.tls is bool(tls)


def test_tls_may_be_the_path_of_a_certificate_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    assert resolve(tls=bundle).endpoint.tls == str(bundle)
    assert resolve(tls=str(bundle)).iam_endpoint.tls == str(bundle)
    monkeypatch.setenv("YANDEXGPT_TLS", str(bundle))
    assert resolve().endpoint.tls == str(bundle)


@pytest.mark.parametrize("tls", ["", "/nowhere/ca.pem", Path("/nowhere/ca.pem"), "/"])
def test_missing_certificate_bundle_is_rejected(tls: Any) -> None:
    assert f"tls: there is no file {str(tls)!r}" in refused(tls=tls)


@pytest.mark.parametrize("tls", [0, 1, 5.0, b"ca.pem", ["ca.pem"]])
def test_tls_of_the_wrong_type_is_rejected(tls: Any) -> None:
    assert "tls" in refused(tls=tls, endpoint="localhost:1")


@pytest.mark.parametrize("name", ["endpoint", "operation_endpoint", "iam_endpoint"])
@pytest.mark.parametrize(
    "target",
    ["localhost", ":443", "host:", "host:0", "host:65536", "host:-1", "host:http", "https://host:443", " ", 5, b"h:1"],
)
def test_invalid_endpoint_is_rejected(name: str, target: Any) -> None:
    words = refused(**{name: target})
    assert words.startswith(f"{name} must be host:port, got ")


@pytest.mark.parametrize("target", ["::1:443", "[::1:443", "::1]:443"])
def test_ipv6_address_needs_brackets(target: str) -> None:
    assert "endpoint: an IPv6 address stands in brackets, [::1]:443; got" in refused(endpoint=target)


@pytest.mark.parametrize("target", ["host:²", "host:٣", "exa mple:443", "host/path:443", "user@host:443", "unix:"])
def test_malformed_endpoint_is_rejected(target: str) -> None:
    assert "endpoint" in refused(endpoint=target)


@pytest.mark.parametrize(
    "target", ["localhost:1", "127.0.0.1:65535", "[::1]:443", "unix:/tmp/socket", "a-b.example:443"]
)
def test_valid_endpoint_is_accepted(target: str) -> None:
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
def test_loopback_address_is_recognized(target: str) -> None:
    assert is_loopback(target)
    assert resolve(endpoint=target, tls=False).endpoint.tls is False


@pytest.mark.parametrize("target", ELSEWHERE)
def test_other_addresses_are_not_loopback(target: str) -> None:
    assert not is_loopback(target)


@given(st.integers(0, 2**32 - 1))
def test_only_ipv4_addresses_starting_with_127_are_loopback(address: int) -> None:
    host = ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))
    assert is_loopback(f"{host}:443") is (address >> 24 == 127)


@pytest.mark.parametrize("target", [target for target in ELSEWHERE if "@" not in target])
@pytest.mark.parametrize(
    "credentials", [SECRET, ApiKey(SECRET), IamToken(SECRET), MetadataService("127.0.0.1:1")], ids=lambda c: type(c)
)
def test_credentials_over_plaintext_to_a_remote_host_are_rejected(credentials: Any, target: str) -> None:
    words = refused(credentials=credentials, endpoint=target, tls=False)
    assert "tls=False would send the credential to endpoint" in words
    assert target in words


@pytest.mark.parametrize("name", ["endpoint", "operation_endpoint", "iam_endpoint"])
def test_credentials_over_plaintext_are_rejected_for_every_endpoint(name: str) -> None:
    endpoints = dict.fromkeys(("endpoint", "operation_endpoint", "iam_endpoint"), "localhost:1")
    words = refused(**{**endpoints, name: "llm.example:80"}, tls=False)
    assert f"tls=False would send the credential to {name} llm.example:80 unencrypted" in words


def test_plaintext_from_the_environment_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YANDEXGPT_ENDPOINT", "llm.example:80")
    monkeypatch.setenv("YANDEXGPT_TLS", "false")
    assert "unencrypted" in refused()


def test_plaintext_without_credentials_is_accepted_for_any_host() -> None:
    assert resolve(credentials=NoCredentials(), endpoint="proxy.example:80", tls=False).endpoint.tls is False


def test_secret_in_client_metadata_over_plaintext_is_rejected() -> None:
    words = refused(credentials=NoCredentials(), endpoint="llm.example:80", tls=False, metadata=AUTHORIZATION)
    assert "unencrypted" in words


def test_secret_in_call_metadata_over_plaintext_is_rejected() -> None:
    with (
        Client(credentials=NoCredentials(), folder_id="f", endpoint="192.0.2.1:80", tls=False) as client,
        pytest.raises(ConfigurationError, match="unencrypted") as caught,
    ):
        client.stream("a", metadata=AUTHORIZATION)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("options", [{"tls": False}, {"credentials": ApiKey(SECRET)}, {"metadata": AUTHORIZATION}])
def test_with_options_rejects_plaintext_to_a_remote_host(options: dict[str, Any]) -> None:
    start: dict[str, Any] = {"credentials": NoCredentials(), "tls": False}
    if "tls" in options:
        start = {"credentials": ApiKey(SECRET), "tls": True}
    with (
        Client(folder_id="f", endpoint="llm.example:80", **start) as client,
        pytest.raises(ConfigurationError, match="unencrypted"),
    ):
        client.with_options(**options)


# Other settings


def test_string_credentials_are_an_api_key() -> None:
    assert resolve(credentials=f" {SECRET}\n").credentials.header == f"Api-Key {SECRET}"


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(resolve(credentials=None).credentials, MetadataService)
    monkeypatch.setenv("IAM_TOKEN", "t1.token")
    assert resolve(credentials=None).credentials.header == "Bearer t1.token"
    assert resolve().credentials.header == f"Api-Key {SECRET}"


@pytest.mark.parametrize("credentials", [5, {"key": SECRET}, (SECRET,), lambda: SECRET, ApiKey])
def test_invalid_credentials_are_rejected_and_not_in_the_error(credentials: Any) -> None:
    words = refused(credentials=credentials)
    assert "credentials must be an API key as a str or an object of yandexgpt.credentials" in words
    assert type(credentials).__name__ in words


@pytest.mark.parametrize("name", ["timeout", "attempt_timeout"])
@pytest.mark.parametrize("value", [0, 0.0, -1, math.nan, math.inf, "60", True, [60]])
def test_invalid_timeout_is_rejected(name: str, value: Any) -> None:
    words = refused(**{name: value})
    assert words == f"{name} must be a number of seconds greater than 0, or None, got {value!r}"


@pytest.mark.parametrize("value", [None, 1, 0.001, 86400])
def test_positive_timeout_and_none_are_accepted(value: float | None) -> None:
    assert resolve(timeout=value, attempt_timeout=value).timeout == value
    check_seconds("timeout", value)


@pytest.mark.parametrize("value", [10**400, 1e300])
def test_too_large_timeout_is_rejected(value: float) -> None:
    assert "timeout" in refused(timeout=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, "10", [1], math.inf, True])
def test_max_concurrency_that_is_not_a_positive_integer_is_rejected(value: Any) -> None:
    words = refused(max_concurrency=value)
    assert words == f"max_concurrency must be a whole number greater than 0, or None, got {value!r}"


def test_invalid_model_is_rejected_by_the_constructor() -> None:
    assert "model must be a name, name/version or a URI" in refused(model="a b")
    assert "placeholder" in refused(model="gpt://<folder>/yandexgpt")
    assert resolve(model="yandexgpt").folder_id is None


@pytest.mark.parametrize("retry", [None, 4, {"attempts": 4}, Retry])
def test_invalid_retry_is_rejected(retry: Any) -> None:
    assert refused(retry=retry) == f"retry must be a yandexgpt.Retry, got {type(retry).__name__}"


@pytest.mark.parametrize("log_data", ["false", "no", None])
def test_data_logging_option_that_is_not_a_bool_is_rejected(log_data: Any) -> None:
    assert "log_data" in refused(log_data=log_data)


@pytest.mark.parametrize("name", ["metadata", "channel_options", "interceptors"])
@pytest.mark.parametrize("value", [5, None], ids=repr)
def test_error_of_a_non_sequence_argument_names_it(name: str, value: Any) -> None:
    assert name in refused(**{name: value})


@pytest.mark.parametrize("options", [{"grpc.a": 1}, ["grpc.a"], [("grpc.a",)], [(1, 2)]], ids=repr)
def test_channel_options_that_are_not_pairs_are_rejected(options: Any) -> None:
    assert "channel_options" in refused(channel_options=options)


def test_metadata_of_every_call_has_the_folder_and_the_data_logging_header() -> None:
    assert resolve().call_metadata() == ()
    assert resolve(folder_id="f", log_data=False, metadata=[("a", "b")]).call_metadata() == (
        ("x-folder-id", "f"),
        ("x-data-logging-enabled", "false"),
        ("a", "b"),
    )


def test_clients_with_equal_connection_settings_can_share_a_connection() -> None:
    assert resolve().connection_key == resolve(model="other", timeout=1, folder_id="f", credentials="k").connection_key
    assert resolve().connection_key != resolve(endpoint="a:1").connection_key
    assert resolve().connection_key != resolve(channel_options=[("grpc.a", 1)]).connection_key
    assert resolve(endpoint="localhost:1").connection_key != resolve(endpoint="localhost:1", tls=False).connection_key


# Metadata


def test_metadata_is_given_as_pairs() -> None:
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
def test_invalid_metadata_is_rejected_and_its_value_not_in_the_error(pair: Any, words: str) -> None:
    assert words in refused(metadata=[("ok", SECRET), pair])
    with pytest.raises(ValueError, match="metadata") as caught:
        check_metadata([pair])
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    with Client(credentials=SECRET, folder_id="f") as client:
        with pytest.raises(ValueError, match="metadata") as caught:
            client.stream("a", metadata=[pair])
        assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("kind", [dict, MappingProxyType])
def test_error_of_a_metadata_mapping_shows_the_required_form(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"metadata must be pairs .* pass metadata\.items\(\)"):
        check_metadata(kind({"a": "b"}))
    assert "metadata.items()" in refused(metadata=kind({"a": "b"}))


# with_options


def test_with_options_keeps_other_options(tmp_path: Path) -> None:
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


def test_with_options_validates_changed_options() -> None:
    found = resolve()
    with pytest.raises(ConfigurationError, match="timeout must be a number of seconds"):
        found.with_options({"timeout": -1})
    with pytest.raises(TypeError, match=r"with_options\(\) has no argument a, temperature"):
        found.with_options({"temperature": 1, "a": 2, "model": "b"})


def test_with_options_ignores_later_changes_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve(folder_id="f", endpoint="localhost:1", tls=False)
    monkeypatch.setenv("YC_FOLDER_ID", "other")
    monkeypatch.setenv("YANDEXGPT_ENDPOINT", "other:2")
    monkeypatch.setenv("YANDEXGPT_TLS", "1")
    assert found.with_options({"timeout": 1}).connection_key == found.connection_key
    assert found.with_options({"timeout": 1}).folder_id == "f"


def test_endpoint_given_to_with_options_applies_to_all_services() -> None:
    found = resolve(credentials=ApiKey(SECRET)).with_options({"endpoint": "localhost:50051", "tls": False})
    assert {str(found.endpoint), str(found.operation_endpoint), str(found.iam_endpoint)} == {"localhost:50051"}


def test_with_options_keeps_endpoints_that_were_given() -> None:
    found = resolve(endpoint="a:1", iam_endpoint="c:3").with_options({"endpoint": "d:4"})
    assert (str(found.endpoint), str(found.iam_endpoint)) == ("d:4", "c:3")


# repr


def test_repr_shows_no_secret() -> None:
    found = resolve(metadata=AUTHORIZATION, folder_id="f")
    for shown in (repr(found), str(found), found.describe()):
        assert SECRET not in shown
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        pickle.dumps(found)


def test_repr_shows_the_endpoint() -> None:
    with Client(credentials=SECRET, folder_id="f", metadata=AUTHORIZATION) as client:
        assert repr(client) == f"Client(folder_id='f', model='yandexgpt-lite', endpoint={SERVICE!r})"


def test_repr_of_the_default_marker() -> None:
    assert repr(UNSET) == "UNSET"
