"""Write ``src/yandexgpt/_sync`` from ``src/yandexgpt/_async``, by text substitution: ``make unasync``.

    python scripts/unasync.py            # write
    python scripts/unasync.py --check    # fail if the committed files differ: part of `make check`

A line that ends in ``# async only`` is omitted. A comment that begins with ``# sync: `` becomes the code that it
contains. ruff formats the result.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "yandexgpt" / "_async"
TARGET = ROOT / "src" / "yandexgpt" / "_sync"
HEADER = "# Generated from ../_async by scripts/unasync.py. Do not edit.\n"

CODE = [
    (r"\bAsyncGenerator\[(.+?), None\]", r"Generator[\1, None, None]"),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bimport Awaitable, ", "import "),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsync([A-Z]\w*)", r"\1"),
    (r"\b(\w+)_async\b", r"\1"),
    (r"\byandexgpt\._async\b", "yandexgpt._sync"),
    (r"\byandexgpt\._rpc\.async_(\w+)", r"yandexgpt._rpc.\1"),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
]
"""Patterns of code, and their replacements."""

PROSE = [
    (
        r"The facade, written by hand\. ``_sync`` is generated from it by ``scripts/unasync\.py``\.",
        "The facade for threads, generated from ``_async`` by ``scripts/unasync.py``.",
    ),
    (
        r"The asynchronous client\. The synchronous client in ``_sync`` is generated from it\.",
        "The synchronous client.",
    ),
    (
        r"A client for YandexGPT text generation over gRPC, on ``grpc\.aio``\. Works in any number of event loops,"
        r" one after\n    another or in several threads at the same time; survives a fork\.",
        "A client for YandexGPT text generation over gRPC. Safe to share between threads; survives a fork.",
    ),
    (r"another task has closed the (stream|results)", r"another thread has closed the \1"),
    (r"another task that reads", "another thread that reads"),
    (r"cancelling the task (cancel)", r"Ctrl-C \1"),
    (r"Safe to share between tasks", "Safe to share between threads"),
]
"""Patterns of docstrings that differ for threads, and their replacements. Each pattern must be found."""

ASYNCHRONOUS = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
ASYNCHRONOUS_NAME = re.compile(r"Async[A-Z]\w*|\w+_async|asyncio|a(iter|next)|async_\w+")


def generate(text: str, found: set[str]) -> str:
    """The synchronous version of a module.

    Args:
        text: the source of the asynchronous module.
        found: the patterns of :data:`PROSE` that were found are added to it.
    """
    lines = [line for line in text.splitlines(keepends=True) if not line.endswith("  # async only\n")]
    text = re.sub(r"^( +)# sync: ", r"\1", "".join(lines), flags=re.MULTILINE)
    for pattern, replacement in PROSE:
        text, count = re.subn(pattern, replacement, text)
        if count:
            found.add(pattern)
    for pattern, replacement in CODE:
        text = re.sub(pattern, replacement, text)
    return HEADER + text


def left_over(text: str) -> Iterator[str]:
    """The code of a module that is still asynchronous."""
    for node in ast.walk(ast.parse(text)):
        name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)
        if isinstance(node, ASYNCHRONOUS) or (isinstance(name, str) and ASYNCHRONOUS_NAME.fullmatch(name)):
            yield ast.unparse(node)


def write(target: Path) -> None:
    """Write all modules to a directory, formatted.

    Raises:
        SystemExit: asynchronous code is left, or a pattern of :data:`PROSE` was not found.
    """
    found: set[str] = set()
    for source in sorted(SOURCE.glob("*.py")):
        text = generate(source.read_text(encoding="utf-8"), found)
        for code in left_over(text):
            raise SystemExit(f"{source.name}: what was generated is not synchronous: {code}")
        (target / source.name).write_text(text, encoding="utf-8")
    if missing := {pattern for pattern, _ in PROSE} - found:
        raise SystemExit(f"PROSE of {Path(__file__).name} is not in the docstrings any more: {missing}")
    for arguments in (["check", "--fix", "--select", "I,F401,UP034,RUF022"], ["format"]):
        command = [
            sys.executable,
            "-m",
            "ruff",
            *arguments,
            "--quiet",
            "--no-cache",
            "--config",
            str(ROOT / "pyproject.toml"),
        ]
        subprocess.run([*command, str(target)], check=True, cwd=ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the committed files differ")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        generated = Path(directory)
        write(generated)
        names = {path.name for path in (*generated.glob("*.py"), *TARGET.glob("*.py"))}
        for name in sorted(names):
            new, old = generated / name, TARGET / name
            if not new.exists():
                if arguments.check:
                    raise SystemExit(f"{old.relative_to(ROOT)} has no source in _async")
                old.unlink()
            elif not old.exists() or new.read_bytes() != old.read_bytes():
                if arguments.check:
                    raise SystemExit(f"{old.relative_to(ROOT)} is not what _async gives: run `make unasync`")
                TARGET.mkdir(exist_ok=True)
                old.write_bytes(new.read_bytes())


if __name__ == "__main__":
    main()
