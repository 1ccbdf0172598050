"""The streaming law, on streams that do everything the service has been seen to do, and on some that it has not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yandexgpt import AsyncStream, Completion, RevisedError, Status, Stream, Usage, YandexGPTError
from yandexgpt._chunks import AppendOnlyText, Chunk, StreamState, edit, trim_response, without_partial_character
from yandexgpt._models import CompletionResponse
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2

HALF = "\N{REPLACEMENT CHARACTER}"
REFUSAL = "В интернете есть много сайтов с информацией на эту тему."

Response = CompletionResponse


def response(*texts: str, status: int = Status.PARTIAL, tokens: int = 0) -> Response:
    alternatives = [
        text_common_pb2.Alternative(
            message=text_common_pb2.Message(role="assistant", text=text),
            status=cast("text_common_pb2.Alternative.AlternativeStatus", status),
        )
        for text in texts
    ]
    usage = text_common_pb2.ContentUsage(completion_tokens=tokens)
    return CompletionResponse(alternatives=alternatives, usage=usage, model_version="1")


def without_text(status: int) -> Response:
    call = text_common_pb2.ToolCall(function_call=text_common_pb2.FunctionCall(name="weather"))
    message = text_common_pb2.Message(role="assistant", tool_call_list={"tool_calls": [call]})
    return CompletionResponse(
        alternatives=[
            text_common_pb2.Alternative(
                message=message, status=cast("text_common_pb2.Alternative.AlternativeStatus", status)
            )
        ]
    )


def ends(state: StreamState) -> list[Chunk]:
    return [] if (chunk := state.finish()) is None else [chunk]


def chunks_of(responses: list[Response]) -> list[Chunk]:
    state = StreamState()
    return [*(state.next(one) for one in responses), *ends(state)]


def common(one: str, other: str) -> int:
    """Length of the longest common beginning, counted the plain way."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def completion_text(responses: list[Response]) -> str:
    return Completion(responses[-1]).text if responses else ""


texts = st.text(alphabet=st.sampled_from("abв я\n👍é" + HALF), max_size=8)


@st.composite
def streams(draw: st.DrawFn) -> list[Response]:
    """What a service may send: each message grows, shrinks or rewrites the one before it, or jumps elsewhere."""
    responses: list[Response] = []
    text = ""
    for _ in range(draw(st.integers(0, 8))):
        status: int = Status.PARTIAL
        step = draw(
            st.sampled_from(
                ["grow", "shrink", "rewrite", "half", "repeat", "empty", "filter", "tools", "several", "none", "status"]
            )
        )
        if step == "grow":
            text += draw(texts)
        elif step == "shrink":
            text = text[: draw(st.integers(0, len(text)))]
        elif step == "rewrite":
            text = text[: draw(st.integers(0, len(text)))] + draw(texts)
        elif step == "half":
            text = text + HALF * draw(st.integers(1, 3))
        elif step == "empty":
            text = ""
        elif step == "filter":
            text, status = REFUSAL, Status.CONTENT_FILTER
        elif step == "tools":
            responses.append(without_text(draw(st.sampled_from([Status.PARTIAL, Status.TOOL_CALLS]))))
            continue
        elif step == "several":
            text += draw(texts)
            responses.append(response(text, draw(texts), draw(texts)))
            continue
        elif step == "none":
            responses.append(CompletionResponse())
            continue
        elif step == "status":
            status = draw(st.sampled_from([-3, 0, 6, 77, 2**31 - 1]))
        responses.append(response(text, status=status, tokens=len(responses)))
    if draw(st.booleans()):
        text = draw(st.one_of(st.just(text), texts))
        final = st.sampled_from([Status.FINAL, Status.TRUNCATED, Status.CONTENT_FILTER, 9])
        responses.append(response(text, status=draw(final)))
    return responses


@given(streams())
def test_a_reader_who_applies_every_chunk_holds_the_answer(responses: list[Response]) -> None:
    shown = ""
    for chunk in chunks_of(responses):
        shown = shown[: chunk.keep] + chunk.delta
        assert shown == chunk.text
    assert shown == completion_text(responses)


@given(streams())
def test_keep_is_the_length_of_the_common_prefix(responses: list[Response]) -> None:
    shown = ""
    for chunk in chunks_of(responses):
        assert chunk.keep == common(shown, chunk.text)
        assert chunk.revised == (chunk.keep < len(shown))
        shown = chunk.text


