"""Plays every fault of the network and the service that the emulator offers, and counts the errors of the clients.

    python scripts/reliability.py [--runs N] [--workers N] [--only WORDS] [--output FILE]

Writes docs/reliability.md: a row for each fault, phase, call and client. The exit code is 1 if a count is not zero, or
if a fault was not played in the required number of runs.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import logging
import pickle
import platform
import secrets
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import google.protobuf
import grpc

import yandexgpt
from yandexgpt import errors
from yandexgpt.credentials import ExpiringToken, OAuthToken, TokenProvider
from yandexgpt.emulator import Emulator, ErrorCode, Fault, FaultProxy

APART = Path(__file__).resolve().with_name("reliability_apart.py")
OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
CONNECT, FIRST, MIDDLE, LAST = "connect", "before the first message", "mid-stream", "after the last message"
ANY = "at any moment"
COLUMNS = ("hung", "wrong text", "leaked calls", "leaked secrets", "other errors")
HANGS, TEXT, CALLS, SECRETS, ERRORS = COLUMNS
MANY = 8  # prompts
FOREVER = 3600.0  # seconds; longer than any timeout
APART_SECONDS = 60.0  # limit for the runs of a row with a separate process; after it the row counts as hung
TIMEOUT, SHORT = 3.0, 0.6  # timeouts of calls in seconds; SHORT for calls that are expected to exceed it
GRACE = 1.0  # seconds after its deadline; a call that has not ended by then counts as hung
LEAK = 2.0  # seconds after its end at the client; a call that still runs at the server then counts as leaked
HOLD = 0.15  # seconds before a fault, so that the client reads the messages before it, and gRPC does not miss an RST
TRIES = 3  # maximum number of runs for each counted run, until the fault is played
# gRPC reconnects after 100 ms or more: earlier attempts fail without a new connection.
RETRY = yandexgpt.Retry(initial=0.1, maximum=0.4, jitter=0.1)
AFTER = 2  # the position of "mid-stream": after the second partial of each of the answers below
ANSWERS = tuple(
    (f"{n} озеро", f"{n} озёра России", f"{n} озёра России: Байкал\ufffd", f"{n} озёра России: Байкал, Ладога")
    for n in range(10)
)
"""The answers, each with the texts of its messages in order; the last text is the final one. Each attempt of a call
gets the next answer, so a mixture of two attempts is detected."""
HUNG: Any = object()


@dataclass(frozen=True)
class Cell:
    """A fault in a phase, and the expected outcome."""

    fault: str
    phase: str
    expected: type[errors.APIError] | None = None  # None: the whole answer
    wire: Fault | None = None  # a fault of the network
    fail: Mapping[str, Any] | None = None  # arguments of Emulator.fail
    times: int | None = 1  # the number of faults; None: until the call has ended
    outcome: str | None = None  # the status at the server that shows that the fault was played; None: any call shows it
    timeout: float = TIMEOUT
    client: Mapping[str, Any] = field(default_factory=dict)  # arguments of the client
    emulator: Mapping[str, Any] = field(default_factory=dict)  # arguments of the emulator
    token: Callable[[Emulator], Any] | None = None  # makes the credentials; None: an API key
    interceptor: str = ""  # a key of INTERCEPTORS
    at_once: int = 1  # number of concurrent calls
    big: int = 99  # index of the first message of the answer that exceeds the size limit

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that the fault applies to: an answer that is not streamed has one message, and no middle."""
        return ("stream",) if self.phase == MIDDLE else ("complete", "stream")

    def row(self, call: str, side: Sync | Async, log: list[str]) -> Row:
        """A row of the table."""
        return Row(self, call, side, log)

    def sides(self, sides: Sequence[Sync | Async]) -> Sequence[Sync | Async]:
        """The clients that the fault applies to."""
        return sides


