"""``complete_many``: which prompts may be read and which results handed out. What both clients share of it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import grpc

from yandexgpt._checks import check_metadata
from yandexgpt._config import UNSET, Settings
from yandexgpt._options import ManyOptions
from yandexgpt._request import Prompt, build_request, positive_int
from yandexgpt._rpc.methods import GENERATE
from yandexgpt.errors import CancelledError, ConfigurationError, YandexGPTError

if TYPE_CHECKING:
    from yandexgpt._async.client import AsyncClient
    from yandexgpt._models import Completion
    from yandexgpt._rpc.async_invoker import AsyncDriver
    from yandexgpt._rpc.invoker import Driver
    from yandexgpt._sync.client import Client

__all__ = ["AsyncPrompts", "OnError", "Plan", "Prompts", "Result", "Window"]

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


class Window:
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
        self.cut_off = False
        """Whether a result says that its call was cancelled."""

    @property
    def room(self) -> bool:
        """Whether another prompt may be read."""
        return self.under_way < self._concurrency and self._taken - self._handed_out < READ_AHEAD * self._concurrency

    @property
    def begun(self) -> bool:
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
        self.cut_off = self.cut_off or isinstance(result.error, CancelledError)
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


class Plan:
    """What is to be done: the arguments of ``complete_many``, checked.

    Raises:
        ValueError: an argument has an impossible value.
        TypeError: there is no such option, or the prompts are none.
        ConfigurationError: the client is closed.
    """

    def __init__(
        self,
        client: Client | AsyncClient,
        prompts: AsyncPrompts,
        concurrency: int,
        ordered: bool,
        on_error: OnError,
        options: Mapping[str, Any],
        iterables: tuple[type, ...],
    ) -> None:
        self.client = client
        self.driver: Driver | AsyncDriver = client._driver
        self.prompts = prompts
        self.may_block = not isinstance(prompts, list | tuple | AsyncIterable)
        """Whether reading a prompt may block who reads, until results were handed out for example."""
        self.ordered = ordered
        if isinstance(prompts, str | Mapping):
            raise ValueError(f"prompts must be an iterable of prompts, got one {type(prompts).__name__}")
        if not isinstance(prompts, iterables):
            raise TypeError(f"prompts must be an iterable of prompts, got {type(prompts).__name__}")
        limit = self.driver.settings.max_concurrency
        concurrency = positive_int("concurrency", concurrency)
        # Whoever waited in line would only use up its deadline there.
        self.concurrency = concurrency if limit is None else min(concurrency, limit)
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error must be 'raise' or 'return', got {on_error!r}")
        self._returns_errors = on_error == "return"
        self._options = dict(options)
        if unknown := sorted(options.keys() - ManyOptions.__annotations__.keys()):
            raise TypeError(f"complete_many() got an unexpected keyword argument {unknown[0]!r}")
        self._check_options()
        self._request_id = self._options.pop("request_id", None)

    def _check_options(self) -> None:
        """Refuse at once what no prompt could be sent with; what can be iterated over once only, keep."""
        options = self._options
        if isinstance(options.get("tools"), Iterable):
            options["tools"] = tuple(options["tools"])
        if "metadata" in options:
            options["metadata"] = check_metadata(options["metadata"])
        of_call = {name: options.get(name, UNSET) for name in ("timeout", "attempt_timeout")}
        call = self.driver.begin(
            GENERATE, "-", metadata=options.get("metadata", ()), request_id=options.get("request_id"), **of_call
        )
        call.must_fit(options.get("max_context_tokens"))
        of_model = {
            name: value
            for name, value in options.items()
            if name not in ("timeout", "attempt_timeout", "metadata", "request_id", "max_context_tokens")
        }
        if options.get("tools") is None and options.get("tool_choice") not in ("none", "auto", "required"):
            of_model.pop("tool_choice", None)  # it may be the name of a tool of a ready request
        settings: Settings = self.driver.settings
        folder_id = settings.folder_id or "-"  # ready requests need none
        build_request("-", folder_id=folder_id, default_model=settings.model, stream=False, **of_model)

    def window(self) -> Window:
        """Nothing read yet."""
        return Window(self.concurrency, ordered=self.ordered)

    async def answer(self, client: AsyncClient, index: int, prompt: Prompt) -> Result:
        """Make the call for a prompt."""
        request_id = None if self._request_id is None else f"{self._request_id}-{index}"
        try:
            completion = await client.complete(prompt, request_id=request_id, **self._options)
        except Exception as error:  # noqa: BLE001  (it is raised where its result would be handed out)
            refused = isinstance(error, ConfigurationError) and self._client_is_closed
            return Result(index, prompt, self.closed_meanwhile() if refused else error)
        return Result(index, prompt, None, completion)

    def given_up(self, index: int, prompt: Prompt, error: BaseException) -> Result:
        """What becomes of a prompt whose call was ended by something else than an error: an interceptor, or the end."""
        if isinstance(error, Exception):
            return Result(index, prompt, error)
        cancelled = self._cancelled("the call was cancelled")
        cancelled.__cause__ = error
        return Result(index, prompt, cancelled)

    def checked(self, result: Result) -> Result:
        """The result, if it is one that may be handed out.

        Raises:
            APIError, ValueError, TypeError: of the prompt, if errors are to be raised.
        """
        error = result.error
        if error is None or (self._returns_errors and isinstance(error, _OF_A_PROMPT)):
            return result
        raise error

    def check_open(self, window: Window) -> None:
        """Refuse to begin another call where none can be made.

        Raises:
            CancelledError: the client was closed after the first, and no result says so.
            ConfigurationError: it was closed before, or a result says so, or it cannot be used in this process.
        """
        if window.begun and not window.cut_off and self._client_is_closed:
            raise self.closed_meanwhile()
        self.driver.check_open()

    @property
    def _client_is_closed(self) -> bool:
        return self.driver.closed or self.driver.connection.closed

    def closed_meanwhile(self) -> CancelledError:
        """For a reader whose results were closed by somebody else."""
        return self._cancelled("the results were closed while they were read")

    def _cancelled(self, message: str) -> CancelledError:
        return CancelledError(message, code=grpc.StatusCode.CANCELLED, endpoint=self.driver.settings.endpoint.target)
