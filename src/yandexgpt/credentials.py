"""Where the ``authorization`` of a call comes from.

Tokens that end are refreshed ahead of their end, by one caller for all (``_concurrency/token_cache.py``). Nothing here
shows a secret: not in a ``repr``, not in an error; and credentials cannot be pickled.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import socket
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
_JWT_LIFETIME = 3600  # seconds; the issuer accepts no longer one
_METADATA_ADDRESS = "169.254.169.254"
_METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
_METADATA_ANSWER_LIMIT = 65_536  # bytes; a token is about a thousand


class Exchange(Protocol):
    """The call that turns a proof of identity into an IAM token; the client supplies it."""

    def __call__(self, *, jwt: str = "", oauth_token: str = "") -> ExpiringToken: ...


class Credentials(ABC):
    """Base of all kinds of credentials. They may be shared between clients, threads and event loops."""

    header: str | None = None
    """The value of ``authorization`` where it never changes; None where it comes from a token that does."""

    def __init__(self) -> None:
        self.token_cache = TokenCache()

    @abstractmethod
    def fetch(self, exchange: Exchange) -> ExpiringToken:
        """Get a new IAM token; blocks. Called from a thread of its own, by one caller for all.

        Raises:
            APIError, ConfigurationError: there is none to be had; the message says why.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be pickled or copied: it holds a secret")


class _Fixed(Credentials):
    """Credentials that never change."""

    def fetch(self, exchange: Exchange) -> NoReturn:
        raise NotImplementedError("fixed credentials have no token to fetch")


class ApiKey(_Fixed):
    """An API key of a service account. It has no end that the client can see.

    Raises:
        ConfigurationError: it is empty, or holds characters that gRPC metadata cannot carry.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.header = f"Api-Key {check_secret(key, 'the API key')}"


class IamToken(_Fixed):
    """An IAM token that was got elsewhere; it lives 12 hours at most and is not refreshed.

    Raises:
        ConfigurationError: it is empty, or holds characters that gRPC metadata cannot carry.
    """

    def __init__(self, token: str) -> None:
        super().__init__()
        self.header = f"Bearer {check_secret(token, 'the IAM token')}"


class NoCredentials(_Fixed):
    """Send no ``authorization`` at all: for a proxy that adds its own."""

    header = ""


class OAuthToken(Credentials):
    """An OAuth token of a user, exchanged for IAM tokens.

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
        ConfigurationError: the file cannot be read, a field is missing, or the private key is not one; the message
            names the file and the field.
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
    """The service account of the cloud machine that this runs on.

    Args:
        address: ``host`` or ``host:port`` of the metadata service; by default `YC_METADATA_ADDR`, else the cloud's.
        timeout: seconds that one exchange may take (> 0), however many addresses a host has; one that failed is tried
            again as the client's ``retry`` says. Looking addresses up by
            name is not counted: the system has times of its own for it.
    """

    def __init__(self, address: str | None = None, *, timeout: float = 5.0) -> None:
        super().__init__()
        check_seconds("timeout", timeout)
        self._address = address or os.environ.get(_METADATA_VARIABLE) or _METADATA_ADDRESS
        self._timeout = timeout

    def fetch(self, exchange: Exchange) -> ExpiringToken:  # noqa: ARG002
        import http.client

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock = _connected(self.host, self.port, self.timeout or 0.0)

        host, why = f"metadata service at {self._address}", ""
        try:
            with contextlib.closing(Connection(self._address, timeout=self._timeout)) as connection:
                connection.request("GET", _METADATA_PATH, headers={"Metadata-Flavor": "Google"})
                response = connection.getresponse()
                body = response.read(_METADATA_ANSWER_LIMIT)
        except (http.client.InvalidURL, UnicodeError) as error:
            raise ConfigurationError(f"the address of the {host} must be host or host:port") from error
        except http.client.HTTPException as error:
            why = f"{type(error).__name__}: {error}"  # raised below: the error may hold a part of a token
        except OSError as error:
            raise _failed(UnavailableError, f"the {host} did not answer: {error}", self._address) from error
        if why:
            raise _failed(UnavailableError, f"the {host} did not answer: {why}", self._address)
        if response.status >= 500:
            raise _failed(UnavailableError, f"the {host} answered {response.status}", self._address)
        if response.status != 200:
            raise _failed(
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
            pass  # raised below: the error holds the answer, and the answer may hold a token
        raise _failed(UnavailableError, f"the {host} gave an answer that is not a token", self._address)

    def __repr__(self) -> str:
        return f"MetadataService({self._address!r})"


class _BoundedSocket(socket.socket):
    """A socket that has a moment at which everything on it ends, and not a time for each operation anew."""

    ends_at = 0.0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.hurry()
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self.hurry()
        super().sendall(*args, **kwargs)

    def hurry(self) -> None:
        """Give the next operation the time that is left.

        Raises:
            TimeoutError: there is none.
        """
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)


