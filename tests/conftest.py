"""What the tests have in common: a clean environment, an emulator, and a client of either kind."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from driver import PATIENCE, ClientFactory
from hypothesis import HealthCheck, settings

from yandexgpt.emulator import Emulator
from yandexgpt.emulator.call import Call

# Whoever runs the tests in the background of a shell script has them ignore Ctrl-C, and their programs inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of the machine's other users than of the code. And what was right once stays so:
# new examples are looked for by `make explore`, not by whoever runs the tests of a change.
settings.register_profile("same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("explore", settings.get_profile("same"), derandomize=False, max_examples=3000)
settings.load_profile("same")

_MEANINGFUL = re.compile(
    r"(YC|YANDEXGPT|YANDEX_CLOUD)_.*|(API_KEY|IAM_TOKEN|FOLDER_ID)|GRPC_(VERBOSITY|TRACE)|(GRPC|HTTPS?|ALL|NO)_PROXY",
    re.IGNORECASE,
)
"""Variables that mean something to the client or to gRPC."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own account or network."""
    for name in list(os.environ):
        if _MEANINGFUL.fullmatch(name):
            monkeypatch.delenv(name)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is not set, emulators send no message."""
    opened, pause = threading.Event(), Call.pause
    monkeypatch.setattr(Call, "pause", lambda call, seconds: opened.wait(PATIENCE) and pause(call, seconds))
    yield opened
    opened.set()


@pytest.fixture(params=["sync", "async"])
def factory(request: pytest.FixtureRequest) -> Iterator[ClientFactory]:
    """Makes clients of either kind; they are used alike, and closed at the end."""
    made = ClientFactory(request.param)
    yield made
    made.close()


@pytest.fixture
def client(factory: ClientFactory, emulator: Emulator) -> Any:
    return factory.client(emulator)
