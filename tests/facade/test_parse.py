"""Structured answers: requested by a type, and validated."""

from __future__ import annotations

import dataclasses
import datetime
import pickle
import sys
from typing import Annotated, Any, TypedDict

import pydantic
import pytest
import typing_extensions

import yandexgpt
from yandexgpt._struct_json import to_python
from yandexgpt.emulator import Emulator


class Person(pydantic.BaseModel):
    name: str
    age: Annotated[int, pydantic.Field(ge=0)]
    born: datetime.date | None = None


@dataclasses.dataclass
class City:
    name: str
    people: int = 0


class Point(typing_extensions.TypedDict):
    x: float


class Old(TypedDict):  # pydantic requires typing_extensions.TypedDict before Python 3.12
    x: float


BEYOND = 2**53 + 1


@pytest.mark.parametrize(
    ("answer_type", "answer", "value"),
    [
        (Person, '{"name": "Анна", "age": 30}', Person(name="Анна", age=30)),
        (
            Person,
            ' {"name": "A", "age": 0, "born": "2024-01-18"}\n',
            Person(name="A", age=0, born=datetime.date(2024, 1, 18)),
        ),
        (City, f'{{"name": "Тула", "people": {BEYOND}}}', City("Тула", BEYOND)),
        (Point, '{"x": 1}', {"x": 1.0}),
        (list[City], '[{"name": "Тула"}]', [City("Тула")]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (int | str, '"a"', "a"),
        (pydantic.TypeAdapter(int | list[str]), '["a"]', ["a"]),
        (int, "5", 5),
    ],
)
def test_answer_is_parsed_into_the_type(
    client: Any, emulator: Emulator, answer_type: Any, answer: str, value: Any
) -> None:
    emulator.reply(answer)
    parsed = client.parse("Кто?", answer_type, system="Отвечай", temperature=0.2)
    assert isinstance(parsed, yandexgpt.Parsed)
    assert parsed.value == value
    assert type(parsed.value) is type(value)
    assert parsed.completion.text == answer
    [request] = emulator.requests
    adapter = answer_type if isinstance(answer_type, pydantic.TypeAdapter) else pydantic.TypeAdapter(answer_type)
    assert to_python(request.message.json_schema.schema) == adapter.json_schema()
    assert request.message.completion_options.temperature.value == 0.2


@pytest.mark.parametrize("answer_type", [Person, City, Point, list[Person], pydantic.TypeAdapter(City | None)])
def test_emulator_answers_match_the_schema(client: Any, answer_type: Any) -> None:
    adapter = answer_type if isinstance(answer_type, pydantic.TypeAdapter) else pydantic.TypeAdapter(answer_type)
    value = client.parse("Кто?", answer_type).value
    assert adapter.validate_python(value) == value


@pytest.mark.parametrize("answer_type", [Person, City, Point, list[City], City | None, pydantic.TypeAdapter(City)])
def test_response_format_accepts_any_type(client: Any, emulator: Emulator, answer_type: Any) -> None:
    client.complete("Кто?", response_format=answer_type)
    assert emulator.requests[0].message.HasField("json_schema")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("не JSON", "not a valid Person: Invalid JSON: expected value at line 1 column 1"),
        ("", "Invalid JSON"),
        ('{"name": "s3cr3t", "age": -5}', "not a valid Person: age: Input should be greater than or equal to 0"),
        ('{"age": "s3cr3t"}', "name: Field required; age: Input should be a valid integer"),
        ('```json\n{"name": "a", "age": 1}\n```', "Invalid JSON"),
    ],
)
def test_answer_of_another_type_is_an_error(client: Any, emulator: Emulator, answer: str, reason: str) -> None:
    emulator.reply(answer)
    with pytest.raises(yandexgpt.InvalidAnswerError) as caught:
        client.parse("Кто?", Person)
    error = caught.value
    assert reason in str(error)
    assert "s3cr3t" not in str(error)
    assert "\n" not in str(error)
    assert error.completion.text == answer
    assert error.completion.request_id
    assert error.completion.request_id in str(error)
    assert isinstance(error.__cause__, pydantic.ValidationError)
    assert isinstance(error, ValueError)
    assert not isinstance(error, yandexgpt.APIError)


