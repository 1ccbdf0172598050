"""Prompt mode from asyncio: several texts at once, never more of them under way than the quota allows.

python examples/prompt_mode_async.py
"""

from __future__ import annotations

import asyncio

import yandexgpt

TEXTS = ("To be, or not to be: that is the question.", "All the world's a stage.", "Brevity is the soul of wit.")


async def main() -> None:
    async with yandexgpt.AsyncClient(max_concurrency=2) as client:
        answers = await asyncio.gather(
            *(client.complete(text, system="Переведи текст", temperature=0.1, max_tokens=1000) for text in TEXTS)
        )
    for text, answer in zip(TEXTS, answers, strict=True):
        print(f"{text}\n    {answer.text}")


if __name__ == "__main__":
    asyncio.run(main())
