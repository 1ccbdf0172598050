"""What a client is set up with: every check of a client's arguments, and of the environment, stands here."""

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
"""Stands for an argument that was not given, where None means something."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a client was set up with, checked."""

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
        """Check the arguments of a client, and fill in from the environment what was not given.

        Raises:
            ConfigurationError: a value cannot be used, or a secret would go over plaintext.
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
        # Whoever points the client elsewhere (an emulator, a proxy) means all of the service, unless they say more.
        settings = cls(
            folder_id=_folder(folder_id),
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
            metadata=_sequence("metadata", metadata),
            channel_options=_sequence("channel_options", channel_options),
            interceptors=_sequence("interceptors", interceptors),
        )
        settings.check()
        return settings

    def with_options(self, changes: Mapping[str, Any]) -> Settings:
        """A copy with some arguments of a client changed.

        Raises:
            ConfigurationError: a value cannot be used.
            TypeError: there is no such argument.
        """
        merged: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("endpoint", "operation_endpoint", "iam_endpoint"):
            merged[name] = merged[name].target
        # What followed the endpoint before follows it to its new place.
        for name, default in (("operation_endpoint", OPERATION_ENDPOINT), ("iam_endpoint", IAM_ENDPOINT)):
            if merged[name] in (default, self.endpoint.target):
                merged[name] = None
        merged["tls"] = self.endpoint.tls
        if unknown := changes.keys() - merged.keys():
            raise TypeError(f"with_options() has no argument {', '.join(sorted(unknown))}")
        return Settings.resolve(**{**merged, **changes})

    def check(self) -> None:
        """Refuse what cannot work, before anything is sent."""
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
                places = operator.index(self.max_concurrency)
            except TypeError:
                places = 0
            if places < 1 or isinstance(self.max_concurrency, bool):
                raise ConfigurationError(
                    f"max_concurrency must be a whole number greater than 0, or None, got {self.max_concurrency!r}"
                )
        if not isinstance(self.credentials, NoCredentials) or carries_secret(self.metadata):
            self.check_encrypted()

    def check_encrypted(self) -> None:
        """Refuse to send a secret where others can read it.

        Raises:
            ConfigurationError: an endpoint that is not on this machine is called over plaintext.
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
        """Whatever a connection depends on: clients that agree in it can share one."""
        return (
            self.endpoint,
            self.operation_endpoint,
            self.iam_endpoint,
            self.channel_options,
            self.interceptors,
        )

    def describe(self) -> str:
        """For the ``repr`` of a client."""
        return f"folder_id={self.folder_id!r}, model={self.model!r}, endpoint={self.endpoint.target!r}"

    def call_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What every call of this client carries."""
        own: list[tuple[str, str | bytes]] = []
        if self.folder_id:
            own.append(("x-folder-id", self.folder_id))
        if not self.log_data:
            own.append(("x-data-logging-enabled", "false"))
        return (*own, *self.metadata)


def _sequence(name: str, value: Any) -> tuple[Any, ...]:
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
                return _folder(environ[name])
            except ConfigurationError as error:
                raise ConfigurationError(f"{name}: {error}") from error
    return None


def _folder(folder_id: str | None) -> str | None:
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