@dataclass(frozen=True)
class ClosedCell(Cell):
    """A stream or client is closed by another thread or task, while its reader processes a message."""

    closed: str = "stream"  # or "client"

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that can be closed."""
        return ("stream", "text()", "stream(latest=True)", "complete_many")

    def row(self, call: str, side: Sync | Async, log: list[str]) -> Row:
        """A row of the table."""
        return ClosedRow(self, call, side, log)


@dataclass(frozen=True)
class ApartCell(Cell):
    """A fault that needs a separate process: see ``reliability_apart.py``."""

    what: str = ""
    only_calls: tuple[str, ...] = ("complete", "stream")
    only_sync: bool = False  # signals are handled in the main thread, between two lines of it

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that the fault applies to."""
        return self.only_calls

    def row(self, call: str, side: Sync | Async, log: list[str]) -> Row:
        """A row of the table."""
        return ApartRow(self, call, side, log)

    def sides(self, sides: Sequence[Sync | Async]) -> Sequence[Sync | Async]:
        """The clients that the fault applies to."""
        return [side for side in sides if isinstance(side, Sync)] if self.only_sync else sides


def network() -> Iterator[Cell]:
    """Faults of TCP and HTTP/2."""
    hasty = {"retry": yandexgpt.Retry(attempts=2, initial=0.1, jitter=0.1)}  # ends before gRPC's reconnect delay grows
    broken, late = errors.UnavailableError, errors.DeadlineExceededError
    yield Cell("connection refused, for 0.15 s", CONNECT, None, Fault("refuse", seconds=0.15))
    yield Cell("connection refused, for good", CONNECT, broken, Fault("refuse"), client=hasty)
    yield Cell("accepted, then silent", CONNECT, late, Fault("stall", "connect"), times=None, timeout=SHORT)
    impatient = {"attempt_timeout": 0.3}  # the next attempt uses a new connection if the first one is silent
    yield Cell("accepted, then silent, once", CONNECT, None, Fault("stall", "connect"), client=impatient)
    yield Cell("stall, once", FIRST, None, Fault("stall"), client=impatient)
    for name, fin in (("TCP broken by RST", False), ("TCP broken by FIN", True)):
        at_once, held = Fault("break", "connect", fin=fin), Fault("break", seconds=HOLD, fin=fin)
        yield Cell(name, CONNECT, None, at_once)
        yield Cell(f"{name}, each time", CONNECT, broken, at_once, times=None, client=hasty)
        yield from everywhere(name, broken, "break", seconds=HOLD, fin=fin)
        yield Cell(f"{name}, each time", FIRST, broken, held, times=None)
        yield Cell(f"{name}, after the headers", FIRST, None, Fault("break", 0, seconds=HOLD, fin=fin))
        yield Cell(f"{name}, after the trailers", LAST, None, Fault("break", "end", fin=fin))
    calm = ErrorCode.ENHANCE_YOUR_CALM
    yield from everywhere("GOAWAY, graceful", None, "goaway")
    yield from everywhere("GOAWAY, graceful, then closed", broken, "goaway", close=True)
    yield from everywhere("GOAWAY, last stream 0", broken, "goaway", last_stream=0)
    too_many = {"code": calm, "debug": b"too_many_pings", "last_stream": 0}
    yield from everywhere("GOAWAY, ENHANCE_YOUR_CALM", broken, "goaway", **too_many)
    internal, cancelled, busy = errors.InternalServerError, errors.CancelledError, errors.QuotaExceededError
    yield from everywhere("RST_STREAM, INTERNAL_ERROR", internal, "reset", code=ErrorCode.INTERNAL_ERROR)
    yield from everywhere("RST_STREAM, REFUSED_STREAM", broken, "reset", code=ErrorCode.REFUSED_STREAM)
    yield from everywhere("RST_STREAM, CANCEL", cancelled, "reset", code=ErrorCode.CANCEL)
    yield from everywhere("RST_STREAM, ENHANCE_YOUR_CALM", busy, "reset", code=calm)
    yield Cell("stall", FIRST, late, Fault("stall"), timeout=SHORT)
    yield Cell("stall", MIDDLE, late, Fault("stall", AFTER), timeout=SHORT)
    yield Cell("stall (the answer comes at the deadline)", LAST, None, Fault("stall", "last"), timeout=SHORT)
    yield Cell("stall, after the trailers", LAST, None, Fault("stall", "end"))
    yield Cell("held up for 0.2 s", CONNECT, None, Fault("delay", "connect", seconds=0.2))
    yield from everywhere("held up for 0.2 s", None, "delay", seconds=0.2)
    yield Cell("slow, over the deadline", FIRST, late, Fault("delay", seconds=1.0), timeout=SHORT)
    yield Cell("slow, over the deadline", MIDDLE, late, Fault("delay", AFTER, seconds=1.0), timeout=SHORT)
    impatient = {"attempt_timeout": 0.3}
    yield Cell("slow, over the attempt's timeout", FIRST, None, Fault("delay", seconds=0.4), client=impatient)
    yield Cell("slow drip", CONNECT, None, Fault("drip", "connect", seconds=0.002, size=16))
    yield from everywhere("slow drip", None, "drip", seconds=0.002, size=16)


