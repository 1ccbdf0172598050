"""The script of an emulator that does not answer by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from yandexgpt.emulator.answers import Answer
from yandexgpt.emulator.script import Failure, Rule, Script

__all__ = ["RestrictedScript"]


class RestrictedScript(Script):
    """A script that accepts no answers.

    Args:
        source: the source of the answers, for error messages.
        fails: whether it accepts failures of calls.
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
        """Queue a failure of a call.

        Raises:
            RuntimeError: failures are not accepted, or the failure is for an operation.
        """
        if not self._fails or failure.operation:
            what = "operation" if self._fails else "call"
            raise RuntimeError(f"fail(): how this emulator's {what}s end comes from {self._source}")
        super().add_failure(failure, times)
