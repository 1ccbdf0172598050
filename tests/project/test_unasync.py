"""The synchronous facade is generated from the asynchronous one: names, arguments and docstrings are equal."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import yandexgpt

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "scripts" / "unasync.py"


@pytest.fixture(scope="module")
def unasync() -> ModuleType:
    spec = importlib.util.spec_from_file_location("unasync", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_files_equal_the_output_of_the_script() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("asynchronous", "synchronous"),
    [
        ("async def f(x: AsyncIterator[str]) -> None:\n", "def f(x: Iterator[str]) -> None:\n"),
        ("m: AsyncGenerator[Message, None]\n", "m: Generator[Message, None, None]\n"),
        ("f: Callable[..., Awaitable[Completion]]\n", "f: Callable[..., Completion]\n"),
        ("    async with self as a:\n", "    with self as a:\n"),
        ("    async for a in await b:\n", "    for a in b:\n"),
        ("from yandexgpt._async.chat import AsyncChat\n", "from yandexgpt._sync.chat import Chat\n"),
        ("from yandexgpt._rpc.async_batch import AsyncBatch\n", "from yandexgpt._rpc.batch import Batch\n"),
        ("    aclose = close  # async only\n", ""),
        ("        # sync: self.begins()\n", "        self.begins()\n"),
        ("a = await call_tools_async(b)\n", "a = call_tools(b)\n"),
    ],
)
def test_code_is_made_synchronous(unasync: ModuleType, asynchronous: str, synchronous: str) -> None:
    assert unasync.generate(asynchronous, set()) == unasync.HEADER + synchronous


@pytest.mark.parametrize(
    "code", ["import asyncio\nasyncio.sleep(1)", "async def f(): ...", "a: AsyncThing", "wait_async()"]
)
def test_code_that_cannot_be_made_synchronous_is_reported(unasync: ModuleType, code: str) -> None:
    assert list(unasync.left_over(code))


def test_help_shows_the_whole_signature_and_docstring() -> None:
    for client in (yandexgpt.Client, yandexgpt.AsyncClient):
        assert list(inspect.signature(client.complete).parameters)[:4] == ["self", "prompt", "system", "model"]
        assert "temperature: 0 to 1" in (inspect.getdoc(client.complete) or "")
        assert "folder_id" in inspect.signature(client).parameters
        assert "folder_id" in (inspect.getdoc(client) or "")
