"""The generated stubs from asyncio.

python examples/grpc_stubs_async.py
"""

from __future__ import annotations

import asyncio
import os

import yandexgpt

BODY = {
    "modelUri": f"gpt://{os.environ['FOLDER_ID']}/yandexgpt",
    "completionOptions": {"stream": True, "temperature": 0.5, "maxTokens": 2000},
    "messages": [
        {"role": "system", "text": "Исправь ошибки в тексте."},
        {"role": "user", "text": "Ашипки саме сибя ни исрпвят"},
    ],
}


async def main() -> None:
    async with yandexgpt.AsyncClient() as client:
        call = client.raw.text_generation.Completion(yandexgpt.load_request(BODY), timeout=60)
        async for response in call:
            print(response.alternatives[0].message.text, f"({response.usage.total_tokens} tokens)")
        print("status:", (await call.code()).name)


if __name__ == "__main__":
    asyncio.run(main())
