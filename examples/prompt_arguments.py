"""Prompt mode as a command, with the token, the folder and the text as arguments.

    python examples/prompt_arguments.py --iam_token ${IAM_TOKEN} --folder_id ${FOLDER_ID} --user_text ${TEXT}

What is left out comes from the environment. The text may be several words without quotes.
"""

from __future__ import annotations

import argparse

import yandexgpt
from yandexgpt.credentials import IamToken


def run(iam_token: str | None, folder_id: str | None, user_text: str) -> None:
    credentials = IamToken(iam_token) if iam_token else None  # None: from the environment
    with yandexgpt.Client(folder_id=folder_id, credentials=credentials, model="yandexgpt") as client:
        completion = client.complete(user_text, system="Исправь ошибки в тексте.", temperature=0.3, max_tokens=1000)
    print(completion.to_dict())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--iam_token", help="IAM token")
    parser.add_argument("--folder_id", help="folder id")
    parser.add_argument("--user_text", nargs="+", default=["Ашипки саме сибя ни исрпвят"], help="text to correct")
    arguments = parser.parse_args()
    run(arguments.iam_token, arguments.folder_id, " ".join(arguments.user_text))
