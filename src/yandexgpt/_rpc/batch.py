"""``complete_many``: a call for each of many prompts, a bounded number of them at a time; synchronous."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from queue import Empty
from typing import TYPE_CHECKING, Any, cast

from yandexgpt._concurrency.threads import SIGNAL_CHECK_INTERVAL
from yandexgpt._rpc.background_loop import BackgroundLoop
from yandexgpt._rpc.batch_calls import BatchCalls
from yandexgpt._rpc.channels import check_aio
from yandexgpt._rpc.interceptors import asynchronous
from yandexgpt.errors import CancelledError, ConfigurationError

if TYPE_CHECKING:
    from yandexgpt._features.batch import BatchOptions, Prompts, ReorderBuffer, Result
    from yandexgpt._rpc.invoker import Invoker

__all__ = ["Batch"]

_NO_MORE: Any = object()


class Batch:
    """A synchronous batch under way: its calls are made in a background loop, its prompts are read by its reader."""

    iterables = (Iterable,)
    _background: BackgroundLoop | None = None

    def __init__(self, invoker: Invoker, options: BatchOptions) -> None:
        self._invoker = invoker
        self._options = options
        self._calls = BatchCalls(invoker, options)
        self.cancelled = False
        check_aio()
        interceptors = invoker.settings.interceptors
        if interceptors and not asynchronous(interceptors):
            raise ConfigurationError(
                "complete_many() makes its calls over grpc.aio, and the client's interceptors are synchronous: give "
                "asynchronous ones (grpc.aio.ClientInterceptor) among interceptors= as well"
            )

    def __del__(self) -> None:
        """Ctrl-C may have come before the results could end the loop."""
        if self._background is not None:
            self._background.end(wait=False)

    def results(self) -> Generator[Result, None, None]:
        """The results, while prompts are read as far as they may be."""
        options, buffer = self._options, self._options.buffer()
        prompts = iter(cast("Prompts", options.prompts))
        exhausted = False
        broken: Exception | None = None
        dropped = False
        try:
            while True:
                self._collect(buffer)
                # The source may take its time, or wait for what was handed out: what is ready goes first.
                may_read = buffer.has_capacity and not exhausted
                if (not may_read or options.may_block) and (result := buffer.pop()) is not None:
                    yield options.handed_out(result)
                elif may_read:
                    try:
                        prompt = next(prompts, _NO_MORE)
                        if prompt is _NO_MORE:
                            exhausted = True
                        else:
                            self._calls.check_open(buffer)
                            self._started().submit(buffer.take(), prompt)
                    except Exception as error:  # noqa: BLE001  (it is raised when those before it are handed out)
                        exhausted = True
                        broken = error
                elif not buffer.empty:
                    self._wait(buffer)
                else:
                    break
        except GeneratorExit:
            dropped = not self.cancelled  # nobody has closed the results, so this is a finalizer, which must not wait
            raise
        finally:
            if self._background is not None:
                self._background.end(wait=not dropped)
        if broken is not None:
            try:
                raise broken
            finally:
                del broken  # it refers to this frame

    def cancel(self) -> None:
        """End what is under way, from any thread."""
        self.cancelled = True
        if self._background is not None:
            self._background.end()

    def _started(self) -> BackgroundLoop:
        """What makes the calls, from the first of them on.

        Raises:
            CancelledError: the results were closed.
        """
        if self.cancelled:
            raise self._calls.closed_meanwhile()
        if self._background is None:
            self._background = BackgroundLoop(self._invoker, self._calls)
            self._background.start()
            if self.cancelled:  # meanwhile: whoever closed it may not have seen the loop
                raise self._calls.closed_meanwhile()
        self._background.check()
        return self._background

    def _collect(self, buffer: ReorderBuffer) -> None:
        """Take in what has come."""
        if self._background is not None:
            with contextlib.suppress(Empty):
                while True:
                    self._take_in(self._background.done.get_nowait(), buffer)

    def _wait(self, buffer: ReorderBuffer) -> None:
        """Wait for something to come."""
        assert self._background is not None  # noqa: S101  (it is there since the first prompt)
        while True:
            self._background.check()
            with contextlib.suppress(Empty):
                return self._take_in(self._background.done.get(timeout=SIGNAL_CHECK_INTERVAL), buffer)

    def _take_in(self, result: Result | None, buffer: ReorderBuffer) -> None:
        if result is not None:
            buffer.finished(result)
        elif buffer.under_way:
            raise self._calls.closed_meanwhile()

    def closed_meanwhile(self) -> CancelledError:
        """For a reader whose results were closed by somebody else."""
        return self._calls.closed_meanwhile()
