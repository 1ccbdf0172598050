"""Many asynchronous requests from asyncio: submitted together, read as they end, looked up within the quota.

python examples/operations_many_async.py
"""

from __future__ import annotations

import asyncio

import yandexgpt

TEXTS = ("To be, or not to be: that is the question.", "All the world's a stage.", "Brevity is the soul of wit.")


async def main() -> None:
    async with yandexgpt.AsyncClient(model="yandexgpt") as client:
        operations = await asyncio.gather(
            *(client.submit(text, system="Переведи текст", temperature=0.1) for text in TEXTS)
        )
        texts = dict(zip(operations, TEXTS, strict=True))
        async for operation in client.wait_all(operations, timeout=600):
            print(f"{texts[operation]}\n    {operation.error or operation.result().text}")


if __name__ == "__main__":
    asyncio.run(main())
