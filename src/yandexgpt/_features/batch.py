"""``complete_many``: when a prompt may be read, and when a result may be returned. Shared by both clients."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from yandexgpt._checks import check_metadata
from yandexgpt._options import CallKeywords, ManyOptions
from yandexgpt._request import Prompt, build_request, positive_int
from yandexgpt.errors import CancelledError, YandexGPTError

if TYPE_CHECKING:
    from yandexgpt._config import Settings
    from yandexgpt._models import Completion
    from yandexgpt._request import CompletionRequest

__all__ = ["AsyncPrompts", "BatchOptions", "OnError", "Prompts", "Result", "ResultBuffer"]

OnError = Literal["raise", "return"]
Prompts = Iterable[Prompt]
AsyncPrompts = Iterable[Prompt] | AsyncIterable[Prompt]

READ_AHEAD_FACTOR = 2
"""At most this factor times ``concurrency`` prompts may be read without their results being returned: those in flight,
and as many finished ones that wait for a slower call or for a slow reader."""

_PROMPT_ERRORS = (YandexGPTError, ValueError, TypeError)
"""The errors that a result can hold: the call failed, or no request can be built from the prompt."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one prompt. Frozen.

    Attributes:
        index: the index of the prompt among the prompts, from 0.
        prompt: the prompt, as it was given.
        error: why there is no answer; None if there is one.
    """

    index: int
    prompt: Prompt
    error: Exception | None
    _completion: Completion | None = None

    @property
    def completion(self) -> Completion:
        """The answer.

        Raises:
            APIError, ValueError, TypeError: :attr:`error`, if there is no answer.
        """
        if self.error is not None:
            raise self.error
        return cast("Completion", self._completion)


class ResultBuffer:
    """Holds finished results, reorders them if asked to, and limits how many prompts may be read. Pure.

    Args:
        concurrency: the most prompts that may be in flight at the same time (>= 1).
        ordered: True: results are returned in the order of their prompts. False: in the order in which they finish.
    """

    def __init__(self, concurrency: int, *, ordered: bool) -> None:
        self._concurrency = concurrency
        self._ordered = ordered
        self._ready: dict[int, Result] = {}
        self._added = 0
        self._popped = 0
        self.in_flight = 0
        self.has_cancelled_result = False
        """Whether a result holds a ``CancelledError``."""

    @property
    def has_capacity(self) -> bool:
        """Whether another prompt may be read."""
        return self.in_flight < self._concurrency and self._added - self._popped < READ_AHEAD_FACTOR * self._concurrency

    @property
    def has_started(self) -> bool:
        """Whether at least one prompt was read."""
        return self._added > 0

    @property
    def empty(self) -> bool:
        """Whether every prompt that was read has had its result returned."""
        return self._added == self._popped

    def add_prompt(self) -> int:
        """Count a prompt that was read; returns its index."""
        index = self._added
        self._added += 1
        self.in_flight += 1
        return index

    def add_result(self, result: Result) -> None:
        """Store the result of a prompt that was in flight."""
        self.in_flight -= 1
        self.has_cancelled_result = self.has_cancelled_result or isinstance(result.error, CancelledError)
        self._ready[result.index] = result

    @property
    def ready(self) -> bool:
        """Whether :meth:`pop` would return a result."""
        return (self._popped in self._ready) if self._ordered else bool(self._ready)

    def pop(self) -> Result | None:
        """Remove and return the next result; None if it has not finished yet."""
        index = self._popped if self._ordered else next(iter(self._ready), -1)
        result = self._ready.pop(index, None)
        if result is not None:
            self._popped += 1
        return result


class BatchOptions:
    """The arguments of ``complete_many``, checked.

    Args:
        settings: the client's settings.
        prompts, concurrency, ordered, on_error, options: as for ``complete_many()``.
        iterables: the types that ``prompts`` may have.

    Raises:
        ValueError: an argument is out of range or malformed.
        TypeError: there is no such option, or ``prompts`` is not iterable.
    """

    def __init__(
        self,
        settings: Settings,
        prompts: AsyncPrompts,
        iterables: tuple[type, ...],
        *,
        concurrency: int,
        ordered: bool,
        on_error: OnError,
        options: Mapping[str, Any],
    ) -> None:
        self._settings = settings
        self.prompts = prompts
        self.may_block = not isinstance(prompts, list | tuple | AsyncIterable)
        """Whether reading a prompt may block, for example until earlier results were returned."""
        self._ordered = ordered
        if isinstance(prompts, str | Mapping):
            raise ValueError(f"prompts must be an iterable of prompts, got one {type(prompts).__name__}")
        if not isinstance(prompts, iterables):
            raise TypeError(f"prompts must be an iterable of prompts, got {type(prompts).__name__}")
        concurrency = positive_int("concurrency", concurrency)
        # A call that waits for a slot of max_concurrency only uses up its deadline.
        self._concurrency = min(concurrency, settings.max_concurrency or concurrency)
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error must be 'raise' or 'return', got {on_error!r}")
        self._return_errors = on_error == "return"
        if unknown := sorted(options.keys() - ManyOptions.__annotations__.keys()):
            raise TypeError(f"complete_many() got an unexpected keyword argument {unknown[0]!r}")
        self.call_options = {name: value for name, value in options.items() if name in CallKeywords.__annotations__}
        """The options of every call; the options of its request are kept separately."""
        self._request_options = {name: value for name, value in options.items() if name not in self.call_options}
        # An iterator can be read only once, but every call needs its items.
        if isinstance(options.get("tools"), Iterable):
            self._request_options["tools"] = tuple(options["tools"])
        if "metadata" in options:
            self.call_options["metadata"] = check_metadata(options["metadata"])
        self._check_request()

    def _check_request(self) -> None:
        """Refuse options that no prompt could be sent with, before the first prompt is read.

        Raises:
            ValueError, ConfigurationError: as for :func:`build_request`.
        """
        options = dict(self._request_options)
        if options.get("tools") is None and options.get("tool_choice") not in ("none", "auto", "required"):
            options.pop("tool_choice", None)  # it may name a tool of a prompt that is a CompletionRequest
        folder_id = self._settings.folder_id or "-"  # a prompt that is a CompletionRequest needs no folder
        build_request("-", folder_id=folder_id, default_model=self._settings.model, stream=False, **options)

    def new_buffer(self) -> ResultBuffer:
        """An empty buffer for the results."""
        return ResultBuffer(self._concurrency, ordered=self._ordered)

    def build_request(self, prompt: Prompt) -> CompletionRequest:
        """The request for a prompt.

        Raises:
            ValueError, TypeError, ConfigurationError: as for :func:`build_request`.
        """
        settings = self._settings
        return build_request(
            prompt, folder_id=settings.folder_id, default_model=settings.model, stream=False, **self._request_options
        )

    def check_result(self, result: Result) -> Result:
        """The result, unless its error must be raised instead of returned.

        Raises:
            APIError, ValueError, TypeError: the prompt's error, with ``on_error="raise"``.
            Exception: an error that a result cannot hold.
        """
        error = result.error
        if error is None or (self._return_errors and isinstance(error, _PROMPT_ERRORS)):
            return result
        raise error
