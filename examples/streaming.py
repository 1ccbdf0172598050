"""An answer as it is written: with all that the service changes on the way, and for readers who can only append.

python examples/streaming.py
"""

from __future__ import annotations

import yandexgpt

SYSTEM = "Исправь ошибки в тексте."
TEXT = "Ашипки саме сибя ни исрпвят"


def main() -> None:
    with yandexgpt.Client(model="yandexgpt") as client:
        partials(client)
        append_only(client)


def partials(client: yandexgpt.Client) -> None:
    """Each message holds the whole text so far and may differ from the one before: a chunk says what to keep."""
    shown = ""
    with client.stream(TEXT, system=SYSTEM, temperature=0.5, max_tokens=2000) as stream:
        for chunk in stream:
            shown = shown[: chunk.keep] + chunk.delta  # always equals chunk.text
            print(f"{chunk.status.name:8} keep {chunk.keep:2}, then {chunk.delta!r}: {shown}")
    print(f"{stream.completion.usage.total_tokens} tokens\n")


def append_only(client: yandexgpt.Client) -> None:
    """A terminal, a socket or a voice takes nothing back."""
    with client.stream(TEXT, system=SYSTEM, temperature=0.5, max_tokens=2000) as stream:
        try:
            for piece in stream.text(holdback=8):  # the last 8 characters stay unsaid until they are settled
                print(piece, end="", flush=True)
        except yandexgpt.RevisedError:  # the service took back what was said already: say all of it anew
            print(f"\nCorrection: {stream.finish().text}", end="")
    print(f"\n{stream.completion.status.name}")


if __name__ == "__main__":
    main()
