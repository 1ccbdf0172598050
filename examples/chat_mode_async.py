"""Chat mode from asyncio: the conversation as Python values instead of a file.

python examples/chat_mode_async.py
"""

from __future__ import annotations

import asyncio

import yandexgpt

CONVERSATION = [
    {"role": "system", "text": "Ты умный ассистент"},
    {"role": "user", "text": "Привет! Как мне подготовиться к экзаменам?"},
    {"role": "assistant", "text": "Привет! По каким предметам?"},
    {"role": "user", "text": "Математике и физике"},
]


async def main() -> None:
    async with yandexgpt.AsyncClient() as client:
        completion = await client.complete(CONVERSATION, temperature=0.6, max_tokens=2000)
        print(completion.text)
        print(f"\n{completion.usage.total_tokens} tokens, {completion.status.name}")

        # Messages, mappings and answers may stand side by side; an answer stands for the assistant's message.
        question = yandexgpt.Message("user", "А если осталась неделя?")
        print((await client.complete([*CONVERSATION, completion, question])).text)


if __name__ == "__main__":
    asyncio.run(main())
