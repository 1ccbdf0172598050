"""The calls of ``complete_many``, shared by both clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from yandexgpt._features.batch import Result
from yandexgpt._models import Completion
from yandexgpt._rpc.call import CallOptions
from yandexgpt._rpc.methods import TextGenerationService
from yandexgpt.errors import CancelledError, ConfigurationError

if TYPE_CHECKING:
    from yandexgpt._features.batch import BatchOptions, ResultBuffer
    from yandexgpt._request import Prompt
    from yandexgpt._rpc.async_invoker import AsyncInvoker
    from yandexgpt._rpc.invoker import Invoker

__all__ = ["BatchCalls"]


class BatchCalls:
    """Makes the call for each prompt of a batch, and turns its outcome into a result.

    Raises:
        ValueError: an option of the calls has an impossible value.
        ConfigurationError: the client is closed.
    """

    def __init__(self, invoker: Invoker | AsyncInvoker, options: BatchOptions) -> None:
        self._invoker = invoker
        self._options = options
        invoker.begin(TextGenerationService.Completion, "-", CallOptions(**options.call_options))  # checks the options

    async def complete(self, invoker: AsyncInvoker, index: int, prompt: Prompt) -> Result:
        """Make the call for a prompt.

        Args:
            invoker: of the running event loop.
        """
        options = CallOptions(**self._options.call_options)
        if options.request_id is not None:
            options = options._replace(request_id=f"{options.request_id}-{index}")
        try:
            request = self._options.build_request(prompt)
            answer = await invoker.unary(TextGenerationService.Completion, request, options)
        except Exception as error:  # noqa: BLE001  (raised where the result would be returned)
            refused = isinstance(error, ConfigurationError) and self._client_is_closed
            return Result(index, prompt, self.closed_error() if refused else error)
        return Result(index, prompt, None, Completion(*answer))

    def failed_result(self, index: int, prompt: Prompt, error: BaseException) -> Result:
        """Return the result of a prompt whose call was ended by an exception, for example of an interceptor."""
        if isinstance(error, Exception):
            return Result(index, prompt, error)
        cancelled = self._cancelled_error("the call was cancelled")
        cancelled.__cause__ = error
        return Result(index, prompt, cancelled)

    def check_open(self, buffer: ResultBuffer) -> None:
        """Refuse to start another call if none can be made.

        Raises:
            CancelledError: the client was closed after the first call, and no result says so.
            ConfigurationError: it was closed before, or a result says so, or it cannot be used in this process.
        """
        if buffer.has_started and not buffer.has_cancelled_result and self._client_is_closed:
            raise self.closed_error()
        self._invoker.check_open()

    @property
    def _client_is_closed(self) -> bool:
        return self._invoker.closed or self._invoker.registry.closed

    def closed_error(self) -> CancelledError:
        """Return the error for a reader whose results were closed by another thread or task."""
        return self._cancelled_error("the results were closed while they were read")

    def _cancelled_error(self, message: str) -> CancelledError:
        endpoint = self._invoker.settings.endpoint.target
        return CancelledError(message, code=grpc.StatusCode.CANCELLED, endpoint=endpoint)
