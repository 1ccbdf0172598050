"""Where the credential comes from: the environment, or an authorized key of a service account.

    python examples/credentials.py                  what the environment holds: an API key, a token, ... or a cloud
                                                    machine's service account
    python examples/credentials.py key.json         an authorized key (extra `auth`)

Tokens are fetched when they are first needed and refreshed ahead of their end, by one caller for all.
"""

from __future__ import annotations

import sys

import yandexgpt


def main() -> None:
    if len(sys.argv) > 1:
        credentials: yandexgpt.credentials.Credentials = yandexgpt.credentials.ServiceAccountKey(sys.argv[1])
    else:
        credentials = yandexgpt.credentials.from_env()  # what Client() does by itself
    print(f"using {credentials}")
    with yandexgpt.Client(credentials=credentials) as client:
        try:
            print(client.complete("Привет!").text)
        except yandexgpt.AuthenticationError as error:
            sys.exit(f"refused: {error}")


if __name__ == "__main__":
    main()
