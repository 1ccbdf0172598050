"""The generator, against git repositories and wheels made here. Needs the package index for its own environment."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]
from google.protobuf import message_factory, text_format
from google.rpc import status_pb2  # type: ignore[import-untyped]

from yandexgpt._proto import POOL

pytestmark = [pytest.mark.gen, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts" / "gen.py"
COMMITTED = ROOT / "src" / "yandexgpt" / "_proto"
PROSE = "Words of upstream's own"

THINGS = f"""\
// {PROSE}.
syntax = "proto3";
package yandex.cloud.x;
import "google/protobuf/struct.proto";
import "yandex/cloud/marks.proto";
option go_package = "example/x;x";

/* {PROSE}. */
message Thing {{
  // {PROSE}.
  string thing_id = 1 [(marks.size) = "<=50", deprecated = true, (marks.needed) = true];  // {PROSE}.
  google.protobuf.Struct odd__name_ = 2;
  optional int64 count = 3;
  map<string, Thing> parts = 4 [json_name = "pieces"];
  oneof kind {{ string round = 5; bytes square = 6; }}
  enum Colour {{ COLOUR_UNSPECIFIED = 0; RED = 1; }}
  Colour colour = 7;
}}
"""
MARKS = """\
syntax = "proto3";
package yandex.cloud.marks;
import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { bool needed = 101501; string size = 101504; }
"""
SERVICE = f"""\
syntax = "proto3";
package yandex.cloud.x;
import "google/api/annotations.proto";
import "yandex/cloud/x/thing.proto";
// {PROSE}.
service ThingService {{
  // {PROSE}.
  rpc Get (GetThingRequest) returns (Thing) {{ option (google.api.http) = {{ post: "/things" body: "*" }}; }}
  rpc Watch (GetThingRequest) returns (stream Thing);
}}
message GetThingRequest {{ string thing_id = 1; }}
"""
MADE_UP = {
    "yandex/cloud/x/thing.proto": THINGS,
    "yandex/cloud/x/thing_service.proto": SERVICE,
    "yandex/cloud/marks.proto": MARKS,
    "yandex/cloud/unused/broken.proto": "not a proto at all, and nobody imports it",
    "README.md": PROSE,
}
ROOTS = ["yandex/cloud/x/thing_service.proto"]
GENERATED = ["yandex/cloud/marks.proto", "yandex/cloud/x/thing.proto", "yandex/cloud/x/thing_service.proto"]
REQUIRED = {"/yandex.cloud.x.ThingService/Get": "unary", "/yandex.cloud.x.ThingService/Watch": "stream"}


def load_generator() -> ModuleType:
    """Import the script."""
    spec = importlib.util.spec_from_file_location("gen", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gen"] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


gen = load_generator()


@pytest.fixture(scope="session")
def toolchain() -> Path:
    """Return the interpreter of the generator's own environment, the one that `make gen` uses."""
    with gen.exclusive(ROOT / ".cache"):
        return Path(gen.environment(ROOT / ".cache", 240))


class Upstream:
    """A git repository in place of the real one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=master")

    def git(self, *command: str) -> str:
        """Run git in the repository, with the same settings on every machine."""
        who = {f"GIT_{role}_{what}": "x@y.z" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        when = {"GIT_AUTHOR_DATE": "2031-05-06T12:00:00Z", "GIT_COMMITTER_DATE": "2031-05-06T12:00:00Z"}
        plain = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "PATH": os.environ["PATH"]}
        done = subprocess.run(
            ["git", *command], cwd=self.path, env={**plain, **who, **when}, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str | None]) -> str:
        """Write files (None removes one) and commit them; return the commit's id."""
        for name, text in files.items():
            path = self.path / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "x")
        return self.git("rev-parse", "HEAD")


