"""What yandexgpt costs, against the stub that gRPC generates: ``make bench``.

    python bench/run.py [--quick] [--json FILE]

Every variant is a client process of its own, against one server process; all variants of a question are measured in
rounds, forwards and backwards in turn. A measurement during which other processes took too much of the machine is
repeated. What is printed are medians of the rounds, the spread between their quartiles, and ratios to the naive stub:

    naive   the stub as the documentation uses it: a default channel, `for response in stub.Completion(...)`
    best    the stub used as well as it can be: gRPC's retries off, synchronous calls single-threaded
    alike   best, with what our client sends besides: a deadline, a request id, the number of the attempt
    ours    yandexgpt

Times are the client's: CPU is user and system time of its process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REFERENCE = "naive"
"""The variant that ratios refer to, the same in every question."""
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
"""The grain of /proc: disturbances cannot be told from less than a few of these."""


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int
    seconds: float
    """Of each measurement, about."""
    repeats: int
    """Of measurements that were disturbed, at most, for each question."""
    allowance: float = 0.15
    """The share of one CPU that other processes may take during a measurement."""


FULL = Plan(rounds=9, seconds=0.3, repeats=20)
QUICK = Plan(rounds=2, seconds=0.01, repeats=0)


@dataclass(frozen=True)
class Question:
    """A table of the output: variants that do the same work."""

    key: str
    title: str
    unit: str
    """`us` or `ms`."""
    variants: tuple[str, ...]
    answer: str | None = None
    """The server's answer to it; None if it is about fresh interpreters."""


CALLS = (
    Question("complete", "a whole answer, synchronous", "us", ("naive", "best", "alike", "ours"), "whole"),
    Question("stream", "a stream of 100 partials, synchronous", "ms", ("naive", "best", "alike", "ours"), "growing"),
    Question("complete-aio", "a whole answer, asynchronous", "us", ("naive", "best", "alike", "ours"), "whole"),
    Question(
        "stream-aio", "a stream of 100 partials, asynchronous", "ms", ("naive", "best", "alike", "ours"), "growing"
    ),
)
STUBS = "yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2_grpc"
STARTS = {
    Question("import", "import, in a fresh interpreter", "ms", ("naive", "ours")): {
        "naive": f"import grpc; import {STUBS}",
        "ours": "import yandexgpt",
    },
    Question("client", "import and make a client, in a fresh interpreter", "ms", ("naive", "ours")): {
        "naive": (
            f"import grpc; import {STUBS} as stubs; "
            "stub = stubs.TextGenerationServiceStub(grpc.insecure_channel('127.0.0.1:1'))"
        ),
        "ours": (
            "import yandexgpt; "
            "client = yandexgpt.Client(folder_id='b1g', credentials='key', endpoint='127.0.0.1:1', tls=False)"
        ),
    },
}


@dataclass
class Series:
    """The measurements of one variant, in seconds a call."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    disturbed: int = 0
    """Measurements that were kept although they were disturbed, for want of a better one."""


@dataclass(frozen=True)
class Measurement:
    """What `calls` calls took, in seconds."""

    cpu: float
    wall: float
    calls: int
    foreign: float | None
    """The share of one CPU that other processes took meanwhile; None where that cannot be known."""


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description="What yandexgpt costs, against the stub that gRPC generates.")
    parser.add_argument("--quick", action="store_true", help="a few calls only, to see that everything runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save what was measured")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL

    environment = describe_environment()
    print(" ".join(f"{name} {value}" for name, value in environment.items()))
    results = []
    began = time.monotonic()
    with server() as (process, ports):
        for question in CALLS:
            assert question.answer is not None
            target = f"127.0.0.1:{ports[question.answer]}"
            results.append(report(question, measure_calls(question, target, process.pid, plan)))
    for question, codes in STARTS.items():
        results.append(report(question, measure_starts(codes, plan)))
    print(f"\n{time.monotonic() - began:.0f} s in all; load average {os.getloadavg()[0]:.1f}")
    if arguments.json:
        saved = {"environment": environment, "plan": asdict(plan), "questions": results}
        arguments.json.write_text(json.dumps(saved, indent=1) + "\n")


def measure_calls(question: Question, target: str, server_pid: int, plan: Plan) -> dict[str, Series]:
    """Calls of each variant, against the server at `target`."""
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker(question.key, name, target)) for name in question.variants}
        measure = {}
        for name, run in workers.items():
            run(2)  # connects
            warm = min(run(20).wall for _ in range(3)) / 20
            calls = max(2, round(plan.seconds / warm))
            measure[name] = partial(run, calls, server_pid)
        return rounds(measure, plan)


def measure_starts(codes: dict[str, str], plan: Plan) -> dict[str, Series]:
    """Fresh interpreters, each running the code of a variant."""
    with tempfile.TemporaryDirectory() as bytecode:
        for code in codes.values():
            start(code, bytecode)  # compiles everything
        return rounds({name: partial(start, code, bytecode) for name, code in codes.items()}, plan)


def rounds(measure: Mapping[str, Callable[[], Measurement]], plan: Plan) -> dict[str, Series]:
    """Rounds over all variants, forwards and backwards in turn."""
    names = list(measure)
    repeats = plan.repeats
    series = {name: Series() for name in names}
    for index in range(plan.rounds):
        for name in names if index % 2 == 0 else names[::-1]:
            best = measure[name]()
            for _ in range(min(3, repeats)):
                if not disturbed(best, plan):
                    break
                repeats -= 1
                best = min(best, measure[name](), key=lambda one: one.foreign or 0.0)
            series[name].cpu.append(best.cpu / best.calls)
            series[name].wall.append(best.wall / best.calls)
            series[name].disturbed += disturbed(best, plan)
    return series


def disturbed(one: Measurement, plan: Plan) -> bool:
    """Whether other processes took too much of the machine."""
    return one.foreign is not None and one.foreign > plan.allowance


@contextmanager
def server() -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """The server process, and its port for each answer."""
    with python("server.py") as process:
        assert process.stdout
        yield process, json.loads(process.stdout.readline())


@contextmanager
def worker(question: str, variant: str, target: str) -> Iterator[Callable[..., Measurement]]:
    """A client process; the function makes it do so many calls."""
    with python("worker.py", question, variant, target) as process:
        assert process.stdin
        assert process.stdout
        requests, answers = process.stdin, process.stdout

        def run(calls: int, *others: int) -> Measurement:
            watch = Watch(process.pid, *others)
            requests.write(f"{calls}\n")
            requests.flush()
            line = answers.readline()
            if not line:
                raise SystemExit(f"the client process of {question} {variant} ended")
            return Measurement(**json.loads(line), calls=calls, foreign=watch.foreign())

        yield run


@contextmanager
def python(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A script of this directory in a process, which ends when its standard input is closed."""
    command = [sys.executable, str(HERE / arguments[0]), *arguments[1:]]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout
        process.stdout.close()


