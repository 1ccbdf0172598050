"""Run every sample of Yandex Cloud's guides against the emulator, and compare the output with the printed output.

    python scripts/clients.py guides

The guides are Markdown files in the folder that the environment variable GUIDES names, or in subfolders of the folder
`shared` next to the repository. If there are none, a line says so. The placeholders of the guides are replaced by
folder, key, token and paths. Hosts are not replaced: two proxies forward every connection to the emulator, whose
certificate has the names of the service. Ids, times, and white space inside a text may differ from the guide. Samples
whose code is not in the guide itself are left out.
"""

from __future__ import annotations

import ast
import json
import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from compat import ROOT, Failed, environment, run
from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tunnel import Tunnel

from yandexgpt import _proto
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt.emulator import Emulator

PACKAGES = ("grpcio-tools", "openai", "requests")
"""The packages that the guides tell their readers to install."""
KEY, FOLDER = "guides-key", "b1gguides"
HOSTS = {"api-host": "api.cloud.yandex.net", "api-host-operation": "operation.api.cloud.yandex.net"}
"""Variables in the texts of the guides."""
PROTOC_PATHS = "-I . -I third_party/googleapis"
"""The options of protoc for a clone of the interface. Here the pinned descriptors are used instead of a clone."""
CONTEXT = 30
"""The number of characters to show before a difference."""
VARYING = {
    "id": r"[a-z0-9]{20}",
    "createdBy": r"[a-z0-9]{20}",
    "createdAt": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "modifiedAt": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
}
"""Fields of an operation whose values may differ, and the patterns that they must match."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a guide: its language, its text, the prose before it, and its line."""

    language: str
    text: str
    prose: str
    line: int


def check(place: Path, requirements: list[str]) -> str:
    """Run the samples of all guides; return their numbers."""
    folder = os.environ.get("GUIDES")
    found = Path(folder).glob("*") if folder else ROOT.parent.glob("shared/*/[0-9]*_*.txt")
    guides = [guide for guide in sorted(found) if guide.is_file() and "```" in guide.read_text()]
    if not guides:
        return f"skipped, there are no guides in {folder or ROOT.parent / 'shared'}: name their folder in GUIDES"
    python = environment(place, requirements)
    outcomes = [_guide(guide, place / guide.stem, python) for guide in guides]
    wrong = [line for outcome in outcomes for line in outcome.wrong]
    if wrong:
        raise Failed("".join(f"\n       {line}" for line in wrong) + "\n      ")
    return "".join(f"\n       {outcome}" for outcome in outcomes) + "\n      "