class Workplace:
    """A pin and a target directory for the test, and the generator that runs on them."""

    def __init__(self, path: Path, toolchain: Path, repository: str) -> None:
        self.toolchain, self.cache = toolchain, path / "cache"
        self.target = path / "src" / "yandexgpt" / "_proto"
        self.config = path / "proto" / "cloudapi.toml"
        self.config.parent.mkdir(parents=True)
        self.pin(repository)

    def pin(self, repository: str, **values: Any) -> None:
        """Write a pin that has no digests yet."""
        facts = {"roots": ROOTS, "required": REQUIRED, "version": "1.71.0", **values}
        required = "\n".join(f'"{name}" = "{kind}"' for name, kind in facts["required"].items())
        self.config.write_text(
            textwrap.dedent(
                """\
                # A remark of the maintainer's.
                [source]
                repository = "{repository}"  # where it is
                commit = "{commit}"  # which one
                date = "2000-01-01"
                include = [".", "third_party/googleapis"]
                wheel = "yandexcloud==0.413.0"

                [generator]
                package = "grpcio-tools"
                version = "{version}"

                [interface]
                roots = {roots}

                [required]
                # More remarks.
                {required}

                [digests]
                # The last remark.
                """
            )
            .replace("{repository}", repository)
            .replace("{commit}", "0" * 40)
            .replace("{version}", facts["version"])
            .replace("{roots}", json.dumps(facts["roots"]))
            .replace("{required}", required)
        )

    def command(self, *options: str) -> list[str]:
        """Return the command line."""
        places = ["--config", self.config, "--target", self.target, "--cache", self.cache]
        if "--python" not in options:
            places += ["--python", self.toolchain]
        return [sys.executable, str(SCRIPT), *map(str, places), *options]

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the generator."""
        return subprocess.run(
            self.command(*options), capture_output=True, text=True, env={**os.environ, **environment}, check=False
        )

    def make(self, *options: str, **environment: str) -> str:
        """Run the generator. It must succeed and print nothing."""
        done = self.run(*options, **environment)
        assert done.stderr == ""
        assert done.returncode == 0
        return done.stdout

    def refuse(self, *options: str, **environment: str) -> str:
        """Run the generator. It must fail and change no file; return its error output."""
        before = self.state()
        done = self.run(*options, **environment)
        assert (done.returncode, done.stdout) == (1, "")
        assert self.state() == before
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("gen: ")
        return done.stderr

    def state(self) -> dict[str, bytes]:
        """Read the stubs, the pin and all other files beside them."""
        files = (path for top in ("src", "proto") for path in (self.config.parent.parent / top).rglob("*"))
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in files}

    def stubs(self) -> dict[str, bytes]:
        """Read the stubs."""
        return dict(gen.contents(self.target))


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    """Make a repository with a few invented files, and with Google's files as upstream has them."""
    upstream = Upstream(tmp_path / "upstream")
    google = {}
    for module in (annotations_pb2, http_pb2, status_pb2):
        name = module.DESCRIPTOR.name
        google[f"third_party/googleapis/{name}"] = (
            Path(str(module.__file__)).parent.joinpath(Path(name).name).read_text()
        )
    upstream.commit({**MADE_UP, **google})
    return upstream


@pytest.fixture
def workplace(tmp_path: Path, toolchain: Path, upstream: Upstream) -> Workplace:
    """Generate stubs once, and pin their sources."""
    workplace = Workplace(tmp_path / "workplace", toolchain, str(upstream.path))
    workplace.make("--ref", "master")
    return workplace


def one_line(words: str) -> str:
    """Return the words after checking that they are one line."""
    assert words.count("\n") == 1, words
    return words


# Generated stubs


def test_every_kind_of_source_gives_the_same_stubs(workplace: Workplace, upstream: Upstream, tmp_path: Path) -> None:
    stubs, state = workplace.stubs(), workplace.state()
    bare = tmp_path / "bare.git"
    upstream.git("clone", "--quiet", "--bare", str(upstream.path), str(bare))
    upstream.git("worktree", "add", "--quiet", str(tmp_path / "worktree"))
    upstream.commit(dict.fromkeys(MADE_UP, "rubbish, later"))  # the pin is no longer the latest commit
    (upstream.path / "yandex/cloud/x/thing.proto").write_text("rubbish, not committed")
    for source in (str(upstream.path), str(bare), f"file://{bare}", str(tmp_path / "worktree"), str(bare) + "/"):
        shutil.rmtree(workplace.target)
        workplace.make("--source", source)
        assert workplace.stubs() == stubs, source
    assert workplace.state() == state


