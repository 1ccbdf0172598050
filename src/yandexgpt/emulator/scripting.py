"""The methods of the emulator that script its answers and failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from yandexgpt.emulator import rules, script_file
from yandexgpt.emulator.answers import DEFAULT_MODEL_VERSION
from yandexgpt.emulator.arguments import check_count, make_answer, make_failure

if TYPE_CHECKING:
    import os

    from google.protobuf.message import Message

    from yandexgpt.emulator.operations import Operations
    from yandexgpt.emulator.quota import Quota
    from yandexgpt.emulator.script import Script
    from yandexgpt.emulator.text_generation import TextGeneration

__all__ = ["ScriptingMixin"]


class ScriptingMixin:
    """The part of :class:`Emulator` with the methods for scripts."""

    operations: Operations
    _script: Script
    _quota: Quota
    _generation: TextGeneration

    def reply(
        self,
        text: str | None = "",
        *,
        partials: Iterable[str | Sequence[str]] | None = None,
        delay: float = 0.0,
        status: str | int | None = None,
        tool_calls: Iterable[Mapping[str, Any]] | None = None,
        alternatives: Iterable[str | Mapping[str, Any]] | None = None,
        usage: Mapping[str, int] | None = None,
        model_version: str = DEFAULT_MODEL_VERSION,
        final: bool = True,
        times: int = 1,
    ) -> None:
        """Script the next answer. Answers are used in the order scripted. ``max_tokens`` does not truncate them.

        Args:
            text: the final text; None: a message without text.
            partials: the texts sent before the final message to a request with ``stream=true``. Each is the whole text
                so far. It may be shorter than the one before, change it, repeat it, or end with an incomplete character
                (U+FFFD). An item that is a list contains one text per alternative.
            delay: seconds before each message.
            status: the final status: ``"FINAL"`` (the default), ``"TRUNCATED"``, ``"CONTENT_FILTER"``, ``"TOOL_CALLS"``
                (the default with `tool_calls`), ..., or a number that the interface does not define.
            tool_calls: mappings of ``name`` and ``arguments``, instead of text.
            alternatives: instead of text, status and tool_calls, any number of alternatives: texts, or mappings of
                ``text``, ``status``, ``tool_calls``, ``role``.
            usage: the final message's ``input_tokens``, ``completion_tokens``, ``total_tokens``, ``reasoning_tokens``.
                Missing numbers are counted in words. The counts of the partials grow to this number.
            model_version: on every message.
            final: False: end the stream with status OK and without the final message.
            times: the number of calls that get this answer.

        Raises:
            ValueError: an argument is invalid.
        """
        answer = make_answer(
            text,
            partials=partials,
            delay=delay,
            status=status,
            tool_calls=tool_calls,
            alternatives=alternatives,
            usage=usage,
            model_version=model_version,
            final=final,
        )
        self._script.add_answer(answer, check_count("times", times))

    def fail(
        self,
        code: str | grpc.StatusCode,
        message: str | None = None,
        *,
        times: int = 1,
        after: int = 0,
        details: Iterable[Message] = (),
        retry_after: float | None = None,
        pushback: int | None = None,
        delay: float = 0.0,
        operation: bool = False,
    ) -> None:
        """Script the next calls to fail. Failures are used before scripted answers, in the order scripted.

        Args:
            code: any status but OK, by name or as ``grpc.StatusCode``.
            message: the status message; None: ``"scripted <code>"``.
            times: the number of calls that fail.
            after: number of partial messages before the failure. They are those of the next scripted answer (which is
                used up) or of the default answer; at most all of them. 0: no message, and no scripted answer is used
                up. For a call with one response: with 1 or more, the call takes effect (such as a created operation),
                and only its response is lost.
            details: ``google.rpc.error_details_pb2`` messages for ``grpc-status-details-bin``.
            retry_after: seconds, sent as a ``RetryInfo`` detail.
            pushback: milliseconds, sent as ``grpc-retry-pushback-ms``; negative: do not retry.
            delay: seconds before the failure.
            operation: True: not a call fails, but the next submitted operation ends with this error.

        Raises:
            ValueError: an argument is invalid.
        """
        failure = make_failure(
            code,
            message,
            after=after,
            details=details,
            retry_after=retry_after,
            pushback=pushback,
            delay=delay,
            operation=operation,
        )
        self._script.add_failure(failure, check_count("times", times))

    def rule(
        self,
        *,
        match: Mapping[str, Any] | None = None,
        answer: str | Mapping[str, Any] | None = None,
        fail: str | Mapping[str, Any] | None = None,
        times: int | None = None,
    ) -> None:
        """Script the answer or failure of every matching generation: streamed, unary or asynchronous.

        Rules apply if :meth:`reply` and :meth:`fail` have nothing queued, and before the default answer. The first
        matching rule applies.

        Args:
            match: the condition; None: every request. A mapping of

                - ``model``: the model's name (``"yandexgpt-lite"``), its URI, or its URI without the folder;
                - ``text``: a part of the text of the last user message;
                - ``pattern``: a regular expression to search in it;
                - ``role``: check the last message of this role (``"system"``, ``"user"``, ``"assistant"``) instead;
                  there must be one. ``"tool"``: check the tool results at the end of the prompt;
                - ``any``: True: check all messages, and not only the last one.
            answer: the text, or a mapping of arguments of :meth:`reply`. Without ``partials``, the text is streamed
                word by word. Without ``delay``, the delay of the emulator applies.
            fail: the status code, or a mapping of arguments of :meth:`fail`. Here ``times`` is the number of calls that
                fail before the `answer` is given; without it, all calls fail. With ``operation`` true, the operation of
                an asynchronous request ends with this error, and other calls get the `answer`.
            times: the number of calls that the rule applies to; None: no limit.

        Raises:
            ValueError: an argument is invalid.
        """
        made = rules.make_rule(match=match, answer=answer, fail=fail, times=times, delay=self._generation.delay)
        self._script.add_rules([made])

    def load_script(self, path: str | os.PathLike[str]) -> None:
        """Load rules and settings from a file. Its rules are added after the existing rules. See ``docs/emulator.md``.

        Args:
            path: a Python file (``.py``) with a function ``script(emulator)``, which is called; or a YAML or JSON file,
                a mapping of ``rules`` (each a mapping of the arguments of :meth:`rule`), ``quotas`` (a mapping of
                ``max_concurrent`` and ``rate``), ``delay`` and ``operation_time``. The file takes precedence over the
                arguments of the emulator.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is invalid, and nothing of it is used. The message is one line,
                ``<file>:<line>: <what is wrong>``.
            ImportError: a YAML file needs the extra ``yandexgpt[emulator]``.
        """
        file = Path(path)
        if file.suffix == ".py":
            script_file.run(file, self)
            return
        read = script_file.read(file, delay=self._generation.delay)
        self._script.add_rules(read.rules)
        self._quota.set_limits(**read.quotas)
        self._generation.delay = self.operations.delay = read.settings.get("delay", self._generation.delay)
        self.operations.time = read.settings.get("operation_time", self.operations.time)