def everywhere(name: str, error: type[errors.APIError] | None, kind: Any, **how: Any) -> Iterator[Cell]:
    """A fault of a call in each of its phases.

    Args:
        name: the name of the fault.
        error: the expected error in the middle of the stream; None: no error. In the other phases there is none.
        kind: the kind of the fault.
        how: further arguments of the fault.
    """
    yield Cell(name, FIRST, None, Fault(kind, **how))
    held = {"seconds": HOLD, **how}
    yield Cell(name, MIDDLE, error, Fault(kind, AFTER, **held))
    yield Cell(name, LAST, None, Fault(kind, "last", **held))


def service() -> Iterator[Cell]:
    """Faults of the service."""
    refused, busy, down = errors.AuthenticationError, errors.QuotaExceededError, errors.UnavailableError
    again: tuple[tuple[str, type[errors.APIError]], ...] = (("UNAVAILABLE", down), ("RESOURCE_EXHAUSTED", busy))
    at_once = ("INTERNAL", errors.InternalServerError), ("UNAUTHENTICATED", refused)
    for code, error in again:
        yield Cell(f"status {code}, twice", FIRST, None, fail={"code": code}, times=2)
        yield Cell(f"status {code}, each time", FIRST, error, fail={"code": code}, times=99)
        yield Cell(f"status {code}", MIDDLE, error, fail={"code": code, "after": AFTER})
    for code, error in at_once:
        yield Cell(f"status {code}", FIRST, error, fail={"code": code})
        yield Cell(f"status {code}", MIDDLE, error, fail={"code": code, "after": AFTER})
    quota, auth = {"code": "RESOURCE_EXHAUSTED"}, {"code": "UNAUTHENTICATED"}
    yield Cell("RESOURCE_EXHAUSTED, RetryInfo 0.05 s", FIRST, None, fail={**quota, "retry_after": 0.05})
    yield Cell("RESOURCE_EXHAUSTED, RetryInfo over the deadline", FIRST, busy, fail={**quota, "retry_after": 60.0})
    yield Cell("RESOURCE_EXHAUSTED, pushback 50 ms", FIRST, None, fail={**quota, "pushback": 50})
    yield Cell("RESOURCE_EXHAUSTED, negative pushback", FIRST, busy, fail={**quota, "pushback": -1})
    yield Cell("token refused once, then refreshed", FIRST, None, fail=auth, token=partial(tokens, ended=0))
    yield Cell("token refused, and the next", FIRST, refused, fail=auth, times=2, token=partial(tokens, ended=0))
    yield Cell("token has expired at the server", FIRST, None, outcome=auth["code"], token=partial(tokens, ended=1))
    yield Cell("token expired, and the next", FIRST, refused, outcome=auth["code"], token=partial(tokens, ended=2))
    yield Cell("token exchange UNAVAILABLE once", FIRST, None, outcome="OK", token=exchange_fails)
    limit = {"channel_options": (("grpc.max_receive_message_length", 2000),)}
    yield Cell("message over the size limit", FIRST, errors.InternalServerError, client=limit, big=0)
    yield Cell("message over the size limit", MIDDLE, errors.InternalServerError, client=limit, big=AFTER)
    two: dict[str, Any] = {"emulator": {"max_concurrent": 2}, "at_once": 4}
    ours = {"max_concurrency": 2}
    yield Cell("quota of 2 at once, 4 calls, max_concurrency=2", FIRST, None, outcome="OK", client=ours, **two)
    yield Cell("quota of 2 at once, 4 calls, no limit of ours", FIRST, None, outcome=quota["code"], **two)


