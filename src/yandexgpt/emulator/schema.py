"""A small JSON value that satisfies a JSON Schema, made by a rule that a reader can predict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["example"]

_DEEPEST = 32
"""Nesting beyond which a schema is taken for one without a finite value; null stands there."""

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


def example(schema: Any, name: str = "value") -> Any:
    """The value.

    ``const``, ``default``, the first of ``enum``, the first of ``anyOf`` or ``oneOf``, in this order; ``allOf`` and a
    local ``$ref`` are followed. An object has its required properties, an array as many items as it must. A string is
    the property's own name, or a fixed sample of its ``format``, cut or filled with ``"x"`` to its length; a number is
    0, or where its range excludes that, the bound nearest to it; a boolean is true. ``pattern`` and other keywords are
    not looked at.

    Args:
        schema: a JSON Schema as plain dicts and lists.
        name: what a string in the place of the whole value says.
    """
    return _value(schema, name, schema, 0)


def _value(schema: Any, name: str, root: Any, depth: int) -> Any:
    if schema is True:
        return name
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    resolved = _merged(schema, root, depth)
    for keyword in ("const", "default"):
        if keyword in resolved:
            return resolved[keyword]
    if resolved.get("enum"):
        return resolved["enum"][0]
    for keyword in ("anyOf", "oneOf"):
        if resolved.get(keyword):
            return _value(resolved[keyword][0], name, root, depth + 1)
    return _of_type(resolved, name, root, depth)


def _merged(schema: Mapping[str, Any], root: Any, depth: int) -> Mapping[str, Any]:
    """The schema with what its ``$ref`` and ``allOf`` say."""
    parts = [part for part in schema.get("allOf", ()) if isinstance(part, Mapping)]
    if "$ref" in schema:
        parts.append(_referred(schema["$ref"], root))
    if not parts or depth > _DEEPEST:
        return schema
    merged: dict[str, Any] = {}
    for part in (*(_merged(part, root, depth + 1) for part in parts), schema):
        for keyword, value in part.items():
            if keyword == "properties":
                merged[keyword] = {**merged.get(keyword, {}), **value}
            elif keyword == "required":
                merged[keyword] = [*merged.get(keyword, ()), *value]
            elif keyword not in ("allOf", "$ref"):
                merged[keyword] = value
    return merged


def _referred(reference: Any, root: Any) -> Mapping[str, Any]:
    target = root
    for step in str(reference).removeprefix("#").split("/")[1:]:
        target = target.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, Mapping) else {}
    return target if isinstance(target, Mapping) else {}


def _of_type(schema: Mapping[str, Any], name: str, root: Any, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0] if kind else "string"
    if kind == "object":
        properties = schema.get("properties", {})
        required = dict.fromkeys(schema.get("required", ()))
        return {key: _value(properties.get(key, True), key, root, depth + 1) for key in required}
    if kind == "array":
        return [_value(schema.get("items", True), name, root, depth + 1) for _ in range(int(schema.get("minItems", 0)))]
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind == "boolean":
        return True
    return None if kind == "null" else _string(schema, name)


def _string(schema: Mapping[str, Any], name: str) -> str:
    text = _FORMATS.get(schema.get("format", ""), name)
    filled = text.ljust(int(schema.get("minLength", 0)), "x")
    return filled[: int(schema.get("maxLength", len(filled)))]


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    low, above = schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf)
    high, below = schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf)
    step = schema.get("multipleOf", 1 if whole else 0)
    least, most = max(low, above), min(high, below)
    for candidate in (0, least, most, least + 1, most - 1, (least + most) / 2):
        if not math.isfinite(candidate):
            continue
        for value in (math.ceil(candidate / step) * step, candidate // step * step) if step else (candidate,):
            if low <= value <= high and above < value < below:
                return int(value) if float(value).is_integer() else value
    return 0
