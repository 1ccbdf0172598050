"""``complete_many``: which prompts may be read and which results handed out. What both clients share of it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from yandexgpt._checks import check_metadata
from yandexgpt._options import CallOptions, ManyOptions
from yandexgpt._request import Prompt, build_request, positive_int
from yandexgpt.errors import CancelledError, YandexGPTError

if TYPE_CHECKING:
    from yandexgpt._config import Settings
    from yandexgpt._models import Completion
    from yandexgpt._request import CompletionRequest

__all__ = ["AsyncPrompts", "BatchOptions", "OnError", "Prompts", "ReorderBuffer", "Result"]

OnError = Literal["raise", "return"]
Prompts = Iterable[Prompt]
AsyncPrompts = Iterable[Prompt] | AsyncIterable[Prompt]

READ_AHEAD = 2
"""How many times ``concurrency`` prompts may be read and not handed out: those under way, and as many answers that wait
for one which takes longer, or for a reader who does."""

_OF_A_PROMPT = (YandexGPTError, ValueError, TypeError)
"""What a result can carry: a failed call, or a prompt that none can be made of."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What became of one prompt.

    Attributes:
        index: the prompt's place among the prompts, from 0.
        prompt: the prompt itself, as it was given.
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
            APIError, ValueError, TypeError: :attr:`error`, if there is none.
        """
        if self.error is not None:
            raise self.error
        return cast("Completion", self._completion)


class ReorderBuffer:
    """Which results may be handed out, and whether another prompt may be read. Pure.

    Args:
        concurrency: how many prompts may be under way at once.
        ordered: whether results leave in the order of their prompts, or as they come.
    """

    def __init__(self, concurrency: int, *, ordered: bool) -> None:
        self._concurrency = concurrency
        self._ordered = ordered
        self._ready: dict[int, Result] = {}
        self._taken = 0
        self._handed_out = 0
        self.under_way = 0
        self.has_cancelled_result = False
        """Whether a result says that its call was cancelled."""

    @property
    def has_capacity(self) -> bool:
        """Whether another prompt may be read."""
        return self.under_way < self._concurrency and self._taken - self._handed_out < READ_AHEAD * self._concurrency

    @property
    def has_started(self) -> bool:
        """Whether a prompt was read."""
        return self._taken > 0

    @property
    def empty(self) -> bool:
        """Whether everything that was read has been handed out."""
        return self._taken == self._handed_out

    def take(self) -> int:
        """A prompt was read. Returns its index."""
        index = self._taken
        self._taken += 1
        self.under_way += 1
        return index

    def finished(self, result: Result) -> None:
        """A prompt has its result."""
        self.under_way -= 1
        self.has_cancelled_result = self.has_cancelled_result or isinstance(result.error, CancelledError)
        self._ready[result.index] = result

    @property
    def ready(self) -> bool:
        """Whether there is a result to hand out."""
        return (self._handed_out in self._ready) if self._ordered else bool(self._ready)

    def pop(self) -> Result | None:
        """The next result to hand out, if it is there."""
        index = self._handed_out if self._ordered else next(iter(self._ready), -1)
        result = self._ready.pop(index, None)
        if result is not None:
            self._handed_out += 1
        return result


class BatchOptions:
    """The arguments of ``complete_many``, checked.

    Args:
        settings: the client's.
        prompts, concurrency, ordered, on_error, options: of ``complete_many()``.
        iterables: the types that the prompts may have.

    Raises:
        ValueError: an argument has an impossible value.
        TypeError: there is no such option, or the prompts are none.
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
        """Whether reading a prompt may block the reader, for example until results were handed out."""
        self._ordered = ordered
        if isinstance(prompts, str | Mapping):
            raise ValueError(f"prompts must be an iterable of prompts, got one {type(prompts).__name__}")
        if not isinstance(prompts, iterables):
            raise TypeError(f"prompts must be an iterable of prompts, got {type(prompts).__name__}")
        concurrency = positive_int("concurrency", concurrency)
        # A call that waits for max_concurrency would only use up its deadline.
        self._concurrency = min(concurrency, settings.max_concurrency or concurrency)
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error must be 'raise' or 'return', got {on_error!r}")
        self._returns_errors = on_error == "return"
        if unknown := sorted(options.keys() - ManyOptions.__annotations__.keys()):
            raise TypeError(f"complete_many() got an unexpected keyword argument {unknown[0]!r}")
        self.of_call = {name: value for name, value in options.items() if name in CallOptions.__annotations__}
        """The options of every call; those that its request is made of are kept apart."""
        self._of_request = {name: value for name, value in options.items() if name not in self.of_call}
        # What can be iterated over only once is kept.
        if isinstance(options.get("tools"), Iterable):
            self._of_request["tools"] = tuple(options["tools"])
        if "metadata" in options:
            self.of_call["metadata"] = check_metadata(options["metadata"])
        self._check_request()

    def _check_request(self) -> None:
        """Refuse at once what no prompt could be sent with."""
        options = dict(self._of_request)
        if options.get("tools") is None and options.get("tool_choice") not in ("none", "auto", "required"):
            options.pop("tool_choice", None)  # it may be the name of a tool of a ready request
        folder_id = self._settings.folder_id or "-"  # ready requests need none
        build_request("-", folder_id=folder_id, default_model=self._settings.model, stream=False, **options)

    def buffer(self) -> ReorderBuffer:
        """An empty buffer for the results."""
        return ReorderBuffer(self._concurrency, ordered=self._ordered)

    def request(self, prompt: Prompt) -> CompletionRequest:
        """The request for a prompt.

        Raises:
            ValueError, TypeError, ConfigurationError: none can be made of it.
        """
        settings = self._settings
        return build_request(
            prompt, folder_id=settings.folder_id, default_model=settings.model, stream=False, **self._of_request
        )

    def handed_out(self, result: Result) -> Result:
        """The result, if it is one that may be handed out.

        Raises:
            APIError, ValueError, TypeError: of the prompt, if errors are to be raised.
        """
        error = result.error
        if error is None or (self._returns_errors and isinstance(error, _OF_A_PROMPT)):
            return result
        raise error
