"""Completions: attributes, comparison, hash, copy, pickle and JSON."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yandexgpt import Alternative, Completion, Message, Status, ToolCall, Usage
from yandexgpt._models import CompletionResponse, ReceivedMetadata, Token
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2

ANSWER = {
    "result": {
        "alternatives": [
            {
                "message": {"role": "assistant", "text": "1. Составь план подготовки.\n\n2. Не волнуйся."},
                "status": "ALTERNATIVE_STATUS_FINAL",
            }
        ],
        "usage": {
            "inputTextTokens": "44",
            "completionTokens": "323",
            "totalTokens": "367",
            "completionTokensDetails": {"reasoningTokens": "20"},
        },
        "modelVersion": "06.12.2023",
    }
}
CALLS = {
    "alternatives": [
        {
            "message": {
                "role": "assistant",
                "toolCallList": {
                    "toolCalls": [
                        {"functionCall": {"name": "weather", "arguments": {"city": "Москва", "days": 3, "t": 0.5}}},
                        {"functionCall": {"name": "now"}},
                    ]
                },
            },
            "status": "ALTERNATIVE_STATUS_TOOL_CALLS",
        }
    ]
}


def completion(text: str = "Ответ", status: int = Status.FINAL, **around: Any) -> Completion:
    message = text_common_pb2.Message(role="assistant", text=text)
    alternative = text_common_pb2.Alternative(
        message=message, status=cast("text_common_pb2.Alternative.AlternativeStatus", status)
    )
    return Completion(CompletionResponse(alternatives=[alternative]), **around)


# Views


def test_completion_attributes_are_those_of_the_first_alternative() -> None:
    answer = Completion.from_dict(ANSWER)
    assert answer.text == "1. Составь план подготовки.\n\n2. Не волнуйся."
    assert answer.role == "assistant"
    assert answer.status is Status.FINAL
    assert (answer.truncated, answer.filtered) == (False, False)
    assert answer.message == Message("assistant", answer.text)
    assert answer.tool_calls == ()
    assert answer.model_version == "06.12.2023"
    assert answer.usage.input_tokens == 44
    assert answer.usage.completion_tokens == 323
    assert answer.usage.total_tokens == 367
    assert answer.usage.reasoning_tokens == 20
    assert answer.proto.alternatives[0].message.text == answer.text


def test_completion_has_tool_calls() -> None:
    answer = Completion.from_dict(CALLS)
    weather, now = answer.tool_calls
    assert (weather.name, weather.arguments) == ("weather", {"city": "Москва", "days": 3, "t": 0.5})
    assert type(weather.arguments["days"]) is int
    assert (now.name, now.arguments) == ("now", {})
    assert (answer.text, answer.status) == ("", Status.TOOL_CALLS)
    assert answer.message.tool_calls == answer.alternatives[0].tool_calls == answer.tool_calls


def test_completion_has_all_alternatives() -> None:
    response = CompletionResponse()
    for text, status in (("a", 3), ("b", 2)):
        response.alternatives.add(
            message=text_common_pb2.Message(role="assistant", text=text),
            status=status,
        )
    first, second = Completion(response).alternatives
    assert (first.text, first.role, first.status, first.tool_calls) == ("a", "assistant", Status.FINAL, ())
    assert second.message == Message("assistant", "b")
    assert second.status is Status.TRUNCATED
    assert Completion(response).text == "a"


def test_completion_without_alternatives_is_empty() -> None:
    empty = Completion(CompletionResponse())
    assert (empty.text, empty.role, empty.status, empty.tool_calls) == ("", "", Status.UNSPECIFIED, ())
    assert (empty.alternatives, empty.model_version, empty.usage.total_tokens) == ((), "", 0)
    assert empty.message.text == ""


@pytest.mark.parametrize(
    ("status", "truncated", "filtered"),
    [(Status.FINAL, False, False), (Status.TRUNCATED, True, False), (Status.CONTENT_FILTER, False, True), (9, 0, 0)],
)
def test_completion_is_truncated_or_filtered_by_status(status: int, truncated: bool, filtered: bool) -> None:
    answer = completion(status=status)
    assert (answer.truncated, answer.filtered) == (bool(truncated), bool(filtered))


def test_completion_has_the_ids_of_its_call() -> None:
    received = ReceivedMetadata((("x-request-id", "r"), ("x-server-trace-id", "t")), (("x-request-id", "trailing"),))
    answer = completion(request_id="c", received=received)
    assert (answer.request_id, answer.server_request_id, answer.trace_id) == ("c", "trailing", "t")


@pytest.mark.parametrize("received", [ReceivedMetadata(None, None), ReceivedMetadata(), ReceivedMetadata((), None)])
def test_missing_ids_are_none(received: ReceivedMetadata) -> None:
    answer = completion(received=received)
    assert (answer.request_id, answer.server_request_id, answer.trace_id) == (None, None, None)


VIEWS: dict[str, Callable[[], Any]] = {
    "Completion": lambda: Completion.from_dict(ANSWER),
    "Usage": lambda: Completion.from_dict(ANSWER).usage,
    "Alternative": lambda: Completion.from_dict(CALLS).alternatives[0],
    "ToolCall": lambda: Completion.from_dict(CALLS).tool_calls[0],
    "Message": lambda: Message("user", "Привет"),
    "Token": lambda: Token(text_common_pb2.Token(id=7, text="при", special=True)),
}
OTHERS: dict[str, Any] = {
    "Completion": completion("other"),
    "Usage": Usage(text_common_pb2.ContentUsage(total_tokens=1)),
    "Alternative": completion("other").alternatives[0],
    "ToolCall": Completion.from_dict(CALLS).tool_calls[1],
    "Message": Message("user", "other"),
    "Token": Token(text_common_pb2.Token(id=7, text="при")),
}
every_view = pytest.mark.parametrize("name", VIEWS)


@every_view
def test_equal_views_have_equal_hashes(name: str) -> None:
    one, same, other = VIEWS[name](), VIEWS[name](), OTHERS[name]
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert len({one, same, other}) == 2
    assert one != one.proto
    assert one != "a"
    for kind, make in VIEWS.items():
        assert (make() == one) is (kind == name)


@every_view
def test_view_is_immutable(name: str) -> None:
    view = VIEWS[name]()
    names = [attribute for attribute in dir(type(view)) if not attribute.startswith("_")]
    assert "proto" in names
    for attribute in [*names, "anything"]:
        with pytest.raises(AttributeError):
            setattr(view, attribute, "changed")
        with pytest.raises(AttributeError):
            delattr(view, attribute)
    assert view == VIEWS[name]()


@every_view
def test_view_can_be_copied_and_pickled(name: str) -> None:
    view = VIEWS[name]()
    assert copy.copy(view) is view
    deep = copy.deepcopy(view)
    assert deep == view
    assert deep.proto is not view.proto
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(view, protocol))
        assert again == view
        assert type(again) is type(view)


@every_view
def test_repr_of_a_view(name: str) -> None:
    assert repr(VIEWS[name]()).startswith(f"{name}(")


def test_repr_of_a_token() -> None:
    token = VIEWS["Token"]()
    assert (token.id, token.text, token.special) == (7, "при", True)
    assert repr(token) == "Token(id=7, text='при', special=True)"


def test_repr_of_each_class() -> None:
    usage = "Usage(input_tokens=44, completion_tokens=323, total_tokens=367, reasoning_tokens=20)"
    assert repr(Completion.from_dict(ANSWER)) == (
        f"Completion(text='1. Составь план подготовки.\\n\\n2. Не волнуйся.', status=FINAL, usage={usage})"
    )
    assert repr(completion("a").alternatives[0]) == (
        "Alternative(message=Message(role='assistant', text='a'), status=FINAL)"
    )
    now = Completion.from_dict(CALLS).tool_calls[1]
    assert repr(now) == "ToolCall(name='now', arguments={})"
    assert "tool_calls=(ToolCall(name='weather'" in repr(Completion.from_dict(CALLS))


def test_ids_of_a_call_can_be_pickled_and_copied() -> None:
    received = ReceivedMetadata((("x-request-id", "r"), ("date", "today")), (("x-server-trace-id", "t"),))
    answer = completion(request_id="c", received=received)
    for again in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer), copy.copy(answer)):
        assert (again.request_id, again.server_request_id, again.trace_id) == ("c", "r", "t")
        assert again == answer


def test_completion_with_unpicklable_metadata_can_be_pickled() -> None:
    received = ReceivedMetadata(iter(()), [("x-request-id", "r")])
    assert pickle.loads(pickle.dumps(completion(received=received))).server_request_id == "r"


# Status


def test_statuses_are_those_of_the_interface() -> None:
    kind = text_common_pb2.Alternative.AlternativeStatus
    assert {
        "UNSPECIFIED": kind.Value("ALTERNATIVE_STATUS_UNSPECIFIED"),
        "PARTIAL": kind.Value("ALTERNATIVE_STATUS_PARTIAL"),
        "TRUNCATED": kind.Value("ALTERNATIVE_STATUS_TRUNCATED_FINAL"),
        "FINAL": kind.Value("ALTERNATIVE_STATUS_FINAL"),
        "CONTENT_FILTER": kind.Value("ALTERNATIVE_STATUS_CONTENT_FILTER"),
        "TOOL_CALLS": kind.Value("ALTERNATIVE_STATUS_TOOL_CALLS"),
    } == {status.name: status.value for status in Status}
    assert len(kind.values()) == len(Status)


@pytest.mark.parametrize("status", [*Status, Status(9), Status(-1)])
def test_status_can_be_copied_and_pickled(status: Status) -> None:
    for again in (copy.copy(status), copy.deepcopy(status), pickle.loads(pickle.dumps(status))):
        assert again == status
        assert hash(again) == hash(status)
        assert (again.name, again.value, repr(again)) == (status.name, status.value, repr(status))
        assert isinstance(again, Status)


@given(st.integers(-(2**31), 2**31 - 1).filter(lambda number: number not in range(6)))
def test_unknown_status_keeps_its_number(number: int) -> None:
    status = completion(status=number).status
    assert status == number
    assert status.name == f"UNKNOWN_{number}"
    assert status.final is (number > 0)
    assert status == Status(number)
    assert {Status(number): 1}[status] == 1
    answer = pickle.loads(pickle.dumps(completion(status=number)))
    assert answer.status == number
    assert Completion.from_dict(answer.to_dict()).status == number


def test_unknown_status_is_not_an_enum_member() -> None:
    assert Status(9) == 9
    assert len(Status) == 6
    assert 9 not in [status.value for status in Status]


@pytest.mark.parametrize("value", ["FINAL", None, 2.5])
def test_status_that_is_not_a_number_is_rejected(value: Any) -> None:
    with pytest.raises(ValueError, match="not a valid Status"):
        Status(value)


@pytest.mark.parametrize(
    ("status", "final"),
    [
        (Status.UNSPECIFIED, False),
        (Status.PARTIAL, False),
        (Status.TRUNCATED, True),
        (Status.FINAL, True),
        (Status.CONTENT_FILTER, True),
        (Status.TOOL_CALLS, True),
    ],
)
def test_status_is_final_or_partial(status: Status, final: bool) -> None:
    assert status.final is final


# JSON of the REST API


@pytest.mark.parametrize("answer", [ANSWER, ANSWER["result"], CALLS, {"result": CALLS}])
def test_from_dict_accepts_an_answer_with_and_without_result(answer: dict[str, Any]) -> None:
    before = copy.deepcopy(answer)
    written = Completion.from_dict(answer).to_dict()
    assert answer == before
    expected = answer if "result" in answer else {"result": answer}
    assert json.loads(json.dumps(written)) == expected


integers = st.integers(0, 2**63 - 1)
characters = st.characters(exclude_categories=["Cs"])
json_numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
arguments = st.dictionaries(
    st.text(characters, max_size=4),
    st.none() | st.booleans() | json_numbers | st.text(characters, max_size=4) | st.lists(json_numbers, max_size=3),
    max_size=3,
)


@st.composite
def responses(draw: st.DrawFn) -> CompletionResponse:
    response = CompletionResponse(model_version=draw(st.text(characters, max_size=4)))
    for _ in range(draw(st.integers(0, 3))):
        alternative = response.alternatives.add(status=draw(st.integers(-2, 12)))
        alternative.message.role = draw(st.sampled_from(["assistant", "user", ""]))
        if draw(st.booleans()):
            alternative.message.text = draw(st.text(characters, max_size=10))
        else:
            for _ in range(draw(st.integers(0, 2))):
                call = alternative.message.tool_call_list.tool_calls.add().function_call
                call.name = draw(st.text(characters, max_size=4))
                call.arguments.update(draw(arguments))
    if draw(st.booleans()):
        usage = response.usage
        usage.input_text_tokens, usage.completion_tokens, usage.total_tokens = draw(st.tuples(*[integers] * 3))
        usage.completion_tokens_details.reasoning_tokens = draw(integers)
    return response


@given(responses())
def test_any_completion_is_equal_after_json_and_pickle_round_trips(response: CompletionResponse) -> None:
    answer = Completion(response)
    again = Completion.from_dict(json.loads(json.dumps(answer.to_dict())))
    assert again == answer
    assert hash(again) == hash(answer)
    assert pickle.loads(pickle.dumps(answer)) == copy.deepcopy(answer) == answer
    assert [call.arguments for call in again.tool_calls] == [call.arguments for call in answer.tool_calls]


def test_token_counts_are_strings_in_json() -> None:
    usage = Completion.from_dict(ANSWER).to_dict()["result"]["usage"]
    assert usage["totalTokens"] == "367"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"error": {"code": 3, "message": "bad"}}, '"error"'),
        ({"result": {"alternatives": 5}}, "alternatives"),
        ({"result": {"alternatives": [{"status": "ALTERNATIVE_STATUS_NEWER"}]}}, "ALTERNATIVE_STATUS_NEWER"),
        ({"result": {"usage": {"totalTokens": "many"}}}, "totalTokens"),
        ({"result": {"usage": 5}}, "usage"),
        ({5: 1}, "5"),
    ],
)
def test_error_of_an_invalid_answer_names_the_field(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"not an answer of the REST API: .*{words}"):
        Completion.from_dict(data)


@pytest.mark.parametrize(
    "data", [{"result": []}, {"result": None}, {"result": 5}, {"result": "text"}, [], None, 5, "text"]
)
def test_answer_that_is_not_a_mapping_is_rejected(data: Any) -> None:
    with pytest.raises(ValueError, match="not an answer of the REST API"):
        Completion.from_dict(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["text", "a", "5"]),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["result", "alternatives", "message", "text", "usage", "status"]), inner, max_size=3
            )
        ),
    ).filter(lambda data: isinstance(data, dict) and isinstance(data.get("result", {}), dict))
)
def test_any_invalid_mapping_is_a_value_error(data: dict[str, Any]) -> None:
    try:
        answer = Completion.from_dict(data)
    except ValueError:
        return
    assert isinstance(answer.text, str)


def test_views_wrap_the_given_message_without_copying() -> None:
    proto = Completion.from_dict(CALLS).proto
    assert Alternative(proto.alternatives[0]).proto is proto.alternatives[0]
    call = proto.alternatives[0].message.tool_call_list.tool_calls[0]
    assert ToolCall(call).proto is call
    assert Completion(proto).proto is proto
    assert Message.from_proto(proto.alternatives[0].message).proto is proto.alternatives[0].message