def test_a_second_run_changes_nothing(workplace: Workplace) -> None:
    state = workplace.state()
    workplace.make()
    workplace.make("--check")
    assert workplace.state() == state


def test_stubs_contain_no_upstream_comments(workplace: Workplace, upstream: Upstream) -> None:
    stubs = workplace.stubs()
    assert not [name for name, text in stubs.items() if PROSE.encode() in text]
    assert not [name for name, text in stubs.items() if str(upstream.path).encode() in text]
    bare = {name: re.sub(r"//.*|/\*.*?\*/", "", text) for name, text in MADE_UP.items() if name.endswith(".proto")}
    commit = upstream.commit(dict(bare))
    digests = workplace.config.read_text().partition("[digests]")[2]
    workplace.make("--ref", commit)
    assert workplace.stubs() == stubs
    assert workplace.config.read_text().partition("[digests]")[2] == digests


def test_wheel_and_proto_files_give_the_same_stubs(workplace: Workplace, upstream: Upstream, tmp_path: Path) -> None:
    state, stubs = workplace.state(), workplace.stubs()
    wheel = made_wheel(workplace.toolchain, upstream.path, tmp_path / "made-1.0-py3-none-any.whl")
    workplace.make("--source", str(wheel), "--check")
    shutil.rmtree(workplace.target)
    workplace.make("--source", str(wheel))
    assert workplace.stubs() == stubs
    assert workplace.state() == state


