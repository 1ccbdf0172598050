"""Runs of ``reliability.py`` that need a separate process: garbage collection and signals at any moment, and memory.

    python scripts/reliability_apart.py WHAT CALL CLIENT RUNS ENDPOINT

Prints as JSON: the number of runs, the number of errors by column, and a description of each error.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import yandexgpt
from yandexgpt import errors

HANGS, CALLS, ERRORS = "hung", "leaked calls", "other errors"
PACKAGE = f"{Path(yandexgpt.__file__).parent}{os.sep}"
TEXT = "раз два три"
GIVEN_UP = 100  # streams of a run that measures memory
WARM = 10  # runs of that kind before the measurement
GROWN_BYTES = 2048  # maximum growth per closed stream: gRPC frees what it can, and single pages may stay allocated
KEPT_SOCKETS = 2


class GoneError(Exception):
    """An exception in the loop of a reader."""


class Sync:
    """Calls of a ``Client``."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.client = yandexgpt.Client(**options)

    def call(self, call: str) -> str:
        """Make a call."""
        if call == "complete":
            return self.client.complete(TEXT).text
        with self.client.stream(TEXT) as stream:
            return stream.finish().text

    def drop(self) -> None:
        """Leave a stream half-read, in a reference cycle: the error refers to this frame, and the frame to it."""
        try:
            for _ in self.client.stream(TEXT):
                raise GoneError
        except GoneError as error:
            kept = error  # noqa: F841

    def give_up(self) -> None:
        """Close a stream after its first message."""
        with self.client.stream(TEXT) as stream:
            next(stream)

    def close(self) -> None:
        """Close the client."""
        self.client.close()


