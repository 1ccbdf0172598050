"""The questions of the benchmark: what is measured, the variants, and the targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from measure import Series
from paced import ROWS

REFERENCE = "naive"
"""The variant that ratios refer to, if a question has it."""


@dataclass(frozen=True)
class Variant:
    """One of several clients that do the same work."""

    name: str
    label: str
    module: str
    answer: str = ""
    """The name of the server's answer, if it is not that of the question."""
    environment: str = ""
    """The environment that it is installed in: a name of ``environments.RIVALS``; empty: the current one."""
    needs: tuple[str, str] | None = None
    """A method of the client, and a parameter of it, that must exist."""


def ours(name: str, label: str, needs: tuple[str, str] | None = None) -> Variant:
    """A variant of yandexgpt."""
    return Variant(name, label, "clients_ours", needs=needs)


def raw(name: str, label: str) -> Variant:
    """A variant of the generated stub."""
    return Variant(name, label, "clients_raw")


NAIVE = raw("naive", "raw stub, as documented")
BEST = raw("best", "raw stub at its best")
ALIKE = raw("alike", "raw stub at its best, with a deadline and a request id")
OURS = ours("ours", "yandexgpt")
SDK = Variant("sdk", "yandex-ai-studio-sdk", "clients_sdk", environment="sdk")
OPENAI = Variant("openai", "openai, over HTTP", "clients_openai", "http-whole", "openai")
OPENAI_STREAM = Variant("openai", "openai, over HTTP", "clients_openai", "http-growing", "openai")
MANY = ("complete_many", "prompts")
LATEST = ("stream", "latest")


@dataclass(frozen=True)
class Question:
    """A table of the output, and a picture: several variants that do the same work."""

    key: str
    title: str
    unit: str
    """The unit of the CPU time and the wall time: `us`, `ms` or `s`."""
    variants: tuple[Variant, ...]
    answer: str
    text: str = "TEXT"
    """The name in ``texts`` of the text that every call must return."""
    calls: int | None = None
    """The number of calls in a measurement; its figures are then totals. None: as many calls as take the time of a
    measurement; its figures are then per call."""
    rounds: int | None = None
    """The number of rounds, if it differs from the plan."""
    fresh: bool = False
    """Whether each measurement needs a new process."""
    shown: tuple[str, ...] = ("cpu", "wall")
    """The figures that the picture shows."""
    row: str = ""
    """The title of its row, if it is a row of a common table; its figures are then per call."""
    quick: bool = True
    """Whether a quick run includes it."""

    @property
    def whole(self) -> bool:
        """Whether the figures are totals of a measurement, not per call."""
        return self.calls is not None and not self.row


def layer(name: str, label: str) -> Variant:
    """A part of yandexgpt."""
    return Variant(name, label, "clients_layers")


