"""Structured answers: JSON Schemas from Python types, and values from the model's JSON. Pure: no I/O.

pydantic (the extra ``yandexgpt[pydantic]``) does both; it is imported on the first use of a type.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from yandexgpt.errors import ConfigurationError, ContentFilterError, InvalidAnswerError, TruncatedError

if TYPE_CHECKING:
    import pydantic

    from yandexgpt._models import Completion

__all__ = ["Parsed", "Structure", "describe_error", "is_type", "require_complete", "require_pydantic"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Parsed(Generic[T]):
    """An answer of the requested type. Frozen.

    Attributes:
        value: the answer as a validated value of the type.
        completion: the answer itself.
    """

    value: T
    completion: Completion


class Structure(Generic[T]):
    """The type of an answer, with its JSON Schema.

    Args:
        answer_type: a pydantic model, a dataclass, or another type that ``pydantic.TypeAdapter`` accepts; or a
            ``TypeAdapter``.

    Raises:
        ValueError: pydantic cannot make a JSON Schema of the type.
        ConfigurationError: pydantic is not installed.
    """

    def __init__(self, answer_type: type[T] | pydantic.TypeAdapter[T]) -> None:
        require_pydantic("a type as the structure of an answer")
        import pydantic

        self.name: str = getattr(answer_type, "__name__", None) or type(answer_type).__name__
        try:
            self.name = getattr(answer_type, "__name__", None) or repr(answer_type)
            self._adapter: pydantic.TypeAdapter[T] = (
                answer_type if isinstance(answer_type, pydantic.TypeAdapter) else pydantic.TypeAdapter(answer_type)
            )
            self.schema: dict[str, Any] = self._adapter.json_schema()
        except (pydantic.PydanticUserError, pydantic.PydanticUndefinedAnnotation) as error:
            raise ValueError(f"pydantic cannot make a JSON Schema of {self.name}: {error.message}") from error
        except RecursionError as error:
            raise ValueError(f"pydantic cannot make a JSON Schema of {self.name}: it is nested too deeply") from error

    def parse(self, completion: Completion) -> Parsed[T]:
        """Validate an answer.

        Raises:
            TruncatedError, ContentFilterError: the answer was truncated, or filtered.
            InvalidAnswerError: the answer asks for tool calls, is not JSON, or is not of this type; then the
                ``pydantic.ValidationError`` is its cause.
        """
        require_complete(completion)
        if completion.tool_calls:
            raise InvalidAnswerError(completion, "the model asks for tools instead")
        try:
            value = self._adapter.validate_json(completion.text)
        except ValueError as error:
            raise InvalidAnswerError(completion, f"not a valid {self.name}: {describe_error(error)}") from error
        return Parsed(value, completion)


def require_complete(completion: Completion) -> Completion:
    """The answer, if it is complete.

    Raises:
        TruncatedError, ContentFilterError: the answer was truncated, or filtered.
    """
    if completion.truncated:
        raise TruncatedError(completion)
    if completion.filtered:
        raise ContentFilterError(completion)
    return completion


def is_type(value: object) -> bool:
    """Whether ``pydantic.TypeAdapter`` may accept the value: a class, a generic with its arguments, a union."""
    return (
        isinstance(value, type)
        or typing.get_origin(value) is not None
        or type(value).__name__ in ("TypeAdapter", "TypeAliasType")
    )


def describe_error(error: ValueError) -> str:
    """The message of an error; of a ``pydantic.ValidationError`` on one line, without the invalid values."""
    pydantic = sys.modules.get("pydantic")  # if it is not imported, the error is not pydantic's
    if pydantic is None or not isinstance(error, pydantic.ValidationError):
        return str(error)
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"]))) for each in details)


def require_pydantic(what: str) -> None:
    """Check that pydantic is installed.

    Args:
        what: the feature that needs it, for the error.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import pydantic  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(f"{what} needs pydantic: pip install 'yandexgpt[pydantic]'") from error
