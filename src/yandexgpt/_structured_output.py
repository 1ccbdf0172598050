"""Answers with a structure: Python types to JSON Schemas, and the model's JSON back to values. Pure: nothing waits.

pydantic (the extra ``yandexgpt[pydantic]``) does both; it is imported when the first type is seen.
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

__all__ = ["Parsed", "Structure", "is_type", "need_pydantic", "reasons", "whole"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Parsed(Generic[T]):
    """An answer with the structure that was asked for.

    Attributes:
        value: the answer as a value of that type, validated.
        completion: the answer as it came.
    """

    value: T
    completion: Completion


class Structure(Generic[T]):
    """A type that answers are to have.

    Args:
        answer_type: a pydantic model, a dataclass, or anything else that a ``pydantic.TypeAdapter`` is made of; or a
            ``TypeAdapter``.

    Raises:
        ValueError: pydantic cannot make a JSON Schema of it.
        ConfigurationError: pydantic is not installed.
    """

    def __init__(self, answer_type: type[T] | pydantic.TypeAdapter[T]) -> None:
        need_pydantic("a type as the structure of an answer")
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
        """The answer as a value.

        Raises:
            TruncatedError, ContentFilterError: it was cut, or filtered.
            InvalidAnswerError: it is not JSON, or not of this type; the ``pydantic.ValidationError`` is its cause.
        """
        whole(completion)
        if completion.tool_calls:
            raise InvalidAnswerError(completion, "the model asks for tools instead")
        try:
            value = self._adapter.validate_json(completion.text)
        except ValueError as error:
            raise InvalidAnswerError(completion, f"not a valid {self.name}: {reasons(error)}") from error
        return Parsed(value, completion)


def whole(completion: Completion) -> Completion:
    """The answer, if all of it is there.

    Raises:
        TruncatedError, ContentFilterError: it was cut, or filtered.
    """
    if completion.truncated:
        raise TruncatedError(completion)
    if completion.filtered:
        raise ContentFilterError(completion)
    return completion


def is_type(value: object) -> bool:
    """Whether a ``pydantic.TypeAdapter`` may be made of it: a class, a generic with its arguments, a union."""
    return (
        isinstance(value, type)
        or typing.get_origin(value) is not None
        or type(value).__name__ in ("TypeAdapter", "TypeAliasType")
    )


def reasons(error: ValueError) -> str:
    """What a ``pydantic.ValidationError`` says, on one line, without the values that it found."""
    pydantic = sys.modules.get("pydantic")  # if it was not imported, it did not raise this
    if pydantic is None or not isinstance(error, pydantic.ValidationError):
        return str(error)
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"]))) for each in found)


def need_pydantic(what: str) -> None:
    """Refuse to go on without pydantic.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import pydantic  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(f"{what} needs pydantic: pip install 'yandexgpt[pydantic]'") from error
