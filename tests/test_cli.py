"""The command, in this process and as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
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


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"yandexgpt {yandexgpt._version.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--tls"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_emulate_serves_until_a_signal_and_ends_well(arguments: list[str], number: signal.Signals) -> None:
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
            assert "TextGenerationService" in printed
            assert "UNIMPLEMENTED" in printed
            assert ask(exports(printed)) == "привет"
            process.send_signal(number)
            rest, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, rest, errors) == (0, "Stopped.\n", "")


def test_emulate_in_this_process_puts_the_signal_handlers_back(
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
    monkeypatch.setattr("yandexgpt.cli.emulate._WAKE_UP", 0.01)
    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        assert main(["emulate", "--port", "0"]) == 0
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


def test_a_port_in_use_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with Emulator() as emulator:
        port = emulator.endpoint.rpartition(":")[2]
        assert main(["emulate", "--port", port]) == 2
    assert f"127.0.0.1:{port}: Address already in use" in one_line(capfd)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "65536"], "port must be from 0 to 65535"),
        (["--port", "-1"], "port must be a whole number"),
        (["--port", "0", "--delay", "-1"], "delay"),
        (["--port", "0", "--host", "203.0.113.1"], "203.0.113.1:0"),
        (["--port", "0", "--host", "no such host"], "no such host:0"),
    ],
)
def test_an_address_that_cannot_be_served_is_one_line(
    arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["emulate", *arguments]) == 2
    assert words in one_line(capfd)


def test_tls_without_its_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main(["emulate", "--port", "0", "--tls"]) == 2
    assert "yandexgpt[emulator]" in one_line(capfd)


@pytest.mark.parametrize("arguments", [[], ["bake"], ["emulate", "--port", "many"], ["emulate", "--speed", "1"]])
def test_arguments_that_cannot_be_read_are_one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "--help" in one_line(capfd)
