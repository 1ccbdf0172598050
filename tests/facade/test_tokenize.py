"""Tokens of a text and of a prompt, and prompts above the limit."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest
from driver import FOREVER, Background, ClientFactory, deadline_of, until

import yandexgpt
from yandexgpt import PromptTooLongError, Token
from yandexgpt.emulator import Emulator

TOKENIZE = "/yandex.cloud.ai.foundation_models.v1.TokenizerService/Tokenize"
TOKENIZE_PROMPT = "/yandex.cloud.ai.foundation_models.v1.TokenizerService/TokenizeCompletion"
MESSAGES = [{"role": "system", "text": "Переведи текст"}, {"role": "user", "text": "To be, or not to be"}]


def methods(emulator: Emulator) -> list[str]:
    return [request.method.rpartition("/")[-1] for request in emulator.requests]


def test_text_is_tokenized(client: Any, emulator: Emulator) -> None:
    tokens = client.tokenize("раз  два\nтри")
    assert [token.text for token in tokens] == ["раз", "  два", "\nтри"]
    assert all(isinstance(token, Token) and token.id > 0 and not token.special for token in tokens)
    request = emulator.requests[-1]
    assert (request.method, request.message.text) == (TOKENIZE, "раз  два\nтри")
    assert request.message.model_uri == "gpt://emulator/yandexgpt-lite"


def test_prompt_is_tokenized_with_system_message_and_roles(client: Any, emulator: Emulator) -> None:
    assert client.count_tokens(MESSAGES) == 8
    request = emulator.requests[-1]
    assert request.method == TOKENIZE_PROMPT
    assert [message.role for message in request.message.messages] == ["system", "user"]
    assert client.count_tokens(request.message) == 8
    assert client.count_tokens("To be, or not to be", system="Переведи текст") == 8
    assert methods(emulator) == ["TokenizeCompletion"] * 3


def test_token_count_equals_the_usage(client: Any) -> None:
    for prompt in (MESSAGES, [yandexgpt.Message("user", "один"), client.complete("два три")]):
        assert client.count_tokens(prompt) == client.complete(prompt).usage.input_tokens


def test_token_count_equals_the_usage_in_a_guide(client: Any) -> None:
    prompt = [
        {"role": "system", "text": "Переведи текст"},
        {"role": "user", "text": "To be, or not to be: that is the question."},
    ]
    tokens = client.tokenize(prompt, model="yandexgpt")
    assert len(tokens) == client.complete(prompt, model="yandexgpt").usage.input_tokens > 12
    assert any(token.special and not token.text for token in tokens)
    assert "".join(token.text for token in tokens) == "Переведи текстTo be, or not to be: that is the question."


def test_call_options_are_sent(client: Any, emulator: Emulator) -> None:
    client.tokenize("раз", model="yandexgpt/rc", timeout=5, request_id="mine", metadata=(("a", "b"),))
    request = emulator.requests[-1]
    assert request.message.model_uri == "gpt://emulator/yandexgpt/rc"
    assert request.metadata["x-client-request-id"] == "mine"
    assert request.metadata["a"] == "b"
    assert deadline_of(request) <= 5.1
    weather = {"name": "weather", "description": "", "parameters": {"type": "object"}}
    client.count_tokens("раз", tools=[weather])
    assert emulator.requests[-1].message.tools[0].function.name == "weather"


@pytest.mark.parametrize("prompt", ["", [], "\ud800"])
def test_invalid_prompt_is_rejected_before_sending(client: Any, emulator: Emulator, prompt: Any) -> None:
    with pytest.raises(ValueError, match="prompt"):
        client.tokenize(prompt)
    assert not emulator.requests


def test_failed_count_is_retried(client: Any, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE", times=2)
    assert client.count_tokens("раз два") == 2
    assert len(emulator.requests) == 3
    emulator.fail("INVALID_ARGUMENT", "no such model")
    with pytest.raises(yandexgpt.InvalidArgumentError, match="no such model"):
        client.tokenize("раз")


def test_emulator_rejects_invalid_tokenize_requests(client: Any) -> None:
    with pytest.raises(yandexgpt.InvalidArgumentError) as caught:
        client.tokenize("раз", model="nope://x")
    assert caught.value.details[0].field_violations[0].field == "model_uri"
    with pytest.raises(yandexgpt.AuthenticationError):
        client.with_options(credentials=yandexgpt.credentials.NoCredentials()).tokenize("раз")


def test_token_is_immutable(client: Any) -> None:
    (token,) = client.tokenize("раз")
    assert repr(token) == f"Token(id={token.id}, text='раз', special=False)"
    assert pickle.loads(pickle.dumps(token)) == token
    assert token.proto.text == "раз"
    with pytest.raises(AttributeError):
        token.text = "два"


# max_context_tokens


def test_prompt_within_the_limit_is_counted_and_sent(client: Any, emulator: Emulator) -> None:
    assert client.complete(MESSAGES, max_context_tokens=8).text == "To be, or not to be"
    assert client.complete(MESSAGES, max_tokens=2, max_context_tokens=10).truncated
    with client.stream(MESSAGES, max_context_tokens=8) as stream:
        assert stream.finish().text == "To be, or not to be"
    assert client.submit(MESSAGES, max_context_tokens=8).wait(5).text == "To be, or not to be"
    assert methods(emulator) == [*["TokenizeCompletion", "Completion"] * 4, "Get"]


@pytest.mark.parametrize(("max_tokens", "limit"), [(None, 7), (3, 10)])
def test_prompt_above_the_limit_is_not_sent(
    client: Any, emulator: Emulator, max_tokens: int | None, limit: int
) -> None:
    options = {"max_tokens": max_tokens, "max_context_tokens": limit}
    for call in (client.complete, client.submit, lambda *given, **named: client.stream(*given, **named).finish()):
        with pytest.raises(PromptTooLongError, match=f"8 tokens.*max_context_tokens={limit}") as caught:
            call(MESSAGES, **options)
        error = caught.value
        assert (error.tokens, error.max_tokens, error.max_context_tokens) == (8, max_tokens or 0, limit)
        assert isinstance(error, ValueError)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert methods(emulator) == ["TokenizeCompletion"] * 3


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "8"])
def test_invalid_limit_is_rejected(client: Any, emulator: Emulator, limit: Any) -> None:
    for call in (client.complete, client.submit, client.stream):
        with pytest.raises(ValueError, match="max_context_tokens must be"):
            call("раз", max_context_tokens=limit)
    assert not emulator.requests


def test_counting_uses_the_metadata_and_deadline_of_the_call(client: Any, emulator: Emulator) -> None:
    client.submit("раз", max_context_tokens=9, timeout=5, metadata=(("a", "b"),), request_id="mine")
    counting, submission = emulator.requests
    assert counting.metadata["a"] == submission.metadata["a"] == "b"
    assert deadline_of(counting) <= 5.1
    assert submission.metadata["x-client-request-id"] == "mine" != counting.metadata["x-client-request-id"]
    assert "idempotency-key" in submission.metadata
    assert "idempotency-key" not in counting.metadata


def test_deadline_covers_counting(client: Any, emulator: Emulator) -> None:
    emulator.fail("UNAVAILABLE", delay=FOREVER)
    with pytest.raises(yandexgpt.DeadlineExceededError):
        client.complete("раз", max_context_tokens=9, timeout=2.0)
    emulator.wait_for_requests(1)
    assert methods(emulator) == ["TokenizeCompletion"]


def test_close_cancels_counting(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator)
    emulator.fail("UNAVAILABLE", delay=FOREVER, times=2)
    stream = client.stream("раз", max_context_tokens=9)
    reading = Background(stream.finish)
    completing = Background(client.complete, "раз", max_context_tokens=9)
    emulator.wait_for_requests(2)
    stream.close()
    assert isinstance(reading.error(), yandexgpt.CancelledError)
    client.close()
    assert isinstance(completing.error(), yandexgpt.CancelledError)
    assert {request.wait() for request in emulator.requests} == {"CANCELLED"}
    assert set(methods(emulator)) == {"TokenizeCompletion"}


def test_stream_closed_before_reading_counts_nothing(client: Any, emulator: Emulator) -> None:
    client.stream("раз", max_context_tokens=9).close()
    assert client.complete("раз").text == "раз"
    assert methods(emulator) == ["Completion"]


def test_counting_is_not_limited_by_max_concurrency(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, max_concurrency=1)
    emulator.reply("долго", delay=FOREVER)
    Background(client.complete, "раз")
    emulator.wait_for_requests(1)
    counted = threading.Event()

    def refused() -> None:
        with pytest.raises(PromptTooLongError):
            client.complete("раз два", max_context_tokens=1)
        counted.set()

    Background(refused).result()
    until(counted.is_set)
    client.close()
