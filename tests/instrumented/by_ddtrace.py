"""ddtrace: ``patch(grpc=True)``, or what ``ddtrace-run`` has patched. There is no agent: spans are kept here."""

from __future__ import annotations

from ddtrace import patch
from ddtrace.trace import Span, TraceFilter, tracer

patch(grpc=True)

from matrix import Reporter, Spans, World, run  # noqa: E402  (what it patches comes after it)


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

    def __init__(self, kept: Kept, unseen: frozenset[str]) -> None:
        self._kept = kept
        self.unseen = unseen

    def ended(self) -> list[tuple[str, str | None]] | None:
        spans, self._kept.spans = self._kept.spans, []
        return [
            (span.resource.rpartition("/")[2], (span.get_tag("grpc.status.code") or "").rpartition(".")[2] or None)
            for span in spans
            if span.name == "grpc"
        ]


def main() -> None:
    kept = Kept()
    tracer.configure(trace_processors=[kept])
    reporter = Reporter()
    run(reporter, World("sync", Datadog(kept, frozenset())))
    # It reads an asynchronous call's status out of its repr, which gRPC has changed.
    run(reporter, World("async", Datadog(kept, frozenset({"OK", "CANCELLED"}))))
    reporter.exit()


if __name__ == "__main__":
    main()
