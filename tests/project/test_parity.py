"""Every method of the generated stubs has a call in the client, or a documented reason for having none."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import yandexgpt
from yandexgpt import _proto, credentials
from yandexgpt._rpc import methods
from yandexgpt.emulator import Emulator

FACADE: dict[str, Callable[[yandexgpt.Client], Any]] = {
    "yandex.cloud.ai.foundation_models.v1.TextGenerationService/Completion": lambda client: client.complete("раз"),
    "yandex.cloud.ai.foundation_models.v1.TextGenerationAsyncService/Completion": lambda client: client.submit("раз"),
    "yandex.cloud.ai.foundation_models.v1.TokenizerService/Tokenize": lambda client: client.tokenize("раз"),
    "yandex.cloud.ai.foundation_models.v1.TokenizerService/TokenizeCompletion": lambda client: client.count_tokens(
        [{"role": "user", "text": "раз"}]
    ),
    "yandex.cloud.operation.OperationService/Get": lambda client: client.submit("раз").refresh(),
    "yandex.cloud.operation.OperationService/Cancel": lambda client: client.submit("раз").cancel(),
}
"""The call of the client for each method."""
CREDENTIALS = {"yandex.cloud.iam.v1.IamTokenService/Create": credentials.OAuthToken}
"""Methods called by credentials, not by the user."""
NOT_HERE = {
    "yandex.cloud.ai.foundation_models.v1.TextGenerationBatchService/Completion": "upstream has not implemented it",
    "yandex.cloud.iam.v1.IamTokenService/CreateForServiceAccount": "tokens of other accounts: no part of generation",
    "yandex.cloud.iam.v1.IamTokenService/Revoke": "the client's own tokens end by themselves; client.raw has it",
    "yandex.cloud.endpoint.ApiEndpointService/Get": "the client is told where to go; the emulator answers who asks",
    "yandex.cloud.endpoint.ApiEndpointService/List": "the client is told where to go; the emulator answers who asks",
}
"""Methods without a call, and the reason."""


def generated() -> dict[str, Any]:
    """All methods of the generated modules, by full name."""
    found = {}
    for module in pkgutil.walk_packages(_proto.__path__, f"{_proto.__name__}."):
        file = getattr(importlib.import_module(module.name), "DESCRIPTOR", None)
        for service in file.services_by_name.values() if file is not None else ():
            assert _proto.POOL.FindServiceByName(service.full_name) is service
            found.update({f"{service.full_name}/{method.name}": method for method in service.methods})
    return found


def test_every_method_has_a_call_or_a_reason_for_none() -> None:
    assert {*FACADE, *CREDENTIALS, *NOT_HERE} == set(generated())
    assert len(FACADE) + len(CREDENTIALS) + len(NOT_HERE) == len(generated())


@pytest.mark.parametrize("name", FACADE)
def test_facade_call_reaches_the_method(name: str, emulator: Emulator) -> None:
    with emulator.client() as client:
        FACADE[name](client)
    assert emulator.requests[-1].method == f"/{name}"
    assert emulator.requests[-1].wait() == "OK"


def test_credentials_call_the_token_service(emulator: Emulator) -> None:
    with emulator.client(
        credentials=CREDENTIALS["yandex.cloud.iam.v1.IamTokenService/Create"](emulator.identity.oauth_token())
    ) as client:
        client.complete("раз")
    assert emulator.identity.exchanges == 1


def test_methods_table_has_every_method_with_a_call() -> None:
    services = [getattr(methods, name) for name in methods.__all__ if name != "Method"]
    names = {f"{service.__name__}/{name}" for service in services for name in vars(service) if name[0].isupper()}
    assert names == {name.rpartition(".")[-1] for name in FACADE}


@pytest.mark.parametrize("service", [getattr(methods, name) for name in methods.__all__ if name != "Method"])
def test_methods_table_has_the_paths_of_the_stubs(service: type[Any]) -> None:
    with grpc.insecure_channel("localhost:1") as channel:
        for name, method in vars(service).items():
            if isinstance(method, methods.Method):
                path = method.of_channel(channel)._method
                assert (path if isinstance(path, str) else path.decode()).endswith(f".{service.__name__}/{name}")
                assert method.name == name
