"""How many tokens a text or a prompt has, before it is paid for.

python examples/tokens.py
"""

from __future__ import annotations

import yandexgpt

TEXT = "To be, or not to be: that is the question."


def main() -> None:
    with yandexgpt.Client() as client:
        for token in client.tokenize(TEXT):
            print(f"{token.id}:{token.text!r}", end=" ")
        print(f"\n{client.count_tokens(TEXT)} tokens in the text")
        print(f"{client.count_tokens(TEXT, system='Переведи текст')} in the prompt, with what stands between messages")

        try:
            client.complete(TEXT, system="Переведи текст", max_tokens=1000, max_context_tokens=1020)
        except yandexgpt.PromptTooLongError as error:  # counted first, by the service: nothing was generated
            print(f"too long: {error.tokens} + {error.max_tokens} > {error.max_context_tokens}")


if __name__ == "__main__":
    main()
