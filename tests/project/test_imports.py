"""Importing the package costs next to nothing, and everything public is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest
from driver import inherited

import yandexgpt


def run(program: str) -> str:
    """What a program prints in a fresh interpreter, where a warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=inherited(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_import_loads_nothing_that_is_not_needed_yet() -> None:
    loaded = run(
        "import sys; before = set(sys.modules); import yandexgpt; print(*sorted(set(sys.modules) - before), sep='\\n')"
    ).split()
    assert [name for name in loaded if name.startswith("yandexgpt")] == ["yandexgpt", "yandexgpt._version"]
    for heavy in ("grpc", "google", "google.protobuf", "asyncio", "logging", "jwt", "cryptography", "pydantic"):
        assert not [name for name in loaded if name == heavy or name.startswith(f"{heavy}.")]


@pytest.mark.parametrize("name", ["Retry", "errors", "YandexGPTError"])
def test_what_needs_no_network_does_not_load_grpc(name: str) -> None:
    assert run(f"import sys, yandexgpt; yandexgpt.{name}; print('grpc' in sys.modules)") == "False\n"


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "Completion", "credentials", "load_request"])
def test_the_client_loads_neither_emulator_nor_command_line_nor_extras(name: str) -> None:
    program = f"""
import sys, yandexgpt
yandexgpt.{name}
print([name for name in ("yandexgpt.emulator", "yandexgpt.cli") if name in sys.modules])
print([name for name in ("jwt", "cryptography", "pydantic", "rich", "opentelemetry") if name in sys.modules])
"""
    assert run(program) == "[]\n[]\n"


@pytest.mark.parametrize("name", yandexgpt.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(yandexgpt, name)
    assert getattr(yandexgpt, name) is value
    assert name in dir(yandexgpt)
    generated = name == "CompletionRequest"  # from descriptors, without upstream's comments
    if isinstance(value, type | types.FunctionType | types.ModuleType) and not generated:
        assert value.__doc__


def test_every_public_name_is_there_in_any_order() -> None:
    program = """
import random, yandexgpt
for seed in range(3):
    names = list(yandexgpt.__all__)
    random.Random(seed).shuffle(names)
    for name in names:
        getattr(yandexgpt, name)
print("fine")
"""
    assert run(program) == "fine\n"


def test_everything_can_be_imported_with_a_star() -> None:
    program = """
import types
names = {}
exec("from yandexgpt import *", names)
import yandexgpt
print(sorted(set(yandexgpt.__all__) - set(names)))
"""
    assert run(program) == "[]\n"


def test_the_public_names_are_sorted_and_said_once() -> None:
    assert len(set(yandexgpt.__all__)) == len(yandexgpt.__all__)
    assert sorted(yandexgpt.__all__) == yandexgpt.__all__


def test_the_modules_are_there_after_the_import_of_the_package() -> None:
    program = "import yandexgpt; print(yandexgpt.{0}.__name__)"
    for name in ("credentials", "errors", "emulator"):
        assert run(program.format(name)) == f"yandexgpt.{name}\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'yandexgpt' has no attribute 'Cleint'"):
        _ = yandexgpt.Cleint  # type: ignore[attr-defined]
    assert not hasattr(yandexgpt, "_private")
    with pytest.raises(ImportError, match="cannot import name 'Cleint'"):
        exec("from yandexgpt import Cleint")


def test_the_names_are_listed_before_they_are_loaded() -> None:
    listed = run("import sys, yandexgpt; print(*dir(yandexgpt)); assert 'grpc' not in sys.modules").split()
    assert set(yandexgpt.__all__) <= set(listed)
    assert listed == sorted(listed)


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert yandexgpt.__version__ == version("yandexgpt")


def test_the_types_are_announced() -> None:
    from importlib.resources import files

    assert files("yandexgpt").joinpath("py.typed").is_file()
