"""A raw HTTP client for the OpenAI API of an emulator; it uses only the standard library."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from driver import PATIENCE

from yandexgpt.emulator import Emulator

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MODEL = "gpt://folder/yandexgpt/latest"
KEY = {"Authorization": "Bearer key"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.body["error"]
        return error

    @property
    def blamed(self) -> tuple[int, str | None, str | None]:
        """The status, and the invalid parameter."""
        return self.status, self.error["code"], self.error["param"]


class Event(NamedTuple):
    name: str | None
    data: Any


class Stream:
    """Server-sent events, read incrementally."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.connection = connection
        self.response = response

    def __iter__(self) -> Iterator[Event]:
        lines: dict[str, str] = {}
        while line := self.response.readline().decode():
            if line != "\n":
                name, _, value = line.rstrip("\n").partition(": ")
                assert name in ("event", "data"), line
                assert name not in lines, "a frame of one event ends in an empty line"
                lines[name] = value
                continue
            data = lines["data"]
            yield Event(lines.get("event"), data if data == "[DONE]" else json.loads(data))
            lines.clear()
        assert not lines, "the last frame ends in an empty line"

    def next(self) -> Event:
        return next(iter(self))


class OpenAiApi:
    """Requests to an emulator's ``http_url``."""

    def __init__(self, emulator: Emulator) -> None:
        self._place = urlsplit(emulator.http_url).netloc

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPConnection:
        """A connection with a sent request. A body of bytes is sent unchanged, any other body as JSON."""
        connection = http.client.HTTPConnection(self._place, timeout=PATIENCE)
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, raw, KEY if headers is None else headers)
        return connection

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """The whole response."""
        connection = self.send(method, path, body, headers)
        try:
            response = connection.getresponse()
            assert response.getheader("content-type") == "application/json", response.read()
            return Answer(response.status, dict(response.getheaders()), json.loads(response.read()))
        finally:
            connection.close()

    def chat(self, prompt: Any = "раз два три", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        return self.ask("POST", CHAT, chat_body(prompt, **fields), headers)

    def respond(self, prompt: Any = "раз два три", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        return self.ask("POST", RESPONSES, {"model": MODEL, "input": prompt, **fields}, headers)

    @contextmanager
    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Stream]:
        connection = self.send("POST", path, {**body, "stream": True})
        try:
            response = connection.getresponse()
            assert response.status == 200, response.read()
            assert response.getheader("content-type", "").startswith("text/event-stream")
            yield Stream(connection, response)
        finally:
            connection.close()

    def chunks(self, prompt: Any = "раз два три", **fields: Any) -> list[Any]:
        """The data of every event of a streamed chat."""
        with self.stream(CHAT, chat_body(prompt, **fields)) as stream:
            events = list(stream)
        assert {event.name for event in events} == {None}
        return [event.data for event in events]

    def events(self, prompt: Any = "раз два три", **fields: Any) -> list[dict[str, Any]]:
        """The data of every event of a streamed response."""
        with self.stream(RESPONSES, {"model": MODEL, "input": prompt, **fields}) as stream:
            events = list(stream)
        assert [event.name for event in events] == [event.data["type"] for event in events]
        assert [event.data["sequence_number"] for event in events] == list(range(len(events)))
        return [event.data for event in events]


def chat_body(prompt: Any = "раз два три", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {"model": MODEL, "messages": messages, **fields}


def deltas(chunks: list[Any]) -> list[str]:
    """The text deltas of a streamed chat."""
    pieces = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if choice_of(chunk)]
    return [piece for piece in pieces if piece]


def choice_of(chunk: Any) -> Any:
    return chunk["choices"][0] if isinstance(chunk, dict) and chunk.get("choices") else None
