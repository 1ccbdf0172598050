"""A client process of the benchmark: one client, kept for the whole run.

    python bench/worker.py QUESTION VARIANT TARGET

Reads from standard input how many calls to make, a number a line, and answers each line with what they took, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

from answers import TEXT
from clients import CLIENTS


def main(question: str, variant: str, target: str) -> None:
    """Serve measurements until standard input ends."""
    run = CLIENTS[question][variant](target)
    for line in sys.stdin:
        calls = int(line)
        cpu, wall = time.process_time(), time.perf_counter()
        text = run(calls)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if text != TEXT:
            raise SystemExit(f"{question} {variant}: the answer is not the one that the server sends: {text!r}")
        print(json.dumps({"cpu": cpu, "wall": wall}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
