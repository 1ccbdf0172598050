"""Measures the cost of gRPC's single-threaded streams, with a server that sends each message in a separate packet.

    python bench/single_threaded.py [--rounds N] [--seconds S] [--only WORDS]

With the option, the thread that reads a stream also drives it. Without it, every call has a thread of its own. Which is
cheaper depends on the arrival of the messages, and on the number of concurrent calls. Every variant is a separate
process, against one server process. The variants are measured in rounds: in their order in one round, in reverse order
in the next. For each call or chunk, the output has the medians of the client's CPU time (user and system, of the whole
process) and of the wall time. In brackets is the lowest CPU time of all rounds, which depends less on other processes
of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental
from answers import message, partials
from clients_ours import ASKED, options
from clients_raw import BEST, NO_RETRIES, alike, caller, plain
from http2 import DATA, DEFAULT_WINDOW_BYTES, END_HEADERS, END_STREAM, HEADER_BLOCK, HEADERS, Connection, Reply, frame
from texts import PROMPT, TEXT

import yandexgpt

CHUNKS = 50
THREADS = (1, 8, 32)
OFF = ((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 0),)


@dataclass(frozen=True)
class Scenario:
    """An answer of the server."""

    title: str
    every: float
    """Seconds before each message."""
    stream: bool = False


SCENARIOS = {
    "instant": Scenario("a whole answer, at once", 0.0),
    "50ms": Scenario("a whole answer, after 50 ms", 0.050),
    "stream10": Scenario(f"a stream of {CHUNKS} chunks 10 ms apart, per chunk", 0.010, stream=True),
    "stream20": Scenario(f"a stream of {CHUNKS} chunks 20 ms apart, per chunk", 0.020, stream=True),
}


class Packets(Connection):
    """Sends headers, each message and the trailers in separate packets, the messages at fixed intervals."""

    every = 0.0

    def _handle(self, kind: int, flags: int, stream_id: int, payload: bytearray, out: list[bytes]) -> None:
        if kind not in (HEADERS, DATA):
            super()._handle(kind, flags, stream_id, payload, out)
        elif flags & END_STREAM:
            self._replies[stream_id] = Reply(self._answer.messages, self._initial_window or DEFAULT_WINDOW_BYTES, 0, 0)
            self._transport.write(frame(HEADERS, END_HEADERS, stream_id, HEADER_BLOCK))
            self._next(stream_id, asyncio.get_running_loop().time())

    def _next(self, stream_id: int, due: float) -> None:
        """Send the next message at its time."""
        if self.every:
            asyncio.get_running_loop().call_at(due + self.every, self._send, stream_id, due + self.every)
        else:
            self._send(stream_id, due)

    def _send(self, stream_id: int, due: float) -> None:
        reply = self._replies.get(stream_id)
        if reply is None:
            return
        reply.due += 1
        out: list[bytes] = []
        last = reply.due == len(reply.messages)
        self._pump(stream_id, out)
        for packet in out:
            self._transport.write(packet)
        if not last:
            self._next(stream_id, due)


async def serve() -> None:
    """Serve each scenario on its own port, until standard input ends."""
    from answers import Answer

    loop = asyncio.get_running_loop()
    ports = {}
    for name, scenario in SCENARIOS.items():
        answer = Answer(partials(TEXT, CHUNKS) if scenario.stream else [message(TEXT, final=True)])
        kind = type(name, (Packets,), {"every": scenario.every})
        server = await loop.create_server(lambda answer=answer, kind=kind: kind(answer), "127.0.0.1", 0)  # type: ignore[misc]
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def ours(target: str, *, stream: bool, channel_options: Any = ()) -> Callable[[], str]:
    """``Client.complete`` or ``Client.stream``."""
    client = yandexgpt.Client(**options(target), channel_options=channel_options)

    def read() -> str:
        text = ""
        with client.stream(PROMPT, **ASKED) as chunks:
            for chunk in chunks:
                text = chunk.text
        return text

    return read if stream else lambda: client.complete(PROMPT, **ASKED).text


VARIANTS: dict[str, Callable[..., Callable[[], str]]] = {
    "naive": lambda target, *, stream: caller(target, stream=stream, options=(), around=plain),
    "plain": lambda target, *, stream: caller(target, stream=stream, options=NO_RETRIES, around=alike),
    "single": lambda target, *, stream: caller(target, stream=stream, options=BEST, around=alike),
    "ours": ours,
    "ours-plain": lambda target, *, stream: ours(target, stream=stream, channel_options=OFF),
}
LABELS = {
    "naive": "raw stub on a default channel",
    "plain": "raw stub, no retries, deadline and request id",
    "single": "the same, single-threaded",
    "ours": "yandexgpt",
    "ours-plain": "yandexgpt, the option off",
}


def work(variant: str, ports: dict[str, int]) -> None:
    """Run a client process.

    Each line of standard input is a scenario, a number of threads, and seconds. Each line of output is its figures.
    """
    calls = {
        name: VARIANTS[variant](f"127.0.0.1:{ports[name]}", stream=scenario.stream)
        for name, scenario in SCENARIOS.items()
    }
    for line in sys.stdin:
        name, threads, seconds = line.split()
        call, counts = calls[name], [0] * int(threads)
        call()
        start = threading.Barrier(len(counts) + 1)

        def run(index: int, call: Any = call, counts: Any = counts, start: Any = start, seconds: str = seconds) -> None:
            start.wait()
            end = time.monotonic() + float(seconds)
            while time.monotonic() < end:
                assert call() == TEXT
                counts[index] += 1

        running = [threading.Thread(target=run, args=(index,)) for index in range(len(counts))]
        for thread in running:
            thread.start()
        cpu, wall = time.process_time(), time.perf_counter()
        start.wait()
        for thread in running:
            thread.join()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        items = sum(counts) * (CHUNKS if SCENARIOS[name].stream else 1)
        print(json.dumps({"cpu": cpu / items * 1e6, "wall": wall / items * len(counts) * 1e6}), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="approximate time of each measurement")
    parser.add_argument("--only", default="", metavar="WORDS", help="variants, separated by spaces")
    parser.add_argument("--role", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "server":
        asyncio.run(serve())
        return
    if arguments.role:
        variant, ports = arguments.role.split(" ", 1)
        work(variant, json.loads(ports))
        return
    names = arguments.only.split() or list(VARIANTS)
    with ExitStack() as stack:
        server = stack.enter_context(process("server"))
        assert server.stdout
        ports = server.stdout.readline()
        clients = {name: stack.enter_context(process(f"{name} {ports}")) for name in names}
        found: dict[tuple[str, int, str], list[dict[str, float]]] = {}
        for turn in range(arguments.rounds):
            for scenario in SCENARIOS:
                for threads in THREADS:
                    for name in names if turn % 2 == 0 else names[::-1]:
                        client = clients[name]
                        assert client.stdin
                        assert client.stdout
                        client.stdin.write(f"{scenario} {threads} {arguments.seconds}\n")
                        client.stdin.flush()
                        found.setdefault((scenario, threads, name), []).append(json.loads(client.stdout.readline()))
    print(
        f"grpcio {grpc.__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores, {arguments.rounds} rounds"
    )
    for scenario, what in SCENARIOS.items():
        print(f"\n{what.title}: CPU us [least], wall us of one thread\n")
        print(f"| | {' | '.join(f'{threads} threads' for threads in THREADS)} |")
        print(f"|---|{'--:|' * len(THREADS)}")
        for name in names:
            cells = []
            for threads in THREADS:
                rounds = found[scenario, threads, name]
                cpu, wall = (statistics.median(one[figure] for one in rounds) for figure in ("cpu", "wall"))
                cells.append(f"{cpu:.0f} [{min(one['cpu'] for one in rounds):.0f}], {wall:.0f}")
            print(f"| {LABELS[name]} | {' | '.join(cells)} |")


def process(role: str) -> Any:
    """Run this script in a separate process, which ends when its standard input is closed."""
    command = [sys.executable, str(Path(__file__).resolve()), "--role", role]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    main()
