"""ddtrace: ``patch(grpc=True)``; with ``--loaded``, patched by ``ddtrace-run``. No agent: a filter keeps the spans."""

from __future__ import annotations

import sys

from ddtrace import patch
from ddtrace.trace import Span, TraceFilter, tracer

if "--loaded" not in sys.argv:
    patch(grpc=True)

import grpc
from matrix import Reporter, Spans, World, run


class Kept(TraceFilter):
    """Keeps every trace, so that none is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def process_trace(self, trace: list[Span]) -> list[Span] | None:
        self.spans += trace
        return None


class Datadog(Spans):
    """Spans taken from the tracer."""

    header = "x-datadog-trace-id"
    unseen = frozenset()
    unseen_async = frozenset(
        {"OK", "CANCELLED"}
    )  # ddtrace parses them from the repr of the call, whose format has changed

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def ended(self) -> list[tuple[str, str | None]] | None:
        spans, self._kept.spans = self._kept.spans, []
        return [
            (span.resource.rpartition("/")[2], (span.get_tag("grpc.status.code") or "").rpartition(".")[2] or None)
            for span in spans
            if span.name == "grpc"
        ]


def main() -> None:
    assert vars(grpc)["_datadog_patch"]
    kept = Kept()
    tracer.configure(trace_processors=[kept])
    reporter = Reporter()
    for kind in ("sync", "async"):
        run(reporter, World(kind, Datadog(kept)))
    reporter.exit()


if __name__ == "__main__":
    main()
