"""Functions that the model calls: their descriptions, calls, results and errors."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime
import functools
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from typing import Annotated, Any, Literal

import pydantic
import pytest
from driver import PATIENCE, Background, ClientFactory, subprocess_environment
from hypothesis import given
from hypothesis import strategies as st

import yandexgpt
from yandexgpt._messages import Message
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt.emulator import Emulator

BEYOND = 2**53 + 1


@yandexgpt.tool
def weather(city: str, days: int = 1, unit: Literal["c", "f"] = "c") -> str:
    """Current weather in a city."""
    return f"{city}: {days} дн., +5 {unit}"


@yandexgpt.tool
async def total(numbers: list[int]) -> dict[str, int]:
    """Sum of numbers."""
    await asyncio.sleep(0)
    return {"total": sum(numbers)}


def tool_calls_of(*calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": name, "arguments": arguments} for name, arguments in calls]


def script(emulator: Emulator, *calls: tuple[str, dict[str, Any]], times: int = 1) -> None:
    emulator.reply(None, tool_calls=tool_calls_of(*calls), times=times)


def results(emulator: Emulator, request: int = -1) -> list[tuple[str, str]]:
    """The names and contents of the last tool results sent to the model."""
    message = Message.from_proto(emulator.requests[request].message.messages[-1])
    return [(result.name, result.content) for result in message.tool_results]


def result_of(client: Any, emulator: Emulator, function: Any, **arguments: Any) -> str:
    """The result sent to the model for a call of the function."""
    made = function if isinstance(function, yandexgpt.Tool) else yandexgpt.tool(function)
    script(emulator, (made.name, arguments))
    client.run_tools("Вопрос", [made])
    [(name, content)] = results(emulator)
    assert name == made.name
    return content


# Descriptions


def test_tool_description_has_the_name_docstring_and_types_of_the_function() -> None:
    assert (weather.name, weather.description) == ("weather", "Current weather in a city.")
    assert weather.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "unit": {"type": "string", "enum": ["c", "f"]},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert weather.to_dict() == {
        "function": {"name": "weather", "description": weather.description, "parameters": weather.parameters}
    }
    assert repr(weather) == "Tool('weather')"


def test_tool_can_be_called_like_the_function() -> None:
    assert weather("Москва", days=2) == "Москва: 2 дн., +5 c"
    assert asyncio.run(total([1, 2])) == {"total": 3}
    assert vars(weather)["__name__"] == "weather"
    assert weather.__doc__ == "Current weather in a city."


def test_tool_name_and_description_can_be_given() -> None:
    made = yandexgpt.tool(name="погода-2", description="Другая")(weather.function)
    assert (made.name, made.description) == ("погода-2", "Другая")
    bound = yandexgpt.tool(name="here")(functools.partial(weather.function, city="Тула"))
    assert bound(days=2) == "Тула: 2 дн., +5 c"


def test_parameter_can_have_a_description_and_constraints() -> None:
    @yandexgpt.tool
    def f(
        json: Annotated[int, pydantic.Field(description="Сколько", ge=1)], *, copy: datetime.date | None = None
    ) -> None:
        """The parameter names are also names of methods of pydantic models."""

    assert f.parameters["properties"]["json"] == {"type": "integer", "description": "Сколько", "minimum": 1}
    assert f.parameters["required"] == ["json"]


def test_tool_with_a_schema_needs_no_pydantic(monkeypatch: pytest.MonkeyPatch, client: Any, emulator: Emulator) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    schema = {"type": "object", "properties": {"x": {}}}

    @yandexgpt.tool(name="double", description="Вдвое", parameters=schema)
    def f(x):  # type: ignore[no-untyped-def]
        return {"doubled": x * 2}

    assert f.to_dict() == {"function": {"name": "double", "description": "Вдвое", "parameters": schema}}
    assert result_of(client, emulator, f, x=21) == '{"doubled": 42}'
    assert result_of(client, emulator, f, y=1).startswith("TypeError: ")
    with pytest.raises(yandexgpt.ConfigurationError, match=r"pip install 'yandexgpt\[pydantic\]'"):
        yandexgpt.tool(weather.function)


def unannotated(x):  # type: ignore[no-untyped-def]
    pass


def starred(*x: int) -> None: ...
def unknown_type(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def positional(x: int, /) -> None: ...
def no_schema(x: threading.Event) -> None: ...
def big_bound(x: Annotated[int, pydantic.Field(le=BEYOND)]) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        (unannotated, {}, "the tool unannotated: the parameter x has no type"),
        (starred, {}, "the parameter x cannot be passed by name"),
        (positional, {}, "the parameter x cannot be passed by name"),
        (unknown_type, {}, "a type cannot be looked up, name 'Nowhere' is not defined"),
        (no_schema, {}, "the tool no_schema: pydantic cannot make a schema of its types"),
        (big_bound, {}, rf"the parameters of big_bound\..*{BEYOND} does not fit a double"),
        (lambda: None, {}, "a tool needs a name"),
        (functools.partial(starred), {}, "a tool needs a name"),
        (starred, {"name": ""}, "a tool needs a name"),
        (starred, {"parameters": [1]}, "parameters must be a JSON Schema as a mapping"),
        (starred, {"parameters": {"maximum": BEYOND}}, f"the parameters of starred.maximum: the integer {BEYOND}"),
    ],
)
def test_invalid_tool_function_is_rejected(function: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        yandexgpt.tool(**options)(function)


@pytest.mark.parametrize("method", ["complete", "stream"])
def test_complete_and_stream_accept_tool_objects_and_mappings(client: Any, emulator: Emulator, method: str) -> None:
    answer = getattr(client, method)("Вопрос", tools=[weather, {"name": "now"}], tool_choice="weather")
    if method == "stream":
        answer = answer.finish()
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("weather", {"city": "city"})]
    described = emulator.requests[0].message.tools
    assert [tool.function.name for tool in described] == ["weather", "now"]
    assert described[0].function.parameters["properties"]["days"]["type"] == "integer"


def test_tool_that_is_neither_tool_nor_mapping_is_rejected(client: Any) -> None:
    with pytest.raises(ValueError, match=r"tools\[0\] must be a mapping .* or a yandexgpt.Tool"):
        client.complete("Вопрос", tools=[starred])


# The tool loop


def test_run_tools_answers_tool_calls_until_the_model_returns_text(client: Any, emulator: Emulator) -> None:
    script(emulator, ("weather", {"city": "Москва", "days": 3}), ("total", {"numbers": [1, 2]}))
    script(emulator, ("weather", {"city": "Тула", "unit": "f"}))
    emulator.reply("Тепло")
    completion = client.run_tools("Какая погода?", [weather, total], system="Отвечай", temperature=0.1)
    assert completion.text == "Тепло"
    first, second, third = (each.message for each in emulator.requests)
    assert [message.role for message in third.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert list(third.messages)[:4] == list(second.messages)
    assert list(second.messages)[:2] == list(first.messages)
    assert results(emulator, 1) == [("weather", "Москва: 3 дн., +5 c"), ("total", '{"total": 3}')]
    assert results(emulator, 2) == [("weather", "Тула: 1 дн., +5 f")]
    for request in (first, second, third):
        assert request.completion_options.temperature.value == 0.1
        assert [tool.function.name for tool in request.tools] == ["weather", "total"]


def test_run_tools_returns_a_first_text_answer(client: Any, emulator: Emulator) -> None:
    assert client.run_tools("Привет", []).text == "Привет"
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("choice", ["required", "total"])
def test_tool_choice_is_sent_only_in_the_first_request(client: Any, emulator: Emulator, choice: str) -> None:
    completion = client.run_tools("Вопрос", [total], tool_choice=choice)
    assert completion.text == '{"total": 0}'
    assert [each.message.HasField("tool_choice") for each in emulator.requests] == [True, False]


def test_call_options_apply_to_every_iteration(client: Any, emulator: Emulator) -> None:
    script(emulator, ("weather", {"city": "Омск"}))
    client.run_tools("Вопрос", [weather], timeout=5, metadata=[("x-a", "b")], request_id="c0ffee")
    assert [each.metadata.get("x-a") for each in emulator.requests] == ["b", "b"]
    assert [each.metadata.get("x-client-request-id") for each in emulator.requests] == ["c0ffee", "c0ffee"]


def test_tool_calls_run_concurrently_and_results_are_in_order(client: Any, emulator: Emulator) -> None:
    barrier = threading.Barrier(3)

    @yandexgpt.tool
    def meet(number: int) -> int:
        """Returns only when all three calls run."""
        barrier.wait(PATIENCE)
        return number

    script(emulator, *(("meet", {"number": number}) for number in (3, 1, 2)))
    client.run_tools("Вопрос", [meet])
    assert results(emulator) == [("meet", "3"), ("meet", "1"), ("meet", "2")]


def test_async_tool_functions_run_concurrently(emulator: Emulator) -> None:
    async def main() -> None:
        here = 0
        all_here = asyncio.Event()

        @yandexgpt.tool
        async def meet(number: int) -> int:
            nonlocal here
            here += 1
            if here == 3:
                all_here.set()
            await asyncio.wait_for(all_here.wait(), PATIENCE)
            return number

        async with emulator.async_client() as client:
            await client.run_tools("Вопрос", [meet])

    script(emulator, *(("meet", {"number": number}) for number in (3, 1, 2)))
    asyncio.run(main())
    assert results(emulator) == [("meet", "3"), ("meet", "1"), ("meet", "2")]


def test_task_cancellation_cancels_async_tool_functions(emulator: Emulator) -> None:
    async def main() -> bool:
        begun, ended = asyncio.Event(), asyncio.Event()

        @yandexgpt.tool
        async def endless() -> None:
            begun.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

        async with emulator.async_client() as client:
            running = asyncio.ensure_future(client.run_tools("Вопрос", [endless]))
            await asyncio.wait_for(begun.wait(), PATIENCE)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await asyncio.wait_for(ended.wait(), PATIENCE)
        return True

    script(emulator, ("endless", {}))
    assert asyncio.run(main())
    assert len(emulator.requests) == 1


def test_tool_function_has_the_context_variables_of_the_caller(emulator: Emulator) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="нет")
    variable.set("есть")
    with emulator.client() as client:
        assert result_of(client, emulator, yandexgpt.tool(name="look")(lambda: variable.get())) == "есть"


def test_system_exit_in_a_tool_is_raised(emulator: Emulator) -> None:
    @yandexgpt.tool
    def leave() -> None:
        raise SystemExit(3)

    script(emulator, ("leave", {}))
    with emulator.client() as client, pytest.raises(SystemExit):
        client.run_tools("Вопрос", [leave])


# Results


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ("как есть \N{SNOWMAN}", "как есть \N{SNOWMAN}"),
        ("", ""),
        (None, "null"),
        (True, "true"),
        (BEYOND, str(BEYOND)),
        ([1, 2.5, {"город": "Тула"}], '[1, 2.5, {"город": "Тула"}]'),
        ({"id": 10**30}, f'{{"id": {10**30}}}'),
        (Point(1, datetime.date(2024, 1, 18)), '{"x": 1, "when": "2024-01-18"}'),
        ([Point(BEYOND, datetime.date(2024, 1, 18))], f'[{{"x": {BEYOND}, "when": "2024-01-18"}}]'),
    ],
)
def test_result_is_sent_as_text_or_json(client: Any, emulator: Emulator, result: Any, content: str) -> None:
    assert result_of(client, emulator, yandexgpt.tool(name="f")(lambda: result)) == content


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (float("nan"), "Error: Out of range float"),
        (object(), "PydanticSerializationError: "),
        ("\ud83d", "Error: content"),
    ],
)
def test_unserializable_result_is_sent_as_an_error(client: Any, emulator: Emulator, result: Any, words: str) -> None:
    assert result_of(client, emulator, yandexgpt.tool(name="f")(lambda: result)).startswith(words)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each: st.lists(each, max_size=3)))
def test_integers_of_any_size_are_exact_in_results(value: Any) -> None:
    from yandexgpt._features.tool_loop import success_result

    call = yandexgpt.ToolCall(text_common_pb2.ToolCall(function_call={"name": "f"}))
    assert json.loads(success_result(call, [value]).content) == [value]


# Failures are sent to the model


def returning(value: Any) -> Callable[[], Any]:
    return lambda: value


def raising(error: BaseException) -> Callable[[], None]:
    def f() -> None:
        """Fails."""
        raise error

    return f


def raising_async(error: BaseException) -> Callable[[], Coroutine[Any, Any, None]]:
    async def f() -> None:
        """Fails."""
        await asyncio.sleep(0)
        raise error

    return f


@pytest.mark.parametrize("make", [raising, raising_async])
@pytest.mark.parametrize(
    ("error", "content"),
    [
        (KeyError("Тула"), "KeyError: 'Тула'"),
        (RuntimeError(), "RuntimeError"),
        (ValueError("не то"), "Error: не то"),
        (OSError("файл \ud83d"), "OSError: файл ?"),
    ],
)
def test_exception_of_a_tool_is_sent_with_type_and_message(
    client: Any, emulator: Emulator, make: Any, error: Exception, content: str
) -> None:
    assert result_of(client, emulator, make(error)) == content


def test_stop_iteration_in_a_tool_is_sent_as_an_error(client: Any, emulator: Emulator) -> None:
    assert result_of(client, emulator, raising(StopIteration("конец"))) == "StopIteration: конец"


def test_exception_of_a_tool_is_logged_with_its_message_only_at_debug_level(
    client: Any, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "yandexgpt")
    result_of(client, emulator, raising(KeyError("s3cr3t")))
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warnings] == ["tool f failed: KeyError"]
    assert all(record.exc_info is None for record in warnings)
    assert any(record.exc_info and record.levelno == logging.DEBUG for record in caplog.records)


def test_unknown_tool_name_is_sent_as_an_error(client: Any, emulator: Emulator) -> None:
    script(emulator, ("rain", {}), ("weather", {"city": "Уфа"}))
    client.run_tools("Вопрос", [weather, total])
    assert results(emulator) == [
        ("rain", "Error: there is no tool 'rain', only weather, total"),
        ("weather", "Уфа: 1 дн., +5 c"),
    ]


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        ({}, "ValidationError: city: Field required"),
        ({"city": 5}, "ValidationError: city: Input should be a valid string"),
        ({"city": "a", "unit": "k"}, "ValidationError: unit: Input should be 'c' or 'f'"),
        ({"city": "a", "wind": 1}, "ValidationError: wind: Extra inputs are not permitted"),
    ],
)
def test_invalid_arguments_are_sent_as_an_error(
    client: Any, emulator: Emulator, arguments: dict[str, Any], content: str
) -> None:
    assert result_of(client, emulator, weather, **arguments) == content


def test_arguments_are_converted_to_their_types(client: Any, emulator: Emulator) -> None:
    seen: list[Any] = []

    @yandexgpt.tool
    def take(number: int, real: float, day: datetime.date, points: set[int], name: str = "нет") -> None:
        seen.append((number, type(number), real, type(real), day, points, name))

    result_of(client, emulator, take, number=5, real=5, day="2024-01-18", points=[1, 1])
    assert seen == [(5, int, 5.0, float, datetime.date(2024, 1, 18), {1}, "нет")]


INTEGER, NUMBER = {"type": "integer"}, {"type": "number"}
NODE = {"anyOf": [{"type": "object", "properties": {"n": INTEGER, "next": {"$ref": "#/$defs/Node"}}}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "argument"),
    [
        (INTEGER, 2**54),
        (INTEGER, -(2**60)),
        ({"type": ["integer", "null"]}, 2**54),
        ({"anyOf": [INTEGER, {"type": "string"}]}, 2**54),
        ({"allOf": [{"minimum": 0}, INTEGER]}, 2**54),
        ({"oneOf": [{"anyOf": [{"type": "null"}, INTEGER]}]}, 2**54),
        ({"$ref": "#/$defs/Id"}, 2**54),
        ({"$ref": "#/$defs/Node"}, {"next": {"next": {"n": 2**54}}}),
        ({"items": INTEGER}, [0, 2**54]),
        ({"prefixItems": [NUMBER, INTEGER], "items": NUMBER}, [1e30, 2**54, 1e30]),
        ({"items": [NUMBER, INTEGER], "additionalItems": NUMBER}, [1e30, 2**54]),
        ({"items": INTEGER, "prefixItems": [NUMBER]}, [1e30, 2**54]),
        ({"properties": {"y": {"items": {"properties": {"z": INTEGER}}}}}, {"y": [{"z": 2**54}]}),
        ({"additionalProperties": INTEGER, "properties": {"y": NUMBER}}, {"y": 1e30, "z": 2**54}),
        ({"patternProperties": {"^n": INTEGER}, "additionalProperties": NUMBER}, {"a": 1e30, "n1": 2**54}),
    ],
)
def test_inexact_integer_argument_is_rejected(
    client: Any, emulator: Emulator, schema: dict[str, Any], argument: Any
) -> None:
    parameters = {"properties": {"x": schema}, "$defs": {"Id": INTEGER, "Node": NODE, "Loop": {"$ref": "#/$defs/Loop"}}}
    made = yandexgpt.tool(name="f", parameters=parameters)(lambda **_: "никогда")
    assert "beyond 2**53 does not arrive exactly; pass it as a string" in result_of(client, emulator, made, x=argument)


@pytest.mark.parametrize(
    "schema",
    [
        NUMBER,
        {},
        True,
        {"type": ["number", "null"]},
        {"anyOf": [INTEGER, NUMBER]},
        {"$ref": "#/$defs/Mass"},
        {"$ref": "#/$defs/Loop"},
        {"$ref": "#/$defs/nothing"},
        {"$ref": "#/$defs/Mass/anyOf/0"},
        {"$ref": "#/$defs/Mass/anyOf/7"},
        {"$ref": "elsewhere.json"},
        {"items": INTEGER, "properties": {"x": INTEGER}},
        {"type": "string"},
    ],
)
def test_number_argument_without_an_integer_schema_is_a_float(client: Any, emulator: Emulator, schema: Any) -> None:
    parameters = {
        "properties": {"x": schema, "n": INTEGER},
        "$defs": {"Mass": {"anyOf": [NUMBER, {"type": "null"}]}, "Loop": {"$ref": "#/$defs/Loop"}},
    }
    made = yandexgpt.tool(name="f", parameters=parameters)(lambda **given: repr(given))
    assert result_of(client, emulator, made, x=5.97e24, n=5) == "{'n': 5, 'x': 5.97e+24}"


@dataclasses.dataclass
class Planet:
    mass: float
    moons: int = 0


def test_float_arguments_may_exceed_2_to_the_53_and_integers_may_not(client: Any, emulator: Emulator) -> None:
    @yandexgpt.tool
    def f(x: float, y: list[Planet], z: dict[str, float | None], either: int | float, count: int = 0) -> str:
        return repr((x, y, z, either))

    assert result_of(
        client, emulator, f, x=5.97e24, y=[{"mass": 1.9e27, "moons": 95}], z={"a": 2e30}, either=1e20
    ) == repr((5.97e24, [Planet(1.9e27, 95)], {"a": 2e30}, 1e20))
    refused = result_of(client, emulator, f, x=1, y=[{"mass": 1, "moons": 2**60}], z={}, either=1)
    assert refused.startswith("Error: y[0].moons: a number beyond 2**53 does not arrive exactly")


def test_integer_argument_given_as_a_string_is_exact(client: Any, emulator: Emulator) -> None:
    exact = yandexgpt.tool(name="g")(taking_integer)
    assert result_of(client, emulator, exact, x=str(BEYOND)) == str(BEYOND)
    assert result_of(client, emulator, exact, x=2**53) == str(2**53)


def taking_integer(x: int) -> int:
    return x


# Cancellation of a tool, and of the task


async def cancelling_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(PATIENCE)


@pytest.mark.parametrize(
    "function",
    [
        raising(asyncio.CancelledError()),
        raising_async(asyncio.CancelledError()),
        raising_async(asyncio.CancelledError("words")),
        raising(futures.CancelledError()),
        raising_async(futures.CancelledError()),
        cancelling_itself,
    ],
)
def test_cancelled_error_of_a_tool_is_sent_as_an_error(client: Any, emulator: Emulator, function: Any) -> None:
    made = yandexgpt.tool(name="f", parameters={})(function)
    script(emulator, ("f", {}), ("weather", {"city": "Уфа"}))
    assert client.run_tools("Вопрос", [made, weather]).text
    [(_, failure), (_, other)] = results(emulator)
    assert failure.startswith("CancelledError")
    assert other == "Уфа: 1 дн., +5 c"


@pytest.mark.parametrize("synchronous", [True, False])
def test_task_cancellation_during_a_tool_raises_cancelled_error(emulator: Emulator, synchronous: bool) -> None:
    begun, go = threading.Event(), threading.Event()

    @yandexgpt.tool(name="f", parameters={})
    def f() -> None:
        begun.set()
        assert go.wait(PATIENCE)

    @yandexgpt.tool(name="f", parameters={})
    async def g() -> None:
        begun.set()
        await asyncio.sleep(PATIENCE)

    async def main() -> None:
        async with emulator.async_client() as client:
            task = asyncio.ensure_future(client.run_tools("Вопрос", [f if synchronous else g]))
            await asyncio.to_thread(begun.wait, PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            go.set()  # the loop waits for its threads at its end

    script(emulator, ("f", {}))
    asyncio.run(main())
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("result", ["cyclic", "deep"])
def test_cyclic_or_too_deep_result_is_sent_as_an_error(client: Any, emulator: Emulator, result: str) -> None:
    value: Any = []
    if result == "cyclic":
        value.append({"again": value})
    else:
        for _ in range(100_000):
            value = [value]
    content = result_of(client, emulator, yandexgpt.tool(name="f", parameters={})(lambda: value))
    assert content.split(":")[0] in ("Error", "RecursionError", "PydanticSerializationError")


# Tools after the end of the main thread

LATE = """
import asyncio, sys, threading
import yandexgpt

