"""docs/coverage.md: every name in it exists, and it lists every method of the stubs."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_parity import generated

import yandexgpt

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "coverage.md"
METHODS = "Methods of the stubs"
RETIRED = {
    "tip: the AI Assistant API, which keeps the history",
    "`yandex.cloud.ai.foundation_models.v1.TextGenerationBatchService/Completion`",
}
"""Features that upstream retired or never implemented. Only their rows have no call, no example and no test."""


class Row(NamedTuple):
    section: str
    subject: str
    call: str
    example: str
    tests: str

    @property
    def examples(self) -> list[str]:
        return re.findall(r"\]\(\.\./examples/([^)]*)\)", self.example)


def rows() -> Iterator[Row]:
    section = ""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            section = line.strip("# ")
        elif line.startswith("|") and not line.startswith("|---"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if cells[1:] != ["call here", "example", "tests"]:
                yield Row(section, *cells)


ROWS = list(rows())
LIVE = [row for row in ROWS if row.subject not in RETIRED]
METHOD_ROWS = {row.subject.strip("`"): row for row in ROWS if row.section == METHODS}
live_rows = pytest.mark.parametrize("row", LIVE, ids=[f"{row.section[-25:]}: {row.subject[-40:]}" for row in LIVE])


def test_only_retired_features_have_no_call_example_or_test() -> None:
    assert {row.subject for row in ROWS if "—" in (row.call[:1], row.example, row.tests)} == RETIRED
    for row in ROWS:
        if row.subject in RETIRED:
            assert (row.call[:2], row.example, row.tests) == ("— ", "—", "—")
            assert len(row.call) > 20, "the reason is missing"


def test_document_covers_all_five_guides() -> None:
    guides = {row.section for row in ROWS} - {METHODS}
    assert len(guides) == 5
    assert all(guide.startswith("Yandex Cloud's guide to ") for guide in guides)


def test_every_method_of_the_stubs_has_a_row() -> None:
    listed = [row.subject for row in ROWS if row.section == METHODS]
    assert sorted(listed) == sorted(f"`{name}`" for name in generated())


@live_rows
def test_examples_of_a_row_exist(row: Row) -> None:
    assert row.examples
    for name in row.examples:
        assert (ROOT / "examples" / name).is_file()
        assert f"[{name}](../examples/{name})" in row.example


@live_rows
def test_row_links_to_test_files(row: Row) -> None:
    assert re.fullmatch(r"(\[test_\w+\.py\]\([^)]*\)(, )?)+", row.tests)


def test_links_point_to_existing_files() -> None:
    links = re.findall(r"\[([^\]]*)\]\(([^)]*)\)", DOCUMENT.read_text(encoding="utf-8"))
    assert links
    for name, path in links:
        assert (DOCUMENT.parent / path).is_file(), path
        assert path.endswith(f"/{name}")


@pytest.fixture(scope="module")
def roots() -> Iterator[dict[str, Any]]:
    """The objects for the first names of the calls."""
    with yandexgpt.Client(folder_id="f", credentials="key", endpoint="127.0.0.1:1", tls=False) as client:
        yield {
            "yandexgpt": yandexgpt,
            "client": client,
            "chat": yandexgpt.Chat,
            "chunk": yandexgpt.Chunk,
            "completion": yandexgpt.Completion,
            "operation": yandexgpt.Operation,
            "response": yandexgpt.Response,
            "stream": yandexgpt.Stream,
        }


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.section[-25:]}: {row.subject[-40:]}" for row in ROWS])
def test_calls_of_a_row_exist_and_accept_the_arguments(row: Row, roots: dict[str, Any]) -> None:
    calls = re.findall(r"`([^`]+)`", row.call)
    assert calls
    for call in calls:
        resolve(ast.parse(call, mode="eval").body, roots)


def test_resolve_rejects_unknown_calls_and_arguments(roots: dict[str, Any]) -> None:
    for wrong in ("client.generate()", "client.raw.iam_tokens.Forget", "response.output[0", "yandexgpt.nothing"):
        with pytest.raises((AttributeError, SyntaxError)):
            resolve(ast.parse(wrong, mode="eval").body, roots)
    for wrong in ("client.complete('...', top_p=1)", "client.complete()", "client.chat(1)"):
        with pytest.raises(TypeError):
            resolve(ast.parse(wrong, mode="eval").body, roots)


class Anything:
    """An object with any attribute, in place of the result of a call."""

    def __getattr__(self, name: str) -> Anything:
        return self


def resolve(node: ast.expr, roots: dict[str, Any]) -> Any:
    """The object that the expression names. Arguments are checked against the signature; nothing is called."""
    if isinstance(node, ast.Name):
        return roots[node.id]
    if isinstance(node, ast.Attribute):
        return getattr(resolve(node.value, roots), node.attr)
    if isinstance(node, ast.Subscript):
        resolve(node.value, roots)
        return Anything()
    assert isinstance(node, ast.Call), ast.dump(node)
    assert isinstance(node.func, ast.Attribute), ast.dump(node)
    owner = resolve(node.func.value, roots)
    function = getattr(owner, node.func.attr)
    if type(function).__module__.startswith("grpc"):  # the method of a stub has gRPC's signature
        return Anything()
    itself = [None] if inspect.isclass(owner) and inspect.isfunction(function) else []
    arguments = {keyword.arg or "": None for keyword in node.keywords}
    inspect.signature(function).bind(*itself, *node.args, **arguments)
    return Anything()


def test_client_raw_has_a_stub_for_every_method_of_the_called_services(roots: dict[str, Any]) -> None:
    raw = roots["client"].raw
    stubs = [getattr(raw, name) for name in dir(raw) if not name.startswith("_")]
    methods = {f"{type(stub).__name__.removesuffix('Stub')}/{method}" for stub in stubs for method in vars(stub)}
    wanted = {name.rpartition(".")[-1] for name in generated() if "ApiEndpointService" not in name}
    assert methods == wanted
