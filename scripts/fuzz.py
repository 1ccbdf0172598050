"""Send generated requests, valid and invalid, to the emulator, and check that it keeps working.

    python scripts/fuzz.py --seconds 180

Schemathesis reads the OpenAPI document of the REST API. It sends requests that the document allows and requests that it
does not allow. Hypothesis sends bytes and messages, valid and invalid, over gRPC, REST and the OpenAI API
(`tests/emulator/fuzzing.py`). The run fails on an unexpected server error, on a response that is missing or does not
match the document, and on a server that stopped or printed something.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from compat import REQUIREMENTS, ROOT, Failed, environment, run

KEY = "Api-Key secret"
STOP_SECONDS = 20.0
SERVE = f"""
import sys
from yandexgpt.emulator import Emulator

with Emulator(http_port=0, authorization={KEY!r}) as emulator:
    print(emulator.endpoint, emulator.http_url, flush=True)
    sys.stdin.read()
"""
RULES_BETWEEN_FIELDS = "positive_data_acceptance"
"""This check is excluded: the emulator refuses some requests that the schema allows. A schema cannot express that a
tool choice must name a tool, or that a token must be known."""


def main() -> int:
    """Fuzz for the given time; return 0 if nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--seconds", type=int, default=180, help="for the whole run, half of it by the document (default: 180)"
    )
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="yandexgpt-fuzz-") as place:
        python = environment(Path(place), ["-r", str(REQUIREMENTS / "fuzz.txt"), f"{ROOT}[auth,emulator]"])
        results = [
            report("by the OpenAPI document", lambda: by_document(python, Path(place), max(1, seconds // 2))),
            report("by hypothesis", lambda: by_hypothesis(python, seconds / 4)),
        ]
    return 0 if all(results) else 1


def report(name: str, check: Callable[[], str]) -> bool:
    """Run one check and print a line with its result."""
    began = time.monotonic()
    try:
        outcome, detail = "ok", check()
    except Failed as failed:
        outcome, detail = "FAILED", str(failed)
    print(f"{outcome:6} {name}: {detail} [{time.monotonic() - began:.0f} s]", flush=True)
    return outcome == "ok"


def by_document(python: str, place: Path, seconds: int) -> str:
    """Let schemathesis test the REST interface."""
    with emulator(python) as (endpoint, url):
        command = [str(Path(python).with_name("schemathesis")), "run", f"{url}/openapi.json", "--no-color"]
        command += ["--header", f"Authorization: {KEY}", "--header", "Accept: application/x-ndjson, application/json"]
        command += ["--max-time", str(seconds), "--continue-on-failure", "--request-timeout", "20"]
        command += ["--exclude-checks", RULES_BETWEEN_FIELDS, "--generation-database", "none"]
        printed = run(command, place)  # it leaves a folder where it runs
        tell_alive(python, endpoint, url)
    return next(line.strip() for line in printed.splitlines() if re.match(r"\s+[\d,]+ generated", line))


def by_hypothesis(python: str, seconds: float) -> str:
    """Let `tests/emulator/fuzzing.py` test gRPC and HTTP, each for a number of seconds."""
    with emulator(python) as (endpoint, url):
        return tell_alive(python, endpoint, url, seconds)


def tell_alive(python: str, endpoint: str, url: str, seconds: float = 0.0) -> str:
    """Fuzz the emulator. Afterwards it must answer a valid request on each interface."""
    arguments = ["--endpoint", endpoint, "--http-url", url, "--seconds", str(seconds)]
    return run([python, str(ROOT / "tests" / "emulator" / "fuzzing.py"), *arguments]).strip()


@contextmanager
def emulator(python: str) -> Iterator[tuple[str, str]]:
    """Run an emulator in a separate process, which must print no error; yield its gRPC endpoint and HTTP address."""
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [python, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
        )
        try:
            assert process.stdout is not None
            endpoint, _, url = process.stdout.readline().strip().partition(" ")
            yield endpoint, url
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"the emulator does not stop within {STOP_SECONDS} s") from None
        finally:
            process.kill()
            process.wait()
        complaints.seek(0)
        said = complaints.read()
    if process.returncode or "Traceback" in said:
        raise Failed(f"the emulator ended with {process.returncode} and said:\n{said[-4000:]}")


if __name__ == "__main__":
    sys.exit(main())