def made_wheel(toolchain: Path, tree: Path, wheel: Path) -> Path:
    """Pack the output of protoc for the invented files."""
    output = wheel.with_suffix(".d")
    output.mkdir()
    includes = [f"-I{tree}", f"-I{tree}/third_party/googleapis"]
    protoc = [str(toolchain), "-m", "grpc_tools.protoc", *includes, f"--python_out={output}", *GENERATED]
    subprocess.run(protoc, check=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in output.rglob("*.py"):
            archive.write(path, path.relative_to(output))
    return wheel


def test_proto_files_equal_to_the_committed_stubs_give_the_committed_stubs(
    tmp_path: Path, toolchain: Path, upstream: Upstream
) -> None:
    pin = gen.Pin.read(ROOT / "proto" / "cloudapi.toml")
    commit = upstream.commit({name: as_text(name) for name in pin.digests})
    workplace = Workplace(tmp_path / "workplace", toolchain, "unused")
    workplace.config.write_text(pin.text.replace(pin.commit, commit))
    workplace.make("--source", str(upstream.path))
    assert workplace.stubs() == gen.contents(COMMITTED)


def as_text(name: str) -> str:
    """Write a file of the committed interface as .proto text, with comments, and with options in reverse order."""
    importlib.import_module("yandexgpt._proto." + gen.module_of(name))
    pool_class = message_factory.GetMessageClass(POOL.FindMessageTypeByName("google.protobuf.FileDescriptorProto"))
    file: Any = pool_class.FromString(POOL.FindFileByName(name).serialized_pb)
    imports = [f'import "{name}";' for name in file.dependency]
    file_options = [f"option {option};" for option in options_of(file)]
    extensions = [f"extend {each.extendee} {{ {field_text(each, {})} }}" for each in file.extension]
    body = [
        *(line for message in file.message_type for line in message_text(message)),
        *(line for enum in file.enum_type for line in enum_text(enum)),
        *(line for service in file.service for line in service_text(service)),
    ]
    return "\n".join(
        [f'syntax = "{file.syntax}";', f"package {file.package};", *imports, *file_options, *extensions, *body]
    )


def options_of(holder: Any) -> list[str]:
    found = []
    for field, value in holder.options.ListFields():
        name = f"({field.full_name})" if field.is_extension else field.name
        if field.message_type:
            found.append(f"{name} = {{ {text_format.MessageToString(value, as_one_line=True)} }}")
        else:
            found.append(f"{name} = {json.dumps(value)}")
    return found[::-1]


def message_text(message: Any) -> Iterator[str]:
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    yield from (f"// {PROSE}.", f"message {message.name} {{")
    for nested in message.nested_type:
        if nested.name not in maps:
            yield from message_text(nested)
    for enum in message.enum_type:
        yield from enum_text(enum)
    for each in message.reserved_range:
        yield f"reserved {each.start} to {each.end - 1};"
    for name in message.reserved_name:
        yield f'reserved "{name}";'
    opened = None
    for field in message.field:
        inside = field.oneof_index if field.HasField("oneof_index") and not field.proto3_optional else None
        if opened not in (None, inside):
            yield "}"
        if inside not in (None, opened):
            oneof = message.oneof_decl[inside]
            yield f"oneof {oneof.name} {{"
            yield from (f"option {option};" for option in options_of(oneof))
        opened = inside
        yield field_text(field, maps)
    if opened is not None:
        yield "}"
    yield "}"


def field_text(field: Any, maps: dict[str, Any]) -> str:
    def type_text(field: Any) -> str:
        kind = field.DESCRIPTOR.enum_types_by_name["Type"].values_by_number[field.type].name
        return str(field.type_name or kind.removeprefix("TYPE_").lower())

    label = "repeated " if field.label == field.LABEL_REPEATED else "optional " if field.proto3_optional else ""
    kind = type_text(field)
    if entry := maps.get(kind.rpartition(".")[2]):
        key, value = entry.field
        label, kind = "", f"map<{type_text(key)}, {type_text(value)}>"
    options = ", ".join(options_of(field))
    return f"{label}{kind} {field.name} = {field.number}" + (f" [{options}]" if options else "") + f"; /* {PROSE} */"


def enum_text(enum: Any) -> list[str]:
    return [f"enum {enum.name} {{", *(f"{value.name} = {value.number};" for value in enum.value), "}"]


def service_text(service: Any) -> Iterator[str]:
    yield from (f"// {PROSE}.", f"service {service.name} {{")
    for method in service.method:
        stream = "stream " if method.server_streaming else ""
        options = " ".join(f"option {option};" for option in options_of(method))
        yield f"rpc {method.name} ({method.input_type}) returns ({stream}{method.output_type}) {{ {options} }}"
    yield "}"


# The pin


@pytest.mark.parametrize("name", ["branch", "light-tag", "full-tag", "commit", "short"])
def test_ref_option_updates_only_the_commit_and_the_digests(
    name: str, workplace: Workplace, upstream: Upstream
) -> None:
    before, stubs = workplace.config.read_text().splitlines(), workplace.stubs()
    commit = upstream.commit({"yandex/cloud/x/thing.proto": THINGS.replace("count = 3", "total = 3")})
    upstream.git("branch", "branch")
    upstream.git("tag", "light-tag")
    upstream.git("tag", "--annotate", "--message", "x", "full-tag")
    upstream.commit({"yandex/cloud/x/thing.proto": "rubbish"})
    workplace.make("--ref", {"commit": commit, "short": commit[:10]}.get(name, name))
    after = workplace.config.read_text().splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert changed[0] == f'commit = "{commit}"  # which one'
    assert [line.partition(" =")[0] for line in changed[1:]] == ['"yandex/cloud/x/thing.proto"']
    assert 'date = "2031-05-06"' in after
    assert workplace.stubs() != stubs
    workplace.make("--check")


def test_added_and_removed_files_change_the_digests(workplace: Workplace, upstream: Upstream) -> None:
    plain = THINGS.replace('import "yandex/cloud/marks.proto";', 'import "yandex/cloud/more.proto";')
    plain = plain.replace('[(marks.size) = "<=50", deprecated = true, (marks.needed) = true]', "")
    more = 'syntax = "proto3"; package yandex.cloud;'
    upstream.commit({"yandex/cloud/x/thing.proto": plain, "yandex/cloud/more.proto": more})
    workplace.make("--ref", "master")
    digests = workplace.config.read_text().partition("[digests]")[2]
    assert "yandex/cloud/more.proto" in digests
    assert "yandex/cloud/marks.proto" not in digests
    assert not list(workplace.target.rglob("marks_pb2*"))


def test_pinned_commit_is_cached_for_offline_runs(workplace: Workplace, upstream: Upstream) -> None:
    state = workplace.state()
    upstream.path.rename(upstream.path.with_name("away"))
    workplace.make()
    assert workplace.state() == state
    assert "cannot reach" in workplace.refuse("--source", str(upstream.path))  # a given source is always contacted


def test_only_proto_files_are_fetched(workplace: Workplace, upstream: Upstream) -> None:
    upstream.git("config", "uploadpack.allowFilter", "true")
    commit = upstream.commit({"yandex/docs.md": PROSE, "elsewhere/y.proto": PROSE})
    workplace.make("--ref", commit)
    kept = workplace.cache / "cloudapi" / commit
    names = {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()}
    google = {f"third_party/googleapis/google/{name}.proto" for name in ("api/annotations", "api/http", "rpc/status")}
    assert names == {name for name in MADE_UP if name.endswith(".proto")} | google
    assert sorted(path.name for path in workplace.cache.iterdir()) == ["cloudapi", "gen.lock"]


def test_git_configuration_and_environment_of_the_user_have_no_effect(
    workplace: Workplace, upstream: Upstream, tmp_path: Path
) -> None:
    state = workplace.state()
    (tmp_path / ".gitconfig").write_text(
        f'[url "/nowhere/"]\n\tinsteadOf = {upstream.path}\n[core]\n\tautocrlf = true\n[protocol]\n\tallow = never\n'
    )
    surroundings = {
        "HOME": str(tmp_path),
        "GIT_DIR": "/nowhere",
        "GIT_INDEX_FILE": "/nowhere",
        "PYTHONPATH": "/nowhere",
    }
    workplace.make("--source", str(upstream.path), **surroundings)
    assert workplace.state() == state


# Failures: one line is printed, and no file changes


def test_unreachable_source_is_an_error(workplace: Workplace, tmp_path: Path) -> None:
    message = one_line(workplace.refuse("--source", str(tmp_path / "nowhere")))
    assert message.startswith(f"gen: cannot reach {tmp_path}/nowhere: fatal: ")


def test_source_that_never_responds_times_out(workplace: Workplace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        assert "no answer within 1 s from git" in one_line(workplace.refuse("--source", url, "--timeout", "1"))


@pytest.mark.parametrize("ref", ["f" * 40, "fffffff", "no-such-branch", "--upload-pack=true"])
def test_unknown_commit_is_an_error(ref: str, workplace: Workplace) -> None:
    message = one_line(workplace.refuse(f"--ref={ref}"))
    assert ref in message
    assert "commit" in message


def test_pinned_commit_missing_in_the_source_is_an_error(workplace: Workplace, tmp_path: Path) -> None:
    other = Upstream(tmp_path / "other")
    other.commit({"a": "b"})
    assert "unknown commit" in one_line(workplace.refuse("--source", str(other.path)))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("yandex/cloud/x/thing.proto", "<!DOCTYPE html>\n<html></html>\n", "thing.proto:1:1"),
        ("yandex/cloud/x/thing.proto", THINGS.replace("(marks.size)", "(mark)"), 'Option "(mark)" unknown'),
        ("yandex/cloud/marks.proto", None, "yandex/cloud/marks.proto: File not found"),
    ],
    ids=["html", "unknown option", "missing import"],
)
def test_invalid_proto_file_is_an_error(
    name: str, text: str | None, words: str, workplace: Workplace, upstream: Upstream
) -> None:
    commit = upstream.commit({name: text})
    message = workplace.refuse("--ref", "master")
    assert message.startswith(f"gen: commit {commit[:12]} does not parse: yandex/cloud/")
    assert words in message


