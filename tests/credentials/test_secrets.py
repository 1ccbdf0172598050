"""No output, log, error, pickle or repr contains a secret; no log and no error contains a prompt or an answer.

This file is also the program that the tests run. With one kind of credentials, it makes calls that succeed and calls
that fail. It prints every object that a user has to standard output, and all logs, warnings and errors to standard
error. The tests search both for secrets.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import dataclasses
import faulthandler
import json
import logging
import pickle
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PIECE = 12
"""Number of consecutive characters of a secret that count as a leak."""
KINDS = (
    "api_key",
    "iam_token",
    "own_header",
    "oauth",
    "key_mapping",
    "key_file",
    "metadata_service",
    "yc",
    "function",
    "coroutine",
)
QUICK = ("key_file",)
"""Kinds that are not marked as slow. The other kinds take seconds of CPU time each."""
HERE = Path(__file__)


def variants(secret: str) -> Iterator[str]:
    """The secret in plain text and in several encodings."""
    yield secret
    raw = secret.encode()
    yield raw.hex()
    for shift in range(3):  # the secret may start at any offset of the encoded text
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(raw[shift:])[: len(raw[shift:]) // 3 * 4].decode()


def windows(text: str) -> Iterator[str]:
    return (text[start : start + PIECE] for start in range(len(text) - PIECE + 1))


def leaks(output: str, hidden: list[str]) -> list[str]:
    """The text around the first three parts of hidden strings in the output."""
    assert all(len(secret) >= PIECE for secret in hidden)
    wanted = {piece for secret in hidden for written in variants(secret) for piece in windows(written)}
    positions = [position for position, piece in enumerate(windows(output)) if piece in wanted]
    first = [
        position
        for position, before in zip(positions, [-PIECE, *positions], strict=False)
        if position - before >= PIECE
    ]
    return [output[max(0, position - 200) : position + 60] for position in first[:3]]


@dataclasses.dataclass(frozen=True)
class RunOutput:
    """The output of a run, and the strings that it must not contain."""

    out: str
    err: str
    secrets: list[str]
    texts: list[str]


def output_of_run(kind: str, folder: Path, *more: str) -> RunOutput:
    from driver import subprocess_environment

    note = folder / "hidden.json"
    environment = {
        **subprocess_environment(),
        "PYTHONASYNCIODEBUG": "1",
        "GRPC_VERBOSITY": "DEBUG",
    }
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "always", str(HERE), kind, str(note), *more],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1500:]
    hidden = json.loads(note.read_text(encoding="utf-8"))
    return RunOutput(done.stdout, done.stderr, hidden["secrets"], hidden["texts"])


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_run_outputs_no_secret(kind: str, tmp_path: Path) -> None:
    result = output_of_run(kind, tmp_path)
    # The run was complete: its output contains the log, the errors and the objects.
    for words in ("call succeeded", "call failed", "attempt 1 failed, the next in", "Traceback (most recent call"):
        assert words in result.err
    for words in ("Client(", "Completion(", "Chunk(", "Operation(", "'_invoker'", "cannot be pickled"):
        assert words in result.out
    raised = set(re.findall(r"^yandexgpt\.errors\.(\w+)", result.err, re.MULTILINE))
    assert raised >= ERRORS, ERRORS - raised
    assert len(result.secrets) >= 2
    assert leaks(result.out + result.err, result.secrets) == []
    assert leaks(without_foreign_messages(result.err), result.texts) == []


def without_foreign_messages(log: str) -> str:
    """The log without asyncio's debug messages about user tasks, and without the values in pydantic errors."""
    log = re.sub(r"^\w+ asyncio: .*$", "", log, flags=re.MULTILINE)
    return re.sub(r"\[type=\w+, input_value=.*\]$", "", log, flags=re.MULTILINE)


