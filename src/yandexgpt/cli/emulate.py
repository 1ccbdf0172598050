"""``yandexgpt emulate``: the emulator as a separate process."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.util
import os
import queue
import shlex
import signal
from typing import TYPE_CHECKING, Any

from yandexgpt._concurrency.threads import SIGNAL_CHECK_INTERVAL

if TYPE_CHECKING:
    from yandexgpt.emulator import Emulator

__all__ = ["CommandError", "add_parser"]

_DEFAULT_PORT = 50051
_DEFAULT_HTTP_PORT = 8080
_NO_HTTP = -1
_HTTP_PACKAGES = ("starlette", "uvicorn")
_INSTALL = "pip install 'yandexgpt[emulator]'"
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that stop the command."""
_HELP = "serve an emulator of the text-generation service until Ctrl-C"
_REQUIRED_FLAGS = {
    "record": "upstream",
    "upstream_plaintext": "upstream",
    "upstream_ca": "upstream",
    "no_texts": "record",
    "match": "replay",
}
"""Flags that require another flag."""

_ACCOUNT_VARIABLES = ("API_KEY", "FOLDER_ID", "OPENAI_API_KEY", "OPENAI_PROJECT_ID")
"""Variables with the emulator's key and folder. With an upstream the user must set them: they are passed on to it."""


class CommandError(Exception):
    """The command cannot be run; the message is one line for the user."""


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command ``emulate`` to the parser."""
    parser = commands.add_parser("emulate", help=_HELP, description=f"{_HELP[0].upper()}{_HELP[1:]}.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=_DEFAULT_PORT, help="port of gRPC, 0 for a free one (default: %(default)s)")
    http = parser.add_mutually_exclusive_group()
    http.add_argument(
        "--http-port",
        type=int,
        help=f"port of REST and OpenAI's interface, 0 for a free one, {_NO_HTTP} for none "
        f"(default: {_DEFAULT_HTTP_PORT}, or none where the extra yandexgpt[emulator] is not installed)",
    )
    http.add_argument("--no-http", action="store_true", help="gRPC only")
    add("--tls", action="store_true", help="serve TLS, with a certificate made for this run")
    add("--delay", type=float, default=0.05, help="seconds before each message of an answer (default: %(default)s)")
    add(
        "--operation-time",
        type=float,
        default=1.0,
        help="seconds that an asynchronous request takes, besides the delay (default: %(default)s)",
    )
    add(
        "--script",
        metavar="FILE",
        help="rules for answers and faults: YAML, or Python with a function script(emulator)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--upstream", metavar="HOST:PORT", help="forward every call to this gRPC service")
    source.add_argument("--replay", metavar="FILE", help="answer from a file that --record wrote")
    add("--record", metavar="FILE", help="write the forwarded calls into this file")
    add("--no-texts", action="store_true", help="leave the texts of prompts and answers out of it")
    security = parser.add_mutually_exclusive_group()
    security.add_argument("--upstream-plaintext", action="store_true", help="the upstream does not speak TLS")
    security.add_argument(
        "--upstream-ca", metavar="FILE", help="PEM file of the authority that the upstream is trusted by"
    )
    add(
        "--match",
        choices=("request", "order"),
        help="how a call finds its answer in the replayed file (default: request)",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # Not an Event: a handler may interrupt `Event.wait` while that holds the lock that `Event.set` acquires.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    handlers = {each: signal.signal(each, lambda number, _: signals.put(number)) for each in _STOP_SIGNALS}
    try:
        with _start_emulator(arguments) as emulator:
            print(_describe(emulator, arguments), flush=True)
            while True:
                with contextlib.suppress(queue.Empty):
                    signals.get(timeout=SIGNAL_CHECK_INTERVAL)
                    break
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    print("Stopped.", flush=True)
    return 0


def _start_emulator(arguments: argparse.Namespace) -> Emulator:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # it logs each connection that closes with calls in flight
    from yandexgpt.emulator import Emulator

    try:
        emulator = Emulator(**_emulator_arguments(arguments))
        if arguments.script is not None:
            emulator.load_script(arguments.script)
        return emulator.start()
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise CommandError(" ".join(_describe_error(error, arguments).split())) from error


def _emulator_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of :class:`Emulator`."""
    for flag, needed in _REQUIRED_FLAGS.items():
        if getattr(arguments, flag) and not getattr(arguments, needed):
            raise ValueError(f"{_flag(flag)} needs {_flag(needed)}")
    keywords = {name: getattr(arguments, name) for name in ("host", "port", "tls", "delay", "operation_time")}
    keywords["http_port"] = _http_port(arguments)
    given = {name: getattr(arguments, name) for name in ("upstream", "record", "replay", "match")}
    keywords.update({name: value for name, value in given.items() if value is not None})
    if arguments.upstream_plaintext or arguments.upstream_ca is not None:
        keywords["upstream_tls"] = arguments.upstream_ca or False
    if arguments.no_texts:
        keywords["record_texts"] = False
    return keywords


