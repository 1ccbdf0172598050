"""Measures the cost of yandexgpt, compared with the stub that gRPC generates and with other clients: ``make bench``.

    python bench/run.py [--quick] [--only WORDS] [--no-rivals] [--json FILE] [--document]
    python bench/run.py --document --from FILE

Every variant is a separate client process, and the servers are separate processes too. All variants of a question are
measured in rounds: in their order in one round, in reverse order in the next. A measurement is repeated if other
processes took too much CPU time during it. The output has the medians of the rounds, the range between their quartiles,
and the ratios to the first variant. All times are those of the client: CPU is the user and system time of its process.
The other clients are installed by pip on first use, in separate environments under .cache/bench.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import environments
from document import write_document
from measure import FULL, HERE, QUICK, Measurement, Plan, Series, rounds, servers, start, worker
from questions import BARS, CALLS, LAYERS, PYTHON, STARTS, Question, Variant
from report import judge, print_bars, print_question, print_steps, saved

import yandexgpt


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description="The cost of yandexgpt, compared with the raw stub and other clients.")
    parser.add_argument(
        "--quick", action="store_true", help="only a few calls, and no other clients: a test that it runs"
    )
    parser.add_argument("--only", default="", metavar="WORDS", help="questions whose key or title has one of the words")
    parser.add_argument("--no-rivals", action="store_true", help="leave out the other clients")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results")
    parser.add_argument("--document", action="store_true", help="write docs/performance.md and its pictures")
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE", help="measure nothing, read saved results")
    parser.add_argument("--docs", type=Path, default=environments.ROOT / "docs", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.source:
        results = json.loads(arguments.source.read_text())
    else:
        plan = QUICK if arguments.quick else FULL
        results = measure(plan, arguments.only.split(), rivals=not (arguments.quick or arguments.no_rivals))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if arguments.document:
        write_document(results, arguments.docs)


def measure(plan: Plan, only: list[str], *, rivals: bool) -> dict[str, Any]:
    """Measure all questions, or those selected.

    Args:
        plan: how much to measure.
        only: words; empty: all questions. Otherwise, the questions with one of these words in their key or title.
        rivals: whether to measure the other clients too.

    Returns:
        The results, as they are saved in JSON.
    """
    environment = describe_environment()
    print(" ".join(f"{name} {value}" for name, value in environment.items()))
    began = time.monotonic()
    all_series: dict[str, dict[str, Series]] = {}
    questions = []
    os.environ["BENCH_HURRY"] = str(plan.hurry)
    with servers() as (pids, ports):
        for question in (*PYTHON, *CALLS, *LAYERS, *STARTS):
            if plan is QUICK and not question.quick:
                continue
            if only and not any(word in f"{question.key} {question.title}" for word in only):
                continue
            variants = [one for one in question.variants if can_run(one, rivals=rivals)]
            if question in STARTS:
                series = measure_starts(question, variants, plan)
            else:
                series = measure_calls(question, variants, ports, pids, plan)
            all_series[question.key] = series
            questions.append(saved(question, variants, series))
            print_question(questions[-1])
    steps = {} if only else measure_steps(plan)
    print_steps(steps)
    bars = judge(BARS, all_series)
    print_bars(bars)
    took = {"seconds": round(time.monotonic() - began), "load": os.getloadavg()[0]}
    print(f"\n{took['seconds']} s in all; load average {took['load']:.1f}")
    return {
        "environment": environment,
        "plan": asdict(plan),
        **took,
        "questions": questions,
        "steps": steps,
        "bars": bars,
    }


def can_run(variant: Variant, *, rivals: bool) -> bool:
    """Whether a variant can be measured. If something that it needs is missing, print a line about it."""
    if variant.needs:
        method, parameter = variant.needs
        function = getattr(yandexgpt.Client, method, None)
        if function is None or parameter not in inspect.signature(function).parameters:
            print(f"left out: {variant.label}: this version has no {method}(..., {parameter})")
            return False
    if not variant.environment:
        return True
    if not rivals:
        return False
    try:
        environments.interpreter(variant.environment)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"left out: {variant.label}: {error}")
        return False
    return True


def measure_calls(
    question: Question, variants: list[Variant], ports: dict[str, int], server_pids: list[int], plan: Plan
) -> dict[str, Series]:
    """Measure the calls of each variant."""
    calls = question.calls and max(1, round(question.calls / plan.hurry))

    def arguments(variant: Variant) -> list[str]:
        target = f"127.0.0.1:{ports[variant.answer or question.answer]}"
        interpreter = environments.interpreter(variant.environment)
        return [interpreter, variant.module, question.key, variant.name, target, question.text]

    def afresh(variant: Variant) -> Measurement:
        assert calls
        with worker(*arguments(variant)) as run:
            return run(calls, *server_pids)

    with ExitStack() as stack:
        if question.fresh:
            functions = {variant.name: partial(afresh, variant) for variant in variants}
        else:
            workers = {one.name: stack.enter_context(worker(*arguments(one))) for one in variants}
            functions = {name: partial(run, calls or prepare(run, plan), *server_pids) for name, run in workers.items()}
            if calls:
                for run in workers.values():
                    run(1)
        number = min(plan.rounds, question.rounds or plan.rounds)
        series = rounds(functions, number, plan.repeats // 5 if calls else plan.repeats, plan)
    for one in series.values():
        one.whole = question.whole
    return series


def prepare(run: Callable[..., Measurement], plan: Plan) -> int:
    """Warm up a client; return the number of its calls that take the time of a measurement."""
    run(2)  # connects
    warm = 20 if plan is FULL else 2
    return max(2, round(plan.seconds / min(run(warm).wall / warm for _ in range(3))))


def measure_starts(question: Question, variants: list[Variant], plan: Plan) -> dict[str, Series]:
    """Measure the code of each variant in new interpreters."""
    with tempfile.TemporaryDirectory() as bytecode:
        functions = {}
        for variant in variants:
            interpreter = environments.interpreter(variant.environment)
            code = STARTS[question][variant.name]
            start(interpreter, code, bytecode)  # compiles everything
            functions[variant.name] = partial(start, interpreter, code, bytecode)
        return rounds(functions, plan.rounds, plan.repeats, plan)


def measure_steps(plan: Plan) -> dict[str, float]:
    """Measure the steps of a call without gRPC's work, in microseconds."""
    command = [sys.executable, str(HERE / "steps.py"), *(["--quick"] if plan is QUICK else [])]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def describe_environment() -> dict[str, Any]:
    """The versions and the machine that the figures depend on."""
    return {
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "protobuf": version("protobuf"),
        "yandexgpt": version("yandexgpt"),
        **{name: pin.partition("==")[2] for name, pin in environments.pins().items()},
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
