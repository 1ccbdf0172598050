"""Script files and rules: matching, answers, and errors of invalid files."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from driver import ClientFactory
from hypothesis import example, given
from hypothesis import strategies as st

import yandexgpt
from yandexgpt import errors
from yandexgpt.emulator import Emulator
from yandexgpt.emulator.rules import ANSWER_KEYS, FAIL_KEYS, MATCH_KEYS, RULE_KEYS
from yandexgpt.emulator.script_file import read

ONCE = yandexgpt.Retry(attempts=1)
SCRIPT = """\
# All parts of a script.
delay: 0.001
operation_time: 0.002
quotas:
  max_concurrent: 10
  rate: 1000
rules:
  - match: {text: погода}
    answer: Солнечно и тепло
  - match:
      model: yandexgpt
      role: system
      pattern: "^Переведи .* на (английский|немецкий)"
    answer:
      text: Hello
      partials: [Hel, Hell]
      usage: {input_tokens: 3, completion_tokens: 7}
      model_version: "1.0"
  - match: {text: сбой}
    fail: {code: UNAVAILABLE, message: перерыв, times: 2}
    answer: снова здесь
  - match: {text: квота}
    fail: RESOURCE_EXHAUSTED
  - match: {text: дважды}
    answer: дважды сказано
    times: 2
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "answers.yaml"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def system(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "text": text}, {"role": "user", "text": "Привет"}]


def test_rules_answer_calls_streams_and_operations(client: Any, emulator: Emulator, script: Path) -> None:
    emulator.load_script(script)
    for _ in range(2):
        assert client.complete("Какая погода?").text == "Солнечно и тепло"
        with client.stream("погода") as stream:
            assert [chunk.text for chunk in stream] == [
                "Солнечно",
                "Солнечно и",
                "Солнечно и тепло",
                "Солнечно и тепло",
            ]
        assert client.submit("погода").wait().text == "Солнечно и тепло"
    assert client.complete("что-то ещё").text == "что-то ещё"


def test_rule_matches_a_model_a_role_and_a_pattern(client: Any, emulator: Emulator, script: Path) -> None:
    emulator.load_script(script)
    prompt = system("Переведи слово на английский")
    answer = client.complete(prompt, model="yandexgpt")
    assert (answer.text, answer.usage.total_tokens, answer.model_version) == ("Hello", 10, "1.0")
    with client.stream(prompt, model="yandexgpt") as stream:
        assert [chunk.text for chunk in stream] == ["Hel", "Hell", "Hello"]
    assert client.complete(prompt, model="yandexgpt-lite").text == "Привет"
    assert client.complete(system("Переведи на французский"), model="yandexgpt").text == "Привет"


def test_rule_fails_the_given_number_of_times_and_then_answers(client: Any, emulator: Emulator, script: Path) -> None:
    emulator.load_script(script)
    assert client.complete("сбой").text == "снова здесь"
    assert [request.wait() for request in emulator.requests] == ["UNAVAILABLE", "UNAVAILABLE", "OK"]
    for _ in range(3):
        with pytest.raises(errors.QuotaExceededError):
            client.with_options(retry=ONCE).complete("квота")
    assert [client.complete("дважды").text for _ in range(3)] == ["дважды сказано", "дважды сказано", "дважды"]


def test_queue_comes_before_rules_and_clear_keeps_rules(client: Any, emulator: Emulator) -> None:
    emulator.rule(answer="правило")
    emulator.reply("очередь")
    emulator.fail("INTERNAL")
    with pytest.raises(errors.InternalServerError):
        client.complete("раз")
    assert [client.complete("раз").text for _ in range(2)] == ["очередь", "правило"]
    emulator.reply("забыто")
    emulator.clear()
    assert client.complete("раз").text == "правило"
    emulator.fail("INTERNAL", after=1)
    with client.stream("раз") as stream, pytest.raises(errors.InternalServerError) as failed:
        list(stream)
    assert failed.value.partial is not None
    assert failed.value.partial.text == "правило"


