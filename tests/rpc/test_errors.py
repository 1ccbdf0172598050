"""The mapping of gRPC errors to the error classes: decoded details, messages, pickling and base classes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

import yandexgpt
from yandexgpt import errors
from yandexgpt._models import CompletionResponse
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._rpc import failures

Code = grpc.StatusCode


class Failure(grpc.RpcError):
    """The part of the stubs' error that the mapping reads."""

    def __init__(self, code: Code, details: str | None = "", initial: Any = (), trailing: Any = ()) -> None:
        super().__init__()
        self._code, self._details, self._initial, self._trailing = code, details, initial, trailing

    def code(self) -> Code:
        return self._code

    def details(self) -> str | None:
        return self._details

    def initial_metadata(self) -> Any:
        return self._initial

    def trailing_metadata(self) -> Any:
        return self._trailing


def mapped(
    code: Code = Code.UNAVAILABLE,
    message: str | None = "",
    *details: Message | any_pb2.Any,
    initial: Any = (),
    trailing: Any = (),
    **about: Any,
) -> errors.APIError:
    if details:
        trailing = (*trailing, ("grpc-status-details-bin", packed(code, *details)))
    arguments = {"request_id": "c0ffee", "endpoint": "llm.example:443", "attempts": 1, "elapsed": 0.5, **about}
    return failures.from_rpc_error(Failure(code, message, initial, trailing), **arguments)


def packed(code: Code, *details: Message) -> bytes:
    status = status_pb2.Status(code=code.value[0], message="m")
    for detail in details:
        if isinstance(detail, any_pb2.Any):
            status.details.append(detail)
        else:
            status.details.add().Pack(detail)
    return bytes(status.SerializeToString())


def completion(text: str) -> yandexgpt.Completion:
    message = text_common_pb2.Message(role="assistant", text=text)
    response = CompletionResponse(
        alternatives=[
            text_common_pb2.Alternative(message=message, status=text_common_pb2.Alternative.ALTERNATIVE_STATUS_PARTIAL)
        ]
    )
    return yandexgpt.Completion(response, "c0ffee")


# Error classes

CLASSES = {
    "INVALID_ARGUMENT": errors.InvalidArgumentError,
    "UNAUTHENTICATED": errors.AuthenticationError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "NOT_FOUND": errors.NotFoundError,
    "FAILED_PRECONDITION": errors.FailedPreconditionError,
    "RESOURCE_EXHAUSTED": errors.QuotaExceededError,
    "UNAVAILABLE": errors.UnavailableError,
    "INTERNAL": errors.InternalServerError,
    "UNIMPLEMENTED": errors.UnimplementedError,
    "DEADLINE_EXCEEDED": errors.DeadlineExceededError,
    "CANCELLED": errors.CancelledError,
}


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_every_code_has_its_error_class(code: Code) -> None:
    error = mapped(code, "words of the service")
    assert type(error) is CLASSES.get(code.name, errors.APIError)
    assert isinstance(error, errors.APIError)
    assert isinstance(error, errors.YandexGPTError)
    assert (error.code, error.message) == (code, "words of the service")


def test_errors_are_also_standard_library_errors() -> None:
    with pytest.raises(TimeoutError):
        raise mapped(Code.DEADLINE_EXCEEDED)
    with pytest.raises(ValueError, match="wrong"):
        raise errors.ConfigurationError("wrong")
    for code in set(Code) - {Code.DEADLINE_EXCEEDED}:
        assert not isinstance(mapped(code), TimeoutError | ValueError)


def test_every_error_is_public_under_its_name() -> None:
    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, errors.YandexGPTError)
        assert getattr(yandexgpt, name) is error
        assert name in yandexgpt.__all__
        assert error.__doc__


# Data of a failed call


def test_error_has_the_data_of_its_call() -> None:
    partial = completion("Байкал")
    error = mapped(
        Code.INTERNAL,
        "boom",
        initial=(("x-request-id", "early"), ("x-server-trace-id", "trace")),
        trailing=(("x-request-id", "late"),),
        attempts=3,
        elapsed=1.25,
        partial=partial,
    )
    assert (error.request_id, error.server_request_id, error.trace_id) == ("c0ffee", "late", "trace")
    assert (error.endpoint, error.attempts, error.elapsed) == ("llm.example:443", 3, 1.25)
    assert error.partial is partial
    assert (error.details, error.retry_after) == ((), None)


@pytest.mark.parametrize("metadata", [None, ()])
def test_missing_metadata_gives_empty_attributes(metadata: Any) -> None:
    error = mapped(Code.UNAVAILABLE, None, initial=metadata, trailing=metadata)
    assert (error.message, error.details, error.server_request_id, error.trace_id) == ("", (), None, None)


