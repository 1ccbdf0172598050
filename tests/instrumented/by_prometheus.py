"""py-grpc-prometheus: a synchronous interceptor, passed to the client. It returns a plain generator for a stream."""

from __future__ import annotations

from matrix import Reporter, Spans, World, run
from prometheus_client import REGISTRY
from py_grpc_prometheus.prometheus_client_interceptor import PromClientInterceptor

SERVICE = "yandex.cloud.ai.foundation_models.v1.TextGenerationService"
COUNTERS = {"calls": "grpc_client_started_total", "messages": "grpc_client_msg_received_total"}


class Prometheus(Spans):
    """Counters only; there are no spans."""


def counted() -> dict[str, float]:
    """The counters of completion calls."""
    labels = {"grpc_type": "SERVER_STREAMING", "grpc_service": SERVICE, "grpc_method": "Completion"}
    return {name: REGISTRY.get_sample_value(counter, labels) or 0.0 for name, counter in COUNTERS.items()}


def counts(world: World) -> None:
    """A call with three messages is counted as one call and three messages."""
    before = counted()
    with world.client() as client:
        assert len(list(client.stream("раз два"))) == 3
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {"calls": 1.0, "messages": 3.0}, (before, after)


def main() -> None:
    reporter = Reporter()
    world = World("sync", Prometheus(), {"interceptors": [PromClientInterceptor()]})
    reporter.check("sync counts", counts, world)
    run(reporter, world)
    reporter.exit()


if __name__ == "__main__":
    main()
