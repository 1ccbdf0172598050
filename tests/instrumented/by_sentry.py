"""sentry-sdk with its GRPCIntegration, in a transaction. Its span of a stream ends when the stream begins."""

from __future__ import annotations

from typing import Any

import sentry_sdk
from matrix import EVERY, Reporter, Spans, World, run
from sentry_sdk.integrations.grpc import GRPCIntegration
from sentry_sdk.transport import Transport


class Nowhere(Transport):
    """Sends nothing."""

    def capture_envelope(self, envelope: Any) -> None:
        """Discard the envelope."""


class Sentry(Spans):
    """The spans of a transaction."""

    header = "sentry-trace"
    unseen = unseen_async = EVERY  # the code of a stream is not read
    of_threads = False  # a span belongs to the transaction of its thread

    def __init__(self, transaction: Any) -> None:
        self._spans: list[Any] = transaction._span_recorder.spans
        self._returned = {transaction.span_id}

    def ended(self) -> list[tuple[str, str | None]] | None:
        spans = [span for span in self._spans if span.span_id not in self._returned and span.timestamp is not None]
        self._returned |= {span.span_id for span in spans}
        return [(span.description.rpartition("/")[2], None) for span in spans]


def main() -> None:
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=Nowhere,
        traces_sample_rate=1.0,
        integrations=[GRPCIntegration()],
    )
    reporter = Reporter()
    for kind in ("sync", "async"):
        with sentry_sdk.start_transaction(name=kind) as transaction:
            run(reporter, World(kind, Sentry(transaction)))
    reporter.exit()


if __name__ == "__main__":
    main()
