"""An asynchronous request: the answer is fetched later, by whoever knows the operation's id.

python examples/operation.py             submit, and let another process wait for it
python examples/operation.py <id>        wait for one that was submitted before; results are kept for three days
"""

from __future__ import annotations

import subprocess
import sys
import time

import yandexgpt


def main() -> None:
    with yandexgpt.Client(model="yandexgpt") as client:
        if len(sys.argv) > 1:
            print("another process:", client.operation(sys.argv[1]).wait(timeout=600).text, flush=True)
            return

        operation = client.submit(
            "To be, or not to be: that is the question.",
            system="Переведи текст",
            temperature=0.1,
            max_tokens=2000,
            reasoning="disabled",
        )
        print(f"{operation.id}: {operation.description}, since {operation.created_at}", flush=True)
        subprocess.run([sys.executable, __file__, operation.id], check=True)  # noqa: S603

        while not operation.refresh().done:  # or look it up oneself, now and then
            time.sleep(1)
        print(operation.result())

        # The model may think first, unseen; the tokens of its thoughts are counted.
        operation = client.submit("Сколько будет 17 * 23?", reasoning="hidden")
        try:
            completion = operation.wait(timeout=600)
        except yandexgpt.OperationTimeout:
            print(f"not yet; later: python {__file__} {operation.id}")
        else:
            print(f"{completion.text} ({completion.usage.reasoning_tokens} tokens of reasoning)")


if __name__ == "__main__":
    main()
