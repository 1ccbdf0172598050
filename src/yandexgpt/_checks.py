"""Checks of arguments that several modules use."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence

from yandexgpt.errors import ConfigurationError

__all__ = ["Metadata", "carries_secret", "check_metadata", "check_seconds", "check_secret", "grpc_timeout"]

Metadata = Sequence[tuple[str, str | bytes]]
"""Metadata of a call, as gRPC takes it: pairs of a lower-case key and a value."""


def check_seconds(name: str, value: float | None) -> None:
    """Check a time span: a number of seconds greater than 0, at most ``threading.TIMEOUT_MAX``; or None.

    Args:
        name: the name of the argument, for the error.

    Raises:
        ValueError: it is not a time span.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= threading.TIMEOUT_MAX:
        raise ValueError(f"{name} must be a number of seconds greater than 0, or None, got {value!r}")


MAX_GRPC_TIMEOUT = 1e9
"""The longest timeout that is passed to gRPC, in seconds (31 years). gRPC counts the nanoseconds from 1970 to a
deadline in 64 bits, which overflow in 2262: a later deadline passes at once."""


def grpc_timeout(seconds: float | None) -> float | None:
    """The timeout limited to :data:`MAX_GRPC_TIMEOUT`; None stays None."""
    return seconds if seconds is None else min(seconds, MAX_GRPC_TIMEOUT)


_METADATA_KEY = re.compile(r"[a-z0-9_.-]+")


def check_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata as a tuple of pairs. Errors do not show values: a value may be a secret.

    Raises:
        ValueError: gRPC cannot carry a key or a value.
    """
    if isinstance(metadata, Mapping):
        raise ValueError("metadata must be pairs of key and value, got a mapping: pass metadata.items()")
    pairs = tuple(metadata)
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise ValueError("metadata must be pairs of key and value")
        key, value = pair
        if not isinstance(key, str) or not _METADATA_KEY.fullmatch(key):
            raise ValueError(f"metadata key {key!r} may hold lower-case letters, digits and _ . - only")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ValueError(f"metadata value of {key!r} must be bytes, got {type(value).__name__}")
        elif not isinstance(value, str) or not all(" " <= character <= "~" for character in value):
            raise ValueError(f"metadata value of {key!r} must be a str of printable ASCII")
    return pairs


def carries_secret(metadata: Metadata) -> bool:
    """Whether the metadata holds ``authorization``."""
    return any(key == "authorization" for key, _ in metadata)


def check_secret(value: object, what: str) -> str:
    """The secret without leading and trailing white space.

    Args:
        value: the secret. No error shows it.
        what: its name, for the error.

    Raises:
        ConfigurationError: it is not a ``str``, it is empty, or gRPC metadata cannot carry it.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{what} must be a str, got {type(value).__name__}")
    value = value.strip()
    if not value:
        raise ConfigurationError(f"{what} is empty")
    for position, character in enumerate(value):
        if not " " <= character <= "~":
            raise ConfigurationError(
                f"{what} holds a character at position {position} that gRPC metadata cannot carry: only printable "
                "ASCII is allowed"
            )
    return value
