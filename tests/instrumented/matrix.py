"""Checks of both clients under instrumentation, the same for every program of this directory.

``scripts/instrumented.py`` starts each program in its own environment. The emulator runs in another process, so that
the instrumentation does not wrap it. One line is printed per check. The exit code is 1 if a check failed. A check that
hangs ends the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

import grpc
from driver import Background, ClientFactory, until

import yandexgpt
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2

LIMIT = 60.0
"""Time limit of one check in seconds. A longer check counts as hanging."""
SOON = 5.0
"""Seconds within which a cancellation must reach the server, and spans must end. Both take milliseconds."""
_CHANNEL = str(Path(grpc.__file__).with_name("_channel.py"))
EVERY = frozenset({"OK", "CANCELLED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "UNAVAILABLE"})


class Desk:
    """A client of the control server of the emulator, see ``scripts/instrumented.py``. Thread-safe."""

    def __init__(self) -> None:
        host, _, port = os.environ["EMULATOR_DESK"].rpartition(":")
        self._address = host, int(port)

    def clear(self) -> None:
        """Clear the recorded calls and the scripted failures."""
        self._ask(clear=True)

    def fail(self, code: str, **options: Any) -> None:
        """Let the next call fail."""
        self._ask(fail={"code": code, **options})

    def seen(self, request_id: str, seconds: float = SOON) -> list[dict[str, Any]]:
        """The recorded calls with this id, after they have ended."""
        ended: list[dict[str, Any]] | None = self._ask(seen=request_id, seconds=seconds)
        assert ended is not None, "at the server the call has not come, or still runs"
        return ended

    def arrived(self, request_id: str) -> None:
        """Return when a call with this id has arrived."""
        assert self._ask(arrived=request_id, seconds=SOON), "the call has not come"

    def outcomes(self, request_id: str) -> list[str]:
        """The outcomes of the calls with this id, after they have ended."""
        return [call["outcome"] for call in self.seen(request_id)]

    def _ask(self, **question: Any) -> Any:
        with socket.create_connection(self._address) as connection, connection.makefile("rwb") as lines:
            lines.write(json.dumps(question).encode() + b"\n")
            lines.flush()
            return json.loads(lines.readline())


class Spans:
    """The spans that an instrumentation records. This class records none; each program has its own subclass.

    Attributes:
        header: the metadata key of the trace context that is sent with every call, or None.
        unseen: the outcomes whose status the spans do not show.
        unseen_async: the same for asynchronous calls.
        of_threads: whether calls in new threads are recorded.
    """

    header: str | None = None
    unseen: frozenset[str] = EVERY
    unseen_async: frozenset[str] = EVERY
    of_threads = True

    def ended(self) -> list[tuple[str, str | None]] | None:
        """Method and status of each span that ended since the previous call. None: no spans are recorded."""
        return None


def new_id() -> str:
    return str(uuid.uuid4())


def reads(background: Background) -> None:
    """Return when the thread waits in gRPC or for another thread."""

    def waits() -> bool:
        frame = sys._current_frames().get(background._thread.ident or 0)
        while frame is not None and frame.f_code.co_filename not in (threading.__file__, _CHANNEL):
            frame = frame.f_back
        return frame is not None or not background._thread.is_alive()

    until(waits)


@contextlib.contextmanager
def raises(kind: type[yandexgpt.APIError]) -> Iterator[list[yandexgpt.APIError]]:
    """Fail if the block does not raise this error. The error is then in the list."""
    caught: list[yandexgpt.APIError] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
    else:
        raise AssertionError(f"no {kind.__name__}")


class World:
    """One kind of client, the emulator, and the spans of the calls.

    Args:
        kind: ``"sync"`` or ``"async"``.
        spans: the spans of the instrumentation.
        arguments: constructor arguments of every client.
        settle: returns when another thread reads.
        name: the prefix of the printed checks.
    """

    def __init__(
        self,
        kind: str,
        spans: Spans,
        arguments: dict[str, Any] | None = None,
        settle: Callable[[Background], Any] = reads,
        name: str = "",
    ) -> None:
        self.kind = kind
        self.name = name or kind
        self.spans = spans
        self.settle = settle
        self.desk = Desk()
        self.factory = ClientFactory(kind)
        self.arguments = {"retry": yandexgpt.Retry(initial=0.01, maximum=0.02), "timeout": 20.0, **(arguments or {})}

    def client(self, **arguments: Any) -> Any:
        """A new client, which the caller closes."""
        return self.factory.make(**{**self.arguments, **arguments})

    def run(self, coroutine: Any) -> Any:
        """The result of a coroutine, run in the loop of the asynchronous client."""
        assert self.factory._loop is not None
        return self.factory._loop.run(coroutine)

    def noted(self, *outcomes: str, method: str = "Completion", of_many: bool = False) -> None:
        """Check that exactly these outcomes of a method were recorded as spans since the previous check.

        With `of_many`, the calls are those of ``complete_many``: asynchronous, and in another thread.
        """
        if of_many and self.kind == "sync" and not self.spans.of_threads:
            return
        asynchronous = of_many or self.kind == "async"
        unseen = self.spans.unseen_async if asynchronous else self.spans.unseen
        wanted = [(method, outcome) for outcome in outcomes]
        found: list[tuple[str, str | None]] = []

        def enough() -> bool:
            found.extend(self.spans.ended() or ())
            return len(found) >= len(wanted)

        if (first := self.spans.ended()) is None:
            return
        found += first
        with contextlib.suppress(AssertionError):  # missing spans are reported below
            until(enough, SOON)
        left, unsure = list(found), []
        for each in wanted:
            if each in left:
                left.remove(each)
            else:
                unsure.append(each)
        for each in unsure:
            known = next((span for span in left if span[0] == each[0] and each[1] in unseen), None)
            assert known is not None, f"spans ended: {found}, wanted: {wanted}"
            left.remove(known)
        assert not left, f"spans ended: {found}, wanted: {wanted}"

    def close(self) -> None:
        """Close the clients and the loop. Fail if the loop has tasks left."""
        self.factory.close()


# Checks


def connect(world: World) -> None:
    with world.client() as client:
        client.connect(5.0)
    world.spans.ended()  # discard the span of the connection check


def complete(world: World) -> None:
    with world.client() as client:
        answer = client.complete("раз два")
        assert answer.text == "раз два", answer
        (call,) = world.desk.seen(answer.request_id)
        assert answer.server_request_id == call["server_request_id"], (answer.server_request_id, call)
        if world.spans.header is not None:
            assert world.spans.header in call["keys"], call
    world.noted("OK")


def stream_to_its_end(world: World) -> None:
    with world.client() as client:
        stream = client.stream("раз два")
        assert [chunk.text for chunk in stream] == ["раз", "раз два", "раз два"]
        (call,) = world.desk.seen(stream.request_id)
        assert stream.completion.server_request_id == call["server_request_id"]
    world.noted("OK")


def stream_closed_early(world: World) -> None:
    with world.client() as client:
        stream = client.stream("stalls")
        assert next(stream).text == "раз"
        stream.close()
        assert world.desk.outcomes(stream.request_id) == ["CANCELLED"]
        world.noted("CANCELLED")  # before the client is closed
        assert client.complete("раз").text == "раз"
    world.noted("OK")


def stream_left_by_an_error(world: World) -> None:
    with world.client() as client:
        try:
            with client.stream("stalls") as stream:
                next(stream)
                raise ZeroDivisionError
        except ZeroDivisionError:
            assert world.desk.outcomes(stream.request_id) == ["CANCELLED"]
        world.noted("CANCELLED")


def stream_dropped(world: World) -> None:
    with world.client() as client:
        stream = client.stream("stalls")
        assert next(stream).text == "раз"
        request_id = stream.request_id
        del stream
        gc.collect()
        assert world.desk.outcomes(request_id) == ["CANCELLED"]
        world.noted("CANCELLED")


def stream_closed_by_another_while_it_is_read(world: World) -> None:
    with world.client() as client:
        _ended_by_another(world, client.stream("stalls"), lambda stream: stream.close())


def client_closed_while_a_stream_is_read(world: World) -> None:
    client = world.client()
    _ended_by_another(world, client.stream("stalls"), lambda _: client.close())


def _ended_by_another(world: World, stream: Any, end: Callable[[Any], Any]) -> None:
    assert next(stream).text == "раз"
    reading = Background(list, stream)
    world.settle(reading)
    end(stream)
    error = reading.error()
    assert isinstance(error, yandexgpt.CancelledError), f"the reader got {error!r}"
    assert world.desk.outcomes(stream.request_id) == ["CANCELLED"]
    world.noted("CANCELLED")


def call_cancelled_before_its_first_message(world: World) -> None:
    client, request_id = world.client(), new_id()
    calling = Background(client.complete, "silent", request_id=request_id)
    world.desk.arrived(request_id)
    client.close()
    error = calling.error()
    assert isinstance(error, yandexgpt.CancelledError), f"the caller got {error!r}"
    assert world.desk.outcomes(request_id) == ["CANCELLED"]
    world.noted("CANCELLED")


def error(world: World) -> None:
    with world.client() as client:
        with raises(yandexgpt.InvalidArgumentError) as caught:
            client.complete("refused")
        (failed,) = caught
        (call,) = world.desk.seen(failed.request_id or "")
        assert failed.server_request_id == call["server_request_id"], vars(failed)
        assert failed.attempts == 1, vars(failed)
    world.noted("INVALID_ARGUMENT")


def error_after_the_first_chunk(world: World) -> None:
    with world.client() as client:
        world.desk.fail("UNAVAILABLE", after=1)
        with raises(yandexgpt.UnavailableError) as caught:
            list(client.stream("раз два"))
        (failed,) = caught
        assert failed.partial, vars(failed)
        assert failed.partial.text == "раз", failed.partial
        assert failed.server_request_id, vars(failed)
    world.noted("UNAVAILABLE")


def retry(world: World) -> None:
    with world.client() as client:
        world.desk.fail("UNAVAILABLE")
        answer = client.complete("раз два")
        assert answer.text == "раз два", answer
        assert [call["outcome"] for call in world.desk.seen(answer.request_id)] == ["UNAVAILABLE", "OK"]
    world.noted("UNAVAILABLE", "OK")


def deadline(world: World) -> None:
    with world.client() as client:
        began, request_id = time.monotonic(), new_id()
        with raises(yandexgpt.DeadlineExceededError):
            client.complete("silent", timeout=0.5, request_id=request_id)
        took = time.monotonic() - began
        assert 0.4 < took < 2.0, f"it took {took:.2f} s"
        assert world.desk.outcomes(request_id) == ["CANCELLED"]
        world.noted("DEADLINE_EXCEEDED")


def deadline_in_the_middle_of_a_stream(world: World) -> None:
    with world.client() as client:
        began = time.monotonic()
        stream = client.stream("stalls", timeout=0.5)
        with raises(yandexgpt.DeadlineExceededError):
            list(stream)
        took = time.monotonic() - began
        assert took < 2.0, f"it took {took:.2f} s"
        assert world.desk.outcomes(stream.request_id) == ["CANCELLED"]
        world.noted("DEADLINE_EXCEEDED")


def complete_many(world: World) -> None:
    prompts = ["раз", "refused", "два три", "четыре"]
    with world.client() as client, _many(world):
        results = list(client.complete_many(prompts, concurrency=2, on_error="return"))
        assert [result.index for result in results] == [0, 1, 2, 3]
        assert isinstance(results[1].error, yandexgpt.InvalidArgumentError), results[1]
        answers = [result.completion for result in results if result.error is None]
        assert [answer.text for answer in answers] == ["раз", "два три", "четыре"], answers
        assert all(answer.server_request_id for answer in answers), answers
        world.noted("OK", "OK", "OK", "INVALID_ARGUMENT", of_many=True)


def complete_many_closed_early(world: World) -> None:
    with world.client() as client, _many(world):
        request_id = new_id()
        results = client.complete_many(["раз", "silent"], concurrency=2, request_id=request_id)
        assert next(results).completion.text == "раз"
        results.close()
        assert world.desk.outcomes(f"{request_id}-1") == ["CANCELLED"]
        world.noted("OK", "CANCELLED", of_many=True)


@contextlib.contextmanager
def _many(world: World) -> Iterator[None]:
    """Accept that ``complete_many``, whose calls are asynchronous, rejects synchronous interceptors."""
    try:
        yield
    except yandexgpt.ConfigurationError as refused:
        if world.kind == "async" or "interceptors" not in world.arguments or "interceptors" not in str(refused):
            raise


def tokenize(world: World) -> None:
    with world.client() as client:
        assert [token.text for token in client.tokenize("раз два")] == ["раз", " два"]
    world.noted("OK", method="Tokenize")


def operation(world: World) -> None:
    with world.client() as client:
        submitted = client.submit("раз два")
        assert submitted.wait(20.0).text == "раз два"
    ended = world.spans.ended()
    assert ended is None or {method for method, _ in ended} == {"Completion", "Get"}, ended


def fork(world: World) -> None:
    with world.client() as client:
        assert client.complete("раз").text == "раз"
        pid = os.fork()
        if not pid:
            _in_child(world, client)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, f"the child ended with {status}"
        assert client.complete("три").text == "три"
    world.noted("OK", "OK")


def _in_child(world: World, client: Any) -> None:
    """Make a call and exit."""
    signal.alarm(20)  # kills a child that hangs
    status = 1
    try:
        # The loop of the asynchronous client runs in a thread that exists only in the parent.
        answer = client.complete("два") if world.kind == "sync" else asyncio.run(client._client.complete("два"))
        status = 0 if answer.text == "два" else 2
    except Exception:  # noqa: BLE001  (printed; the exit code tells the parent)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def raw_unary(world: World) -> None:
    asked = text_generation_service_pb2.TokenizeRequest(model_uri="gpt://emulator/yandexgpt", text="раз два")
    with world.client() as client:
        raw = client.raw

        async def ask() -> Any:
            return await raw.tokenizer.Tokenize(asked, timeout=SOON)

        found = raw.tokenizer.Tokenize(asked, timeout=SOON) if world.kind == "sync" else world.run(ask())
        assert [token.text for token in found.tokens] == ["раз", " два"], found
    world.noted("OK", method="Tokenize")


def raw_stream(world: World) -> None:
    asked = text_generation_service_pb2.CompletionRequest(
        model_uri="gpt://emulator/yandexgpt",
        messages=[text_common_pb2.Message(role="user", text="раз два")],
    )
    asked.completion_options.stream = True
    with world.client() as client:
        raw = client.raw

        async def ask() -> Any:
            return [message async for message in raw.text_generation.Completion(asked, timeout=SOON)]

        found = list(raw.text_generation.Completion(asked, timeout=SOON)) if world.kind == "sync" else world.run(ask())
        assert [message.alternatives[0].message.text for message in found] == ["раз", "раз два", "раз два"], found
    world.noted("OK")


def many_threads(world: World) -> None:
    with world.client(max_concurrency=3) as client:
        calls = [Background(client.complete, f"раз {number}") for number in range(12)]
        assert [call.result().text for call in calls] == [f"раз {number}" for number in range(12)]
    if world.spans.of_threads:
        world.noted(*["OK"] * 12)
    else:
        world.spans.ended()


CHECKS: tuple[Callable[[World], None], ...] = (
    connect,
    complete,
    stream_to_its_end,
    stream_closed_early,
    stream_left_by_an_error,
    stream_dropped,
    stream_closed_by_another_while_it_is_read,
    client_closed_while_a_stream_is_read,
    call_cancelled_before_its_first_message,
    error,
    error_after_the_first_chunk,
    retry,
    deadline,
    deadline_in_the_middle_of_a_stream,
    complete_many,
    complete_many_closed_early,
    tokenize,
    operation,
    fork,
    raw_unary,
    raw_stream,
    many_threads,
)


class Reporter:
    """Runs checks, prints one line for each, and counts failures."""

    def __init__(self) -> None:
        self.failures = 0
        faulthandler.enable()

    def check(self, name: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a check. If it exceeds its time limit, print the stack of every thread and end the program."""
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        print(f"... {name}", flush=True)  # the last line of a program that hangs
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001  (reported; the other checks still run)
            self.failures += 1
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            print(f"FAILED {name}: {type(error).__name__}: {error} ({where}: {frame.line})", flush=True)
        else:
            print(f"ok {name}", flush=True)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def exit(self) -> None:
        """Exit with 1 if a check failed or a thread is left, else with 0."""
        left = [each for each in threading.enumerate() if each.name.startswith("yandexgpt")]
        if left:
            print(f"FAILED threads are left: {left}", flush=True)
        sys.stdout.flush()
        sys.exit(1 if self.failures or left else 0)


def run(reporter: Reporter, world: World, checks: Iterable[Callable[[World], None]] = CHECKS) -> None:
    """Run all checks with clients of one kind."""

    def one(check: Callable[[World], None]) -> None:
        world.spans.ended()  # discard the spans of an earlier check that failed
        world.desk.clear()
        check(world)

    for check in checks:
        reporter.check(f"{world.name} {check.__name__.replace('_', ' ')}", one, check)
    reporter.check(f"{world.name} nothing is left", world.close)
