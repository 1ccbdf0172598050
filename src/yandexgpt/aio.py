"""The asynchronous client: the twin of :mod:`yandexgpt.client`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from yandexgpt.aio_driver import AsyncDriver
from yandexgpt.base import BaseClient
from yandexgpt.settings import UNSET, Metadata, Unset, check_seconds
from yandexgpt.streaming import AsyncStream

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from yandexgpt.completion import Completion
    from yandexgpt.raw import Raw
    from yandexgpt.request import Prompt, Reasoning, ResponseFormat

__all__ = ["AsyncClient"]


class AsyncClient(BaseClient):
    """A client for YandexGPT text generation over gRPC. Native on ``grpc.aio``. Works in any number of event loops,
    one after another or each in a thread of its own; survives a fork.

    Args:
        folder_id: the folder that pays: it makes ``gpt://<folder>/...`` of a model's name, and is sent as
            ``x-folder-id``. By default from ``YC_FOLDER_ID``, ``FOLDER_ID`` or ``YANDEX_CLOUD_FOLDER``.
        credentials: an object of :mod:`yandexgpt.credentials`, or a ``str`` taken as an API key. By default from the
            environment: see :func:`yandexgpt.credentials.from_env`.
        model: a model's name (``yandexgpt``), ``name/version``, or a whole URI.
        endpoint: ``host:port`` of the service; by default ``YANDEXGPT_ENDPOINT``, else the service's own.
        operation_endpoint, iam_endpoint: the same for asynchronous operations and for tokens; by default ``endpoint``
            if that was given, else the service's own.
        tls: True (system roots), the path of a PEM bundle, or False for plaintext, over which a secret is sent to
            loopback addresses only. By default ``YANDEXGPT_TLS``, else True.
        timeout: seconds for a whole call (> 0): waiting in line, tokens, retries, and a stream to its last message;
            None for no deadline.
        attempt_timeout: seconds for one attempt (> 0), or None.
        retry: when to send a call again.
        max_concurrency: how many generations may be in flight at once (>= 1); further ones wait in line, first come
            first served, within their deadline. None for no limit.
        log_data: False asks the service not to keep the content of requests (``x-data-logging-enabled: false``).
        metadata: pairs sent with every call.
        channel_options: gRPC channel arguments; they win over this package's own.
        interceptors: gRPC client interceptors.

    Raises:
        ConfigurationError: a value cannot be used. Nothing is sent.
    """

    _driver_type = AsyncDriver
    _driver: AsyncDriver

    async def complete(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning: Reasoning | None = None,
        tools: Iterable[Mapping[str, Any]] | None = None,
        tool_choice: str | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: ResponseFormat | None = None,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        metadata: Metadata = (),
        request_id: str | None = None,
    ) -> Completion:
        """Ask for a whole answer.

        Args:
            prompt: a ``str`` (one user message), a sequence of messages (:class:`~yandexgpt.Message`, mappings with
                ``role`` and ``text``, or completions, which stand for their assistant message), or a ready
                ``CompletionRequest`` (see :func:`yandexgpt.load_request`), over which the options given here win.
            system: a system message to put before the prompt.
            model: a model's name, ``name/version``, or a whole URI; by default the client's.
            temperature: 0 to 1; by default the service's (0.3).
            max_tokens: the longest answer, in tokens (> 0); by default the model's.
            reasoning: ``"disabled"`` or ``"hidden"``; by default the service's (disabled).
            tools: functions that the model may call: mappings with ``name``, ``description`` and ``parameters``, a
                JSON Schema.
            tool_choice: ``"none"``, ``"auto"``, ``"required"``, or the name of one of the tools.
            parallel_tool_calls: whether one answer may hold several calls; by default the service's (it may).
            response_format: ``"json"``, a JSON Schema as a mapping, or a pydantic model.
            timeout: seconds for the whole call, retries included (> 0), or None; by default the client's.
            attempt_timeout: seconds for one attempt (> 0), or None; by default the client's.
            metadata: pairs to send besides the client's.
            request_id: the id to send as ``x-client-request-id``; by default a new UUID.

        Raises:
            ValueError: an argument has an impossible value. Nothing was sent.
            ConfigurationError: there is no folder to make the model's URI with, or no credential; or the client is
                closed. Nothing was sent.
            APIError: the call failed.
        """
        request, call = self._begin(
            prompt,
            stream=False,
            system=system,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            reasoning=reasoning,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response_format=response_format,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            metadata=metadata,
            request_id=request_id,
        )
        await self._driver.unary(call, request)
        return call.completion()

    def stream(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning: Reasoning | None = None,
        tools: Iterable[Mapping[str, Any]] | None = None,
        tool_choice: str | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: ResponseFormat | None = None,
        timeout: float | Unset | None = UNSET,
        attempt_timeout: float | Unset | None = UNSET,
        metadata: Metadata = (),
        request_id: str | None = None,
    ) -> AsyncStream:
        """Ask for an answer as it is written. Arguments as for :meth:`complete`; ``timeout`` runs from this call on.

        Raises:
            ValueError, ConfigurationError: as for :meth:`complete`. Nothing was sent; nor is it before the stream is
                iterated over, which raises ``APIError`` if the call fails.
        """
        request, call = self._begin(
            prompt,
            stream=True,
            system=system,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            reasoning=reasoning,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response_format=response_format,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            metadata=metadata,
            request_id=request_id,
        )
        return AsyncStream(self._driver.responses(call, request), call)

    @property
    def raw(self) -> Raw:
        """The generated stubs, with a channel and this client's metadata attached: every RPC of the interface.

        They are gRPC's own: no deadline, no retries, ``grpc.RpcError``.
        """
        return self._driver.raw()

    async def connect(self, timeout: float | None = None) -> None:
        """Open the connection ahead of the first call, so that the first user does not wait for the TLS handshake.

        Args:
            timeout: seconds (> 0); by default the client's.

        Raises:
            UnavailableError: it was not open within that time.
        """
        check_seconds("timeout", timeout)
        await self._driver.connect(timeout)

    async def close(self) -> None:
        """End what is in flight (its callers get a ``CancelledError``) and close the connections. Idempotent."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        self._driver.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