def test_metadata_of_async_stubs_is_read() -> None:
    metadata = grpc.aio.Metadata(("x-request-id", "r"), ("grpc-status-details-bin", packed(Code.INTERNAL)))
    assert mapped(Code.INTERNAL, initial=grpc.aio.Metadata(), trailing=metadata).server_request_id == "r"


@pytest.mark.parametrize("kind", [tuple, lambda pairs: grpc.aio.Metadata(*pairs)], ids=["sync", "aio"])
def test_last_value_of_a_repeated_key_is_used(kind: Any) -> None:
    error = mapped(trailing=kind((("x-request-id", "first"), ("x-request-id", "last"))))
    assert error.server_request_id == "last"


KNOWN = [
    error_details_pb2.RequestInfo(request_id="r", serving_data="s"),
    error_details_pb2.BadRequest(field_violations=[{"field": "model_uri", "description": "wrong"}]),
    error_details_pb2.QuotaFailure(violations=[{"subject": "folder", "description": "ten at once"}]),
    error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000)),
    error_details_pb2.ErrorInfo(reason="NO_ROLE", domain="ai", metadata={"role": "user"}),
    error_details_pb2.DebugInfo(detail="d"),
    error_details_pb2.PreconditionFailure(),
    error_details_pb2.ResourceInfo(resource_name="f"),
    error_details_pb2.Help(),
    error_details_pb2.LocalizedMessage(locale="ru", message="м"),
]


@pytest.mark.parametrize("detail", KNOWN, ids=lambda detail: detail.DESCRIPTOR.name)
def test_every_known_detail_is_decoded(detail: Message) -> None:
    error = mapped(Code.INTERNAL, "m", detail)
    assert error.details == (detail,)
    assert type(error.details[0]) is type(detail)


def test_details_keep_their_order() -> None:
    assert mapped(Code.INTERNAL, "m", *KNOWN).details == tuple(KNOWN)


def test_detail_of_an_unknown_type_stays_packed() -> None:
    unknown = any_pb2.Any()
    unknown.Pack(wrappers_pb2.StringValue(value="a"))
    error = mapped(Code.INTERNAL, "m", unknown, KNOWN[0])
    assert error.details == (unknown, KNOWN[0])
    assert mapped(Code.INTERNAL, "m", any_pb2.Any(value=b"a")).details == (any_pb2.Any(value=b"a"),)


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"\x08", b"\x1a\x05abc", b"garbage " * 9])
def test_invalid_details_do_not_hide_the_error(garbage: bytes) -> None:
    error = mapped(Code.INTERNAL, "boom", trailing=(("grpc-status-details-bin", garbage),))
    assert (error.message, error.details) == ("boom", ())


def test_one_invalid_detail_does_not_hide_the_others() -> None:
    broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff")
    error = mapped(Code.RESOURCE_EXHAUSTED, "m", broken, KNOWN[3])
    assert KNOWN[3] in error.details
    assert error.retry_after == 1.5


@given(st.binary(max_size=60), st.sampled_from(list(Code)), st.text(max_size=20))
def test_any_response_of_a_service_is_mapped_to_an_error(details: bytes, code: Code, message: str) -> None:
    error = mapped(code, message, trailing=(("grpc-status-details-bin", details),))
    assert error.code is code
    assert len(str(error).splitlines()) == 1


# retry_after


@pytest.mark.parametrize(
    ("pushback", "seconds"),
    [("0", 0.0), ("250", 0.25), ("60000", 60.0), ("-1", None), ("", None), ("soon", None), ("1.5", None), ("-", None)],
)
def test_pushback_gives_retry_after(pushback: str, seconds: float | None) -> None:
    assert mapped(trailing=(("grpc-retry-pushback-ms", pushback),)).retry_after == seconds


@pytest.mark.parametrize("pushback", ["--5", "²", "9" * 5000], ids=["dashes", "superscript", "long"])
def test_invalid_pushback_is_ignored(pushback: str) -> None:
    error = mapped(trailing=(("grpc-retry-pushback-ms", pushback),))
    assert isinstance(error, errors.UnavailableError)


def test_retry_info_gives_retry_after() -> None:
    assert mapped(Code.UNAVAILABLE, "m", *KNOWN).retry_after == 1.5


def test_retry_info_without_a_delay_gives_no_retry_after() -> None:
    assert mapped(Code.UNAVAILABLE, "m", error_details_pb2.RetryInfo()).retry_after is None


def test_negative_retry_delay_gives_no_retry_after() -> None:
    info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=-3))
    assert mapped(Code.UNAVAILABLE, "m", info).retry_after in (None, 0.0)


