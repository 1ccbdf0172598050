"""A client process of the benchmark, which uses one client for its whole life.

    python bench/worker.py MODULE QUESTION VARIANT TARGET TEXT

Each line of standard input is a number of calls to make. The answer to each line is their measurement, as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from pathlib import Path

import texts


def main(module: str, question: str, variant: str, target: str, text: str) -> None:
    """Serve measurements until standard input ends."""
    run = importlib.import_module(module).CLIENTS[question][variant](target)
    expected = getattr(texts, text)
    for line in sys.stdin:
        calls, times = int(line), list[float]()
        forget_peak()
        before = memory("VmRSS")
        cpu, wall = time.process_time(), time.perf_counter()
        got = run(calls, times)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if got != expected:
            raise SystemExit(f"{question} {variant}: the answer is not the one that the server sends: {got!r:.200}")
        peak = memory("VmHWM")
        print(json.dumps({"cpu": cpu, "wall": wall, "times": times, "before": before, "peak": peak}), flush=True)


def memory(name: str) -> int | None:
    """The memory of this process in bytes; None if /proc is not available.

    Args:
        name: a field of ``/proc/self/status``.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def forget_peak() -> None:
    """Reset VmHWM, the peak of the memory, to the current memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main(*sys.argv[1:])
