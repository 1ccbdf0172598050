"""Chats: the history grows only by complete turns."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import Background, ClientFactory, stall_after
from hypothesis import given
from hypothesis import strategies as st

import yandexgpt
from yandexgpt._features.history import longest_fitting_history
from yandexgpt._messages import Message, ToolResult
from yandexgpt._request import CompletionRequest
from yandexgpt.emulator import Emulator

CALL = [{"name": "weather", "arguments": {"city": "Тула", "days": 3}}]


@yandexgpt.tool
def weather(city: str, days: int = 1) -> str:
    """Current weather in a city."""
    return f"{city}: {days}"


def roles_and_texts(chat: Any) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in chat.messages]


def chat_from_dict(client: Any, data: Any) -> Any:
    return client.chat_from_dict(data) if hasattr(client, "chat_from_dict") else yandexgpt.Chat.from_dict(client, data)


@pytest.fixture
def chat(client: Any) -> Any:
    return client.chat(system="Ты умный ассистент")


def test_send_includes_all_earlier_turns(chat: Any, emulator: Emulator) -> None:
    emulator.reply("Физикой", usage={"input_tokens": 5, "completion_tokens": 7, "total_tokens": 12})
    emulator.reply(
        "Наукой", usage={"input_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "reasoning_tokens": 1}
    )
    assert chat.send("Чем занимался Эйнштейн?").text == "Физикой"
    assert chat.send("Сократи свой ответ").text == "Наукой"
    history = [
        ("system", "Ты умный ассистент"),
        ("user", "Чем занимался Эйнштейн?"),
        ("assistant", "Физикой"),
        ("user", "Сократи свой ответ"),
    ]
    assert [(message.role, message.text) for message in emulator.requests[1].message.messages] == history
    assert roles_and_texts(chat) == [*history, ("assistant", "Наукой")]
    assert isinstance(chat.messages, tuple)
    usage = chat.usage
    assert (usage.input_tokens, usage.completion_tokens, usage.total_tokens, usage.reasoning_tokens) == (14, 8, 22, 1)
    assert repr(chat).endswith("Chat(model='gpt://emulator/yandexgpt-lite', messages=5)")


def test_new_chat_is_empty_and_makes_no_request(client: Any, emulator: Emulator) -> None:
    chat = client.chat()
    assert chat.messages == ()
    assert chat.usage.total_tokens == 0
    assert not emulator.requests


def test_chat_options_apply_to_every_turn_and_turn_options_to_one(client: Any, emulator: Emulator) -> None:
    chat = client.chat(model="yandexgpt", temperature=0, max_tokens=50, reasoning="hidden", response_format="json")
    chat.send("Раз")
    chat.send("Два", model="other/rc", temperature=1, max_tokens=5, metadata=[("x-a", "b")], timeout=5)
    chat.send("Три")
    first, second, third = (each.message for each in emulator.requests)
    assert [each.model_uri.rpartition("emulator/")[2] for each in (first, second, third)] == [
        "yandexgpt",
        "other/rc",
        "yandexgpt",
    ]
    assert [each.completion_options.temperature.value for each in (first, second, third)] == [0, 1, 0]
    assert [each.completion_options.max_tokens.value for each in (first, second, third)] == [50, 5, 50]
    assert all(each.json_object and each.completion_options.reasoning_options.mode for each in (first, second, third))
    assert emulator.requests[1].metadata.get("x-a") == "b"


def test_chat_continues_given_messages(client: Any, emulator: Emulator) -> None:
    answer = client.complete("Привет")
    chat = client.chat(system="Кратко", messages=[{"role": "user", "text": "Привет"}, answer])
    assert roles_and_texts(chat) == [("system", "Кратко"), ("user", "Привет"), ("assistant", "Привет")]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"temperature": 2}, ValueError, "temperature must be a number from 0 to 1"),
        ({"messages": [{"role": "bot", "text": "a"}]}, ValueError, r"prompt\[0\]"),
        ({"messages": "text"}, TypeError, r"prompt\[0\]"),
        ({"system": "a", "messages": [{"role": "system", "text": "b"}]}, ValueError, "system must not be given"),
        ({"model": "gpt://<folder>/yandexgpt"}, ValueError, "placeholder"),
    ],
)
def test_invalid_options_are_rejected_when_the_chat_is_created(
    client: Any, options: Any, error: Any, words: str
) -> None:
    with pytest.raises(error, match=words):
        client.chat(**options)


@pytest.mark.parametrize("text", ["", None, 5, ["a"], Message("system", "a"), Message("assistant", "a"), "\ud83d"])
@pytest.mark.parametrize("method", ["send", "stream", "ask"])
def test_invalid_text_of_a_turn_is_rejected(chat: Any, emulator: Emulator, text: Any, method: str) -> None:
    tools: list[list[Any]] = [[]] if method == "ask" else []
    with pytest.raises(ValueError, match="text"):
        getattr(chat, method)(text, *tools)
    assert not emulator.requests
    assert chat.send("Привет").text == "Привет"


# Failed turns


def test_failed_turn_does_not_change_the_history(chat: Any, emulator: Emulator) -> None:
    chat.send("Раз")
    before, usage = chat.to_dict(), chat.usage
    emulator.fail("INTERNAL")
    with pytest.raises(yandexgpt.InternalServerError):
        chat.send("Два")
    with pytest.raises(ValueError, match="temperature"):
        chat.send("Два", temperature=7)
    with pytest.raises(ValueError, match="temperature"):
        chat.stream("Два", temperature=7)
    with pytest.raises(TypeError, match="colour"):
        chat.send("Два", colour=7)
    assert chat.to_dict() == before
    assert chat.usage == usage
    chat.send("Три")
    assert roles_and_texts(chat)[3:] == [("user", "Три"), ("assistant", "Три")]


@pytest.mark.parametrize("status", ["TRUNCATED", "CONTENT_FILTER", 77])
@pytest.mark.parametrize("stream", [False, True])
def test_truncated_or_filtered_answer_is_added_to_the_history(
    chat: Any, emulator: Emulator, status: Any, stream: bool
) -> None:
    emulator.reply("Обры", status=status)
    completion = chat.stream("Раз").finish() if stream else chat.send("Раз")
    assert completion.text == "Обры"
    assert roles_and_texts(chat)[1:] == [("user", "Раз"), ("assistant", "Обры")]


def test_answer_without_content_is_added_to_the_history(chat: Any, emulator: Emulator) -> None:
    emulator.reply(None)
    chat.send("Раз")
    chat.send("Два")
    assert roles_and_texts(chat)[1:] == [("user", "Раз"), ("assistant", ""), ("user", "Два"), ("assistant", "Два")]


def test_cancelled_turn_does_not_change_the_history(emulator: Emulator) -> None:
    async def main() -> None:
        async with emulator.async_client() as client:
            chat = client.chat()
            stall_after(emulator, 0)
            turn = asyncio.ensure_future(chat.send("Раз"))
            await asyncio.to_thread(emulator.wait_for_requests, 1)
            with pytest.raises(yandexgpt.YandexGPTError, match="another turn of this chat is under way"):
                await chat.send("Два")
            turn.cancel()
            with pytest.raises(asyncio.CancelledError):
                await turn
            assert chat.messages == ()

            emulator.reply("раз два три", partials=["раз", "раз два"], delay=0.01)
            stream = chat.stream("Раз")
            await anext(stream)
            reader = asyncio.ensure_future(stream.finish())
            await asyncio.sleep(0)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert (await chat.send("Два")).text == "Два"
            assert len(chat.messages) == 2

    asyncio.run(main())


def test_concurrent_turns_are_an_error(chat: Any, gate: threading.Event, emulator: Emulator) -> None:
    emulator.reply("Раз")
    first = Background(chat.send, "Первый")
    emulator.wait_for_requests(1)
    attempts: list[Callable[[], Any]] = [
        lambda: chat.send("Второй"),
        lambda: chat.stream("Второй"),
        lambda: chat.ask("Второй", []),
        lambda: chat.trim(5),
    ]
    for attempt in attempts:
        with pytest.raises(yandexgpt.YandexGPTError, match="another turn of this chat is under way"):
            attempt()
    gate.set()
    assert first.result().text == "Раз"
    assert len(emulator.requests) == 1
    chat.send("Третий")
    assert [text for _, text in roles_and_texts(chat)[1:]] == ["Первый", "Раз", "Третий", "Третий"]


# Streams


def test_completely_read_stream_is_added_to_the_history(chat: Any, emulator: Emulator) -> None:
    emulator.reply("Привет, мир", partials=["Прив", "Превед", "Привет, м\N{REPLACEMENT CHARACTER}"])
    shown = ""
    with chat.stream("Раз", temperature=0.5) as stream:
        assert len(chat.messages) == 1
        for chunk in stream:
            shown = shown[: chunk.keep] + chunk.delta
            assert shown == chunk.text
            assert len(chat.messages) == 1
    assert shown == stream.completion.text == "Привет, мир"
    assert roles_and_texts(chat)[1:] == [("user", "Раз"), ("assistant", "Привет, мир")]
    assert chat.usage == stream.completion.usage
    assert emulator.requests[0].message.completion_options.stream
    assert list(stream) == []
    assert len(chat.messages) == 3
    assert chat.to_dict()["completionOptions"] == {"stream": False}


@pytest.mark.parametrize("read", [lambda stream: stream.finish(), lambda stream: list(stream.text())])
def test_finish_and_text_add_the_turn_to_the_history(chat: Any, read: Any) -> None:
    read(chat.stream("раз два"))
    assert roles_and_texts(chat)[1:] == [("user", "раз два"), ("assistant", "раз два")]


@pytest.mark.parametrize("text", ["раз \N{REPLACEMENT CHARACTER}", "раз"])
def test_stream_without_a_final_message_is_added_to_the_history(chat: Any, emulator: Emulator, text: str) -> None:
    emulator.reply("не сказано", partials=[text], final=False)
    assert chat.stream("Раз").finish().text == text
    assert roles_and_texts(chat)[1:] == [("user", "Раз"), ("assistant", text)]


def closed(stream: Any) -> None:
    next(stream)
    stream.close()


def left(stream: Any) -> None:
    with stream:
        next(stream)


def never_read(stream: Any) -> None:
    stream.close()


def broken(stream: Any) -> None:
    with pytest.raises(yandexgpt.UnavailableError):
        stream.finish()


def revised(stream: Any) -> None:
    with stream, pytest.raises(yandexgpt.RevisedError):
        list(stream.text())


@pytest.mark.parametrize("end_early", [closed, left, never_read, broken, revised])
def test_partly_read_stream_is_not_added_to_the_history(chat: Any, emulator: Emulator, end_early: Any) -> None:
    if end_early is broken:
        emulator.reply("раз два", partials=["раз"])
        emulator.fail("UNAVAILABLE", after=1)
    else:
        emulator.reply("раз два", partials=["раз", "нет"])
    stream = chat.stream("Раз")
    end_early(stream)
    assert len(chat.messages) == 1
    emulator.clear()
    assert chat.send("Два").text == "Два"  # while the stream object still exists
    assert list(stream) == []
    assert len(chat.messages) == 3


@pytest.mark.parametrize("chunks", [0, 1])
def test_garbage_collected_stream_is_not_added_to_the_history(chat: Any, emulator: Emulator, chunks: int) -> None:
    emulator.reply("раз два", partials=["раз", "нет"])
    stream = chat.stream("Раз")
    for _ in range(chunks):
        next(stream)
    del stream
    gc.collect()
    emulator.clear()
    chat.send("Два")
    assert roles_and_texts(chat)[1:] == [("user", "Два"), ("assistant", "Два")]


def test_open_stream_blocks_another_turn(chat: Any) -> None:
    stream = chat.stream("раз два")
    with pytest.raises(yandexgpt.YandexGPTError, match="close its stream"):
        chat.send("Два")
    next(stream)
    with pytest.raises(yandexgpt.YandexGPTError, match="another turn"):
        chat.stream("Два")
    stream.finish()
    chat.send("Два")
    assert len(chat.messages) == 5


def test_async_stream_can_be_closed_with_aclosing(emulator: Emulator) -> None:
    from contextlib import aclosing

    async def main() -> int:
        async with emulator.async_client() as client:
            chat = client.chat()
            async with aclosing(chat.stream("раз два")) as stream:
                await anext(stream)
            await chat.send("Два")
            return len(chat.messages)

    assert asyncio.run(main()) == 2


# Tools


def test_history_contains_tool_calls_and_results(chat: Any, emulator: Emulator) -> None:
    emulator.reply(None, tool_calls=CALL, usage={"total_tokens": 5})
    emulator.reply("Тепло", usage={"total_tokens": 7})
    assert chat.ask("Погода?", tools=[weather], temperature=0.3).text == "Тепло"
    system, question, calls, results, answer = chat.messages
    assert (system.role, question.text, answer.text) == ("system", "Погода?", "Тепло")
    assert calls.tool_calls[0].arguments == {"city": "Тула", "days": 3}
    assert results.tool_results == (ToolResult("weather", "Тула: 3"),)
    assert chat.usage.total_tokens == 12
    chat.send("Спасибо")
    assert len(emulator.requests[-1].message.messages) == 6
    assert not emulator.requests[-1].message.tools
    assert "toolResultList" in chat.to_dict()["messages"][3]


def test_failure_in_the_tool_loop_does_not_change_the_history(chat: Any, emulator: Emulator) -> None:
    emulator.reply(None, tool_calls=CALL, times=3)
    with pytest.raises(yandexgpt.ToolRoundsError):
        chat.ask("Погода?", [weather], max_rounds=1)
    emulator.clear()
    emulator.reply(None, tool_calls=CALL)
    emulator.reply("Обры", status="TRUNCATED")
    with pytest.raises(yandexgpt.TruncatedError):
        chat.ask("Погода?", [weather])
    with pytest.raises(ValueError, match=r"must be a yandexgpt.Tool"):
        chat.ask("Погода?", [{"name": "weather"}])
    assert len(chat.messages) == 1
    assert chat.usage.total_tokens == 0
    assert chat.ask("Погода?", [weather]).text == "Погода?"


def test_tools_can_be_called_without_the_tool_loop(client: Any, emulator: Emulator) -> None:
    chat = client.chat(tools=[weather])
    emulator.reply(None, tool_calls=CALL)
    calls = chat.send("Погода?").tool_calls
    results = [ToolResult(call.name, weather(**call.arguments)) for call in calls]
    assert chat.send(Message.from_tool_results(results)).text == "Тула: 3"
    assert len(chat.messages) == 4


# JSON of the REST API


def test_saved_chat_is_a_rest_body_and_can_be_continued(client: Any, emulator: Emulator, tmp_path: Path) -> None:
    chat = client.chat(system="Кратко", model="yandexgpt", temperature=0.6, max_tokens=2000)
    chat.send("Привет")
    chat.ask("Погода?", [weather], tool_choice="weather")
    saved = chat.to_dict()
    assert saved["modelUri"] == "gpt://emulator/yandexgpt"
    assert saved["completionOptions"] == {"stream": False, "temperature": 0.6, "maxTokens": "2000"}
    assert saved["messages"][:3] == [
        {"role": "system", "text": "Кратко"},
        {"role": "user", "text": "Привет"},
        {"role": "assistant", "text": "Привет"},
    ]
    assert list(saved) == ["modelUri", "completionOptions", "messages"]
    path = tmp_path / "body.json"
    path.write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")
    assert list(yandexgpt.load_request(path).messages) == [message.proto for message in chat.messages]

    again = chat_from_dict(client, json.loads(path.read_text(encoding="utf-8")))
    assert again.to_dict() == saved
    assert again.messages == chat.messages
    assert again.usage.total_tokens == 0
    again.send("Ещё")
    assert emulator.requests[-1].message.completion_options.max_tokens.value == 2000
    assert len(chat.messages) == len(saved["messages"])


def test_body_without_a_model_gets_the_model_of_the_client(client: Any) -> None:
    chat = chat_from_dict(client, {"messages": [{"role": "user", "text": "a"}], "completionOptions": {"stream": True}})
    assert chat.to_dict() == {
        "modelUri": "gpt://emulator/yandexgpt-lite",
        "completionOptions": {"stream": False},
        "messages": [{"role": "user", "text": "a"}],
    }


@pytest.mark.parametrize(
    "data", [{"model": 1}, {"messages": [{"role": "bot", "text": "a"}]}, {"modelUri": "gpt://<f>/x"}]
)
def test_invalid_body_is_rejected(client: Any, data: Any) -> None:
    with pytest.raises(ValueError, match=r"role|body|placeholder"):
        chat_from_dict(client, data)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | TEXTS | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
NAMES = st.text("abc_", min_size=1, max_size=4)
MESSAGES = st.one_of(
    st.builds(lambda role, text: {"role": role, "text": text}, st.sampled_from(["system", "user", "assistant"]), TEXTS),
    st.builds(
        lambda name, arguments: {
            "role": "assistant",
            "toolCallList": {"toolCalls": [{"functionCall": {"name": name, "arguments": arguments}}]},
        },
        NAMES,
        st.dictionaries(TEXTS, JSON, max_size=2),
    ),
    st.builds(
        lambda name, content: {
            "role": "user",
            "toolResultList": {"toolResults": [{"functionResult": {"name": name, "content": content}}]},
        },
        NAMES,
        TEXTS,
    ),
)
CLIENT = yandexgpt.Client(
    folder_id="f", credentials=yandexgpt.credentials.NoCredentials(), tls=False, endpoint="[::1]:1"
)


@given(
    st.lists(MESSAGES, max_size=6),
    st.none() | st.floats(0, 1),
    st.none() | st.integers(1, 2**63 - 1),
    st.sampled_from([None, "json", {"type": "object"}]),
)
def test_chat_is_equal_after_a_json_round_trip(
    messages: list[Any], temperature: float | None, max_tokens: int | None, response_format: Any
) -> None:
    chat = CLIENT.chat(
        messages=messages,
        temperature=temperature,
        max_tokens=max_tokens,
        response_format=response_format,
        tools=[weather],
    )
    saved = chat.to_dict()
    again = yandexgpt.Chat.from_dict(CLIENT, json.loads(json.dumps(saved)))
    assert again.to_dict() == saved
    assert again.messages == chat.messages == tuple(map(Message.from_dict, messages))


# Trim


def test_trim_removes_the_oldest_turns_and_keeps_the_system_message(chat: Any, client: Any) -> None:
    for text in ("раз два три", "четыре пять", "шесть"):
        chat.send(text)
    whole = client.count_tokens(chat.messages)
    assert chat.trim(whole) == 0
    assert len(chat.messages) == 7
    assert chat.trim(whole - 1) == 2
    assert roles_and_texts(chat)[:2] == [("system", "Ты умный ассистент"), ("user", "четыре пять")]
    assert chat.trim(client.count_tokens([chat.messages[0], *chat.messages[3:]])) == 2
    assert [text for _, text in roles_and_texts(chat)] == ["Ты умный ассистент", "шесть", "шесть"]
    assert client.count_tokens(chat.messages) < whole
    assert chat.send("семь").text == "семь"


def test_trim_removes_a_turn_with_its_tool_calls_and_results(client: Any, emulator: Emulator) -> None:
    chat = client.chat()
    emulator.reply(None, tool_calls=CALL)
    emulator.reply("Тепло")
    chat.ask("Какая погода?", [weather])
    chat.send("Спасибо")
    assert chat.trim(client.count_tokens(chat.messages) - 1) == 4
    assert roles_and_texts(chat) == [("user", "Спасибо"), ("assistant", "Спасибо")]


def test_trim_that_cannot_reach_the_limit_is_an_error_and_removes_nothing(chat: Any, client: Any) -> None:
    chat.send("раз")
    before = chat.to_dict()
    with pytest.raises(
        ValueError, match=r"max_tokens=1: the system message alone has \d+ tokens, and is never dropped"
    ):
        chat.trim(1)
    assert chat.to_dict() == before
    assert chat.trim(client.count_tokens(chat.messages[:1])) == 2
    assert roles_and_texts(chat) == [("system", "Ты умный ассистент")]


def test_trim_without_a_system_message_may_remove_all_turns(client: Any, emulator: Emulator) -> None:
    chat = client.chat()
    assert chat.trim(1) == 0
    assert not emulator.requests
    chat.send("раз два три")
    assert chat.trim(1) == 2
    assert chat.messages == ()


@pytest.mark.parametrize("max_tokens", [0, -1, True, 1.5, "5", None])
def test_invalid_trim_limit_is_rejected(chat: Any, emulator: Emulator, max_tokens: Any) -> None:
    with pytest.raises(ValueError, match="max_tokens must be a whole number greater than 0"):
        chat.trim(max_tokens)
    assert not emulator.requests
    chat.send("раз")


def test_failed_token_count_does_not_change_the_history(chat: Any, emulator: Emulator) -> None:
    chat.send("раз")
    emulator.stop()
    with pytest.raises(yandexgpt.APIError):
        chat.trim(1)
    assert len(chat.messages) == 3


def counted(request: CompletionRequest) -> int:
    return sum(len(message.text) + 1 for message in request.messages)


def is_turn(message: Any) -> bool:
    return message.role == "user" and not message.HasField("tool_result_list")


@given(st.lists(MESSAGES, max_size=12), st.integers(1, 60))
def test_trim_keeps_the_longest_history_within_the_limit(messages: list[Any], limit: int) -> None:
    request = CompletionRequest(messages=[Message.from_dict(each).proto for each in messages])
    before = request.SerializeToString()
    search = longest_fitting_history(request, limit)
    counts = 0
    fits: CompletionRequest | None = None
    try:
        candidate = next(search)
        while True:
            counts += 1
            assert candidate.messages
            candidate = search.send(counted(candidate))
    except StopIteration as found:
        fits = found.value
    except ValueError:
        pass
    assert request.SerializeToString() == before
    assert counts <= 2 + len(messages).bit_length()

    system = [message for message in request.messages if message.role == "system"]
    rest = [message for message in request.messages if message.role != "system"]
    # The turns in order. Messages before the first user message are the oldest turn.
    starts = [index for index, message in enumerate(rest) if is_turn(message)]
    if rest and (not starts or starts[0]):
        starts.insert(0, 0)
    sizes = [sum(len(each.text) + 1 for each in rest[start:]) for start in [*starts, len(rest)]]
    fixed = sum(len(each.text) + 1 for each in system)
    enough = next((dropped for dropped, size in enumerate(sizes) if fixed + size <= limit), None)
    if fits is None:
        assert enough is None
        return
    assert enough is not None
    kept = rest[[*starts, len(rest)][enough] :] if starts else rest
    assert [message for message in fits.messages if message.role == "system"] == system
    assert [message for message in fits.messages if message.role != "system"] == kept


def test_turn_of_a_stream_closed_at_its_end_is_appended_or_the_reader_fails(emulator: Emulator) -> None:
    with emulator.client() as client:
        client.complete("раз")
        for number in range(200):
            chat = client.chat()
            stream = chat.stream("раз")
            closing = threading.Timer(number % 20 * 0.0001, stream.close)
            closing.start()
            try:
                stream.finish()
            except yandexgpt.YandexGPTError:
                assert not chat.messages
            else:
                assert [message.text for message in chat.messages] == ["раз", "раз"]
            closing.join()


def test_turns_of_concurrent_threads_succeed_or_raise(chat: Any, factory: ClientFactory, emulator: Emulator) -> None:
    emulator.reply("да", delay=0.2)
    running = [Background(chat.send, str(number)) for number in range(4)]
    errors = [each.error() for each in running]
    assert sum(error is None for error in errors) * 2 + 1 == len(chat.messages)
    assert all(error is None or isinstance(error, yandexgpt.YandexGPTError) for error in errors)
