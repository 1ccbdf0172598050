"""No instrumentation: shows that the checks pass without one."""

from __future__ import annotations

from matrix import Reporter, Spans, World, run


def main() -> None:
    reporter = Reporter()
    for kind in ("sync", "async"):
        run(reporter, World(kind, Spans()))
    reporter.exit()


if __name__ == "__main__":
    main()
