"""The pytest plugin of the package: an emulator of the service for a test.

::

    def test_summary(yandexgpt_emulator):
        yandexgpt_emulator.reply("Кратко")
        assert my_program.summary("...") == "Кратко"
        assert yandexgpt_emulator.requests[-1].to_dict()["messages"][-1]["text"] == "..."

    @pytest.mark.yandexgpt(fail="UNAVAILABLE")
    def test_outage():
        ...

pytest loads it by its entry point. Other modules of the package are imported when a test first uses an emulator.
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
_emulators: WeakKeyDictionary[pytest.Item, Emulator] = WeakKeyDictionary()
"""The emulators of running tests. Not in ``item.stash``, which the oldest supported pytest (6.2) does not have."""
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
"""Variables that may hold the user's credentials or folder; they are removed while a test uses an emulator."""
_MAX_SHOWN = 500
"""The most characters of a request that the report of a failed test shows."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARK_HELP)


@pytest.fixture
def yandexgpt_emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """A :class:`yandexgpt.emulator.Emulator` for one test, which the environment points at.

    A ``yandexgpt.Client()`` in the tested code calls this emulator. Credentials and addresses that were in the
    environment variables are removed or replaced during the test. The marker ``yandexgpt`` configures the emulator.
    """
    from yandexgpt.emulator import Emulator

    options = _marker_options(request.node, set(inspect.signature(Emulator).parameters))
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
        _emulators[request.node] = emulator
        yield emulator
        del _emulators[request.node]


@pytest.fixture(autouse=True)
def _yandexgpt_marked(request: pytest.FixtureRequest) -> None:
    """Start an emulator for a test that has the marker but does not request the fixture."""
    if request.node.get_closest_marker(_MARK) is not None:
        request.getfixturevalue(yandexgpt_emulator.__name__)


def _marker_options(node: pytest.Item, arguments: set[str]) -> dict[str, Any]:
    """The options of the markers of a test, its class and its module; the marker nearest to the test has priority."""
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


@pytest.hookimpl(hookwrapper=True)  # not wrapper=True, which older versions of pytest do not have
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add the requests that the emulator received to the report of a failed test."""
    report = (yield).get_result()
    emulator = _emulators.get(item)
    if report.failed and emulator is not None:
        lines = [_format_request(request) for request in emulator.requests]
        report.sections.append(("YandexGPT emulator received", "\n".join(lines) or "nothing"))


def _format_request(request: RecordedRequest) -> str:
    service, _, method = request.method.rpartition("/")
    body = json.dumps(request.to_dict(), ensure_ascii=False)
    shown = body if len(body) <= _MAX_SHOWN else f"{body[:_MAX_SHOWN]}..."
    return f"{service.rpartition('.')[2]}/{method}: {request.outcome or 'running'}: {shown}"
