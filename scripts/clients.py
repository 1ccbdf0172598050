"""Run third-party clients, unchanged, against the emulator: `make test-clients`.

    python scripts/clients.py [WORD ...]

Every client has a temporary environment with the versions in requirements/clients.txt, and a program in tests/clients
that prints a line for each feature that works. The program runs against an emulator in plaintext and one with TLS.
WORDs select the clients whose names contain one of them. The samples of Yandex Cloud's guides run last, if the guides
are available: see scripts/guides.py.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import guides
from compat import ROOT, Failed, cleared, environment, pins, report, run
from tunnel import Tunnel

from yandexgpt.emulator import Emulator

PROGRAMS = ROOT / "tests" / "clients"
AT_ONCE = 3
"""The number of clients that are checked at the same time."""


@dataclass(frozen=True)
class Client:
    """A client, and its program.

    Attributes:
        program: the file in tests/clients.
        packages: the packages to install, as named in requirements/clients.txt; none: the current interpreter is used.
        plaintext: whether it works without TLS.
        command: a command that must be installed on the machine.
        operation_time: seconds that asynchronous requests take: long enough that the client has to wait.
    """

    program: str
    packages: tuple[str, ...] = ()
    plaintext: bool = True
    command: str | None = None
    operation_time: float = 0.1


CLIENTS = {
    "langchain-community": Client("langchain_client.py", ("langchain-community", "yandexcloud"), plaintext=False),
    "yandex-ai-studio-sdk": Client("sdk_client.py", ("yandex-ai-studio-sdk", "yandexcloud", "pydantic")),
    "openai": Client("openai_client.py", ("openai", "pydantic"), operation_time=2.5),  # enough time to cancel one
    "stubs of yandexcloud": Client("stubs_client.py", ("yandexcloud",)),
    "curl": Client("curl_client.py", command="curl"),
}


def main() -> int:
    """Run every client; return 0 if no check failed."""
    words = sys.argv[1:]
    checks: dict[str, Callable[[Path], str]] = {
        name: lambda place, client=client: check(place, client)  # type: ignore[misc]
        for name, client in CLIENTS.items()
    }
    checks["the guides' samples"] = lambda place: guides.check(place, pins(guides.PACKAGES, "clients.txt"))
    chosen = {name: check for name, check in checks.items() if not words or any(word in name for word in words)}
    if not chosen:
        sys.exit(f"clients: {' '.join(words)!r} is in none of the names: {', '.join(checks)}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return 0 if all(list(pool.map(report, chosen.keys(), chosen.values()))) else 1


def check(place: Path, client: Client) -> str:
    """Run a client's program, in plaintext and with TLS; return the features that work."""
    if client.command and shutil.which(client.command) is None:
        raise Failed(f"there is no {client.command} on this machine: install it")
    python = environment(place, pins(client.packages, "clients.txt")) if client.packages else sys.executable
    outcomes = [against_emulator(python, client, tls=tls) for tls in ([False, True] if client.plaintext else [True])]
    return "".join(f"\n       {outcome}" for outcome in outcomes) + "\n      "


def against_emulator(python: str, client: Client, *, tls: bool) -> str:
    """Run a program against a new emulator; return the features that work."""
    name = "TLS" if tls else "plaintext"
    emulator = Emulator(
        tls=tls, http_port=0, authorization="Api-Key test-clients", operation_time=client.operation_time
    )
    with emulator, Tunnel(emulator.endpoint) as tunnel:
        variables = {
            **cleared(),
            **emulator.environment(),
            "EMULATOR_HTTP_URL": emulator.http_url,
            "EMULATOR_IAM_TOKEN": emulator.identity.issue(),
            "EMULATOR_OAUTH_TOKEN": emulator.identity.oauth_token(),
            "grpc_proxy": tunnel.url,
            "no_grpc_proxy": "127.0.0.1",
        }
        try:
            seen = run([python, str(PROGRAMS / client.program)], variables=variables).splitlines()
        except Failed as failed:
            raise Failed(f"{name}: {failed}") from failed
        if not seen or not emulator.requests:
            raise Failed(f"{name}: {len(seen)} features seen, {len(emulator.requests)} calls received")
        return f"{name}: {len(emulator.requests)} calls: {'; '.join(seen)}"


if __name__ == "__main__":
    sys.exit(main())
