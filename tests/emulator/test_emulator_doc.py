"""docs/emulator.md: all code blocks run in the order of the page and print the output on the page."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from test_cli import COMMAND, exports, served
from test_coverage_doc import ROOT

from yandexgpt.emulator import Emulator
from yandexgpt.emulator.rules import ANSWER_KEYS, FAIL_KEYS, MATCH_KEYS

PAGE = (ROOT / "docs" / "emulator.md").read_text(encoding="utf-8")
REAL_SERVICE = "llm.api.cloud.yandex.net:443"


class Block(NamedTuple):
    kind: str
    source: str
    line: int

    @property
    def file(self) -> str | None:
        """The file name in the first line of a block."""
        named = re.match(r"# ([\w.]+\.(?:py|yaml))\n", self.source)
        return named and named[1]


def blocks() -> list[Block]:
    return [
        Block(found[1], found[2], PAGE.count("\n", 0, found.start()) + 1)
        for found in re.finditer(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    ]


class Page:
    """Runs the blocks. Their files and the running server are shared between blocks."""

    def __init__(self, folder: Path, environment: pytest.MonkeyPatch, upstream: Emulator) -> None:
        self._folder = folder
        self._environment = environment
        self._upstream = upstream
        self._command = contextlib.ExitStack()
        self._addresses: dict[str, str] = {}
        self.printed = ""

    def run(self, block: Block) -> None:
        if block.kind == "text":
            assert self.printed.strip() == block.source.strip()
        elif block.file is not None:
            (self._folder / block.file).write_text(block.source, encoding="utf-8")
            if block.file.startswith("test_"):
                self._pytest(block.file)
        elif block.kind == "python":
            self._python(block)
        elif block.source.startswith("yandexgpt emulate"):
            self._serve(block.source)
        else:
            assert block.kind == "sh"
            self._shell(block.source)

    def _python(self, block: Block) -> None:
        names: dict[str, Any] = {"__name__": "__page__"}
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile("\n" * block.line + block.source, "docs/emulator.md", "exec"), names)
        self.printed = out.getvalue()
        cases = [each for each in names.values() if isinstance(each, type) and issubclass(each, unittest.TestCase)]
        if cases and sys.version_info >= (3, 11):
            result = unittest.TestResult()
            unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, cases)).run(result)
            assert result.testsRun
            assert not result.errors + result.failures

    def _pytest(self, file: str) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", file]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _serve(self, command: str) -> None:
        """Run the command with free ports, and with an emulator in place of the service."""
        self.close()
        arguments = command.split()[2:]
        if REAL_SERVICE in arguments:
            arguments[arguments.index(REAL_SERVICE)] = self._upstream.endpoint
            arguments.append("--upstream-plaintext")
        _, printed = self._command.enter_context(served("--http-port", "0", *arguments))
        variables = exports(printed)
        http = variables["OPENAI_BASE_URL"].removeprefix("http://").removesuffix("/v1")
        self._addresses = {"127.0.0.1:50051": variables["YANDEXGPT_ENDPOINT"], "127.0.0.1:8080": http}
        for name, value in variables.items():
            self._environment.setenv(name, value)

    def _shell(self, source: str) -> None:
        for printed, real in self._addresses.items():
            source = source.replace(printed, real)
        for name, value in re.findall(r"(\w+)=(\S+)", source) if source.startswith("export ") else ():
            assert os.environ[name] == value
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-ec", source], env={**os.environ, "PATH": path}, capture_output=True, encoding="utf-8", timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        self.printed = done.stdout

    def close(self) -> None:
        self._command.close()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.chdir(tmp_path)
    with Emulator() as upstream:
        made = Page(tmp_path, monkeypatch, upstream)
        yield made
        made.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page calls curl")
def test_every_block_runs_and_prints_the_output_on_the_page(page: Page) -> None:
    found = blocks()
    assert len(found) > 20
    for block in found:
        if block.source.startswith("answers.yaml:"):
            continue  # an error message, see the next test
        print(f"docs/emulator.md:{block.line}")
        page.run(block)


def test_error_message_is_the_one_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (message,) = (block.source.strip() for block in blocks() if block.source.startswith("answers.yaml:"))
    Path("answers.yaml").write_text("rules:\n" + "\n" * 4 + "  - match: {}\n    anwser: a\n", encoding="utf-8")
    with pytest.raises(ValueError, match="anwser") as bad:
        Emulator().load_script("answers.yaml")
    assert str(bad.value) == message


def test_every_key_of_a_script_is_on_the_page() -> None:
    for key in MATCH_KEYS + ANSWER_KEYS + FAIL_KEYS:
        assert f"`{key}`" in PAGE
    (script,) = (yaml.safe_load(block.source) for block in blocks() if block.file == "answers.yaml")
    assert {key for rule in script["rules"] for key in rule} == {"match", "answer", "fail", "times"}


def test_every_command_flag_on_the_page_exists() -> None:
    printed = subprocess.run([COMMAND, "emulate", "--help"], capture_output=True, text=True, timeout=60).stdout
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", PAGE)) - {"--no-ensure-ascii"}  # an option of another program
    assert len(flags) > 10
    assert flags <= set(re.findall(r"--[\w-]+", printed))


def test_every_link_on_the_page_is_valid() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in re.findall(r"^#+ (.+)$", PAGE, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        assert (ROOT / "docs" / file).exists()
        assert not anchor or anchor in headings