CROWD_STREAMS = 1_000
CROWD_SECONDS = 2.0
MEMORY_STREAMS = 2_000
EARLY_STREAMS = 1_000
CALLS = (
    Question("complete", "a whole answer, synchronous", "us", (NAIVE, BEST, ALIKE, OURS, SDK, OPENAI), "whole"),
    Question(
        "stream",
        "a stream of 100 partials in a burst, synchronous",
        "ms",
        (NAIVE, BEST, ALIKE, OURS, SDK, OPENAI_STREAM),
        "growing",
    ),
    Question("complete-aio", "a whole answer, asynchronous", "us", (NAIVE, BEST, ALIKE, OURS, SDK, OPENAI), "whole"),
    Question(
        "stream-aio",
        "a stream of 100 partials in a burst, asynchronous",
        "ms",
        (NAIVE, BEST, ALIKE, OURS, SDK, OPENAI_STREAM),
        "growing",
    ),
    Question(
        "long", "a stream of 1,000 partials to 20 KB, synchronous", "ms", (NAIVE, BEST, OURS, SDK), "long", "LONG"
    ),
    Question(
        "many",
        "32 calls at once",
        "us",
        (
            raw("naive", "raw stub in 32 threads"),
            raw("naive-aio", "raw stub, asynchronous, 32 tasks"),
            raw("unary-aio", "the same, as if the method did not stream"),
            ours("ours", "yandexgpt complete_many", MANY),
            ours("ours-aio", "yandexgpt complete_many, asynchronous", MANY),
            ours("ours-tasks", "yandexgpt complete, asynchronous, 32 tasks"),
            Variant("sdk", "yandex-ai-studio-sdk, asynchronous, 32 tasks", "clients_sdk", environment="sdk"),
            Variant("openai", "openai, asynchronous, 32 tasks", "clients_openai", "http-whole", "openai"),
        ),
        "whole",
    ),
    Question(
        "crowd",
        "1,000 streams at once, a chunk every 20 ms for 2 s, asynchronous",
        "s",
        (NAIVE, OURS, SDK),
        "paced",
        calls=CROWD_STREAMS,
        rounds=3,
        shown=("wall", "cpu"),
    ),
    Question(
        "memory",
        "2,000 streams at once, a chunk a second, asynchronous",
        "s",
        (NAIVE, OURS, SDK),
        "seconds",
        calls=MEMORY_STREAMS,
        rounds=3,
        fresh=True,
        shown=("grown",),
    ),
    Question(
        "early",
        "1,000 streams closed after their first message, synchronous",
        "s",
        (NAIVE, raw("best", "raw stub, single-threaded"), OURS),
        "ahead",
        "FIRST",
        calls=EARLY_STREAMS,
        rounds=3,
        shown=("grown",),
    ),
    Question(
        "slow",
        "a reader slower than the service, synchronous",
        "ms",
        (ours("all", "every chunk"), ours("latest", "latest=True", LATEST)),
        "ahead",
        "LONG",
        calls=1,
        rounds=5,
    ),
    Question(
        "slow-aio",
        "a reader slower than the service, asynchronous",
        "ms",
        (ours("all", "every chunk"), ours("latest", "latest=True", LATEST)),
        "ahead",
        "LONG",
        calls=1,
        rounds=5,
    ),
)
PYTHON = tuple(
    Question(
        row.key,
        f"server in Python: {row.title}",
        "ms" if row.stream else "us",
        (NAIVE, OURS),
        f"python-{row.pace}",
        calls=row.calls,
        rounds=5,
        row=row.title,
        quick=row.at_once == 8,
    )
    for row in ROWS
)
LAYERS = (
    Question(
        "layers",
        "a whole answer, synchronous, layer by layer",
        "us",
        (
            layer("alike", ALIKE.label),
            layer("invoker", "the same request through our invoker"),
            layer("ours", OURS.label),
        ),
        "whole",
        shown=("cpu",),
    ),
    Question(
        "layers-stream",
        "a stream of 100 partials, synchronous, layer by layer",
        "ms",
        (
            layer("best", BEST.label),
            layer("messages", "messages through our invoker, text read raw"),
            layer("unread", "chunks, not read"),
            layer("text", "chunks, text read"),
            layer("ours", "chunks, text and delta read"),
        ),
        "growing",
        shown=("cpu",),
    ),
    Question(
        "layers-stream-aio",
        "a stream of 100 partials, asynchronous, layer by layer",
        "ms",
        (
            layer("naive", NAIVE.label),
            layer("messages", "messages through our invoker, text read raw"),
            layer("unread", "chunks, not read"),
            layer("ours", "chunks, text and delta read"),
        ),
        "growing",
        shown=("cpu",),
    ),
)
STUBS = "yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation.text_generation_service_pb2_grpc"
STARTS = {
    Question(
        "import",
        "import and make nothing, in a fresh interpreter",
        "ms",
        (raw("naive", "grpc and the same stubs"), ours("ours", "yandexgpt, which imports no gRPC yet"), SDK, OPENAI),
        "",
        shown=("wall",),
    ): {
        "naive": f"import grpc; import {STUBS}",
        "ours": "import yandexgpt",
        "sdk": "import yandex_ai_studio_sdk",
        "openai": "import openai",
    },
    Question(
        "client",
        "import and make a client, in a fresh interpreter",
        "ms",
        (raw("naive", "grpc, the same stubs and a channel"), OURS, SDK, OPENAI),
        "",
        shown=("wall",),
    ): {
        "naive": (
            f"import grpc; import {STUBS} as stubs; "
            "stub = stubs.TextGenerationServiceStub(grpc.insecure_channel('127.0.0.1:1'))"
        ),
        "ours": (
            "import yandexgpt; "
            "client = yandexgpt.Client(folder_id='b1g', credentials='key', endpoint='127.0.0.1:1', tls=False)"
        ),
        "sdk": (
            "import yandex_ai_studio_sdk as sdk; from yandex_ai_studio_sdk.auth import APIKeyAuth; client = "
            "sdk.AIStudio(folder_id='b1g', auth=APIKeyAuth('key'), endpoint='127.0.0.1:1', verify=False)"
        ),
        "openai": "import openai; client = openai.OpenAI(base_url='http://127.0.0.1:1/v1', api_key='key')",
    },
}

Results = Mapping[str, Mapping[str, Series]]
"""By question, by variant."""


@dataclass(frozen=True)
class Bar:
    """A target for a figure."""

    what: str
    sense: str
    """`>=` or `<=`."""
    limit: float
    question: str
    value: Callable[[Mapping[str, Series]], list[float]]
    """Returns the figure of each round; raises KeyError if one of its variants was not measured."""

    def reached(self, value: float) -> bool:
        """Whether the value reaches the target."""
        return value >= self.limit if self.sense == ">=" else value <= self.limit


