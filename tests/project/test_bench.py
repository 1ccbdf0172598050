"""The benchmark runs and saves its results. The measured values are not checked."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent.parent / "bench" / "run.py"
RAW = ["naive", "best", "alike"]
ROWS = [
    f"python-{kind}-{pace}-8"
    for kind in ("threads", "tasks")
    for pace in ("instant", "whole50", "stream10", "stream20")
]
QUESTIONS = {
    **{key: ["naive", "ours"] for key in ROWS},
    "complete": [*RAW, "ours"],
    "stream": [*RAW, "ours"],
    "complete-aio": [*RAW, "ours"],
    "stream-aio": [*RAW, "ours"],
    "long": ["naive", "best", "ours"],
    "many": ["naive", "naive-aio", "unary-aio", "ours", "ours-aio", "ours-tasks"],
    "crowd": ["naive", "ours"],
    "memory": ["naive", "ours"],
    "early": ["naive", "best", "ours"],
    "slow": ["all", "latest"],
    "slow-aio": ["all", "latest"],
    "layers": ["alike", "invoker", "ours"],
    "layers-stream": ["best", "messages", "unread", "text", "ours"],
    "layers-stream-aio": ["naive", "messages", "unread", "ours"],
    "import": ["naive", "ours"],
    "client": ["naive", "ours"],
}


def bench(*arguments: str) -> str:
    run = subprocess.run([sys.executable, str(BENCH), *arguments], capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_quick_run_prints_tables_saves_all_results_and_writes_the_page(tmp_path: Path) -> None:
    saved = tmp_path / "bench.json"
    printed = bench("--quick", "--json", str(saved))

    report = json.loads(saved.read_text())
    assert {"python", "grpcio", "protobuf", "yandexgpt", "cpus"} <= report["environment"].keys()
    assert {question["question"]: list(question["variants"]) for question in report["questions"]} == QUESTIONS
    for question in report["questions"]:
        assert question["title"] in printed
        for variant in question["variants"].values():
            assert variant["disturbed"] <= report["plan"]["rounds"]
            for figure in (variant["cpu"], variant["wall"]):
                assert len(figure["rounds"]) == report["plan"]["rounds"]
                assert 0 < figure["low"] <= figure["median"] <= figure["high"]
                assert figure["ratio"] > 0
        assert question["variants"][question["reference"]]["cpu"]["ratio"] == 1
    for bar in report["bars"]:
        assert bar["what"] in printed
        assert (bar["reached"] is None) == (bar["median"] is None)
    assert any(bar["reached"] is not None for bar in report["bars"])

    bench("--from", str(saved), "--document", "--docs", str(tmp_path))
    page = (tmp_path / "performance.md").read_text()
    assert "{{" not in page
    for question in report["questions"]:
        assert bool(question["row"]) == (question["question"] in ROWS)
        assert f"| {question['row']}, {question['unit']}" in page or not question["row"]
    for question in QUESTIONS.keys() - ROWS:
        picture = tmp_path / "performance" / f"{question}.svg"
        assert f"(performance/{question}.svg)" in page
        assert ET.parse(picture).getroot().tag.endswith("svg")
