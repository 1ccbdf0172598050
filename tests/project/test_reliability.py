"""scripts/reliability.py makes the table of docs/reliability.md. Some of its rows are measured here."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from driver import PATIENCE

import yandexgpt
from yandexgpt._rpc import call as calls

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "reliability.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("reliability", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reliability"] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


reliability = load()
# The limits of the script assume a machine without other load. Longer limits here still detect a call that hangs.
reliability.GRACE = reliability.LEAK = PATIENCE
reliability.SHORT, reliability.HOLD = 4.0, 3.0
reliability.RETRY = yandexgpt.Retry(attempts=10, initial=0.1, maximum=0.4, jitter=0.1)
TIMEOUT, reliability.TIMEOUT = reliability.TIMEOUT, PATIENCE
CELLS = [*reliability.network(), *reliability.service(), *reliability.process()]


def rows(*faults: str, runs: int = 2) -> list[Any]:
    chosen = [cell for cell in CELLS if cell.fault in faults]
    assert {cell.fault for cell in chosen} == set(faults)
    chosen = [dataclasses.replace(cell, timeout=PATIENCE) if cell.timeout == TIMEOUT else cell for cell in chosen]
    return list(reliability.measure(chosen, runs, workers=24))


@pytest.mark.slow
def test_network_and_service_faults_are_measured_without_findings() -> None:
    made = rows(
        "accepted, then silent",
        "TCP broken by RST",
        "GOAWAY, last stream 0",
        "RST_STREAM, CANCEL",
        "stall",
        "status RESOURCE_EXHAUSTED, twice",
        "token has expired at the server",
        "message over the size limit",
        "quota of 2 at once, 4 calls, no limit of ours",
    )
    assert {(row.side.client.__name__, row.call) for row in made} == {
        (client, call) for client in ("Client", "AsyncClient") for call in ("complete", "stream")
    }
    for row in made:
        assert (row.runs, +row.counts, row.notes) == (2, {}, []), row.cell
    page = reliability.document(made, 2, 1.0)
    assert page.count("\n| TCP broken by RST | mid-stream | `stream` | ") == 2
    assert page.count("| 2 | 0 | 0 | 0 | 0 | 0 |") == len(made)


@pytest.mark.slow
def test_faults_inside_the_process_are_measured_without_findings() -> None:
    made = rows(
        "interceptor: hands out a generator; status UNAVAILABLE, twice",
        "interceptor: hands out an object without cancel(), code() and metadata; status UNAVAILABLE",
        "interceptor: takes longer than the deadline",
        "interceptor: raises a bare grpc.RpcError",
        "the stream is closed by another thread or task while its reader is busy",
        "garbage collection finalizes a half-read stream",
        "a signal handler makes a call",
        "left early, 100 streams a run: memory and sockets",
    )
    assert {row.call for row in made} == {"complete", "stream", "text()", "stream(latest=True)", "complete_many"}
    for row in made:
        assert (row.runs, +row.counts, row.notes) == (2, {}, []), row.cell
    assert [row.side.client.__name__ for row in made if "signal" in row.cell.fault] == ["Client"] * 2


def test_table_has_every_phase_and_no_duplicate_cell() -> None:
    phases = {reliability.CONNECT, reliability.FIRST, reliability.MIDDLE, reliability.LAST, reliability.ANY}
    assert {cell.phase for cell in CELLS} == phases
    assert len({(cell.fault, cell.phase) for cell in CELLS}) == len(CELLS)


def test_wrong_text_and_leaked_secrets_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that loses the partial answer, and shows the authorization header in its errors."""
    fail = calls.Call.failed

    def failed(self: Any, failure: Any, last: Any = None, *rest: Any) -> Any:
        try:
            return fail(self, failure, None, *rest)
        except yandexgpt.APIError as error:
            error.message = str(self.authorization)
            error.args = (error.message,)
            raise

    monkeypatch.setattr(calls.Call, "failed", failed)
    for row in rows("status INTERNAL"):
        middle = row.cell.phase == reliability.MIDDLE
        assert +row.counts == {"leaked secrets": 2, **({"wrong text": 2} if middle else {})}, row.notes
