"""Regenerate `src/yandexgpt/_proto` from the interface pinned in `proto/cloudapi.toml`: all stubs, or none on an error.

    python scripts/gen.py                        # the pinned commit of the pinned repository
    python scripts/gen.py --source wheel         # its descriptors, from the package index
    python scripts/gen.py --source DIR_OR_URL    # the pinned commit of another copy of the repository
    python scripts/gen.py --ref master           # another commit; moves the pin if there is no error
    python scripts/gen.py --source wheel --check # change nothing, fail if the stubs on disk differ

It runs on any supported Python without other packages, and makes its own environment under `.cache`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # protobuf is installed only in the script's own environment
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "yandexgpt._proto"
"""The package of the stubs: the prefix of all their module names."""
OURS = "yandex/"
"""The prefix of the generated files. The stubs import the files under `google/` from installed packages."""
WORDS_KEPT = 20
"""The number of lines of another program's output to show."""


class Failure(Exception):  # noqa: N818 - it is never a programming error
    """An error that ends the script.

    Args:
        line: a description in one line.
        words: the output of another program, shown below it.
    """

    def __init__(self, line: str, words: str = "") -> None:
        super().__init__(line)
        self.words = "\n".join(words.strip().splitlines()[:WORDS_KEPT])


def main() -> int:
    """Run the steps, under a lock; return the exit code."""
    options = arguments()
    try:
        with exclusive(options.cache):
            if not options.inside:
                enter(options.python or environment(options.cache, options.timeout))
            pin = Pin.read(options.config)
            require_generator(pin)
            swap = Swap(options.target, options.config)
            swap.recover()
            with emptied(options.cache / "gen-work") as work:
                interface = obtain(pin, options, work)
                if not options.ref:
                    require_digests(pin, interface)
                staged = generate(interface, work)
                require_methods(staged, interface, pin)
                if options.check:
                    require_same(staged, options.target)
                else:
                    swap.commit(staged, pin if not options.ref else pin.moved(interface))
    except Failure as failure:
        print(f"gen: {failure}", *filter(None, [failure.words]), sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("gen: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"gen: {error}", file=sys.stderr)
        return 1
    outcome = "is what the pinned interface gives" if options.check else "generated"
    print(f"gen: {options.target.name} {outcome}: {len(interface.files)} files of {interface.origin}")
    return 0


def arguments() -> argparse.Namespace:
    """Read the command line. An empty value means no value, because make passes empty values."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", default="", help="URL, git directory, checkout, `wheel`, or a .whl file")
    parser.add_argument("--ref", default="", help="branch, tag or commit to move the pin to")
    parser.add_argument("--check", action="store_true", help="compare with the stubs on disk, change nothing")
    parser.add_argument("--config", type=absolute, default=ROOT / "proto" / "cloudapi.toml")
    parser.add_argument("--target", type=absolute, default=ROOT.joinpath("src", *PACKAGE.split(".")))
    parser.add_argument("--cache", type=absolute, default=ROOT / ".cache")
    parser.add_argument("--python", type=absolute, help="interpreter of a ready environment to generate with")
    parser.add_argument("--timeout", type=float, default=300, help="limit of each network operation, in seconds")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check and options.ref:
        parser.error("--check compares with the pin, so it takes no --ref")
    return options


def absolute(path: str) -> Path:
    """Make a path absolute, without resolving symbolic links: the python of a venv is one."""
    return Path(path).expanduser().absolute()


# The environment: made once, then the script restarts in it.


def environment(cache: Path, limit: float) -> Path:
    """Make the generator's environment unless it exists; return its interpreter."""
    requirements = ROOT / "requirements" / "gen.txt"
    place, recipe = cache / "gen-venv", f"{sys.version}\n{requirements.read_text()}"
    python, stamp = place / "bin" / "python", place / ".complete"
    if not (python.exists() and stamp.exists() and stamp.read_text() == recipe):
        shutil.rmtree(place, ignore_errors=True)
        install = [python, "-m", "pip", *PIP, "install", "--only-binary=:all:", "--requirement", requirements]
        for command in ([sys.executable, "-m", "venv", place], install):
            done = run(command, limit)
            if done.returncode:
                raise Failure(f"the generator's environment cannot be made: {last_error(done.stderr)}")
        stamp.write_text(recipe)
    return python


IMPLEMENTATION = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
PIP = ["--quiet", "--disable-pip-version-check", "--no-input"]


def enter(python: Path) -> NoReturn:
    """Restart the script in the generator's environment, without the user's PYTHONPATH."""
    # protobuf in pure Python writes options in the order of their numbers, as protoc does. The faster implementation
    # reverses the order.
    settings = {**os.environ, IMPLEMENTATION: "python"}
    try:
        os.execve(python, [str(python), "-I", __file__, *sys.argv[1:], "--inside"], settings)
    except OSError as error:
        raise Failure(f"no interpreter of the generator's at {python}: {error.strerror}") from error


def require_generator(pin: Pin) -> None:
    """Refuse any other generator than the pinned one: another version generates other code and version requirements."""
    try:
        found = importlib.metadata.version(pin.generator)
    except importlib.metadata.PackageNotFoundError:
        found = "not installed"
    if found != pin.generator_version:
        raise Failure(f"wrong generator: {pin.generator} {pin.generator_version} is pinned, found {found}")


# The pin.


@dataclass(frozen=True)
class Pin:
    """The contents of `proto/cloudapi.toml`."""

    text: str
    repository: str
    commit: str
    include: list[str]
    wheel: str
    generator: str
    generator_version: str
    roots: list[str]
    required: dict[str, str]
    digests: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Pin:
        """Read the file.

        Raises:
            Failure: the file cannot be read, or is invalid.
        """
        try:
            return cls.parse(path.read_text())
        except OSError as error:
            raise Failure(f"cannot read {path}: {error.strerror}") from error
        except KeyError as error:
            raise Failure(f"{path.name} lacks {error}") from error
        except ValueError as error:
            raise Failure(f"{path.name} does not parse: {error}") from error

    @classmethod
    def parse(cls, text: str) -> Pin:
        """Parse the text of the file."""
        name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
        try:
            data = importlib.import_module(name).loads(text)
        except ModuleNotFoundError as error:
            raise Failure(f"wrong generator: its environment lacks {error.name}") from error
        source, generator = data["source"], data["generator"]
        return cls(
            text=text,
            repository=source["repository"],
            commit=source["commit"],
            include=source["include"],
            wheel=source["wheel"],
            generator=generator["package"],
            generator_version=generator["version"],
            roots=data["interface"]["roots"],
            required=data["required"],
            digests=data["digests"],
        )

    def moved(self, interface: Interface) -> Pin:
        """Return the pin on another commit. Everything else in its text stays, with its order and comments."""
        lines, section = [], ""
        for line in self.text.splitlines():
            if opening := re.match(r"\[(\w+)\]", line):
                section = opening[1]
            value = {"commit": interface.commit, "date": interface.date}.get(line.partition("=")[0].strip())
            if section == "source" and value:
                line = re.sub(r'"[^"]*"', f'"{value}"', line, count=1)
            if section != "digests" or line.startswith(("[", "#")):
                lines.append(line)
        lines += [f'"{name}" = "{digest}"' for name, digest in sorted(interface.digests.items())]
        moved = Pin.parse("\n".join(lines) + "\n")
        if (moved.commit, moved.digests) != (interface.commit, interface.digests):
            raise Failure("the pin cannot be moved: `commit` must be in [source], and [digests] the last table")
        return moved


# Steps 1 and 2: descriptors, from source text or from a wheel.


@dataclass(frozen=True)
class Interface:
    """The normalized descriptors of the files to generate, and of their imports."""

    origin: str
    commit: str
    date: str
    files: dict[str, FileDescriptorProto]
    google: dict[str, FileDescriptorProto]
    digests: dict[str, str] = field(default_factory=dict)


def obtain(pin: Pin, options: argparse.Namespace, work: Path) -> Interface:
    """Get the descriptors from the source that the options name."""
    commit, date = pin.commit, ""
    if options.source == "wheel" or options.source.endswith(".whl"):
        if options.ref not in ("", pin.commit):
            raise Failure(f"a wheel has no commits to choose from: {options.ref} needs a repository")
        wheel = absolute(options.source) if options.source != "wheel" else download(pin, options, work)
        origin, files = wheel.name, read_wheel(wheel, pin)
    else:
        tree, commit, date = clone(pin, options, work)
        origin, files = f"commit {commit[:12]}", compile_text(tree, commit, pin, work)
    google = google_files(files)
    files = normalised(files, google)
    digests = {name: hashlib.sha256(as_bytes(file)).hexdigest() for name, file in files.items()}
    return Interface(origin, commit, date, files, google, digests)


def clone(pin: Pin, options: argparse.Namespace, work: Path) -> tuple[Path, str, str]:
    """Fetch one commit, without its history and without files that protoc does not read; return its tree, id and date.

    The pinned commit of the pinned repository is cached, so the next run needs no network. Any other source is fetched
    in each run, because it was named explicitly.
    """
    kept = options.cache / "cloudapi"
    if not options.source and not options.ref and (kept / pin.commit).is_dir():
        return kept / pin.commit, pin.commit, ""
    source = options.source or pin.repository
    if Path(source).expanduser().exists():
        source = str(absolute(source))
    ref = options.ref or pin.commit
    if ref.startswith("-"):
        raise Failure(f"{ref} is not the name of a commit")

    tree = work / "tree"
    git = Git(tree, work, options.timeout)
    if (made := git("init", "--quiet", "--template=")).returncode:
        raise Failure(f"git cannot make a repository: {last_error(made.stderr)}")
    git("config", "remote.origin.url", source)
    # No symbolic links: they could point outside the tree. No prompts: see Git.
    git("config", "core.symlinks", "false")
    git("config", "core.sparseCheckout", "true")
    wanted = {root.partition("/")[0] for root in pin.roots} | {path for path in pin.include if path != "."}
    (tree / ".git" / "info").mkdir(exist_ok=True)
    (tree / ".git" / "info" / "sparse-checkout").write_text("".join(f"/{path}/**/*.proto\n" for path in sorted(wanted)))

    if (reached := git("ls-remote", "--quiet", "origin", "HEAD")).returncode:
        raise Failure(f"cannot reach {source}: {last_error(reached.stderr)}")
    commit = fetch(git, source, ref)
    if (out := git("read-tree", "-m", "-u", commit)).returncode:
        raise Failure(f"cannot check out {commit} of {source}: {last_error(out.stderr)}")
    date = git("show", "--no-patch", "--format=%cs", commit).stdout.strip()
    shutil.rmtree(tree / ".git")
    if not options.source:
        kept.mkdir(exist_ok=True)
        shutil.rmtree(kept / commit, ignore_errors=True)
        tree = tree.rename(kept / commit)
    return tree, commit, date


def fetch(git: Git, source: str, ref: str) -> str:
    """Fetch only `ref`, or everything if the server does not serve commits by their id; return the commit's id."""
    partial = ["fetch", "--quiet", "--no-tags", "--filter=blob:none"]
    name = "FETCH_HEAD"
    fetched = git(*partial, "--depth=1", "origin", ref)
    by_id = re.fullmatch("[0-9a-f]{7,40}", ref)
    if fetched.returncode and by_id and "not our ref" not in fetched.stderr:
        name = ref
        fetched = git(*partial, "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    found = git("rev-parse", "--verify", "--quiet", name + "^{commit}")
    if fetched.returncode or found.returncode:
        why = last_error(fetched.stderr) if fetched.returncode else "no such commit"
        raise Failure(f"unknown commit {ref} in {source}: {why}")
    return found.stdout.strip()


class Git:
    """git in one directory. It never prompts, and the user's settings do not apply."""

    def __init__(self, directory: Path, work: Path, limit: float) -> None:
        directory.mkdir()
        settings = work / "gitconfig"
        # A repository that belongs to another user is allowed: the digest of every file is checked.
        settings.write_text("[safe]\n\tdirectory = *\n[http]\n\tlowSpeedLimit = 1000\n\tlowSpeedTime = 60\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        kept.pop("SSH_ASKPASS", None)
        network = {name: value for name, value in os.environ.items() if name.startswith(("GIT_SSL_", "GIT_SSH"))}
        own = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": str(settings)}
        self.environment = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes", **kept, **network, **own, "LC_ALL": "C"}
        self.directory, self.limit = directory, limit

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a git command in the directory."""
        return run(["git", *command], self.limit, cwd=self.directory, env=self.environment)


def compile_text(tree: Path, commit: str, pin: Pin, work: Path) -> dict[str, FileDescriptorProto]:
    """Let protoc read the roots and their imports."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    includes = [path for name in pin.include if (path := tree / name).is_dir()]
    for root in pin.roots:
        if not any((path / root).is_file() for path in includes):
            raise Failure(f"root {root} has gone from commit {commit[:12]}")
    output = work / "text.pb"
    done = protoc(
        *(f"-I{path}" for path in includes), "--include_imports", f"--descriptor_set_out={output}", *pin.roots
    )
    if done.returncode:
        first, _, rest = done.stderr.strip().partition("\n")
        raise Failure(f"commit {commit[:12]} does not parse: {first}", rest)
    compiled = FileDescriptorSet.FromString(output.read_bytes())
    return {file.name: file for file in compiled.file if not file.name.startswith("google/")}


def protoc(*command: str) -> subprocess.CompletedProcess[str]:
    """Run the pinned generator; drop the messages of its logging library."""
    done = run([sys.executable, "-I", "-m", "grpc_tools.protoc", *command], limit=120)
    done.stderr = re.sub(r"^(?:[IWEF]\d{4} |WARNING: All log messages).*\n?", "", done.stderr, flags=re.MULTILINE)
    return done


def download(pin: Pin, options: argparse.Namespace, work: Path) -> Path:
    """Download the wheel without its dependencies to a separate directory, unless it exists there."""
    place: Path = options.cache / pin.wheel.replace("==", "-")
    if not place.is_dir():
        partial = work / "wheel"
        command = ["download", "--no-deps", "--only-binary=:all:", "--dest", partial, pin.wheel]
        done = run([sys.executable, "-m", "pip", *PIP, *command], options.timeout)
        if done.returncode:
            raise Failure(f"cannot download {pin.wheel}: {last_error(done.stderr)}")
        partial.rename(place)
    (wheel,) = place.glob("*.whl")
    return wheel


def read_wheel(wheel: Path, pin: Pin) -> dict[str, FileDescriptorProto]:
    """Read the serialized descriptors from generated modules, without importing the modules."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    files: dict[str, FileDescriptorProto] = {}

    def visit(name: str, archive: zipfile.ZipFile) -> None:
        if name in files or name.startswith("google/"):
            return
        source = ast.parse(archive.read(name.removesuffix(".proto").replace("-", "_") + "_pb2.py"))
        calls = (node for node in ast.walk(source) if isinstance(node, ast.Call))
        (serialized,) = (call.args[0] for call in calls if getattr(call.func, "attr", "") == "AddSerializedFile")
        file = FileDescriptorProto.FromString(ast.literal_eval(serialized))
        for dependency in file.dependency:
            visit(dependency, archive)
        files[name] = file

    try:
        with zipfile.ZipFile(wheel) as archive:
            for root in pin.roots:
                visit(root, archive)
    except OSError as error:
        raise Failure(f"cannot read {wheel}: {error.strerror}") from error
    except KeyError as error:
        raise Failure(f"a root has gone from {wheel.name}: {error.args[0]}") from error
    except (ValueError, SyntaxError, zipfile.BadZipFile) as error:
        raise Failure(f"{wheel.name} holds no descriptors that can be read: {error}") from error
    return files


def google_files(files: Mapping[str, FileDescriptorProto]) -> dict[str, FileDescriptorProto]:
    """Get imported files of Google from the packages that ship them, as the stubs do when they are imported."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    google: dict[str, FileDescriptorProto] = {}

    def visit(descriptor: Any) -> None:
        if descriptor.name not in google:
            for dependency in descriptor.dependencies:
                visit(dependency)
            google[descriptor.name] = FileDescriptorProto.FromString(descriptor.serialized_pb)

    for file in files.values():
        for name in (file.name, *file.dependency):
            if name.startswith("google/"):
                try:
                    visit(importlib.import_module(module_of(name)).DESCRIPTOR)
                except ImportError as error:
                    raise Failure(f"{file.name} imports {name}, which no dependency of the package ships") from error
            elif not name.startswith(OURS):
                raise Failure(
                    f"{file.name} is drawn in, but lies outside {OURS}"
                    if name == file.name
                    else f"{file.name} imports {name}, which lies outside {OURS}"
                )
    return google


def normalised(
    files: Mapping[str, FileDescriptorProto], google: Mapping[str, FileDescriptorProto]
) -> dict[str, FileDescriptorProto]:
    """Normalize descriptors, so that the same interface gives the same bytes, whatever compiled it."""
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    pool = DescriptorPool()
    try:
        for file in (*google.values(), *files.values()):
            pool.AddSerializedFile(file.SerializeToString())
    except TypeError as error:
        raise Failure(f"{file.name} does not fit its imports: {error}") from error
    # A message class of this pool knows the options of the interface, so it serializes them in the order of their
    # numbers. Descriptors that are compiled from text have them in the order of the text.
    knowing = GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto"))
    result = {}
    for name, file in files.items():
        plain: Any = knowing.FromString(file.SerializeToString())
        plain.ClearField("source_code_info")
        fields = [*plain.extension]
        for message in messages_in(plain.message_type):
            fields += [*message.field, *message.extension]
        for each in fields:
            # protoc writes default JSON names to descriptor sets, and omits them in generated code.
            if each.json_name == re.sub("_+(.?)", lambda found: found[1].upper(), each.name):
                each.ClearField("json_name")
        result[name] = plain
    return result


def messages_in(messages: Iterable[DescriptorProto]) -> Iterator[DescriptorProto]:
    """Yield messages and those nested in them."""
    for message in messages:
        yield message
        yield from messages_in(message.nested_type)


def as_bytes(message: Any) -> bytes:
    """Serialize a message the same way each time."""
    return bytes(message.SerializeToString(deterministic=True))


def require_digests(pin: Pin, interface: Interface) -> None:
    """Refuse descriptors other than the pinned ones."""
    for name in sorted(pin.digests.keys() | interface.digests.keys()):
        if pin.digests.get(name) != interface.digests.get(name):
            raise Failure(f"the digest of {name} in {interface.origin} differs from the pin")


# Steps 3 and 4: stubs in a separate package and descriptor pool.


def module_of(proto: str) -> str:
    """Return the name of the module that protoc generates for a file."""
    return proto.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"


def generate(interface: Interface, work: Path) -> Path:
    """Generate the stubs from the descriptors; return their directory."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    top = work / "staged"
    staged = top.joinpath(*PACKAGE.split("."))
    staged.mkdir(parents=True)
    (staged.parent / "__init__.py").touch()
    described = FileDescriptorSet()
    for file in (*interface.google.values(), *interface.files.values()):
        described.file.add().MergeFromString(as_bytes(file))
    (work / "set.pb").write_bytes(as_bytes(described))
    outputs = [f"--{kind}_out={staged}" for kind in ("python", "pyi", "grpc_python")]
    done = protoc(f"--descriptor_set_in={work / 'set.pb'}", *outputs, *sorted(interface.files))
    if done.returncode:
        raise Failure("protoc cannot generate stubs", done.stderr)

    homes = dict(message_homes((*interface.google.values(), *interface.files.values())))
    for name, file in interface.files.items():
        module = staged.joinpath(*module_of(name).split("."))
        code, types = module.with_suffix(".py"), module.with_suffix(".pyi")
        code.write_text(relocated(code.read_text(), module_of(name)))
        types.write_text(relocated(strict(types.read_text()), module_of(name)))
        grpc = module.with_name(module.name + "_grpc.py")
        if file.service:
            grpc.write_text(relocated(grpc.read_text(), module_of(name)))
            grpc.with_suffix(".pyi").write_text(grpc_types(file, homes))
        else:
            grpc.unlink()
    for directory in [path for path in staged.rglob("*") if path.is_dir()]:
        (directory / "__init__.py").touch()
    (staged / "__init__.py").write_text(package_source(interface))
    return staged


def relocated(source: str, module: str) -> str:
    """Move a generated module under PACKAGE, and its descriptors and classes out of the default pool."""
    source = re.sub(r"^from (?=yandex[. ])", f"from {PACKAGE}.", source, flags=re.MULTILINE)
    source = source.replace(f"'{module}'", f"'{PACKAGE}.{module}'")  # the module name that pickle uses
    if "_descriptor_pool.Default()" in source:
        source = source.replace("_descriptor_pool.Default()", "_POOL")
        unneeded = (
            r"^from google\.protobuf import (?:descriptor_pool|symbol_database) as .*\n"
            r"|^_sym_db = .*\n"
            r"|^from google\.[\w.]+ import \w+ as google_dot_.*\n"  # already in the pool
        )
        source = re.sub(unneeded, "", source, flags=re.MULTILINE)
        builder = "from google.protobuf.internal import builder as _builder\n"
        source = source.replace(builder, f"from {PACKAGE} import BUILDER as _builder, POOL as _POOL\n")
    return source


def strict(types: str) -> str:
    """Correct the generator's `.pyi` for strict type checkers."""
    types = re.sub(r"^(\w+): _ClassVar\[int\]", r"\1: int", types, flags=re.MULTILINE)
    return types.replace("_Mapping]", "_Mapping[str, _Any]]").replace(
        "from typing import ", "from typing import Any as _Any, "
    )


PACKAGE_SOURCE = '''\
# Generated by scripts/gen.py. DO NOT EDIT.
"""Stubs of the service's interface, in a descriptor pool of their own.

Other packages in the process may hold their own copies of the same files, of any age: in one pool they would clash.
"""
import importlib.util as _importlib_util
import types as _types

{imports}
from google.protobuf import descriptor as _descriptor
from google.protobuf import descriptor_pool as _descriptor_pool
from google.protobuf import symbol_database as _symbol_database

POOL: _descriptor_pool.DescriptorPool = _descriptor_pool.DescriptorPool()


def _seed(file: _descriptor.FileDescriptor, seen: set[str]) -> None:
    if file.name not in seen:
        seen.add(file.name)
        for dependency in file.dependencies:
            _seed(dependency, seen)
        POOL.AddSerializedFile(file.serialized_pb)


def _private_builder() -> _types.ModuleType:
    """Load a second copy of protobuf's builder: the first registers what it builds with the default pool."""
    spec = _importlib_util.find_spec("google.protobuf.internal.builder")
    assert spec is not None and spec.loader is not None
    builder = _importlib_util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    builder._sym_db = _symbol_database.SymbolDatabase(pool=POOL)  # type: ignore[attr-defined]
    return builder


_seen: set[str] = set()
for _module in (
{modules}
):
    _seed(_module.DESCRIPTOR, _seen)
BUILDER: _types.ModuleType = _private_builder()
'''


def package_source(interface: Interface) -> str:
    """Return the source of the package that owns the pool, with the files of Google that the interface imports."""
    imported = {name for file in interface.files.values() for name in file.dependency if name in interface.google}
    modules = [module_of(name).rpartition(".") for name in sorted(imported)]
    return PACKAGE_SOURCE.format(
        imports="\n".join(f"from {parent} import {name} as _{name}" for parent, _, name in modules),
        modules="\n".join(f"    _{name}," for _, _, name in modules),
    )


def message_homes(files: Iterable[FileDescriptorProto]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the full name of each message, with the module and the qualified name of its class."""

    def visit(messages: Iterable[DescriptorProto], outer: str) -> Iterator[str]:
        for message in messages:
            yield outer + message.name
            yield from visit(message.nested_type, f"{outer}{message.name}.")

    for file in files:
        prefix = f"{PACKAGE}." if file.name.startswith(OURS) else ""
        for name in visit(file.message_type, ""):
            yield f".{file.package}.{name}", (prefix + module_of(file.name), name)


def grpc_types(file: FileDescriptorProto, homes: Mapping[str, tuple[str, str]]) -> str:
    """Return the `.pyi` of a `_pb2_grpc` module, for which the generator writes no types."""
    modules: set[str] = set()

    def alias(module: str) -> str:
        return "_" + module.removeprefix(f"{PACKAGE}.").replace(".", "_")

    def type_of(name: str) -> str:
        module, cls = homes[name]
        modules.add(module)
        return f"{alias(module)}.{cls}"

    body: list[str] = []
    for service in file.service:
        stub: dict[str, list[str]] = {"grpc": [], "grpc.aio": []}
        servicer = []
        for method in service.method:
            request, response = type_of(method.input_type), type_of(method.output_type)
            kind = ("Unary", "Stream")[method.client_streaming] + ("Unary", "Stream")[method.server_streaming]
            for library, attributes in stub.items():
                attributes.append(f"    {method.name}: {library}.{kind}MultiCallable[{request}, {response}]")
            # The servicer is for both kinds of server, so the answer may be awaitable, and the context has either type.
            given = f"_Iterator[{request}] | _Any" if method.client_streaming else request
            answer = (f"{response} | _Awaitable[{response}]", f"_Iterator[{response}] | _AsyncIterator[{response}]")
            arguments = f"self, {'request_iterator' if method.client_streaming else 'request'}: {given}, context: _Any"
            servicer.append(f"    def {method.name}({arguments}) -> {answer[method.server_streaming]}: ...")
        body += [
            f"class {service.name}Stub:",
            "    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...",
            *stub["grpc"],
            "",
            "@_type_check_only",
            f"class {service.name}AsyncStub:",
            f'    """What a {service.name}Stub on a grpc.aio.Channel is."""',
            *stub["grpc.aio"],
            "",
            f"class {service.name}Servicer:",
            *(servicer or ["    pass"]),
            "",
            f"def add_{service.name}Servicer_to_server("
            f"servicer: {service.name}Servicer, server: grpc.Server | grpc.aio.Server) -> None: ...",
            "",
        ]
    names = ", ".join(f"{name} as _{name}" for name in ("AsyncIterator", "Awaitable", "Iterator"))
    imports = [
        f"from collections.abc import {names}",
        "from typing import Any as _Any, type_check_only as _type_check_only",
        "import grpc",
        "import grpc.aio",
    ]
    for module in sorted(modules):
        parent, _, name = module.rpartition(".")
        imports.append(f"from {parent} import {name} as {alias(module)}")
    return "\n".join([*imports, "", *body])


# Step 5: check, then swap.

CHECK = """\
import ast, importlib, json, pathlib, sys
top, package, files, required = json.loads(sys.argv[1])
sys.path.insert(0, top)

class Recorder:
    def __init__(self):
        self.methods = {}
    def __getattr__(self, kind):
        return lambda path, *_, **__: self.methods.update({path: kind})

recorder = Recorder()
for path in sorted(pathlib.Path(top).rglob("*.py*")):
    ast.parse(path.read_bytes())
    if path.suffix == ".py":
        module = importlib.import_module(".".join(path.relative_to(top).with_suffix("").parts))
        for name, value in vars(module).items():
            if module.__name__.endswith("_pb2_grpc") and name.endswith("Stub"):
                value(recorder)

from google.protobuf import descriptor_pool
pool = importlib.import_module(package).POOL
for file in files:
    assert pool.FindFileByName(file).name == file
    try:
        descriptor_pool.Default().FindFileByName(file)
    except KeyError:
        continue
    sys.exit(f"{file} is in the default descriptor pool")
kinds = {"unary": "unary_unary", "stream": "unary_stream"}
for path, kind in required.items():
    found = recorder.methods.get(path)
    if found is None:
        sys.exit(f"method {path} has gone")
    if found != kinds[kind]:
        sys.exit(f"method {path} is {found} now, not {kinds[kind]}")
"""


def require_methods(staged: Path, interface: Interface, pin: Pin) -> None:
    """Import every stub in a new interpreter, with warnings as errors, and check the methods that the client calls."""
    top = staged.parents[PACKAGE.count(".")]
    facts = json.dumps([str(top), PACKAGE, list(interface.files), pin.required])
    settings = {name: value for name, value in os.environ.items() if name != IMPLEMENTATION}
    done = run([sys.executable, "-I", "-B", "-W", "error", "-c", CHECK, facts], limit=120, env=settings)
    if done.returncode:
        raise Failure(f"the new stubs fail their check: {last_error(done.stderr)}")


def require_same(staged: Path, target: Path) -> None:
    """Compare the new stubs with those on disk."""
    new, old = contents(staged), contents(target)
    if drifted := sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name)):
        more = f" and {len(drifted) - 1} more" if len(drifted) > 1 else ""
        raise Failure(
            f"{drifted[0]}{more} in {target.name} differ from what the pinned interface gives: run `make gen`"
        )


def contents(directory: Path) -> dict[str, bytes]:
    """Read a tree of generated files."""
    paths = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


class Swap:
    """Replaces the stubs and their pin together, or neither.

    The new pin exists next to the old one until the swap is finished. If a later run finds it, it restores the old
    stubs.
    """

    def __init__(self, target: Path, config: Path) -> None:
        self.target, self.config = target, config
        self.new, self.old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
        self.journal = config.with_name(f".{config.name}.new")

    def recover(self) -> None:
        """Undo an unfinished swap, and remove the temporary files of a swap."""
        if self.journal.exists() and self.old.exists():
            shutil.rmtree(self.target, ignore_errors=True)
            self.old.rename(self.target)
        shutil.rmtree(self.new, ignore_errors=True)
        shutil.rmtree(self.old, ignore_errors=True)
        self.journal.unlink(missing_ok=True)

    def commit(self, staged: Path, pin: Pin) -> None:
        """Swap. Signals are blocked meanwhile."""
        signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            shutil.copytree(staged, self.new, ignore=shutil.ignore_patterns("__pycache__"))
            self.journal.write_text(pin.text)
            self.target.mkdir(parents=True, exist_ok=True)
            self.target.rename(self.old)
            self.new.rename(self.target)
            self.journal.replace(self.config)
        except OSError as error:
            raise Failure(f"cannot replace {self.target}: {error.strerror}") from error
        finally:
            self.recover()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Tools.


def run(command: Iterable[object], limit: float, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a command without input. After `limit` seconds, or on an interrupt, kill it and its children."""
    arguments = [str(word) for word in command]
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            **settings,
        )
    except OSError as error:
        raise Failure(f"cannot run {arguments[0]}: {error.strerror}") from error
    try:
        output, errors = process.communicate(timeout=limit)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Failure(f"no answer within {limit:g} s from {' '.join(arguments[:2])}") from error
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def last_error(output: str) -> str:
    """Return the line of a program's output that describes the error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    # git prints this line after the reason.
    errors = [line for line in errors if "Could not read from remote repository" not in line] or errors
    return (errors or lines or ["no reason given"])[-1]


@contextlib.contextmanager
def exclusive(cache: Path) -> Iterator[None]:
    """Lock the cache for one generator at a time. The lock is released when the process ends."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "gen.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def emptied(directory: Path) -> Iterator[Path]:
    """Yield an empty directory, which is removed afterwards."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
