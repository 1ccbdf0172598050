"""The script of an emulator: queued answers, queued failures, and rules."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt.emulator.answers import Answer
from yandexgpt.emulator.error_status import ErrorStatus

__all__ = ["Failure", "Rule", "Script"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Failure:
    """A failure of a call.

    Attributes:
        status: the error status.
        after: number of partial messages before it.
        delay: seconds before it.
        operation: True: the result of an operation; False: the status of a call.
    """

    status: ErrorStatus
    after: int
    delay: float
    operation: bool = False


@dataclass
class Rule:
    """The answer or failure for matching generations.

    Attributes:
        matches: whether a request matches.
        answer: the answer; None: the default answer.
        failure: the failure.
        remaining: how many more generations this rule applies to.
        failures_remaining: how many of them fail.
    """

    matches: Callable[[text_generation_service_pb2.CompletionRequest], bool]
    answer: Answer | None
    failure: Failure | None
    remaining: float
    failures_remaining: float

    def take(self, *, submission: bool) -> tuple[Failure | None, Answer | None] | None:
        """The failure and the answer for the next generation; None if the rule does not apply to it."""
        failure = self.failure if self.failures_remaining else None
        if failure is not None and failure.operation and not submission:
            failure = None
        if not self.remaining or (failure is None and self.answer is None):
            return None
        self.remaining -= 1
        self.failures_remaining -= failure is not None
        return failure, self.answer


class Script:
    """Queues of failures and answers, and a list of rules. Thread-safe.

    An item is removed from its queue when it is used. Rules stay. The first matching rule applies.
    """

    def __init__(self) -> None:
        self._failures: deque[tuple[Failure, int]] = deque()
        self._answers: deque[tuple[Answer, int]] = deque()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add_answer(self, answer: Answer, times: int) -> None:
        """Queue an answer for `times` calls."""
        with self._lock:
            self._answers.append((answer, times))

    def add_failure(self, failure: Failure, times: int) -> None:
        """Queue a failure for `times` calls."""
        with self._lock:
            self._failures.append((failure, times))

    def add_rules(self, rules: Iterable[Rule]) -> None:
        """Append rules."""
        with self._lock:
            self._rules += rules

    def take(self, request: text_generation_service_pb2.CompletionRequest) -> tuple[Failure | None, Answer | None]:
        """The failure and answer for the next call. A failure before the first message does not use up an answer."""
        with self._lock:
            failure = self._failure(operation=False)
            if failure is not None and not failure.after:
                return failure, None
            answer = _take(self._answers)
            if answer is not None:
                return failure, answer
            by_rule, answer = self._by_rule(request, submission=False)
            return failure or by_rule, answer

    def take_failure(self) -> Failure | None:
        """The failure for the next call of a method without a scripted answer."""
        with self._lock:
            return self._failure(operation=False)

    def take_outcome(
        self, request: text_generation_service_pb2.CompletionRequest
    ) -> tuple[Failure | None, Answer | None]:
        """The failure or answer for the next operation. A failure does not use up an answer.

        A failure from a rule may be for the submission (``operation`` is False) and not for the operation.
        """
        with self._lock:
            failure = self._failure(operation=True)
            if failure is not None:
                return failure, None
            answer = _take(self._answers)
            return (None, answer) if answer is not None else self._by_rule(request, submission=True)

    def _by_rule(
        self, request: text_generation_service_pb2.CompletionRequest, *, submission: bool
    ) -> tuple[Failure | None, Answer | None]:
        matching = (rule.take(submission=submission) for rule in self._rules if rule.matches(request))
        return next((taken for taken in matching if taken is not None), (None, None))

    def _failure(self, *, operation: bool) -> Failure | None:
        """The next failure for operations or for calls. Other failures keep their position in the queue."""
        for index, (failure, times) in enumerate(self._failures):
            if failure.operation is operation:
                if times > 1:
                    self._failures[index] = (failure, times - 1)
                else:
                    del self._failures[index]
                return failure
        return None

    def clear(self) -> None:
        """Clear the queues; rules stay."""
        with self._lock:
            self._failures.clear()
            self._answers.clear()


def _take(queue: deque[tuple[_T, int]]) -> _T | None:
    if not queue:
        return None
    item, times = queue[0]
    if times > 1:
        queue[0] = (item, times - 1)
    else:
        queue.popleft()
    return item
