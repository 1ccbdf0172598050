"""opentelemetry-instrumentation-grpc: its instrumentors, or those that ``opentelemetry-instrument`` has loaded."""

from __future__ import annotations

from typing import Any

import grpc
from matrix import Reporter, Spans, World, run
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcInstrumentorClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class OpenTelemetry(Spans):
    """Spans kept in memory."""

    header = "traceparent"
    unseen = frozenset()
    unseen_async = frozenset({"CANCELLED"})  # asyncio's CancelledError, which is no Exception, is a good end to it

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def ended(self) -> list[tuple[str, str | None]] | None:
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        return [_told(span) for span in spans]


def _told(span: ReadableSpan) -> tuple[str, str | None]:
    attributes: Any = span.attributes
    assert span.name.count("/") == 2, span.name
    return span.name.rpartition("/")[2], NAMES[attributes["rpc.grpc.status_code"]]


def main() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    assert trace.get_tracer_provider() is provider
    for instrumentor in (GrpcInstrumentorClient(), GrpcAioInstrumentorClient()):
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument()
    reporter = Reporter()
    for kind in ("sync", "async"):
        run(reporter, World(kind, OpenTelemetry(exporter)))
    reporter.exit()


if __name__ == "__main__":
    main()
