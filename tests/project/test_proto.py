"""The generated stubs: they have their own descriptor pool, and otherwise work like other stubs."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import google.protobuf
import grpc
import pytest
from driver import subprocess_environment
from google.api import annotations_pb2  # type: ignore[import-untyped]
from google.protobuf import descriptor_pool, json_format, text_format

from yandexgpt import _proto
from yandexgpt._proto import POOL
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import (
    text_generation_service_pb2,
    text_generation_service_pb2_grpc,
)
from yandexgpt._proto.yandex.cloud.operation import operation_pb2

V1 = "yandex.cloud.ai.foundation_models.v1"
MODULES = [
    "yandexgpt._proto." + ".".join(path.relative_to(Path(str(_proto.__file__)).parent).with_suffix("").parts)
    for path in sorted(Path(str(_proto.__file__)).parent.rglob("*_pb2*.py"))
]


def request() -> Any:
    """Make a request that contains messages of Google's packages."""
    request = text_generation_service_pb2.CompletionRequest(
        model_uri="gpt://folder/yandexgpt/latest",
        completion_options={"temperature": {"value": 0.3}, "max_tokens": {"value": 7}},
        messages=[{"role": "user", "text": "Привет"}],
    )
    request.json_schema.schema.update({"type": "object", "required": ["a"], "maximum": 5, "nothing": None})
    return request


def operation() -> Any:
    """Make an operation that contains a response."""
    operation = operation_pb2.Operation(id="o", done=True)
    operation.created_at.FromJsonString("2031-05-06T12:00:00Z")
    operation.response.Pack(text_generation_service_pb2.CompletionResponse(model_version="23"))
    return operation


def test_messages_can_be_pickled_and_copied() -> None:
    for message in (request(), operation(), failed_operation()):
        assert pickle.loads(pickle.dumps(message)) == message
        assert copy.deepcopy(message) == message


def test_generated_modules_are_imported_only_under_the_private_package() -> None:
    details = text_common_pb2.ContentUsage.CompletionTokensDetails(reasoning_tokens=3)
    assert type(details).__module__ == text_common_pb2.__name__ == f"yandexgpt._proto.{V1}.text_common_pb2"
    for name in MODULES:
        assert importlib.import_module(name).__name__ == name
    assert not [name for name in sys.modules if name == "yandex" or name.startswith("yandex.")]


def test_well_known_types_have_their_own_methods() -> None:
    made = request()
    assert made.json_schema.schema["required"][0] == "a"
    assert made.completion_options.max_tokens.value == 7
    done = operation()
    assert done.created_at.ToDatetime().year == 2031
    answer = text_generation_service_pb2.CompletionResponse()
    assert done.response.Unpack(answer)
    assert answer.model_version == "23"
    assert "model_version" in text_format.MessageToString(done, descriptor_pool=POOL)


def failed_operation() -> Any:
    """Make an operation that contains an error."""
    operation = operation_pb2.Operation(id="o", done=True, error={"code": 3, "message": "no such model"})
    operation.error.details.add().Pack(text_common_pb2.Token(id=1))
    return operation


def test_status_in_the_private_pool_is_printed_and_parsed() -> None:
    failed = failed_operation()
    assert "no such model" in repr(failed)
    assert "no such model" in repr(failed.error)
    text = json_format.MessageToJson(failed, descriptor_pool=POOL)
    assert json_format.Parse(text, operation_pb2.Operation(), descriptor_pool=POOL) == failed


def test_json_of_an_any_needs_the_private_pool() -> None:
    as_dict = json_format.MessageToDict(operation(), descriptor_pool=POOL)
    assert as_dict["response"] == {"@type": f"type.googleapis.com/{V1}.CompletionResponse", "modelVersion": "23"}
    assert json_format.ParseDict(as_dict, operation_pb2.Operation(), descriptor_pool=POOL) == operation()
    with pytest.raises(TypeError, match="Can not find message descriptor"):
        json_format.MessageToDict(operation())


def test_http_paths_are_read_from_the_descriptors() -> None:
    service = POOL.FindServiceByName(f"{V1}.TextGenerationAsyncService")
    rule: Any = service.methods_by_name["Completion"].GetOptions().Extensions[annotations_pb2.http]
    assert rule.post == "/foundationModels/v1/completionAsync"


def test_every_service_has_a_stub() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        for service in text_generation_service_pb2.DESCRIPTOR.services_by_name.values():
            stub = getattr(text_generation_service_pb2_grpc, f"{service.name}Stub")(channel)
            assert all(hasattr(stub, method.name) for method in service.methods)


def test_default_pool_does_not_contain_the_files_of_the_package() -> None:
    for name in MODULES:
        importlib.import_module(name)
    names = {importlib.import_module(name).DESCRIPTOR.name for name in MODULES if name.endswith("_pb2")}
    assert len(names) >= 10
    for name in names:
        assert POOL.FindFileByName(name).name == name
        with pytest.raises(KeyError):
            descriptor_pool.Default().FindFileByName(name)