def tokens(emulator: Emulator, ended: int) -> TokenProvider:
    """A source of tokens. The server regards the first `ended` tokens as expired, although the client does not."""
    lifetimes = iter([0.0] * ended)
    return TokenProvider(lambda: ExpiringToken(emulator.identity.issue(next(lifetimes, None)), lifetime=3600))


def exchange_fails(emulator: Emulator) -> OAuthToken:
    """An OAuth token whose first exchange fails, because the identity service is unavailable."""
    emulator.identity.fail("UNAVAILABLE")
    return OAuthToken(emulator.identity.oauth_token())


def process() -> Iterator[Cell]:
    """Faults in the process of the client."""
    broken, late, closed = errors.UnavailableError, errors.DeadlineExceededError, errors.CancelledError
    down = {"code": "UNAVAILABLE"}
    for name in ("generator", "wrapper", "slow"):
        foreign = f"interceptor: {INTERCEPTORS[name]}"
        yield Cell(f"{foreign}; status UNAVAILABLE, twice", FIRST, None, fail=down, times=2, interceptor=name)
        yield Cell(f"{foreign}; status UNAVAILABLE", MIDDLE, broken, fail={**down, "after": AFTER}, interceptor=name)
        stall = Fault("stall", AFTER)
        yield Cell(f"{foreign}; stall", MIDDLE, late, stall, timeout=SHORT, interceptor=name)
    for name in ("too slow", "raises"):
        error = late if name == "too slow" else errors.APIError
        yield Cell(f"interceptor: {INTERCEPTORS[name]}", CONNECT, error, timeout=SHORT, interceptor=name)
    another = "closed by another thread or task while its reader is busy"
    yield ClosedCell(f"the stream is {another}", MIDDLE, closed)
    yield ClosedCell(f"the client is {another}", MIDDLE, closed, closed="client")
    yield ApartCell("garbage collection finalizes a half-read stream", ANY, what="collections")
    yield ApartCell("a signal handler makes a call", ANY, what="signals-call", only_sync=True)
    yield ApartCell("a signal handler closes the client", ANY, closed, what="signals-close", only_sync=True)
    hundred = "left early, 100 streams a run: memory and sockets"
    yield ApartCell(hundred, MIDDLE, what="given-up", only_calls=("stream",))


class Foreign(grpc.UnaryStreamClientInterceptor):
    """A user's interceptor that returns another object than gRPC's call, is slow, or raises an exception."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Intercept a call."""
        if self._kind == "raises":
            raise grpc.RpcError("trouble of its own")
        time.sleep(slowness(self._kind))
        response = continuation(client_call_details, request)
        if self._kind == "generator":
            return (message for message in response)
        return Wrapped(response) if self._kind == "wrapper" else response


class Wrapped:
    """A response that can only be iterated over."""

    def __init__(self, response: Iterator[Any]) -> None:
        self._response = response

    def __iter__(self) -> Wrapped:
        return self

    def __next__(self) -> Any:
        return next(self._response)


class ForeignAsync(grpc.aio.UnaryStreamClientInterceptor):
    """The same for ``grpc.aio``."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Intercept a call."""
        if self._kind == "raises":
            raise grpc.RpcError("trouble of its own")
        await asyncio.sleep(slowness(self._kind))
        response = await continuation(client_call_details, request)
        return self._messages(response) if self._kind in ("generator", "wrapper") else response

    async def _messages(self, response: Any) -> AsyncIterator[Any]:
        async for message in response:
            yield message


SLOW = 0.05  # seconds that an interceptor takes


def slowness(kind: str) -> float:
    """Seconds that an interceptor takes."""
    return {"slow": SLOW, "too slow": SHORT * 1.5}.get(kind, 0.0)


INTERCEPTORS = {
    "generator": "hands out a generator",
    "wrapper": "hands out an object without cancel(), code() and metadata",
    "slow": f"takes {SLOW:g} s",
    "too slow": "takes longer than the deadline",
    "raises": "raises a bare grpc.RpcError",
}


class Shown:
    """The text that a reader has been shown, and whether each chunk was consistent with it."""

    def __init__(self) -> None:
        self.text = ""
        self.lawful = True
        self.states: set[str] = set()

    def add(self, chunk: yandexgpt.Chunk) -> None:
        """Apply a chunk."""
        self.text = self.text[: chunk.keep] + chunk.delta
        self.lawful = self.lawful and self.text == chunk.text
        self.states.add(self.text)


