"""The pytest plugin in a project with the installed package: pytest runs in another process."""

from __future__ import annotations

import pytest
from driver import PATIENCE

from yandexgpt.emulator import Emulator

pytest_plugins = ["pytester"]

CREDENTIALS = (
    "YC_API_KEY",
    "API_KEY",
    "YANDEX_CLOUD_API_KEY",
    "YC_IAM_TOKEN",
    "IAM_TOKEN",
    "YC_SERVICE_ACCOUNT_KEY_FILE",
    "YC_OAUTH_TOKEN",
    "YC_TOKEN",
)


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest without slow plugins."""
    plain = [f"-pno:{name}" for name in ("cacheprovider", "xdist", "hypothesispytest", "timeout")]
    return pytester.runpytest_subprocess("--strict-markers", "-Werror", *plain, *arguments, timeout=2 * PATIENCE)


def test_fixture_provides_an_emulator_for_the_test(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("FOLDER_ID", "own")
    monkeypatch.setenv("YC_FOLDER_ID", "own")
    monkeypatch.setenv("YANDEXGPT_ENDPOINT", "gpt.example:443")
    pytester.makepyfile(
        """
        import asyncio, os, sys

        def test_plugin_imports_no_large_dependency():
            assert not {"grpc", "google.protobuf", "yandexgpt.emulator", "yaml", "starlette"} & set(sys.modules)

        def test_environment_configures_a_client(yandexgpt_emulator):
            import yandexgpt
            yandexgpt_emulator.reply("Ответ")
            with yandexgpt.Client() as client:
                assert client.complete("Привет", max_tokens=5).text == "Ответ"
            (request,) = yandexgpt_emulator.requests
            assert request.metadata["authorization"] == "Api-Key emulator"
            assert request.to_dict() == {
                "modelUri": "gpt://emulator/yandexgpt-lite",
                "completionOptions": {"maxTokens": "5"},
                "messages": [{"role": "user", "text": "Привет"}],
            }
            assert "secret" not in os.environ.values() and "own" not in os.environ.values()

        def test_each_test_gets_a_new_emulator(yandexgpt_emulator):
            import yandexgpt
            async def ask():
                async with yandexgpt.AsyncClient() as client:
                    return (await client.complete("раз")).text
            assert yandexgpt_emulator.requests == []
            assert asyncio.run(ask()) == "раз"

        def test_monkeypatch_undo_keeps_the_environment_of_the_fixture(monkeypatch, yandexgpt_emulator):
            monkeypatch.setenv("FOLDER_ID", "other")
            monkeypatch.undo()
            assert os.environ["YANDEXGPT_ENDPOINT"] == yandexgpt_emulator.endpoint

        def test_environment_is_restored_after_the_test():
            assert os.environ["API_KEY"] == "secret"
            assert os.environ["FOLDER_ID"] == "own"
            assert os.environ["YANDEXGPT_ENDPOINT"] == "gpt.example:443"
        """
    )
    run(pytester).assert_outcomes(passed=5)


def test_marker_configures_the_emulator(pytester: pytest.Pytester) -> None:
    pytester.mkdir("sub")
    with Emulator() as upstream:
        upstream.reply("из записи")
        recording = pytester.path / "sub" / "calls.jsonl"
        between = Emulator(upstream=upstream.endpoint, upstream_tls=False, record=recording)
        with between, between.client() as client:
            client.complete("раз")
    (pytester.path / "sub" / "answers.yaml").write_text("rules:\n  - answer: из файла\n", encoding="utf-8")
    pytester.makepyfile(
        **{
            "sub/test_marked": """
        import json, os, pytest, unittest, urllib.request, yandexgpt
        from yandexgpt import errors

        def ask(**options):
            with yandexgpt.Client(retry=yandexgpt.Retry(attempts=1)) as client:
                return client.complete("раз", **options).text

        @pytest.mark.yandexgpt(fail="INTERNAL")
        def test_fail_with_a_code():
            with pytest.raises(errors.InternalServerError, match="scripted INTERNAL"):
                ask()
            assert ask() == "раз"

        @pytest.mark.yandexgpt(fail=["INTERNAL", {"code": "UNAVAILABLE", "message": "нет", "times": 2}])
        def test_fail_with_a_list():
            for error in (errors.InternalServerError, errors.UnavailableError, errors.UnavailableError):
                with pytest.raises(error):
                    ask()
            assert ask() == "раз"

        @pytest.mark.yandexgpt(fail={"code": "INTERNAL", "message": "слова"}, authorization="Bearer t1.abc")
        def test_fail_with_a_mapping_and_an_emulator_argument(yandexgpt_emulator):
            with pytest.raises(errors.InternalServerError, match="слова"):
                ask()
            assert os.environ["IAM_TOKEN"] == "t1.abc"
            assert yandexgpt_emulator.requests[0].metadata["authorization"] == "Bearer t1.abc"

        @pytest.mark.yandexgpt(script="answers.yaml", rate=0.001)
        def test_script_path_is_relative_to_the_test_file():
            assert ask() == "из файла"
            with pytest.raises(errors.QuotaExceededError):
                ask()

        @pytest.mark.yandexgpt(replay="calls.jsonl", match="order", fail="INTERNAL")
        def test_recording_path_is_relative_to_the_test_file():
            with pytest.raises(errors.InternalServerError):
                ask()
            assert ask() == "из записи"

        @pytest.mark.yandexgpt(replay="calls.jsonl")
        def test_recording_without_a_matching_call():
            assert ask() == "из записи"
            with pytest.raises(errors.FailedPreconditionError):
                ask(max_tokens=5)

        @pytest.mark.yandexgpt(http_port=0)
        def test_http(yandexgpt_emulator):
            assert os.environ["OPENAI_BASE_URL"] == f"{yandexgpt_emulator.http_url}/v1"
            body = {"modelUri": "gpt://f/m", "messages": [{"role": "user", "text": "два"}]}
            request = urllib.request.Request(
                yandexgpt_emulator.http_url + "/foundationModels/v1/completion",
                json.dumps(body).encode(),
                {"Authorization": "Api-Key a", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as response:
                assert json.load(response)["result"]["alternatives"][0]["message"]["text"] == "два"
            assert yandexgpt_emulator.requests[0].to_dict()["messages"] == body["messages"]

        @pytest.mark.yandexgpt(script="answers.yaml", fail="INTERNAL")
        class TestClass:
            def test_marker_of_the_class_applies(self):
                with pytest.raises(errors.InternalServerError):
                    ask()
                assert ask() == "из файла"

            @pytest.mark.yandexgpt(fail=[])
            def test_closest_marker_takes_precedence(self):
                assert ask() == "из файла"

        @pytest.mark.yandexgpt(script="answers.yaml")
        class TestCase(unittest.TestCase):
            def test_unittest_test_case(self):
                self.assertEqual(ask(), "из файла")
        """
        }
    )
    run(pytester).assert_outcomes(passed=10)


def test_invalid_marker_is_reported_in_one_line(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", bad="rules:\n  - anwser: a\n")
    pytester.makefile(".jsonl", calls="calls")
    with Emulator() as other:
        port = other.endpoint.rpartition(":")[2]
        pytester.makepyfile(
            f"""
            import pytest

            @pytest.mark.yandexgpt(fial="INTERNAL", speed=1)
            def test_keyword(): ...

            @pytest.mark.yandexgpt("INTERNAL")
            def test_positional(): ...

            @pytest.mark.yandexgpt(fail="BROKEN")
            def test_code(): ...

            @pytest.mark.yandexgpt(fail={{"codes": "INTERNAL"}})
            def test_fail_keyword(): ...

            @pytest.mark.yandexgpt(fail=5)
            def test_fail_type(): ...

            @pytest.mark.yandexgpt(script="none.yaml")
            def test_no_file(): ...

            @pytest.mark.yandexgpt(script="bad.yaml")
            def test_bad_file(): ...

            @pytest.mark.yandexgpt(rate=0)
            def test_argument(): ...

            @pytest.mark.yandexgpt(replay="calls.jsonl")
            def test_bad_recording(): ...

            @pytest.mark.yandexgpt(port={port})
            def test_port(): ...
            """
        )
        result = run(pytester, "--tb=short")
    result.assert_outcomes(errors=10)
    for line in (
        "@pytest.mark.yandexgpt does not know fial, speed; it takes the keywords authorization, delay, fail, *",
        "@pytest.mark.yandexgpt does not know 'INTERNAL'; it takes the keywords *",
        "@pytest.mark.yandexgpt: code must be a grpc.StatusCode or one of CANCELLED, *, not 'BROKEN'",
        "@pytest.mark.yandexgpt: *fail() got an unexpected keyword argument 'codes'*",
        "@pytest.mark.yandexgpt: 'int' object is not iterable",
        "@pytest.mark.yandexgpt: *No such file or directory: *none.yaml'",
        "@pytest.mark.yandexgpt: *bad.yaml:2: unknown key 'anwser' in a rule; allowed: match, answer, fail, times",
        "@pytest.mark.yandexgpt: rate must be a number of generations per second above 0, not 0",
        "@pytest.mark.yandexgpt: *calls.jsonl:1: not JSON*",
        f"@pytest.mark.yandexgpt: *Address already in use: '127.0.0.1:{port}'",
    ):
        result.stdout.fnmatch_lines([line])
    assert "Traceback" not in result.stdout.str()
    assert "pytest_plugin.py" not in result.stdout.str()


def test_report_of_a_failed_test_shows_received_requests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import yandexgpt

        def test_one(yandexgpt_emulator):
            yandexgpt_emulator.fail("INTERNAL")
            with yandexgpt.Client(retry=yandexgpt.Retry(attempts=1)) as client:
                try:
                    client.complete("раз")
                except yandexgpt.InternalServerError:
                    client.complete("слово " * 200)
            for request in yandexgpt_emulator.requests:
                request.wait()
            assert False

        def test_nothing(yandexgpt_emulator):
            assert False

        def test_without():
            assert False

        def test_fine(yandexgpt_emulator):
            with yandexgpt.Client() as client:
                client.complete("не показывать")
        """
    )
    result = run(pytester)
    result.assert_outcomes(failed=3, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*- YandexGPT emulator received -*",
            'TextGenerationService/Completion: INTERNAL: {"modelUri": "gpt://emulator/*"text": "раз"}]}',
            'TextGenerationService/Completion: OK: {"modelUri": *слово*...',
            "*- YandexGPT emulator received -*",
            "nothing",
        ]
    )
    out = result.stdout.str()
    assert out.count("YandexGPT emulator received") == 2
    assert "не показывать" not in out


def test_marker_and_fixture_are_in_the_help(pytester: pytest.Pytester) -> None:
    run(pytester, "--markers").stdout.fnmatch_lines(["@pytest.mark.yandexgpt(fail=..., script=..., replay=...,*"])
    run(pytester, "--fixtures").stdout.fnmatch_lines(
        ["yandexgpt_emulator -- *pytest_plugin.py:*", "*which the environment points at."]
    )