def test_first_matching_rule_applies(client: Any, emulator: Emulator) -> None:
    emulator.rule(match={"text": "а"}, answer="первое", times=1)
    emulator.rule(match={"text": "а"}, answer="второе")
    emulator.rule(answer="прочее")
    assert [client.complete(text).text for text in ("б", "а", "а", "б")] == ["прочее", "первое", "второе", "прочее"]


def test_rule_can_fail_during_its_answer(client: Any, emulator: Emulator) -> None:
    emulator.rule(answer="раз два три", fail={"code": "INTERNAL", "after": 2})
    with client.stream("?") as stream, pytest.raises(errors.InternalServerError) as failed:
        list(stream)
    assert failed.value.partial is not None
    assert failed.value.partial.text == "раз два"


def test_rule_for_operations_does_not_affect_other_calls(client: Any, emulator: Emulator) -> None:
    emulator.rule(
        match={"text": "долго"}, fail={"code": "INTERNAL", "message": "не вышло", "operation": True, "times": 1}
    )
    emulator.rule(match={"text": "мимо"}, fail={"code": "INTERNAL", "operation": True}, answer="ответ")
    assert client.complete("долго").text == "долго"
    operation = client.submit("долго")
    with pytest.raises(errors.OperationFailed, match="не вышло"):
        operation.wait()
    assert client.submit("долго").wait().text == "долго"
    assert client.complete("мимо").text == "ответ"


def test_a_submission_fails_by_a_rule_before_or_after_its_effect(client: Any, emulator: Emulator) -> None:
    emulator.rule(match={"text": "до"}, fail={"code": "UNAVAILABLE", "times": 1})
    emulator.rule(match={"text": "после"}, fail={"code": "UNAVAILABLE", "after": 1, "delay": 0.001, "times": 1})
    assert client.submit("до").wait().text == "до"
    assert len(emulator.operations.ids) == 1
    assert client.submit("после").wait().text == "после"
    assert len(emulator.operations.ids) == 2
    assert [request.wait() for request in emulator.requests if "Async" in request.method] == ["UNAVAILABLE", "OK"] * 2


def tool_prompt(*contents: str) -> list[dict[str, Any]]:
    call = {"functionCall": {"name": "weather", "arguments": {}}}
    results = [{"functionResult": {"name": "weather", "content": content}} for content in contents]
    return [
        {"role": "user", "text": "Погода в Москве"},
        {"role": "assistant", "toolCallList": {"toolCalls": [call]}},
        *([{"role": "user", "toolResultList": {"toolResults": results}}] if results else []),
    ]


@pytest.mark.parametrize(
    ("match", "prompt", "options", "matches"),
    [
        ({"model": "yandexgpt-lite"}, "раз", {}, True),
        ({"model": "yandexgpt"}, "раз", {}, False),
        ({"model": "yandexgpt/rc"}, "раз", {"model": "yandexgpt/rc"}, True),
        ({"model": "yandexgpt"}, "раз", {"model": "yandexgpt/rc@tuned"}, True),
        ({"model": "gpt://emulator/yandexgpt"}, "раз", {"model": "yandexgpt"}, True),
        ({"model": "ds://b1g"}, "раз", {"model": "ds://b1g"}, True),
        ({"model": "b1g"}, "раз", {"model": "ds://b1g"}, True),
        ({"role": "system"}, "раз", {}, False),
        ({"role": "system"}, system("раз"), {}, True),
        ({"role": "system", "text": "Привет"}, system("раз"), {}, False),
        ({"role": "user", "text": "Привет"}, system("раз"), {}, True),
        ({"text": "раз"}, [{"role": "user", "text": "раз"}, {"role": "user", "text": "два"}], {}, False),
        ({"text": "раз", "any": True}, [{"role": "user", "text": "раз"}, {"role": "user", "text": "два"}], {}, True),
        ({"text": "раз", "any": True}, system("раз"), {}, True),
        ({"text": "раз", "any": True, "role": "user"}, system("раз"), {}, False),
        ({"text": "Погода"}, tool_prompt("снег"), {}, True),
        ({"role": "tool", "text": "снег"}, tool_prompt("дождь", "снег"), {}, True),
        ({"role": "tool", "text": "Погода"}, tool_prompt("снег"), {}, False),
        ({"role": "tool"}, tool_prompt(), {}, False),
        ({"role": "tool"}, [*tool_prompt("снег"), {"role": "user", "text": "и?"}], {}, False),
        ({"role": "tool", "any": True}, [*tool_prompt("снег"), {"role": "user", "text": "и?"}], {}, True),
        ({"pattern": "^раз$"}, "раз", {}, True),
        ({"pattern": "^аз"}, "раз", {}, False),
        ({"pattern": "р", "text": "з"}, "раз", {}, True),
        ({"pattern": "р", "text": "я"}, "раз", {}, False),
        ({}, "раз", {}, True),
    ],
)
def test_rule_matches(match: dict[str, Any], prompt: Any, options: dict[str, Any], matches: bool) -> None:
    with Emulator() as emulator, emulator.client() as client:
        emulator.rule(match=match, answer="правило")
        assert (client.complete(prompt, **options).text == "правило") is matches