class Sync:
    """Calls of a `Client`, each in a new daemon thread."""

    client = yandexgpt.Client
    foreign = Foreign

    def close(self) -> None:
        """Does nothing: there is nothing to close."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function; the future holds what it returns or raises."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # from here on it cannot be cancelled

        def body() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - the caller gets it from the future
                future.set_exception(error)

        threading.Thread(target=body, daemon=True).start()
        return future

    def call(self, client: yandexgpt.Client, call: str, prompt: str, shown: Shown) -> str:
        """Make a call and return the text of its answer."""
        if call == "complete":
            return client.complete(prompt).text
        with client.stream(prompt) as stream:
            for chunk in stream:
                shown.add(chunk)
        return stream.completion.text

    def read_on(self, client: yandexgpt.Client, call: str, prompt: str, closed: str) -> None:
        """Read one item, let another thread close the stream or the client, and continue to read."""
        opened: Any = opening(client, call, prompt)
        reader = opened.text() if call == "text()" else opened
        next(reader)
        self.run(client.close if closed == "client" else opened.close).result(TIMEOUT)
        for _ in reader:
            pass


class Async:
    """Calls of an `AsyncClient`, as tasks of one event loop in a separate thread."""

    client = yandexgpt.AsyncClient
    foreign = ForeignAsync

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the event loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Await a coroutine function; the future holds what it returns or raises."""
        return asyncio.run_coroutine_threadsafe(function(*arguments), self._loop)

    async def call(self, client: yandexgpt.AsyncClient, call: str, prompt: str, shown: Shown) -> str:
        """Make a call and return the text of its answer."""
        if call == "complete":
            return (await client.complete(prompt)).text
        async with client.stream(prompt) as stream:
            async for chunk in stream:
                shown.add(chunk)
        return stream.completion.text

    async def read_on(self, client: yandexgpt.AsyncClient, call: str, prompt: str, closed: str) -> None:
        """Read one item, let another task close the stream or the client, and continue to read."""
        opened: Any = opening(client, call, prompt)
        reader = opened.text() if call == "text()" else opened
        await anext(reader)
        await asyncio.create_task(client.close() if closed == "client" else opened.close())
        async for _ in reader:
            pass


def opening(client: Any, call: str, prompt: str) -> Any:
    """Open the stream or the results that are read and closed."""
    if call == "complete_many":
        return client.complete_many([prompt] * MANY, concurrency=2, ordered=False)
    return client.stream(prompt, latest=call == "stream(latest=True)")


