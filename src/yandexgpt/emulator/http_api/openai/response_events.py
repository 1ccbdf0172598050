"""The events of a streamed response, in the order that OpenAI's client requires."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from yandexgpt._models import Completion, CompletionResponse
from yandexgpt.emulator.http_api.grpc_client import CallFailed
from yandexgpt.emulator.http_api.openai.append_only import AppendOnlyText, TextRetracted
from yandexgpt.emulator.http_api.openai.errors import generation_error
from yandexgpt.emulator.http_api.openai.sse import event

__all__ = ["ResponseEvents"]


class ResponseEvents:
    """Converts the messages of a stream to events. The output message is opened with its first text.

    If the content filter replaces text that was sent, the new text is a part of the type ``refusal``.

    Args:
        response: returns the JSON of the response with an answer, or without one (None).
        keep: is called with the JSON of the completed response. It is not called for a failed response.
    """

    def __init__(
        self, response: Callable[[Completion | None], dict[str, Any]], keep: Callable[[dict[str, Any]], None]
    ) -> None:
        self._response = response
        self._keep = keep
        self._numbers = itertools.count()
        self._answer = AppendOnlyText()
        self._output: list[dict[str, Any]] = []
        self._message: dict[str, Any] | None = None

    def start(self) -> Iterator[bytes]:
        response = self._response(None)
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)

    def push(self, message: CompletionResponse) -> Iterator[bytes]:
        yield from self._text(self._answer.push(message))

    def end(self) -> Iterator[bytes]:
        completion = Completion(self._answer.response)
        refusal: str | None = None
        try:
            yield from self._text(self._answer.end())
        except TextRetracted as error:
            if not completion.filtered:
                yield from self._failed("INTERNAL", str(error))
                return
            refusal = completion.text
        response = self._response(completion)
        if self._message is None and not completion.tool_calls:
            yield from self._open()
        yield from self._close(response["status"], refusal)
        if completion.tool_calls:
            yield from self._calls(response["output"])
        response["output"] = self._output
        self._keep(response)
        yield self._event(f"response.{response['status']}", response=response)

    def fail(self, failed: CallFailed) -> Iterator[bytes]:
        yield from self._text(self._answer.flush())
        yield from self._failed(failed.code.name, failed.message)

    def _failed(self, status_name: str, message: str) -> Iterator[bytes]:
        yield from self._close("incomplete", None)
        error = generation_error(status_name, message)
        response = {**self._response(None), "status": "failed", "error": error, "output": self._output}
        yield self._event("response.failed", response=response)

    def _text(self, piece: str) -> Iterator[bytes]:
        if not piece:
            return
        if self._message is None:
            yield from self._open()
        yield self._of_part("response.output_text.delta", 0, delta=piece, logprobs=[])

    def _open(self) -> Iterator[bytes]:
        response_id = self._response(None)["id"]
        self._message = {
            "id": f"msg_{response_id}",
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        yield self._event("response.output_item.added", output_index=0, item=self._message)
        yield self._of_part("response.content_part.added", 0, part=_output_text(""))

    def _close(self, status: str, refusal: str | None) -> Iterator[bytes]:
        if self._message is None:
            return
        text = self._answer.sent_text
        content = [_output_text(text)]
        yield self._of_part("response.output_text.done", 0, text=text, logprobs=[])
        yield self._of_part("response.content_part.done", 0, part=content[0])
        if refusal is not None:
            content.append({"type": "refusal", "refusal": refusal})
            yield self._of_part("response.content_part.added", 1, part={"type": "refusal", "refusal": ""})
            yield self._of_part("response.refusal.delta", 1, delta=refusal)
            yield self._of_part("response.refusal.done", 1, refusal=refusal)
            yield self._of_part("response.content_part.done", 1, part=content[1])
        yield from self._done({**self._message, "status": status, "content": content})

    def _calls(self, items: list[dict[str, Any]]) -> Iterator[bytes]:
        for item in items:
            index = len(self._output)
            yield self._event(
                "response.output_item.added",
                output_index=index,
                item={**item, "arguments": "", "status": "in_progress"},
            )
            place = {"item_id": item["id"], "output_index": index}
            yield self._event("response.function_call_arguments.delta", **place, delta=item["arguments"])
            yield self._event(
                "response.function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"]
            )
            yield from self._done(item)

    def _done(self, item: dict[str, Any]) -> Iterator[bytes]:
        index = len(self._output)
        self._output.append(item)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _of_part(self, kind: str, index: int, **fields: Any) -> bytes:
        assert self._message is not None  # noqa: S101 - parts are only sent for an open message
        return self._event(kind, item_id=self._message["id"], output_index=0, content_index=index, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        return event({"type": kind, "sequence_number": next(self._numbers), **fields}, kind)


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
