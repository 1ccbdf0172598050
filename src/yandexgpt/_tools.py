"""Functions that the model may call. How they are called: :mod:`yandexgpt._features.tool_loop`.

@yandexgpt.tool
def weather(city: str) -> str:
    "Current weather in a city."
    ...

client.run_tools("Какая погода в Москве?", tools=[weather]).text
"""

from __future__ import annotations

import functools
import inspect
import re
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from yandexgpt._struct_json import to_struct_value
from yandexgpt._structured_output import need_pydantic

__all__ = ["Tool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_EXACT = 2**53
"""Beyond it a double, which is how the service carries arguments, may not be the integer that the model wrote."""


class Tool(Generic[P, R_co]):
    """A function with its description for the model; calling it calls the function. Made by :func:`tool`.

    Attributes:
        function: the function itself.
        name, description: what the model knows it by.
        parameters: the JSON Schema of its arguments.
    """

    def __init__(
        self, function: Callable[P, R_co], name: str | None, description: str | None, parameters: Any | None
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name: str = getattr(function, "__name__", "") if name is None else name
        if not isinstance(self.name, str) or not (name or self.name.isidentifier()):  # a lambda is called "<lambda>"
            raise ValueError(f"a tool needs a name, and {function!r} has none: pass name=...")
        self.description: str = (inspect.getdoc(function) or "") if description is None else description
        self._arguments: Any = None  # a pydantic.TypeAdapter
        if parameters is None:
            self._arguments = _arguments_of(function, self.name)
            parameters = self._arguments.json_schema(schema_generator=_schema_generator())
            parameters = {key: value for key, value in parameters.items() if key != "title"}
        elif not isinstance(parameters, Mapping):
            raise ValueError(f"parameters must be a JSON Schema as a mapping, got {parameters!r}")
        self.parameters: Mapping[str, Any] = to_struct_value(parameters, f"the parameters of {self.name}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.function(*args, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The description as in the REST API's JSON: ``{"function": {"name", "description", "parameters"}}``."""
        return {"function": {"name": self.name, "description": self.description, "parameters": self.parameters}}

    def bind(self, arguments: Mapping[str, Any]) -> functools.partial[R_co]:
        """The function with the arguments of a call, validated if the schema is made of its types.

        A whole number beyond 2**53 becomes a float, unless the schema says that it is an integer: then it is refused,
        because the doubles that carry it may have changed it.

        Raises:
            ValueError: they do not fit; what is wrong is for the model to read.
        """
        arrived = _arrived(arguments, _alternatives([self.parameters], self.parameters), self.parameters, "")
        valid = arrived if self._arguments is None else self._arguments.validate_python(arrived)
        return functools.partial(cast("Callable[..., R_co]", self.function), **valid)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, parameters: Mapping[str, Any] | None = None
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Any:
    """Make a tool of a function, synchronous or not: ``@tool``, or ``@tool(name=..., ...)``.

    The schema is made of the types of the parameters by pydantic (the extra ``yandexgpt[pydantic]``), and the model's
    arguments are validated and converted to them; ``Annotated[int, pydantic.Field(description=..., ge=1)]`` says more
    about one. With ``parameters=`` pydantic is not needed, and arguments come as the model gave them. Whole numbers
    come as ``int``, beyond 2**53 as ``float``; what the schema calls an integer is refused there, and the model told to
    pass a string.

    Args:
        function: the function; every parameter must have a type, and be one that can be passed by name.
        name: what the model calls it by; by default the function's name.
        description: what it is for; by default the function's docstring.
        parameters: a JSON Schema of the arguments, instead of one made of the types.

    Raises:
        ValueError: no name or schema can be made of the function, or an integer in the schema does not fit a double,
            which is how the service carries numbers.
        ConfigurationError: the schema is to be made of the types, and pydantic is not installed.
    """
    if function is not None:
        return Tool(function, name, description, parameters)
    return lambda function: Tool(function, name, description, parameters)


def _arrived(value: Any, schemas: list[Mapping[str, Any]], root: Mapping[str, Any], where: str) -> Any:
    """The value as it may be used: beyond 2**53 a float, because on its way here it was one.

    Args:
        value: JSON, in which whole numbers are ``int``.
        schemas: what may stand at its place, without references.
        root: the whole schema.
        where: the name of its place.

    Raises:
        ValueError: it may have been changed, and the schema says that it is an integer.
    """
    if isinstance(value, Mapping):
        return {
            name: _arrived(item, _of_property(schemas, name, root), root, f"{where}.{name}" if where else name)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [
            _arrived(item, _of_item(schemas, index, root), root, f"{where}[{index}]")
            for index, item in enumerate(value)
        ]
    if not isinstance(value, int) or abs(value) <= _EXACT:
        return value
    kinds: set[object] = set()
    for schema in schemas:
        kind = schema.get("type")
        kinds.update(kind if isinstance(kind, Sequence) and not isinstance(kind, str) else [kind])
    if "integer" in kinds and "number" not in kinds:
        raise ValueError(f"{where}: a number beyond 2**53 does not arrive exactly; pass it as a string")
    return float(value)


def _of_property(schemas: list[Mapping[str, Any]], name: str, root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Any] = []
    for schema in schemas:
        properties, patterns = schema.get("properties"), schema.get("patternProperties")
        own = [properties[name]] if isinstance(properties, Mapping) and name in properties else []
        if isinstance(patterns, Mapping):
            own += [each for pattern, each in patterns.items() if _matches(pattern, name)]
        found += own or [schema.get("additionalProperties")]
    return _alternatives(found, root)


def _of_item(schemas: list[Mapping[str, Any]], index: int, root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Any] = []
    for schema in schemas:
        items, first = schema.get("items"), schema.get("prefixItems")
        if isinstance(items, list):  # as it was written before prefixItems
            items, first = schema.get("additionalItems"), items
        found.append(first[index] if isinstance(first, list) and index < len(first) else items)
    return _alternatives(found, root)


def _alternatives(schemas: list[Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas, and all those that they refer to or are put together of."""
    found: list[Mapping[str, Any]] = []
    seen: set[int] = set()
    while schemas:
        schema = schemas.pop()
        if not isinstance(schema, Mapping) or id(schema) in seen:  # True and False are schemas too
            continue
        seen.add(id(schema))
        found.append(schema)
        for name in ("anyOf", "oneOf", "allOf"):
            parts = schema.get(name)
            schemas += parts if isinstance(parts, list) else []
        if isinstance(reference := schema.get("$ref"), str):
            schemas.append(_referred(reference, root))
    return found


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    """What a JSON pointer within the schema points at; None for any other reference."""
    if not reference.startswith("#"):
        return None
    found: Any = root
    for part in reference[1:].split("/")[1:]:
        part = urllib.parse.unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found.get(part)
        elif isinstance(found, list) and part.isascii() and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:  # a regular expression of JavaScript's that Python has no word for
        return True


def _arguments_of(function: Callable[..., Any], name: str) -> Any:
    """A ``pydantic.TypeAdapter`` of the function's arguments, as a TypedDict of them.

    A model would not do: a parameter may be called ``json`` or ``copy``, which a model has methods of.
    """
    need_pydantic(f"the tool {name}, without parameters=...,")
    import pydantic
    from typing_extensions import NotRequired, TypedDict  # pydantic brings it, and wants its TypedDict before 3.12

    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError as error:
        raise ValueError(f"the tool {name}: a type cannot be looked up, {error}; pass parameters=...") from error
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        where = f"the tool {name}: the parameter {parameter.name}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"{where} cannot be passed by name")
        kind = parameter.annotation
        if kind is parameter.empty:
            raise ValueError(f"{where} has no type: annotate it, or pass parameters=...")
        fields[parameter.name] = kind if parameter.default is parameter.empty else NotRequired[kind]
    arguments = cast("Any", TypedDict)("arguments", fields)
    arguments.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
    try:
        adapter = pydantic.TypeAdapter(arguments)
        adapter.json_schema()
    except (pydantic.PydanticUserError, pydantic.PydanticUndefinedAnnotation) as error:
        raise ValueError(f"the tool {name}: pydantic cannot make a schema of its types: {error.message}") from error
    except RecursionError as error:
        raise ValueError(
            f"the tool {name}: pydantic cannot make a schema of its types: they are nested too deeply"
        ) from error
    return adapter


def _schema_generator() -> Any:
    from pydantic.json_schema import GenerateJsonSchema

    class WithoutTitles(GenerateJsonSchema):
        """A title that repeats the name of its field says nothing to the model, and costs tokens."""

        def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
            return False

    return WithoutTitles
