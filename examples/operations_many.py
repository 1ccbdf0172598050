"""Many asynchronous requests: submitted together, read as they end, looked up within the quota.

python examples/operations_many.py
"""

from __future__ import annotations

import yandexgpt

TEXTS = ("To be, or not to be: that is the question.", "All the world's a stage.", "Brevity is the soul of wit.")


def main() -> None:
    with yandexgpt.Client(model="yandexgpt") as client:
        texts = {client.submit(text, system="Переведи текст", temperature=0.1): text for text in TEXTS}
        mistake = client.submit("Это отправлять не надо было").cancel()
        texts[mistake] = "(cancelled)"
        try:
            for operation in client.wait_all(texts, timeout=600):
                print(f"{texts[operation]}\n    {operation.error or operation.result().text}")
        except yandexgpt.OperationTimeout as error:  # they go on; their ids are enough to come back for them
            print("not done yet:", *error.operation_ids)


if __name__ == "__main__":
    main()