main, how = threading.main_thread(), sys.argv[1]


@yandexgpt.tool(name="f", parameters={})
def f():
    return "5"


@yandexgpt.tool(name="g", parameters={})
async def g():
    await asyncio.sleep(0)
    return "6"


def synchronous():
    with yandexgpt.Client() as client:
        return client.run_tools("a", [f, g])


async def asynchronous():
    async with yandexgpt.AsyncClient() as client:
        return await client.run_tools("a", [f, g])


def shut_down():  # tool_calls_of when threading shuts down: thread pools accept no more work
    main.ended.set()


main.ended = threading.Event()
threading._register_atexit(shut_down)


def late():
    main.ended.wait()
    while main.is_alive():
        main.join(0.01)
        if how.endswith("refused"):
            break
    if how.endswith("refused"):
        start = threading.Thread.start  # only these threads: gRPC crashes without its own
        def refused(self):
            if self.name.startswith(("yandexgpt-tool", "asyncio")):
                raise RuntimeError("can't create new thread at interpreter shutdown")
            start(self)
        threading.Thread.start = refused
    done = synchronous() if how.startswith("sync") else asyncio.run(asynchronous())
    print(done.text)


threading.Thread(target=late).start()
"""


@pytest.mark.parametrize("how", ["sync", "async", "sync refused", "async refused"])
def test_tools_are_called_after_the_main_thread_has_ended(emulator: Emulator, how: str) -> None:
    script(emulator, ("f", {}), ("g", {}))
    emulator.reply("Ответ")
    environment = {**subprocess_environment(), **emulator.environment()}
    ended = subprocess.run(
        [sys.executable, "-c", LATE, how], env=environment, capture_output=True, text=True, timeout=PATIENCE * 2
    )
    assert (ended.stdout, ended.returncode) == ("Ответ\n", 0), ended.stderr
    assert results(emulator) == [("f", "5"), ("g", "6")]


# End of the tool loop


def test_exceeded_max_rounds_is_an_error_with_the_last_answer(client: Any, emulator: Emulator) -> None:
    script(emulator, ("weather", {"city": "Уфа"}), times=3)
    with pytest.raises(yandexgpt.ToolRoundsError, match=r"still calls tools \(weather\) after 2 rounds") as caught:
        client.run_tools("Вопрос", [weather], max_rounds=2)
    assert len(emulator.requests) == 3
    assert caught.value.rounds == 2
    assert caught.value.completion.tool_calls[0].name == "weather"


def test_max_rounds_iterations_are_allowed(client: Any, emulator: Emulator) -> None:
    script(emulator, ("weather", {"city": "Уфа"}), times=2)
    assert client.run_tools("Вопрос", [weather], max_rounds=2).text == "Уфа: 1 дн., +5 c"


@pytest.mark.parametrize(
    ("status", "error"),
    [("TRUNCATED", yandexgpt.TruncatedError), ("CONTENT_FILTER", yandexgpt.ContentFilterError)],
)
@pytest.mark.parametrize("rounds", [0, 1])
def test_truncated_or_filtered_answer_is_an_error(
    client: Any, emulator: Emulator, status: str, error: type[Exception], rounds: int
) -> None:
    if rounds:
        script(emulator, ("weather", {"city": "Уфа"}))
    emulator.reply("Обры", status=status)
    with pytest.raises(error) as caught:
        client.run_tools("Вопрос", [weather])
    assert caught.value.completion.text == "Обры"  # type: ignore[attr-defined]


def test_failed_call_in_the_tool_loop_is_raised(client: Any, emulator: Emulator) -> None:
    script(emulator, ("fail", {}))
    with pytest.raises(yandexgpt.InternalServerError):
        client.run_tools("Вопрос", [yandexgpt.tool(name="fail")(lambda: emulator.fail("INTERNAL"))])
    assert len(emulator.requests) == 2


@pytest.mark.parametrize(
    ("tools", "options", "words"),
    [
        ([{"name": "now"}], {}, r"tools\[0\] must be a yandexgpt.Tool, .* got dict"),
        ([weather, starred], {}, r"tools\[1\] must be a yandexgpt.Tool, .* got function"),
        ([weather, weather.function], {}, r"tools\[1\] must be"),
        ([weather, yandexgpt.tool(name="weather")(total.function)], {}, r"tools\[1\]: there is another .* 'weather'"),
        ([weather], {"max_rounds": 0}, "max_rounds must be a whole number from 1, got 0"),
        ([weather], {"max_rounds": True}, "max_rounds must be"),
        ([weather], {"max_rounds": 1.5}, "max_rounds must be"),
        ([weather], {"temperature": 2}, "temperature"),
        ([weather], {"timeout": 0}, "timeout"),
    ],
)
def test_invalid_run_tools_arguments_are_rejected_before_sending(
    client: Any, emulator: Emulator, tools: list[Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        client.run_tools("Вопрос", tools, **options)
    with pytest.raises(TypeError, match="colour"):
        client.run_tools("Вопрос", [], colour=1)
    assert not emulator.requests


def test_duplicate_tool_is_sent_once(client: Any, emulator: Emulator) -> None:
    client.run_tools("Вопрос", [weather, weather])
    assert len(emulator.requests[0].message.tools) == 1


def test_concurrent_run_tools_calls_are_independent(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator)
    tools = [yandexgpt.tool(name=f"f{number}")(returning(str(number))) for number in range(8)]
    running = [Background(client.run_tools, "Вопрос", [each], tool_choice="required") for each in tools]
    assert [each.result().text for each in running] == [str(number) for number in range(8)]
