"""The Responses API's shape over gRPC: what code written for openai's client calls and reads.

    python examples/responses.py

YANDEX_CLOUD_FOLDER and YANDEX_CLOUD_API_KEY in the environment will do.
"""

from __future__ import annotations

import time

import yandexgpt


def main() -> None:
    with yandexgpt.Client() as client:
        response = client.responses.create(
            model="yandexgpt-lite",
            input="Придумай 3 необычные идеи для стартапа в сфере путешествий.",
            temperature=0.8,
            max_output_tokens=1500,
        )
        print(response.output[0].content[0].text)  # type: ignore[union-attr]  # an item may be a call of a tool
        print(f"\n{response.status}, {response.usage.total_tokens if response.usage else 0} tokens")

        # In the background: the id is enough to come back for it, in this process or another.
        response = client.responses.create(input="Расскажи о Байкале", instructions="Отвечай кратко.", background=True)
        while response.status in ("queued", "in_progress"):
            time.sleep(0.5)
            response = client.responses.retrieve(response.id)
        print(f"{response.status}: {response.output_text}")

        try:
            client.responses.create(input="Расскажи о Байкале", previous_response_id=response.id)  # type: ignore[arg-type]
        except ValueError as error:  # what gRPC cannot honour is refused before anything is sent
            print(f"refused: {error}")


if __name__ == "__main__":
    main()
