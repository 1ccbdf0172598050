"""A unary answer, a streamed one, and a streamed one that the service revises half way.

Runs against an emulator in this process, unless API_KEY and FOLDER_ID are set: then against the real service.
"""

from __future__ import annotations

import os
import sys

import yandexgpt
from yandexgpt.emulator import Emulator

SYSTEM = "Исправь ошибки в тексте."
TYPOS = "Ашипки саме сибя ни исрпвят"
STORY = "Расскажи о Байкале в трёх предложениях."

BAIKAL = (
    "Байкал — самое глубокое озеро на Земле: до дна 1642 метра. "
    "В нём около пятой части мировых запасов пресной воды, не считая ледников. "
    "Зимой его лёд прозрачен так, что видно дно на многие метры."
)
REVISED = BAIKAL.replace("около пятой части", "примерно 20 %")


def main() -> int:
    try:
        run()
    except yandexgpt.YandexGPTError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run() -> None:
    if os.environ.get("API_KEY") and os.environ.get("FOLDER_ID"):
        with yandexgpt.Client() as client:
            show(client)
        return
    with Emulator() as emulator, emulator.client() as client:
        show(client, emulator)
    print("\nThis was an emulator in this process. To talk to the real service, run the same program with")
    print("  API_KEY=<API key of a service account> FOLDER_ID=<folder id> make demo")


def show(client: yandexgpt.Client, emulator: Emulator | None = None) -> None:
    """The three calls; an emulator is told what to answer where the answer should be worth looking at."""
    heading("1. One call, one answer")
    completion = client.complete(TYPOS, system=SYSTEM, model="yandexgpt")
    print(f"{TYPOS}  ->  {completion.text}")
    print(f"{completion.usage.total_tokens} tokens, model version {completion.model_version}")

    heading("2. An answer as it is written")
    if emulator:
        emulator.reply(BAIKAL, partials=growing(BAIKAL), delay=0.03)
    with client.stream(STORY, max_tokens=300) as stream:
        for piece in stream.text():
            print(piece, end="", flush=True)
    print(f"\n{stream.completion.usage.total_tokens} tokens, {stream.completion.status.name}")

    heading("3. The same, and the service changes what it has said")
    if emulator:
        emulator.reply(REVISED, partials=[*growing(BAIKAL), *growing(REVISED, start=len(BAIKAL) // 2)], delay=0.03)
    shown = ""
    with client.stream(STORY, max_tokens=300) as stream:
        for chunk in stream:
            shown = shown[: chunk.keep] + chunk.delta
            if chunk.revised:
                print(f"\n[everything after character {chunk.keep} was taken back; the answer is now]\n{shown}", end="")
            else:
                print(chunk.delta, end="", flush=True)
    print(f"\nWhat was put together from the chunks is the answer: {shown == stream.completion.text}")


def growing(text: str, start: int = 0) -> list[str]:
    """Partials as the service sends them: the whole text so far, a word longer each time."""
    ends = [index for index, character in enumerate(text) if character == " " and index > start]
    return [text[:end] for end in ends]


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


if __name__ == "__main__":
    sys.exit(main())
