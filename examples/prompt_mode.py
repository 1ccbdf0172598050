"""Prompt mode: an instruction for the model, and the text that it is for.

python examples/prompt_mode.py
"""

from __future__ import annotations

import yandexgpt


def main() -> None:
    with yandexgpt.Client() as client:
        completion = client.complete(
            "To be, or not to be: that is the question.",
            system="Переведи текст",
            model="yandexgpt-lite",
            temperature=0.1,
            max_tokens=1000,
        )
    print(completion.text)
    print(f"{completion.usage.total_tokens} tokens, model version {completion.model_version}")


if __name__ == "__main__":
    main()
