"""The types that mypy sees: return types are revealed, and a wrong call is an error."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from driver import once, subprocess_environment

import yandexgpt
from yandexgpt import _options as options

pytest.importorskip("mypy")

PREAMBLE = """\
import dataclasses
import pydantic
import yandexgpt

class Person(pydantic.BaseModel):
    name: str

@dataclasses.dataclass
class City:
    name: str

@yandexgpt.tool
def weather(city: str, days: int = 1) -> str:
    return city

@yandexgpt.tool(name="load")
async def load(path: str) -> bytes:
    return b""

client = yandexgpt.Client()
aclient = yandexgpt.AsyncClient()
chat = client.chat(system="s")
achat = aclient.chat(system="s")
"""

CHUNK = "tuple[str, int, str, bool, CompletionResponse, fallback=Chunk]"
"""The named tuple as mypy prints it."""
REVEALED = [
    ('client.complete("p")', "Completion"),
    ('client.complete("p").usage.total_tokens', "int"),
    ('client.complete("p").tool_calls', "tuple[ToolCall, ...]"),
    ('client.stream("p")', "Stream"),
    ('next(iter(client.stream("p")))', CHUNK),
    ('next(iter(client.stream("p"))).delta', "str"),
    ('next(iter(client.stream("p").text()))', "str"),
    ('client.stream("p").finish()', "Completion"),
    ('client.stream("p", latest=True)', "Stream"),
    ('client.complete_many(["p"], concurrency=2, on_error="return", model="m")', "Results"),
    ('next(iter(client.complete_many(["p"]))).completion.text', "str"),
    ('next(iter(client.complete_many(["p"]))).error', "Exception | None"),
    ('client.submit("p")', "Operation"),
    ('client.submit("p").wait()', "Completion"),
    ('client.parse("p", Person)', "Parsed[Person]"),
    ('client.parse("p", Person).value', "Person"),
    ('client.parse("p", City, model="m").value.name', "str"),
    ('client.parse("p", list[City]).value', "list[City]"),
    ('client.parse("p", pydantic.TypeAdapter[int | str](int | str)).value', "int | str"),
    ('client.parse("p", Person).completion', "Completion"),
    ('client.run_tools("p", [weather, load], timeout=None)', "Completion"),
    ('client.complete("p", tools=[weather, {"name": "now"}], response_format=City)', "Completion"),
    ("client.count_tokens([yandexgpt.Message('user', 'p')])", "int"),
    ("weather", "Tool[[city: str, days: int =], str]"),
    ('weather("c", days=2)', "str"),
    ("load.name", "str"),
    ("chat", "Chat"),
    ('chat.send("p", temperature=0.5)', "Completion"),
    ('next(iter(chat.stream("p")))', CHUNK),
    ('chat.ask("p", tools=[weather])', "Completion"),
    ("chat.messages", "tuple[Message, ...]"),
    ("chat.trim(5)", "int"),
    ("yandexgpt.Chat.from_dict(client, {})", "Chat"),
]
REVEALED_ASYNC = [
    ('await aclient.complete("p")', "Completion"),
    ('aclient.stream("p")', "AsyncStream"),
    ('[chunk async for chunk in aclient.stream("p")]', f"list[{CHUNK}]"),
    ('await aclient.stream("p").finish()', "Completion"),
    ('[result async for result in aclient.complete_many(["p"])]', "list[Result]"),
    ('await aclient.submit("p")', "AsyncOperation"),
    ('await (await aclient.submit("p")).wait()', "Completion"),
    ('(await aclient.parse("p", Person)).value', "Person"),
    ('await aclient.run_tools("p", [weather])', "Completion"),
    ('await load("a")', "bytes"),
    ("achat", "AsyncChat"),
    ('await achat.send("p")', "Completion"),
    ('[piece async for piece in achat.stream("p").text()]', "list[str]"),
    ("await achat.trim(5)", "int"),
    ("yandexgpt.AsyncChat.from_dict(aclient, {})", "AsyncChat"),
]
WRONG = [
    ('client.complete("p", temprature=0.5)', "call-arg"),
    ('client.complete("p", temperature="0.5")', "arg-type"),
    ('client.complete("p", max_tokens=1.5)', "arg-type"),
    ('client.complete("p", reasoning="on")', "arg-type"),
    ("client.complete(5)", "arg-type"),
    ("client.complete()", "call-arg"),
    ('client.complete("p").txt', "attr-defined"),
    ('client.complete("p").text = "a"', "misc"),
    ('client.stream("p", 0.5)', "call-arg|misc"),
    ('client.stream("p").delta', "attr-defined"),
    ('client.submit("p", timeout="5")', "arg-type"),
    ('client.complete_many(["p"], on_error="ignore")', "arg-type"),
    ('client.complete_many(["p"], stream=True)', "call-arg"),
    ('client.complete_many(["p"], temperature="hot")', "arg-type|typeddict-item"),
    ("client.complete_many([5])", "list-item"),
    ('client.parse("p", Person, response_format="json")', "call-arg"),
    ('client.parse("p", Person).value.nme', "attr-defined"),
    ('client.parse("p", 5)', "arg-type"),
    ('client.run_tools("p", [weather], max_round=1)', "call-arg"),
    ('client.run_tools("p", [print])', "list-item"),
    ('client.complete("p", tools=weather)', "arg-type"),
    ("weather(5)", "arg-type"),
    ('weather("c", dys=1)', "call-arg"),
    ('chat.send("p", system="s")', "call-arg"),
    ('chat.send("p", temperature="hot")', "arg-type|typeddict-item"),
    ("chat.send(5)", "arg-type"),
    ("yandexgpt.Chat.from_dict(aclient, {})", "arg-type"),
    ("yandexgpt.Client(timeout='5')", "arg-type"),
    ("yandexgpt.Client('folder')", "call-arg|misc"),
    ("yandexgpt.Nothing", "attr-defined"),
    ('aclient.complete("p").text', "attr-defined"),
    ('achat.send("p").text', "attr-defined"),
    ('[chunk for chunk in aclient.stream("p")]', "attr-defined"),
]
WRONG_ASYNC = [
    ('aclient.complete("p")', "unused-coroutine"),
    ('achat.send("p")', "unused-coroutine"),
    ('await aclient.stream("p")', "misc"),
    ('await aclient.chat(system="s")', "misc"),
    ('[chunk for chunk in achat.stream("p")]', "attr-defined"),
]


@pytest.fixture(scope="module")
def mypy_output(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The messages of mypy for each expression."""
    return once(tmp_path_factory, "mypy", partial(check, tmp_path_factory.mktemp("typing")))


