"""All programs in examples/ print the same output with a recording as with the service."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from test_examples import EXAMPLES, OPERATION_TIME, run

from yandexgpt.emulator import Emulator

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DELAY = 0.03
"""Seconds before each message."""
DELAYS = {"streaming_async.py": 0.5}
"""Seconds for programs with two concurrent streams. The stream that is six messages shorter must end first."""


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_prints_the_same_with_a_recording(name: str, tmp_path: Path) -> None:
    recording = tmp_path / "calls.jsonl"
    # The jitter of the polling interval decides in which order operations end.
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "sitecustomize.py").write_text("import random\nrandom.seed(1)\n")
    variables: dict[str, str | None] = {
        "PYTHONPATH": os.pathsep.join([str(seed), *filter(None, [os.environ.get("PYTHONPATH")])])
    }
    with Emulator(operation_time=OPERATION_TIME, delay=DELAYS.get(name, DELAY)) as service:
        if name == "credentials.py":
            variables |= {"API_KEY": None, "YC_OAUTH_TOKEN": service.identity.oauth_token()}
        recorder = Emulator(upstream=service.endpoint, upstream_tls=False, record=recording)
        recorded = run(name, emulator=recorder, **variables)
    replayed = run(name, emulator=Emulator(replay=recording), **variables)
    # The ids of the calls are new in each run.
    assert UUID.sub("<id>", replayed.out) == UUID.sub("<id>", recorded.out)
    assert (recorded.code, recorded.err) == (replayed.code, replayed.err) == (0, "")
    assert replayed.methods == recorded.methods != set()
