"""gevent's ``monkey.patch_all()``: greenlets replace threads. With ``--grpc-not-told``, no ``init_gevent`` call."""

from __future__ import annotations

import sys

from gevent import monkey

monkey.patch_all()

if "--grpc-not-told" not in sys.argv:
    import grpc.experimental.gevent

    grpc.experimental.gevent.init_gevent()

import asyncio  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from matrix import (  # noqa: E402
    CHECKS,
    Reporter,
    Spans,
    World,
    complete_many,
    complete_many_closed_early,
    run,
)

import yandexgpt  # noqa: E402

SYNCHRONOUS = [check for check in CHECKS if check not in (complete_many, complete_many_closed_early)]
AT_ONCE = 30
"""Number of calls: three times the size of gevent's thread pool for blocking calls."""


def main() -> None:
    reporter = Reporter()
    world = World("sync", Spans(), settle=lambda _: gevent.sleep(0.2))  # whether a greenlet waits in gRPC is unknown
    if "--grpc-not-told" in sys.argv:
        reporter.check("sync works, or says what to call", works_or_says, "init_gevent", lambda: at_once(world))
    else:
        run(reporter, world, [*SYNCHRONOUS, at_once, beside_silent_calls, others_run_meanwhile])
        world = World("sync", Spans())
    reporter.check("complete_many works, or says why not", works_or_says, "gevent", lambda: many(world))
    reporter.check("async works, or says why not", works_or_says, "gevent", lambda: asyncio.run(asynchronous()))
    reporter.exit()


def works_or_says(words: str, use: Callable[[], Any]) -> None:
    """`use` works, or raises a ConfigurationError with these words within a second."""
    began = time.monotonic()
    try:
        use()
    except yandexgpt.ConfigurationError as refused:
        if words not in str(refused):
            raise
        assert time.monotonic() - began < 1.0, "it took its time"
        print(f"... {refused}")


def at_once(world: World) -> None:
    """`AT_ONCE` concurrent calls of greenlets take about as long as one."""
    with world.client() as client:
        client.complete("раз")

        def call() -> None:
            try:
                client.complete("silent", timeout=1.0)
            except yandexgpt.DeadlineExceededError:
                return
            raise AssertionError("it was answered")

        began = time.monotonic()
        calls = [gevent.spawn(call) for _ in range(AT_ONCE)]
        gevent.joinall(calls, raise_error=True)
        took = time.monotonic() - began
        assert took < 4.0, f"{AT_ONCE} calls with a deadline of 1 s took {took:.1f} s"


def beside_silent_calls(world: World) -> None:
    """A call is answered while `AT_ONCE` other calls wait for the service."""
    client = world.client()
    silent = [gevent.spawn(client.complete, "silent", timeout=10.0, request_id=f"silent-{i}") for i in range(AT_ONCE)]
    for number in range(AT_ONCE):
        world.desk.arrived(f"silent-{number}")
    began = time.monotonic()
    assert client.complete("раз").text == "раз"
    took = time.monotonic() - began
    client.close()
    gevent.joinall(silent)
    assert all(isinstance(call.exception, yandexgpt.CancelledError) for call in silent), silent
    assert took < 2.0, f"it took {took:.1f} s"


def others_run_meanwhile(world: World) -> None:
    """A call does not block other greenlets."""
    iterations = 0

    def count() -> None:
        nonlocal iterations
        while True:
            gevent.sleep(0.01)
            iterations += 1

    counting = gevent.spawn(count)
    with world.client() as client:
        try:
            client.complete("silent", timeout=1.0)
        except yandexgpt.DeadlineExceededError:
            assert iterations > 20, f"another greenlet had {iterations} iterations in a second"
    counting.kill()


def many(world: World) -> None:
    """``complete_many`` returns all results."""
    with world.client() as client:
        results = list(client.complete_many(["раз", "два", "три"], concurrency=2))
        assert [result.completion.text for result in results] == ["раз", "два", "три"]


async def asynchronous() -> None:
    """An ``AsyncClient`` completes a prompt."""
    async with yandexgpt.AsyncClient(timeout=5.0) as client:
        assert (await client.complete("раз")).text == "раз"


if __name__ == "__main__":
    main()
