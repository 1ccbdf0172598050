"""A series of turns from asyncio: two conversations at once, each with a history of its own.

python examples/chat_series_async.py
"""

from __future__ import annotations

import asyncio

import yandexgpt

QUESTIONS = ("Привет! Какими науками занимался Альберт Эйнштейн?", "Какие важные открытия он совершил?")


async def main() -> None:
    async with yandexgpt.AsyncClient() as client:
        chats = [client.chat(system="Ты умный ассистент", temperature=0.6, max_tokens=2000) for _ in range(2)]
        await asyncio.gather(*(talk(chat) for chat in chats))

        chat = chats[0]
        for message in chat.messages:
            print(f"{message.role}: {message.text}")
        async with chat.stream("Сократи свой ответ") as stream:
            async for piece in stream.text():
                print(piece, end="", flush=True)
        print(f"\n{len(chat.messages)} messages, {chat.usage.total_tokens} tokens paid for in three turns")


async def talk(chat: yandexgpt.AsyncChat) -> None:
    try:
        for question in QUESTIONS:
            await chat.send(question)
    except yandexgpt.QuotaExceededError as error:  # a turn that failed is not in the history: ask it again later
        print(f"the history ends after {len(chat.messages)} messages: {error}")


if __name__ == "__main__":
    asyncio.run(main())
