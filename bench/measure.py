"""Processes, measurements, and rounds of measurements."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
"""The resolution of /proc: disturbances can only be detected over several ticks."""
GLANCE_SECONDS = 0.05
"""The interval at which the threads of a client are counted."""


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int
    seconds: float
    """The approximate time of each measurement."""
    repeats: int
    """The maximum number of repeated measurements per question. For questions with long measurements, a fifth of it."""
    hurry: float = 1.0
    """The factor by which answers with fixed intervals are faster, and by which fewer of them are requested."""
    allowance: float = 0.15
    """The share of one CPU that other processes may take during a measurement."""


FULL = Plan(rounds=9, seconds=0.3, repeats=20)
QUICK = Plan(rounds=1, seconds=0.005, repeats=0, hurry=50.0)


@dataclass(frozen=True)
class Measurement:
    """The time and memory of `calls` calls, in seconds and bytes."""

    cpu: float
    wall: float
    calls: int
    foreign: float | None
    """The share of one CPU that other processes took during the measurement; None: unknown."""
    times: list[float] = field(default_factory=list)
    """The time of each call, if it is known."""
    before: int | None = None
    peak: int | None = None
    """The memory of the client: at the start of the measurement, and its peak."""
    threads: int = 1
    """The greatest observed number of threads of the client."""


@dataclass
class Series:
    """The measurements of one variant."""

    measurements: list[Measurement] = field(default_factory=list)
    disturbed: int = 0
    """The number of measurements that were kept although they were disturbed."""
    whole: bool = False
    """Whether the figures are totals of a measurement, not per call."""

    def values(self, name: str) -> list[float]:
        """One figure for each round: `cpu` or `wall` (seconds), `p50` or `p99` (seconds), `grown` or `peak` (bytes)."""
        return [figure(one, name, whole=self.whole) for one in self.measurements]

    def has(self, name: str) -> bool:
        """Whether the series has a figure; see :meth:`values` for the names."""
        if name in ("p50", "p99"):
            return all(one.times for one in self.measurements)
        return name in ("cpu", "wall") or all(one.before and one.peak for one in self.measurements)


def figure(one: Measurement, name: str, *, whole: bool) -> float:
    """One figure of a measurement; see :meth:`Series.values` for the names."""
    if name in ("p50", "p99"):
        times = sorted(one.times)
        return times[min(len(times) - 1, int(len(times) * (0.5 if name == "p50" else 0.99)))]
    if name in ("grown", "peak"):
        assert one.peak is not None
        assert one.before is not None
        return float(max(0, one.peak - one.before) if name == "grown" else one.peak)
    value: float = getattr(one, name)
    return value if whole else value / one.calls


def rounds(
    measure: Mapping[str, Callable[[], Measurement]], number: int, repeats: int, plan: Plan
) -> dict[str, Series]:
    """Measure all variants in rounds: in their order in one round, in reverse order in the next.

    Args:
        measure: by variant: makes one measurement.
        number: the number of rounds.
        repeats: the maximum number of repeated measurements.
        plan: defines when a measurement is disturbed.
    """
    names = list(measure)
    series = {name: Series() for name in names}
    for index in range(number):
        for name in names if index % 2 == 0 else names[::-1]:
            best = measure[name]()
            for _ in range(min(3, repeats)):
                if not disturbed(best, plan):
                    break
                repeats -= 1
                best = min(best, measure[name](), key=lambda one: one.foreign or 0.0)
            series[name].measurements.append(best)
            series[name].disturbed += disturbed(best, plan)
    return series


def disturbed(one: Measurement, plan: Plan) -> bool:
    """Whether other processes took too much CPU time during a measurement."""
    return one.foreign is not None and one.foreign > plan.allowance


def summary(values: list[float]) -> dict[str, Any]:
    """The median and the quartiles of the rounds."""
    low, _, high = statistics.quantiles(values, method="inclusive") if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "low": low, "high": high, "rounds": values}


@contextmanager
def servers() -> Iterator[tuple[list[int], dict[str, int]]]:
    """Run the server processes; yield their process ids, and the port of each answer."""
    with python(sys.executable, "server.py") as fast, python(sys.executable, "python_server.py") as slow:
        ports: dict[str, int] = {}
        for process in (fast, slow):
            assert process.stdout
            ports |= json.loads(process.stdout.readline())
        yield [fast.pid, slow.pid], ports


@contextmanager
def worker(interpreter: str, *arguments: str) -> Iterator[Callable[..., Measurement]]:
    """Run a client process; yield a function that lets it make a number of calls."""
    with python(interpreter, "worker.py", *arguments) as process:
        assert process.stdin
        assert process.stdout
        requests, answers = process.stdin, process.stdout

        def run(calls: int, *others: int) -> Measurement:
            watch = Watch(process.pid, *others)
            requests.write(f"{calls}\n")
            requests.flush()
            threads = 1
            while not select.select([answers], [], [], GLANCE_SECONDS)[0]:
                threads = max(threads, threads_of(process.pid))
            line = answers.readline()
            if not line:
                raise SystemExit(f"the client process of {' '.join(arguments)} ended")
            foreign = watch.foreign()
            return Measurement(
                **json.loads(line), calls=calls, foreign=foreign, threads=max(threads, threads_of(process.pid))
            )

        yield run


def threads_of(pid: int) -> int:
    """The number of threads of a process; 1 if /proc is not available."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[17])
    except (OSError, ValueError):
        return 1


@contextmanager
def python(interpreter: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script of this directory in a process, which ends when its standard input is closed."""
    command = [interpreter, str(HERE / arguments[0]), *arguments[1:]]
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
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


def start(interpreter: str, code: str, bytecode: str) -> Measurement:
    """Measure code in a new interpreter, without the start of the interpreter.

    Args:
        interpreter: the path of the interpreter.
        code: the code to run.
        bytecode: the directory for the bytecode of all modules, also if the environment forbids bytecode: otherwise an
            editable package would be compiled each time, and the packages that it is compared with would not.
    """
    timed = (
        "import time; cpu, wall = time.process_time(), time.perf_counter()\n"
        f"{code}\n"
        "print(time.process_time() - cpu, time.perf_counter() - wall)"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPYCACHEPREFIX"] = bytecode
    watch = Watch()
    done = subprocess.run([interpreter, "-c", timed], stdout=subprocess.PIPE, text=True, check=True, env=environ)
    cpu, wall = map(float, done.stdout.split())
    return Measurement(cpu, wall, 1, watch.foreign())


class Watch:
    """The CPU time of other processes from now on: all except the given ones, this one and its finished children."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._began = time.perf_counter()
        self._cpu = self._foreign_cpu()

    def foreign(self) -> float | None:
        """The share of one CPU that they took; None without /proc, or if the time was too short."""
        seconds = time.perf_counter() - self._began
        cpu = self._foreign_cpu()
        if cpu is None or self._cpu is None or seconds < 5 * TICK_SECONDS:
            return None
        # Each of the counts is rounded down to a tick.
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
