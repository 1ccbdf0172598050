"""The identity service: exchanges service-account keys and OAuth tokens for IAM tokens.

::

    identity = Identity(token_lifetime=2.0)
    identity.register(server)                       # adds IamTokenService to a grpc.Server
    key = identity.service_account_key()            # the content of a key file, as written by `yc iam key create`
    with MetadataServer(identity) as metadata:
        ...
    identity.why_invalid(token)                     # None, or the reason why the token is rejected

Only the creation of service-account keys and the check of their JWTs need the extra `auth`.
"""

from __future__ import annotations

import secrets
import string
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

import grpc

from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2 as iam
from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2_grpc as iam_grpc

AUDIENCE: Final = "https://iam.api.cloud.yandex.net/iam/v1/tokens"
"""The required `aud` claim of a JWT."""
TOKEN_LIFETIME: Final = 12 * 3600.0
"""Maximum lifetime of a token of the real service in seconds."""
JWT_LIFETIME: Final = 3600
"""Maximum lifetime of a JWT in seconds."""
LEEWAY: Final = 5.0
"""Seconds by which the clock of the signer may be ahead."""
KEY_BITS: Final = 2048
_ALGORITHM_SHOWN: Final = 20
"""Maximum length of an algorithm name in an error message."""
NO_AUTH: Final = "PyJWT and cryptography are needed for service-account keys: pip install 'yandexgpt[auth]'"


class ExchangeError(Exception):
    """A rejected token exchange; `code` is the gRPC status code."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        """Create an error with a status code and a message for the client."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class _Key:
    service_account_id: str
    public_key: str


class Identity:
    """The state of the identity service: issued tokens, keys and OAuth tokens. Thread-safe.

    Attributes (may be set at any time):
        token_lifetime: lifetime of new tokens in seconds; may be a fraction.
        delay: duration of an exchange in seconds.
    """

    def __init__(self, *, token_lifetime: float = TOKEN_LIFETIME) -> None:
        """No token is issued yet."""
        self.token_lifetime = token_lifetime
        self.delay = 0.0
        self._lock = threading.Lock()
        self._expiry: dict[str, float] = {}
        self._revoked: set[str] = set()
        self._keys: dict[str, _Key] = {}
        self._oauth: set[str] = set()
        self._failures: list[tuple[grpc.StatusCode, str]] = []
        self._exchanges = 0

    @property
    def issued(self) -> list[str]:
        """All IAM tokens issued so far, in order."""
        with self._lock:
            return list(self._expiry)

    @property
    def exchanges(self) -> int:
        """The number of calls of `IamTokenService.Create`, including failed calls."""
        with self._lock:
            return self._exchanges

    def issue(self, lifetime: float | None = None) -> str:
        """Return a new IAM token with a lifetime in seconds (None: `token_lifetime`; 0 or less: it has expired)."""
        token = f"t1.{secrets.token_urlsafe(48)}"
        with self._lock:
            self._expiry[token] = time.time() + (self.token_lifetime if lifetime is None else lifetime)
        return token

    def expires_at(self, token: str) -> float:
        """Return the expiry time of a token in seconds since the epoch; raises KeyError for an unknown token."""
        with self._lock:
            return self._expiry[token]

    def knows(self, token: str) -> bool:
        """Return whether the token was issued here, even if it has expired."""
        with self._lock:
            return token in self._expiry

    def is_valid(self, token: str) -> bool:
        """Return whether the service accepts the token."""
        return self.why_invalid(token) is None

    def why_invalid(self, token: str) -> str | None:
        """Return the reason why a token is rejected, without the token itself, or None if it is valid."""
        with self._lock:
            if token not in self._expiry:
                return "the token is unknown"
            if token in self._revoked:
                return "the token was revoked"
            return "the token has expired" if time.time() >= self._expiry[token] else None

    def revoke(self, token: str) -> None:
        """Make a token invalid; raises KeyError for an unknown token."""
        with self._lock:
            if token not in self._expiry:
                raise KeyError("the token is unknown")
            self._revoked.add(token)

    def fail(self, code: str | grpc.StatusCode, times: int = 1, *, message: str = "ordered to fail") -> None:
        """Make the next `times` exchanges fail with a gRPC status code or its name; raises KeyError for a bad name."""
        status = code if isinstance(code, grpc.StatusCode) else grpc.StatusCode[code]
        with self._lock:
            self._failures += [(status, message)] * times

    def oauth_token(self) -> str:
        """Return a new OAuth token of a user. It can be exchanged for an IAM token."""
        token = f"y0_{secrets.token_urlsafe(40)}"
        with self._lock:
            self._oauth.add(token)
        return token

    def service_account_key(self) -> dict[str, str]:
        """Create an authorized key of a service account, and return the content of its file with the private key.

        Keys: id, service_account_id, created_at, key_algorithm, public_key, private_key. As in the files of Yandex
        Cloud, a warning line precedes the PEM block of the private key. Raises ImportError without the extra `auth`.
        """
        try:
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import rsa
        except ImportError as error:
            raise ImportError(NO_AUTH) from error
        private = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        key_id, account = new_id("aje"), new_id("aje")
        with self._lock:
            self._keys[key_id] = _Key(account, public.decode())
        return {
            "id": key_id,
            "service_account_id": account,
            "created_at": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
            "key_algorithm": f"RSA_{KEY_BITS}",
            "public_key": public.decode(),
            "private_key": f"PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <{key_id}>\n{pem.decode()}",
        }

    def register(self, server: grpc.Server) -> None:
        """Add `IamTokenService` to a server that has not started yet. Only its method `Create` works."""
        iam_grpc.add_IamTokenServiceServicer_to_server(_IamTokenService(self), server)

    def exchange(self, request: iam.CreateIamTokenRequest) -> iam.CreateIamTokenResponse:
        """Exchange a JWT or an OAuth token for an IAM token; raises `ExchangeError` with the message for the client."""
        with self._lock:
            self._exchanges += 1
            failure = self._failures.pop(0) if self._failures else None
            oauth = request.yandex_passport_oauth_token in self._oauth
        if failure is not None:
            raise ExchangeError(*failure)
        kind = request.WhichOneof("identity")
        if kind is None:
            raise ExchangeError(
                grpc.StatusCode.INVALID_ARGUMENT, "one of jwt and yandex_passport_oauth_token is required"
            )
        if kind == "jwt":
            self._check_jwt(request.jwt)
        elif not oauth:
            raise ExchangeError(grpc.StatusCode.UNAUTHENTICATED, "the OAuth token is unknown")
        token = self.issue()
        response = iam.CreateIamTokenResponse(iam_token=token)
        response.expires_at.FromNanoseconds(int(self.expires_at(token) * 1e9))
        return response

    def _check_jwt(self, text: str) -> None:
        try:
            import jwt
            from jwt.algorithms import RSAPSSAlgorithm  # noqa: F401  # there only together with cryptography
        except ImportError:
            raise ExchangeError(grpc.StatusCode.FAILED_PRECONDITION, NO_AUTH) from None
        try:
            header = jwt.get_unverified_header(text)
        except jwt.InvalidTokenError as error:
            raise ExchangeError(grpc.StatusCode.INVALID_ARGUMENT, f"the JWT cannot be read: {error}") from None
        with self._lock:
            key = self._keys.get(header.get("kid", ""))
        algorithm = str(header.get("alg"))[:_ALGORITHM_SHOWN]
        _require(algorithm == "PS256", f"the JWT is signed by {algorithm}, not by PS256")
        if key is None:
            raise ExchangeError(grpc.StatusCode.UNAUTHENTICATED, "the JWT's kid is not the id of a known key")
        try:
            claims = jwt.decode(text, key.public_key, algorithms=["PS256"], options=_SIGNATURE_ONLY)
        except jwt.InvalidSignatureError:
            raise ExchangeError(grpc.StatusCode.UNAUTHENTICATED, "the JWT's signature is not that of its key") from None
        except jwt.InvalidTokenError as error:
            raise ExchangeError(grpc.StatusCode.INVALID_ARGUMENT, f"the JWT cannot be read: {error}") from None
        _check_claims(claims, key.service_account_id)


