"""OpenAI's face of the emulator: Chat Completions, Responses and the list of models, translated to gRPC calls.

**Models.** ``gpt://<folder>/<model>[/<version>]`` as it is; a name is completed with the folder of the header
``OpenAI-Project`` (or ``x-folder-id``).

**Credentials.** ``Authorization: Bearer <API key or IAM token>``; an IAM token begins with ``t1.``.

**Streams.** The service may take back what it said, an OpenAI stream cannot. So a partial's text is sent as far as the
message after it agrees, without the half of a character at its end. Where an answer contradicts what was sent all the
same, the stream ends in an error. Where the content filter puts its own words there, Chat Completions send them in the
last chunk (as the service does, to judge by its SDK), and Responses as a part of the type ``refusal``.

**What gRPC has nothing for** is refused by name with status 400, unless it changes nothing about an answer.
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
"""The folder of the models where a client names none."""
_ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def routes() -> list[BaseRoute]:
    """The routes, with a memory of their own for responses."""
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
    """Some models of the folder; the service has no list of them."""
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