OTHERS_COPY = f"""
    # An older or newer yandexcloud has a file with this name and other contents in the default pool.
    from google.protobuf import descriptor_pb2, descriptor_pool
    from google.protobuf.internal import builder
    file = descriptor_pb2.FileDescriptorProto(name="{V1.replace(".", "/")}/text_common.proto", package="{V1}")
    file.syntax = "proto3"
    message = file.message_type.add(name="Message")
    message.field.add(name="role", number=1, type=9, label=1)
    message.field.add(name="theirs", number=99, type=9, label=1)
    theirs = {{"__name__": "theirs"}}
    descriptor = descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    builder.BuildMessageAndEnumDescriptors(descriptor, theirs)
    builder.BuildTopDescriptorsAndMessages(descriptor, "theirs", theirs)
"""
OUR_COPY = f"""
    from yandexgpt._proto.{V1} import text_common_pb2 as ours
    from yandexgpt._proto.{V1}.text_generation import text_generation_service_pb2_grpc
"""
BOTH_WORK = f"""
    from google.protobuf import descriptor_pool, symbol_database
    mine = ours.Message(role="user", text="x")
    assert ours.Message.FromString(mine.SerializeToString()) == mine
    assert not hasattr(mine, "theirs")
    other = theirs["Message"](role="user", theirs="y")
    assert theirs["Message"].FromString(other.SerializeToString()) == other
    found = descriptor_pool.Default().FindMessageTypeByName("{V1}.Message")
    assert found is theirs["Message"].DESCRIPTOR, found
    assert symbol_database.Default().GetSymbol("{V1}.Message") is theirs["Message"]
    try:
        descriptor_pool.Default().FindMessageTypeByName("{V1}.CompletionRequest")
    except KeyError:
        pass
    else:
        raise AssertionError("our message is in the default pool")
"""


@pytest.mark.parametrize("implementation", ["upb", "python"])
@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_another_copy_of_a_file_in_the_default_pool_does_not_conflict(order: str, implementation: str) -> None:
    parts = [OUR_COPY, OTHERS_COPY] if order == "ours first" else [OTHERS_COPY, OUR_COPY]
    kind = "from google.protobuf.internal import api_implementation as a; assert a.Type() == '{}', a.Type()\n"
    program = kind.format(implementation) + "".join(map(textwrap.dedent, [*parts, BOTH_WORK]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**subprocess_environment(), "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), google.protobuf.__version__


TYPED = f"""
    import grpc
    from yandexgpt._proto.{V1}.text_generation.text_generation_service_pb2 import CompletionRequest, TokenizeRequest
    from yandexgpt._proto.{V1}.text_generation.text_generation_service_pb2_grpc import (
        TextGenerationServiceServicer, TextGenerationServiceStub, TokenizerServiceAsyncStub, TokenizerServiceStub,
    )
    from collections.abc import Iterator
    from yandexgpt._proto.{V1}.text_generation.text_generation_service_pb2 import CompletionResponse

    class Servicer(TextGenerationServiceServicer):
        def Completion(self, request: CompletionRequest, context: grpc.ServicerContext) -> Iterator[CompletionResponse]:
            yield CompletionResponse(model_version=request.model_uri)

    def texts(channel: grpc.Channel) -> list[str]:
        stub = TextGenerationServiceStub(channel)
        return [partial.alternatives[0].message.text for partial in stub.Completion(CompletionRequest(), timeout=1)]

    def count(channel: grpc.Channel) -> int:
        return len(TokenizerServiceStub(channel).Tokenize(TokenizeRequest(text="x")).tokens)

    async def acount(stub: TokenizerServiceAsyncStub) -> int:
        return len((await stub.Tokenize(TokenizeRequest(text="x"))).tokens)
"""


@pytest.mark.slow
def test_stubs_are_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(textwrap.dedent(TYPED))
    wrong.write_text(
        textwrap.dedent(TYPED)
        .replace('.Tokenize(TokenizeRequest(text="x"))).tokens', '.Tokenize(TokenizeRequest(text="x"))).words')
        .replace("stub.Completion(CompletionRequest()", "stub.Completion(TokenizeRequest()")
    )
    config = tmp_path / "mypy.ini"  # an installed package: mypy reports no errors in its files
    config.write_text("[mypy]\nstrict = True\n[mypy-yandexgpt.*]\nignore_errors = True\nfollow_imports = silent\n")
    command = [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", tmp_path / "cache", right, wrong]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert sorted(line.rpartition("[")[2] for line in errors) == ["arg-type]", "attr-defined]"], done.stdout
    assert all("wrong.py" in line for line in errors)