@given(streams())
def test_a_chunk_of_a_partial_never_ends_in_half_a_character(responses: list[Response]) -> None:
    state = StreamState()
    for one in responses:
        chunk = state.next(one)
        if not chunk.status.final:
            assert not chunk.text.endswith(HALF)
            assert not (chunk.text[: chunk.keep] + chunk.delta).endswith(HALF)
        else:
            assert chunk.text == Completion(one).text


@given(texts, texts)
def test_an_edit_leads_from_one_text_to_the_other(shown: str, text: str) -> None:
    keep, delta = edit(shown, text)
    assert shown[:keep] + delta == text
    assert keep == common(shown, text)


def test_a_character_that_comes_in_halves_is_shown_once_it_is_whole() -> None:
    steps = [
        response("Привет "),
        response(f"Привет {HALF}"),
        response(f"Привет {HALF}{HALF}"),
        response("Привет 👍", status=Status.FINAL),
    ]
    assert [(chunk.keep, chunk.delta) for chunk in chunks_of(steps)] == [(0, "Привет "), (7, ""), (7, ""), (7, "👍")]


def test_a_replacement_character_that_the_model_meant_is_shown_when_it_is_settled() -> None:
    steps = [response(f"a{HALF}"), response(f"a{HALF}b"), response(f"a{HALF}b{HALF}", status=Status.FINAL)]
    assert [chunk.delta for chunk in chunks_of(steps)] == ["a", f"{HALF}b", HALF]


def test_text_held_back_is_handed_out_when_the_stream_ends_without_a_final_message() -> None:
    state = StreamState()
    assert state.next(response(f"ab{HALF}", tokens=3)).text == "ab"
    [last] = ends(state)
    assert (last.keep, last.delta, last.text, last.status) == (2, HALF, f"ab{HALF}", Status.PARTIAL)
    assert last.usage.completion_tokens == 3
    assert not ends(state)


def test_nothing_is_left_over_after_a_final_message() -> None:
    state = StreamState()
    state.next(response(f"ab{HALF}", status=Status.FINAL))
    assert not ends(state)


def test_a_stream_without_messages_has_no_chunks_and_no_answer() -> None:
    state = StreamState()
    assert not ends(state)
    assert state.message is None


def test_the_refusal_of_a_content_filter_replaces_the_text() -> None:
    _, last = chunks_of([response("Как сделать"), response(REFUSAL, status=Status.CONTENT_FILTER)])
    assert (last.keep, last.delta, last.revised, last.status) == (0, REFUSAL, True, Status.CONTENT_FILTER)


def test_a_tool_call_is_a_chunk_without_text() -> None:
    [chunk] = chunks_of([without_text(Status.TOOL_CALLS)])
    assert (chunk.text, chunk.delta, chunk.status) == ("", "", Status.TOOL_CALLS)
    assert Completion(chunk.proto).tool_calls[0].name == "weather"


def test_a_chunk_shows_usage_status_and_the_message_it_came_from() -> None:
    message = response("a", "b", status=88, tokens=5)
    [chunk] = chunks_of([message])
    assert chunk.proto is message
    assert isinstance(chunk.usage, Usage)
    assert chunk.usage.completion_tokens == 5
    assert (int(chunk.status), chunk.status.name) == (88, "UNKNOWN_88")
    assert repr(chunk) == "Chunk(keep=0, delta='a', status=UNKNOWN_88)"


@pytest.mark.parametrize("name", ["text", "keep", "delta", "revised", "status", "usage", "proto", "anything"])
def test_a_chunk_is_frozen(name: str) -> None:
    [chunk] = chunks_of([response("a")])
    with pytest.raises(AttributeError):
        setattr(chunk, name, "b")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", ""), ("a", "a"), (HALF, ""), (f"a{HALF}", "a"), (f"a{HALF * 3}", "a"), (f"{HALF}a", f"{HALF}a")],
)
def test_only_halves_at_the_end_are_unsettled(text: str, shown: str) -> None:
    assert without_partial_character(text) == shown
    assert Completion(trim_response(response(text, "other", tokens=2))).text == shown


def test_trimming_a_broken_off_message_leaves_the_message_alone() -> None:
    message = response(f"ab{HALF}", f"cd{HALF}", tokens=2)
    before = message.SerializeToString()
    trimmed = trim_response(message)
    assert message.SerializeToString() == before
    assert Completion(trimmed).text == "ab"
    assert Completion(trimmed).usage.completion_tokens == 2
    assert len(trimmed.alternatives) == 2


def test_a_message_in_whole_characters_is_not_copied() -> None:
    for message in (response("ab"), CompletionResponse(), without_text(Status.TOOL_CALLS)):
        assert trim_response(message) is message