def test_rule_with_tool_calls_and_tool_results(client: Any, emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    rules = [
        {"match": {"role": "tool", "text": "снег"}, "answer": "Возьмите шапку"},
        {"match": {"text": "Москве"}, "answer": {"tool_calls": [{"name": "weather", "arguments": {"city": "Москва"}}]}},
    ]
    path.write_text(json.dumps({"rules": rules}, ensure_ascii=False), encoding="utf-8-sig")
    emulator.load_script(path)

    @yandexgpt.tool
    def weather(city: str) -> str:
        """Погода в городе."""
        return f"{city}: снег"

    assert client.run_tools("Что надеть в Москве?", [weather]).text == "Возьмите шапку"


def test_settings_of_a_script_apply(factory: ClientFactory, tmp_path: Path) -> None:
    path = tmp_path / "slow.yml"
    path.write_text(
        "delay: 0.05\noperation_time: 3600\nquotas: {max_concurrent: null, rate: 4}\n"
        "rules:\n- answer: {text: раз, delay: 0}\n  match: {text: сразу}\n",
        encoding="utf-8",
    )
    with Emulator() as emulator:
        emulator.load_script(path)
        client = factory.client(emulator, retry=ONCE)
        started = time.monotonic()
        assert client.complete("два").text == "два"
        assert time.monotonic() - started >= 0.05
        assert not client.submit("сразу").done
        answers = client.complete_many(["сразу"] * 100, on_error="return")
        assert any("limit of 4 generations per second" in str(answer.error) for answer in answers)


def test_second_script_is_added_after_the_first(client: Any, emulator: Emulator, tmp_path: Path) -> None:
    for number, match in (("1", "а"), ("2", "")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"rules:\n  - match: {{text: '{match}'}}\n    answer: '{number}'\n", encoding="utf-8")
        emulator.load_script(str(path))
    assert [client.complete(text).text for text in ("а", "б")] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ":1: the script is empty; it is a mapping of rules, quotas, delay, operation_time"),
        ("- a", ":1: the script must be a mapping of rules, quotas, delay, operation_time"),
        ("rules: []\nquota: 1", ":2: unknown key 'quota' in the script; allowed: rules, quotas, delay, operation_time"),
        ("delay: 1\nrules: []\ndelay: 2", ":3: the key 'delay' stands twice in the script"),
        ("? [a]\n: b", ":1: unknown key 'sequence' in the script; allowed: *"),
        ("delay: -1", ":1: delay must be a number of seconds, 0 or more, not -1"),
        ("delay:", ":1: delay must be a number of seconds, 0 or more, not None"),
        ("operation_time: soon", ":1: operation_time must be a number of seconds, 0 or more, not 'soon'"),
        ("quotas: 5", ":1: quotas must be a mapping of max_concurrent, rate"),
        ("quotas:\n  rate: 0", ":2: rate must be a number of generations per second above 0, not 0"),
        ("quotas:\n  rate: 1\n  max_concurrent: 0.5", ":3: max_concurrent must be a whole number, 1 or more, not 0.5"),
        ("quotas:\n  speed: 0", ":2: unknown key 'speed' in quotas; allowed: max_concurrent, rate"),
        ("rules: a", ":1: rules must be a list of mappings of match, answer, fail, times"),
        ("rules:\n- answer: a\n- a", ":3: a rule must be a mapping of match, answer, fail, times"),
        ("rules:\n- answr: a", ":2: unknown key 'answr' in a rule; allowed: match, answer, fail, times"),
        ("rules:\n- match: {}", ":2: answer, fail or both of them must say what the rule does"),
        ("rules:\n- answer: 5", ":2: answer must be a text or a mapping of text, partials, *, not 5"),
        ("rules:\n- answer:\n    text: a\n    txt: b", ":4: answer: unknown key 'txt'; allowed: text, partials, *"),
        ("rules:\n- answer:\n    text: yes", ":3: answer: text must be a string, not True"),
        ("rules:\n- answer:\n    delay: -1", ":3: answer: delay must be a number of seconds, 0 or more, not -1"),
        ("rules:\n- answer:\n    final: 1", ":3: answer: final must be true or false, not 1"),
        ("rules:\n- answer:\n    status: BAD", ":3: answer: status must be a number or one of *, not 'BAD'"),
        ("rules:\n- answer:\n    partials: 5", ":3: answer: partials must be a list of texts, not 5"),
        ("rules:\n- answer:\n    partials: abc", ":3: answer: partials must be a list of texts, not 'abc'"),
        (
            "rules:\n- answer:\n    alternatives: 5",
            ":3: answer: alternatives must be a list of texts or mappings, not 5",
        ),
        ("rules:\n- answer:\n    tool_calls: 5", ":3: answer: tool_calls must be a list of mappings, not 5"),
        ("rules:\n- answer:\n    tool_calls: [{}]", ":3: answer: tool_calls[[]0] must be a mapping of name and *"),
        ("rules:\n- fail: OK", ":2: fail: code must be a grpc.StatusCode or one of CANCELLED, *, not 'OK'"),
        ("rules:\n- fail: [a]", ":2: fail must be a text or a mapping of code, message, *, not [[]'a']"),
        ("rules:\n- fail:\n    message: a", ":3: fail: code is missing"),
        (
            "rules:\n- fail:\n    code: INTERNAL\n    times: 0",
            ":4: fail: times must be a whole number, 1 or more, not 0",
        ),
        ("rules:\n- fail:\n    code: INTERNAL\n    operation: 1", ":4: fail: operation must be true or false, not 1"),
        ("rules:\n- answer: a\n  times: many", ":3: times must be a whole number, 1 or more, not 'many'"),
        ("rules:\n- answer: a\n  match: b", ":3: match must be a mapping of model, role, text, pattern, any, not 'b'"),
        ("rules:\n- answer: a\n  match:\n    text: 5", ":4: match: text must be a string, not 5"),
        ("rules:\n- answer: a\n  match:\n    any: 5", ":4: match: any must be true or false, not 5"),
        ("rules:\n- answer: a\n  match:\n    role: bot", ":4: match: role must be one of *, tool, not 'bot'"),
        (
            "rules:\n- answer: a\n  match:\n    pattern: (",
            ":4: match: pattern '(' is not a regular expression: missing ), *",
        ),
        ("rules: [", ":1: while parsing a flow node, expected the node content, but found '<stream end>'"),
        ("rules: []\n\tdelay: 1", ":2: *found character '\\t' that cannot start any token"),
        ("delay: 1\n\x01", ":2: special characters are not allowed: '\\x01'"),
        ("---\ndelay: 1\n---\ndelay: 2", ":3: expected a single document in the stream, but found another document"),
        ("rules:\n- answer: !!timestamp soon", ":2: a value that its tag does not fit: *"),
        ("rules:\n- answer: !!python/name:os.system x", ":2: could not determine a constructor for the tag *"),
        ("rules: " + "[" * 2000, ": nested too deeply"),
    ],
)
def test_invalid_script_is_reported_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="answers") as bad:
        Emulator().load_script(path)
    words = str(bad.value).removeprefix(str(path))
    assert "\n" not in words
    assert fnmatch.fnmatchcase(words, says), words