def _guide(guide: Path, place: Path, python: str) -> Session:
    place.mkdir()
    text = guide.read_text()
    emulator = Emulator(tls=True, http_port=0, authorization=f"Api-Key {KEY}")
    with emulator, Tunnel(emulator.endpoint) as calls, Tunnel(emulator.http_url.removeprefix("https://")) as requests:
        variables = {
            "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INDEX": "1",
            "grpc_proxy": calls.url,
            "https_proxy": requests.url,
            "no_proxy": "",
            "NO_PROXY": "",
            **dict.fromkeys(
                ("CURL_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
                str(emulator.tls),
            ),
        }
        title = re.sub(r"(?:\s+в)?\s+\{\{.*?\}\}|[\"']", "", text.partition("title:")[2].partition("\n")[0]).strip()
        session = Session(title, place, variables, emulator.identity.issue())
        for block in blocks(text):
            session.take(block)
        session.finish()
    return session


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text, in order, without their indentation."""
    text = re.sub(r"\{\{ ([\w-]+) \}\}", lambda name: HOSTS.get(name[1], name[0]), text)
    end = 0
    for found in re.finditer(r"(?ms)^[ \t]*```(\w+)\n(.*?)^[ \t]*```[ \t]*$", text):
        prose, end = text[end : found.start()], found.end()
        yield Block(found[1], textwrap.dedent(found[2]), prose, text.count("\n", 0, found.start()) + 1)


class Session:
    """Follows a guide block by block, as a reader would.

    A block is the body of a request, a program, a command, or the output of the commands before it. If there is only a
    body or a program before an output, the last commands are repeated, as the guides ask their readers to.

    Attributes:
        wrong: the differences found, one line each.
    """

    def __init__(self, name: str, place: Path, variables: dict[str, str], token: str) -> None:
        self.wrong: list[str] = []
        self._name = name
        self._place = place
        self._variables = variables
        self._token = token
        self._programs: dict[str, str] = {}
        self._exports: list[str] = []
        self._commands: list[str] = []
        self._last: list[str] = []
        self._outputs: list[str] = []
        self._operation = ""
        self._ran = self._compared = 0
        self._notes: list[str] = []
        self._left_out = False

    def __str__(self) -> str:
        """A summary of the session."""
        return f"{self._name}: {self._ran} runs, {self._compared} outputs as printed{''.join(self._notes)}"

    def take(self, block: Block) -> None:
        """Process a block."""
        if block.language == "json" and "modelUri" in block.text:
            self._place.joinpath("body.json").write_text(self._filled(block.text))
        elif block.language == "python":
            name = re.findall(r"`([\w-]+\.py)`", block.prose)[-1]
            self._programs[name] = self._indented(self._filled(block.text), block.line)
        elif block.language == "bash" and not block.text.startswith("{"):
            self._command(self._filled(block.text), block.line)
        elif self._left_out:
            self._left_out = False
        else:
            self._compare(block)

    def finish(self) -> None:
        """Report an error if no output was compared."""
        if not self._compared and not self.wrong:
            self.wrong.append(f"{self._name}: no output was compared")

    def _filled(self, text: str) -> str:
        """The text with the placeholders replaced by values."""
        values = {
            "каталог": FOLDER,
            "IAM": self._token,
            "API": KEY,
            "json": "body.json",
            "ID": self._operation,
            "cloudapi": "cloudapi",
        }

        def value(placeholder: re.Match[str]) -> str:
            return next(given for word, given in values.items() if word in placeholder[0])

        text = re.sub(r"(?<!\w)<(?:[^\W\d]|[_-])+>", value, text)
        return re.sub(
            r"\bYANDEX_CLOUD_(API_KEY|FOLDER)\b(?!=)", lambda name: repr(KEY if name[1] == "API_KEY" else FOLDER), text
        )

    def _indented(self, source: str, line: int) -> str:
        """The program. Lines with invalid indentation are moved to the left, and a note reports it."""
        lines = source.splitlines()
        try:
            compile(source, self._name, "exec")
        except IndentationError as error:
            first = (error.lineno or 1) - 1
            depth = len(lines[first]) - len(lines[first].lstrip())
            last = next(
                (at for at in range(first, len(lines)) if lines[at].strip() and not lines[at].startswith(" " * depth)),
                len(lines),
            )
            block = textwrap.dedent("\n".join(lines[first:last]))
            shallower = textwrap.indent(block, " " * (depth - 4)).splitlines()
            self._notes.append(f"; the program at line {line} with {last - first} lines moved to the left")
            source = "\n".join([*lines[:first], *shallower, *lines[last:]])
            compile(source, self._name, "exec")
        return source

    def _command(self, text: str, line: int) -> None:
        exports = re.findall(r"(?m)^export .*$", text)
        if text.startswith("git clone"):
            self._place.joinpath("cloudapi").mkdir()
        elif text.startswith("cd "):
            self._place /= text.split()[1]
        elif exports and len(exports) == len(text.splitlines()):
            self._exports += exports
        elif program := re.search(r"python3? (\S+\.py)", text):
            if Path(program[1]).name not in self._programs:
                self._notes.append(f"; the program at line {line} is not in the guide")
                self._left_out = True
                return
            self._exports += exports
            self._run(text)
            if {"IAM_TOKEN", "API_KEY"} <= {re.split("[ =]", each)[1] for each in self._exports}:
                self._run(f"unset IAM_TOKEN\n{text}")  # either is sufficient: test both
        elif "curl" in text:
            self._exports += exports
            self._run(text)
        elif PROTOC_PATHS in text:
            self._generate(text, line)
        else:
            self._shell(text)

    def _generate(self, text: str, line: int) -> None:
        """Run protoc on the pinned interface. Imported files that the guide does not name are added, with a note."""
        names = re.findall(r"\S+\.proto\b", text)
        interface = _interface(names)
        self._place.joinpath("interface.binpb").write_bytes(interface.SerializeToString())
        added = [file.name for file in interface.file if file.name.startswith("yandex/") and file.name not in names]
        if added:
            self._notes.append(f"; protoc at line {line} with {', '.join(added)}")
        command = text.strip().replace(PROTOC_PATHS, "--descriptor_set_in=interface.binpb")
        self._shell(" ".join([command, *added]))

    def _run(self, text: str) -> None:
        for path in re.findall(r"python3? (\S+\.py)", text):
            self._place.joinpath(path).write_text(self._programs[Path(path).name])
        self._commands.append(text)
        self._outputs.append(self._shell(text))
        self._ran += 1

    def _shell(self, text: str) -> str:
        """The output of bash. An unquoted variable is one word, as in zsh: the guides rely on it."""
        lines = ["set -e", "IFS=", "unset IAM_TOKEN API_KEY", *self._exports, text]
        return run(["bash", "-c", "\n".join(lines)], self._place, self._variables)

    def _compare(self, block: Block) -> None:
        if not self._outputs:
            for command in self._last:
                self._run(command)
        for output in self._outputs:
            difference = _difference(block.text, output)
            if difference:
                self.wrong.append(f"{self._name}, line {block.line}: {difference}")
            else:
                self._compared += 1
            if output.startswith("{") and '"id"' in output:
                self._operation = json.loads(output)["id"]
        self._last, self._commands, self._outputs = self._commands, [], []


def _difference(expected: str, output: str) -> str | None:
    """The difference between the printed output and the actual one; None if there is none, except allowed ones."""
    if expected.startswith("{'"):
        return _unlike(ast.literal_eval(expected), ast.literal_eval(output))
    if expected.startswith("{"):
        return _unlike(json.loads(expected, strict=False), json.loads(output))
    if expected.startswith("alternatives {"):
        return _unlike(_messages(expected), _messages(output))
    return _unlike(expected, output)


def _unlike(expected: Any, found: Any, path: str = "") -> str | None:
    if path.rpartition(".")[2] in VARYING and re.fullmatch(VARYING[path.rpartition(".")[2]], str(found)):
        return None
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [*expected, *(key for key in found if key not in expected)]
        pairs = [(f"{path}.{key}", expected.get(key), found.get(key)) for key in keys]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(f"{path}[{at}]", *pair) for at, pair in enumerate(zip(expected, found, strict=True))]
    else:
        same = expected == found or (isinstance(expected, str) and expected.split() == str(found).split())
        return None if same else f"{path or 'output'}: {_from_difference(expected, found)}"
    return next((difference for at, one, other in pairs if (difference := _unlike(one, other, at))), None)


def _from_difference(expected: Any, found: Any) -> str:
    """Both values, from shortly before the first different character."""
    texts = str(expected), str(found)
    first = next((at for at, (one, other) in enumerate(zip(*texts, strict=False)) if one != other), 0)
    start = max(0, first - CONTEXT)
    printed, came = (repr(text[start : start + 3 * CONTEXT]) for text in texts)
    return f"{printed} is printed, {came} came"


def _messages(text: str) -> list[str]:
    """Messages in the text format of protobuf, separated by empty lines, in a normalized form."""
    made = text_generation_service_pb2.CompletionResponse
    return [str(text_format.Parse(part, made())) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _interface(names: list[str]) -> FileDescriptorSet:
    """The files of the pinned interface with these names, and their imports, as descriptors for protoc."""
    files: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for needed in file.dependencies:
            add(needed)
        files[file.name] = file

    for name in names:
        module = name.removesuffix(".proto").replace("/", ".")
        add(import_module(f"{_proto.__name__ + '.' if module.startswith('yandex.') else ''}{module}_pb2").DESCRIPTOR)
    described = FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(described.file.add())
    return described
