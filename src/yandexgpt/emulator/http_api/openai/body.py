"""Reads the fields of a JSON request body. Fields that are unknown or have the wrong type are rejected by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from yandexgpt.emulator.http_api.openai.errors import bad_request

__all__ = ["Body", "abbreviated", "parse_body"]

_T = TypeVar("_T")
_SHOWN = 80
"""Maximum length of a wrong value in an error message."""
_LARGEST_INT64 = 2**63 - 1


def parse_body(raw: bytes) -> Body:
    """Parse a request body, which must be a JSON object.

    Raises:
        ApiError: it is not a JSON object.
    """
    try:
        value = json.loads(raw, parse_constant=_not_json)
        if b"\\ud" in raw.lower():
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate cannot be encoded
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise bad_request(f"the body must be a JSON object, not {abbreviated(value)}", code="invalid_json")
    return Body(value)


def abbreviated(value: object) -> str:
    """A wrong value as JSON for an error message. A long value is cut."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _not_json(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


class Body:
    """The fields of a request. A null field counts as absent.

    Args:
        fields: the values by name.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = {name: value for name, value in fields.items() if value is not None}

    def get(self, name: str) -> Any:
        """A field of any type; None if it is absent."""
        return self._fields.get(name)

    def string(self, name: str) -> str | None:
        """A string."""
        return self._of_type(name, str, "a string")

    def boolean(self, name: str) -> bool | None:
        """A boolean."""
        return self._of_type(name, bool, "true or false")

    def array(self, name: str) -> list[Any] | None:
        """An array."""
        return self._of_type(name, list, "an array")

    def mapping(self, name: str) -> dict[str, Any] | None:
        """An object."""
        return self._of_type(name, dict, "an object")

    def objects(self, name: str) -> list[dict[str, Any]] | None:
        """An array of objects."""
        values = self.array(name)
        for index, value in enumerate(values or ()):
            if not isinstance(value, dict):
                raise _wrong(f"{name}[{index}]", "an object", value)
        return values

    def number(self, name: str) -> float | None:
        """A finite number."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not _fits_double(value):
            raise _wrong(name, "a number", value)
        return float(value)

    def integer(self, name: str) -> int | None:
        """A 64-bit integer."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST_INT64:
            raise _wrong(name, "a whole number", value)
        return value

    def allow_only(self, known: frozenset[str], neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """Reject fields that would be ignored.

        Args:
            known: fields that are supported, or do not affect the answer.
            neutral: fields that gRPC does not support, with the values that are accepted because they have no effect.
        """
        for name, value in self._fields.items():
            if name in known:
                continue
            if name not in neutral:
                raise bad_request(f"unknown parameter: {abbreviated(name)}", name, "unknown_parameter")
            if not any(type(value) is type(each) and value == each for each in neutral[name]):
                allowed = "".join(f", or give {abbreviated(each)}" for each in neutral[name])
                raise bad_request(
                    f"{name}={abbreviated(value)} cannot be honoured over gRPC: leave it out{allowed}",
                    name,
                    "unsupported_parameter",
                )

    def _of_type(self, name: str, kind: type[_T], wanted: str) -> _T | None:
        value = self.get(name)
        if value is not None and not isinstance(value, kind):
            raise _wrong(name, wanted, value)
        return value


def _fits_double(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _wrong(name: str, wanted: str, value: object) -> Exception:
    return bad_request(f"{name} must be {wanted}, not {abbreviated(value)}", name, "invalid_type")