def test_leaked_secrets_are_detected(tmp_path: Path) -> None:
    result = output_of_run("api_key", tmp_path, "leak")
    password, printed, logged, raised, cut, encoded = result.secrets
    assert not leaks(result.out + result.err, [password])
    for secret, output in (
        (printed, result.out),
        (logged, result.err),
        (raised, result.err),
        (cut, result.out),
        (encoded, result.out),
    ):
        assert leaks(output, [secret])
    [text] = result.texts
    assert leaks(without_foreign_messages(result.err), [text])


@pytest.mark.parametrize("part", [slice(None), slice(5, 17), slice(-12, None)])
def test_search_finds_a_part_of_a_secret(part: slice) -> None:
    secret = secrets.token_urlsafe(40)
    assert leaks(f"a line\n with {secret[part]} in it", [secret])
    assert not leaks("a line\n with something else in it", [secret])
    assert not leaks(f"a line with {secret[:11]} in it", [secret])


@pytest.mark.parametrize("lead", ["", "a", "ab"])
def test_search_finds_an_encoded_secret(lead: str) -> None:
    secret = secrets.token_urlsafe(40)
    assert leaks(base64.b64encode(f"{lead}{secret}".encode()).decode(), [secret])
    assert leaks(base64.urlsafe_b64encode(f"{lead}{secret}".encode()).decode(), [secret])
    assert leaks(secret.encode().hex(), [secret])


def test_client_settings_show_no_password() -> None:
    import yandexgpt

    password = secrets.token_urlsafe(20)
    proxy = ("grpc.http_proxy", f"http://user:{password}@proxy.example:3128")
    client = yandexgpt.Client(
        folder_id="b1g", credentials=secrets.token_urlsafe(20), metadata=[("x-password", password)],
        channel_options=[proxy],
    )  # fmt: skip
    assert leaks(f"{client!r} {vars(client)} {vars(client._invoker)} {client._invoker.settings!r}", [password]) == []
    client.close()


# The run

ERRORS = {
    "AuthenticationError",
    "CancelledError",
    "ConfigurationError",
    "ContentFilterError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalServerError",
    "InvalidArgumentError",
    "NotFoundError",
    "OperationFailed",
    "OperationTimeout",
    "PermissionDeniedError",
    "PromptTooLongError",
    "QuotaExceededError",
    "RevisedError",
    "ToolRoundsError",
    "TruncatedError",
    "UnavailableError",
    "UnimplementedError",
    "YandexGPTError",
    "APIError",
}
FOREVER = 3600.0


