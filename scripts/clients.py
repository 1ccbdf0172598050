"""Run other people's clients, unchanged, against the emulator: `make test-clients`.

    python scripts/clients.py [WORD ...]

Every client has an environment of its own, made for it and thrown away, with the versions in requirements/clients.txt,
and a program in tests/clients that prints a line for each feature seen working. It runs against an emulator in
plaintext and one with TLS. WORDs choose the clients whose names hold one of them. Last come the samples of Yandex
Cloud's guides, where those are at hand: see scripts/guides.py.
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
"""Environments made, and programs run, at the same time."""


@dataclass(frozen=True)
class Client:
    """Whose client it is, and what runs it.

    Attributes:
        program: the file in tests/clients.
        packages: what it needs, as named in requirements/clients.txt; without any, it runs where this script does.
        plaintext: whether it can do without TLS.
        command: what has to be on the machine.
        operation_time: seconds that asynchronous requests take: long enough for it to have to wait.
    """

    program: str
    packages: tuple[str, ...] = ()
    plaintext: bool = True
    command: str | None = None
    operation_time: float = 0.1


CLIENTS = {
    "langchain-community": Client("langchain_client.py", ("langchain-community", "yandexcloud"), plaintext=False),
    "yandex-ai-studio-sdk": Client("sdk_client.py", ("yandex-ai-studio-sdk", "yandexcloud", "pydantic")),
    "openai": Client("openai_client.py", ("openai", "pydantic"), operation_time=2.5),  # to be in time to cancel one
    "stubs of yandexcloud": Client("stubs_client.py", ("yandexcloud",)),
    "curl": Client("curl_client.py", command="curl"),
}


def main() -> int:
    """Run every client; return 0 if all went well."""
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
    """Run a client's program, in plaintext and with TLS; say what it has seen."""
    if client.command and shutil.which(client.command) is None:
        raise Failed(f"there is no {client.command} on this machine: install it")
    python = environment(place, pins(client.packages, "clients.txt")) if client.packages else sys.executable
    outcomes = [against_emulator(python, client, tls=tls) for tls in ([False, True] if client.plaintext else [True])]
    return "".join(f"\n       {outcome}" for outcome in outcomes) + "\n      "


def against_emulator(python: str, client: Client, *, tls: bool) -> str:
    """Run a program against an emulator of its own; return the features seen."""
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
