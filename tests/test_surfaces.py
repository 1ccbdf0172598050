"""The two clients have one surface: names, parameters and docstrings differ where waiting differs, and nowhere else."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import yandexgpt
from yandexgpt._async.responses import AsyncResponses, Responses

PAIRS = [
    (yandexgpt.Client, yandexgpt.AsyncClient),
    (yandexgpt.Stream, yandexgpt.AsyncStream),
    (yandexgpt.Results, yandexgpt.AsyncResults),
    (yandexgpt.Chat, yandexgpt.AsyncChat),
    (yandexgpt.Operation, yandexgpt.AsyncOperation),
    (Responses, AsyncResponses),
]
ONLY_ASYNC = {"aclose"}
"""What :func:`contextlib.aclosing` looks for: the one name that has no twin."""
PROTOCOL = {"enter": "aenter", "exit": "aexit", "iter": "aiter", "next": "anext"}
"""The special methods that a ``with`` and a ``for`` look for, and those of ``async with`` and ``async for``."""
DO_NOT_WAIT = {
    "chat",
    "complete_many",
    "operation",
    "result",
    "wait_all",
    "__eq__",
    "__hash__",
    "from_dict",
    "to_dict",
    "stream",
    "text",
    "with_options",
    "raw",
    "__aiter__",
    "__init__",
    "__repr__",
    "__reduce__",
}
"""What only makes something to be waited for, or does not wait at all, on either side."""
WORDS = [
    ("Ctrl-C", "cancelling the task"),
    (
        "the stream was closed before its end while it was iterated over, or a read was interrupted",
        "another task has closed the stream before its end, or a read was cancelled",
    ),
    ("the results were closed while they were iterated over", "another task has closed the results"),
    ("another thread that reads", "another task that reads"),
    ("share between threads. It goes", "share between tasks. It goes"),
    (
        "Safe to share between threads; survives a fork.",
        "Native on ``grpc.aio``. Works in any number of event loops, one after another or each in a thread of its own; "
        "survives a fork.",
    ),
]
"""How the docstrings of the synchronous side read on the other."""


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def twin(name: str) -> str:
    bare = name.strip("_")
    return f"__{PROTOCOL[bare]}__" if name.startswith("__") and bare in PROTOCOL else name


def members() -> list[Any]:
    found = []
    for sync, asynchronous in PAIRS:
        own = {name for name in vars(sync) if name.startswith("__") and callable(getattr(sync, name))}
        names = public(sync) | (own - {"__init_subclass__", "__class__"}) | {"__init__", "__repr__", "__reduce__"}
        found += [pytest.param(sync, asynchronous, name, id=f"{sync.__name__}.{name}") for name in sorted(names)]
    return found


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_the_public_names_are_the_same(sync: type, asynchronous: type) -> None:
    assert public(asynchronous) - ONLY_ASYNC == public(sync)
    assert public(asynchronous) - public(sync) == (
        ONLY_ASYNC if sync in (yandexgpt.Stream, yandexgpt.Results) else set()
    )


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_the_special_methods_are_the_same(sync: type, asynchronous: type) -> None:
    for name, other in PROTOCOL.items():
        assert hasattr(sync, f"__{name}__") == hasattr(asynchronous, f"__{other}__")
        assert not hasattr(asynchronous, f"__{name}__")
        assert not hasattr(sync, f"__{other}__")


@pytest.mark.parametrize(("sync", "asynchronous", "name"), members())
def test_parameters_and_defaults_are_the_same(sync: type, asynchronous: type, name: str) -> None:
    one, other = inspect.getattr_static(sync, name), inspect.getattr_static(asynchronous, twin(name))
    assert type(one) is type(other)
    if isinstance(one, property):
        one, other = one.fget, other.fget
    if isinstance(one, classmethod):
        one, other = one.__func__, other.__func__
    for mine, its in zip(
        inspect.signature(one).parameters.values(), inspect.signature(other).parameters.values(), strict=True
    ):
        assert (mine.name, mine.kind, mine.default) == (its.name, its.kind, its.default)
        if name != "__init__":  # a stream is made of what it reads, which the user never sees
            assert str(mine.annotation) == re.sub(r"\bAsync(?=[A-Z])", "", str(its.annotation))


@pytest.mark.parametrize(("sync", "asynchronous", "name"), members())
def test_what_is_returned_is_the_twin(sync: type, asynchronous: type, name: str) -> None:
    one, other = inspect.getattr_static(sync, name), inspect.getattr_static(asynchronous, twin(name))
    if isinstance(one, property):
        one, other = one.fget, other.fget
    if isinstance(one, classmethod):
        one, other = one.__func__, other.__func__
    mine, its = inspect.signature(one).return_annotation, inspect.signature(other).return_annotation
    assert re.sub(r"\bAsync(?=[A-Z])", "", str(its)) == str(mine)


@pytest.mark.parametrize(("sync", "asynchronous", "name"), members())
def test_one_side_waits_with_await_and_the_other_does_not(sync: type, asynchronous: type, name: str) -> None:
    one, other = getattr(sync, name), getattr(asynchronous, twin(name))
    assert not inspect.iscoroutinefunction(one)
    waits = twin(name) not in DO_NOT_WAIT and not isinstance(inspect.getattr_static(asynchronous, twin(name)), property)
    assert inspect.iscoroutinefunction(other) is waits


@pytest.mark.parametrize(("sync", "asynchronous", "name"), members())
def test_the_docstrings_are_the_same(sync: type, asynchronous: type, name: str) -> None:
    assert as_asynchronous(getattr(sync, name).__doc__) == words(getattr(asynchronous, twin(name)).__doc__)
    if not name.startswith("_"):
        assert getattr(sync, name).__doc__


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_the_docstrings_of_the_classes_are_the_same(sync: type, asynchronous: type) -> None:
    assert as_asynchronous(sync.__doc__) == words(asynchronous.__doc__)


def words(text: str | None) -> str:
    return " ".join((text or "").split())


def as_asynchronous(text: str | None) -> str:
    given = words(text)
    for mine, its in WORDS:
        given = given.replace(mine, its)
    return given