def test_invalid_script_changes_nothing(client: Any, emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text("operation_time: 3600\nrules:\n- answer: a\n- {}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"answers\.yaml:4: "):
        emulator.load_script(path)
    assert client.complete("раз").text == "раз"
    assert emulator.operations.time == 0


def test_unreadable_script_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"answers\.yaml: not UTF-8 text: .* position 0"):
        Emulator().load_script(path)
    for name in ("none.yaml", "none.py"):
        with pytest.raises(FileNotFoundError):
            Emulator().load_script(tmp_path / name)


def test_a_script_needs_the_extra(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match=r"pip install 'yandexgpt\[emulator\]'"):
        Emulator().load_script(script)


YAMLISH = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 5)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["INTERNAL", "FINAL"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*RULE_KEYS, *MATCH_KEYS, *ANSWER_KEYS, *FAIL_KEYS, "rules", "quotas", "rate", "name", "arguments"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.one_of(YAMLISH, st.fixed_dictionaries({"rules": st.lists(YAMLISH, max_size=3)})))
@example({"rules": [{"answer": {"text": "\ud800"}}]})
def test_any_script_is_read_or_rejected_with_a_line_number(content: Any) -> None:
    check_read_or_refused(json.dumps(content))


@given(st.text(alphabet="rules:-{}[]&*!|>'\"\n #ab01,?%@", max_size=40))
@example("a: &a [*a]")
@example("rules: &a\n- answer: {tool_calls: [{name: a, arguments: &b {c: *b}}]}")
def test_any_text_is_read_or_rejected_in_one_line(text: str) -> None:
    check_read_or_refused(text)