@contextmanager
def logged() -> Iterator[list[str]]:
    """Turn on the package's log at level DEBUG; yield the list of its formatted lines."""
    logger, handler, lines = logging.getLogger("yandexgpt"), logging.Handler(), list[str]()
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@dataclass
class Row:
    """A row of the table with its runs: a cell, for one call and client."""

    cell: Cell
    call: str
    side: Sync | Async
    log: list[str]
    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def measure(self, runs: int) -> None:
        """Make a number of runs. A run counts if its fault was played, and at most once in each column."""
        with Emulator(**self.cell.emulator) as emulator, FaultProxy(emulator.endpoint) as proxy:
            for _ in range(runs * TRIES):
                if self.runs == runs or self.counts[HANGS] >= 3:  # each hung call takes a thread and time
                    break
                played, wrongs = self.one(emulator, proxy)
                self.runs += played
                self.counts.update({column for column, _ in wrongs})
                self.notes += [f"{column}: {note}" for column, note in wrongs]

    def one(self, emulator: Emulator, proxy: FaultProxy) -> tuple[bool, list[tuple[str, str]]]:
        """Make one run; return whether the fault was played, and the errors: column and description."""
        cell, side, lines, faults = self.cell, self.side, len(self.log), len(proxy.faults_played)
        key, prompt = secrets.token_hex(20), secrets.token_hex(20)
        texts = [[text + "!" * 4000 * (n >= cell.big) for n, text in enumerate(answer)] for answer in ANSWERS]
        options: dict[str, Any] = {"timeout": cell.timeout, "retry": RETRY, "tls": False, "folder_id": "b1g"}
        options |= {"endpoint": proxy.endpoint, "iam_endpoint": emulator.endpoint, **cell.client}
        if cell.interceptor:
            options["interceptors"] = [side.foreign(cell.interceptor)]
        client: Any = side.client(credentials=cell.token(emulator) if cell.token else key, **options)
        for *partials, final in texts:
            emulator.reply(final, partials=partials, delay=0.02 * (cell.at_once > 1))
        if cell.fail is not None:
            emulator.fail(**cell.fail, times=cell.times or 1)
        if cell.wire is not None:
            proxy.inject(cell.wire, cell.times)
        shown = [Shown() for _ in range(cell.at_once)]
        results = watch([side.run(side.call, client, self.call, prompt, each) for each in shown], cell.timeout + GRACE)
        wrongs = [wrong for end, seen in zip(results, shown, strict=True) for wrong in self.judge(end, seen, texts)]
        played = until(lambda: self.was_played(emulator, proxy, faults), 1.0)
        if cell.wire is not None and cell.wire.kind == "stall":
            proxy.clear()  # breaks the connection: before that, the server cannot know that the call has ended
        wrongs += leaked(emulator)
        proxy.clear()
        emulator.clear()
        emulator.reply("снова", times=RETRY.attempts)
        if cell.interceptor != "raises":  # it would raise again
            again = client.with_options(timeout=TIMEOUT, retry=RETRY)
            results += watch([side.run(side.call, again, "complete", prompt, Shown())], TIMEOUT + GRACE)
            if results[-1] != "снова":
                wrongs.append((HANGS if results[-1] is HUNG else ERRORS, f"the next call: {results[-1]!r}"))
            wrongs += leaked(emulator)
        emulator.clear()
        if watch([side.run(client.close)], 10.0) != [None]:
            wrongs.append((HANGS, "close()"))
        said = [("the log", "\n".join(self.log[lines:]))]
        said += [pair for error in results if isinstance(error, BaseException) for pair in words(error)]
        hidden = [key, prompt, *emulator.identity.issued[-4:]]
        wrongs += [(SECRETS, f"in {where}") for where, text in said for secret in hidden if secret in text]
        return played, wrongs

    def was_played(self, emulator: Emulator, proxy: FaultProxy, before: int) -> bool:
        """Return whether the fault has happened."""
        if self.cell.wire is not None:
            return any(played.fault is self.cell.wire for played in proxy.faults_played[before:])
        if self.cell.phase == CONNECT and self.cell.interceptor:
            return True  # nothing was sent
        wanted = self.cell.outcome if self.cell.fail is None else self.cell.fail["code"]
        return any(wanted in (None, request.outcome) for request in emulator.requests)

    def judge(self, end: Any, shown: Shown, texts: list[list[str]]) -> Iterator[tuple[str, str]]:
        """Compare the outcome of a call, and the text shown to its reader, with the expected outcome."""
        expected = self.cell.expected
        if end is HUNG:
            yield HANGS, "the call"
            return
        if isinstance(end, str):
            right = end in [answer[-1] for answer in texts]
            wanted = end if self.call == "stream" else ""
        else:
            wanted = getattr(getattr(end, "partial", None), "text", "")
            right = wanted in ([answer[AFTER - 1] for answer in texts] if self.cell.phase == MIDDLE else [""])
        one_answer = any(shown.states <= {text.rstrip("\ufffd") for text in answer} for answer in texts)
        if not (right and shown.text == wanted and shown.lawful and one_answer):
            yield TEXT, f"shown {shown.text[:99]!r}, then {end!r}"
        if type(end) is not (expected or str):
            yield ERRORS, f"{end!r}"
        elif isinstance(end, errors.APIError) and not (end.request_id and end.endpoint and end.attempts):
            yield ERRORS, f"without request id, endpoint or attempts: {end!r}"


