"""Writes docs/performance.md and its pictures from the measurements. The text is in ``bench/performance.md``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import summary
from picture import bars_svg
from report import COLUMNS, FACTORS, MEGABYTE, cells, measured, number, spread, verdict

TEMPLATE = Path(__file__).resolve().parent / "performance.md"
NAMES = {"cpu": "client CPU", "wall": "wall", "grown": "memory of the client, above what it had before"}


def write_document(results: Mapping[str, Any], docs: Path) -> None:
    """Fill in the template, and write the page and the pictures.

    The placeholders are ``{{bars}}``, ``{{environment}}``, ``{{took}}``, ``{{steps}}``, ``{{question:KEY}}``,
    ``{{figure:QUESTION/VARIANT/NAME}}``, and for all questions whose keys begin with KEY: ``{{rows:KEY}}`` and
    ``{{ratios:KEY}}``.

    Args:
        results: the results of a run of the benchmark.
        docs: the directory to write to.
    """
    pictures = docs / "performance"
    pictures.mkdir(parents=True, exist_ok=True)
    questions = {question["question"]: question for question in results["questions"]}
    for key, question in questions.items():
        if not question["row"]:
            (pictures / f"{key}.svg").write_text(picture(question))

    def fill(match: re.Match[str]) -> str:
        kind, _, key = match[1].partition(":")
        if kind == "question":
            return section(questions[key]) if key in questions else "Not measured."
        if kind in ("rows", "ratios"):
            some = [question for name, question in questions.items() if name.startswith(key)]
            return rows(some) if kind == "rows" else ratios(some)
        if kind == "figure":
            return figure(questions, key)
        if kind == "environment":
            return ", ".join(f"{name} {value}" for name, value in results["environment"].items())
        if kind == "took":
            return f"{results['seconds']} s, load average {results['load']:.1f} at its end"
        return steps_table(results) if kind == "steps" else bars_table(results)

    (docs / "performance.md").write_text(re.sub(r"\{\{([\w:./-]+)\}\}", fill, TEMPLATE.read_text()))


def section(question: Mapping[str, Any]) -> str:
    """The picture and the table of a question."""
    each = "in all" if question["whole"] else "each"
    lines = [f"![{question['title']}](performance/{question['question']}.svg)", ""]
    head = [f"{question['unit']}, {each}", *COLUMNS[1:]]
    lines += [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for row in question["variants"].values():
        label = row["label"] + (f" ({row['disturbed']} rounds disturbed)" if row["disturbed"] else "")
        lines.append(f"| {' | '.join(cells(question, label, row))} |")
    return "\n".join(lines)


def rows(questions: Sequence[Mapping[str, Any]]) -> str:
    """A table with a row for each question: the raw stub and yandexgpt."""
    lines = [
        "| | CPU: raw stub | yandexgpt | ours / raw | spread | wall, p50: raw stub | yandexgpt |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for question in questions:
        factor, variants = FACTORS[question["unit"]], [question["variants"][name] for name in ("naive", "ours")]
        cpu, p50 = ([number(row[name]["median"] * factor) for row in variants] for name in ("cpu", "p50"))
        ratio = ours_to_raw(question)
        disturbed = sum(row["disturbed"] for row in variants)
        label = f"{question['row']}, {question['unit']}" + (
            f" ({disturbed} measurements disturbed)" if disturbed else ""
        )
        lines.append(f"| {' | '.join([label, *cpu, number(ratio['median']), spread(ratio), *p50])} |")
    return "\n".join(lines)


def ratios(questions: Sequence[Mapping[str, Any]]) -> str:
    """The lowest and the highest ratio of our CPU time to the raw stub's."""
    medians = sorted(ours_to_raw(question)["median"] for question in questions)
    return " to ".join(dict.fromkeys(map(number, medians[:1] + medians[-1:]))) or "(not measured)"


def ours_to_raw(question: Mapping[str, Any]) -> dict[str, Any]:
    """The ratio of our CPU time to the raw stub's, within each round."""
    raw, ours = (question["variants"][name]["cpu"]["rounds"] for name in ("naive", "ours"))
    return summary([b / a for a, b in zip(raw, ours, strict=True)])


def figure(questions: Mapping[str, Any], key: str) -> str:
    """One figure for the text.

    Args:
        key: ``question/variant/name``.
    """
    question, variant, name = key.split("/")
    try:
        row = questions[question]["variants"][variant]
        return f"{row[name]['median'] * FACTORS[questions[question]['unit']]:.3g}"
    except KeyError:
        return "(not measured)"


def bars_table(results: Mapping[str, Any]) -> str:
    """The table of all targets."""
    lines = ["| what | target | measured | spread | |", "|---|---:|---:|---:|---|"]
    lines += [
        f"| {bar['what']} | {bar['sense']} {bar['limit']:,g} | {measured(bar)} | {spread(bar)} | {verdict(bar)} |"
        for bar in results["bars"]
    ]
    return "\n".join(lines)


def steps_table(results: Mapping[str, Any]) -> str:
    """The table of the steps of a call."""
    lines = [f"| {name} | {number(microseconds)} |" for name, microseconds in results.get("steps", {}).items()]
    return "\n".join(["| step | us |", "|---|---:|", *lines])


def picture(question: Mapping[str, Any]) -> str:
    """The picture of a question: its shown figures, for all variants."""
    shown = [name for name in question["shown"] if all(name in row for row in question["variants"].values())]
    unit = "MB" if shown == ["grown"] else question["unit"]
    factor = 1 / MEGABYTE if unit == "MB" else FACTORS[question["unit"]]
    rows = [
        (row["label"], [row[name]["median"] * factor for name in shown], name.startswith(("ours", "latest")))
        for name, row in question["variants"].items()
    ]
    return bars_svg(question["title"], [f"{NAMES[name]}, {unit}" for name in shown], rows)