class Run:
    """One run with both clients."""

    def __init__(self, kind: str, folder: Path) -> None:
        from yandexgpt.emulator import Emulator, MetadataServer

        self.kind = kind
        self.folder = folder
        self.password = secrets.token_urlsafe(24)
        self.secrets = [self.password]
        self.texts: list[str] = []
        self.emulator = Emulator()
        self.identity = self.emulator.identity
        self.metadata = MetadataServer(self.identity)
        self.keep_proofs()

    def keep_proofs(self) -> None:
        """Treat the JWTs and OAuth tokens of exchanges as secrets."""
        exchange = self.identity.exchange

        def kept(request: Any) -> Any:
            self.hide(request.jwt or request.yandex_passport_oauth_token)
            return exchange(request)

        self.identity.exchange = kept  # type: ignore[method-assign]

    def hide(self, secret: str) -> str:
        self.secrets.append(secret)
        return secret

    def text(self) -> str:
        """A new text for a prompt or an answer, which must not be logged."""
        self.texts.append(secrets.token_hex(12))
        return f"раз {self.texts[-1]} два"

    # Credentials

    def make(self) -> tuple[Any, dict[str, Any]]:
        """Credentials of the kind, and other client options."""
        from yandexgpt import credentials as kinds

        options: dict[str, Any] = {"metadata": [("x-proxy-password", self.password)]}
        identity = self.identity
        if self.kind == "api_key":
            return kinds.ApiKey(self.hide(f"AQVN{secrets.token_urlsafe(30)}")), options
        if self.kind == "iam_token":
            return kinds.IamToken(identity.issue()), options
        if self.kind == "own_header":
            header = self.hide(f"Api-Key {secrets.token_urlsafe(30)}")
            return kinds.NoCredentials(), {"metadata": [*options["metadata"], ("authorization", header)]}
        if self.kind == "oauth":
            return kinds.OAuthToken(self.hide(identity.oauth_token())), options
        if self.kind == "key_mapping":
            return kinds.ServiceAccountKey(self.key()), options
        if self.kind == "key_file":
            return kinds.ServiceAccountKey(self.file(json.dumps(self.key()))), options
        if self.kind == "metadata_service":
            return kinds.MetadataService(self.metadata.endpoint, timeout=1.0), options
        if self.kind == "yc":
            return kinds.YcCli(self.tool(), timeout=1.0), options

        def function() -> Any:
            self.wait_or_fail()
            return kinds.ExpiringToken(identity.issue(), lifetime=60.0)

        async def coroutine() -> Any:
            self.wait_or_fail()
            return identity.issue()

        return kinds.TokenProvider(function if self.kind == "function" else coroutine), options

    def wait_or_fail(self) -> None:
        threading.Event().wait(self.identity.delay)
        if (self.folder / "failing").exists():
            raise LookupError("the vault is sealed")

    def key(self) -> dict[str, str]:
        key = self.identity.service_account_key()
        lines = key["private_key"].split("-----")[2].split()
        self.secrets += ["".join(lines), *(line for line in lines if len(line) >= PIECE)]
        return key

    def file(self, content: str | bytes) -> Path:
        file = self.folder / f"{secrets.token_hex(4)}.json"
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return file

    def tool(self) -> str:
        tool = self.folder / "yc"
        row = "\n".join(self.identity.issue() for _ in range(400))
        (self.folder / "tokens").write_text(row)
        (self.folder / "asked").write_text("")
        tool.write_text(
            f"#!/bin/sh\ncd {shlex.quote(str(self.folder))}\nprintf x >> asked\n"
            "head -n $(wc -c < asked) tokens | tail -n 1\n"
            "[ -e slow ] && exec sleep 5\n[ -e failing ] && { echo 'the profile is not there' >&2; exit 3; }\nexit 0\n"
        )
        tool.chmod(0o755)
        return str(tool)

    @contextlib.contextmanager
    def no_token(self, *, slow: bool = False) -> Iterator[None]:
        """The source of tokens fails, or is slow, during the block."""
        mark = self.folder / ("slow" if slow else "failing")
        mark.touch()
        if slow:
            self.identity.delay, self.metadata.delay = 0.5, 5.0
        else:
            self.identity.fail("PERMISSION_DENIED", times=2, message="the account is blocked")
            self.identity.fail("UNAVAILABLE", times=50)
            self.metadata.garbage = json.dumps({"token": self.identity.issue()}).encode()
        try:
            yield
        finally:
            mark.unlink()
            self.identity.delay = self.metadata.delay = 0.0
            self.identity._failures.clear()
            self.metadata.garbage = None

    def revoke(self) -> None:
        for token in self.identity.issued:
            if self.identity.is_valid(token) and self.kind != "yc":
                self.identity.revoke(token)

    # Objects shown to the user

    def show(self, *things: Any) -> None:
        """Print objects to standard output."""
        from yandexgpt.credentials import Credentials

        for thing in things:
            print(repr(thing), str(thing), f"{[thing]}")
            if not isinstance(thing, Credentials):  # `vars` of credentials contains the secret
                with contextlib.suppress(TypeError):
                    print(vars(thing))
            for copied in (pickle.dumps, copy.copy, copy.deepcopy):
                result = attempt(thing, later(copied, thing))
                print(repr(result))
                if isinstance(result, BaseException):
                    self.raised(result)

    def raised(self, error: BaseException) -> None:
        """Print an error to standard error, and its attributes to standard output."""
        traceback.print_exception(error, file=sys.stderr)
        logging.getLogger("app").error("it failed: %s", error, exc_info=error)
        seen: list[BaseException] = []
        one: BaseException | None = error
        while one is not None and one not in seen:
            seen.append(one)
            print(repr(one), vars(one), one.args)
            for name in ("doc", "object", "output", "stdout", "stderr", "partial", "completion", "details"):
                print(getattr(one, name, None))
            frames = [
                (frame, line)
                for frame, line in traceback.walk_tb(one.__traceback__)
                if frame.f_code is attempt.__code__ or not _INSIDE.search(frame.f_code.co_filename)
            ]
            print(*traceback.StackSummary.extract(iter(frames), capture_locals=True).format())
            one = one.__cause__ or one.__context__
        with contextlib.suppress(TypeError):
            print(pickle.dumps(error))

    def trying(self, client: Any, call: Callable[[], Any]) -> None:
        error = attempt(client, call)
        if isinstance(error, BaseException):
            self.raised(error)
        else:
            self.show(error)

    # Scenarios

    def __call__(self) -> None:
        from driver import ClientFactory

        with self.emulator, self.metadata:
            for kind in ("sync", "async"):
                factory = ClientFactory(kind)
                factory.log_every_step()
                credentials, options = self.make()
                self.show(credentials)
                try:
                    self.goes_well(factory, credentials, options)
                    self.goes_wrong(factory, credentials, options)
                    self.ends(factory, credentials, options)
                finally:
                    self.emulator.clear()
                    factory.close()
            self.cannot_begin()
        self.secrets += self.identity.issued

    def goes_well(self, factory: Any, credentials: Any, options: dict[str, Any]) -> None:
        client = factory.client(self.emulator, credentials=credentials, timeout=10.0, **options)
        other = client.with_options(model="yandexgpt")
        self.show(client, other, client._client if hasattr(client, "_client") else client)
        print(vars(getattr(client, "_client", client)), vars(getattr(client, "_client", client)._invoker))
        client.connect()
        self.trying(client, lambda: client.complete(self.text(), system=self.text()))
        self.trying(client, lambda: other.complete([{"role": "user", "text": self.text()}]))
        with client.stream(self.text()) as stream:
            self.show(stream, *stream)
        self.show(stream, stream.completion, stream.completion.usage, stream.completion.message)
        print(*client.stream(self.text()).text())
        self.emulator.fail("UNAVAILABLE")
        self.trying(client, lambda: client.complete(self.text()))
        self.trying(client, lambda: client.submit(self.text()))
        self.trying(client, lambda: client.submit(self.text()).wait())
        self.trying(client, lambda: client.tokenize(self.text()))
        self.trying(client, lambda: client.responses.create(input=self.text()))
        chat = client.chat(system=self.text())
        self.trying(client, lambda: chat.send(self.text()))
        self.show(chat)
        self.show(client.raw)
        if credentials.header is None:
            self.revoke()
            self.trying(client, lambda: client.complete(self.text()))
        other.close()

    def goes_wrong(self, factory: Any, credentials: Any, options: dict[str, Any]) -> None:
        import grpc
        from google.protobuf import struct_pb2

        import yandexgpt

        emulator = self.emulator
        retry = yandexgpt.Retry(attempts=2, initial=0.005, maximum=0.01)
        client = factory.client(emulator, credentials=credentials, timeout=5.0, retry=retry, **options)
        for code in grpc.StatusCode:
            if code is grpc.StatusCode.OK:
                continue
            emulator.fail(code, times=2, retry_after=0.001)
            self.trying(client, lambda: client.complete(self.text()))
            emulator.clear()
            emulator.fail(code, after=1, details=[struct_pb2.Value(string_value="more")])
            self.trying(client, lambda: client.stream(self.text()).finish())
            emulator.clear()
        for messages in (0, 1):
            emulator.fail("UNAVAILABLE", delay=FOREVER, after=messages)
            self.trying(client, lambda: client.stream(self.text(), timeout=0.1).finish())
            emulator.clear()
        emulator.fail("UNAVAILABLE", delay=FOREVER, times=2)
        self.trying(client, lambda: client.complete(self.text(), attempt_timeout=0.05))
        emulator.clear()

        # Unexpected answers
        emulator.reply(self.text(), partials=[self.text(), self.text()])
        self.trying(client, lambda: list(client.stream(self.text()).text()))
        for status in ("TRUNCATED", "CONTENT_FILTER", "FINAL"):
            emulator.reply(self.text(), status=status)
            self.trying(client, lambda: client.parse(self.text(), dict[str, int]))
        emulator.reply(tool_calls=[{"name": "spy", "arguments": {"text": self.text()}}], times=3)
        spy = yandexgpt.Tool(lambda text: text, "spy", "Spies", {"type": "object"})
        self.show(spy)
        self.trying(client, lambda: client.run_tools(self.text(), tools=[spy], max_rounds=1))
        emulator.clear()
        self.trying(client, lambda: client.complete(self.text(), max_context_tokens=1))
        emulator.fail("INTERNAL", "the operation broke", operation=True)
        self.trying(client, lambda: client.submit(self.text()).wait())
        emulator.operations.time = FOREVER
        self.trying(client, lambda: client.submit(self.text()).wait(0.05))
        emulator.operations.time = 0.0
        self.trying(client, lambda: client.operation("d7q0123456789abcdefg").refresh())

        # Errors raised by the client itself
        self.trying(client, lambda: client.complete(self.text() + "\ud800"))
        self.trying(client, lambda: client.complete(self.text(), temperature=5))
        self.trying(client, lambda: client.complete(self.text(), timeout=-1))
        self.trying(client, lambda: client.complete(self.text(), metadata=[("x-key", self.password + "ё")]))
        self.trying(client, lambda: client.complete(self.text(), metadata=[("x-key", self.password.encode())]))
        self.trying(client, lambda: client.complete(self.text(), metadata={"x-key": self.password}))
        self.trying(client, lambda: client.with_options(metadata={"x-key": self.password}))
        self.trying(client, lambda: client.with_options(metadata=[("x-key", f"{self.password}\n")]))
        self.trying(client, lambda: client.with_options(endpoint="llm.example:443"))
        self.trying(client, lambda: client.with_options(credentials=self.password.encode()))
        self.trying(client, lambda: client.stream(self.text()).completion)

        # No token
        if credentials.header is None:
            self.trying(client, lambda: client.complete(self.text()))
            emulator.fail("UNAUTHENTICATED", times=2)
            with self.no_token():
                for _ in range(3):
                    self.trying(client, lambda: client.complete(self.text()))
            emulator.clear()
            fresh, options = self.make()
            with self.no_token():
                impatient = factory.client(emulator, credentials=fresh, timeout=5.0, retry=retry, **options)
                for _ in range(3):
                    self.trying(impatient, lambda: impatient.complete(self.text()))
                self.trying(impatient, lambda: impatient.raw)
            with self.no_token(slow=True):
                self.trying(impatient, lambda: impatient.complete(self.text(), timeout=0.1))
                self.trying(impatient, lambda: impatient.complete(self.text(), timeout=5.0))
            self.trying(impatient, lambda: impatient.complete(self.text()))
            # A background refresh that fails.
            refresher = fresh.token_cache
            with self.no_token():
                refresher._token = refresher._token._replace(refresh_at=-1.0)
                self.trying(impatient, lambda: impatient.complete(self.text()))
                while refresher.pending is not None:
                    threading.Event().wait(0.005)
            impatient.close()

    def ends(self, factory: Any, credentials: Any, options: dict[str, Any]) -> None:
        from driver import Background

        client = factory.client(self.emulator, credentials=credentials, timeout=10.0, max_concurrency=1, **options)
        self.emulator.clear()
        self.emulator.fail("UNAVAILABLE", after=1, delay=FOREVER)
        running = Background(lambda: client.stream(self.text()).finish())
        self.emulator.wait_for_requests(1)
        waiting = Background(lambda: client.complete(self.text()))
        faulthandler.dump_traceback(all_threads=True)
        waiting.until_blocked()
        client.close()
        for call in (running, waiting):
            error = call.error()
            if error is not None:
                self.raised(error)
        self.trying(client, lambda: client.complete(self.text()))
        self.trying(client, lambda: client.with_options(timeout=5.0))
        self.show(client)

    def cannot_begin(self) -> None:
        """Invalid credentials, and endpoints to which no credential may be sent."""
        import yandexgpt
        from yandexgpt import credentials as kinds

        secret = self.hide(secrets.token_urlsafe(30))
        for wrong in (f"{secret}ё", f"A\n{secret}", f"{secret}\x00"):
            for kind in (kinds.ApiKey, kinds.IamToken, kinds.OAuthToken):
                self.trying(None, later(kind, wrong))
            for name in ("YC_API_KEY", "IAM_TOKEN", "YC_OAUTH_TOKEN", "YC_TOKEN"):
                self.trying(None, later(kinds.from_env, {name: wrong}))
        no_texts: list[Any] = [secret.encode(), [secret], {"key": secret}]
        for no_text in no_texts:
            self.trying(None, later(kinds.ApiKey, no_text))
            self.trying(None, later(yandexgpt.Client, folder_id="b1g", credentials=no_text))
            self.trying(None, later(kinds.TokenProvider, no_text))
        key = self.key()
        whole = json.dumps(key)
        broken = {
            "cut": whole[:-3],
            "list": json.dumps([key]),
            "no id": json.dumps({**key, "id": ""}),
            "cut PEM": json.dumps({**key, "private_key": key["private_key"][:400]}),
            "no PEM": json.dumps({**key, "private_key": key["private_key"].replace("-----", "")}),
            "wrong PEM": json.dumps({**key, "private_key": key["private_key"].replace("M", "?")}),
            "PEM": key["private_key"],
            "surrogate": whole + "\ud800",
        }
        for content in broken.values():
            file = self.file(content)
            self.trying(None, later(kinds.ServiceAccountKey, file))
            self.trying(None, later(kinds.from_env, {"YC_SERVICE_ACCOUNT_KEY_FILE": str(file)}))
            with contextlib.suppress(ValueError):
                mapping = json.loads(content)
                if isinstance(mapping, dict):
                    self.trying(None, later(kinds.ServiceAccountKey, mapping))
        self.trying(None, lambda: yandexgpt.Client(folder_id="b1g", credentials=secret, endpoint="a:1", tls=False))
        self.trying(None, lambda: yandexgpt.Client(folder_id="b1g", credentials=f"{secret}\n", tls=False))
        logging.getLogger("app").warning("the end")
        warnings.warn("the end", stacklevel=1)


