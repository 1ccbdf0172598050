"""Both clients of the OpenAI SDK: Chat Completions, Responses, models; unary, streamed, in the background."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
from pydantic import BaseModel
from seen import CA, FOLDER, HTTP_URL, IAM_TOKEN, KEY, seen

MODEL = f"gpt://{FOLDER}/yandexgpt/latest"
PROMPT = [{"role": "system", "content": "Отвечай кратко"}, {"role": "user", "content": "раз два три"}]
TEXT = "раз два три"
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Погода в городе",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "strict": True,
}
CHAT_WEATHER = {"type": "function", "function": {key: WEATHER[key] for key in WEATHER if key != "type"}}
ARGUMENTS = {"city": "city", "days": 0}
"""The arguments that the emulator generates for the tool."""
LIMIT = 30.0
"""Timeout in seconds of a call, and of a background response."""


class Person(BaseModel):
    """The type of a structured answer."""

    name: str
    age: int


class Weather(BaseModel):
    """The arguments of a tool."""

    city: str


def main() -> None:
    """Run the checks of the synchronous client, then of the asynchronous one."""
    trusted = ssl.create_default_context(cafile=CA) if CA else True
    with openai.DefaultHttpxClient(verify=trusted) as http:
        client = openai.OpenAI(**settings(KEY), http_client=http)
        chat_completions(client)
        responses(client)
        around(client)
    asyncio.run(asynchronous(trusted))


def settings(key: str) -> Any:
    """The constructor arguments of both clients."""
    return {"base_url": f"{HTTP_URL}/v1", "api_key": key, "project": FOLDER, "timeout": LIMIT, "max_retries": 0}


def chat_completions(client: openai.OpenAI) -> None:
    """``client.chat.completions``."""
    create = client.chat.completions.create
    with seen("chat"):
        answer = create(model=MODEL, messages=PROMPT, temperature=0.3, max_tokens=100, user="somebody")
        choice = answer.choices[0]
        assert (choice.message.content, choice.message.role, choice.finish_reason) == (TEXT, "assistant", "stop"), (
            answer
        )
        assert answer.model == MODEL, answer
        assert answer.usage.completion_tokens_details.reasoning_tokens == 0, answer
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 3, 8)
        assert answer._request_id, answer
    with seen("chat: parts of text, developer, a bare model"):
        parts = [
            {"role": "developer", "content": "кратко"},
            {"role": "user", "content": [part("раз"), part("два")]},
        ]
        assert create(model="yandexgpt", messages=parts).choices[0].message.content == "раз\nдва"
    with seen("chat: max_completion_tokens"):
        cut = create(model=MODEL, messages=PROMPT, max_completion_tokens=2).choices[0]
        assert (cut.message.content, cut.finish_reason) == ("раз два", "length"), cut
    with seen("chat: stream"):
        with create(model=MODEL, messages=PROMPT, stream=True, stream_options={"include_usage": True}) as stream:
            chunks = list(stream)
        assert [chunk.choices[0].delta.content for chunk in chunks[1:4]] == ["раз", " два", " три"], chunks
        assert chunks[-2].choices[0].finish_reason == "stop", chunks
        assert chunks[-1].usage.total_tokens == 8, chunks
    with seen("chat: stream helper"), client.chat.completions.stream(model=MODEL, messages=PROMPT) as helped:
        text = "".join(event.delta for event in helped if event.type == "content.delta")
        assert (text, helped.get_final_completion().choices[0].message.content) == (TEXT, TEXT)
    with seen("chat: tools"):
        asked = create(model=MODEL, messages=PROMPT, tools=[CHAT_WEATHER], tool_choice="required").choices[0]
        calls = asked.message.tool_calls
        assert (asked.finish_reason, calls[0].type) == ("tool_calls", "function"), asked
        assert (calls[0].function.name, json.loads(calls[0].function.arguments)) == ("weather", ARGUMENTS), asked
        result = {"role": "tool", "tool_call_id": calls[0].id, "content": "+20"}
        answered = create(model=MODEL, messages=[*PROMPT, asked.message, result], tools=[CHAT_WEATHER])
        assert answered.choices[0].message.content == "+20", answered
    with seen("chat: tools, streamed"):
        named = {"type": "function", "function": {"name": "weather"}}
        with client.chat.completions.stream(
            model=MODEL, messages=PROMPT, tools=[CHAT_WEATHER], tool_choice=named
        ) as helped:
            done = [event for event in helped if event.type == "tool_calls.function.arguments.done"]
        assert [(event.name, json.loads(event.arguments)) for event in done] == [("weather", ARGUMENTS)], done
    with seen("chat: parse"):
        parsed = client.chat.completions.parse(model=MODEL, messages=PROMPT, response_format=Person).choices[0].message
        assert parsed.parsed == Person(name="name", age=0), parsed
    with seen("chat: parse, a tool by its model"):
        tool = openai.pydantic_function_tool(Weather)
        parsed_calls = (
            client.chat.completions.parse(model=MODEL, messages=PROMPT, tools=[tool], tool_choice="required")
            .choices[0]
            .message.tool_calls
        )
        assert parsed_calls[0].function.parsed_arguments == Weather(city="city"), parsed_calls
    with seen("chat: JSON"):
        plain = create(model=MODEL, messages=PROMPT, response_format={"type": "json_object"}).choices[0].message
        assert json.loads(plain.content) == {"answer": TEXT}, plain


def responses(client: openai.OpenAI) -> None:
    """``client.responses``."""
    create = client.responses.create
    with seen("responses"):
        answer = create(
            model=MODEL,
            input=TEXT,
            instructions="Отвечай кратко",
            temperature=0.8,
            max_output_tokens=1500,
            metadata={"what": "a test"},
        )
        assert (answer.status, answer.output_text, answer.output[0].content[0].text) == ("completed", TEXT, TEXT), (
            answer
        )
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3), answer
        assert (answer.instructions, answer.temperature, answer.metadata) == ("Отвечай кратко", 0.8, {"what": "a test"})
        assert answer._request_id, answer
    with seen("responses: retrieve"):
        assert client.responses.retrieve(answer.id) == answer
    with seen("responses: items, a conversation"):
        first = create(model=MODEL, input=[{"role": "user", "content": [{"type": "input_text", "text": "раз"}]}])
        following = create(model=MODEL, input="два", previous_response_id=first.id, store=False)
        assert (following.output_text, following.previous_response_id) == ("два", first.id), following
        assert following.usage.input_tokens == 3, following
        assert create(model=MODEL, input=[*PROMPT, *first.output, *PROMPT[1:]]).output_text == TEXT
    with seen("responses: max_output_tokens"):
        cut = create(model=MODEL, input=TEXT, max_output_tokens=2)
        assert (cut.status, cut.output_text) == ("incomplete", "раз два"), cut
        assert cut.incomplete_details.reason == "max_output_tokens", cut
    with seen("responses: stream"):
        with create(model=MODEL, input=TEXT, stream=True) as stream:
            events = list(stream)
        assert [event.sequence_number for event in events] == list(range(len(events))), events
        assert [event.delta for event in events if event.type == "response.output_text.delta"] == [
            "раз",
            " два",
            " три",
        ]
        assert (events[-1].type, events[-1].response.output_text) == ("response.completed", TEXT), events
        assert client.responses.retrieve(events[-1].response.id).output_text == TEXT
    with seen("responses: stream helper"), client.responses.stream(model=MODEL, input=TEXT) as helped:
        text = "".join(event.delta for event in helped if event.type == "response.output_text.delta")
        assert (text, helped.get_final_response().output_text) == (TEXT, TEXT)
    with seen("responses: tools"):
        asked = create(model=MODEL, input=TEXT, tools=[WEATHER], tool_choice="required")
        call = asked.output[0]
        assert (call.type, json.loads(call.arguments)) == ("function_call", ARGUMENTS), asked
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "+20"}
        answered = create(model=MODEL, input=[*PROMPT, call, result], tools=[WEATHER])
        assert answered.output_text == "+20", answered
        assert create(model=MODEL, input=[result], previous_response_id=asked.id).output_text == "+20"
    with seen("responses: tools, streamed"):
        named = {"type": "function", "name": "weather"}
        with client.responses.stream(model=MODEL, input=TEXT, tools=[WEATHER], tool_choice=named) as helped:
            done = [event for event in helped if event.type == "response.function_call_arguments.done"]
        assert [json.loads(event.arguments) for event in done] == [ARGUMENTS], done
    with seen("responses: parse, whole and streamed"):
        assert client.responses.parse(model=MODEL, input=TEXT, text_format=Person).output_parsed == Person(
            name="name", age=0
        )
        with client.responses.stream(model=MODEL, input=TEXT, text_format=Person) as helped:
            assert helped.get_final_response().output_parsed == Person(name="name", age=0)
    with seen("responses: background"):
        pending = create(model=MODEL, input=TEXT, background=True)
        assert pending.status in ("queued", "in_progress"), pending
        ended = until_ended(pending, client.responses.retrieve)
        assert (ended.id, ended.status, ended.output_text) == (pending.id, "completed", TEXT), ended
        assert create(model=MODEL, input="два", previous_response_id=ended.id).usage.input_tokens == 7
    with seen("responses: cancel"):
        pending = create(model=MODEL, input=TEXT, background=True)
        assert client.responses.cancel(pending.id).status == "cancelled"
        assert client.responses.retrieve(pending.id).status == "cancelled"


def until_ended(response: Any, retrieve: Callable[[str], Any]) -> Any:
    """Poll a background response, as the guides do, and return it when it has ended."""
    end = time.monotonic() + LIMIT
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < end, response
        time.sleep(0.02)
        response = retrieve(response.id)
    return response


def around(client: openai.OpenAI) -> None:
    """Models, credentials and errors."""
    with seen("models"):
        assert MODEL in [model.id for model in client.models.list()]
    with seen("IAM token"):
        answer = client.with_options(api_key=IAM_TOKEN).responses.create(model=MODEL, input="раз")
        assert answer.output_text == "раз", answer
    with seen("errors"):
        with failed(openai.AuthenticationError, 401, "invalid_api_key"):
            client.with_options(api_key="wrong").responses.create(model=MODEL, input="раз")
        with failed(openai.BadRequestError, 400, "invalid_value", "temperature"):
            client.responses.create(model=MODEL, input="раз", temperature=2)
        with failed(openai.BadRequestError, 400, "unsupported_parameter", "seed"):
            client.chat.completions.create(model=MODEL, messages=PROMPT, seed=1)
        with failed(openai.NotFoundError, 404, "not_found", "response_id"):
            client.responses.retrieve("resp_none")


@contextmanager
def failed(kind: type[openai.APIStatusError], status: int, code: str, param: str | None = None) -> Iterator[None]:
    """Fail if the block does not raise this error."""
    try:
        yield
    except kind as error:
        if (error.status_code, error.code, error.param) != (status, code, param) or not error.request_id:
            raise
    else:
        raise AssertionError(f"it did not end in {kind.__name__}")


async def asynchronous(trusted: ssl.SSLContext | bool) -> None:
    """Run fewer checks of the same features with the asynchronous client."""
    async with openai.DefaultAsyncHttpxClient(verify=trusted) as http:
        client = openai.AsyncOpenAI(**settings(KEY), http_client=http)
        create = client.chat.completions.create
        with seen("async: chat, streamed, several at once"):
            stream = await create(model=MODEL, messages=PROMPT, stream=True)
            said = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            assert "".join(said) == TEXT, said
            answers = await asyncio.gather(*(create(model=MODEL, messages=PROMPT) for _ in range(10)))
            assert {answer.choices[0].message.content for answer in answers} == {TEXT}, answers
        with seen("async: parse"):
            parsed = await client.chat.completions.parse(model=MODEL, messages=PROMPT, response_format=Person)
            assert parsed.choices[0].message.parsed == Person(name="name", age=0), parsed
        with seen("async: responses, streamed, parsed"):
            assert (await client.responses.create(model=MODEL, input=TEXT)).output_text == TEXT
            async with client.responses.stream(model=MODEL, input=TEXT) as helped:
                types = [event.type async for event in helped]
            assert (types[0], types[-1]) == ("response.created", "response.completed"), types
            person = await client.responses.parse(model=MODEL, input=TEXT, text_format=Person)
            assert person.output_parsed == Person(name="name", age=0), person
        with seen("async: background"):
            assert (await asyncio.wait_for(in_background(client), LIMIT)).output_text == TEXT


async def in_background(client: openai.AsyncOpenAI) -> Any:
    """Poll a background response and return it when it has ended."""
    response = await client.responses.create(model=MODEL, input=TEXT, background=True)
    while response.status in ("queued", "in_progress"):
        await asyncio.sleep(0.02)
        response = await client.responses.retrieve(response.id)
    return response


def part(text: str) -> Any:
    """A text part of a message."""
    return {"type": "text", "text": text}


if __name__ == "__main__":
    main()
