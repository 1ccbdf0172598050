"""Answers with a structure: a value of a Python type, JSON by a schema, or any JSON.

    python examples/structured.py

Types need the extra `pydantic`.
"""

from __future__ import annotations

import json

from pydantic import BaseModel, Field

import yandexgpt

TEXT = "Анне 30 лет, она живёт в Казани."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Person(BaseModel):
    name: str
    age: int = Field(ge=0)


def main() -> None:
    with yandexgpt.Client(model="yandexgpt") as client:
        try:
            parsed = client.parse(TEXT, Person, system="Извлеки данные.", max_tokens=200)
        except yandexgpt.TruncatedError as error:  # half a JSON text is an error of its own, not one of a JSON parser
            print(f"cut at {error.completion.usage.completion_tokens} tokens: {error.completion.text}")
        except yandexgpt.InvalidAnswerError as error:
            print(f"{error}: {error.completion.text}")
        else:
            print(parsed.value, f"({parsed.completion.usage.total_tokens} tokens)")

        print(json.loads(client.complete(TEXT, response_format=SCHEMA).text)["city"])
        print(client.complete(f"{TEXT} Ответь в JSON.", response_format="json").text)


if __name__ == "__main__":
    main()
