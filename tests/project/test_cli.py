"""The command, run in this process and as a subprocess."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import yandexgpt._version
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import (
    text_generation_service_pb2,
    text_generation_service_pb2_grpc,
)
from yandexgpt.cli import main
from yandexgpt.emulator import Emulator

COMMAND = Path(sys.executable).with_name("yandexgpt")
UPSTREAM = ("--upstream", "127.0.0.1:1", "--upstream-plaintext")


def exports(output: str) -> dict[str, str]:
    return dict(re.findall(r"export (\w+)=(\S+)", output))


def ask(variables: dict[str, str]) -> str:
    authority = variables["YANDEXGPT_TLS"]
    channel = (
        grpc.insecure_channel(variables["YANDEXGPT_ENDPOINT"])
        if authority == "false"
        else grpc.secure_channel(
            variables["YANDEXGPT_ENDPOINT"], grpc.ssl_channel_credentials(Path(authority).read_bytes())
        )
    )
    request = text_generation_service_pb2.CompletionRequest(
        model_uri=f"gpt://{variables['FOLDER_ID']}/yandexgpt-lite", messages=[{"role": "user", "text": "привет"}]
    )
    with channel:
        stub: Any = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
        metadata = (("authorization", f"Api-Key {variables['API_KEY']}"),)
        (response,) = stub.Completion(request, metadata=metadata, timeout=30)
    return str(response.alternatives[0].message.text)


def test_version_option_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"yandexgpt {yandexgpt._version.__version__}\n"


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running ``yandexgpt emulate`` process and its output up to the moment when it serves."""
    process = subprocess.Popen(
        [COMMAND, "emulate", "--port", "0", "--delay", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            printed = ""
            while "Ctrl-C" not in printed:
                line = process.stdout.readline()
                assert line, process.stderr and process.stderr.read()
                printed += line
            yield process, printed
            if process.poll() is None:
                process.terminate()
                rest, errors = process.communicate(timeout=30)
                assert (process.returncode, rest, errors) == (0, "Stopped.\n", "")
        finally:
            process.kill()


@pytest.mark.parametrize("arguments", [["--no-http"], ["--tls", "--http-port", "0"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_emulate_serves_until_a_signal_and_exits_with_zero(arguments: list[str], number: signal.Signals) -> None:
    with served(*arguments) as (process, printed):
        assert "TextGenerationService" in printed
        assert "UNIMPLEMENTED" in printed
        assert ask(exports(printed)) == "привет"
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (0, "Stopped.\n", "")


def ask_over_http(variables: dict[str, str], **body: Any) -> Any:
    """The open HTTP response of an OpenAI chat completion."""
    authority = variables.get("SSL_CERT_FILE")
    request = urllib.request.Request(
        f"{variables['OPENAI_BASE_URL']}/chat/completions",
        json.dumps(
            {"model": "gpt://b1g/yandexgpt", "messages": [{"role": "user", "content": "раз два"}], **body}
        ).encode(),
        {"Authorization": f"Bearer {variables['OPENAI_API_KEY']}", "Content-Type": "application/json"},
    )
    context = None if authority is None else ssl.create_default_context(cafile=authority)
    return urllib.request.urlopen(request, timeout=30, context=context)


@pytest.mark.parametrize("security", [[], ["--tls"]])
def test_emulate_serves_grpc_rest_and_openai_and_prints_the_variables_of_each(security: list[str]) -> None:
    with served("--http-port", "0", *security) as (_, printed):
        variables = exports(printed)
        base = variables["OPENAI_BASE_URL"]
        assert base.startswith("https://127.0.0.1:" if security else "http://127.0.0.1:")
        assert f"  gRPC    {variables['YANDEXGPT_ENDPOINT']}\n" in printed
        assert f"  REST    {base.removesuffix('/v1')} " in printed
        assert f"  OpenAI  {base}\n" in printed
        assert ask(variables) == "привет"
        with ask_over_http(variables) as response:
            assert json.load(response)["choices"][0]["message"]["content"] == "раз два"


@pytest.mark.parametrize("security", ["plaintext", "TLS"])
def test_emulate_records_and_replays_calls(security: str, tmp_path: Path) -> None:
    file = str(tmp_path / "calls.jsonl")
    with Emulator(tls=security == "TLS") as upstream:
        how = ["--upstream-ca", str(upstream.tls)] if upstream.tls else ["--upstream-plaintext"]
        upstream.reply("Здравствуйте")
        with served("--no-http", "--upstream", upstream.endpoint, *how, "--record", file, "--no-texts") as (
            _,
            printed,
        ):
            assert f"forwarded to {upstream.endpoint} {'over TLS' if upstream.tls else 'in plaintext'}\n" in printed
            assert f"  and written to {file}, without texts\n" in printed
            variables = exports(printed)
            assert not {"API_KEY", "FOLDER_ID"} & set(variables)
            assert "of your own" in printed
            assert ask({**variables, "API_KEY": "a", "FOLDER_ID": "b1g"}) == "Здравствуйте"
        assert [request.metadata["authorization"] for request in upstream.requests] == ["Api-Key a"]
    assert "Здравствуйте" not in Path(file).read_text(encoding="utf-8")
    for match, how_printed in (([], "found by the request"), (["--match", "order"], "in its order")):
        with served("--no-http", "--replay", file, *match) as (_, printed):
            assert f"answers from {file}, {how_printed}" in printed
            variables = exports(printed)
            assert len(ask({**variables, "FOLDER_ID": "b1g"})) == len("Здравствуйте")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_the_emulator_during_active_streams(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "slow.yaml"
    script.write_text("rules:\n- fail: {code: INTERNAL, after: 1, delay: 3600}\n  match: {text: два}\n", "utf-8")
    with served("--http-port", "0", "--script", str(script)) as (process, printed):
        assert f"answers by the rules of {script}" in printed
        variables = exports(printed)
        with grpc.insecure_channel(variables["YANDEXGPT_ENDPOINT"]) as channel:
            stub: Any = text_generation_service_pb2_grpc.TextGenerationServiceStub(channel)
            request = text_generation_service_pb2.CompletionRequest(
                model_uri="gpt://b1g/yandexgpt", messages=[{"role": "user", "text": "раз два"}]
            )
            request.completion_options.stream = True
            calls = [stub.Completion(request, metadata=(("authorization", "Api-Key a"),)) for _ in range(5)]
            for call in calls:
                next(call)
            with ask_over_http(variables, stream=True):
                began = time.monotonic()
                process.send_signal(number)
                rest, errors = process.communicate(timeout=30)
                assert time.monotonic() - began < 10
            for call in calls:
                assert call.code() is not grpc.StatusCode.OK
    assert (process.returncode, rest, errors) == (0, "Stopped.\n", "")


@pytest.mark.parametrize("arguments", [["--no-http"], ["--http-port", "-1"], []])
def test_emulate_without_http_prints_a_note(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not arguments:
        monkeypatch.setitem(sys.modules, "uvicorn", None)
    environment = Emulator.environment

    def interrupted(emulator: Emulator) -> dict[str, str]:
        signal.raise_signal(signal.SIGINT)
        return environment(emulator)

    monkeypatch.setattr("yandexgpt.emulator.Emulator.environment", interrupted)
    assert main(["emulate", "--port", "0", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "no REST, no OpenAI interface" in printed
    assert ("yandexgpt[emulator]" in printed) is not bool(arguments)
    assert "OPENAI_BASE_URL" not in printed


def test_emulate_restores_the_signal_handlers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    started = threading.Event()
    endpoints = []
    environment = Emulator.environment

    def seen(emulator: Emulator) -> dict[str, str]:
        endpoints.append(emulator.endpoint)
        started.set()
        return environment(emulator)

    def interrupt() -> None:
        started.wait(30)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("yandexgpt.emulator.Emulator.environment", seen)
    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        assert main(["emulate", "--port", "0", "--no-http"]) == 0
    finally:
        helper.join()
    assert endpoints[0] in capsys.readouterr().out
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def one_line(capfd: pytest.CaptureFixture[str]) -> str:
    output, errors = capfd.readouterr()
    assert output == ""
    assert errors.endswith("\n")
    assert errors.count("\n") == 1
    return errors


def test_port_in_use_is_reported_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with Emulator() as emulator:
        port = emulator.endpoint.rpartition(":")[2]
        assert main(["emulate", "--port", port]) == 2
        words = f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another port with"
        assert f"{words} --port (0: a free one)" in one_line(capfd)
        assert main(["emulate", "--port", "0", "--http-port", port]) == 2
        assert f"{words} --http-port (0: a free one; --no-http: none)" in one_line(capfd)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "65536"], "port must be from 0 to 65535"),
        (["--port", "-1"], "port must be a whole number"),
        (["--port", "0", "--delay", "-1"], "delay"),
        (["--port", "0", "--host", "203.0.113.1"], "203.0.113.1:0: "),
        (["--port", "0", "--host", "no such host"], "no such host:0: "),
        (["--http-port", "65536"], "http_port must be from 0 to 65535"),
        (["--http-port", "-2"], "http_port must be a whole number"),
        (["--operation-time", "-1"], "operation_time"),
        (["--script", "none.yaml"], "none.yaml: No such file"),
        (["--script", "bad.yaml"], "bad.yaml:1: unknown key 'rule' in the script; allowed: rules, "),
        (["--record", "a"], "--record needs --upstream"),
        (["--upstream-ca", "a"], "--upstream-ca needs --upstream"),
        (["--upstream-plaintext"], "--upstream-plaintext needs --upstream"),
        (["--upstream", "a:1", "--no-texts"], "--no-texts needs --record"),
        (["--match", "order"], "--match needs --replay"),
        (["--port", "0", "--replay", "bad.jsonl"], "bad.jsonl:1: not JSON"),
        (["--port", "0", "--replay", "none.jsonl"], "none.jsonl: No such file or directory"),
        (["--port", "0", "--replay", "empty.jsonl"], "empty.jsonl holds no call"),
        (["--port", "0", *UPSTREAM, "--script", "good.yaml"], "come from the upstream 127.0.0.1:1"),
        (["--port", "0", *UPSTREAM, "--record", "bad.jsonl"], "bad.jsonl:1: not JSON"),
        (["--port", "0", *UPSTREAM, "--record", "none/calls.jsonl"], "none/calls.jsonl: No such file or directory"),
        (["--upstream", "here", "--upstream-plaintext"], "upstream must be host:port, got 'here'"),
        (["--upstream", "example.com:1", "--upstream-plaintext"], "unencrypted"),
        (["--upstream", "127.0.0.1:1", "--upstream-ca", "none.pem"], "there is no file 'none.pem'"),
    ],
)
def test_invalid_emulate_options_are_reported_in_one_line(
    arguments: list[str],
    words: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("rule: []", encoding="utf-8")
    Path("good.yaml").write_text("rules: [{answer: a}]", encoding="utf-8")
    Path("bad.jsonl").write_text("calls\n", encoding="utf-8")
    Path("empty.jsonl").touch()
    assert main(["emulate", *arguments]) == 2
    assert words in one_line(capfd)


def test_http_without_the_extra_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "yandexgpt.emulator.http_api.server", raising=False)
    assert main(["emulate", "--port", "0", "--http-port", "0"]) == 2
    assert "yandexgpt[emulator]" in one_line(capfd)


def test_tls_without_the_extra_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main(["emulate", "--port", "0", "--tls"]) == 2
    assert "yandexgpt[emulator]" in one_line(capfd)


EXCLUSIVE = [
    ["emulate", "--no-http", "--http-port", "1"],
    ["emulate", "--upstream", "a:1", "--replay", "b"],
    ["emulate", "--upstream-plaintext", "--upstream-ca", "b"],
    ["emulate", "--match", "best"],
]


@pytest.mark.parametrize(
    "arguments", [[], ["bake"], ["emulate", "--port", "many"], ["emulate", "--speed", "1"], *EXCLUSIVE]
)
def test_unparsable_arguments_are_reported_in_one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "--help" in one_line(capfd)
