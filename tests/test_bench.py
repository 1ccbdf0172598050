"""The benchmark runs, and saves what it measures. What it measures is not for a test to judge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent / "bench" / "run.py"
RAW = ["naive", "best", "alike"]
QUESTIONS = {
    "complete": [*RAW, "ours"],
    "stream": [*RAW, "ours"],
    "complete-aio": [*RAW, "ours"],
    "stream-aio": [*RAW, "ours"],
    "import": ["naive", "ours"],
    "client": ["naive", "ours"],
}


def test_a_quick_run_prints_tables_and_saves_every_figure(tmp_path: Path) -> None:
    saved = tmp_path / "bench.json"
    run = subprocess.run(
        [sys.executable, str(BENCH), "--quick", "--json", str(saved)], capture_output=True, text=True, timeout=50
    )
    assert run.returncode == 0, run.stderr

    report = json.loads(saved.read_text())
    assert {"python", "grpcio", "protobuf", "yandexgpt", "cpus"} <= report["environment"].keys()
    assert {question["question"]: list(question["variants"]) for question in report["questions"]} == QUESTIONS
    for question in report["questions"]:
        assert question["title"] in run.stdout
        for variant in question["variants"].values():
            assert variant["disturbed"] <= report["plan"]["rounds"]
            for figure in (variant["cpu"], variant["wall"]):
                assert len(figure["rounds"]) == report["plan"]["rounds"]
                assert 0 < figure["low"] <= figure["median"] <= figure["high"]
                assert figure["ratio"] > 0
        assert question["variants"]["naive"]["cpu"]["ratio"] == 1
