"""A series of turns: the service remembers nothing, so the chat keeps the history and sends all of it each time.

    python examples/chat_series.py

After two turns the chat is saved as a REST body, and a second client goes on with it, as another process would.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import yandexgpt


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "body.json")
        begin(saved)
        go_on(saved)


def begin(saved: Path) -> None:
    with yandexgpt.Client() as client:
        chat = client.chat(system="Ты умный ассистент", temperature=0.6, max_tokens=2000)
        for question in ("Привет! Какими науками занимался Альберт Эйнштейн?", "Какие важные открытия он совершил?"):
            answer = chat.send(question)
            print(f"> {question}\n{answer.text}\n{tokens(answer)}\n")
        saved.write_text(json.dumps(chat.to_dict(), ensure_ascii=False, indent=2), encoding="utf-8")


def go_on(saved: Path) -> None:
    with yandexgpt.Client() as client:
        chat = yandexgpt.Chat.from_dict(client, json.loads(saved.read_text(encoding="utf-8")))
        print("> Сократи свой ответ")
        with chat.stream("Сократи свой ответ") as stream:
            for piece in stream.text():
                print(piece, end="", flush=True)
        print(f"\n{tokens(stream.completion)}")

        # Each turn costs more than the one before. Whole oldest turns can be forgotten; the system message stays.
        forgotten = chat.trim(max_tokens=100)
        print(f"\n{forgotten} messages forgotten, {len(chat.messages)} left")


def tokens(answer: yandexgpt.Completion) -> str:
    usage = answer.usage
    return f"({usage.input_tokens} tokens sent, {usage.completion_tokens} received, {usage.total_tokens} in all)"


if __name__ == "__main__":
    main()
