"""The programs in examples/: each runs with an emulator and prints the output of the guides."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pytest
from driver import PATIENCE, once
from test_coverage_doc import METHOD_ROWS, RETIRED, ROOT

from yandexgpt.emulator import Emulator

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
GUIDE_ANSWERS = json.loads(
    resources.files("yandexgpt.emulator").joinpath("guide_answers.json").read_text(encoding="utf-8")
)["answers"]
TYPOS = "Ашипки саме сибя ни исрпвят"
OPERATION_TIME = 0.2
"""Seconds that an operation takes. The examples show operations that are not done."""
OPERATION_TIMES = {"operations_many.py": 4.0}
"""Seconds for an example that cancels an operation before it ends."""
LONGEST = 60
"""Maximum number of lines of an example, except demo.py."""
NOT_EMULATED = ("CreateForServiceAccount", "Revoke", "ApiEndpointService")
"""Methods that no example calls, because the emulator does not implement them."""


class Run(NamedTuple):
    code: int
    out: str
    err: str
    methods: set[str]
    authorizations: set[str]


def run(name: str, *arguments: str, emulator: Emulator | None = None, **variables: str | None) -> Run:
    """Run an example with the environment of the emulator and `variables`. A variable that is None is not set."""
    with emulator or Emulator(operation_time=OPERATION_TIMES.get(name, OPERATION_TIME)) as running:
        if name == "credentials.py" and not variables:  # this example fetches a token
            variables = {"API_KEY": None, "YC_OAUTH_TOKEN": running.identity.oauth_token()}
        kept = {
            each: os.environ[each]
            for each in ("PATH", "PYTHONPATH", "SYSTEMROOT", "TMPDIR", "TEMP")
            if each in os.environ
        }
        environment = {**kept, "PYTHONUTF8": "1", **running.environment(), **variables}
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", ROOT / "examples" / name, *arguments],
            env={each: value for each, value in environment.items() if value is not None},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=2 * PATIENCE,
        )
        methods = {request.method.removeprefix("/") for request in running.requests}
        if running.identity.exchanges:
            methods.add("yandex.cloud.iam.v1.IamTokenService/Create")
        authorizations = {str(request.metadata.get("authorization")) for request in running.requests}
    return Run(ended.returncode, ended.stdout, ended.stderr, methods, authorizations)


class Runs:
    """The result of each example. It runs at the first access."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory

    def __getitem__(self, name: str) -> Run:
        return once(self._factory, name, partial(run, name))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs_and_calls_the_emulator(name: str, runs: Runs) -> None:
    ended = runs[name]
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.strip()
    assert ended.methods, "it did not call the emulator"


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    "printed", GUIDE_ANSWERS, ids=[f"{each['guide']}-{each['text'][:9]}" for each in GUIDE_ANSWERS]
)
def test_every_answer_of_the_guides_is_printed_by_an_example(printed: dict[str, str], kind: str, runs: Runs) -> None:
    programs = [name for name in EXAMPLES if name.endswith("_async.py") == (kind == "async")]
    assert any(printed["text"] in runs[name].out for name in programs)


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("chat_mode.py", ['{"inputTextTokens": "44", "completionTokens": "323", "totalTokens": "367"} 06.12.2023']),
        ("chat_mode_async.py", ["367 tokens, FINAL"]),
        ("chat_series.py", ["4 messages forgotten, 3 left"]),
        ("chat_series_async.py", ["7 messages, 1076 tokens paid for in three turns"]),
        ("prompt_mode.py", ["Быть или не быть - вот в чём вопрос.\n38 tokens, model version 06.12.2023"]),
        ("grpc_stubs_async.py", ["О (30 tokens)\nОшибки сами себя не исправят. (38 tokens)\nstatus: OK"]),
        ("streaming.py", ["PARTIAL  keep  0, then 'О': О\nFINAL    keep  1", "38 tokens", "\nFINAL"]),
        ("operation.py", ["another process: Быть или не быть: вот в чём вопрос.\n", "total_tokens=41", "of reasoning"]),
        ("operation_async.py", [", pending)", "\nБыть или не быть: вот в чём вопрос.\n"]),
        ("operations_many.py", ["(cancelled)\n", "ended in CANCELLED", "\n    Быть или не быть: вот в чём вопрос.\n"]),
        ("responses.py", ["completed, ", "completed: Расскажи о Байкале", "refused: previous_response_id"]),
        ("tools.py", ['"temperatures": [-5]', "convert({'celsius': 0})"]),
        ("tools_async.py", ["tool_results=(ToolResult(name='weather', content='city: -5 °C, снег'),)"]),
        ("structured.py", ["name='name' age=0 (", '{"answer": ']),
        ("structured_async.py", ["Person(name='name', age=0)\n[]"]),
        ("tokens.py", ["28 in the prompt", "too long: 28 + 1000 > 1020"]),
        ("tokens_async.py", ["too long Очень длинный", "Token(id="]),
        ("credentials.py", ["using OAuthToken(...)\nПривет!"]),
    ],
)
def test_example_prints(name: str, pieces: list[str], runs: Runs) -> None:
    out = runs[name].out
    for piece in pieces:
        assert piece in out


