"""How an emulator is scripted: what the next calls get, and rules for all the others."""

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

__all__ = ["Scripting"]


class Scripting:
    """The part of :class:`Emulator` that says what it does next."""

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
        """Script the next answer; answers are used in the order scripted, and ``max_tokens`` does not cut them.

        Args:
            text: the final text; None: a message that holds no text.
            partials: the texts sent before the final message to a request with ``stream=true``. Each is the whole text
                so far, and may shrink, rewrite what came before, repeat it, or end in half a character (U+FFFD). An
                item that is a list holds one text per alternative.
            delay: seconds before each message.
            status: how the answer ends: ``"FINAL"`` (the default), ``"TRUNCATED"``, ``"CONTENT_FILTER"``,
                ``"TOOL_CALLS"`` (the default with `tool_calls`), ..., or a number that the interface does not know.
            tool_calls: mappings of ``name`` and ``arguments``, in place of text.
            alternatives: in place of text, status and tool_calls, any number of alternatives: texts, or mappings of
                ``text``, ``status``, ``tool_calls``, ``role``.
            usage: the final message's ``input_tokens``, ``completion_tokens``, ``total_tokens``, ``reasoning_tokens``;
                what is left out is counted in words. The counts of the partials grow towards it.
            model_version: on every message.
            final: False ends the stream, with status OK, without the final message.
            times: how many calls get this answer.

        Raises:
            ValueError: an argument is not as above.
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
        """Script the next calls to fail; failures come before scripted answers, and in the order scripted.

        Args:
            code: any status but OK, by name or as ``grpc.StatusCode``.
            message: the status message; None: ``"scripted <code>"``.
            times: how many calls fail so.
            after: partials sent before the failure, those of the next scripted answer (which is used up) or of the
                default one; if it has fewer, all of them. 0: no message at all, and no scripted answer is used up.
                Of a call with one answer: 1 or more lets it have its effect, such as an operation that is made, and
                only its answer is lost.
            details: ``google.rpc.error_details_pb2`` messages for ``grpc-status-details-bin``.
            retry_after: seconds, sent as a ``RetryInfo`` detail.
            pushback: milliseconds, sent as ``grpc-retry-pushback-ms``; negative: do not retry.
            delay: seconds before the failure.
            operation: not a call fails, but the next operation that is submitted ends so, in place of an answer.

        Raises:
            ValueError: an argument is not as above.
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
        """Answer, or fail, every generation of one kind: streamed, whole or asynchronous.

        Rules are asked when :meth:`reply` and :meth:`fail` have nothing queued, and before the default answer; of those
        that match, the first one made counts.

        Args:
            match: which requests; None: every one. A mapping of

                - ``model``: the model's name (``"yandexgpt-lite"``), its URI, or its URI without the folder;
                - ``text``: a piece of the text of the last user message;
                - ``pattern``: a regular expression found in it;
                - ``role``: look at the last message of this role (``"system"``, ``"user"``, ``"assistant"``), and match
                  only if there is one; ``"tool"``: at the tool results that the prompt ends in;
                - ``any``: True: look at every message, and not only at the last one.
            answer: the text, or a mapping of arguments of :meth:`reply`. Where ``partials`` are left out, the text is
                streamed word by word; where ``delay`` is, the emulator's holds.
            fail: the status code, or a mapping of arguments of :meth:`fail`, where ``times`` says how many of these
                calls fail before the `answer` is given; without it, all of them. With ``operation`` true, it is the
                operation of an asynchronous request that ends so, and other calls get the `answer`.
            times: how many calls get this; None: any number.

        Raises:
            ValueError: an argument is not as above.
        """
        made = rules.make_rule(match=match, answer=answer, fail=fail, times=times, delay=self._generation.delay)
        self._script.add_rules([made])

    def load_script(self, path: str | os.PathLike[str]) -> None:
        """Take rules and settings from a file, after the rules that are there; see ``docs/emulator.md``.

        Args:
            path: a Python file (``.py``) with a function ``script(emulator)``, which is called; or a YAML or JSON file,
                a mapping of ``rules`` (each a mapping of the arguments of :meth:`rule`), ``quotas`` (a mapping of
                ``max_concurrent`` and ``rate``), ``delay`` and ``operation_time``; what it says of these wins over the
                arguments of the emulator.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not a script; one line, ``<file>:<line>: <what is wrong>``, and none of it is used.
            ImportError: YAML, and the extra ``yandexgpt[emulator]`` is not installed.
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