@given(streams(), st.integers(0, 6))
def test_append_only_text_gives_the_whole_answer_or_raises(responses: list[Response], holdback: int) -> None:
    speech = AppendOnlyText(holdback)
    said = ""
    final_text = completion_text(responses)
    error: RevisedError | None = None
    try:
        for chunk in chunks_of(responses):
            piece = speech.piece(chunk.text, final=chunk.status.final)
            before, said = said, said + piece
            assert chunk.text.startswith(said)
            if not chunk.status.final:
                assert len(said) <= max(len(before), len(chunk.text) - holdback)
        said += speech.piece(final_text, final=True)
    except RevisedError as raised:
        error = raised
    if error is not None:
        assert not error.text.startswith(said)
        assert error.keep == common(said, error.text)
        assert error.keep < len(said)
    else:
        assert said == final_text


@given(streams(), st.integers(0, 6), st.integers(0, 6))
def test_a_larger_holdback_never_fails_where_a_smaller_one_succeeds(
    responses: list[Response], holdback: int, more: int
) -> None:
    def fails(speech: AppendOnlyText) -> bool:
        try:
            for one in chunks_of(responses):
                speech.piece(one.text, final=one.status.final)
        except RevisedError:
            return True
        return False

    assert fails(AppendOnlyText(holdback)) or not fails(AppendOnlyText(holdback + more))


def test_append_only_text_holds_the_last_characters_back_until_the_end() -> None:
    speech = AppendOnlyText(3)
    assert speech.piece("abcde", final=False) == "ab"
    assert speech.piece("abXYZ", final=False) == ""
    assert speech.piece("abXYZ!", final=False) == "X"
    assert speech.piece("abXYZ!", final=True) == "YZ!"


def test_append_only_text_raises_on_a_revision() -> None:
    speech = AppendOnlyText(0)
    assert speech.piece("Лошадь", final=False) == "Лошадь"
    with pytest.raises(RevisedError) as caught:
        speech.piece("Лошак", final=True)
    assert (caught.value.text, caught.value.keep) == ("Лошак", 4)
    assert "after its first 4 characters" in str(caught.value)
    assert "holdback" in str(caught.value)


@pytest.mark.parametrize("holdback", [-1, 1.0, "1", None, True])
def test_an_impossible_holdback_is_refused(holdback: object) -> None:
    with pytest.raises(ValueError, match="holdback must be a whole number of characters from 0, got"):
        AppendOnlyText(holdback)  # type: ignore[arg-type]


class StandInCall:
    """As much of a call as a stream asks about; nothing goes over a network."""

    request_id = "8b1c"

    def __init__(self, responses: list[Response]) -> None:
        self.to_come = responses
        self.answer: Response | None = None
        self.cancelled = False

    def completion(self) -> Completion:
        assert self.answer is not None
        return Completion(self.answer, self.request_id)

    def cancel(self) -> None:
        self.cancelled = True

    def responses(self) -> Generator[Response, None, None]:
        yield from self.to_come
        self.answer = self.to_come[-1]

    async def async_responses(self) -> AsyncGenerator[Response, None]:
        for one in self.to_come:
            yield one
        self.answer = self.to_come[-1]


def open_stream(*responses: Response) -> tuple[Stream, StandInCall]:
    call = StandInCall(list(responses))
    return Stream(call.responses(), call), call  # type: ignore[arg-type]


def open_async_stream(*responses: Response) -> tuple[AsyncStream, StandInCall]:
    call = StandInCall(list(responses))
    return AsyncStream(call.async_responses(), call), call  # type: ignore[arg-type]


@given(streams().filter(bool))
def test_both_streams_give_the_same_chunks_and_the_same_answer(responses: list[Response]) -> None:
    async def read() -> list[tuple[int, str]]:
        stream, _ = open_async_stream(*responses)
        return [(chunk.keep, chunk.delta) async for chunk in stream]

    stream, _ = open_stream(*responses)
    edits = [(chunk.keep, chunk.delta) for chunk in stream]
    assert asyncio.run(read()) == edits
    shown = ""
    for keep, delta in edits:
        shown = shown[:keep] + delta
    assert shown == stream.completion.text
    assert list(stream) == []


