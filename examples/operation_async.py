"""An asynchronous request from asyncio: submit now, wait for the answer beside other work.

python examples/operation_async.py
"""

from __future__ import annotations

import asyncio

import yandexgpt


async def main() -> None:
    async with yandexgpt.AsyncClient(model="yandexgpt") as client:
        operation = await client.submit(
            "To be, or not to be: that is the question.",
            system="Переведи текст",
            temperature=0.1,
            max_tokens=2000,
            reasoning="disabled",
        )
        print(operation)
        waiting = asyncio.create_task(client.operation(operation.id).wait(timeout=600))  # the id is all it takes
        print("meanwhile:", (await client.complete("Сколько времени на Марсе?")).text)
        try:
            print((await waiting).text)
        except yandexgpt.OperationFailed as error:  # the service could not do it; asking again would be a new request
            print(f"{error.code.name}: {error.message}")


if __name__ == "__main__":
    asyncio.run(main())
