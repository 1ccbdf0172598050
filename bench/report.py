"""The results as JSON and as printed tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from measure import Series, summary
from questions import Bar, Question, Results, Variant, median_ratio

FACTORS = {"us": 1e6, "ms": 1e3, "s": 1.0}
MEGABYTE = 1e6


def saved(question: Question, variants: Sequence[Variant], series: Mapping[str, Series]) -> dict[str, Any]:
    """The figures of a question: times in seconds, memory in bytes, ratios to its first variant."""
    reference = series[variants[0].name]
    return {
        "question": question.key,
        "title": question.title,
        "unit": question.unit,
        "whole": question.whole,
        "row": question.row,
        "shown": list(question.shown),
        "reference": variants[0].name,
        "variants": {one.name: {"label": one.label, **figures(series[one.name], reference)} for one in variants},
    }


def figures(series: Series, reference: Series) -> dict[str, Any]:
    """The figures of one variant."""
    found: dict[str, Any] = {
        name: summary(series.values(name))
        for name in ("cpu", "wall", "p50", "p99", "grown", "peak")
        if series.has(name)
    }
    for name in ("cpu", "wall"):
        found[name]["ratio"] = median_ratio(name, reference, series)
    found["calls"] = statistics.median(one.calls for one in series.measurements)
    found["threads"] = max(one.threads for one in series.measurements)
    found["disturbed"] = series.disturbed
    return found


def judge(bars: Sequence[Bar], results: Results) -> list[dict[str, Any]]:
    """The targets of the measured questions, and whether they are reached."""
    judged = []
    for bar in bars:
        if bar.question not in results:
            continue
        row: dict[str, Any] = {"what": bar.what, "sense": bar.sense, "limit": bar.limit, "question": bar.question}
        try:
            row |= summary(bar.value(results[bar.question]))
        except KeyError:
            row |= {"median": None, "reached": None}
        else:
            row["reached"] = bar.reached(row["median"])
        judged.append(row)
    return judged


def cells(question: Mapping[str, Any], name: str, row: Mapping[str, Any]) -> list[str]:
    """The row of a variant, in the order of the columns."""
    factor = FACTORS[question["unit"]]
    result = [name]
    for what in ("cpu", "wall"):
        one = row[what]
        spread = f"{number(one['low'] * factor)}-{number(one['high'] * factor)}"
        result += [number(one["median"] * factor), spread, f"{one['ratio']:.2f}"]
    result += [number(row[what]["median"] * factor) if what in row else "" for what in ("p50", "p99")]
    result.append(number(row["grown"]["median"] / MEGABYTE) if "grown" in row else "")
    result.append(str(row["threads"]))
    return result


COLUMNS = ("", "CPU", "spread", "x", "wall", "spread", "x", "p50", "p99", "+MB", "threads")
WIDTHS = (11, 9, 15, 6, 9, 15, 6, 8, 8, 7, 8)


def print_question(question: Mapping[str, Any]) -> None:
    """Print the table of a question."""
    each = "in all" if question["whole"] else "each"
    print(f"\n{question['title']} ({question['unit']}, {each}; x = {question['reference']} / this: more is better)")
    print("  " + "".join(f"{text:>{width}}" for text, width in zip(COLUMNS, WIDTHS, strict=True)))
    for name, row in question["variants"].items():
        line = "".join(f"{t:>{w}}" for t, w in zip(cells(question, name, row), WIDTHS, strict=True))
        disturbed = row["disturbed"]
        note = f"   {disturbed} of {len(row['cpu']['rounds'])} rounds disturbed" if disturbed else ""
        print(f"  {line}{note}", flush=True)


def print_steps(steps: Mapping[str, float]) -> None:
    """Print the steps of a call."""
    if steps:
        print("\nsteps, hot, without gRPC (us)")
    for name, microseconds in steps.items():
        print(f"  {name:50}{number(microseconds):>8}")


def print_bars(bars: Sequence[Mapping[str, Any]]) -> None:
    """Print the targets, and whether they are reached."""
    print(f"\n{'':70}{'target':>10}{'measured':>10}{'spread':>16}")
    for bar in bars:
        print(f"{bar['what']:70}{bar['sense']} {bar['limit']:>7,g}{measured(bar):>10}{spread(bar):>16}  {verdict(bar)}")


def measured(bar: Mapping[str, Any]) -> str:
    """The measured figure of a target."""
    return "" if bar["median"] is None else number(bar["median"])


def spread(bar: Mapping[str, Any]) -> str:
    """The range between the quartiles of the rounds."""
    return "" if bar["median"] is None else f"{number(bar['low'])}-{number(bar['high'])}"


def verdict(bar: Mapping[str, Any]) -> str:
    """Whether a target is reached, in words."""
    return {True: "reached", False: "NOT REACHED", None: "not measured"}[bar["reached"]]


def number(value: float) -> str:
    """The value as text, with about three digits."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
