"""Fixtures for all tests: a clean environment, an emulator, and a client of each kind."""

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

# A background job of a shell script ignores SIGINT, and subprocesses inherit that. The tests need the default handler.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the duration of an example depends on the load of the machine. The examples are the same in each run;
# `make explore` searches for new ones.
settings.register_profile("same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("explore", settings.get_profile("same"), derandomize=False, max_examples=3000)
settings.load_profile("same")

_MEANINGFUL = re.compile(
    r"(YC|YANDEXGPT|YANDEX_CLOUD)_.*|(API_KEY|IAM_TOKEN|FOLDER_ID)|GRPC_(VERBOSITY|TRACE)|(GRPC|HTTPS?|ALL|NO)_PROXY",
    re.IGNORECASE,
)
"""Environment variables that the client or gRPC reads."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the developer's own account and network."""
    for name in list(os.environ):
        if _MEANINGFUL.fullmatch(name):
            monkeypatch.delenv(name)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Emulators send no message until this event is set."""
    opened, pause = threading.Event(), Call.pause
    monkeypatch.setattr(Call, "pause", lambda call, seconds: opened.wait(PATIENCE) and pause(call, seconds))
    yield opened
    opened.set()


@pytest.fixture(params=["sync", "async"])
def factory(request: pytest.FixtureRequest) -> Iterator[ClientFactory]:
    """A factory of clients of one kind. Both kinds have the same methods. All clients are closed at the end."""
    made = ClientFactory(request.param)
    yield made
    made.close()


@pytest.fixture
def client(factory: ClientFactory, emulator: Emulator) -> Any:
    return factory.client(emulator)