@pytest.mark.parametrize(
    ("status", "error"),
    [("TRUNCATED", yandexgpt.TruncatedError), ("CONTENT_FILTER", yandexgpt.ContentFilterError)],
)
@pytest.mark.parametrize("answer", ['{"name": "Анн', '{"name": "Анна", "age": 30}'])
def test_truncated_or_filtered_answer_is_an_error(
    client: Any, emulator: Emulator, status: str, error: type[Exception], answer: str
) -> None:
    emulator.reply(answer, status=status, usage={"completion_tokens": 7})
    with pytest.raises(error) as caught:
        client.parse("Кто?", Person)
    raised: Any = caught.value
    assert raised.completion.text == answer
    assert raised.completion.request_id in str(raised)
    assert error.__bases__ == (yandexgpt.YandexGPTError,)


def test_truncation_by_max_tokens_is_an_error(client: Any) -> None:
    with pytest.raises(yandexgpt.TruncatedError, match=r"cut after 2 tokens .*; pass a greater max_tokens"):
        client.parse("Кто?", Person, max_tokens=2)


def test_tool_call_is_an_error(client: Any, emulator: Emulator) -> None:
    emulator.reply(None, tool_calls=[{"name": "now"}])
    with pytest.raises(yandexgpt.InvalidAnswerError, match="the model asks for tools instead"):
        client.parse("Кто?", Person, tools=[{"name": "now"}])


@pytest.mark.parametrize("error", [yandexgpt.TruncatedError, yandexgpt.ContentFilterError])
def test_errors_can_be_pickled(error: Any) -> None:
    completion = yandexgpt.Completion.from_dict({"alternatives": [{"message": {"role": "assistant", "text": "а"}}]})
    for each in (
        error(completion),
        yandexgpt.InvalidAnswerError(completion, "потому"),
        yandexgpt.ToolRoundsError(completion, 5),
    ):
        copy = pickle.loads(pickle.dumps(each))
        assert type(copy) is type(each)
        assert copy.completion == completion
        assert str(copy) == str(each)


class Unknown:
    pass


@pytest.mark.parametrize("answer_type", [Unknown, "Nowhere", 5, list["Nowhere"]])  # type: ignore[name-defined]  # noqa: F821
def test_type_without_a_pydantic_schema_is_rejected(client: Any, emulator: Emulator, answer_type: Any) -> None:
    with pytest.raises(ValueError, match="pydantic cannot make a JSON Schema of"):
        client.parse("Кто?", answer_type)
    with pytest.raises(ValueError, match=r"pydantic cannot make a JSON Schema of|response_format must be"):
        client.complete("Кто?", response_format=answer_type)
    assert not emulator.requests


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes either TypedDict from Python 3.12 on")
def test_pydantic_error_of_a_type_is_raised(client: Any) -> None:
    with pytest.raises(ValueError, match=r"typing_extensions.TypedDict"):
        client.parse("Кто?", Old)


def test_error_without_pydantic_names_the_extra(
    client: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(yandexgpt.ConfigurationError, match=r"pip install 'yandexgpt\[pydantic\]'"):
        client.parse("Кто?", City)
    with pytest.raises(yandexgpt.ConfigurationError, match=r"pip install 'yandexgpt\[pydantic\]'"):
        client.complete("Кто?", response_format=City)
    assert not emulator.requests
    client.complete("Кто?", response_format="json")
    client.complete("Кто?", response_format={"type": "object"})


def test_unknown_option_is_rejected(client: Any, emulator: Emulator) -> None:
    with pytest.raises(TypeError, match="response_format"):
        client.parse("Кто?", City, response_format="json")
    with pytest.raises(ValueError, match="temperature"):
        client.parse("Кто?", City, temperature=7)
    assert not emulator.requests