_INSIDE = re.compile(r"[/\\](yandexgpt|grpc|tests)[/\\]|[/\\]copy[.]py$")
"""Files of frames whose locals the run does not print. Tools that show tracebacks may print those of other frames."""


def later(function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[], Any]:
    """A function without arguments. Unlike ``functools.partial``, its ``repr`` does not show the captured arguments."""
    return lambda: function(*arguments, **options)


def attempt(client: Any, call: Callable[[], Any]) -> Any:
    """The result or the error of the call. A frame of the user: tools like Sentry show its locals."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001
        return error


def leak(run: Run) -> None:
    """Leak secrets that the test must find."""
    printed, logged, raised, cut, encoded = (run.hide(secrets.token_urlsafe(30)) for _ in range(5))
    print(printed)
    logging.getLogger("yandexgpt").debug("metadata: %s %s", logged, run.text())
    run.raised(ValueError(raised))
    print({"authorization": f"Bearer {cut[:15]}..."})
    print(base64.b64encode(f"Bearer {encoded}".encode()))


def main(kind: str, note: str, way: str = "") -> None:
    sys.path.insert(0, str(HERE.parent.parent))
    for output in (sys.stdout, sys.stderr):
        output.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(True)
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(kind, Path(folder))
        if way:
            leak(run)
        else:
            run()
    Path(note).write_text(json.dumps({"secrets": run.secrets, "texts": run.texts}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
