"""Functions that the model may call, from asyncio and in a chat: the history keeps the calls and their results.

python examples/tools_async.py
"""

from __future__ import annotations

import asyncio

import yandexgpt


@yandexgpt.tool
async def weather(city: str) -> str:
    """Current weather in a city."""
    if city == "Атлантида":
        raise LookupError(f"no weather station in {city}")  # told to the model, which may then try something else
    await asyncio.sleep(0.01)  # in place of a request to a weather service
    return f"{city}: -5 °C, снег"


async def main() -> None:
    async with yandexgpt.AsyncClient(model="yandexgpt") as client:
        chat = client.chat(system="Отвечай по данным инструментов.")
        try:
            completion = await chat.ask("Какая погода в Москве?", tools=[weather], tool_choice="required", max_rounds=3)
        except yandexgpt.ToolRoundsError as error:
            print(f"it only wants more: {error.completion.tool_calls}")
        else:
            print(completion.text)
        for message in chat.messages:
            print(message)


if __name__ == "__main__":
    asyncio.run(main())