def test_tokens_of_a_chat_series_are_those_of_the_guide(runs: Runs) -> None:
    lines = [line for line in runs["chat_series.py"].out.splitlines() if line.startswith("(")]
    assert lines == [
        "(28 tokens sent, 110 received, 138 in all)",
        "(154 tokens sent, 278 received, 432 in all)",
        "(452 tokens sent, 54 received, 506 in all)",
    ]


def test_grpc_stubs_example_prints_the_output_of_the_guide(runs: Runs) -> None:
    assert runs["grpc_stubs.py"].out == (
        """\
Ошибки сами себя не исправят.

alternatives {
  message {
    role: "assistant"
    text: "О"
  }
  status: ALTERNATIVE_STATUS_PARTIAL
}
usage {
  input_text_tokens: 29
  completion_tokens: 1
  total_tokens: 30
}
model_version: "07.03.2024"

alternatives {
  message {
    role: "assistant"
    text: "Ошибки сами себя не исправят."
  }
  status: ALTERNATIVE_STATUS_FINAL
}
usage {
  input_text_tokens: 29
  completion_tokens: 9
  total_tokens: 38
}
model_version: "07.03.2024"
"""
    )


def test_command_line_of_the_guide_prints_the_json_of_the_guide() -> None:
    folder = "b1g0123456789abcdefg"
    arguments = ("--iam_token", "t1.abc", "--folder_id", folder, "--user_text", *TYPOS.split())
    ended = run("prompt_arguments.py", *arguments, API_KEY=None, FOLDER_ID=None)
    assert ended.err == ""
    assert ended.authorizations == {"Bearer t1.abc"}
    message = {"role": "assistant", "text": "Ошибки сами себя не исправят."}
    assert ast.literal_eval(ended.out) == {
        "result": {
            "alternatives": [{"message": message, "status": "ALTERNATIVE_STATUS_FINAL"}],
            "usage": {"inputTextTokens": "29", "completionTokens": "9", "totalTokens": "38"},
            "modelVersion": "07.03.2024",
        }
    }


def test_example_uses_an_iam_token_from_the_environment() -> None:
    ended = run("chat_mode.py", API_KEY=None, IAM_TOKEN="t1.abc")
    assert (ended.code, ended.err, ended.authorizations) == (0, "", {"Bearer t1.abc"})


def test_example_uses_the_variables_of_the_responses_guide() -> None:
    ended = run(
        "responses.py", API_KEY=None, FOLDER_ID=None, YANDEX_CLOUD_API_KEY="abc", YANDEX_CLOUD_FOLDER="b1gfolder"
    )
    assert (ended.code, ended.err, ended.authorizations) == (0, "", {"Api-Key abc"})


