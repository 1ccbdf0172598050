"""``client.responses``: the interface of openai's client, over gRPC.

Yandex Cloud's guide to the Responses API calls ``client.responses.create(...)`` of the openai package and reads
``response.output[0].content[0].text``. The same code works here. A parameter that gRPC cannot carry is an error, never
ignored.
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
    from yandexgpt._openai.request import UnsupportedParameters

__all__ = ["AsyncResponses"]


def _from_completion(completion: Completion, model: str, created_at: float) -> Response:
    return Response(
        id=completion.request_id or "", created_at=created_at, model=model, background=False, completion=completion
    )


def _from_operation(operation: AsyncOperation, model: str | None) -> Response:
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
    """The Responses API as in openai's client: ``client.responses``."""

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
        **refused: Unpack[UnsupportedParameters],
    ) -> Response:
        """Request an answer. None means that an argument is not given.

        Args:
            model: a model's name, ``name/version``, or a whole URI; by default the client's.
            input: the user's text, or a list of items: messages (``role``: ``user``, ``assistant``, ``system`` or
                ``developer``, which is sent as ``system``; ``content``: a str, or parts of the types ``input_text`` and
                ``output_text``, joined with line breaks), ``function_call``, ``function_call_output``, and items of
                ``response.output``.
            instructions: a system message to put before the input.
            temperature: 0 to 1; by default the service's (0.3).
            max_output_tokens: the longest answer, in tokens (> 0); by default the model's.
            reasoning: ``{"effort": ...}``. The service can only turn hidden reasoning on or off: ``"none"`` turns it
                off; ``minimal``, ``low``, ``medium``, ``high`` and ``xhigh`` all turn it on.
            text: ``{"format": {"type": "text"}}``, ``"json_object"``, or ``"json_schema"`` with ``schema``. The schema
                is enforced with and without ``strict``; its ``name`` is not sent.
            tools: functions, ``{"type": "function", "name", "description", "parameters", "strict"}``, or tools as for
                ``complete``.
            tool_choice: ``"none"``, ``"auto"``, ``"required"``, or ``{"type": "function", "name"}``.
            parallel_tool_calls: whether one answer may hold several calls; by default the service's (it may).
            background: True: return at once, with a response to be retrieved later.
            store: True only with ``background``, False only without: the service keeps background responses, and no
                others. Logging is set by the client's ``log_data``.
            stream: True is refused: use ``client.stream()``.
            truncation: only ``"disabled"``: a prompt that is too long is an error.
            timeout: seconds for the whole call (> 0), or None; by default the client's.
            refused: openai's other parameters; only None.

        Raises:
            ValueError: gRPC cannot carry a parameter (the message names an alternative), or a parameter is out of range
                or malformed. Nothing was sent.
            TypeError: openai's client has no such keyword. Nothing was sent.
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
            return _from_operation(await self._client.submit(prompt, **options), uri)
        created_at = time.time()
        return _from_completion(await self._client.complete(prompt, **options), uri, created_at)

    async def retrieve(self, response_id: str, *, timeout: float | Unset | None = UNSET) -> Response:
        """The current state of a background response.

        Args:
            response_id: its ``id``; it may have been created by another process.
            timeout: seconds for the call (> 0), or None; by default the client's.

        Raises:
            NotFoundError: no such response, a response older than three days, or one that was not created in the
                background.
            ValueError, ConfigurationError, APIError: as for ``complete``.
        """
        operation = self._client.operation(response_id)
        await operation.refresh(timeout=timeout)
        return _from_operation(operation, None)

    async def cancel(self, response_id: str, *, timeout: float | Unset | None = UNSET) -> Response:
        """Cancel a background response. A response that has ended does not change. Arguments and errors as for
        :meth:`retrieve`."""
        operation = self._client.operation(response_id)
        await operation.cancel(timeout=timeout)
        return _from_operation(operation, None)

    def _model_uri(self, model: str | None) -> str:
        settings = self._client._settings
        return model_uri(settings.model if model is None else model, settings.folder_id)
