"""``yandexgpt emulate``: the emulator as a server of its own."""

from __future__ import annotations

import argparse
import shlex
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yandexgpt.emulator import Emulator

__all__ = ["CommandError", "add_parser"]

_DEFAULT_PORT = 50051
_WAKE_UP = 1.0
"""Seconds between looks at the signals, on systems where one does not end a wait."""
_HELP = "serve an emulator of the text-generation service until Ctrl-C"


class CommandError(Exception):
    """The command cannot be served; the message is one line for the user."""


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser("emulate", help=_HELP, description=f"{_HELP[0].upper()}{_HELP[1:]}.")
    parser.add_argument(
        "--port", type=int, default=_DEFAULT_PORT, help="port to listen on, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--tls", action="store_true", help="serve TLS, with a certificate made for this run")
    parser.add_argument(
        "--delay", type=float, default=0.05, help="seconds before each message of an answer (default: %(default)s)"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from yandexgpt.emulator import Emulator

    stopped = threading.Event()
    handlers = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            emulator = Emulator(host=arguments.host, port=arguments.port, tls=arguments.tls, delay=arguments.delay)
            emulator.start()
        except (OSError, ValueError, ImportError) as error:
            raise CommandError(f"cannot serve {arguments.host}:{arguments.port}: {_reason(error)}") from error
        with emulator:
            print(_describe(emulator), flush=True)
            while not stopped.wait(_WAKE_UP):
                pass
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    print("Stopped.", flush=True)
    return 0


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _describe(emulator: Emulator) -> str:
    variables = "\n".join(f"  export {name}={shlex.quote(value)}" for name, value in emulator.environment().items())
    security = "TLS" if emulator.tls else "plaintext"
    return f"""\
YandexGPT emulator on {emulator.endpoint} ({security})

  TextGenerationService        echoes the last user message, whole or streamed word by word;
                               the examples of Yandex Cloud's guides get the answers printed there
  TextGenerationAsyncService,  the same as an operation, to be asked for by its id
  OperationService
  TokenizerService             a token a word
  IamTokenService              tokens for the keys that a test program has made
  any other method             UNIMPLEMENTED

To point a program at it:

{variables}

Ctrl-C stops it."""
