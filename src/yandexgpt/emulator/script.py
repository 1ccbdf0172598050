"""The scripted answers and failures, and what a scripted value may be."""

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
    """A call that is to fail.

    Attributes:
        status: the status to end with.
        after: partials sent before it.
        delay: seconds before it.
        operation: whether it is what an operation ends in, rather than a call.
    """

    status: ErrorStatus
    after: int
    delay: float
    operation: bool = False


@dataclass
class Rule:
    """What generations of one kind get.

    Attributes:
        matches: whether a request is of this kind.
        answer: what it is answered with; None: by the default rule.
        failure: what it fails with.
        remaining: how many more of them get it.
        failures_remaining: how many more of these fail.
    """

    matches: Callable[[text_generation_service_pb2.CompletionRequest], bool]
    answer: Answer | None
    failure: Failure | None
    remaining: float
    failures_remaining: float

    def take(self, *, submission: bool) -> tuple[Failure | None, Answer | None] | None:
        """What one more generation gets; None if this rule has nothing for it."""
        failure = self.failure if self.failures_remaining else None
        if failure is not None and failure.operation and not submission:
            failure = None
        if not self.remaining or (failure is None and self.answer is None):
            return None
        self.remaining -= 1
        self.failures_remaining -= failure is not None
        return failure, self.answer


class Script:
    """What the next calls fail with, what the next answers are, and rules for the generations after them. Thread-safe.

    The first two are queues. The rules stay; of those that match a request, the first one counts.
    """

    def __init__(self) -> None:
        self._failures: deque[tuple[Failure, int]] = deque()
        self._answers: deque[tuple[Answer, int]] = deque()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add_answer(self, answer: Answer, times: int) -> None:
        """Answer so, `times` times."""
        with self._lock:
            self._answers.append((answer, times))

    def add_failure(self, failure: Failure, times: int) -> None:
        """Fail so, `times` times."""
        with self._lock:
            self._failures.append((failure, times))

    def add_rules(self, rules: Iterable[Rule]) -> None:
        """Add rules after those that are there."""
        with self._lock:
            self._rules += rules

    def take(self, request: text_generation_service_pb2.CompletionRequest) -> tuple[Failure | None, Answer | None]:
        """What the script says of one more call; a failure before the first partial leaves the answers alone."""
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
        """What one more call fails with that uses up no answer."""
        with self._lock:
            return self._failure(operation=False)

    def take_outcome(
        self, request: text_generation_service_pb2.CompletionRequest
    ) -> tuple[Failure | None, Answer | None]:
        """What one more operation ends in; a failure leaves the answers alone.

        A failure by a rule may be the submission's (``operation`` is false), and not the operation's.
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
        """The next failure of an operation, or of a call; those of the other kind keep their place."""
        for index, (failure, times) in enumerate(self._failures):
            if failure.operation is operation:
                if times > 1:
                    self._failures[index] = (failure, times - 1)
                else:
                    del self._failures[index]
                return failure
        return None

    def clear(self) -> None:
        """Forget what is queued; the rules stay."""
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
