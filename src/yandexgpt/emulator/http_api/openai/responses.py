"""The Responses API: ``/v1/responses``, synchronous, streamed or in the background."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import grpc
from starlette.requests import Request
from starlette.responses import Response

from yandexgpt._models import Completion
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionRequest,
)
from yandexgpt.emulator.http_api.grpc_client import CallFailed
from yandexgpt.emulator.http_api.openai.body import Body, abbreviated, parse_body
from yandexgpt.emulator.http_api.openai.errors import ApiError, bad_request, json_response
from yandexgpt.emulator.http_api.openai.request import completion_request, translated_errors
from yandexgpt.emulator.http_api.openai.response_events import ResponseEvents
from yandexgpt.emulator.http_api.openai.response_json import (
    echoed_parameters,
    operation_id,
    response_from_completion,
    response_from_operation,
)
from yandexgpt.emulator.http_api.openai.response_store import ResponseStore, StoredResponse
from yandexgpt.emulator.http_api.openai.service_client import ServiceClient

__all__ = ["Responses"]

_SUPPORTED = (
    "background",
    "input",
    "instructions",
    "max_output_tokens",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
)
_IGNORED = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
)
"""Parameters that do not affect the answer."""
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "context_management": ([],),
    "conversation": (),
    "include": ([],),
    "max_tool_calls": (),
    "moderation": (),
    "prompt": (),
    "service_tier": ("auto", "default"),
    "top_logprobs": (0,),
    "top_p": (1, 1.0),
    "truncation": ("disabled",),
}
_NOT_KNOWN = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


class Responses:
    """The request handlers, with the stored responses."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def create(self, request: Request, raw: bytes) -> Response:
        """Answer with a response, with a stream of events, or with a background response that can be retrieved later.

        Raises:
            ApiError, CallFailed: there is no answer.
        """
        client = ServiceClient(request)
        body = parse_body(raw)
        stream, background, store = _modes(body)
        history = await self._history(body.string("previous_response_id"), client)
        new_items = _input(body)
        grpc_request = _parse(body, client, [*history, *new_items], len(history), stream=stream)
        echoed = echoed_parameters(body)

        def store_response(response: Mapping[str, Any]) -> None:
            if store:
                self._store.put(StoredResponse(response, [*history, *new_items], client.authorization, client.folder))

        if background:
            operation = await client.submit(grpc_request)
            response = response_from_operation(operation, model=grpc_request.model_uri, echoed=echoed)
            if response["status"] == "in_progress":
                response["status"] = "queued"
            store_response(response)
            return json_response(response, headers=client.headers)

        response_id, created_at = f"resp_{uuid.uuid4().hex}", int(time.time())

        def build_response(completion: Completion | None) -> dict[str, Any]:
            return response_from_completion(
                completion, id=response_id, model=grpc_request.model_uri, created_at=created_at, echoed=echoed
            )

        if stream:
            return await client.stream(grpc_request, lambda: ResponseEvents(build_response, store_response))
        response = build_response(Completion(await client.generate(grpc_request)))
        store_response(response)
        return json_response(response, headers=client.headers)

    async def retrieve(self, request: Request, _raw: bytes) -> Response:
        """The state of a response.

        Raises:
            ApiError, CallFailed: the response is unknown.
        """
        for name, value in request.query_params.items():
            if (name, value) not in (("stream", "false"), ("include_obfuscation", "false")):
                raise bad_request(
                    f"{name}={value} cannot be honoured over gRPC: leave it out", name, "unsupported_parameter"
                )
        client = ServiceClient(request)
        return json_response(await self._retrieve(request.path_params["id"], client), headers=client.headers)

    async def cancel(self, request: Request, _raw: bytes) -> Response:
        """Cancel a background response. A completed response does not change.

        Raises:
            ApiError, CallFailed: the response is unknown, or is not a background response.
        """
        client, response_id = ServiceClient(request), request.path_params["id"]
        stored = self._store.get(response_id, client.authorization, client.folder)
        if stored is not None and not stored.response["background"]:
            raise bad_request("only a background response can be cancelled", "response_id")
        response = await self._look_up(response_id, client, stored, cancel=True)
        return json_response(response, headers=client.headers)

    async def _retrieve(self, response_id: str, client: ServiceClient) -> Mapping[str, Any]:
        stored = self._store.get(response_id, client.authorization, client.folder)
        if stored is not None and not stored.response["background"]:
            return stored.response
        return await self._look_up(response_id, client, stored)

    async def _look_up(
        self, response_id: str, client: ServiceClient, stored: StoredResponse | None, *, cancel: bool = False
    ) -> Mapping[str, Any]:
        """A background response. If another process created it, its request is unknown."""
        try:
            operation = await client.operation(operation_id(response_id), cancel=cancel)
        except CallFailed as failed:
            if failed.code not in _NOT_KNOWN:
                raise
            raise ApiError(
                404,
                f"there is no response {abbreviated(response_id)} (any more)",
                param="response_id",
                code="not_found",
            ) from failed
        echoed: Mapping[str, Any] = echoed_parameters(Body({}))
        if stored is not None:
            echoed = {name: stored.response[name] for name in echoed}
        return response_from_operation(
            operation, model=None if stored is None else stored.response["model"], echoed=echoed
        )

    async def _history(self, response_id: str | None, client: ServiceClient) -> list[Mapping[str, Any]]:
        """The conversation up to a stored response, including its answer."""
        if response_id is None:
            return []
        name = "previous_response_id"
        stored = self._store.get(response_id, client.authorization, client.folder)
        if stored is None:
            raise bad_request(
                f"{name}: there is no response {abbreviated(response_id)} (any more)",
                name,
                "previous_response_not_found",
            )
        response = await self._retrieve(response_id, client)
        if not response["output"]:
            raise bad_request(f"{name}: the response {abbreviated(response_id)} is {response['status']}", name)
        return [*stored.conversation, *response["output"]]


