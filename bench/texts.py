"""The requests and answers for all clients. This module imports only the standard library."""

from __future__ import annotations

import os

HURRY = float(os.environ.get("BENCH_HURRY", "1"))
"""The factor by which answers with fixed intervals, and slow readers, are faster: for a quick run."""

FOLDER = "b1g0123456789abcdefg"
KEY = "a-key-of-a-service-account"
MODEL = "yandexgpt-lite"
SYSTEM = "Ты отвечаешь коротко."
PROMPT = "Расскажи о Байкале."
TEMPERATURE = 0.3
MAX_TOKENS = 500
TIMEOUT_SECONDS = 60.0

WORDS = "Байкал — самое глубокое озеро на планете, и вода в нём прозрачна на сорок метров. "
PARTIALS = 100
MANY_PARTIALS = 1_000


def repeated(characters: int) -> str:
    """A text of this length in characters; a Cyrillic letter takes two bytes."""
    return (WORDS * (characters // len(WORDS) + 1))[:characters]


TEXT = repeated(1_100)
"""Some 2 KB."""
LONG = repeated(11_000)
"""Some 20 KB."""


FIRST_CHARACTERS = len(LONG) // PARTIALS
FIRST = LONG[:FIRST_CHARACTERS]
"""The first of its partials."""


def growing(text: str, partials: int) -> list[str]:
    """The text as the service sends it: each partial contains the whole text so far."""
    return [text[: len(text) * n // partials] for n in range(1, partials + 1)]


def pieces(text: str, partials: int) -> list[str]:
    """The text as an OpenAI-compatible service sends it: each piece contains only new text."""
    return [text[len(text) * (n - 1) // partials : len(text) * n // partials] for n in range(1, partials + 1)]
