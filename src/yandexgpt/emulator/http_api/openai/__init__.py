"""The OpenAI API of the emulator: Chat Completions, Responses and the list of models, translated to gRPC calls.

**Models.** A name is completed with the folder of the header ``OpenAI-Project`` (or ``x-folder-id``). A URI
``gpt://<folder>/<model>[/<version>]`` is used as it is.

**Credentials.** ``Authorization: Bearer <API key or IAM token>``. An IAM token begins with ``t1.``.

**Streams.** The service may change text that it has sent; an OpenAI stream cannot. So the text of a partial message is
sent only as far as the next message confirms it, and without an incomplete character at its end. If the final answer
still contradicts the text that was sent, the stream ends with an error. If the content filter replaces the answer, the
new text is the last chunk of Chat Completions (like the service, judging by its SDK), or a part of the type ``refusal``
in Responses.

**Unsupported parameters** are rejected by name with status 400, unless they do not affect the answer.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from yandexgpt.emulator.http_api.openai import chat
from yandexgpt.emulator.http_api.openai.endpoint import endpoint
from yandexgpt.emulator.http_api.openai.errors import ApiError, json_response
from yandexgpt.emulator.http_api.openai.response_store import ResponseStore
from yandexgpt.emulator.http_api.openai.responses import Responses
from yandexgpt.emulator.http_api.openai.service_client import ServiceClient

__all__ = ["routes"]

_MODELS = ("yandexgpt", "yandexgpt-lite")
_VERSIONS = ("latest", "rc", "deprecated")
_ANY_FOLDER = "emulator"
"""The folder in the list of models, if the request has no folder."""
_ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def routes() -> list[BaseRoute]:
    """The routes, with a store for responses."""
    responses = Responses(ResponseStore())
    return [
        Route("/v1/chat/completions", endpoint(chat.create), methods=["POST"]),
        Route(
            "/v1/responses",
            endpoint(responses.create, {"completion_options.max_tokens": "max_output_tokens"}),
            methods=["POST"],
        ),
        Route("/v1/responses/{id}", endpoint(responses.retrieve), methods=["GET"]),
        Route("/v1/responses/{id}/cancel", endpoint(responses.cancel), methods=["POST"]),
        Route("/v1/models", endpoint(_models), methods=["GET"]),
        Route("/v1/{path:path}", endpoint(_unknown), methods=_ANY_METHOD),
    ]


async def _models(request: Request, _raw: bytes) -> Response:
    """Some models of the folder. The gRPC service has no list of models."""
    client = ServiceClient(request)
    if client.authorization is None:
        raise ApiError(401, "the header Authorization is missing: send 'Bearer <API key>'", code="invalid_api_key")
    models = [
        {
            "id": client.model_uri(f"gpt://{client.folder or _ANY_FOLDER}/{model}/{version}"),
            "object": "model",
            "created": 0,
            "owned_by": "yandex",
        }
        for model in _MODELS
        for version in _VERSIONS
    ]
    return json_response({"object": "list", "data": models}, headers=client.headers)


async def _unknown(request: Request, _raw: bytes) -> Response:
    raise ApiError(404, f"there is no {request.method} {request.url.path} here", code="unknown_url")
