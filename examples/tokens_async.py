"""Tokens from asyncio: which of many prompts are too long?

python examples/tokens_async.py
"""

from __future__ import annotations

import asyncio

import yandexgpt

TEXTS = ("Кратко.", "Расскажи о Байкале в трёх предложениях.", "Очень длинный рассказ " * 20)


async def main() -> None:
    async with yandexgpt.AsyncClient() as client:
        counts = await asyncio.gather(*(client.count_tokens(text, system="Исправь ошибки.") for text in TEXTS))
        tokens = await client.tokenize(TEXTS[0])
    for text, count in zip(TEXTS, counts, strict=True):
        print(f"{count:4} {'too long' if count > 50 else 'fits':8} {text[:40]}")
    print(tokens)


if __name__ == "__main__":
    asyncio.run(main())
