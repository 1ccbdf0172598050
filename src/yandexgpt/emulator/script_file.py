"""Script files: rules and settings of an emulator in YAML or in Python."""

from __future__ import annotations

import re
import runpy
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from yandexgpt.emulator.arguments import check_seconds
from yandexgpt.emulator.quota import check_limit
from yandexgpt.emulator.rules import RULE_KEYS, make_rule
from yandexgpt.emulator.script import Rule

if TYPE_CHECKING:
    import yaml

__all__ = ["ScriptFile", "read", "run"]

_T = TypeVar("_T")
_FUNCTION = "script"
_SECONDS = ("delay", "operation_time")
_KEYS = ("rules", "quotas", *_SECONDS)
_QUOTA_KEYS = ("max_concurrent", "rate")


@dataclass(frozen=True)
class ScriptFile:
    """The content of a YAML file.

    Attributes:
        rules: in the order of the file.
        settings: ``delay`` and ``operation_time``, if given.
        quotas: ``max_concurrent`` and ``rate``, if given.
    """

    rules: list[Rule]
    settings: dict[str, float]
    quotas: dict[str, float | None]


class _LineError(ValueError):
    """An error at a known line of the file (counted from 1)."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def read(path: Path, *, delay: float) -> ScriptFile:
    """Read a YAML (or JSON) script.

    Args:
        path: the file.
        delay: the default for the seconds before each message.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is invalid; the message is one line, ``<file>:<line>: <what is wrong>``.
        ImportError: the extra ``yandexgpt[emulator]`` is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise ImportError("a script file needs PyYAML: pip install 'yandexgpt[emulator]'") from error
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error
    try:
        return _script(_compose(text), delay)
    except _LineError as error:
        raise ValueError(f"{path}:{error.line}: {error}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"{path}:{line}: {error.reason}: {chr(error.character)!r}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ValueError(f"{path}:{line}: {', '.join(filter(None, (error.context, error.problem)))}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply") from error


def run(path: Path, emulator: object) -> None:
    """Call the function ``script(emulator)`` of a Python file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has no such function, or the file or the function raised an error; the message is one line,
            ``<file>:<line>: <what is wrong>``.
    """
    path.read_bytes()  # a missing file is an OSError, not an error of the script
    try:
        function = runpy.run_path(str(path)).get(_FUNCTION)
        if callable(function):
            function(emulator)
            return
    except Exception as error:
        words = " ".join(str(error).split())
        raise ValueError(f"{path}{_line_of_exception(error, path)}: {type(error).__name__}: {words}") from error
    raise ValueError(f"{path}: there is no function {_FUNCTION}(emulator)")


def _line_of_exception(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f":{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""


def _compose(text: str) -> yaml.Node | None:
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _script(node: yaml.Node | None, delay: float) -> ScriptFile:
    import yaml

    if node is None:
        raise _LineError(1, f"the script is empty; it is a mapping of {', '.join(_KEYS)}")
    values = _mapping(node, "the script", _KEYS)
    settings = {name: _checked(values[name], name, check_seconds) for name in _SECONDS if name in values}
    quotas = {}
    for name, value in _mapping(values["quotas"], "quotas", _QUOTA_KEYS).items() if "quotas" in values else ():
        quotas[name] = _checked(value, name, check_limit)
    rules = values.get("rules")
    if rules is not None and not isinstance(rules, yaml.SequenceNode):
        raise _LineError(_line(rules), f"rules must be a list of mappings of {', '.join(RULE_KEYS)}")
    made = [_rule(each, settings.get("delay", delay)) for each in (rules.value if rules is not None else ())]
    return ScriptFile(made, settings, quotas)


def _rule(node: yaml.Node, delay: float) -> Rule:
    values = _mapping(node, "a rule", RULE_KEYS)
    given: dict[str, Any] = {**dict.fromkeys(RULE_KEYS), **{name: _value(value) for name, value in values.items()}}
    try:
        return make_rule(**given, delay=delay)
    except ValueError as error:
        raise _LineError(_line_of_value(str(error), node, values), str(error)) from error


def _line_of_value(message: str, rule: yaml.Node, values: dict[str, yaml.Node]) -> int:
    """The line of the value that the error message names."""
    import yaml

    first, *others = re.findall(r"\w+", message)
    part = values.get(first, rule)
    if isinstance(part, yaml.MappingNode):
        lines = {key.value: _line(key) for key, _ in part.value if isinstance(key.value, str)}
        return next((lines[word] for word in others if word in lines), _line(part))
    return _line(part)


def _mapping(node: yaml.Node, what: str, allowed: tuple[str, ...]) -> dict[str, yaml.Node]:
    """The values of a mapping with these allowed keys. A key must not occur twice."""
    import yaml

    names = ", ".join(allowed)
    if not isinstance(node, yaml.MappingNode):
        raise _LineError(_line(node), f"{what} must be a mapping of {names}")
    values: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.value not in allowed:
            name = key.value if isinstance(key, yaml.ScalarNode) else key.id
            raise _LineError(_line(key), f"unknown key {name!r} in {what}; allowed: {names}")
        if key.value in values:
            raise _LineError(_line(key), f"the key {key.value!r} stands twice in {what}")
        values[key.value] = value
    return values


def _checked(node: yaml.Node, name: str, check: Callable[[str, Any], _T]) -> _T:
    try:
        return check(name, _value(node))
    except ValueError as error:
        raise _LineError(_line(node), str(error)) from error


def _value(node: yaml.Node) -> Any:
    """The plain Python value of a node."""
    import yaml

    try:
        return yaml.constructor.SafeConstructor().construct_document(node)
    except (ValueError, KeyError, AttributeError) as error:  # raised by PyYAML for a value that does not match its tag
        raise _LineError(_line(node), f"a value that its tag does not fit: {error}") from error


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1
