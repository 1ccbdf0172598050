"""The exchange of a JWT or an OAuth token for an IAM token."""

from __future__ import annotations

import time
from typing import Any, cast

import grpc

from yandexgpt._concurrency.token_cache import ExpiringToken
from yandexgpt._config import Settings
from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2, iam_token_service_pb2_grpc
from yandexgpt._rpc import failures
from yandexgpt._rpc.channels import open_channel
from yandexgpt._rpc.interceptors import AttemptRegistry
from yandexgpt.errors import PermissionDeniedError

__all__ = ["IamExchange"]

_TIMEOUT = 30.0
"""Seconds for one exchange. It is not bound by the deadline of any call. A call that waits for it has its own."""


class IamExchange:
    """Calls ``IamTokenService.Create`` at the client's ``iam_endpoint``; blocks.

    Each exchange opens a new connection and closes it, because there is only about one exchange an hour.
    """

    def __init__(self, settings: Settings) -> None:
        self._endpoint = settings.iam_endpoint
        self._options = settings.channel_options

    def __call__(self, *, jwt: str = "", oauth_token: str = "") -> ExpiringToken:
        """Exchange a signed JWT, or the OAuth token of a user.

        Raises:
            APIError: the service refused it or cannot be reached.
            ConfigurationError: the PEM bundle cannot be read.
        """
        proof: dict[str, Any] = {"jwt": jwt} if jwt else {"yandex_passport_oauth_token": oauth_token}
        request = iam_token_service_pb2.CreateIamTokenRequest(**proof)
        started = time.monotonic()
        channel = open_channel(self._endpoint, self._options, AttemptRegistry())
        try:
            answer = iam_token_service_pb2_grpc.IamTokenServiceStub(channel).Create(request, timeout=_TIMEOUT)
        except grpc.RpcError as failure:
            error = failures.from_rpc_error(
                cast("failures.FailedCall", failure),
                request_id=None,
                endpoint=self._endpoint.target,
                attempts=1,
                elapsed=time.monotonic() - started,
            )
            if isinstance(error, PermissionDeniedError):
                error.advice = "check that the account and its key are active"
            error.message = f"no IAM token could be got: {error.message}"
            raise error from failure
        finally:
            channel.close()
        if not answer.HasField("expires_at"):
            return ExpiringToken(answer.iam_token)
        return ExpiringToken(answer.iam_token, lifetime=answer.expires_at.ToMicroseconds() / 1e6 - time.time())