def test_error_without_a_server_delay_has_no_retry_after() -> None:
    assert mapped(Code.UNAVAILABLE, "m", KNOWN[0]).retry_after is None


# Messages


@pytest.mark.parametrize(
    ("code", "about", "line"),
    [
        (
            Code.INVALID_ARGUMENT,
            {},
            "INVALID_ARGUMENT from llm.example:443: wrong (request id c0ffee, 1 attempt in 0.50 s)",
        ),
        (
            Code.UNAUTHENTICATED,
            {"attempts": 2},
            "UNAUTHENTICATED from llm.example:443: wrong (request id c0ffee, 2 attempts in 0.50 s); check the API key "
            "or token",
        ),
        (
            Code.DEADLINE_EXCEEDED,
            {"request_id": None, "attempts": 0, "elapsed": 60},
            "DEADLINE_EXCEEDED from llm.example:443: wrong (0 attempts in 60.00 s); pass a longer timeout",
        ),
        (
            Code.INTERNAL,
            {"trailing": (("x-request-id", "r"),), "endpoint": None},
            "INTERNAL: wrong (request id c0ffee, 1 attempt in 0.50 s, server request id r)",
        ),
    ],
)
def test_error_message_is_one_line_with_advice(code: Code, about: dict[str, Any], line: str) -> None:
    assert str(mapped(code, "wrong", **about)) == line


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (Code.PERMISSION_DENIED, "the role ai.languageModels.user"),
        (Code.UNAVAILABLE, "check the endpoint, TLS settings and the network"),
    ],
)
def test_error_message_has_advice(code: Code, advice: str) -> None:
    assert advice in str(mapped(code, "wrong"))


def test_message_of_the_service_is_shown_in_one_line() -> None:
    error = mapped(Code.INTERNAL, " one\n two\r\n\tthree ")
    assert error.message == "one two three"
    assert "\n" not in str(error)


def test_error_without_a_message_states_that() -> None:
    assert "INTERNAL from llm.example:443: no message (" in str(mapped(Code.INTERNAL, None))


def test_revised_error_has_advice() -> None:
    error = errors.RevisedError("новый текст", 5)
    assert (error.text, error.keep) == ("новый текст", 5)
    assert "revised the answer after its first 5 characters" in str(error)
    assert "новый" not in str(error)


ABOUT_AN_ANSWER = [
    (errors.TruncatedError(completion("Байкал")), ["was cut after 0 tokens", "pass a greater max_tokens"]),
    (errors.ContentFilterError(completion("Байкал")), ["the content filter refused to answer"]),
    (errors.InvalidAnswerError(completion("Байкал"), "age: not a number"), ["the structure", "age: not a number"]),
    (errors.ToolRoundsError(completion("Байкал"), 5), ["after 5 rounds", "pass a greater max_rounds"]),
]


@pytest.mark.parametrize(("error", "words"), ABOUT_AN_ANSWER, ids=lambda value: type(value).__name__)
def test_error_about_an_answer_has_it_but_does_not_quote_it(error: Any, words: list[str]) -> None:
    again = pickle.loads(pickle.dumps(error))
    for one in (error, again, copy.copy(error)):
        assert one.completion.text == "Байкал"
        assert "request id c0ffee" in str(one)
        assert "Байкал" not in str(one)
        for word in words:
            assert word in str(one)
        assert vars(one) == vars(error)
    assert isinstance(error, ValueError) is isinstance(error, errors.InvalidAnswerError)


def test_failed_operation_error_has_the_reason() -> None:
    operation: Any = object()
    error = errors.OperationFailed("d7qi", Code.INTERNAL, " two\nlines ", tuple(KNOWN), operation)
    assert str(error) == "operation d7qi ended in INTERNAL: two lines"
    assert str(errors.OperationFailed("d7qi", Code.CANCELLED, "")) == "operation d7qi ended in CANCELLED: no message"
    assert error.operation is operation
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (again.operation_id, again.code, again.message) == ("d7qi", Code.INTERNAL, "two lines")
        assert again.details == tuple(KNOWN)
        assert again.operation is None


def test_operation_timeout_error_states_that_the_operation_continues() -> None:
    operations: Any = (object(), object())
    one, two = errors.OperationTimeout(("a",), 1.5), errors.OperationTimeout(("a", "b"), 600, operations)
    assert str(one).startswith("operation a was not done within 1.5 s, and goes on at the service")
    assert str(two).startswith("2 operations were not done within 600 s, and go on at the service")
    assert isinstance(one, TimeoutError)
    assert (one.operation, two.operation) == (None, operations[0])
    for again in (pickle.loads(pickle.dumps(two)), copy.copy(two)):
        assert (again.operation_ids, again.timeout, again.operations) == (("a", "b"), 600, ())
        assert str(again) == str(two)


