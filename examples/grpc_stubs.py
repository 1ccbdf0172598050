"""Prompt mode over gRPC with the generated stubs themselves: what comes with the package need not be generated.

    python examples/grpc_stubs.py

client.raw sends the credential and the folder along; the model's URI is for the program to make, from FOLDER_ID. The
rest is gRPC's own: no retries, no deadline but the one given here, grpc.RpcError. client.complete() and client.stream()
are these calls with all that.
"""

from __future__ import annotations

import os
import sys

import grpc
from google.protobuf import text_format

import yandexgpt

BODY = {
    "modelUri": f"gpt://{os.environ['FOLDER_ID']}/yandexgpt",
    "completionOptions": {"temperature": 0.5, "maxTokens": 2000},
    "messages": [
        {"role": "system", "text": "Исправь ошибки в тексте."},
        {"role": "user", "text": "Ашипки саме сибя ни исрпвят"},
    ],
}


def main() -> None:
    request = yandexgpt.load_request(BODY)
    with yandexgpt.Client() as client:
        stub = client.raw.text_generation
        try:
            for response in stub.Completion(request, timeout=60):  # a stream of one message
                for alternative in response.alternatives:
                    print(alternative.message.text)

            request.completion_options.stream = True
            for response in stub.Completion(request, timeout=60):  # each with the whole text so far
                print()
                print(text_format.MessageToString(response, as_utf8=True), end="")
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
