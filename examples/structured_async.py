"""Answers with a structure, from asyncio: a dataclass, and a list of them.

python examples/structured_async.py
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import yandexgpt


@dataclass
class Person:
    name: str
    age: int


async def main() -> None:
    async with yandexgpt.AsyncClient(model="yandexgpt") as client:
        one, several = await asyncio.gather(
            client.parse("Анне 30 лет.", Person, system="Извлеки данные."),
            client.parse("Анне 30 лет, Борису 25.", list[Person], system="Извлеки данные."),
        )
    print(one.value)
    print(several.value)


if __name__ == "__main__":
    asyncio.run(main())
