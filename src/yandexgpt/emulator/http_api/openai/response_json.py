"""A response of the Responses API as JSON, made from an answer and from the parameters of the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from yandexgpt._models import Completion, CompletionResponse
from yandexgpt._openai.response import Response, ResponseError
from yandexgpt._proto.yandex.cloud.operation import operation_pb2
from yandexgpt.emulator.http_api.openai.body import Body
from yandexgpt.emulator.http_api.openai.errors import ApiError, generation_error

__all__ = ["echoed_parameters", "operation_id", "response_from_completion", "response_from_operation", "response_id"]

_PREFIX = "resp_"
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_DEFAULT_TEMPERATURE = 0.3
"""The default of the service (source: its documentation)."""


def response_id(operation_id: str) -> str:
    """The id of the response for an operation."""
    return f"{_PREFIX}{operation_id}"


def operation_id(response_id: str) -> str:
    """The id of the operation for a response."""
    return response_id.removeprefix(_PREFIX)


def echoed_parameters(body: Body) -> dict[str, Any]:
    """The request parameters that a response repeats, with their defaults."""
    defaults: dict[str, Any] = {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": _DEFAULT_TEMPERATURE,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }
    return {name: default if body.get(name) is None else body.get(name) for name, default in defaults.items()}


def response_from_completion(
    completion: Completion | None,
    *,
    id: str,  # noqa: A002
    model: str,
    created_at: int,
    echoed: Mapping[str, Any],
) -> dict[str, Any]:
    """A response of a synchronous request.

    Args:
        completion: the answer; None: it is not complete yet.
        id: the id of the response.
        model: the model URI.
        created_at: seconds since the epoch (UTC).
        echoed: see :func:`echoed_parameters`.
    """
    return _json(Response(id=id, created_at=created_at, model=model, background=False, completion=completion), echoed)


def response_from_operation(
    operation: operation_pb2.Operation, *, model: str | None, echoed: Mapping[str, Any]
) -> dict[str, Any]:
    """A response of a background request.

    Args:
        operation: the state of the operation.
        model: the model URI; None if it is unknown.
        echoed: see :func:`echoed_parameters`.

    Raises:
        ApiError: the operation is not a text generation.
    """
    error: ResponseError | None = None
    completion: Completion | None = None
    if operation.done and operation.HasField("error"):
        name = _CODES.get(operation.error.code, grpc.StatusCode.UNKNOWN.name)
        error = ResponseError(code=name, message=operation.error.message)
    elif operation.done:
        answer = CompletionResponse()
        if not operation.response.Unpack(answer):
            raise ApiError(404, f"operation {operation.id} is not of text generation", code="not_found")
        completion = Completion(answer)
    response = Response(
        id=response_id(operation.id),
        created_at=operation.created_at.seconds,
        model=model,
        background=True,
        error=error,
        completion=completion,
    )
    return _json(response, echoed)


def _json(response: Response, echoed: Mapping[str, Any]) -> dict[str, Any]:
    """The response as JSON, with the fields that OpenAI's types require and the service does not send."""
    body = {**response.to_dict(), **echoed}
    if response.error is not None:
        failed = response.status == "failed"
        body["error"] = generation_error(response.error.code, response.error.message) if failed else None
    if response.usage is not None:
        body["usage"]["input_tokens_details"] = {"cached_tokens": 0, "cache_write_tokens": 0}
    for item in body["output"]:
        for part in item.get("content", ()):
            part["logprobs"] = []
    return body
