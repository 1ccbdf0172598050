"""Answers as they are written, from asyncio: two streams over one connection, and one that is left half way.

python examples/streaming_async.py
"""

from __future__ import annotations

import asyncio

import yandexgpt


async def main() -> None:
    async with yandexgpt.AsyncClient(model="yandexgpt") as client:
        await asyncio.gather(
            follow(client, "Ашипки саме сибя ни исрпвят"),
            follow(client, "Каждый ахотник жилает знать, где седит фазан"),
        )
        async with client.stream("Расскажи о Байкале в трёх предложениях", max_tokens=300) as stream:
            async for piece in stream.text():
                print(piece, end=" ...\n")
                break  # leaving the `async with` cancels the call at the service


async def follow(client: yandexgpt.AsyncClient, text: str) -> None:
    shown = ""
    try:
        async with client.stream(text, system="Исправь ошибки в тексте.", temperature=0.5) as stream:
            async for chunk in stream:
                shown = shown[: chunk.keep] + chunk.delta
    except yandexgpt.APIError as error:  # broken in the middle: what there was is in the error
        shown = f"{error.partial.text if error.partial else ''} [{error}]"
    print(shown)


if __name__ == "__main__":
    asyncio.run(main())