def _modes(body: Body) -> tuple[bool, bool, bool]:
    """Whether to stream, to answer in the background, and to store the response."""
    body.allow_only(frozenset((*_SUPPORTED, *_IGNORED)), _UNSUPPORTED)
    stream, background = body.boolean("stream") or False, body.boolean("background") or False
    store = body.boolean("store") is not False
    if stream and background:
        raise bad_request(
            "stream=true cannot be honoured over gRPC for a background response: leave one of them out",
            "stream",
            "unsupported_parameter",
        )
    if background and not store:
        raise bad_request(
            "store=false cannot be honoured over gRPC for a background response, which the service keeps",
            "store",
            "unsupported_parameter",
        )
    if body.get("stream_options") is not None and not stream:
        raise bad_request("stream_options must be left out without stream", "stream_options")
    Body(body.mapping("stream_options") or {}).allow_only(frozenset(), {"include_obfuscation": (False,)})
    return stream, background, store


def _input(body: Body) -> list[Mapping[str, Any]]:
    if isinstance(body.get("input"), str):
        return [{"type": "message", "role": "user", "content": body.get("input")}]
    items = body.objects("input")
    if not items:
        raise bad_request("input must be given: a string, or an array with at least one item", "input")
    return list(items)


def _parse(
    body: Body, client: ServiceClient, items: list[Mapping[str, Any]], history_length: int, *, stream: bool
) -> CompletionRequest:
    def rename(place: str) -> str:
        head, bracket, tail = place.partition("]")
        return f"input[{int(head[6:]) - history_length}{bracket}{tail}" if head.startswith("input[") else place

    choice = body.get("tool_choice")
    if not isinstance(choice, str | dict | None):
        raise bad_request(f"tool_choice must be a string or an object, not {abbreviated(choice)}", "tool_choice")
    body.mapping("metadata")
    with translated_errors(rename):
        return completion_request(
            items,
            model_uri=client.model_uri(body.string("model")),
            stream=stream,
            instructions=body.string("instructions"),
            temperature=body.number("temperature"),
            max_tokens=body.integer("max_output_tokens"),
            reasoning=body.mapping("reasoning"),
            text=body.mapping("text"),
            tools=body.objects("tools"),
            tool_choice=choice,
            parallel_tool_calls=body.boolean("parallel_tool_calls"),
        )
