"""The pytest plugin that comes with the package: an emulator of the service for a test.

::

    def test_summary(yandexgpt_emulator):
        yandexgpt_emulator.reply("Кратко")
        assert my_program.summary("...") == "Кратко"
        assert yandexgpt_emulator.requests[-1].to_dict()["messages"][-1]["text"] == "..."

    @pytest.mark.yandexgpt(fail="UNAVAILABLE")
    def test_outage():
        ...

pytest loads it by its entry point; nothing else is imported before a test asks for an emulator.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

if TYPE_CHECKING:
    from yandexgpt.emulator import Emulator
    from yandexgpt.emulator.received import RecordedRequest

__all__ = ["yandexgpt_emulator"]

_MARK = "yandexgpt"
_MARK_HELP = (
    f"{_MARK}(fail=..., script=..., replay=..., **arguments of Emulator): run the test with an emulator of YandexGPT "
    "(the fixture yandexgpt_emulator). fail: a status code, a mapping of arguments of Emulator.fail, or a list of "
    "those; script, replay: files, relative to the test's own"
)
_running: WeakKeyDictionary[pytest.Item, Emulator] = WeakKeyDictionary()
"""The emulators of the tests under way. (pytest's own stash is younger than some pytest that this must not break.)"""
_CREDENTIALS = (
    "YC_API_KEY",
    "YANDEX_CLOUD_API_KEY",
    "YC_IAM_TOKEN",
    "YC_SERVICE_ACCOUNT_KEY_FILE",
    "YC_OAUTH_TOKEN",
    "YC_TOKEN",
    "IAM_TOKEN",
    "API_KEY",
    "YC_FOLDER_ID",
    "FOLDER_ID",
    "YANDEX_CLOUD_FOLDER",
)
"""Variables that may hold somebody's own credentials or folder: a test with an emulator does without."""
_SHOWN = 500
"""Characters of a request in the report of a failed test."""


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest about the marker."""
    config.addinivalue_line("markers", _MARK_HELP)


@pytest.fixture
def yandexgpt_emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """A :class:`yandexgpt.emulator.Emulator` of the test's own, which the environment points at.

    So a ``yandexgpt.Client()`` that the tested code makes calls this emulator; credentials and addresses that the
    environment held before are gone for the test. The marker ``yandexgpt`` says more of it.
    """
    from yandexgpt.emulator import Emulator

    options = _options(request.node, set(inspect.signature(Emulator).parameters))
    fail, script = options.pop("fail", []), options.pop("script", None)
    try:
        emulator = Emulator(**options)
        for failure in [fail] if isinstance(fail, str | Mapping) else fail:
            emulator.fail(**({"code": failure} if isinstance(failure, str) else failure))
        if script is not None:
            emulator.load_script(script)
        emulator.start()
    except (TypeError, ValueError, RuntimeError, OSError, ImportError) as error:
        pytest.fail(f"@pytest.mark.{_MARK}: {error}", pytrace=False)
    with emulator, pytest.MonkeyPatch.context() as environment:
        for name in _CREDENTIALS:
            environment.delenv(name, raising=False)
        for name, value in emulator.environment().items():
            environment.setenv(name, value)
        _running[request.node] = emulator
        yield emulator
        del _running[request.node]


@pytest.fixture(autouse=True)
def _yandexgpt_marked(request: pytest.FixtureRequest) -> None:
    """The marker is enough: a test need not name the fixture too."""
    if request.node.get_closest_marker(_MARK) is not None:
        request.getfixturevalue(yandexgpt_emulator.__name__)


def _options(node: pytest.Item, arguments: set[str]) -> dict[str, Any]:
    """What the markers of a test say, those of its class and its module included; the nearest wins."""
    allowed = {"fail", "script", *arguments}
    options: dict[str, Any] = {}
    for mark in reversed(list(node.iter_markers(_MARK))):
        if mark.args or set(mark.kwargs) - allowed:
            wrong = ", ".join([*map(repr, mark.args), *sorted(set(mark.kwargs) - allowed)])
            known = ", ".join(sorted(allowed))
            pytest.fail(f"@pytest.mark.{_MARK} does not know {wrong}; it takes the keywords {known}", pytrace=False)
        options.update(mark.kwargs)
    for name in ("script", "replay"):
        if options.get(name) is not None:
            options[name] = Path(Path(getattr(node, "path", None) or node.fspath).parent, options[name])
    return options


@pytest.hookimpl(hookwrapper=True)  # the older form: it works with every pytest that a project may have
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show, where a test failed, what its emulator received."""
    report = (yield).get_result()
    emulator = _running.get(item)
    if report.failed and emulator is not None:
        lines = [_line(request) for request in emulator.requests]
        report.sections.append(("YandexGPT emulator received", "\n".join(lines) or "nothing"))


def _line(request: RecordedRequest) -> str:
    service, _, method = request.method.rpartition("/")
    body = json.dumps(request.to_dict(), ensure_ascii=False)
    shown = body if len(body) <= _SHOWN else f"{body[:_SHOWN]}..."
    return f"{service.rpartition('.')[2]}/{method}: {request.outcome or 'running'}: {shown}"
