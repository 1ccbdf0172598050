"""Test the package with the lowest and highest versions of its dependencies, and together with `yandexcloud`.

    python scripts/compat.py

Every check has a temporary environment, and prints its result in one line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
LIMIT_SECONDS = 900
"""The limit for one installation, or one run of the suite."""
NEIGHBOURS = ("0.413.0", "0.389.0")
"""Versions of `yandexcloud`: one with the same files as ours, one whose files differ from ours."""


class Failed(Exception):  # noqa: N818 - the outcome of a check, not an error of the script
    """A check failed, for the reason given."""


def main() -> int:
    """Run every check; return 0 if none failed."""
    checks: dict[str, Callable[[Path], str]] = {
        "lowest.txt holds the lower ends of the ranges": lambda _: lowest_is_lowest(),
        "the suite on the lowest versions": lambda place: suite(
            place, ["-r", str(REQUIREMENTS / "lowest.txt")], "not gen"
        ),
        "the suite on the highest versions": lambda place: suite(place, ["--upgrade"], "not gen and not slow"),
    }
    for version in NEIGHBOURS:
        checks[f"beside yandexcloud {version}"] = lambda place, version=version: beside(place, version)  # type: ignore[misc]
    results = [report(name, check) for name, check in checks.items()]
    return 0 if all(results) else 1


def report(name: str, check: Callable[[Path], str]) -> bool:
    """Run one check in a temporary directory and print a line with its result."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="yandexgpt-compat-") as place:
        try:
            outcome, detail = "ok", check(Path(place))
        except Failed as failed:
            outcome, detail = "FAILED", str(failed)
    print(f"{outcome:6} {name}: {detail} [{time.monotonic() - began:.0f} s]", flush=True)
    return outcome == "ok"


def lowest_is_lowest() -> str:
    """Compare `lowest.txt` with the lower bounds in `pyproject.toml`; if a bound has no patch number, any matches."""
    table = (ROOT / "pyproject.toml").read_text().partition("\n[project]\n")[2].partition("\n[tool.")[0]
    lower = dict(re.findall(r'"([a-z][\w-]*)(?:\[[\w,]+\])?>=([\d.]+)', re.sub(r"(?m)^requires-python.*$", "", table)))
    pinned = dict(re.findall(r"(?m)^([\w-]+)==([\d.]+)", (REQUIREMENTS / "lowest.txt").read_text()))
    for name in sorted(lower.keys() | pinned.keys()):
        ends, starts = lower.get(name, "nothing"), pinned.get(name, "nothing")
        if starts != ends and not starts.startswith(f"{ends}."):
            raise Failed(f"pyproject.toml allows {name} from {ends}, lowest.txt has {starts}")
    return ", ".join(f"{name} {version}" for name, version in pinned.items())


def suite(place: Path, choice: list[str], marks: str) -> str:
    """Run the tests on the built package, with the pinned test tools and the chosen dependencies.

    Args:
        marks: which tests, as an argument of pytest. The tests of the generator (``gen``) have their own toolchain, so
            they need not run with other dependencies.
    """
    chosen = set(re.findall(r"(?m)^([\w-]+)==", (REQUIREMENTS / "lowest.txt").read_text()))
    lines = (REQUIREMENTS / "dev.txt").read_text().splitlines()
    tools = place / "tools.txt"
    tools.write_text("\n".join(line for line in lines if line.partition("==")[0] not in chosen))
    python = environment(place, [*choice, "-r", str(tools), f"{ROOT}[{','.join(extras())}]"])
    output = run([python, "-m", "pytest", "-q", "-n", "5", "-m", marks, "-p", "no:cacheprovider"])
    return f"{output.strip().splitlines()[-1]} ({versions(python, chosen)})"


def extras() -> list[str]:
    """Return the names of the optional dependencies."""
    table = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")[2]
    return re.findall(r"(?m)^([\w-]+) = \[", table.partition("\n[")[0])


def versions(python: str, names: set[str]) -> str:
    """Return the installed versions as text."""
    frozen = run([python, "-m", "pip", "--disable-pip-version-check", "freeze"])
    found = (line for line in frozen.splitlines() if line.partition("==")[0] in names)
    return ", ".join(line.replace("==", " ") for line in found)