_SIGNATURE_ONLY: Final[Any] = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ExchangeError(grpc.StatusCode.UNAUTHENTICATED, otherwise)


def _check_claims(claims: dict[str, Any], account: str) -> None:
    audience = claims.get("aud")
    _require(audience == AUDIENCE or audience == [AUDIENCE], f"the JWT's aud is not {AUDIENCE}")
    _require(claims.get("iss") == account, "the JWT's iss is not the service account that its key belongs to")
    now, begin, end = time.time(), _time_claim(claims, "iat"), _time_claim(claims, "exp")
    _require(begin <= now + LEEWAY, "the JWT's iat is in the future")
    _require(end > now, "the JWT's exp is in the past")
    _require(end - begin <= JWT_LIFETIME, f"the JWT's exp is more than {JWT_LIFETIME} s after its iat")


def _time_claim(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if not isinstance(value, (int, float)):
        raise ExchangeError(grpc.StatusCode.UNAUTHENTICATED, f"the JWT's {name} is not a time")
    return value


def new_id(prefix: str) -> str:
    """Return a new id in the format of the cloud: three letters and seventeen more letters and digits."""
    return prefix + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(17))


class _IamTokenService(iam_grpc.IamTokenServiceServicer):
    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def Create(  # noqa: N802
        self, request: iam.CreateIamTokenRequest, context: grpc.ServicerContext
    ) -> iam.CreateIamTokenResponse:
        if self._identity.delay:
            ended = threading.Event()
            if context.add_callback(ended.set):
                ended.wait(self._identity.delay)
        try:
            return self._identity.exchange(request)
        except ExchangeError as status:
            context.abort(status.code, str(status))
