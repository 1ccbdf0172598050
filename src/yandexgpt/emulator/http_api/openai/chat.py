"""Chat Completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from yandexgpt._models import Completion, CompletionResponse, Status, Usage
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionRequest,
)
from yandexgpt.emulator.http_api.grpc_client import CallFailed
from yandexgpt.emulator.http_api.openai.append_only import AppendOnlyText, TextRetracted
from yandexgpt.emulator.http_api.openai.body import Body, parse_body
from yandexgpt.emulator.http_api.openai.chat_messages import ChatMessages, response_format, tool_choice, tools
from yandexgpt.emulator.http_api.openai.errors import ApiError, bad_request, from_call_failed, json_response
from yandexgpt.emulator.http_api.openai.request import completion_request, translated_errors
from yandexgpt.emulator.http_api.openai.service_client import ServiceClient
from yandexgpt.emulator.http_api.openai.sse import event

__all__ = ["create"]

_SUPPORTED = (
    "model",
    "messages",
    "stream",
    "stream_options",
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
)
_IGNORED = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "store",
    "user",
)
"""Parameters that do not affect the answer."""
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0, 0.0),
    "function_call": (),
    "functions": (),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0, 0.0),
    "seed": (),
    "service_tier": ("auto", "default"),
    "stop": ([],),
    "top_logprobs": (0,),
    "top_p": (1, 1.0),
    "verbosity": ("medium",),
    "web_search_options": (),
}
_FINISH_REASONS = {
    Status.TRUNCATED: "length",
    Status.CONTENT_FILTER: "content_filter",
    Status.TOOL_CALLS: "tool_calls",
}


class _ChatRequest(NamedTuple):
    request: CompletionRequest
    stream: bool
    include_usage: bool


async def create(request: Request, raw: bytes) -> Response:
    """Answer with one object or with a stream of chunks.

    Raises:
        ApiError, CallFailed: there is no answer.
    """
    client = ServiceClient(request)
    chat_request = _parse(parse_body(raw), client)
    envelope = _Envelope(chat_request.request.model_uri)
    if chat_request.stream:
        return await client.stream(
            chat_request.request, lambda: _Chunks(envelope, include_usage=chat_request.include_usage)
        )
    answer = await client.generate(chat_request.request)
    return json_response(envelope.whole(Completion(answer)), headers=client.headers)


def _parse(body: Body, client: ServiceClient) -> _ChatRequest:
    body.allow_only(frozenset((*_SUPPORTED, *_IGNORED)), _UNSUPPORTED)
    stream = body.boolean("stream") or False
    options = Body(body.mapping("stream_options") or {})
    options.allow_only(frozenset(("include_usage",)), {"include_obfuscation": (False,)})
    if body.get("stream_options") is not None and not stream:
        raise bad_request("stream_options must be left out without stream", "stream_options")
    messages = body.objects("messages")
    if messages is None:
        raise bad_request("messages must be given", "messages")
    effort = body.string("reasoning_effort")
    prompt = ChatMessages(messages)
    with translated_errors(prompt.rename):
        request = completion_request(
            prompt.items,
            model_uri=client.model_uri(body.string("model")),
            stream=stream,
            temperature=body.number("temperature"),
            max_tokens=_max_tokens(body),
            reasoning=None if effort is None else {"effort": effort},
            text=response_format(body.mapping("response_format")),
            tools=tools(body.objects("tools")),
            tool_choice=tool_choice(body.get("tool_choice")),
            parallel_tool_calls=body.boolean("parallel_tool_calls"),
        )
    return _ChatRequest(request, stream, options.boolean("include_usage") or False)


def _max_tokens(body: Body) -> int | None:
    old, new = body.integer("max_tokens"), body.integer("max_completion_tokens")
    if old is not None and new is not None and old != new:
        raise bad_request(f"max_tokens={old} and max_completion_tokens={new} must be the same", "max_tokens")
    return old if new is None else new


class _Envelope:
    """The common fields of all objects of an answer."""

    def __init__(self, model: str) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = model

    def object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A ``chat.completion`` or ``chat.completion.chunk`` object."""
        return {"id": self.id, "object": kind, "created": self._created, "model": self._model, "choices": choices}

    def whole(self, completion: Completion) -> dict[str, Any]:
        """The whole answer as one object.

        Raises:
            ApiError: the answer is incomplete.
        """
        message: dict[str, Any] = {"role": "assistant", "content": completion.text, "refusal": None}
        if completion.tool_calls:
            message.update(content=completion.text or None, tool_calls=self.tool_calls(completion))
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(completion.status)}
        return {**self.object("chat.completion", [choice]), "usage": _usage(completion.usage)}

    def tool_calls(self, completion: Completion) -> list[dict[str, Any]]:
        """The tool calls. The service has no ids for them, so they are created here."""
        return [
            {
                "id": f"call_{self.id.removeprefix('chatcmpl-')}_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for index, call in enumerate(completion.tool_calls)
        ]


class _Chunks:
    """The chunks of a streamed answer (its first alternative).

    Their form is the one that Yandex Cloud's own SDK reads (0.22): only the last chunk of the answer has a
    ``finish_reason``; only the chunk with the usage has a field ``usage`` (not even null in others); after
    ``content_filter``, the content of the last chunk replaces the whole answer.
    """

    def __init__(self, envelope: _Envelope, *, include_usage: bool) -> None:
        self._envelope = envelope
        self._include_usage = include_usage
        self._answer = AppendOnlyText()

    def start(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})

    def push(self, message: CompletionResponse) -> Iterator[bytes]:
        yield from self._content(self._answer.push(message))

    def end(self) -> Iterator[bytes]:
        completion = Completion(self._answer.response)
        try:
            reason = _finish_reason(completion.status)
            if not completion.filtered:
                yield from self._content(self._answer.end())
        except (TextRetracted, ApiError) as error:
            yield from self._content(self._answer.flush())
            yield event(_problem(str(error)).body)
            return
        calls = self._envelope.tool_calls(completion)
        for index, call in enumerate(calls):
            yield self._chunk({"tool_calls": [{"index": index, **call}]})
        last = {} if calls else {"content": completion.text if completion.filtered else ""}
        yield self._chunk(last, finish_reason=reason)
        if self._include_usage:
            chunk = self._envelope.object("chat.completion.chunk", [])
            yield event({**chunk, "usage": _usage(completion.usage)})
        yield event("[DONE]")

    def fail(self, failed: CallFailed) -> Iterator[bytes]:
        yield from self._content(self._answer.flush())
        yield event(from_call_failed(failed).body)

    def _content(self, piece: str) -> Iterator[bytes]:
        if piece:
            yield self._chunk({"content": piece})

    def _chunk(self, delta: dict[str, Any], **more: str) -> bytes:
        return event(self._envelope.object("chat.completion.chunk", [{"index": 0, "delta": delta, **more}]))


def _problem(message: str) -> ApiError:
    return ApiError(500, message, code="internal")


def _finish_reason(status: Status) -> str:
    if not status.final:
        raise _problem("the service ended its answer without a last message")
    return _FINISH_REASONS.get(status, "stop")


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