BESIDE = """
    import concurrent.futures, hashlib, sys
    from importlib import import_module
    import grpc

    V1, STREAM = "yandex.cloud.ai.foundation_models.v1", "text_generation.text_generation_service_pb2"
    answer = b"\\x1a\\x01v"  # CompletionResponse(model_version="v")
    class Handlers(grpc.GenericRpcHandler):
        def service(self, call):
            assert call.method == f"/{V1}.TextGenerationService/Completion"
            return grpc.unary_stream_rpc_method_handler(lambda request, _: iter([request and answer, answer]))

    def call(prefix):
        messages, stubs = import_module(f"{prefix}{V1}.{STREAM}"), import_module(f"{prefix}{V1}.{STREAM}_grpc")
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
        server.add_generic_rpc_handlers([Handlers()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            request = messages.CompletionRequest(model_uri="m", messages=[{"role": "user", "text": "t"}])
            request.completion_options.temperature.value = 0.5
            got = list(stubs.TextGenerationServiceStub(channel).Completion(request, timeout=20))
        server.stop(None).wait()
        assert [message.model_version for message in got] == ["v", "v"], got
        assert all(type(message) is messages.CompletionResponse for message in got)

    sides = {"ours": "yandexgpt._proto.", "theirs": ""}
    for side in sys.argv[1:]:
        if side == "theirs":
            import yandexcloud
        import_module(f"{sides[side]}{V1}.{STREAM}_grpc")
    for side in sys.argv[1:]:
        call(sides[side])

    # What they see in the default pool: the contents of each file of theirs, wherever it came from.
    from google.protobuf import descriptor_pool
    seen = {}
    for name, module in sorted(sys.modules.items()):
        if name.startswith("yandex.") and name.endswith("_pb2"):
            file = descriptor_pool.Default().FindFileByName(module.DESCRIPTOR.name)
            assert file is module.DESCRIPTOR or file.serialized_pb == module.DESCRIPTOR.serialized_pb
            seen[name] = hashlib.sha256(file.serialized_pb).hexdigest()
    if "ours" in sys.argv:
        for name, module in list(sys.modules.items()):
            if name.startswith("yandexgpt._proto.yandex.") and name.endswith("_pb2"):
                if name.removeprefix("yandexgpt._proto.") not in seen:
                    try:
                        descriptor_pool.Default().FindFileByName(module.DESCRIPTOR.name)
                    except KeyError:
                        continue
                    sys.exit(f"{name} is in the default pool")
    print(len(seen), hashlib.sha256(repr(seen).encode()).hexdigest())
"""


def beside(place: Path, version: str) -> str:
    """Import both packages in both orders. Each must make a call, and `yandexcloud` must see the same descriptors as
    without this package.
    """
    python = environment(place, [f"yandexcloud=={version}", str(ROOT)])
    program = place / "beside.py"
    program.write_text(textwrap.dedent(BESIDE))
    alone = run([python, str(program), "theirs"])
    for order in (["ours", "theirs"], ["theirs", "ours"]):
        if run([python, str(program), *order]) != alone:
            raise Failed(f"with {order[0]} first, yandexcloud sees other descriptors than alone")
    names = {"grpcio", "protobuf", "googleapis-common-protos"}
    return f"both orders, {alone.split()[0]} files of theirs unchanged ({versions(python, names)})"


def environment(place: Path, requirements: list[str]) -> str:
    """Make an environment with the requirements installed; return its interpreter."""
    run([sys.executable, "-m", "venv", str(place / "venv")])
    python = str(place / "venv" / "bin" / "python")
    run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install", *requirements])
    return python


def pins(packages: Iterable[str], file: str) -> list[str]:
    """The pinned requirements of these packages in a file of the directory requirements."""
    pinned = dict(re.findall(r"(?m)^([\w-]+)==(\S+)", (REQUIREMENTS / file).read_text()))
    return [f"{package}=={pinned[package]}" for package in packages]


def cleared() -> dict[str, str]:
    """Empty values for the environment variables of a developer's account and proxies."""
    return {name: "" for name in os.environ if re.fullmatch(r"(?i)(yc_.*|((https?|all)_)?proxy)", name)}


def run(command: list[str], place: Path = ROOT, variables: Mapping[str, str] | None = None) -> str:
    """Run a command in a directory, without the caller's PYTHONPATH and virtual environment; return its output."""
    surroundings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    surroundings |= variables or {}
    try:
        done = subprocess.run(
            command, cwd=place, env=surroundings, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as expired:
        raise Failed(f"no end within {LIMIT_SECONDS} s: {' '.join(command[1:4])}") from expired
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        names = re.findall(r"(?m)^(?:FAILED|ERROR) .*", said)  # of tests; the end of the output may not show them
        words = textwrap.indent("\n".join((*names, said[-4000:])), "       ")
        raise Failed(f"{' '.join(command[1:4])} gave {done.returncode}\n{words}\n      ")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
