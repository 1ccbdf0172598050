"""Endpoint discovery (ApiEndpointService), over real sockets."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from yandexgpt._proto.yandex.cloud.endpoint import api_endpoint_service_pb2 as service
from yandexgpt._proto.yandex.cloud.endpoint import api_endpoint_service_pb2_grpc as service_grpc
from yandexgpt.emulator import Emulator
from yandexgpt.emulator.discovery import ENDPOINTS

DEADLINE = 20.0


def listed(channel: grpc.Channel) -> dict[str, str]:
    stub = service_grpc.ApiEndpointServiceStub(channel)
    response = stub.List(service.ListApiEndpointsRequest(), timeout=DEADLINE)
    assert response.next_page_token == ""
    return {endpoint.id: endpoint.address for endpoint in response.endpoints}


def plain(emulator: Emulator, **options: str) -> grpc.Channel:
    port = emulator.endpoint.rpartition(":")[2]
    return grpc.insecure_channel(f"localhost:{port}", [(f"grpc.{name}", value) for name, value in options.items()])


def test_every_service_has_the_address_that_the_client_used(emulator: Emulator) -> None:
    port = emulator.endpoint.rpartition(":")[2]
    with plain(emulator) as channel:
        found = listed(channel)
    assert set(found) == set(ENDPOINTS)
    assert {"ai-foundation-models", "ai-llm", "endpoint", "iam", "operation"} < set(found)
    assert set(found.values()) == {f"localhost:{port}"}


def test_another_host_name_and_a_mapped_port_are_returned(emulator: Emulator) -> None:
    with plain(emulator, default_authority="emulator.test:8443") as channel:
        assert set(listed(channel).values()) == {"emulator.test:8443"}


@pytest.mark.parametrize("authority", ["localhost", "emulator.test:", "emulator.test:80port", ""])
def test_authority_without_a_port_gets_the_own_address(emulator: Emulator, authority: str) -> None:
    options = {"default_authority": authority} if authority else {}
    with grpc.insecure_channel("ipv4:" + emulator.endpoint, [(f"grpc.{k}", v) for k, v in options.items()]) as channel:
        assert set(listed(channel).values()) == {emulator.endpoint}


def test_one_endpoint_can_be_requested(emulator: Emulator) -> None:
    with grpc.insecure_channel(emulator.endpoint) as channel:
        stub = service_grpc.ApiEndpointServiceStub(channel)
        found = stub.Get(service.GetApiEndpointRequest(api_endpoint_id="operation"), timeout=DEADLINE)
        assert (found.id, found.address) == ("operation", emulator.endpoint)
        with pytest.raises(grpc.RpcError) as error:
            stub.Get(service.GetApiEndpointRequest(api_endpoint_id="compute"), timeout=DEADLINE)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert error.value.details() == "API endpoint 'compute' not found"


def test_discovery_uses_up_no_script_and_is_not_recorded(emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE")
    with grpc.insecure_channel(emulator.endpoint) as channel:
        assert listed(channel)
    assert emulator.requests == []
    with emulator.client() as client:
        assert client.complete("раз").text == "раз"
    assert [request.wait() for request in emulator.requests] == ["UNAVAILABLE", "OK"]


def test_over_tls_and_without_a_credential() -> None:
    with Emulator(tls=True, authorization="Api-Key the-only-one") as emulator:
        port = emulator.endpoint.rpartition(":")[2]
        credentials = grpc.ssl_channel_credentials(Path(str(emulator.tls)).read_bytes())
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            assert listed(channel)["iam"] == f"localhost:{port}"


def test_discovery_works_while_recording_and_replaying(emulator: Emulator, tmp_path: Path) -> None:
    recording = tmp_path / "calls.jsonl"
    with (
        Emulator(upstream=emulator.endpoint, upstream_tls=False, record=recording) as recorder,
        grpc.insecure_channel(recorder.endpoint) as channel,
    ):
        assert set(listed(channel).values()) == {recorder.endpoint}
        with recorder.client() as client:
            client.complete("раз")
    with Emulator(replay=recording) as player, grpc.insecure_channel(player.endpoint) as channel:
        assert set(listed(channel).values()) == {player.endpoint}
