"""Generated stubs alone, as in the guide to prompt mode; then the SDK that contains them."""

from __future__ import annotations

import time

import grpc
import yandexcloud
from google.protobuf.wrappers_pb2 import DoubleValue, Int64Value
from seen import CA, ENDPOINT, FOLDER, IAM_TOKEN, KEY, OAUTH_TOKEN, refused, seen
from yandex.cloud.ai.foundation_models.v1.text_common_pb2 import Alternative, CompletionOptions, Message
from yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2 import (
    CompletionRequest,
    CompletionResponse,
    TokenizeRequest,
)
from yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2_grpc import (
    TextGenerationAsyncServiceStub,
    TextGenerationServiceStub,
    TokenizerServiceStub,
)
from yandex.cloud.iam.v1.iam_token_service_pb2 import CreateIamTokenRequest
from yandex.cloud.iam.v1.iam_token_service_pb2_grpc import IamTokenServiceStub
from yandex.cloud.operation.operation_service_pb2 import GetOperationRequest
from yandex.cloud.operation.operation_service_pb2_grpc import OperationServiceStub

MODEL = f"gpt://{FOLDER}/yandexgpt"
BY_KEY = (("authorization", f"Api-Key {KEY}"), ("x-folder-id", FOLDER))
BY_TOKEN = (("authorization", f"Bearer {IAM_TOKEN}"),)
LIMIT = 30.0
"""Timeout of a call in seconds."""


def main() -> None:
    """Call every service of the emulator on one channel; then call services through the SDK."""
    if CA is None:
        channel = grpc.insecure_channel(ENDPOINT)
    else:
        channel = grpc.secure_channel(ENDPOINT, grpc.ssl_channel_credentials(CA.read_bytes()))
    with channel:
        stubs(channel)
    if CA is not None:  # the SDK does not support plaintext
        official(CA.read_bytes())


def request(text: str, *, stream: bool = False) -> CompletionRequest:
    """A prompt with every option set."""
    options = CompletionOptions(stream=stream, temperature=DoubleValue(value=0.5), max_tokens=Int64Value(value=2000))
    messages = [Message(role="system", text="Отвечай кратко"), Message(role="user", text=text)]
    return CompletionRequest(model_uri=MODEL, completion_options=options, messages=messages)


def stubs(channel: grpc.Channel) -> None:
    """Call the methods of the stubs."""
    generation = TextGenerationServiceStub(channel)
    with seen("Completion"):
        (answer,) = generation.Completion(request("раз два"), metadata=BY_TOKEN, timeout=LIMIT)
        assert answer.alternatives[0].message == Message(role="assistant", text="раз два"), answer
        assert answer.alternatives[0].status == Alternative.ALTERNATIVE_STATUS_FINAL, answer
    with seen("Completion, streamed"):
        answers = list(generation.Completion(request("раз два", stream=True), metadata=BY_KEY, timeout=LIMIT))
        assert [each.alternatives[0].message.text for each in answers] == ["раз", "раз два", "раз два"], answers
    with seen("request id"):
        call = generation.Completion(request("раз"), metadata=BY_KEY, timeout=LIMIT)
        assert dict(call.initial_metadata())["x-request-id"]
        call.cancel()
    with seen("operation"):
        operations = OperationServiceStub(channel)
        operation = TextGenerationAsyncServiceStub(channel).Completion(
            request("раз два"), metadata=BY_KEY, timeout=LIMIT
        )
        end = time.monotonic() + LIMIT
        while not operation.done:
            assert time.monotonic() < end, operation
            time.sleep(0.02)
            operation = operations.Get(GetOperationRequest(operation_id=operation.id), metadata=BY_KEY, timeout=LIMIT)
        response = CompletionResponse()
        assert operation.response.Unpack(response)
        assert response.alternatives[0].message.text == "раз два", response
    with seen("tokenizer"):
        tokenizer = TokenizerServiceStub(channel)
        found = tokenizer.Tokenize(TokenizeRequest(model_uri=MODEL, text="раз два"), metadata=BY_KEY, timeout=LIMIT)
        assert [token.text for token in found.tokens] == ["раз", " два"], found
        assert len(tokenizer.TokenizeCompletion(request("раз"), metadata=BY_KEY, timeout=LIMIT).tokens) == 3
    with seen("IAM token for an OAuth token"):
        asked = CreateIamTokenRequest(yandex_passport_oauth_token=OAUTH_TOKEN)
        token = IamTokenServiceStub(channel).Create(asked, timeout=LIMIT).iam_token
        metadata = (("authorization", f"Bearer {token}"),)
        assert list(generation.Completion(request("раз"), metadata=metadata, timeout=LIMIT))
    with seen("errors"), refused("UNAUTHENTICATED", "unknown API key"):
        list(generation.Completion(request("раз"), metadata=(("authorization", "Api-Key wrong"),), timeout=LIMIT))


def official(certificate: bytes) -> None:
    """Check yandexcloud.SDK: it uses endpoint discovery and exchanges the OAuth token."""
    for name, credential in {"IAM token": {"iam_token": IAM_TOKEN}, "OAuth token": {"token": OAUTH_TOKEN}}.items():
        with seen(f"yandexcloud.SDK, {name}"):
            sdk = yandexcloud.SDK(endpoint=ENDPOINT, root_certificates=certificate, **credential)
            (answer,) = sdk.client(TextGenerationServiceStub).Completion(request("раз два"), timeout=LIMIT)
            assert answer.alternatives[0].message.text == "раз два", answer
            found = sdk.client(TokenizerServiceStub).TokenizeCompletion(request("раз"), timeout=LIMIT)
            assert len(found.tokens) == 3, found


if __name__ == "__main__":
    main()
