"""Credentials: the sources of the ``authorization`` of a call.

A token that expires is refreshed before it expires; concurrent callers share one refresh
(``_concurrency/token_cache.py``). No ``repr`` and no error shows a secret, and credentials cannot be pickled.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from yandexgpt._checks import check_seconds, check_secret
from yandexgpt._concurrency.token_cache import ExpiringToken, TokenCache
from yandexgpt.errors import APIError, AuthenticationError, ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = [
    "ApiKey",
    "Credentials",
    "ExpiringToken",
    "IamToken",
    "MetadataService",
    "NoCredentials",
    "OAuthToken",
    "ServiceAccountKey",
    "TokenProvider",
    "YcCli",
    "from_env",
]

_METADATA_VARIABLE = "YC_METADATA_ADDR"

_JWT_AUDIENCE = "https://iam.api.cloud.yandex.net/iam/v1/tokens"
_JWT_LIFETIME = 3600  # seconds; the longest lifetime that the token service accepts
_METADATA_ADDRESS = "169.254.169.254"
_METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
_METADATA_ANSWER_LIMIT = 65_536  # bytes; an answer with a token has about a thousand


class Exchange(Protocol):
    """The call that exchanges a JWT or an OAuth token for an IAM token; the client provides it."""

    def __call__(self, *, jwt: str = "", oauth_token: str = "") -> ExpiringToken: ...


class Credentials(ABC):
    """Base of all credentials. An object may be shared between clients, threads and event loops."""

    header: str | None = None
    """The value of ``authorization`` if it never changes; None if it is made from a token that expires."""

    def __init__(self) -> None:
        self.token_cache = TokenCache()

    @abstractmethod
    def fetch(self, exchange: Exchange) -> ExpiringToken:
        """Get a new IAM token. Blocks; called in a separate thread, by one refresh at a time.

        Args:
            exchange: the call that exchanges a JWT or an OAuth token for an IAM token.

        Raises:
            APIError, ConfigurationError: no token could be obtained; the message has the reason.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be pickled or copied: it holds a secret")


class _FixedCredentials(Credentials):
    """Credentials that never change."""

    def fetch(self, exchange: Exchange) -> NoReturn:
        raise NotImplementedError("fixed credentials have no token to fetch")