class ClosedRow(Row):
    """A row of a :class:`ClosedCell`."""

    cell: ClosedCell

    def one(self, emulator: Emulator, proxy: FaultProxy) -> tuple[bool, list[tuple[str, str]]]:
        """Make one run."""
        side, lines, key, prompt = self.side, len(self.log), secrets.token_hex(20), secrets.token_hex(20)
        client: Any = side.client(
            credentials=key, endpoint=proxy.endpoint, timeout=TIMEOUT, retry=RETRY, tls=False, folder_id="b1g"
        )
        *partials, final = ANSWERS[0]
        many = self.call == "complete_many"
        emulator.reply(final, partials=partials)  # answers one of many prompts; a stream gets two of the partials
        if many:
            emulator.reply(final, delay=FOREVER, times=MANY)
        else:
            emulator.fail("UNAVAILABLE", after=AFTER, delay=FOREVER)
        reading = side.run(side.read_on, client, self.call, prompt, self.cell.closed)
        (end,) = watch([reading], TIMEOUT + GRACE)
        wrongs = []
        if end is HUNG:
            wrongs.append((HANGS, "the reader"))
        elif not isinstance(end, errors.CancelledError):
            wrongs.append((ERRORS, f"a normal end: {end!r}" if end is None else f"{end!r}"))
        elif not many and getattr(end.partial, "text", "") not in partials[:AFTER]:
            wrongs.append((TEXT, f"partial: {end.partial!r}"))
        wrongs += leaked(emulator)
        emulator.clear()
        if watch([side.run(client.close)], 10.0) != [None]:
            wrongs.append((HANGS, "close()"))
        said = [("the log", "\n".join(self.log[lines:]))]
        said += list(words(end)) if isinstance(end, BaseException) else []
        wrongs += [(SECRETS, f"in {where}") for where, text in said for secret in (key, prompt) if secret in text]
        return True, wrongs


class ApartRow(Row):
    """A row whose runs are made in a separate process."""

    cell: ApartCell

    def measure(self, runs: int) -> None:
        """Make a number of runs."""
        with Emulator() as emulator:
            name = self.side.client.__name__
            command = [sys.executable, str(APART), self.cell.what, self.call, name, str(runs), emulator.endpoint]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=APART_SECONDS, check=False)
            except subprocess.TimeoutExpired as error:
                self.counts[HANGS] += 1
                self.notes.append(f"{HANGS}: {error}")
                return
            if done.returncode:
                self.counts[ERRORS] += 1
                self.notes.append(f"{ERRORS}: exit {done.returncode}: {done.stderr[-2000:]}")
                return
            found = json.loads(done.stdout)
            self.runs = found["runs"]
            self.counts.update(found["counts"])
            self.notes += found["notes"]
            for column, note in leaked(emulator):
                self.counts[column] += 1
                self.notes.append(f"{column}: {note}")


def watch(futures: Sequence[Future[Any]], seconds: float) -> list[Any]:
    """Return the results and errors of the futures; HUNG for a future that has not ended within `seconds`."""
    wait(futures, seconds)
    for future in futures:
        future.cancel()  # does nothing to one that has ended
    return [
        HUNG if future.cancelled() or not future.done() else future.exception() or future.result() for future in futures
    ]


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition; return whether it became true within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def leaked(emulator: Emulator) -> list[tuple[str, str]]:
    """Return an error if a call still runs at the server :data:`LEAK` seconds after its end."""
    ended = until(lambda: not emulator.in_flight and all(request.outcome for request in emulator.requests), LEAK)
    return [] if ended else [(CALLS, f"{emulator.requests}, {emulator.in_flight} in flight")]


