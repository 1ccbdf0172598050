"""ddtrace: ``patch(grpc=True)``; with ``--loaded``, what ``ddtrace-run`` has patched. No agent: spans are kept here."""

from __future__ import annotations

import sys

from ddtrace import patch
from ddtrace.trace import Span, TraceFilter, tracer

if "--loaded" not in sys.argv:
    patch(grpc=True)

import grpc
from matrix import Reporter, Spans, World, run


class Kept(TraceFilter):
    """Takes every trace out of what would be sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def process_trace(self, trace: list[Span]) -> list[Span] | None:
        self.spans += trace
        return None


class Datadog(Spans):
    """Spans taken from the tracer."""

    header = "x-datadog-trace-id"
    unseen = frozenset()
    unseen_async = frozenset({"OK", "CANCELLED"})  # it reads them out of the call's repr, which gRPC has changed

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
