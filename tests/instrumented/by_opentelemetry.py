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

    def __init__(self, exporter: InMemorySpanExporter, unseen: frozenset[str]) -> None:
        self._exporter = exporter
        self.unseen = unseen

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
    run(reporter, World("sync", OpenTelemetry(exporter, frozenset({"CANCELLED"}))))
    # Its asynchronous interceptor takes asyncio's CancelledError, which is no Exception, for a good end.
    run(reporter, World("async", OpenTelemetry(exporter, frozenset({"CANCELLED"}))))
    reporter.exit()


if __name__ == "__main__":
    main()