class Async:
    """Calls of an ``AsyncClient``. Its event loop runs only during a call."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self.client = yandexgpt.AsyncClient(**options)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(coroutine)

    def call(self, call: str) -> str:
        return str(self.run(self._call(call)))

    async def _call(self, call: str) -> str:
        if call == "complete":
            return (await self.client.complete(TEXT)).text
        async with self.client.stream(TEXT) as stream:
            return (await stream.finish()).text

    def drop(self) -> None:
        self.run(self._drop())

    async def _drop(self) -> None:
        try:
            async for _ in self.client.stream(TEXT):
                raise GoneError
        except GoneError as error:
            kept = error  # noqa: F841

    def give_up(self) -> None:
        self.run(self._give_up())

    async def _give_up(self) -> None:
        async with self.client.stream(TEXT) as stream:
            await anext(stream)

    def close(self) -> None:
        self.run(self.client.close())
        self.run(self._loop.shutdown_asyncgens())
        self._loop.close()


Notes = list[tuple[str, str]]


def collections(make: Callable[[], Any], call: str, runs: int) -> Notes:
    """In each run, the garbage collector finalizes a half-read stream at a later allocation of a call."""
    side, notes = make(), Notes()
    for n in range(runs):
        gc.collect()
        gc.disable()
        side.drop()
        gc.set_threshold(gc.get_count()[0] + 1 + 3 * n)
        gc.enable()
        notes += judge(lambda: side.call(call), f"collected at allocation {1 + 3 * n}")
    gc.set_threshold(700, 10, 10)
    side.close()
    return notes


class AtLine:
    """A trace function that calls a signal handler before the n-th line of the package that the thread executes."""

    def __init__(self, n: int, handler: Callable[[], Any]) -> None:
        self.n, self.handler, self.lines, self.where = n, handler, 0, ""

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:  # noqa: ARG002  (sys.settrace's signature)
        return self.line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def line(self, frame: Any, event: str, argument: Any) -> Any:  # noqa: ARG002
        if event == "line":
            self.lines += 1
            if self.lines == self.n:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                self.handler()
        return self.line


def signals(make: Callable[[], Any], call: str, runs: int, *, closes: bool) -> Notes:
    """In each run, a signal handler runs at another line of a call; it makes another call, or closes the client."""
    notes = Notes()

    def run(n: int) -> AtLine:
        side = make()
        number = signal.SIGUSR1
        signal.signal(number, lambda *_: side.close() if closes else side.call("complete"))
        at = AtLine(n, lambda: signal.raise_signal(number))
        sys.settrace(at)
        try:
            found = judge(lambda: side.call(call), "", errors.CancelledError if closes else None)
        finally:
            sys.settrace(None)
        notes.extend((column, f"{at.where}: {note}") for column, note in found)
        side.close()
        return at

    run(0)
    lines = run(0).lines
    for n in range(runs):
        run(1 + n * lines // runs)
    return notes


def judge(call: Callable[[], str], what: str, also: type[errors.APIError] | None = None) -> Notes:
    """Make a call; return an error unless it has the right answer.

    Args:
        what: the description of the run.
        also: an error that is allowed too, as is ConfigurationError then.
    """
    try:
        answer = call()
    except (errors.YandexGPTError, StopIteration) as error:
        if also is not None and isinstance(error, (also, errors.ConfigurationError)):
            return []
        return [(ERRORS, f"{what}: {error!r}")]
    except Exception as error:  # noqa: BLE001  (any exception is counted)
        return [(ERRORS, f"{what}: {error!r}")]
    return [] if answer == TEXT else [("wrong text", f"{what}: {answer!r}")]


def given_up(make: Callable[[], Any], _call: str, runs: int, *, endpoint: str) -> Notes:
    """Close streams after their first message, in hundreds: memory and sockets must not grow."""
    side, notes = make(), Notes()
    for _ in range(WARM * GIVEN_UP):
        side.give_up()
    before = memory()
    for _ in range(runs * GIVEN_UP):
        side.give_up()
    grown = (memory() - before) // (runs * GIVEN_UP)
    if grown > GROWN_BYTES:
        notes.append((CALLS, f"{grown} bytes of memory for each of {runs * GIVEN_UP} streams"))
    if (left := sockets(endpoint)) > KEPT_SOCKETS:
        notes.append((CALLS, f"{left} connections"))
    side.close()
    gc.collect()
    if left := sockets(endpoint):
        notes.append((CALLS, f"{left} connections after close()"))
    return notes


def memory() -> int:
    """The memory of this process in bytes; 0 if /proc is not available."""
    gc.collect()
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def sockets(endpoint: str) -> int:
    """The number of connections of this process to an endpoint; 0 if /proc is not available."""
    port, own, rows = int(endpoint.rpartition(":")[2]), set[str](), list[list[str]]()
    with contextlib.suppress(OSError):
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed in the meantime
                own.add(str(descriptor.readlink()))
        for name in ("tcp", "tcp6"):
            rows += [line.split() for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]]
    return sum(int(row[2].rpartition(":")[2], 16) == port and f"socket:[{row[9]}]" in own for row in rows)


WHAT: dict[str, Callable[..., Notes]] = {
    "collections": collections,
    "signals-call": lambda make, call, runs: signals(make, call, runs, closes=False),
    "signals-close": lambda make, call, runs: signals(make, call, runs, closes=True),
}


def main(what: str, call: str, client: str, runs: str, endpoint: str) -> None:
    """Make the runs and print the results."""
    faulthandler.enable()
    options = {
        "folder_id": "b1g",
        "credentials": "a-key",
        "endpoint": endpoint,
        "tls": False,
        "timeout": 5.0,
        "max_concurrency": 4,
    }
    side = Sync if client == "Client" else Async

    def make() -> Any:
        return side(options)

    if what == "given-up":
        notes = given_up(make, call, int(runs), endpoint=endpoint)
    else:
        notes = WHAT[what](make, call, int(runs))
    counts = Counter(column for column, _ in notes)
    print(json.dumps({"runs": int(runs), "counts": counts, "notes": [f"{column}: {note}" for column, note in notes]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
