"""Importing the package loads almost nothing; public names are loaded on first access."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest
from driver import subprocess_environment

import yandexgpt


def run(program: str) -> str:
    """The output of a program in a new interpreter. A warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=subprocess_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_import_of_the_package_loads_no_submodule_and_no_dependency() -> None:
    loaded = run(
        "import sys; before = set(sys.modules); import yandexgpt; print(*sorted(set(sys.modules) - before), sep='\\n')"
    ).split()
    assert [name for name in loaded if name.startswith("yandexgpt")] == ["yandexgpt", "yandexgpt._version"]
    for heavy in ("grpc", "google", "google.protobuf", "asyncio", "logging", "jwt", "cryptography", "pydantic"):
        assert not [name for name in loaded if name == heavy or name.startswith(f"{heavy}.")]


@pytest.mark.parametrize("name", ["Retry", "errors", "YandexGPTError"])
def test_names_without_network_access_do_not_load_grpc(name: str) -> None:
    assert run(f"import sys, yandexgpt; yandexgpt.{name}; print('grpc' in sys.modules)") == "False\n"


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "Completion", "credentials", "load_request"])
def test_client_loads_neither_emulator_nor_command_line_nor_extras(name: str) -> None:
    program = f"""
import sys, yandexgpt
yandexgpt.{name}
print([name for name in ("yandexgpt.emulator", "yandexgpt.cli") if name in sys.modules])
print([name for name in ("jwt", "cryptography", "pydantic", "rich", "opentelemetry") if name in sys.modules])
"""
    assert run(program) == "[]\n[]\n"


@pytest.mark.parametrize("name", yandexgpt.__all__)
def test_every_public_name_can_be_loaded_and_has_a_docstring(name: str) -> None:
    value = getattr(yandexgpt, name)
    assert getattr(yandexgpt, name) is value
    assert name in dir(yandexgpt)
    generated = name == "CompletionRequest"  # generated from descriptors, without a docstring
    if isinstance(value, type | types.FunctionType | types.ModuleType) and not generated:
        assert value.__doc__


def test_public_names_can_be_loaded_in_any_order() -> None:
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


def test_star_import_gives_every_public_name() -> None:
    program = """
import types
names = {}
exec("from yandexgpt import *", names)
import yandexgpt
print(sorted(set(yandexgpt.__all__) - set(names)))
"""
    assert run(program) == "[]\n"


def test_public_names_are_sorted_and_unique() -> None:
    assert len(set(yandexgpt.__all__)) == len(yandexgpt.__all__)
    assert sorted(yandexgpt.__all__) == yandexgpt.__all__


def test_public_modules_are_attributes_of_the_package() -> None:
    program = "import yandexgpt; print(yandexgpt.{0}.__name__)"
    for name in ("credentials", "errors", "emulator"):
        assert run(program.format(name)) == f"yandexgpt.{name}\n"


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'yandexgpt' has no attribute 'Cleint'"):
        _ = yandexgpt.Cleint  # type: ignore[attr-defined]
    assert not hasattr(yandexgpt, "_private")
    with pytest.raises(ImportError, match="cannot import name 'Cleint'"):
        exec("from yandexgpt import Cleint")


def test_dir_lists_public_names_without_loading_them() -> None:
    listed = run("import sys, yandexgpt; print(*dir(yandexgpt)); assert 'grpc' not in sys.modules").split()
    assert set(yandexgpt.__all__) <= set(listed)
    assert listed == sorted(listed)


def test_version_equals_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert yandexgpt.__version__ == version("yandexgpt")


def test_package_contains_py_typed() -> None:
    from importlib.resources import files

    assert files("yandexgpt").joinpath("py.typed").is_file()
