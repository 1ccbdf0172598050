"""Tools: functions that the model may call. :mod:`yandexgpt._features.tool_loop` calls them.

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
from yandexgpt._structured_output import require_pydantic

__all__ = ["Tool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_MAX_EXACT_INTEGER = 2**53
"""The service carries arguments as doubles. A double beyond this may not be the integer that the model wrote."""


class Tool(Generic[P, R_co]):
    """A function with its description for the model. Calling the tool calls the function. Made by :func:`tool`.

    Attributes:
        function: the function.
        name, description: the name and the description that are sent to the model.
        parameters: the JSON Schema of the arguments.
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
        self._adapter: Any = None  # a pydantic.TypeAdapter
        if parameters is None:
            self._adapter = _arguments_adapter(function, self.name)
            parameters = self._adapter.json_schema(schema_generator=_schema_generator())
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
        """The function with the arguments of a call, which are validated if the schema is made from its types.

        A whole number beyond 2**53 is converted to a float. It is refused if the schema requires an integer, because
        the double that carried it may be another number.

        Args:
            arguments: the arguments of the model, as JSON in which whole numbers are ``int``.

        Raises:
            ValueError: the arguments are invalid; the message is written for the model.
        """
        converted = _convert_numbers(
            arguments, _expand_schemas([self.parameters], self.parameters), self.parameters, ""
        )
        valid = converted if self._adapter is None else self._adapter.validate_python(converted)
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
    """Make a tool from a function, synchronous or asynchronous: ``@tool``, or ``@tool(name=..., ...)``.

    By default pydantic (the extra ``yandexgpt[pydantic]``) makes the schema from the types of the parameters, and the
    model's arguments are validated and converted to these types.
    ``Annotated[int, pydantic.Field(description=..., ge=1)]`` adds a description and constraints. With ``parameters=``
    pydantic is not needed, and arguments are passed as the model sent them.

    Whole numbers are passed as ``int``, beyond 2**53 as ``float``. If the schema requires an integer, a number beyond
    2**53 is refused, and the model gets an error that asks for a string.

    Args:
        function: the function; every parameter must have a type annotation and accept a keyword argument.
        name: the name for the model; by default the function's name.
        description: the purpose, for the model; by default the function's docstring.
        parameters: a JSON Schema of the arguments, instead of one made from the types.

    Returns:
        The tool; without ``function`` a decorator.

    Raises:
        ValueError: the function has no name, or no schema can be made from its types, or an integer in the schema does
            not fit a double, which is how the service carries numbers.
        ConfigurationError: the schema is made from the types, and pydantic is not installed.
    """
    if function is not None:
        return Tool(function, name, description, parameters)
    return lambda function: Tool(function, name, description, parameters)


def _convert_numbers(value: Any, schemas: list[Mapping[str, Any]], root: Mapping[str, Any], where: str) -> Any:
    """The value with integers beyond 2**53 as float: the service carried them as doubles.

    Args:
        value: JSON, in which whole numbers are ``int``.
        schemas: the schemas of the value, with references resolved.
        root: the whole schema.
        where: the path of the value, for the error.

    Raises:
        ValueError: the schema requires an integer, and the number is beyond 2**53.
    """
    if isinstance(value, Mapping):
        return {
            name: _convert_numbers(
                item, _property_schemas(schemas, name, root), root, f"{where}.{name}" if where else name
            )
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [
            _convert_numbers(item, _item_schemas(schemas, index, root), root, f"{where}[{index}]")
            for index, item in enumerate(value)
        ]
    if not isinstance(value, int) or abs(value) <= _MAX_EXACT_INTEGER:
        return value
    kinds: set[object] = set()
    for schema in schemas:
        kind = schema.get("type")
        kinds.update(kind if isinstance(kind, Sequence) and not isinstance(kind, str) else [kind])
    if "integer" in kinds and "number" not in kinds:
        raise ValueError(f"{where}: a number beyond 2**53 does not arrive exactly; pass it as a string")
    return float(value)


def _property_schemas(schemas: list[Mapping[str, Any]], name: str, root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Any] = []
    for schema in schemas:
        properties, patterns = schema.get("properties"), schema.get("patternProperties")
        own = [properties[name]] if isinstance(properties, Mapping) and name in properties else []
        if isinstance(patterns, Mapping):
            own += [each for pattern, each in patterns.items() if _pattern_matches(pattern, name)]
        found += own or [schema.get("additionalProperties")]
    return _expand_schemas(found, root)


def _item_schemas(schemas: list[Mapping[str, Any]], index: int, root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Any] = []
    for schema in schemas:
        items, first = schema.get("items"), schema.get("prefixItems")
        if isinstance(items, list):  # before JSON Schema 2020-12, which introduced prefixItems
            items, first = schema.get("additionalItems"), items
        found.append(first[index] if isinstance(first, list) and index < len(first) else items)
    return _expand_schemas(found, root)


def _expand_schemas(schemas: list[Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas, with all schemas that they refer to or are composed of."""
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
            schemas.append(_resolve_reference(reference, root))
    return found


def _resolve_reference(reference: str, root: Mapping[str, Any]) -> Any:
    """The target of a JSON pointer within the schema; None for any other reference."""
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


def _pattern_matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:  # JSON Schema has JavaScript's syntax, which Python does not fully support
        return True


def _arguments_adapter(function: Callable[..., Any], name: str) -> Any:
    """A ``pydantic.TypeAdapter`` for a TypedDict of the function's arguments.

    It is not a pydantic model: a parameter may be called ``json`` or ``copy``, which are methods of a model.

    Raises:
        ValueError: no schema can be made from the types.
        ConfigurationError: pydantic is not installed.
    """
    require_pydantic(f"the tool {name}, without parameters=...,")
    import pydantic
    from typing_extensions import NotRequired, TypedDict  # pydantic depends on it, and needs it before Python 3.12

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
        """Leaves out the titles of fields: a title repeats the name of its field, and costs tokens."""

        def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
            return False

    return WithoutTitles