def _http_port(arguments: argparse.Namespace) -> int | None:
    if arguments.no_http or arguments.http_port == _NO_HTTP:
        return None
    if arguments.http_port is not None:
        return int(arguments.http_port)
    return _DEFAULT_HTTP_PORT if all(importlib.util.find_spec(name) for name in _HTTP_PACKAGES) else None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _describe_error(error: Exception, arguments: argparse.Namespace) -> str:
    """The message of an error, with advice."""
    if not isinstance(error, OSError):
        return str(error)
    from yandexgpt.emulator.server_sockets import address

    words = error.strerror or str(error)
    ports = {address(arguments.host, arguments.port): "--port (0: a free one)"}
    if arguments.http_port != 0:
        http_port = arguments.http_port or _DEFAULT_HTTP_PORT
        ports[address(arguments.host, http_port)] = "--http-port (0: a free one; --no-http: none)"
    where = error.filename or address(arguments.host, arguments.port)
    if where not in ports:
        return f"{where}: {words}"
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        return f"cannot listen on {where}: {words}; choose another port with {ports[where]}"
    return f"cannot listen on {where}: {words}; --host takes an address of this machine, such as 127.0.0.1"


def _describe(emulator: Emulator, arguments: argparse.Namespace) -> str:
    variables = emulator.environment()
    own = ""
    if arguments.upstream is not None:
        variables = {name: value for name, value in variables.items() if name not in _ACCOUNT_VARIABLES}
        own = " (with a key and a folder of your own: they are passed on)"
    exports = "\n".join(f"  export {name}={shlex.quote(value)}" for name, value in variables.items())
    return f"""\
YandexGPT emulator ({"TLS" if emulator.tls else "plaintext"})

  gRPC    {emulator.endpoint}
{_describe_http(emulator, arguments)}

{_describe_answers(arguments)}

To point a program at it{own}:

{exports}

Ctrl-C stops it."""


def _describe_http(emulator: Emulator, arguments: argparse.Namespace) -> str:
    if _http_port(arguments) is None:
        why = "" if arguments.http_port is not None or arguments.no_http else f": {_INSTALL}"
        return f"  no REST, no OpenAI interface{why}"
    return f"""\
  REST    {emulator.http_url} (described in {emulator.http_url}/openapi.json)
  OpenAI  {emulator.http_url}/v1"""


def _describe_answers(arguments: argparse.Namespace) -> str:
    if arguments.upstream is not None:
        security = "in plaintext" if arguments.upstream_plaintext else "over TLS"
        lines = [f"  every call is forwarded to {arguments.upstream} {security}"]
        if arguments.record is not None:
            lines.append(f"  and written to {arguments.record}{', without texts' if arguments.no_texts else ''}")
        return "\n".join(lines)
    if arguments.replay is not None:
        how = "in its order" if arguments.match == "order" else "found by the request"
        return f"  answers from {arguments.replay}, {how}"
    scripted = f"answers by the rules of {arguments.script}; otherwise it\n" + " " * 31 if arguments.script else ""
    return f"""\
  TextGenerationService        {scripted}echoes the last user message, whole or streamed word by word;
                               the examples of Yandex Cloud's guides get the answers printed there
  TextGenerationAsyncService,  the same as an operation, to be asked for by its id
  OperationService
  TokenizerService             a token a word
  IamTokenService              tokens for the keys that a test program has made
  ApiEndpointService           this address for every service
  any other method             UNIMPLEMENTED"""
