"""Common code of the programs in this directory: the address of the emulator, and one output line per working feature.

They run in environments without yandexgpt, started by ``scripts/clients.py``, one emulator at a time: plaintext or TLS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENDPOINT = os.environ["YANDEXGPT_ENDPOINT"]
"""``host:port`` of the gRPC server."""
CA = None if os.environ["YANDEXGPT_TLS"] == "false" else Path(os.environ["YANDEXGPT_TLS"])
"""The PEM file of the certificate authority. None: plaintext."""
HTTP_URL = os.environ["EMULATOR_HTTP_URL"]
"""The base URL of the REST and OpenAI APIs."""
KEY = os.environ["API_KEY"]
"""The only API key that is accepted."""
IAM_TOKEN = os.environ["EMULATOR_IAM_TOKEN"]
"""An IAM token issued by the emulator."""
OAUTH_TOKEN = os.environ["EMULATOR_OAUTH_TOKEN"]
"""An OAuth token that the emulator exchanges for an IAM token."""
FOLDER = os.environ["FOLDER_ID"]


@contextmanager
def seen(feature: str) -> Iterator[None]:
    """Print the feature after the block has succeeded. An error ends the program."""
    yield
    print(feature, flush=True)


@contextmanager
def refused(code: str, words: str) -> Iterator[None]:
    """Fail if the block does not raise a gRPC error with this status and with these words in its message."""
    import grpc

    try:
        yield
    except grpc.RpcError as error:
        found = (error.code().name, words in (error.details() or ""))
        if found != (code, True):
            raise
    else:
        raise AssertionError(f"it did not end in {code}")