def test_operation_timeout_error_has_no_errno() -> None:
    error = errors.OperationTimeout(("a",), 1.5)
    assert (error.errno, error.strerror) == (None, None)


def test_prompt_too_long_error_shows_the_numbers_of_tokens() -> None:
    error = errors.PromptTooLongError(9000, 500, 8192)
    assert "the prompt has 9000 tokens and 500 for the answer (max_tokens), more than max_context_tokens=8192" in str(
        error
    )
    assert "max_tokens)" not in str(errors.PromptTooLongError(9000, 0, 8192))
    again = pickle.loads(pickle.dumps(error))
    assert vars(again) == vars(error)
    assert str(again) == str(error)


# Pickles and copies


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_error_can_be_pickled_and_copied(code: Code) -> None:
    error = mapped(
        code,
        "two\nlines",
        *KNOWN,
        trailing=(("x-request-id", "r"), ("x-server-trace-id", "t")),
        partial=completion("Байкал"),
        attempts=2,
    )
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert vars(again) == vars(error)
        assert str(again) == str(error)
        assert again.args == error.args
        assert again.partial is not None
        assert (again.partial.text, again.partial.request_id) == ("Байкал", "c0ffee")
        assert again is not error


def test_notes_of_an_error_are_pickled() -> None:
    error = mapped()
    error.__notes__ = ["while doing this"]  # type: ignore[attr-defined]  # Python 3.11
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while doing this"]


@pytest.mark.parametrize("error", [errors.RevisedError("a", 3), errors.ConfigurationError("wrong")])
def test_errors_without_a_call_can_be_pickled(error: errors.YandexGPTError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_error_can_be_constructed_by_the_user() -> None:
    error = errors.QuotaExceededError("too many", code=Code.RESOURCE_EXHAUSTED)
    assert str(error) == "RESOURCE_EXHAUSTED: too many (0 attempts in 0.00 s)"
    nothing = {"details": (), "attempts": 0, "elapsed": 0.0} | dict.fromkeys(
        ("request_id", "server_request_id", "trace_id", "endpoint", "partial", "retry_after")
    )
    assert {name: getattr(error, name) for name in nothing} == nothing


# Errors of interceptors


class Odd(grpc.RpcError):
    """An error of an interceptor, whose methods may return anything."""

    def __init__(self, text: str = "", **answers: Any) -> None:
        super().__init__(*([text] if text else []))
        for name, answer in answers.items():
            setattr(self, name, answer)


def broken() -> Any:
    raise KeyError(99)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (grpc.RpcError(), ""),
        (grpc.RpcError("the interceptor gave up"), "the interceptor gave up"),
        (Odd("words", code=lambda: None, details=lambda: None, initial_metadata=lambda: None), "words"),
        (Odd("words", code=broken, details=broken, initial_metadata=broken, trailing_metadata=broken), "words"),
        (Odd(code=lambda: 14, details=lambda: b"\xd0\xb4\xff", trailing_metadata=lambda: 5), "д�"),
        (Odd(code="UNAVAILABLE", details="words", trailing_metadata=["a", ("b",), ("c", "d", "e")]), "words"),
    ],
)
def test_error_without_a_readable_code_is_unknown(error: grpc.RpcError, message: str) -> None:
    apart = failures.from_rpc_error(error, request_id="c0ffee", endpoint="llm.example:443", attempts=1, elapsed=0.5)
    assert type(apart) is errors.APIError
    assert (apart.code, apart.message, apart.details, apart.retry_after) == (Code.UNKNOWN, message, (), None)
    assert failures.code_of(error) is Code.UNKNOWN
    assert failures.initial_metadata_of(error) == failures.trailing_metadata_of(error) == ()


def test_readable_attributes_of_an_odd_error_are_used() -> None:
    error = Odd(
        code=Code.INTERNAL,
        details="words",
        initial_metadata=lambda: grpc.aio.Metadata(("x-request-id", "r"), ("x-server-trace-id", "t")),
        trailing_metadata={"grpc-retry-pushback-ms": "1500", "grpc-status-details-bin": "not bytes"},
    )
    apart = failures.from_rpc_error(error, request_id=None, endpoint="llm.example:443", attempts=1, elapsed=0.5)
    assert type(apart) is errors.InternalServerError
    assert (apart.message, apart.server_request_id, apart.trace_id) == ("words", "r", "t")
    assert apart.retry_after == 1.5
    assert failures.initial_metadata_of(error) == (("x-request-id", "r"), ("x-server-trace-id", "t"))
    assert failures.trailing_metadata_of(error)[0] == ("grpc-retry-pushback-ms", "1500")