@pytest.mark.parametrize("source", ["text", "wheel"])
def test_missing_root_file_is_an_error(source: str, workplace: Workplace, upstream: Upstream, tmp_path: Path) -> None:
    if source == "text":
        upstream.commit({ROOTS[0]: None})
        message = workplace.refuse("--ref", "master")
    else:
        with zipfile.ZipFile(tmp_path / "empty.whl", "w"):
            pass
        message = workplace.refuse("--source", str(tmp_path / "empty.whl"))
    assert "has gone" in one_line(message)
    assert "yandex/cloud/x/thing_service" in message


def test_generator_of_another_version_is_an_error(workplace: Workplace, tmp_path: Path) -> None:
    workplace.config.write_text(workplace.config.read_text().replace('version = "1.71.0"', 'version = "1.70.0"'))
    message = one_line(workplace.refuse())
    assert message == "gen: wrong generator: grpcio-tools 1.70.0 is pinned, found 1.71.0\n"


def test_environment_without_the_pinned_generator_is_an_error(workplace: Workplace, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    old = sys.version_info < (3, 11)  # without tomllib: the missing tomli is reported first
    assert ("lacks tomli" if old else "found not installed") in one_line(workplace.refuse("--python", python))
    metadata = packages / "grpcio_tools-1.71.2.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: grpcio-tools\nVersion: 1.71.2\n")
    assert ("lacks tomli" if old else "found 1.71.2") in one_line(workplace.refuse("--python", python))
    assert "no interpreter" in one_line(workplace.refuse("--python", str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SERVICE.replace("rpc Watch", "rpc Observe"), "method /yandex.cloud.x.ThingService/Watch has gone"),
        (SERVICE.replace("stream Thing", "Thing"), "method /yandex.cloud.x.ThingService/Watch is unary_unary now"),
        (SERVICE.replace("service ThingService", "service Things"), "method /yandex.cloud.x.ThingService/Get has gone"),
        (SERVICE.partition("service")[0] + "message GetThingRequest {}", "ThingService/Get has gone"),
    ],
    ids=["renamed", "another kind", "service renamed", "service gone"],
)
def test_removed_or_changed_method_is_an_error(text: str, words: str, workplace: Workplace, upstream: Upstream) -> None:
    upstream.commit({ROOTS[0]: text})
    assert words in one_line(workplace.refuse("--ref", "master"))


