"""The Responses API's shape from asyncio: a conversation in which what came out is put in again.

python examples/responses_async.py
"""

from __future__ import annotations

import asyncio

import yandexgpt

QUESTION = {"role": "user", "content": "Придумай 3 необычные идеи для стартапа в сфере путешествий."}


async def main() -> None:
    async with yandexgpt.AsyncClient() as client:
        first = await client.responses.create(input=[QUESTION], temperature=0.8, max_output_tokens=1500)
        print(first.output_text)

        more = [QUESTION, *first.output, {"role": "user", "content": "Какая из них самая дешёвая?"}]
        second = await client.responses.create(input=more, reasoning={"effort": "low"})
        print(f"\n{second.id}: {second.output_text}")


if __name__ == "__main__":
    asyncio.run(main())
