"""Makes an example value for a JSON Schema. The rule is simple, so that tests can predict the value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["example"]

_DEEPEST = 32
"""Maximum nesting. A deeper value is replaced by null, because the schema may have no finite value."""
_LARGEST = 100_000
"""Maximum size of a value in characters and steps. The rest of a larger value is null."""

_FORMATS = {
    "date-time": "2024-01-18T12:00:00Z",
    "date": "2024-01-18",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

_FOLLOWED = {"allOf", "$ref", "properties", "required"}


def example(schema: Any, name: str = "value") -> Any:
    """An example value for a schema.

    The first of these that exists: ``const``, ``default``, the first of ``enum``, the first of ``anyOf`` or ``oneOf``.
    ``allOf`` and local ``$ref`` are resolved. An object has its required properties. An array has its minimum number of
    items. A string is the name of its property, or a fixed sample of its ``format``, cut or padded with ``"x"`` to its
    length limits. A number is 0, or the nearest bound if 0 is out of range. A boolean is true. ``pattern`` and other
    keywords are ignored, and so are keywords with a value of the wrong type.

    Args:
        schema: a JSON Schema as plain dicts and lists. Any other value is accepted as far as possible.
        name: the text of a string that is the whole value.
    """
    return _ExampleBuilder(schema).value(schema, name, 0)


class _ExampleBuilder:
    """Builds the value for one schema.

    Args:
        root: the schema that a ``$ref`` refers to.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._budget = _LARGEST

    def value(self, schema: Any, name: str, depth: int) -> Any:
        self._budget -= 1
        if schema is True:
            return self._limited(name)
        if not isinstance(schema, Mapping) or depth > _DEEPEST or self._budget <= 0:
            return None
        resolved = self._merge(schema, depth)
        for keyword in ("const", "default"):
            if keyword in resolved:
                return self._literal(resolved[keyword])
        for first in _list(resolved.get("enum"))[:1]:
            return self._literal(first)
        for keyword in ("anyOf", "oneOf"):
            for first in _list(resolved.get(keyword))[:1]:
                return self.value(first, name, depth + 1)
        return self._of_type(resolved, name, depth)

    def _merge(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        """The schema with its ``$ref`` and ``allOf`` resolved."""
        parts = [part for part in _list(schema.get("allOf")) if isinstance(part, Mapping)]
        if "$ref" in schema:
            parts.append(self._resolve_ref(schema["$ref"]))
        if not parts or depth > _DEEPEST:
            return schema
        merged: dict[str, Any] = {}
        for part in (*(self._merge(part, depth + 1) for part in parts), schema):
            properties, required = _mapping(part.get("properties")), _list(part.get("required"))
            self._budget -= len(part) + len(properties) + len(required)
            if self._budget <= 0:
                break
            merged.update({keyword: value for keyword, value in part.items() if keyword not in _FOLLOWED})
            if "properties" in part:
                merged["properties"] = {**merged.get("properties", {}), **properties}
            if "required" in part:
                merged["required"] = [*merged.get("required", ()), *required]
        return merged

    def _resolve_ref(self, reference: Any) -> Mapping[str, Any]:
        target = self._root
        for step in str(reference).removeprefix("#").split("/")[1:]:
            target = _mapping(target).get(step.replace("~1", "/").replace("~0", "~"))
        return _mapping(target)

    def _of_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = kind[0] if kind else "string"
        if kind == "object":
            properties = _mapping(schema.get("properties"))
            required = dict.fromkeys(str(key) for key in _list(schema.get("required")))
            return {
                self._limited(key): self.value(properties.get(key, True), key, depth + 1)
                for key in required
                if self._budget > 0
            }
        if kind == "array":
            items = schema.get("items", True)
            count = _count(schema, "minItems", 0)
            return [self.value(items, name, depth + 1) for _ in range(count) if self._budget > 0]
        if kind in ("integer", "number"):
            return _number(schema, whole=kind == "integer")
        if kind == "boolean":
            return True
        return None if kind == "null" else self._limited(_string(schema, name))

    def _literal(self, value: Any) -> Any:
        self._budget -= len(json.dumps(value))
        return value if self._budget > 0 else None

    def _limited(self, text: str) -> str:
        self._budget -= len(text)
        return text[: max(0, self._budget)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _bound(schema: Mapping[str, Any], keyword: str, otherwise: float) -> float:
    value = schema.get(keyword)
    return value if isinstance(value, (int, float)) and not math.isnan(value) else otherwise


def _count(schema: Mapping[str, Any], keyword: str, otherwise: int) -> int:
    return int(min(max(0, _bound(schema, keyword, otherwise)), _LARGEST))


def _string(schema: Mapping[str, Any], name: str) -> str:
    text = _FORMATS.get(str(schema.get("format")), name)
    filled = text.ljust(_count(schema, "minLength", 0), "x")
    return filled[: _count(schema, "maxLength", len(filled))]


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    low, above = _bound(schema, "minimum", -math.inf), _bound(schema, "exclusiveMinimum", -math.inf)
    high, below = _bound(schema, "maximum", math.inf), _bound(schema, "exclusiveMaximum", math.inf)
    step = _bound(schema, "multipleOf", 1 if whole else 0)
    least, most = max(low, above), min(high, below)
    for candidate in (0, least, most, least + 1, most - 1, (least + most) / 2):
        if not math.isfinite(candidate):
            continue
        for value in _multiples(candidate, step):
            if low <= value <= high and above < value < below:
                return int(value) if float(value).is_integer() else value
    return 0


def _multiples(candidate: float, step: float) -> tuple[float, ...]:
    """The nearest multiples of the step, or the number itself if there is no step or the step is too small."""
    if not step or not math.isfinite(candidate / step):
        return (candidate,)
    return math.ceil(candidate / step) * step, candidate // step * step