def test_example_uses_a_service_account_key(tmp_path: Path) -> None:
    emulator = Emulator()
    file = tmp_path / "key.json"
    file.write_text(json.dumps(emulator.identity.service_account_key()), encoding="utf-8")
    ended = run("credentials.py", str(file), emulator=emulator, API_KEY=None)
    assert (ended.code, ended.err) == (0, "")
    assert "yandex.cloud.iam.v1.IamTokenService/Create" in ended.methods


def test_example_reads_a_request_body_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    message = {"role": "user", "text": "Привет!"}
    file.write_text(json.dumps({"modelUri": "gpt://b1g/yandexgpt/rc", "messages": [message]}), encoding="utf-8")
    ended = run("chat_mode.py", str(file))
    assert (ended.code, ended.err, ended.out.splitlines()[0]) == (0, "", "Привет!")


def test_authentication_error_is_printed_in_one_line() -> None:
    ended = run("chat_mode.py", emulator=Emulator(authorization="Api-Key right"), API_KEY="wrong")
    assert (ended.code, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("AuthenticationError: ")
    assert "wrong" not in line


def revises_the_text(emulator: Emulator) -> None:
    emulator.reply("Ошибка", times=1)
    emulator.reply("Ошибки сами себя не исправят", partials=["Ошибка сама себя не исправит"])


def breaks_the_stream(emulator: Emulator) -> None:
    emulator.reply("раз два три", partials=["раз", "раз два"], times=3)
    emulator.fail("UNAVAILABLE", after=1, times=3)


def truncates(emulator: Emulator) -> None:
    emulator.reply('{"name": "Ан', status="TRUNCATED")


def answers_no_person(emulator: Emulator) -> None:
    emulator.reply('{"name": "Анна"}')


def has_no_quota_left(emulator: Emulator) -> None:
    emulator.fail("RESOURCE_EXHAUSTED", pushback=-1, times=2)


def fails_the_operation(emulator: Emulator) -> None:
    emulator.fail("INTERNAL", "out of luck", operation=True)


def only_calls_tools(emulator: Emulator) -> None:
    emulator.reply(None, tool_calls=[{"name": "weather", "arguments": {"city": "Атлантида"}}], times=4)


@pytest.mark.parametrize(
    ("name", "script", "expected"),
    [
        ("streaming.py", revises_the_text, "Correction: Ошибки сами себя не исправят\nFINAL"),
        ("streaming_async.py", breaks_the_stream, "раз ["),
        ("structured.py", truncates, 'tokens: {"name": "Ан'),
        ("structured.py", answers_no_person, 'age: Field required: {"name": "Анна"}'),
        ("chat_series_async.py", has_no_quota_left, "the history ends after 1 messages"),
        ("operation_async.py", fails_the_operation, "INTERNAL: out of luck"),
        ("operations_many.py", fails_the_operation, "ended in INTERNAL: out of luck"),
        ("tools_async.py", only_calls_tools, "it only wants more: (ToolCall(name='weather'"),
    ],
)
def test_example_handles_a_failure(name: str, script: Callable[[Emulator], None], expected: str) -> None:
    emulator = Emulator(operation_time=OPERATION_TIME)
    script(emulator)
    ended = run(name, emulator=emulator)
    assert (ended.code, ended.err) == (0, "")
    assert expected in ended.out


@pytest.mark.parametrize(
    "method",
    [name for name in METHOD_ROWS if f"`{name}`" not in RETIRED and not any(each in name for each in NOT_EMULATED)],
)
def test_examples_listed_for_a_method_call_it(method: str, runs: Runs) -> None:
    for name in METHOD_ROWS[method].examples:
        assert method in runs[name].methods, name


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_short_and_documents_how_to_run_it(name: str) -> None:
    source = (ROOT / "examples" / name).read_text(encoding="utf-8")
    assert name == "demo.py" or len(source.splitlines()) <= LONGEST
    assert name == "demo.py" or f"python examples/{name}" in (ast.get_docstring(ast.parse(source)) or "")
    assert f"({name})" in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
