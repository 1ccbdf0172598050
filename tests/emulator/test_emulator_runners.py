"""The emulator without pytest: both context managers, and the recorded requests."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from driver import PATIENCE, run_loop

import yandexgpt
from yandexgpt.emulator import Emulator

TOOL = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"days": {"maximum": 5}, "t": {"maximum": 0.5}}},
}


def test_an_asynchronous_context_manager_starts_and_stops() -> None:
    async def main() -> Emulator:
        async with Emulator() as emulator, emulator.async_client() as client:
            assert (await client.complete("раз")).text == "раз"
        return emulator

    emulator = run_loop(main)
    with pytest.raises(yandexgpt.UnavailableError), emulator.client(retry=yandexgpt.Retry(attempts=1)) as client:
        client.complete("раз")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("yandexgpt-emulator")]


def test_event_loop_is_not_blocked_by_start_and_stop() -> None:
    """The event loop runs other tasks during start and stop."""

    class Slow(Emulator):
        moved = threading.Event()

        def start(self) -> Any:
            assert self.moved.wait(PATIENCE)
            return super().start()

        def stop(self) -> None:
            assert self.moved.wait(PATIENCE)
            super().stop()

    async def move() -> None:
        Slow.moved.set()

    async def main() -> None:
        task = asyncio.create_task(move())
        async with Slow():
            await task
            Slow.moved.clear()
            task = asyncio.create_task(move())
        await task

    run_loop(main)


def test_errors_of_the_body_and_of_the_start_are_raised() -> None:
    async def main() -> None:
        with pytest.raises(KeyError, match="раз"):
            async with Emulator():
                raise KeyError("раз")
        async with Emulator() as emulator:
            with pytest.raises(OSError, match="Address already in use"):
                await Emulator(port=int(emulator.endpoint.rpartition(":")[2])).__aenter__()

    run_loop(main)


def test_a_request_as_the_body_of_a_rest_request(emulator: Emulator, client: Any) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    client.complete("Привет", max_tokens=2**53 + 1, temperature=0.5, tools=[TOOL], response_format=schema)
    client.tokenize("раз два", model="yandexgpt")
    assert [request.to_dict() for request in emulator.requests] == [
        {
            "modelUri": "gpt://emulator/yandexgpt-lite",
            "completionOptions": {"temperature": 0.5, "maxTokens": str(2**53 + 1)},
            "messages": [{"role": "user", "text": "Привет"}],
            "tools": [{"function": TOOL}],
            "jsonSchema": {"schema": schema},
        },
        {"modelUri": "gpt://emulator/yandexgpt", "text": "раз два"},
    ]
