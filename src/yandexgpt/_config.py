"""The settings of a client: checks of its arguments, and defaults from the environment."""

from __future__ import annotations

import dataclasses
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from yandexgpt._checks import Metadata, carries_secret, check_metadata, check_seconds
from yandexgpt._endpoint import ENDPOINT, IAM_ENDPOINT, OPERATION_ENDPOINT, Endpoint, is_loopback, parse_endpoint
from yandexgpt._request import model_uri
from yandexgpt._retry import Retry
from yandexgpt.credentials import ApiKey, Credentials, NoCredentials, from_env
from yandexgpt.errors import ConfigurationError

__all__ = ["UNSET", "Settings", "Unset"]

FOLDER_VARIABLES = ("YC_FOLDER_ID", "FOLDER_ID", "YANDEX_CLOUD_FOLDER")


class Unset:
    """The type of :data:`UNSET`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""The default of an argument for which None has another meaning: the argument was not given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The checked arguments of a client. Frozen."""

    folder_id: str | None
    credentials: Credentials
    model: str
    endpoint: Endpoint
    operation_endpoint: Endpoint
    iam_endpoint: Endpoint
    timeout: float | None
    attempt_timeout: float | None
    retry: Retry
    max_concurrency: int | None
    log_data: bool
    metadata: tuple[tuple[str, str | bytes], ...] = dataclasses.field(repr=False)
    channel_options: tuple[tuple[str, Any], ...] = dataclasses.field(repr=False)
    interceptors: tuple[Any, ...]

    @classmethod
    def resolve(
        cls,
        *,
        folder_id: str | None,
        credentials: Credentials | str | None,
        model: str,
        endpoint: str | None,
        operation_endpoint: str | None,
        iam_endpoint: str | None,
        tls: bool | str | os.PathLike[str] | None,
        timeout: float | None,
        attempt_timeout: float | None,
        retry: Retry,
        max_concurrency: int | None,
        log_data: bool,
        metadata: Metadata,
        channel_options: Sequence[tuple[str, Any]],
        interceptors: Sequence[Any],
    ) -> Settings:
        """Check the arguments of a client, and read those that are None from the environment.

        Args:
            as for ``Client``.

        Raises:
            ConfigurationError: a value cannot be used, or a secret would be sent over plaintext.
        """
        environ = os.environ
        if folder_id is None:
            folder_id = _folder_from_env(environ)
        if endpoint is None:
            endpoint = environ.get("YANDEXGPT_ENDPOINT") or None
        if tls is None:
            tls = _tls_from_env(environ)
        elif not isinstance(tls, bool):
            if not isinstance(tls, str | os.PathLike):
                raise ConfigurationError(f"tls must be True, False or the path of a PEM bundle, got {tls!r}")
            tls = os.fspath(tls)
        if isinstance(tls, str) and not Path(tls).is_file():
            raise ConfigurationError(f"tls: there is no file {tls!r} (True, False or the path of a PEM bundle)")
        if credentials is None:
            credentials = from_env()
        elif isinstance(credentials, str):
            credentials = ApiKey(credentials)
        elif not isinstance(credentials, Credentials):
            raise ConfigurationError(
                "credentials must be an API key as a str or an object of yandexgpt.credentials, got "
                f"{type(credentials).__name__}"
            )
        # One endpoint (an emulator, a proxy) serves operations and tokens too, unless they have endpoints of their own.
        settings = cls(
            folder_id=_check_folder_id(folder_id),
            credentials=credentials,
            model=model,
            endpoint=parse_endpoint("endpoint", endpoint or ENDPOINT, tls),
            operation_endpoint=parse_endpoint(
                "operation_endpoint", operation_endpoint or endpoint or OPERATION_ENDPOINT, tls
            ),
            iam_endpoint=parse_endpoint("iam_endpoint", iam_endpoint or endpoint or IAM_ENDPOINT, tls),
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            retry=retry,
            max_concurrency=max_concurrency,
            log_data=log_data,
            metadata=_to_tuple("metadata", metadata),
            channel_options=_to_tuple("channel_options", channel_options),
            interceptors=_to_tuple("interceptors", interceptors),
        )
        settings.check()
        return settings

    def with_options(self, changes: Mapping[str, Any]) -> Settings:
        """A copy with some arguments changed.

        Args:
            changes: arguments of ``Client``, by name.

        Raises:
            ConfigurationError: a value cannot be used.
            TypeError: there is no such argument.
        """
        merged: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("endpoint", "operation_endpoint", "iam_endpoint"):
            merged[name] = merged[name].target
        # An endpoint that was derived from `endpoint`, or is the default, is derived from the new `endpoint`.
        for name, default in (("operation_endpoint", OPERATION_ENDPOINT), ("iam_endpoint", IAM_ENDPOINT)):
            if merged[name] in (default, self.endpoint.target):
                merged[name] = None
        merged["tls"] = self.endpoint.tls
        if unknown := changes.keys() - merged.keys():
            raise TypeError(f"with_options() has no argument {', '.join(sorted(unknown))}")
        return Settings.resolve(**{**merged, **changes})

    def check(self) -> None:
        """Refuse values that cannot be used, before anything is sent.

        Raises:
            ConfigurationError: a value cannot be used, or a secret would be sent over plaintext.
        """
        try:
            model_uri(self.model, self.folder_id or "any")
            check_seconds("timeout", self.timeout)
            check_seconds("attempt_timeout", self.attempt_timeout)
            check_metadata(self.metadata)
        except ConfigurationError:
            raise
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        if not isinstance(self.log_data, bool):
            raise ConfigurationError(f"log_data must be True or False, got {self.log_data!r}")
        for option in self.channel_options:
            if not (isinstance(option, tuple) and len(option) == 2 and isinstance(option[0], str)):
                raise ConfigurationError("channel_options must be pairs of name and value")
        if not isinstance(self.retry, Retry):
            raise ConfigurationError(f"retry must be a yandexgpt.Retry, got {type(self.retry).__name__}")
        if self.max_concurrency is not None:
            try:
                limit = operator.index(self.max_concurrency)
            except TypeError:
                limit = 0
            if limit < 1 or isinstance(self.max_concurrency, bool):
                raise ConfigurationError(
                    f"max_concurrency must be a whole number greater than 0, or None, got {self.max_concurrency!r}"
                )
        if not isinstance(self.credentials, NoCredentials) or carries_secret(self.metadata):
            self.check_encrypted()

    def check_encrypted(self) -> None:
        """Refuse to send a secret over plaintext to another machine.

        Raises:
            ConfigurationError: TLS is off, and an endpoint is not a loopback address.
        """
        for name in ("endpoint", "operation_endpoint", "iam_endpoint"):
            endpoint: Endpoint = getattr(self, name)
            if endpoint.tls is False and not is_loopback(endpoint.target):
                raise ConfigurationError(
                    f"tls=False would send the credential to {name} {endpoint} unencrypted; plaintext is for "
                    "loopback addresses only"
                )

    @property
    def connection_key(self) -> tuple[Any, ...]:
        """The settings that a connection depends on: clients with equal keys can share one."""
        return (
            self.endpoint,
            self.operation_endpoint,
            self.iam_endpoint,
            self.channel_options,
            self.interceptors,
        )

    def describe(self) -> str:
        """The settings in the ``repr`` of a client."""
        return f"folder_id={self.folder_id!r}, model={self.model!r}, endpoint={self.endpoint.target!r}"

    def call_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The metadata of every call, without ``authorization`` and the ids of the call."""
        pairs: list[tuple[str, str | bytes]] = []
        if self.folder_id:
            pairs.append(("x-folder-id", self.folder_id))
        if not self.log_data:
            pairs.append(("x-data-logging-enabled", "false"))
        return (*pairs, *self.metadata)


def _to_tuple(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, Mapping):
        raise ConfigurationError(f"{name} must be pairs, got a mapping: pass {name}.items()")
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} must be a sequence, got {type(value).__name__}")
    return tuple(value)


def _tls_from_env(environ: Mapping[str, str]) -> bool | str:
    value = environ.get("YANDEXGPT_TLS", "").strip()
    if value.lower() in ("", "1", "true", "yes", "on"):
        return True
    if value.lower() in ("0", "false", "no", "off"):
        return False
    return value


def _folder_from_env(environ: Mapping[str, str]) -> str | None:
    for name in FOLDER_VARIABLES:
        if environ.get(name):
            try:
                return _check_folder_id(environ[name])
            except ConfigurationError as error:
                raise ConfigurationError(f"{name}: {error}") from error
    return None


def _check_folder_id(folder_id: str | None) -> str | None:
    if folder_id is None:
        return None
    if not isinstance(folder_id, str):
        raise ConfigurationError(f"folder_id must be a str, got {folder_id!r}")
    if not (folder_id := folder_id.strip()):
        raise ConfigurationError("folder_id must not be empty")
    if not re.fullmatch(r"[!-~]+", folder_id) or any(character in "/<>@" for character in folder_id):
        raise ConfigurationError(
            f"folder_id must be the id of a folder, such as b1g0123456789abcdefg, got {folder_id!r}"
        )
    return folder_id
