"""A client process of the benchmark: one client, kept as long as the process.

    python bench/worker.py MODULE QUESTION VARIANT TARGET TEXT

Reads from standard input how many calls to make, a number a line, and answers each line with what they took, as JSON.
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
    """What this process has in memory (bytes); None where /proc does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def forget_peak() -> None:
    """Have VmHWM count from now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main(*sys.argv[1:])