def check(folder: Path) -> dict[str, list[str]]:
    """Run mypy once for all expressions, because its start takes seconds."""
    lines = [*PREAMBLE.splitlines()]
    where: dict[int, str] = {}

    def add(expression: str, line: str) -> None:
        lines.append(line)
        where[len(lines)] = expression

    for expression, _ in REVEALED:
        add(f"reveal {expression}", f"reveal_type({expression})")
    for expression, _ in WRONG:
        add(expression, expression)
    lines.append("async def main() -> None:")
    for expression, _ in REVEALED_ASYNC:
        add(f"reveal {expression}", f"    reveal_type({expression})")
    for expression, _ in WRONG_ASYNC:
        add(expression, f"    {expression}")
    (folder / "user.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", "cache", "--no-error-summary", "user.py"],
        cwd=folder,
        env=subprocess_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert not done.stderr, done.stderr
    found: dict[str, list[str]] = {expression: [] for expression in where.values()}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"user\.py:(\d+): (.*)", line)
        assert match, line
        assert int(match[1]) in where, line
        found[where[int(match[1])]].append(match[2])
    return found


def short(name: str) -> str:
    """The type without module names."""
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", name)


@pytest.mark.parametrize(("expression", "expected"), REVEALED + REVEALED_ASYNC)
def test_revealed_type_is(mypy_output: dict[str, list[str]], expression: str, expected: str) -> None:
    [note] = mypy_output[f"reveal {expression}"]
    match = re.fullmatch(r'note: Revealed type is "(.*)"', note)
    assert match, note
    assert short(match[1]) == expected


@pytest.mark.parametrize(("expression", "code"), WRONG + WRONG_ASYNC)
def test_wrong_call_is_a_type_error(mypy_output: dict[str, list[str]], expression: str, code: str) -> None:
    errors = [line for line in mypy_output[expression] if line.startswith("error: ")]
    assert any(re.search(rf"\[({code})\]$", error) for error in errors), mypy_output[expression]


@pytest.mark.parametrize(
    ("method", "keywords", "left_out"),
    [
        ("run_tools", options.RunOptions, {"tools"}),
        ("ask", options.AskOptions, {"tools", "system"}),
        ("send", options.TurnOptions, {"system"}),
        ("stream", options.StreamTurnOptions, {"system"}),
        ("complete_many", options.ManyOptions, set()),
        ("parse", options.ParseOptions, {"response_format"}),
    ],
)
def test_methods_based_on_complete_take_its_keywords(method: str, keywords: type, left_out: set[str]) -> None:
    model = yandexgpt.Client.stream if method == "stream" else yandexgpt.Client.complete
    parameters = inspect.signature(model).parameters.values()
    assert (
        keywords.__annotations__.keys()
        == {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY} - left_out
    )
    owner = yandexgpt.Client if hasattr(yandexgpt.Client, method) and method != "stream" else yandexgpt.Chat
    assert f"Unpack[{keywords.__name__}]" in str(inspect.signature(getattr(owner, method)))