def _connected(host: str, port: int, timeout: float) -> _BoundedSocket:
    """A connection to the first address of the host that answers, all within the same time."""
    ends_at: float | None = None
    failure = OSError("it has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        ends_at = time.monotonic() + timeout if ends_at is None else ends_at
        connection = _BoundedSocket(family, kind, protocol)
        connection.ends_at = ends_at
        try:
            connection.hurry()
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


class YcCli(Credentials):
    """What the command line tool prints on ``yc iam create-token``.

    Args:
        command: the tool, by name or path.
        profile: its profile; by default the active one.
        timeout: seconds that it may take (> 0).
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
            done = None  # raised below: the exception holds what the tool had printed
        if done is None:
            raise _failed(UnavailableError, f"`{shown}` did not finish within {self._timeout} s", None)
        if done.returncode != 0:
            words = " ".join(done.stderr.split()) or "it printed nothing to standard error"
            raise _failed(AuthenticationError, f"`{shown}` failed with exit code {done.returncode}: {words}", None)
        return ExpiringToken(check_secret(done.stdout, f"what `{shown}` printed"))


class TokenProvider(Credentials):
    """A function of yours that returns an IAM token.

    Args:
        provider: called without arguments, from a thread of its own, when a token is needed: at first, about once an
            hour or ahead of the token's end, and after the service refused one. It returns the token as a ``str``, or
            a :class:`ExpiringToken` with its lifetime; it may be a coroutine function.
    """

    def __init__(self, provider: Callable[[], str | ExpiringToken | Awaitable[str | ExpiringToken]]) -> None:
        super().__init__()
        if not callable(provider):
            raise ConfigurationError(f"TokenProvider needs a function, got {type(provider).__name__}")
        self._provider = provider

    def fetch(self, exchange: Exchange) -> ExpiringToken:  # noqa: ARG002
        token = self._provider()
        if inspect.isawaitable(token):
            got: list[str | ExpiringToken] = []
            asyncio.run(_wait_for(token, got))
            (token,) = got
        if isinstance(token, ExpiringToken):
            return ExpiringToken(check_secret(token.value, "the provider's token"), lifetime=token.lifetime)
        return ExpiringToken(check_secret(token, "the provider's token"))


class _FromEnvironment(MetadataService):
    """The last resort of :func:`from_env`: if it fails, the error says all that was looked for."""

    def fetch(self, exchange: Exchange) -> ExpiringToken:
        try:
            return super().fetch(exchange)
        except (APIError, ConfigurationError) as error:
            raise ConfigurationError(
                f"no credentials: pass credentials=..., or set one of {', '.join(_KINDS)}; none of them is set, and "
                f"{getattr(error, 'message', error)}"
            ) from error


def _token_of_either_kind(token: str) -> Credentials:
    return IamToken(token) if token.strip().startswith("t1.") else OAuthToken(token)


_KINDS: dict[str, Callable[[str], Credentials]] = {
    "YC_API_KEY": ApiKey,
    "YANDEX_CLOUD_API_KEY": ApiKey,
    "YC_IAM_TOKEN": IamToken,
    "YC_SERVICE_ACCOUNT_KEY_FILE": ServiceAccountKey,
    "YC_OAUTH_TOKEN": OAuthToken,
    "YC_TOKEN": _token_of_either_kind,
    # Names that other tools use too.
    "IAM_TOKEN": IamToken,
    "API_KEY": ApiKey,
}
"""What the environment may hold, first things first."""


def from_env(environ: Mapping[str, str] | None = None) -> Credentials:
    """Credentials from the environment; the first that is set wins, and an empty variable counts as not set.

    ``YC_API_KEY``, ``YANDEX_CLOUD_API_KEY``; ``YC_IAM_TOKEN``; ``YC_SERVICE_ACCOUNT_KEY_FILE``; ``YC_OAUTH_TOKEN``;
    ``YC_TOKEN`` (an IAM or an OAuth token); then, under names that other tools use too, ``IAM_TOKEN`` and ``API_KEY``;
    then the metadata service, which is asked at the first call: if it does not answer, that call raises a
    ``ConfigurationError`` which lists all of these.

    Args:
        environ: the variables; by default those of this process.

    Raises:
        ConfigurationError: what a variable holds cannot be used.
    """
    environ = os.environ if environ is None else environ
    for name, kind in _KINDS.items():
        if value := environ.get(name):
            try:
                return kind(value)
            except ConfigurationError as error:
                raise ConfigurationError(f"{name}: {error}") from error
    return _FromEnvironment(environ.get(_METADATA_VARIABLE))


async def _wait_for(token: Awaitable[str | ExpiringToken], got: list[str | ExpiringToken]) -> None:
    got.append(await token)  # not returned: asyncio in its debug mode logs what tasks return


def _failed(error: type[APIError], message: str, endpoint: str | None) -> APIError:
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
        pass  # raised below: the error holds the document, and the document holds the key
    if data is unread:
        raise ConfigurationError(f"{where}: is not a JSON file")
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where}: must hold a JSON object with id, service_account_id and private_key")
    return where, data


def _load_private_key(text: str, where: str) -> RSAPrivateKey:
    try:
        import jwt  # noqa: F401  (needed to sign, later: its absence is better known now)
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