def test_descriptors_that_differ_from_the_pin_are_an_error(
    workplace: Workplace, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.commit({"yandex/cloud/x/thing.proto": THINGS.replace("count = 3", "count = 33")})
    wheel = made_wheel(workplace.toolchain, upstream.path, tmp_path / "made-1.0-py3-none-any.whl")
    message = one_line(workplace.refuse("--source", str(wheel)))
    assert message == f"gen: the digest of yandex/cloud/x/thing.proto in {wheel.name} differs from the pin\n"
    workplace.config.write_text(re.sub(r'(?m)^"yandex/cloud/marks.proto" = .*\n', "", workplace.config.read_text()))
    assert "yandex/cloud/marks.proto" in one_line(workplace.refuse())


def test_import_that_no_dependency_provides_is_an_error(workplace: Workplace, upstream: Upstream) -> None:
    upstream.commit({ROOTS[0]: SERVICE.replace('import "google', 'import "yandex/o.proto"; import "google')})
    upstream.commit({"yandex/o.proto": 'syntax = "proto3"; import "third_party/o.proto";'})
    upstream.commit({"third_party/googleapis/third_party/o.proto": 'syntax = "proto3"; package o;'})
    message = one_line(workplace.refuse("--ref", "master"))
    assert "third_party/o.proto is drawn in, but lies outside yandex/" in message
    upstream.commit({"yandex/o.proto": 'syntax = "proto3"; import "google/new/new.proto";'})
    upstream.commit({"third_party/googleapis/google/new/new.proto": 'syntax = "proto3"; package google.new;'})
    assert "google/new/new.proto, which no dependency" in one_line(workplace.refuse("--ref", "master"))


def test_invalid_wheel_and_wheel_with_a_ref_are_errors(workplace: Workplace, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_text("<html></html>")
    assert "holds no descriptors" in one_line(workplace.refuse("--source", str(tmp_path / "x.whl")))
    assert "cannot read" in one_line(workplace.refuse("--source", str(tmp_path / "y.whl")))
    assert "needs a repository" in one_line(workplace.refuse("--source", "wheel", "--ref", "master"))


def test_invalid_pin_is_an_error(workplace: Workplace) -> None:
    text = workplace.config.read_text()
    workplace.config.write_text(text + "= oops")
    assert "cloudapi.toml does not parse" in one_line(workplace.refuse())
    workplace.config.write_text(text.replace("commit = ", "comet = "))
    assert "cloudapi.toml lacks 'commit'" in one_line(workplace.refuse())
    workplace.config.unlink()
    assert "cannot read" in one_line(workplace.refuse())


@pytest.mark.parametrize("name", ["_proto/__init__.py", "_proto/yandex/cloud/x/thing_pb2.pyi", "_proto/extra.py"])
def test_check_reports_changed_stubs_and_does_not_repair_them(name: str, workplace: Workplace) -> None:
    with (workplace.target.parent / name).open("a") as file:
        file.write("# by hand\n")
    assert name.removeprefix("_proto/") in one_line(workplace.refuse("--check"))
    (workplace.target / "yandex/cloud/marks_pb2.py").unlink()
    assert "and 1 more" in one_line(workplace.refuse("--check"))


# The swap


def test_interrupted_run_leaves_no_files_and_no_process(workplace: Workplace) -> None:
    state = workplace.state()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with subprocess.Popen(workplace.command("--source", url), stderr=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()  # git waits for the response
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30)[1] == "gen: interrupted\n"
        with connection:
            connection.settimeout(30)
            while connection.recv(4096):  # until git has ended
                pass
    assert process.returncode == 130
    assert workplace.state() == state
    assert not (workplace.cache / "gen-work").exists()


@pytest.fixture
def swap(tmp_path: Path) -> Any:
    """Lay out old stubs, an old pin and new stubs."""
    for name in ("staged", "_proto"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stub.py").write_text(name)
    (tmp_path / "pin.toml").write_text("old")
    return gen.Swap(tmp_path / "_proto", tmp_path / "pin.toml")


def outcome(swap: Any) -> tuple[str, str, list[str]]:
    beside = sorted(path.name for path in swap.config.parent.iterdir())
    return (swap.target / "stub.py").read_text(), swap.config.read_text(), beside


OLD = ("_proto", "old", ["_proto", "pin.toml", "staged"])
NEW = ("staged", "new", ["_proto", "pin.toml", "staged"])
STEPS = ["copytree", "write_text", "mkdir", "rename 1", "rename 2", "replace"]


def break_at(step: str, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], *, after: bool) -> None:
    """Make one step of the swap raise, before or after it has done its work."""
    name, _, nth = step.partition(" ")
    holder = gen.shutil if name == "copytree" else Path
    real, calls = getattr(holder, name), []

    def broken(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) != int(nth or 1):
            return real(*arguments, **settings)
        if after:
            real(*arguments, **settings)
        raise error

    monkeypatch.setattr(holder, name, broken)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("step", STEPS)
def test_failed_swap_is_rolled_back(
    step: str, error: type[BaseException], swap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = gen.Pin("new", "", "", [], "", "", "", [], {}, {})
    with monkeypatch.context() as patch:
        break_at(step, patch, error, after=False)
        with pytest.raises((KeyboardInterrupt, gen.Failure)):
            swap.commit(swap.config.parent / "staged", pin)
    assert outcome(swap) == OLD
    swap.commit(swap.config.parent / "staged", pin)
    assert outcome(swap) == NEW


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_killed_swap_is_recovered_by_the_next_run(
    step: str, after: bool, swap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = gen.Pin("new", "", "", [], "", "", "", [], {}, {})
    with monkeypatch.context() as patch:
        break_at(step, patch, KeyboardInterrupt, after=after)
        patch.setattr(gen.Swap, "recover", lambda _: None)  # a killed process does not clean up
        with pytest.raises(KeyboardInterrupt):
            swap.commit(swap.config.parent / "staged", pin)
    swap.recover()
    assert outcome(swap) == (NEW if (step, after) == ("replace", True) else OLD)


def test_concurrent_runs_succeed(workplace: Workplace) -> None:
    commands: Iterable[list[str]] = [workplace.command(), workplace.command("--check"), workplace.command()]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait() for process in processes] == [0, 0, 0]
