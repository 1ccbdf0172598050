"""Run the clients together with packages that wrap gRPC or replace its runtime: `make test-instrumented`.

    python scripts/instrumented.py [--pinned] [WORD ...]

These are tracing packages, a metrics package, gevent, and a user's interceptors. Each has an environment under
.cache/instrumented with the versions in requirements/instrumented.txt, and another one with the lowest gRPC that the
package allows. The programs are in tests/instrumented; each prints a line for every check. They run against an emulator
in this process. They script it, and query the calls that it received, through a socket (see :class:`Desk`). WORDs
select the runs whose names contain one of them; --pinned leaves out the runs with the lowest gRPC.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from compat import ROOT, Failed, cleared, environment, pins, report, run

from yandexgpt.emulator import Emulator, RecordedRequest

PROGRAMS = ROOT / "tests" / "instrumented"
CACHE = ROOT / ".cache" / "instrumented"
RUNTIME = ("googleapis-common-protos", "grpcio", "protobuf")
FILES = {"": "instrumented.txt", ", lowest gRPC": "lowest.txt"}
"""By suffix of a run's name: the file with the versions of the runtime."""
AT_ONCE = 2
"""The number of programs that run at the same time."""
FOREVER = 3600.0
RULES: tuple[dict[str, Any], ...] = (
    {
        "match": {"text": "stalls"},
        "answer": {"text": "раз два три", "partials": ["раз", "раз два"]},
        "fail": {"code": "UNAVAILABLE", "after": 1, "delay": FOREVER},
    },
    {"match": {"text": "silent"}, "fail": {"code": "UNAVAILABLE", "delay": FOREVER}},
    {"match": {"text": "refused"}, "fail": "INVALID_ARGUMENT"},
)
"""The answers to prompts with these words: one message and no further one, no message, an error."""


@dataclass(frozen=True)
class Run:
    """A program, and how it is run.

    Attributes:
        program: the file in tests/instrumented.
        packages: the packages to install, as named in requirements/instrumented.txt.
        arguments: the arguments of the program.
        launcher: a command of the environment that starts the interpreter, with its arguments.
        variables: environment variables of the program.
    """

    program: str
    packages: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


