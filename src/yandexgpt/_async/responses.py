"""``client.responses``: code written for openai's client, over gRPC.

Yandex Cloud's guide to the Responses API calls ``client.responses.create(...)`` of the openai package and reads
``response.output[0].content[0].text``. The same lines work here; what gRPC cannot honour is an error, never ignored.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from yandexgpt._config import UNSET, Unset
from yandexgpt._openai.request import prompt_and_options
from yandexgpt._openai.response import Response, ResponseError
from yandexgpt._request import model_uri

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from yandexgpt._async.operation import AsyncOperation
    from yandexgpt._async.protocol import AsyncClientProtocol
    from yandexgpt._models import Completion
    from yandexgpt._openai.request import Refused

__all__ = ["AsyncResponses"]


def _of_completion(completion: Completion, model: str, created_at: float) -> Response:
    return Response(
        id=completion.request_id or "", created_at=created_at, model=model, background=False, completion=completion
    )


def _of_operation(operation: AsyncOperation, model: str | None) -> Response:
    failure, created_at = operation.error, operation.created_at
    return Response(
        id=operation.id,
        created_at=None if created_at is None else created_at.timestamp(),
        model=model,
        background=True,
        error=None if failure is None else ResponseError(code=failure.code.name, message=failure.message),
        completion=operation.result() if operation.done and failure is None else None,
    )


class AsyncResponses:
    """Answers in the shape that code written for openai's client reads: ``client.responses``."""

    __slots__ = ("_client",)

    def __init__(self, client: AsyncClientProtocol) -> None:
        self._client = client

    async def create(
        self,
        *,
        model: str | None = None,
        input: str | Iterable[Any],  # noqa: A002
        instructions: str | None = None,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        reasoning: Mapping[str, Any] | None = None,
        text: Mapping[str, Any] | None = None,
        tools: Iterable[Any] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        background: bool | None = None,
        store: bool | None = None,
        stream: Literal[False] | None = None,
        truncation: Literal["disabled"] | None = None,
        timeout: float | Unset | None = UNSET,
        **refused: Unpack[Refused],
    ) -> Response:
        """Ask for an answer. None is as if not given.

        Args:
            model: a model's name, ``name/version``, or a whole URI; by default the client's.
            input: what the user says, or items: messages (``role``: ``user``, ``assistant``, ``system`` or
                ``developer``, which is ``system`` here; ``content``: a str, or parts of the types ``input_text`` and
                ``output_text``, put together with line breaks), ``function_call`` and ``function_call_output``, and
                what ``response.output`` holds.
            instructions: a system message to put before the input.
            temperature: 0 to 1; by default the service's (0.3).
            max_output_tokens: the longest answer, in tokens (> 0); by default the model's.
            reasoning: ``{"effort": ...}``. The service knows only whether to reason, hidden from the reader: so
                ``"none"`` is off, and ``minimal``, ``low``, ``medium``, ``high`` and ``xhigh`` are all the same.
            text: ``{"format": {"type": "text"}}``, ``"json_object"``, or ``"json_schema"`` with ``schema``, which is
                enforced whether ``strict`` or not; its ``name`` is not sent.
            tools: functions, ``{"type": "function", "name", "description", "parameters", "strict"}``, or what
                ``complete`` takes.
            tool_choice: ``"none"``, ``"auto"``, ``"required"``, or ``{"type": "function", "name"}``.
            parallel_tool_calls: whether one answer may hold several calls; by default the service's (it may).
            background: True returns at once, with a response to be retrieved.
            store: True for background responses only, False for others only: the service keeps the former, not the
                latter. What it logs is the client's ``log_data``.
            stream: True is refused: use ``client.stream()``.
            truncation: only ``"disabled"``: a prompt that is too long is an error.
            timeout: seconds for the whole call (> 0), or None; by default the client's.
            refused: openai's other parameters; only None.

        Raises:
            ValueError: a parameter that gRPC cannot honour (the message says what to use), or that has an impossible
                value. Nothing was sent.
            TypeError: a keyword that openai's client has not got either. Nothing was sent.
            ConfigurationError, APIError: as for ``complete``.
        """
        prompt, options = prompt_and_options(
            input=input,
            instructions=instructions,
            max_output_tokens=max_output_tokens,
            reasoning=reasoning,
            text=text,
            tools=tools,
            tool_choice=tool_choice,
            background=background,
            store=store,
            stream=stream,
            truncation=truncation,
            refused=refused,
        )
        options.update(temperature=temperature, parallel_tool_calls=parallel_tool_calls, timeout=timeout)
        options["model"] = uri = self._model_uri(model)
        if background:
            return _of_operation(await self._client.submit(prompt, **options), uri)
        created_at = time.time()
        return _of_completion(await self._client.complete(prompt, **options), uri, created_at)

    async def retrieve(self, response_id: str, *, timeout: float | Unset | None = UNSET) -> Response:
        """How a background response stands now.

        Args:
            response_id: its ``id``, of this process or another.
            timeout: seconds (> 0), or None; by default the client's.

        Raises:
            NotFoundError: no such response, one older than three days, or one that was not made in the background.
            ValueError, ConfigurationError, APIError: as for ``complete``.
        """
        operation = self._client.operation(response_id)
        await operation.refresh(timeout=timeout)
        return _of_operation(operation, None)

    async def cancel(self, response_id: str, *, timeout: float | Unset | None = UNSET) -> Response:
        """Cancel a background response; one that has ended stays as it is. Arguments and errors as for
        :meth:`retrieve`."""
        operation = self._client.operation(response_id)
        await operation.cancel(timeout=timeout)
        return _of_operation(operation, None)

    def _model_uri(self, model: str | None) -> str:
        settings = self._client._settings
        return model_uri(settings.model if model is None else model, settings.folder_id)
