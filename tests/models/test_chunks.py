"""The rules of streaming, for streams as the service sends them and for other possible streams."""

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
    """Length of the longest common prefix, computed character by character."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def completion_text(responses: list[Response]) -> str:
    return Completion(responses[-1]).text if responses else ""


texts = st.text(alphabet=st.sampled_from("abв я\n👍é" + HALF), max_size=8)


@st.composite
def streams(draw: st.DrawFn) -> list[Response]:
    """Streams of a service: each message extends, shortens or rewrites the previous one, or has another text."""
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
def test_applied_chunks_give_the_answer(responses: list[Response]) -> None:
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
def test_chunk_of_a_partial_never_ends_in_an_incomplete_character(responses: list[Response]) -> None:
    state = StreamState()
    for one in responses:
        chunk = state.next(one)
        if not chunk.status.final:
            assert not chunk.text.endswith(HALF)
            assert not (chunk.text[: chunk.keep] + chunk.delta).endswith(HALF)
        else:
            assert chunk.text == Completion(one).text


@given(texts, texts)
def test_edit_converts_one_text_to_the_other(shown: str, text: str) -> None:
    keep, delta = edit(shown, text)
    assert shown[:keep] + delta == text
    assert keep == common(shown, text)


def test_incomplete_character_is_shown_when_it_is_complete() -> None:
    steps = [
        response("Привет "),
        response(f"Привет {HALF}"),
        response(f"Привет {HALF}{HALF}"),
        response("Привет 👍", status=Status.FINAL),
    ]
    assert [(chunk.keep, chunk.delta) for chunk in chunks_of(steps)] == [(0, "Привет "), (7, ""), (7, ""), (7, "👍")]


def test_replacement_character_of_the_model_is_shown_when_more_text_follows() -> None:
    steps = [response(f"a{HALF}"), response(f"a{HALF}b"), response(f"a{HALF}b{HALF}", status=Status.FINAL)]
    assert [chunk.delta for chunk in chunks_of(steps)] == ["a", f"{HALF}b", HALF]


def test_held_back_text_is_returned_at_the_end_without_a_final_message() -> None:
    state = StreamState()
    assert state.next(response(f"ab{HALF}", tokens=3)).text == "ab"
    [last] = ends(state)
    assert (last.keep, last.delta, last.text, last.status) == (2, HALF, f"ab{HALF}", Status.PARTIAL)
    assert last.usage.completion_tokens == 3
    assert not ends(state)


def test_nothing_is_held_back_after_a_final_message() -> None:
    state = StreamState()
    state.next(response(f"ab{HALF}", status=Status.FINAL))
    assert not ends(state)


def test_stream_without_messages_has_no_chunks_and_no_answer() -> None:
    state = StreamState()
    assert not ends(state)
    assert state.message is None


def test_text_of_the_content_filter_replaces_the_text() -> None:
    _, last = chunks_of([response("Как сделать"), response(REFUSAL, status=Status.CONTENT_FILTER)])
    assert (last.keep, last.delta, last.revised, last.status) == (0, REFUSAL, True, Status.CONTENT_FILTER)


def test_tool_call_is_a_chunk_without_text() -> None:
    [chunk] = chunks_of([without_text(Status.TOOL_CALLS)])
    assert (chunk.text, chunk.delta, chunk.status) == ("", "", Status.TOOL_CALLS)
    assert Completion(chunk.proto).tool_calls[0].name == "weather"


def test_chunk_has_usage_status_and_its_message() -> None:
    message = response("a", "b", status=88, tokens=5)
    [chunk] = chunks_of([message])
    assert chunk.proto is message
    assert isinstance(chunk.usage, Usage)
    assert chunk.usage.completion_tokens == 5
    assert (int(chunk.status), chunk.status.name) == (88, "UNKNOWN_88")
    assert repr(chunk) == "Chunk(keep=0, delta='a', status=UNKNOWN_88)"


@pytest.mark.parametrize("name", ["text", "keep", "delta", "revised", "status", "usage", "proto", "anything"])
def test_chunk_is_immutable(name: str) -> None:
    [chunk] = chunks_of([response("a")])
    with pytest.raises(AttributeError):
        setattr(chunk, name, "b")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", ""), ("a", "a"), (HALF, ""), (f"a{HALF}", "a"), (f"a{HALF * 3}", "a"), (f"{HALF}a", f"{HALF}a")],
)
def test_only_incomplete_characters_at_the_end_are_held_back(text: str, shown: str) -> None:
    assert without_partial_character(text) == shown
    assert Completion(trim_response(response(text, "other", tokens=2))).text == shown


def test_trimming_an_incomplete_character_does_not_change_the_message() -> None:
    message = response(f"ab{HALF}", f"cd{HALF}", tokens=2)
    before = message.SerializeToString()
    trimmed = trim_response(message)
    assert message.SerializeToString() == before
    assert Completion(trimmed).text == "ab"
    assert Completion(trimmed).usage.completion_tokens == 2
    assert len(trimmed.alternatives) == 2


def test_message_of_complete_characters_is_not_copied() -> None:
    for message in (response("ab"), CompletionResponse(), without_text(Status.TOOL_CALLS)):
        assert trim_response(message) is message


@given(streams(), st.integers(0, 6))
def test_append_only_text_gives_the_whole_answer_or_raises(responses: list[Response], holdback: int) -> None:
    text_state = AppendOnlyText(holdback)
    received = ""
    final_text = completion_text(responses)
    error: RevisedError | None = None
    try:
        for chunk in chunks_of(responses):
            piece = text_state.piece(chunk.text, final=chunk.status.final)
            before, received = received, received + piece
            assert chunk.text.startswith(received)
            if not chunk.status.final:
                assert len(received) <= max(len(before), len(chunk.text) - holdback)
        received += text_state.piece(final_text, final=True)
    except RevisedError as raised:
        error = raised
    if error is not None:
        assert not error.text.startswith(received)
        assert error.keep == common(received, error.text)
        assert error.keep < len(received)
    else:
        assert received == final_text


@given(streams(), st.integers(0, 6), st.integers(0, 6))
def test_a_larger_holdback_never_fails_where_a_smaller_one_succeeds(
    responses: list[Response], holdback: int, more: int
) -> None:
    def fails(text_state: AppendOnlyText) -> bool:
        try:
            for one in chunks_of(responses):
                text_state.piece(one.text, final=one.status.final)
        except RevisedError:
            return True
        return False

    assert fails(AppendOnlyText(holdback)) or not fails(AppendOnlyText(holdback + more))


def test_append_only_text_holds_back_the_last_characters_until_the_end() -> None:
    text_state = AppendOnlyText(3)
    assert text_state.piece("abcde", final=False) == "ab"
    assert text_state.piece("abXYZ", final=False) == ""
    assert text_state.piece("abXYZ!", final=False) == "X"
    assert text_state.piece("abXYZ!", final=True) == "YZ!"


def test_append_only_text_raises_on_a_revision() -> None:
    text_state = AppendOnlyText(0)
    assert text_state.piece("Лошадь", final=False) == "Лошадь"
    with pytest.raises(RevisedError) as caught:
        text_state.piece("Лошак", final=True)
    assert (caught.value.text, caught.value.keep) == ("Лошак", 4)
    assert "after its first 4 characters" in str(caught.value)
    assert "holdback" in str(caught.value)


@pytest.mark.parametrize("holdback", [-1, 1.0, "1", None, True])
def test_invalid_holdback_is_rejected(holdback: object) -> None:
    with pytest.raises(ValueError, match="holdback must be a whole number of characters from 0, got"):
        AppendOnlyText(holdback)  # type: ignore[arg-type]


class FakeCall:
    """A call with the attributes that a stream uses, without a network."""

    request_id = "8b1c"

    def __init__(self, responses: list[Response]) -> None:
        self.remaining = responses
        self.answer: Response | None = None
        self.cancelled = False

    def completion(self) -> Completion:
        assert self.answer is not None
        return Completion(self.answer, self.request_id)

    def cancel(self) -> None:
        self.cancelled = True

    def responses(self) -> Generator[Response, None, None]:
        yield from self.remaining
        self.answer = self.remaining[-1]

    async def async_responses(self) -> AsyncGenerator[Response, None]:
        for one in self.remaining:
            yield one
        self.answer = self.remaining[-1]


def open_stream(*responses: Response) -> tuple[Stream, FakeCall]:
    call = FakeCall(list(responses))
    return Stream(call.responses(), call), call  # type: ignore[arg-type]


def open_async_stream(*responses: Response) -> tuple[AsyncStream, FakeCall]:
    call = FakeCall(list(responses))
    return AsyncStream(call.async_responses(), call), call  # type: ignore[arg-type]


@given(streams().filter(bool))
def test_sync_and_async_streams_give_the_same_chunks_and_answer(responses: list[Response]) -> None:
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


def test_stream_has_a_partial_first_and_a_completion_at_the_end() -> None:
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


def test_partial_of_a_stream_has_the_final_message_unchanged() -> None:
    stream, _ = open_stream(response(f"ab{HALF}", status=Status.FINAL))
    chunk = next(stream)
    assert stream.partial is not None
    assert stream.partial.text == chunk.text


def test_text_yields_pieces_and_the_held_back_text_at_the_end() -> None:
    growing = [response("Бай"), response("Байкал"), response("Байкал"), response(f"Байкал — {HALF}")]
    assert list(open_stream(*growing)[0].text()) == ["Бай", "кал", " — ", HALF]
    assert list(open_stream(*growing)[0].text(holdback=4)) == ["Ба", "йка", "л", f" — {HALF}"]

    async def read(holdback: int) -> list[str]:
        return [piece async for piece in open_async_stream(*growing)[0].text(holdback=holdback)]

    assert asyncio.run(read(0)) == ["Бай", "кал", " — ", HALF]
    assert asyncio.run(read(4)) == ["Ба", "йка", "л", f" — {HALF}"]


def test_text_raises_on_a_revision() -> None:
    revising = [response("Лошадь"), response("Лошак", status=Status.FINAL)]
    with pytest.raises(RevisedError):
        list(open_stream(*revising)[0].text())
    assert list(open_stream(*revising)[0].text(holdback=2)) == ["Лоша", "к"]

    async def read() -> list[str]:
        return [piece async for piece in open_async_stream(*revising)[0].text()]

    with pytest.raises(RevisedError):
        asyncio.run(read())


def test_invalid_holdback_is_rejected_before_reading() -> None:
    with pytest.raises(ValueError, match="holdback"):
        open_stream(response("a"))[0].text(holdback=-1)
    with pytest.raises(ValueError, match="holdback"):
        open_async_stream(response("a"))[0].text(holdback=-1)


def test_leaving_a_stream_early_cancels_its_call() -> None:
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


def test_leaving_an_async_stream_early_cancels_its_call() -> None:
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


def test_finish_reads_the_whole_stream() -> None:
    assert open_stream(response("a"), response(f"ab{HALF}"))[0].finish().text == f"ab{HALF}"


def test_finish_reads_the_whole_async_stream() -> None:
    async def read() -> Completion:
        return await open_async_stream(response("a"), response(f"ab{HALF}"))[0].finish()

    assert asyncio.run(read()).text == f"ab{HALF}"


def test_stream_can_be_closed_during_a_read() -> None:
    call = FakeCall([response("a")])

    def closed_while_it_runs() -> Generator[Response, None, None]:
        stream.close()
        yield from call.remaining

    stream = Stream(closed_while_it_runs(), call)  # type: ignore[arg-type]
    assert next(stream).text == "a"
    assert call.cancelled


def test_async_stream_can_be_closed_during_a_read() -> None:
    call = FakeCall([response("a")])

    async def read() -> str:
        async def closed_while_it_runs() -> AsyncGenerator[Response, None]:
            await stream.close()
            yield call.remaining[0]

        stream = AsyncStream(closed_while_it_runs(), call)  # type: ignore[arg-type]
        text = (await stream.__anext__()).text
        await stream.close()
        return text

    assert asyncio.run(read()) == "a"
    assert call.cancelled
