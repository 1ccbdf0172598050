"""What a client is set up with: every check of a client's arguments, and of the environment, stands here."""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from yandexgpt.credentials import ApiKey, Credentials, NoCredentials, from_env
from yandexgpt.errors import ConfigurationError
from yandexgpt.request import model_uri
from yandexgpt.retry import Retry

__all__ = ["UNSET", "Endpoint", "Metadata", "Settings", "Unset", "check_metadata", "check_seconds", "is_loopback"]

ENDPOINT = "llm.api.cloud.yandex.net:443"
OPERATION_ENDPOINT = "operation.api.cloud.yandex.net:443"
IAM_ENDPOINT = "iam.api.cloud.yandex.net:443"
FOLDER_VARIABLES = ("YC_FOLDER_ID", "FOLDER_ID", "YANDEX_CLOUD_FOLDER")

Metadata = Sequence[tuple[str, str | bytes]]
"""Metadata of a call, as gRPC takes it: pairs of a lower-case key and a value."""


class Unset:
    """The type of :data:`UNSET`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""Stands for an argument that was not given, where None means something."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where to call, and how: ``host:port`` and TLS."""

    target: str
    tls: bool | str

    def __str__(self) -> str:
        return self.target


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
    metadata: tuple[tuple[str, str | bytes], ...]
    channel_options: tuple[tuple[str, Any], ...]
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
            folder_id = next((environ[name] for name in FOLDER_VARIABLES if environ.get(name)), None)
        if endpoint is None:
            endpoint = environ.get("YANDEXGPT_ENDPOINT") or None
        if tls is None:
            tls = _tls_from_env(environ)
        elif not isinstance(tls, bool):
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
            endpoint=_endpoint("endpoint", endpoint or ENDPOINT, tls),
            operation_endpoint=_endpoint(
                "operation_endpoint", operation_endpoint or endpoint or OPERATION_ENDPOINT, tls
            ),
            iam_endpoint=_endpoint("iam_endpoint", iam_endpoint or endpoint or IAM_ENDPOINT, tls),
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            retry=retry,
            max_concurrency=max_concurrency,
            log_data=log_data,
            metadata=tuple(metadata),
            channel_options=tuple(channel_options),
            interceptors=tuple(interceptors),
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
        if not isinstance(self.retry, Retry):
            raise ConfigurationError(f"retry must be a yandexgpt.Retry, got {type(self.retry).__name__}")
        if self.max_concurrency is not None:
            try:
                places = operator.index(self.max_concurrency)
            except TypeError:
                places = 0
            if places < 1:
                raise ConfigurationError(
                    f"max_concurrency must be a whole number greater than 0, or None, got {self.max_concurrency!r}"
                )
        secret = not isinstance(self.credentials, NoCredentials) or any(
            key == "authorization" for key, _ in self.metadata
        )
        if secret:
            for name in ("endpoint", "operation_endpoint", "iam_endpoint"):
                endpoint: Endpoint = getattr(self, name)
                if endpoint.tls is False and not is_loopback(endpoint.target):
                    raise ConfigurationError(
                        f"tls=False would send the credential to {name} {endpoint} unencrypted; plaintext is for "
                        "loopback addresses only"
                    )

    @property
    def connection(self) -> tuple[Any, ...]:
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


def check_seconds(name: str, value: float | None) -> None:
    """Refuse what is not a time span: a finite number of seconds greater than 0, or None.

    Raises:
        ValueError: it is none of these.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds greater than 0, or None, got {value!r}")


_METADATA_KEY = re.compile(r"[a-z0-9_.-]+")


def check_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata as gRPC carries it. Values are not shown in errors: one may be a secret.

    Raises:
        ValueError: a key or a value that gRPC cannot carry.
    """
    if isinstance(metadata, Mapping):
        raise ValueError("metadata must be pairs of key and value, got a mapping: pass metadata.items()")
    pairs = tuple(metadata)
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise ValueError("metadata must be pairs of key and value")
        key, value = pair
        if not isinstance(key, str) or not _METADATA_KEY.fullmatch(key):
            raise ValueError(f"metadata key {key!r} may hold lower-case letters, digits and _ . - only")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ValueError(f"metadata value of {key!r} must be bytes, got {type(value).__name__}")
        elif not isinstance(value, str) or not all(" " <= character <= "~" for character in value):
            raise ValueError(f"metadata value of {key!r} must be a str of printable ASCII")
    return pairs


def _tls_from_env(environ: Mapping[str, str]) -> bool | str:
    value = environ.get("YANDEXGPT_TLS", "").strip()
    if value.lower() in ("", "1", "true", "yes", "on"):
        return True
    if value.lower() in ("0", "false", "no", "off"):
        return False
    return value


def _folder(folder_id: str | None) -> str | None:
    if folder_id is None:
        return None
    if not isinstance(folder_id, str) or not (folder_id := folder_id.strip()):
        raise ConfigurationError("folder_id must not be empty")
    if not re.fullmatch(r"[!-~]+", folder_id) or any(character in "/<>@" for character in folder_id):
        raise ConfigurationError(
            f"folder_id must be the id of a folder, such as b1g0123456789abcdefg, got {folder_id!r}"
        )
    return folder_id


def _endpoint(name: str, target: str, tls: bool | str) -> Endpoint:
    if not isinstance(target, str):
        raise ConfigurationError(f"{name} must be host:port, got {target!r}")
    target = target.strip()
    if target.startswith("unix:"):
        return Endpoint(target, tls)
    host, colon, port = target.rpartition(":")
    if "://" in target or not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"{name} must be host:port, got {target!r}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigurationError(f"{name}: an IPv6 address stands in brackets, [::1]:443; got {target!r}")
    return Endpoint(target, tls)


def is_loopback(target: str) -> bool:
    """Whether what is sent to ``host:port`` or ``unix:path`` stays on this machine."""
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
