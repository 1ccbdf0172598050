"""The environments of the other clients. They are separate, because their dependencies may exclude each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements" / "bench.txt"
RIVALS = {"sdk": "yandex-ai-studio-sdk", "openai": "openai"}
"""By environment: the package that it is made for."""


def interpreter(name: str) -> str:
    """The interpreter of an environment. It is created on first use, and again if the pinned version has changed.

    Args:
        name: a key of :data:`RIVALS`; empty: the current interpreter.

    Raises:
        subprocess.CalledProcessError: the environment could not be created.
    """
    if not name:
        return sys.executable
    place = ROOT / ".cache" / "bench" / name
    executable, stamp, pin = place / "bin" / "python", place / "pin", pins()[RIVALS[name]]
    if not stamp.exists() or stamp.read_text() != pin:
        print(f"installing {pin} into {place.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", pin]
        subprocess.run([str(executable), *install], check=True)
        stamp.write_text(pin)
    return str(executable)


def pins() -> dict[str, str]:
    """By package: the requirement."""
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()]
    return {line.partition("==")[0]: line for line in lines if line}