def words(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield the texts that an error can be shown as."""
    yield "str", str(error)
    yield "repr", repr(error)
    yield "traceback", "".join(traceback.format_exception(error))
    yield "pickle", pickle.dumps(error).decode("latin-1")


def measure(cells: Sequence[Cell], runs: int, workers: int) -> list[Row]:
    """Make all runs of the cells, several rows at a time; return a row for each cell, call and client."""
    sides = (Sync(), Async())
    with logged() as log, ThreadPoolExecutor(workers) as pool:
        rows = [cell.row(call, side, log) for cell in cells for call in cell.calls for side in cell.sides(sides)]
        # The longest rows first, so that none of them runs alone at the end.
        list(pool.map(lambda row: row.measure(runs), sorted(rows, key=lambda row: row.cell.timeout)))
    for side in sides:
        side.close()
    return rows


def document(rows: Sequence[Row], runs: int, seconds: float) -> str:
    """The page: the table, its introduction, and the command to repeat it."""
    head = ["fault", "phase", "call", "client", "expected outcome", "runs", *COLUMNS]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * 5}{'--:|' * (len(head) - 5)}"]
    total = Counter[str]()
    for row in rows:
        cell = row.cell
        outcome = f"`{cell.expected.__name__}`" if cell.expected else "the whole answer"
        outcome += " with `.partial`" if cell.expected and cell.phase == MIDDLE else ""
        what = [cell.fault, cell.phase, f"`{row.call}`", f"`{row.side.client.__name__}`", outcome, str(row.runs)]
        lines.append(f"| {' | '.join([*what, *(str(row.counts[column]) for column in COLUMNS)])} |")
        total += row.counts
    return PAGE.format(
        table="\n".join(lines),
        rows=len(rows),
        runs=runs,
        total=sum(row.runs for row in rows),
        sums=", ".join(f"{column} {total[column]}" for column in COLUMNS),
        versions=f"grpcio {grpc.__version__}, protobuf {google.protobuf.__version__}",
        python=platform.python_version(),
        date=datetime.datetime.now(datetime.timezone.utc).date(),
        seconds=round(seconds),
    )


PAGE = f"""# Reliability

This page shows what the clients do when the network or the service fails. Each run makes a call through a proxy that
breaks the connection at an exact point of the call, or to a service that returns a chosen error. A run counts only if
the fault really happened. After such a fault the same client makes another call, which must succeed.

All {{total}} runs, in {{rows}} rows: {{sums}}.

- **hung**: the call did not end within {GRACE:g} s after its deadline, or `close()` did not end.
- **wrong text**: the answer was not the whole answer of one attempt, or the reader of the stream was shown another text
  than the answer (with an error: than its `.partial`), or a received message was lost.
- **leaked calls**: the call still ran at the server {LEAK:g} s after its end at the client, or its memory or connection
  was not released. (If the network stalls, the server cannot know that the call has ended. In these rows the connection
  is broken first, then the server is checked, and only then the next call is made.)
- **leaked secrets**: the API key, a token or the prompt was in `str`, `repr`, traceback or pickle of an error, or in
  the log at level DEBUG.
- **other errors**: the outcome was not the expected one, or the next call failed.

"{LAST}" means before the status, unless the row names the trailers. A call is retried only before its
first message was received.

The proxy sends an RST {HOLD:g} s after the last byte before it. The reason is grpcio below 1.80, which may miss an RST
that arrives together with data: epoll reports both at once, and after gRPC has read the data, it waits for another
report. The attempt then lasts until its timeout or deadline. With such a version, set an `attempt_timeout`, or
GRPC_POLL_STRATEGY=poll in the environment.

{{table}}

"{ANY.capitalize()}": each run interrupts the call at another allocation, or at another line of this package. Such a
row has a separate process.

To repeat: `make reliability`, or `python scripts/reliability.py --runs N --only WORDS`. This table: {{date}},
{{versions}}, Python {{python}}; {{total}} runs, {{runs}} per row, in {{seconds}} s.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page; return 0 if all counts are zero."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50, help="runs of each row")
    parser.add_argument("--workers", type=int, default=16, help="rows measured at once")
    parser.add_argument("--only", default="", help="only rows whose fault and phase hold these words; writes nothing")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    cells = [cell for cell in (*network(), *service(), *process()) if options.only in f"{cell.fault}, {cell.phase}"]
    began = time.monotonic()
    rows = measure(cells, options.runs, options.workers)
    seconds = time.monotonic() - began
    wrong = [row for row in rows if any(row.counts.values()) or row.runs < options.runs]
    for row in wrong:
        name = row.side.client.__name__
        print(f"{row.cell.fault}, {row.cell.phase}, {row.call}, {name}: {row.runs} runs, {dict(row.counts)}")
        for note, times in Counter(row.notes).most_common(3):
            print(f"    {times} x {note[:1000]}")
    if not options.only:
        options.output.parent.mkdir(exist_ok=True)
        options.output.write_text(document(rows, options.runs, seconds))
    print(f"{len(rows)} rows, {sum(row.runs for row in rows)} runs in {seconds:.0f} s; {len(wrong)} rows not all zeros")
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
