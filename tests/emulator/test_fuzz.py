"""A short version of `make fuzz`: no request causes an unexpected server error."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from fuzzing import KEY, GrpcCall, HttpCall, check_grpc, check_http, grpc_calls, http_calls, openai_calls
from hypothesis import HealthCheck, given, settings

from yandexgpt.emulator import Emulator

_A_FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(http_port=0, authorization=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def channel(emulator: Emulator) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(emulator.endpoint) as made:
        yield made


@_A_FEW
@given(grpc_calls)
def test_any_grpc_call_is_answered(channel: grpc.Channel, call: GrpcCall) -> None:
    check_grpc(channel, call)


@_A_FEW
@given(http_calls)
def test_any_rest_request_is_answered(emulator: Emulator, call: HttpCall) -> None:
    check_http(emulator.http_url, call)


@_A_FEW
@given(openai_calls)
def test_any_openai_request_is_answered(emulator: Emulator, call: HttpCall) -> None:
    check_http(emulator.http_url, call)
