"""What the programs of this directory have in common: where the emulator is, and a line for each feature that works.

They run in environments without yandexgpt, started by ``scripts/clients.py``, one emulator at a time: plaintext or TLS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENDPOINT = os.environ["YANDEXGPT_ENDPOINT"]
"""``host:port`` of the gRPC face."""
CA = None if os.environ["YANDEXGPT_TLS"] == "false" else Path(os.environ["YANDEXGPT_TLS"])
"""The PEM file to trust; None: plaintext."""
HTTP_URL = os.environ["EMULATOR_HTTP_URL"]
"""Of the REST and OpenAI faces."""
KEY = os.environ["API_KEY"]
"""The only API key that is accepted."""
IAM_TOKEN = os.environ["EMULATOR_IAM_TOKEN"]
"""One that the emulator has issued."""
OAUTH_TOKEN = os.environ["EMULATOR_OAUTH_TOKEN"]
"""One that it exchanges for an IAM token."""
FOLDER = os.environ["FOLDER_ID"]


@contextmanager
def seen(feature: str) -> Iterator[None]:
    """Name a feature when it has worked; an error ends the program."""
    yield
    print(feature, flush=True)


@contextmanager
def refused(code: str, words: str) -> Iterator[None]:
    """A block that has to end in a gRPC error with this status, and with these words in its message."""
    import grpc

    try:
        yield
    except grpc.RpcError as error:
        found = (error.code().name, words in (error.details() or ""))
        if found != (code, True):
            raise
    else:
        raise AssertionError(f"it did not end in {code}")
