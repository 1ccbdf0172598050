"""opentelemetry-instrumentation-grpc: its instrumentors; with ``--loaded``, already loaded by a launcher."""

from __future__ import annotations

import sys
from typing import Any

import grpc
from matrix import Reporter, Spans, World, raises, run
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcInstrumentorClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import yandexgpt

NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class OpenTelemetry(Spans):
    """Spans kept in memory."""

    header = "traceparent"
    unseen = frozenset()
    unseen_async = frozenset({"CANCELLED"})  # asyncio.CancelledError is not an Exception: the status is OK

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def ended(self) -> list[tuple[str, str | None]] | None:
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        return [_outcome_of(span) for span in spans]


def _outcome_of(span: ReadableSpan) -> tuple[str, str | None]:
    attributes: Any = span.attributes
    assert span.name.count("/") == 2, span.name
    return span.name.rpartition("/")[2], NAMES[attributes["rpc.grpc.status_code"]]


def no_span_stays(world: World) -> None:
    """The span of a stream is the current span only until the stream is closed."""
    with world.client() as client:
        client.complete("раз")
        with client.stream("stalls") as stream:
            next(stream)
            assert trace.get_current_span() is not trace.INVALID_SPAN
        assert trace.get_current_span() is trace.INVALID_SPAN
        with raises(yandexgpt.InvalidArgumentError):
            client.complete("refused")
        assert trace.get_current_span() is trace.INVALID_SPAN
    world.close()


def main() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    assert trace.get_tracer_provider() is provider
    for instrumentor in (GrpcInstrumentorClient(), GrpcAioInstrumentorClient()):
        assert instrumentor.is_instrumented_by_opentelemetry == ("--loaded" in sys.argv)
        if "--loaded" not in sys.argv:
            instrumentor.instrument()
    reporter = Reporter()
    # Before the matrix: the matrix reads streams in several threads, and the instrumentation then loses its context.
    reporter.check("sync no span stays the current one", no_span_stays, World("sync", OpenTelemetry(exporter)))
    for kind in ("sync", "async"):
        run(reporter, World(kind, OpenTelemetry(exporter)))
    reporter.exit()


if __name__ == "__main__":
    main()