OPENTELEMETRY = ("opentelemetry-instrumentation-grpc", "opentelemetry-sdk")
NO_AGENT = (
    ("DD_TRACE_AGENT_URL", "http://127.0.0.1:9"),
    ("DD_REMOTE_CONFIGURATION_ENABLED", "false"),
    ("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "false"),
    ("DD_CRASHTRACKING_ENABLED", "false"),
    ("DD_TRACE_STARTUP_LOGS", "false"),
)
"""Variables for ddtrace, which then sends nothing."""
RUNS = {
    "opentelemetry": Run("by_opentelemetry.py", OPENTELEMETRY),
    "opentelemetry-instrument": Run(
        "by_opentelemetry.py",
        OPENTELEMETRY,
        arguments=("--loaded",),
        launcher=("opentelemetry-instrument",),
        variables=tuple((f"OTEL_{kind}_EXPORTER", "none") for kind in ("TRACES", "METRICS", "LOGS")),
    ),
    "sentry": Run("by_sentry.py", ("sentry-sdk",)),
    "ddtrace": Run("by_ddtrace.py", ("ddtrace",), variables=NO_AGENT),
    "ddtrace-run": Run(
        "by_ddtrace.py", ("ddtrace",), arguments=("--loaded",), launcher=("ddtrace-run",), variables=NO_AGENT
    ),
    "py-grpc-prometheus": Run("by_prometheus.py", ("py-grpc-prometheus", "prometheus-client")),
    "gevent": Run("under_gevent.py", ("gevent",)),
    "gevent, gRPC not told": Run("under_gevent.py", ("gevent",), arguments=("--grpc-not-told",)),
    "a user's interceptors": Run("own_interceptors.py"),
    "nothing": Run("uninstrumented.py"),
}


def main() -> int:
    """Run every program; return 0 if no check failed."""
    words = [word for word in sys.argv[1:] if word != "--pinned"]
    files = {"": FILES[""]} if "--pinned" in sys.argv[1:] else FILES
    named = {f"{name}{suffix}": (which, file) for name, which in RUNS.items() for suffix, file in files.items()}
    chosen = {name: run for name, run in named.items() if not words or any(word in name for word in words)}
    if not chosen:
        sys.exit(f"instrumented: {' '.join(words)!r} is in none of the names: {', '.join(named)}")
    pythons = dict.fromkeys(((which.packages, file) for which, file in chosen.values()), "")
    for packages, file in pythons:
        pythons[packages, file] = kept_environment(packages, file)
    checks: list[Callable[[Path], str]] = [
        lambda _, which=which, python=pythons[which.packages, file]: check(which, python)  # type: ignore[misc]
        for which, file in chosen.values()
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return 0 if all(list(pool.map(report, chosen, checks))) else 1


def kept_environment(packages: tuple[str, ...], file: str) -> str:
    """The interpreter of an environment with these packages. It is created on first use, and if a version has changed.

    This package is installed in it in editable mode.
    """
    wanted = [*pins(packages, "instrumented.txt"), *pins(RUNTIME, file), "-e", str(ROOT)]
    recipe = f"{sys.version}\n{wanted}"
    place = CACHE / hashlib.sha256(recipe.encode()).hexdigest()[:12]
    stamp = place / "recipe"
    if not stamp.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        environment(place, wanted)
        stamp.write_text(recipe)
    return str(place / "venv" / "bin" / "python")


def check(which: Run, python: str) -> str:
    """Run a program against a new emulator; return the number of its checks."""
    command = [str(Path(python).with_name(name)) if index == 0 else name for index, name in enumerate(which.launcher)]
    with Emulator() as emulator, Desk(emulator) as desk:
        for rule in RULES:
            emulator.rule(**rule)
        variables = {**cleared(), **emulator.environment(), "EMULATOR_DESK": desk.address, **dict(which.variables)}
        lines = run(
            [*command, python, str(PROGRAMS / which.program), *which.arguments], variables=variables
        ).splitlines()
        done = [line for line in lines if line.startswith("ok ")]
        if not done:
            raise Failed("it has checked nothing")
        return f"{len(done)} checks"


class Desk:
    """A server through which a program in another process scripts an emulator and queries its calls; a context manager.

    Each request is a line of JSON, and so is each answer:

    - ``{"clear": true}``: calls :meth:`Emulator.clear`;
    - ``{"fail": {...}}``: calls :meth:`Emulator.fail` with these arguments;
    - ``{"arrived": id, "seconds": limit}``: whether a call with this ``x-client-request-id`` has arrived within the
      limit;
    - ``{"seen": id, "seconds": limit}``: waits until the calls with this id have ended; returns for each, in order of
      arrival, its ``outcome``, ``server_request_id`` and the ``keys`` of its metadata. Null if no call has arrived, or
      a call has not ended, within the limit.

    Args:
        emulator: a running emulator.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.emulator = emulator
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Desk:
        """Serve in threads."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="desk", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    emulator: Emulator
    daemon_threads = True


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        for line in self.rfile:
            question = json.loads(line)
            answer: Any = True
            if "clear" in question:
                self.server.emulator.clear()
            elif "fail" in question:
                self.server.emulator.fail(**question["fail"])
            elif "arrived" in question:
                answer = bool(arrived(self.server.emulator, question["arrived"], question["seconds"]))
            else:
                answer = seen(self.server.emulator, question["seen"], question["seconds"])
            self.wfile.write(json.dumps(answer).encode() + b"\n")


def arrived(emulator: Emulator, request_id: str, seconds: float) -> list[RecordedRequest]:
    """Wait until there is a call with this request id; return all such calls, or none after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        requests = emulator.requests
        if calls := [each for each in requests if each.metadata.get("x-client-request-id") == request_id]:
            return calls
        try:
            emulator.wait_for_requests(len(requests) + 1, max(0.0, end - time.monotonic()))
        except TimeoutError:
            return []


def seen(emulator: Emulator, request_id: str, seconds: float) -> list[dict[str, Any]] | None:
    """Wait until the calls with this request id have ended; return their outcomes, or None after `seconds`."""
    end = time.monotonic() + seconds
    calls = arrived(emulator, request_id, seconds)
    try:
        for call in calls:
            call.wait(max(0.0, end - time.monotonic()))
    except TimeoutError:
        return None
    return [
        {"outcome": call.outcome, "server_request_id": call.server_request_id, "keys": list(call.metadata)}
        for call in calls
    ] or None


if __name__ == "__main__":
    sys.exit(main())
