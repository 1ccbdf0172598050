"""Chat mode: a conversation, with a role for each message, read from the file that the REST API takes as a body.

    python examples/chat_mode.py [body.json]

The credential and the folder come from the environment: API_KEY or IAM_TOKEN, and FOLDER_ID. The body beside this
program names no modelUri, and so gets the client's model; one that does is sent as it stands.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yandexgpt

BODY = Path(__file__).with_suffix(".json")


def main() -> None:
    request = yandexgpt.load_request(sys.argv[1] if len(sys.argv) > 1 else BODY)
    try:
        with yandexgpt.Client() as client:
            completion = client.complete(request)
    except yandexgpt.YandexGPTError as error:  # no credential, a wrong folder, an overloaded service, ...
        sys.exit(f"{type(error).__name__}: {error}")

    print(completion.text)
    print()
    answer = completion.to_dict()  # the JSON that the REST API answers with
    print(json.dumps(answer["result"]["usage"]), answer["result"]["modelVersion"])


if __name__ == "__main__":
    main()
