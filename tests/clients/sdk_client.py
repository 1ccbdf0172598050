"""yandex-ai-studio-sdk, both clients: models over gRPC with endpoint discovery, and chats over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import warnings

from pydantic import BaseModel
from seen import CA, ENDPOINT, FOLDER, HTTP_URL, IAM_TOKEN, KEY, OAUTH_TOKEN, refused, seen
from yandex_ai_studio_sdk import AIStudio, AsyncAIStudio
from yandex_ai_studio_sdk.auth import APIKeyAuth, IAMTokenAuth, OAuthTokenAuth

SETTINGS = {
    "folder_id": FOLDER,
    "endpoint": ENDPOINT,
    "verify": str(CA) if CA else False,
    "service_map": {"http_completions": f"{HTTP_URL}/v1/"},
}
PROMPT = [{"role": "system", "text": "Отвечай кратко"}, {"role": "user", "text": "раз два три"}]
GROWING = ["раз", "раз два", "раз два три"]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}


class Person(BaseModel):
    """The type of a structured answer."""

    name: str
    age: int


def main() -> None:
    """Run the checks of the synchronous client, of the asynchronous one, and of both over HTTP."""
    synchronous()
    asyncio.run(asynchronous())
    chats()


def synchronous() -> None:
    """Check every feature of AIStudio that the emulator supports."""
    sdk = AIStudio(auth=APIKeyAuth(KEY), enable_server_data_logging=False, **SETTINGS)
    model = sdk.models.completions("yandexgpt").configure(temperature=0.5, max_tokens=100)
    with seen("run"):
        result = model.run(PROMPT)
        assert (result.text, result.role, result.status.name) == ("раз два три", "assistant", "FINAL"), result
        assert (result.usage.completion_tokens, result.usage.total_tokens) == (3, 8), result
    with seen("run_stream"):
        results = list(model.run_stream(PROMPT))
        assert [each.text for each in results[:-1]] == GROWING, results
        assert {each.status.name for each in results[:-1]} == {"PARTIAL"}, results
        assert (results[-1].text, results[-1].status.name) == ("раз два три", "FINAL"), results
    with seen("max_tokens"):
        cut = model.configure(max_tokens=2).run(PROMPT)
        assert (cut.text, cut.status.name) == ("раз два", "TRUNCATED_FINAL"), cut
    with seen("run_deferred, wait"):
        operation = model.run_deferred(PROMPT)
        assert operation.wait(poll_interval=0.05).text == "раз два три"
        assert operation.get_status().is_succeeded
        assert model.attach_deferred(operation.id).get_result().text == "раз два три"
    with seen("tokenize"):
        assert [token.text for token in model.tokenize("раз два три")] == ["раз", " два", " три"]
    with seen("tools"):
        tool = sdk.tools.function(WEATHER, name="weather", description="Погода")
        caller = model.configure(tools=[tool], tool_choice="required")
        called = caller.run(PROMPT)
        (call,) = called.tool_calls
        assert called.status.name == "TOOL_CALLS", called
        assert call.function.name == "weather", called
        assert set(call.function.arguments) == {"city", "days"}, called
        answers = {"tool_results": [{"name": "weather", "content": "дождь"}]}
        assert caller.run([*PROMPT, called, answers]).text == "дождь"
        named = model.configure(tools=[tool], tool_choice=tool).run(PROMPT)
        assert [each.function.name for each in named.tool_calls] == ["weather"], named
    with seen("structured output"):
        by_class = model.configure(response_format=Person).run("Придумай человека")
        assert Person.model_validate_json(by_class.text).name, by_class
        form = {"name": "person", "json_schema": Person.model_json_schema()}
        by_schema = model.configure(response_format=form).run("Придумай человека")
        assert Person.model_validate_json(by_schema.text).name, by_schema
        assert model.configure(response_format="json").run("раз").text == '{"answer": "раз"}'
    with seen("errors"):
        with refused("UNAUTHENTICATED", "unknown API key"):
            AIStudio(auth=APIKeyAuth("wrong"), **SETTINGS).models.completions("yandexgpt").run("раз")
        with refused("INVALID_ARGUMENT", "temperature"):
            model.configure(temperature=1.5).run("раз")
        with refused("INVALID_ARGUMENT", "model_uri"):
            list(sdk.models.completions("gpt://").run_stream("раз"))
    with seen("IAM token, OAuth token"):
        assert AIStudio(auth=IAMTokenAuth(IAM_TOKEN), **SETTINGS).models.completions("yandexgpt").run("раз").text
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the SDK warns about OAuth tokens
            exchanging = AIStudio(auth=OAuthTokenAuth(OAUTH_TOKEN), **SETTINGS)
        assert exchanging.models.completions("yandexgpt").run("раз").text == "раз"


async def asynchronous() -> None:
    """Check the same features of AsyncAIStudio."""
    sdk = AsyncAIStudio(auth=APIKeyAuth(KEY), **SETTINGS)
    model = sdk.models.completions("yandexgpt").configure(temperature=0.5)
    with seen("async: run"):
        result = await model.run(PROMPT)
        assert (result.text, result.status.name) == ("раз два три", "FINAL"), result
    with seen("async: many at once"):
        results = await asyncio.gather(*(model.run(f"раз {number}") for number in range(20)))
        assert [each.text for each in results] == [f"раз {number}" for number in range(20)], results
    with seen("async: run_stream"):
        results = [each async for each in model.run_stream(PROMPT)]
        assert [each.text for each in results[:-1]] == GROWING, results
        assert results[-1].status.name == "FINAL", results
    with seen("async: a stream that is left"):
        async for each in model.run_stream(PROMPT):
            assert each.text == "раз"
            break
    with seen("async: run_deferred, wait, cancel"):
        operation = await model.run_deferred(PROMPT)
        assert (await operation.wait(poll_interval=0.05)).text == "раз два три"
        another = await model.run_deferred(PROMPT)
        await another.cancel()
    with seen("async: tokenize"):
        assert [token.text for token in await model.tokenize("раз два")] == ["раз", " два"]
    with seen("async: tools"):
        tool = sdk.tools.function(WEATHER, name="weather")
        caller = model.configure(tools=tool, tool_choice="required", parallel_tool_calls=False)
        called = await caller.run(PROMPT)
        assert [call.function.name for call in called.tool_calls] == ["weather"], called
        answers = {"tool_results": [{"name": "weather", "content": "дождь"}]}
        assert (await caller.run([*PROMPT, called, answers])).text == "дождь"
        (streamed,) = [each async for each in caller.run_stream(PROMPT)]
        assert streamed.tool_calls is not None, streamed
    with seen("async: structured output"):
        by_class = await model.configure(response_format=Person).run("Придумай человека")
        assert Person.model_validate_json(by_class.text).age is not None, by_class
    with seen("async: errors"), refused("UNAUTHENTICATED", "unknown API key"):
        await AsyncAIStudio(auth=APIKeyAuth("wrong"), **SETTINGS).models.completions("yandexgpt").run("раз")


def chats() -> None:
    """Check the chat domain of both clients, which uses the OpenAI API."""
    sdk = AIStudio(auth=APIKeyAuth(KEY), **SETTINGS)
    chat = sdk.chat.completions("yandexgpt").configure(temperature=0.5)
    with seen("chat: run"):
        said = chat.run(PROMPT)
        assert (said.text, said.finish_reason.name) == ("раз два три", "STOP"), said
    with seen("chat: run_stream"):
        said = list(chat.run_stream(PROMPT))
        texts = [each.text for each in said if each.text]
        assert texts[0] == "раз", texts
        assert texts[-1] == "раз два три", texts
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts)), texts
    with seen("chat: tools, structured output"):
        caller = chat.configure(tools=[sdk.tools.function(WEATHER, name="weather")], tool_choice="required")
        for called in (caller.run(PROMPT), list(caller.run_stream(PROMPT))[-1]):
            assert [call.function.name for call in called.tool_calls or ()] == ["weather"], called
        assert Person.model_validate_json(chat.configure(response_format=Person).run("Придумай").text).name

    async def asynchronous_chat() -> None:
        chat = AsyncAIStudio(auth=APIKeyAuth(KEY), **SETTINGS).chat.completions("yandexgpt")
        assert (await chat.run(PROMPT)).text == "раз два три"
        assert [each.text async for each in chat.run_stream(PROMPT) if each.text][-1] == "раз два три"

    with seen("async: chat"):
        asyncio.run(asynchronous_chat())


if __name__ == "__main__":
    main()