class ApiKey(_FixedCredentials):
    """An API key of a service account. The client cannot see when it expires.

    Args:
        key: the secret of the key.

    Raises:
        ConfigurationError: it is empty, or holds characters that gRPC metadata cannot carry.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.header = f"Api-Key {check_secret(key, 'the API key')}"


class IamToken(_FixedCredentials):
    """An IAM token. It is valid for 12 hours at most, and is not refreshed.

    Args:
        token: the token.

    Raises:
        ConfigurationError: it is empty, or holds characters that gRPC metadata cannot carry.
    """

    def __init__(self, token: str) -> None:
        super().__init__()
        self.header = f"Bearer {check_secret(token, 'the IAM token')}"


class NoCredentials(_FixedCredentials):
    """No ``authorization`` is sent: for a proxy that adds it."""

    header = ""


class OAuthToken(Credentials):
    """An OAuth token of a user, exchanged for IAM tokens.

    Args:
        token: the OAuth token.

    Raises:
        ConfigurationError: it is empty, or holds characters that gRPC metadata cannot carry.
    """

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = check_secret(token, "the OAuth token")

    def fetch(self, exchange: Exchange) -> ExpiringToken:
        return exchange(oauth_token=self._token)


class ServiceAccountKey(Credentials):
    """An authorized key of a service account, exchanged for IAM tokens. Needs the extra ``yandexgpt[auth]``.

    Args:
        source: path of the JSON file, or its content as a mapping.

    Raises:
        ConfigurationError: the file cannot be read, a field is missing, the private key is not an RSA key in PEM form,
            or the extra is not installed. The message names the file and the field.
    """

    def __init__(self, source: str | os.PathLike[str] | Mapping[str, Any]) -> None:
        super().__init__()
        where, data = _load_key(source)
        for field in ("id", "service_account_id", "private_key"):
            if not isinstance(data.get(field), str) or not data[field]:
                raise ConfigurationError(f"{where}: the field {field!r} is missing or is not a string")
        self._key_id = data["id"]
        self._account_id = data["service_account_id"]
        self._private_key = _load_private_key(data["private_key"], where)

    def fetch(self, exchange: Exchange) -> ExpiringToken:
        import jwt

        now = int(time.time())
        claims = {
            "iss": self._account_id,
            "aud": _JWT_AUDIENCE,
            "iat": now,
            "exp": now + _JWT_LIFETIME,
        }
        return exchange(jwt=jwt.encode(claims, self._private_key, algorithm="PS256", headers={"kid": self._key_id}))


class MetadataService(Credentials):
    """The service account that is attached to this virtual machine, through the metadata service of the cloud.

    Args:
        address: ``host`` or ``host:port`` of the metadata service; by default ``YC_METADATA_ADDR``, else
            ``169.254.169.254``.
        timeout: seconds for one exchange (> 0), over all addresses of the host. A failed exchange is retried by the
            client's ``retry``. The name lookup is not included: the system has its own timeouts for it.

    Raises:
        ValueError: ``timeout`` is not a number of seconds greater than 0.
    """

    def __init__(self, address: str | None = None, *, timeout: float = 5.0) -> None:
        super().__init__()
        check_seconds("timeout", timeout)
        self._address = address or os.environ.get(_METADATA_VARIABLE) or _METADATA_ADDRESS
        self._timeout = timeout

    def fetch(self, exchange: Exchange) -> ExpiringToken:  # noqa: ARG002
        import http.client

        from yandexgpt._deadline_http import DeadlineConnection

        host, http_error = f"metadata service at {self._address}", ""
        try:
            with contextlib.closing(DeadlineConnection(self._address, timeout=self._timeout)) as connection:
                connection.request("GET", _METADATA_PATH, headers={"Metadata-Flavor": "Google"})
                response = connection.getresponse()
                body = response.read(_METADATA_ANSWER_LIMIT)
        except (http.client.InvalidURL, UnicodeError) as error:
            raise ConfigurationError(f"the address of the {host} must be host or host:port") from error
        except http.client.HTTPException as error:
            http_error = f"{type(error).__name__}: {error}"  # raised below, without its cause: that may hold a token
        except OSError as error:
            raise _token_error(UnavailableError, f"the {host} did not answer: {error}", self._address) from error
        if http_error:
            raise _token_error(UnavailableError, f"the {host} did not answer: {http_error}", self._address)
        if response.status >= 500:
            raise _token_error(UnavailableError, f"the {host} answered {response.status}", self._address)
        if response.status != 200:
            raise _token_error(
                AuthenticationError,
                f"the {host} answered {response.status} (has this machine a service account?)",
                self._address,
            )
        try:
            answer = json.loads(body)
            return ExpiringToken(
                check_secret(answer["access_token"], "the token"), lifetime=float(answer["expires_in"])
            )
        except (ValueError, KeyError, TypeError):
            pass  # raised below, without its cause: that holds the answer, which may hold a token
        raise _token_error(UnavailableError, f"the {host} gave an answer that is not a token", self._address)

    def __repr__(self) -> str:
        return f"MetadataService({self._address!r})"


class YcCli(Credentials):
    """The IAM token that the command line tool prints: ``yc iam create-token``.

    Args:
        command: the name or path of the tool.
        profile: its profile; by default the active profile.
        timeout: seconds for one run of the tool (> 0).

    Raises:
        ValueError: ``timeout`` is not a number of seconds greater than 0.
    """

    def __init__(self, command: str = "yc", *, profile: str | None = None, timeout: float = 30.0) -> None:
        super().__init__()
        check_seconds("timeout", timeout)
        self._arguments = [os.fspath(command), "iam", "create-token", *(["--profile", profile] if profile else [])]
        self._timeout = timeout

    def fetch(self, exchange: Exchange) -> ExpiringToken:  # noqa: ARG002
        shown = " ".join(self._arguments)
        try:
            done = subprocess.run(  # noqa: S603  (the command is the user's own)
                self._arguments,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self._timeout,
                check=False,
            )
        except OSError as error:
            raise ConfigurationError(f"`{shown}` cannot be run: {error.strerror or error}") from error
        except subprocess.TimeoutExpired:
            done = None  # raised below, without its cause: that holds the output of the tool
        if done is None:
            raise _token_error(UnavailableError, f"`{shown}` did not finish within {self._timeout} s", None)
        if done.returncode != 0:
            words = " ".join(done.stderr.split()) or "it printed nothing to standard error"
            raise _token_error(AuthenticationError, f"`{shown}` failed with exit code {done.returncode}: {words}", None)
        return ExpiringToken(check_secret(done.stdout, f"what `{shown}` printed"))


class TokenProvider(Credentials):
    """A function of the application that returns an IAM token.

    Args:
        provider: called without arguments, in a separate thread: for the first token, then about once an hour or before
            the token expires, and after the service refused a token. It returns the token as a ``str``, or an
            :class:`ExpiringToken` with its lifetime; it may be a coroutine function.

    Raises:
        ConfigurationError: ``provider`` is not callable.
    """

    def __init__(self, provider: Callable[[], str | ExpiringToken | Awaitable[str | ExpiringToken]]) -> None:
        super().__init__()
        if not callable(provider):
            raise ConfigurationError(f"TokenProvider needs a function, got {type(provider).__name__}")
        self._provider = provider

    def fetch(self, exchange: Exchange) -> ExpiringToken:  # noqa: ARG002
        token = self._provider()
        if inspect.isawaitable(token):
            received: list[str | ExpiringToken] = []
            asyncio.run(_append_result(token, received))
            (token,) = received
        if isinstance(token, ExpiringToken):
            return ExpiringToken(check_secret(token.value, "the provider's token"), lifetime=token.lifetime)
        return ExpiringToken(check_secret(token, "the provider's token"))


class _EnvironmentFallback(MetadataService):
    """The fallback of :func:`from_env`. If it fails, the error lists the variables that were not set."""

    def fetch(self, exchange: Exchange) -> ExpiringToken:
        try:
            return super().fetch(exchange)
        except (APIError, ConfigurationError) as error:
            raise ConfigurationError(
                f"no credentials: pass credentials=..., or set one of {', '.join(_CREDENTIAL_VARIABLES)}; none of them "
                f"is set, and {getattr(error, 'message', error)}"
            ) from error


def _iam_or_oauth_token(token: str) -> Credentials:
    return IamToken(token) if token.strip().startswith("t1.") else OAuthToken(token)


_CREDENTIAL_VARIABLES: dict[str, Callable[[str], Credentials]] = {
    "YC_API_KEY": ApiKey,
    "YANDEX_CLOUD_API_KEY": ApiKey,
    "YC_IAM_TOKEN": IamToken,
    "YC_SERVICE_ACCOUNT_KEY_FILE": ServiceAccountKey,
    "YC_OAUTH_TOKEN": OAuthToken,
    "YC_TOKEN": _iam_or_oauth_token,
    # Other tools use these names too, perhaps for another service: so they come last.
    "IAM_TOKEN": IamToken,
    "API_KEY": ApiKey,
}
"""The kind of credentials in each variable, in the order in which the variables are read."""


def from_env(environ: Mapping[str, str] | None = None) -> Credentials:
    """Credentials from the environment. The first variable that is set is used; an empty variable counts as not set.

    The order: ``YC_API_KEY``, ``YANDEX_CLOUD_API_KEY``; ``YC_IAM_TOKEN``; ``YC_SERVICE_ACCOUNT_KEY_FILE``;
    ``YC_OAUTH_TOKEN``; ``YC_TOKEN`` (an IAM or an OAuth token); then ``IAM_TOKEN`` and ``API_KEY``, which other tools
    use too. If none is set, the metadata service is called for the first token. If it does not answer, that call raises
    a ``ConfigurationError`` which lists all variables.

    Args:
        environ: the variables; by default those of this process.

    Raises:
        ConfigurationError: the value of a variable cannot be used.
    """
    environ = os.environ if environ is None else environ
    for name, kind in _CREDENTIAL_VARIABLES.items():
        if value := environ.get(name):
            try:
                return kind(value)
            except ConfigurationError as error:
                raise ConfigurationError(f"{name}: {error}") from error
    return _EnvironmentFallback(environ.get(_METADATA_VARIABLE))


async def _append_result(token: Awaitable[str | ExpiringToken], received: list[str | ExpiringToken]) -> None:
    received.append(await token)  # not returned: asyncio's debug mode logs the results of tasks, and this is a secret


def _token_error(error: type[APIError], message: str, endpoint: str | None) -> APIError:
    import grpc

    code = grpc.StatusCode.UNAVAILABLE if error is UnavailableError else grpc.StatusCode.UNAUTHENTICATED
    return error(message, code=code, endpoint=endpoint)


def _load_key(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(source, Mapping):
        return "service account key", source
    where = f"service account key file {os.fspath(source)}"
    unread = data = object()
    try:
        data = json.loads(Path(source).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{where}: cannot be read: {error.strerror or error}") from error
    except ValueError:
        pass  # raised below, without its cause: that holds the document, which holds the key
    if data is unread:
        raise ConfigurationError(f"{where}: is not a JSON file")
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where}: must hold a JSON object with id, service_account_id and private_key")
    return where, data


def _load_private_key(text: str, where: str) -> RSAPrivateKey:
    try:
        import jwt  # noqa: F401  (it signs later; if it is not installed, the constructor must fail)
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise ConfigurationError(
            "service account keys need PyJWT and cryptography: pip install 'yandexgpt[auth]'"
        ) from error
    start = text.find("-----BEGIN")  # the file may have a line of warning text before the PEM block
    if start < 0:
        raise ConfigurationError(f"{where}: the field 'private_key' holds no PEM block (-----BEGIN PRIVATE KEY-----)")
    try:
        key = load_pem_private_key(text[start:].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{where}: the field 'private_key' is not a PEM private key") from None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError(f"{where}: the field 'private_key' is not an RSA key, which PS256 needs")
    return key
