"""The command ``yandexgpt``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from yandexgpt._version import __version__
from yandexgpt.cli import emulate

__all__ = ["main"]

EXIT_USAGE = 2


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; None: those of this process.

    Returns:
        The exit code: 0, or 2 if the command cannot be run with these arguments.

    Raises:
        SystemExit: after ``--help`` and ``--version`` (code 0), and for invalid arguments (code 2).
    """
    parser = _Parser(prog="yandexgpt", description="Tools for the YandexGPT client.")
    parser.add_argument("--version", action="version", version=f"yandexgpt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    emulate.add_parser(commands)
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except emulate.CommandError as error:
        print(f"yandexgpt: {error}", file=sys.stderr)
        return EXIT_USAGE
    return code