def ratio(name: str, one: str, other: str) -> Callable[[Mapping[str, Series]], list[float]]:
    """The ratio of one variant to another, within each round, so that a slow round does not change it.

    Args:
        name: the figure.
        one: the variant in the numerator.
        other: the variant in the denominator.
    """

    def value(series: Mapping[str, Series]) -> list[float]:
        return [a / b for a, b in zip(series[one].values(name), series[other].values(name), strict=True)]

    return value


def beyond(one: str, other: str, factor: float) -> Callable[[Mapping[str, Series]], list[float]]:
    """The additional CPU time of one variant over another, within each round.

    Args:
        one: the variant with the additional time.
        other: the variant to compare with.
        factor: from seconds to the unit of the target.
    """

    def value(series: Mapping[str, Series]) -> list[float]:
        return [(a - b) * factor for a, b in zip(series[one].values("cpu"), series[other].values("cpu"), strict=True)]

    return value


def sdk_against_ours(question: str) -> Bar:
    """The target of a question: the SDK takes at least as much as yandexgpt."""
    name = {"import": "wall", "client": "wall", "memory": "grown"}.get(question, "cpu")
    what = {"wall": "wall", "grown": "memory", "cpu": "CPU"}[name]
    value = ratio(name, "sdk", "ours")
    return Bar(f"{question}: {what}, yandex-ai-studio-sdk / ours", ">=", 1.0, question, value)


BARS = (
    Bar(
        "complete, one at a time, fast server: CPU, naive / ours", ">=", 2.0, "complete", ratio("cpu", "naive", "ours")
    ),
    Bar("burst of 100 partials: CPU, naive / ours", ">=", 2.0, "stream", ratio("cpu", "naive", "ours")),
    Bar("burst of 100 partials: wall, naive / ours", ">=", 2.5, "stream", ratio("wall", "naive", "ours")),
    Bar("burst of 100 partials: CPU, ours / best raw", "<=", 1.15, "stream", ratio("cpu", "ours", "best")),
    Bar("complete: CPU over the same raw call, us", "<=", 5.0, "complete", beyond("ours", "alike", 1e6)),
    Bar("a chunk with text and delta: CPU over the text raw, us", "<=", 1.0, "long", beyond("ours", "best", 1e3)),
    Bar("async burst of 100 partials: CPU, ours / raw aio", "<=", 1.05, "stream-aio", ratio("cpu", "ours", "naive")),
    Bar("32 calls at once: CPU, threads / complete_many", ">=", 2.5, "many", ratio("cpu", "naive", "ours")),
    Bar(
        "32 calls at once: CPU, threads / complete_many, asynchronous",
        ">=",
        2.5,
        "many",
        ratio("cpu", "naive", "ours-aio"),
    ),
    Bar(
        "1,000 streams at once for 2 s: wall / ideal",
        "<=",
        1.1,
        "crowd",
        lambda series: [wall / CROWD_SECONDS for wall in series["ours"].values("wall")],
    ),
    Bar(
        "streams at once per GB of memory",
        ">=",
        20_000,
        "memory",
        lambda series: [1e9 * MEMORY_STREAMS / max(1.0, grown) for grown in series["ours"].values("grown")],
    ),
    Bar(
        "streams closed early: KB of memory each",
        "<=",
        2.0,
        "early",
        lambda series: [grown / EARLY_STREAMS / 1e3 for grown in series["ours"].values("grown")],
    ),
    Bar("streams closed early: CPU, ours / naive", "<=", 1.15, "early", ratio("cpu", "ours", "naive")),
    Bar("slow reader: CPU, every chunk / latest=True", ">=", 1.5, "slow", ratio("cpu", "all", "latest")),
    Bar(
        "slow reader, asynchronous: CPU, every chunk / latest=True",
        ">=",
        1.5,
        "slow-aio",
        ratio("cpu", "all", "latest"),
    ),
    Bar(
        "import and make a client: wall, ours / grpc, the same stubs and a channel",
        "<=",
        1.05,
        "client",
        ratio("wall", "ours", "naive"),
    ),
    *(
        sdk_against_ours(question.key)
        for question in (*CALLS, *STARTS)
        if any(variant.name == "sdk" for variant in question.variants)
    ),
)


def median_ratio(name: str, reference: Series, series: Series) -> float:
    """The median ratio of the reference to a variant: how many times less the variant takes."""
    pairs = zip(reference.values(name), series.values(name), strict=True)
    return statistics.median(one / other if other else 0.0 for one, other in pairs)