def test_a_stream_has_a_partial_first_and_a_completion_in_the_end() -> None:
    stream, _ = open_stream(response(f"ab{HALF}"))
    assert stream.request_id == "8b1c"
    assert stream.partial is None
    with pytest.raises(YandexGPTError, match=r"iterate over the stream to its end, or call finish\(\)"):
        _ = stream.completion
    assert next(stream).text == "ab"
    assert stream.partial is not None
    assert (stream.partial.text, stream.partial.request_id) == ("ab", "8b1c")
    assert next(stream).text == stream.completion.text == stream.partial.text == f"ab{HALF}"
    with pytest.raises(StopIteration):
        next(stream)
    assert stream.finish().text == f"ab{HALF}"


def test_the_partial_of_a_stream_shows_a_final_message_as_it_is() -> None:
    stream, _ = open_stream(response(f"ab{HALF}", status=Status.FINAL))
    chunk = next(stream)
    assert stream.partial is not None
    assert stream.partial.text == chunk.text


def test_text_comes_in_pieces_and_what_was_held_back_in_the_end() -> None:
    growing = [response("Бай"), response("Байкал"), response("Байкал"), response(f"Байкал — {HALF}")]
    assert list(open_stream(*growing)[0].text()) == ["Бай", "кал", " — ", HALF]
    assert list(open_stream(*growing)[0].text(holdback=4)) == ["Ба", "йка", "л", f" — {HALF}"]

    async def read(holdback: int) -> list[str]:
        return [piece async for piece in open_async_stream(*growing)[0].text(holdback=holdback)]

    assert asyncio.run(read(0)) == ["Бай", "кал", " — ", HALF]
    assert asyncio.run(read(4)) == ["Ба", "йка", "л", f" — {HALF}"]


def test_text_says_when_something_was_taken_back() -> None:
    revising = [response("Лошадь"), response("Лошак", status=Status.FINAL)]
    with pytest.raises(RevisedError):
        list(open_stream(*revising)[0].text())
    assert list(open_stream(*revising)[0].text(holdback=2)) == ["Лоша", "к"]

    async def read() -> list[str]:
        return [piece async for piece in open_async_stream(*revising)[0].text()]

    with pytest.raises(RevisedError):
        asyncio.run(read())


def test_an_impossible_holdback_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="holdback"):
        open_stream(response("a"))[0].text(holdback=-1)
    with pytest.raises(ValueError, match="holdback"):
        open_async_stream(response("a"))[0].text(holdback=-1)


def test_leaving_a_stream_in_the_middle_cancels_its_call() -> None:
    stream, call = open_stream(response("a"), response("ab"))
    with stream:
        assert next(stream).text == "a"
    assert call.cancelled
    stream.close()
    assert list(stream) == []
    assert stream.partial is not None
    assert stream.partial.text == "a"
    with pytest.raises(YandexGPTError, match="the answer is not whole"):
        stream.finish()


def test_leaving_an_asynchronous_stream_in_the_middle_cancels_its_call() -> None:
    async def leave() -> None:
        stream, call = open_async_stream(response("a"), response("ab"))
        async with stream:
            assert (await stream.__anext__()).text == "a"
        assert call.cancelled
        await stream.aclose()
        assert [chunk async for chunk in stream] == []
        with pytest.raises(YandexGPTError, match="the answer is not whole"):
            await stream.finish()

    asyncio.run(leave())


def test_a_stream_can_be_read_to_its_end_at_once() -> None:
    assert open_stream(response("a"), response(f"ab{HALF}"))[0].finish().text == f"ab{HALF}"


def test_an_asynchronous_stream_can_be_read_to_its_end_at_once() -> None:
    async def read() -> Completion:
        return await open_async_stream(response("a"), response(f"ab{HALF}"))[0].finish()

    assert asyncio.run(read()).text == f"ab{HALF}"


def test_a_stream_that_is_being_read_can_be_closed_from_elsewhere() -> None:
    call = StandInCall([response("a")])

    def closed_while_it_runs() -> Generator[Response, None, None]:
        stream.close()
        yield from call.to_come

    stream = Stream(closed_while_it_runs(), call)  # type: ignore[arg-type]
    assert next(stream).text == "a"
    assert call.cancelled


def test_an_asynchronous_stream_that_is_being_read_can_be_closed_from_elsewhere() -> None:
    call = StandInCall([response("a")])

    async def read() -> str:
        async def closed_while_it_runs() -> AsyncGenerator[Response, None]:
            await stream.close()
            yield call.to_come[0]

        stream = AsyncStream(closed_while_it_runs(), call)  # type: ignore[arg-type]
        text = (await stream.__anext__()).text
        await stream.close()
        return text

    assert asyncio.run(read()) == "a"
    assert call.cancelled
