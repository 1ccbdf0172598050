"""Ways to make many calls: each turns a function that makes one call into a run.

This module imports only the standard library.
"""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

Run = Callable[[int, list[float]], str]
"""Makes a number of calls, appends the seconds of each to the list, and returns the text of the last answer."""


def one_by_one(call: Callable[[], str]) -> Run:
    """Calls one after another."""

    def run(calls: int, times: list[float]) -> str:
        text = ""
        for _ in range(calls):
            began = time.perf_counter()
            text = call()
            times.append(time.perf_counter() - began)
        return text

    return run


def in_loop(make: Callable[[], Callable[[], Awaitable[str]]], at_once: int | None = 1) -> Run:
    """Concurrent calls in a new event loop.

    Args:
        make: called in the event loop; makes the client, and returns a function that makes one call.
        at_once: the number of concurrent calls; None: all calls.
    """
    loop = asyncio.new_event_loop()
    atexit.register(lambda: loop.run_until_complete(loop.shutdown_asyncgens()))  # openai's client leaves some open

    async def made() -> Callable[[], Awaitable[str]]:
        return make()

    call = loop.run_until_complete(made())

    async def work(left: list[None], times: list[float]) -> str:
        text = ""
        while left:
            left.pop()
            began = time.perf_counter()
            text = await call()
            times.append(time.perf_counter() - began)
        return text

    async def run(calls: int, times: list[float]) -> str:
        left = [None] * calls
        if at_once == 1:
            return await work(left, times)
        texts = await asyncio.gather(*(work(left, times) for _ in range(min(calls, at_once or calls))))
        return next(filter(None, texts), "")

    return lambda calls, times: loop.run_until_complete(run(calls, times))


def in_threads(call: Callable[[], str], at_once: int, *, queued: bool = False) -> Run:
    """Calls in a pool of threads.

    Args:
        call: makes one call.
        at_once: the number of threads.
        queued: True: each call is a task of the pool, as with ``Executor.map``. False: each thread makes calls in a
            loop.
    """
    pool = ThreadPoolExecutor(at_once)

    def work(share: Iterable[int], times: list[float]) -> str:
        text = ""
        for _ in share:
            began = time.perf_counter()
            text = call()
            times.append(time.perf_counter() - began)
        return text

    def run(calls: int, times: list[float]) -> str:
        left = iter(range(calls))
        shares: list[Iterable[int]] = [range(1)] * calls if queued else [left] * at_once
        texts = [future.result() for future in [pool.submit(work, share, times) for share in shares]]
        return next(filter(None, texts), "")

    return run
