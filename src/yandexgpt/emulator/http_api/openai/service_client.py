"""The gRPC calls of one OpenAI request, with its credential and folder."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message
from starlette.requests import Request

from yandexgpt._models import CompletionResponse
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionRequest,
)
from yandexgpt._proto.yandex.cloud.operation import operation_pb2, operation_service_pb2
from yandexgpt.emulator.http_api.grpc_client import GrpcClient
from yandexgpt.emulator.http_api.openai.body import abbreviated
from yandexgpt.emulator.http_api.openai.errors import ApiError, bad_request
from yandexgpt.emulator.http_api.openai.sse import EventStream, EventWriter

__all__ = ["ServiceClient"]

_SERVICES = text_generation_service_pb2.DESCRIPTOR.services_by_name
_GENERATE = f"/{_SERVICES['TextGenerationService'].full_name}/Completion"
_SUBMIT = f"/{_SERVICES['TextGenerationAsyncService'].full_name}/Completion"
_OPERATIONS = operation_service_pb2.DESCRIPTOR.services_by_name["OperationService"].full_name
_FORWARDED_HEADERS = ("x-data-logging-enabled", "x-client-request-id", "x-client-trace-id", "idempotency-key")
_REQUEST_ID = "x-request-id"
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_Response = TypeVar("_Response", bound=Message)
_IAM_TOKEN = "t1."  # noqa: S105 - the prefix of IAM tokens


class ServiceClient:
    """Makes gRPC calls with the credential, folder and other metadata of an HTTP request.

    OpenAI's clients send every credential as ``Bearer``. A credential that begins with ``t1.``, or equals the one that
    the emulator accepts, stays a Bearer token. Any other credential becomes an API key.

    Attributes:
        authorization: the credential in the form of gRPC; None without one.
        folder: the header ``OpenAI-Project``, or else ``x-folder-id``; None without them.

    Raises:
        ApiError: a header contains characters that gRPC metadata cannot carry.
    """

    def __init__(self, request: Request) -> None:
        self._grpc_client: GrpcClient = request.app.state.grpc_client
        self.folder = _header(request, "openai-project") or _header(request, "x-folder-id") or None
        given = _header(request, "authorization")
        self.authorization = None if given is None else _authorization(given, request.app.state.authorization)
        translated_errors = {"authorization": self.authorization, "x-folder-id": self.folder}
        translated_errors.update((name, _header(request, name)) for name in _FORWARDED_HEADERS)
        self._received: dict[str, str] = {}
        self._metadata = [("x-emulator-face", "openai")]
        self._metadata.extend((name, value) for name, value in translated_errors.items() if value is not None)

    def model_uri(self, model: str | None) -> str:
        """The model URI. A name is completed with the folder. The service checks whether the model exists.

        Raises:
            ApiError: there is no model, or a name without a folder.
        """
        if not model:
            raise bad_request("model must be given: a name such as yandexgpt-lite, or gpt://<folder>/<model>", "model")
        if "://" in model:
            return model
        if self.folder is None:
            raise bad_request(
                f"the model {abbreviated(model)} needs a folder: send it as the header OpenAI-Project (project=... of "
                "openai's client), or give the model as gpt://<folder>/<model>",
                "model",
            )
        return f"gpt://{self.folder}/{model}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response: the request id of the gRPC call, or else a new one."""
        return {_REQUEST_ID: self._received.get(_REQUEST_ID) or str(uuid.uuid4())}

    async def generate(self, request: CompletionRequest) -> CompletionResponse:
        """Generate the whole answer.

        Raises:
            CallFailed: the call failed.
        """
        return await self._unary(_GENERATE, request, CompletionResponse)

    async def stream(self, request: CompletionRequest, writer: Callable[[], EventWriter]) -> EventStream:
        """Stream the answer, after its first message has arrived.

        Raises:
            CallFailed, ApiError: there is no first message.
        """
        messages = self._grpc_client.stream(
            _GENERATE, request, CompletionResponse, self._metadata, received=self._received
        )
        first = await anext(messages, None)
        if first is None:
            raise ApiError(500, "the service sent no answer", code="internal")
        return EventStream(messages, first, writer(), self.headers)

    async def submit(self, request: CompletionRequest) -> operation_pb2.Operation:
        """Start an operation that generates the answer in the background.

        Raises:
            CallFailed: the call failed.
        """
        return await self._unary(_SUBMIT, request, operation_pb2.Operation)

    async def operation(self, operation_id: str, *, cancel: bool = False) -> operation_pb2.Operation:
        """The state of an operation.

        Args:
            operation_id: the id.
            cancel: cancel it first.

        Raises:
            CallFailed: the call failed.
        """
        kind = operation_service_pb2.CancelOperationRequest if cancel else operation_service_pb2.GetOperationRequest
        method = f"/{_OPERATIONS}/{'Cancel' if cancel else 'Get'}"
        return await self._unary(method, kind(operation_id=operation_id), operation_pb2.Operation)

    async def _unary(self, method: str, request: Message, response_type: type[_Response]) -> _Response:
        return await self._grpc_client.unary(method, request, response_type, self._metadata, received=self._received)


def _authorization(given: str, accepted: str | None) -> str:
    scheme, _, credential = given.partition(" ")
    credential = credential.strip()
    if scheme.lower() == "api-key":
        return f"Api-Key {credential}"
    if scheme.lower() != "bearer":
        return given
    bearer = f"Bearer {credential}"
    return bearer if credential.startswith(_IAM_TOKEN) or bearer == accepted else f"Api-Key {credential}"


def _header(request: Request, name: str) -> str | None:
    value = request.headers.get(name)
    if value is not None and not _PRINTABLE.fullmatch(value):
        raise bad_request(f"the header {name} holds a character that is not printable ASCII", name)
    return value
