"""The script of an emulator whose answers come from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from yandexgpt.emulator.answers import Answer
from yandexgpt.emulator.script import Failure, Rule, Script

__all__ = ["RestrictedScript"]


class RestrictedScript(Script):
    """A script that takes no answers.

    Args:
        source: where the answers come from instead.
        fails: whether calls may be scripted to fail.
    """

    def __init__(self, source: str, *, fails: bool) -> None:
        super().__init__()
        self._source = source
        self._fails = fails

    def add_answer(self, answer: Answer, times: int) -> NoReturn:  # noqa: ARG002
        """Raises RuntimeError."""
        raise RuntimeError(f"reply(): the answers of this emulator come from {self._source}")

    def add_rules(self, rules: Iterable[Rule]) -> NoReturn:  # noqa: ARG002
        """Raises RuntimeError."""
        raise RuntimeError(f"rules: the answers of this emulator come from {self._source}")

    def add_failure(self, failure: Failure, times: int) -> None:
        """Fail so, if calls may and it is not an operation's end; otherwise raises RuntimeError."""
        if not self._fails or failure.operation:
            what = "operation" if self._fails else "call"
            raise RuntimeError(f"fail(): how this emulator's {what}s end comes from {self._source}")
        super().add_failure(failure, times)
