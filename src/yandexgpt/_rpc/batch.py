"""The synchronous ``complete_many``: one call per prompt, with limited concurrency."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from queue import Empty
from typing import TYPE_CHECKING, Any, cast

from yandexgpt._concurrency.threads import SIGNAL_CHECK_INTERVAL
from yandexgpt._rpc.background_loop import BackgroundLoop
from yandexgpt._rpc.batch_calls import BatchCalls
from yandexgpt._rpc.channels import check_aio
from yandexgpt._rpc.interceptors import aio_interceptors
from yandexgpt.errors import CancelledError, ConfigurationError

if TYPE_CHECKING:
    from yandexgpt._features.batch import BatchOptions, Prompts, Result, ResultBuffer
    from yandexgpt._rpc.invoker import Invoker

__all__ = ["Batch"]

_EXHAUSTED: Any = object()


class Batch:
    """A running synchronous batch: a background loop makes its calls, and the reader's thread reads its prompts."""

    iterables = (Iterable,)
    _background: BackgroundLoop | None = None

    def __init__(self, invoker: Invoker, options: BatchOptions) -> None:
        self._invoker = invoker
        self._options = options
        self._calls = BatchCalls(invoker, options)
        self.cancelled = False
        check_aio()
        interceptors = invoker.settings.interceptors
        if interceptors and not aio_interceptors(interceptors):
            raise ConfigurationError(
                "complete_many() makes its calls over grpc.aio, and the client's interceptors are synchronous: give "
                "asynchronous ones (grpc.aio.ClientInterceptor) among interceptors= as well"
            )

    def __del__(self) -> None:
        """Stop the loop: Ctrl-C may have interrupted the results before they stopped it."""
        if self._background is not None:
            self._background.close(wait=False)

    def results(self) -> Generator[Result, None, None]:
        """Yield the results, while prompts are read as far as the buffer has capacity."""
        options, buffer = self._options, self._options.new_buffer()
        prompts = iter(cast("Prompts", options.prompts))
        exhausted = False
        prompts_error: Exception | None = None
        in_finalizer = False
        try:
            while True:
                self._store_results(buffer)
                # Reading a prompt may block, possibly until a result is yielded. So finished results are yielded first.
                may_read = buffer.has_capacity and not exhausted
                if (not may_read or options.may_block) and (result := buffer.pop()) is not None:
                    yield options.check_result(result)
                elif may_read:
                    try:
                        prompt = next(prompts, _EXHAUSTED)
                        if prompt is _EXHAUSTED:
                            exhausted = True
                        else:
                            self._calls.check_open(buffer)
                            self._running_loop().submit(buffer.add_prompt(), prompt)
                    except Exception as error:  # noqa: BLE001  (raised after the results before it were yielded)
                        exhausted = True
                        prompts_error = error
                elif not buffer.empty:
                    self._wait_for_result(buffer)
                else:
                    break
        except GeneratorExit:
            in_finalizer = not self.cancelled  # not closed, so this is a finalizer, which must not wait
            raise
        finally:
            if self._background is not None:
                self._background.close(wait=not in_finalizer)
        if prompts_error is not None:
            try:
                raise prompts_error
            finally:
                del prompts_error  # its traceback refers to this frame: a reference cycle

    def cancel(self) -> None:
        """Cancel the calls in flight, from any thread."""
        self.cancelled = True
        if self._background is not None:
            self._background.close()

    def _running_loop(self) -> BackgroundLoop:
        """Return the loop that makes the calls. It is started for the first call.

        Raises:
            CancelledError: the results were closed.
        """
        if self.cancelled:
            raise self._calls.closed_error()
        if self._background is None:
            self._background = BackgroundLoop(self._invoker, self._calls)
            self._background.start()
            if self.cancelled:  # cancel() was called meanwhile, and may not have seen the loop
                raise self._calls.closed_error()
        self._background.check()
        return self._background

    def _store_results(self, buffer: ResultBuffer) -> None:
        """Move the results that are available to the buffer."""
        if self._background is not None:
            with contextlib.suppress(Empty):
                while True:
                    self._store(self._background.results.get_nowait(), buffer)

    def _wait_for_result(self, buffer: ResultBuffer) -> None:
        assert self._background is not None  # noqa: S101  (it is set with the first prompt)
        while True:
            self._background.check()
            with contextlib.suppress(Empty):
                return self._store(self._background.results.get(timeout=SIGNAL_CHECK_INTERVAL), buffer)

    def _store(self, result: Result | None, buffer: ResultBuffer) -> None:
        if result is not None:
            buffer.add_result(result)
        elif buffer.in_flight:
            raise self._calls.closed_error()

    def closed_error(self) -> CancelledError:
        """Return the error for a reader whose results were closed by another thread."""
        return self._calls.closed_error()