def start(code: str, bytecode: str) -> Measurement:
    """A fresh interpreter that runs the code; its own start is not counted.

    Args:
        bytecode: the directory where all modules are kept compiled, whatever the environment says about it: a package
            installed in place would else be compiled each time, and those it is compared with would not.
    """
    timed = (
        "import time; cpu, wall = time.process_time(), time.perf_counter()\n"
        f"{code}\n"
        "print(time.process_time() - cpu, time.perf_counter() - wall)"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPYCACHEPREFIX"] = bytecode
    watch = Watch()
    done = subprocess.run([sys.executable, "-c", timed], stdout=subprocess.PIPE, text=True, check=True, env=environ)
    cpu, wall = map(float, done.stdout.split())
    return Measurement(cpu, wall, 1, watch.foreign())


class Watch:
    """What processes other than these, this one and its finished children take of the machine, from now on."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._began = time.perf_counter()
        self._cpu = self._foreign_cpu()

    def foreign(self) -> float | None:
        """The share of one CPU that they took; None where /proc does not say, or in too short a time to tell."""
        seconds = time.perf_counter() - self._began
        cpu = self._foreign_cpu()
        if cpu is None or self._cpu is None or seconds < 5 * TICK_SECONDS:
            return None
        # Each of the counts is rounded down to a tick on its own.
        return max(0.0, cpu - self._cpu - 2 * TICK_SECONDS) / seconds

    def _foreign_cpu(self) -> float | None:
        try:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(
                int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
            )
            ticks = user + nice + system + irq + softirq + steal
            for pid in self._pids:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks -= int(fields[11]) + int(fields[12])
        except (OSError, ValueError):
            return None
        own = os.times()
        return ticks * TICK_SECONDS - own.user - own.system - own.children_user - own.children_system


def report(question: Question, series: dict[str, Series]) -> dict[str, Any]:
    """Print the table of a question; return it for JSON."""
    reference = series[REFERENCE]
    variants: dict[str, dict[str, Any]] = {
        name: {
            "cpu": {**summary(measured.cpu), "ratio": ratio(reference.cpu, measured.cpu)},
            "wall": {**summary(measured.wall), "ratio": ratio(reference.wall, measured.wall)},
            "disturbed": measured.disturbed,
        }
        for name, measured in series.items()
    }
    factor = {"us": 1e6, "ms": 1e3}[question.unit]
    print(f"\n{question.title} ({question.unit}; x = {REFERENCE} / this: more is better)")
    print(f"  {'':8}{'CPU':>9}{'spread':>16}{'x':>7}{'wall':>11}{'spread':>16}{'x':>7}", flush=True)
    for name, row in variants.items():
        cells = [f"  {name:8}"]
        for what, width in (("cpu", 9), ("wall", 11)):
            one = row[what]
            spread = f"{number(one['low'] * factor)}-{number(one['high'] * factor)}"
            cells.append(f"{number(one['median'] * factor):>{width}}{spread:>16}{one['ratio']:>7.2f}")
        if row["disturbed"]:
            cells.append(f"   {row['disturbed']} of {len(series[name].cpu)} rounds disturbed")
        print("".join(cells), flush=True)
    return {"question": question.key, "title": question.title, "variants": variants}


def summary(values: list[float]) -> dict[str, Any]:
    """The median in seconds, and the quartiles as its spread."""
    low, _, high = statistics.quantiles(values, method="inclusive")
    return {"median": statistics.median(values), "low": low, "high": high, "rounds": values}


def ratio(reference: list[float], values: list[float]) -> float:
    """The median of the ratios of each round: what slows a whole round down does not count."""
    return statistics.median(one / other for one, other in zip(reference, values, strict=True))


def number(value: float) -> str:
    """Three digits or so."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def describe_environment() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "protobuf": version("protobuf"),
        "yandexgpt": version("yandexgpt"),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