def check_read_or_refused(text: str) -> None:
    class File(type(Path())):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            return text.encode()

    try:
        read(File("answers.yaml"), delay=0.0)
    except ValueError as error:
        words = str(error)
    else:
        return
    assert re.fullmatch(r"answers\.yaml(:\d+)?: .+", words), words


# Python


def write(path: Path, source: str) -> Path:
    path.write_text(source, encoding="utf-8")
    return path


def test_a_python_script_is_called_with_the_emulator(client: Any, emulator: Emulator, tmp_path: Path) -> None:
    source = 'def script(emulator):\n    emulator.reply("один раз")\n    emulator.rule(answer="всегда")\n'
    emulator.load_script(write(tmp_path / "answers.py", source))
    assert [client.complete("?").text for _ in range(3)] == ["один раз", "всегда", "всегда"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", r": there is no function script\(emulator\)"),
        ("script = 5", r": there is no function script\(emulator\)"),
        ("\n\ndef script(:\n", r":3: SyntaxError: .+"),
        ("import no_such_module", ":1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def script(): pass", r": TypeError: script\(\) takes 0 .+"),
        ("def script(emulator):\n    emulator.reply(5)", ":2: ValueError: reply: text must be a string, not 5"),
        ("def script(emulator):\n    raise OSError('раз\\nдва')", ":2: OSError: раз два"),
    ],
)
def test_invalid_python_script_is_reported_in_one_line(source: str, says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "answers.py", source)
    with pytest.raises(ValueError, match="answers") as bad:
        Emulator().load_script(path)
    assert re.fullmatch(says, str(bad.value).removeprefix(str(path)))


def test_the_emulator_loads_no_extra_before_one_is_used() -> None:
    program = """
import subprocess
import sys
from yandexgpt.emulator import Emulator
with Emulator() as emulator, emulator.client() as client:
    emulator.rule(answer="правило")
    assert client.complete("раз").text == "правило"
print([name for name in ("yaml", "starlette", "uvicorn", "cryptography", "pydantic") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
