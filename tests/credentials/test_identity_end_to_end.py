"""All credentials with refreshed tokens, over sockets: IAM, a metadata service, the yc tool, and real time."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import logging
import shlex
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from driver import (
    FAST,
    FOREVER,
    PATIENCE,
    Background,
    ClientFactory,
    Clock,
    calls_of,
    in_threads,
    output_of,
    program,
    run_loop,
    until,
    without_fork_messages,
)

import yandexgpt
from yandexgpt import Retry
from yandexgpt._concurrency.token_cache import TokenCache
from yandexgpt._proto.yandex.cloud.iam.v1 import iam_token_service_pb2, iam_token_service_pb2_grpc
from yandexgpt.credentials import (
    Credentials,
    ExpiringToken,
    MetadataService,
    OAuthToken,
    ServiceAccountKey,
    TokenProvider,
    YcCli,
)
from yandexgpt.emulator import Emulator, Identity, MetadataServer

SECRET = "t1.s3cr3t-that-nobody-may-see"


class Origin:
    """One kind of credentials and the source of its tokens."""

    def __init__(self, kind: str, emulator: Emulator, folder: Path) -> None:
        self.kind = kind
        self.identity = emulator.identity
        self._folder = folder
        self._metadata = MetadataServer(self.identity)
        self._fetches: list[None] = []
        self._held = folder / "held"
        exchange = self.identity.exchange

        def exchange_after_release(request: Any) -> Any:
            self._until_released()
            return exchange(request)

        self.identity.exchange = exchange_after_release  # type: ignore[method-assign]
        self.credentials: Credentials = getattr(self, kind)()

    @property
    def fetched(self) -> int:
        """Number of token requests."""
        if self.kind == "metadata":
            return self._metadata.requests
        if self.kind == "yc":
            return len((self._folder / "asked").read_text())
        return len(self._fetches) if self.kind in ("function", "coroutine") else self.identity.exchanges

    def take(self, seconds: float) -> None:
        """Delay each following token by this time."""
        self.identity.delay = self._metadata.delay = seconds
        (self._folder / "delay").write_text(str(seconds))

    def hold(self) -> None:
        """Send no token before :meth:`release`."""
        self._held.touch()

    def release(self) -> None:
        self._held.unlink(missing_ok=True)

    def _until_released(self) -> None:
        until(lambda: not self._held.exists())

    def close(self) -> None:
        self.release()
        self._metadata.close()

    def key_mapping(self) -> Credentials:
        return ServiceAccountKey(self.identity.service_account_key())

    def key_file(self) -> Credentials:
        key = self.identity.service_account_key()
        assert key["private_key"].startswith("PLEASE DO NOT REMOVE THIS LINE!")
        file = self._folder / "key.json"
        file.write_text(json.dumps(key), encoding="utf-8")
        return ServiceAccountKey(file)

    def oauth(self) -> Credentials:
        return OAuthToken(self.identity.oauth_token())

    def metadata(self) -> Credentials:
        return MetadataService(self._metadata.endpoint)

    def yc(self) -> Credentials:
        """A tool that prints the next token of a list in each run."""
        (self._folder / "asked").write_text("")
        (self._folder / "delay").write_text("0")
        (self._folder / "tokens").write_text("\n".join(self.identity.issue() for _ in range(20)))
        tool = self._folder / "yc"
        tool.write_text(
            f"#!/bin/sh\ncd {shlex.quote(str(self._folder))}\nprintf x >> asked\nsleep $(cat delay)\n"
            "while [ -e held ]; do sleep 0.02; done\n"
            "head -n $(wc -c < asked) tokens | tail -n 1\n"
        )
        tool.chmod(0o755)
        return YcCli(str(tool))

    def function(self) -> Credentials:
        def provide() -> ExpiringToken:
            self._fetches.append(None)
            threading.Event().wait(self.identity.delay)
            self._until_released()
            return ExpiringToken(self.identity.issue(), lifetime=self.identity.token_lifetime)

        return TokenProvider(provide)

    def coroutine(self) -> Credentials:
        async def provide() -> ExpiringToken:
            self._fetches.append(None)
            await asyncio.sleep(self.identity.delay)
            await asyncio.to_thread(self._until_released)
            return ExpiringToken(self.identity.issue(), lifetime=self.identity.token_lifetime)

        return TokenProvider(provide)


some = pytest.mark.parametrize("origin", ["oauth", "yc", "coroutine"], indirect=True)
"""For tests in which the kinds differ only in how they wait."""
KINDS = ("key_mapping", "key_file", "oauth", "metadata", "yc", "function", "coroutine")


@pytest.fixture(params=KINDS)
def origin(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Iterator[Origin]:
    made = Origin(request.param, emulator, tmp_path)
    yield made
    made.close()


@pytest.fixture
def oauth(emulator: Emulator) -> OAuthToken:
    return OAuthToken(emulator.identity.oauth_token())


class Iam:
    """The IAM service of an emulator on a separate port."""

    def __init__(self, identity: Identity) -> None:
        self._workers = futures.ThreadPoolExecutor(32)
        self._server = grpc.server(self._workers, options=[("grpc.so_reuseport", 0)])
        identity.register(self._server)
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()
        self._workers.shutdown()


@pytest.fixture
def iam(emulator: Emulator) -> Iterator[Iam]:
    made = Iam(emulator.identity)
    yield made
    made.close()


def refreshing(credentials: Credentials) -> bool:
    return credentials.token_cache.pending is not None


def tokens_of(emulator: Emulator) -> list[str]:
    """The distinct tokens that arrived, in order."""
    sent = [str(request.metadata["authorization"]) for request in emulator.requests]
    assert all(header.startswith("Bearer ") for header in sent)
    return [header.removeprefix("Bearer ") for header in dict.fromkeys(sent)]


def outcomes(emulator: Emulator) -> list[str]:
    """The outcomes of the calls in order of arrival."""
    return [request.wait() for request in emulator.requests]


# Fetch and refresh


def test_concurrent_and_later_calls_share_one_exchange(
    factory: ClientFactory, emulator: Emulator, origin: Origin
) -> None:
    origin.take(0.2)
    client = factory.client(emulator, credentials=origin.credentials)
    answers = in_threads(20, lambda number: client.complete(f"вызов {number}").text)
    assert answers == [f"вызов {number}" for number in range(20)]
    for number in range(10):
        with client.stream(f"ещё {number}") as stream:
            assert stream.finish().text == f"ещё {number}"
    assert origin.fetched == 1
    [token] = tokens_of(emulator)
    assert emulator.identity.is_valid(token)
    assert outcomes(emulator) == ["OK"] * 30
    assert {request.metadata["x-client-attempt"] for request in emulator.requests} == {"1"}


@some
def test_sync_and_async_clients_with_the_same_credentials_share_a_token(emulator: Emulator, origin: Origin) -> None:
    origin.take(0.2)
    sync, asynchronous = ClientFactory("sync"), ClientFactory("async")
    try:
        clients = [each.client(emulator, credentials=origin.credentials) for each in (sync, asynchronous)]
        in_threads(8, lambda number: clients[number % 2].complete("Привет"))
        assert origin.fetched == 1
        assert len(tokens_of(emulator)) == 1
    finally:
        sync.close()
        asynchronous.close()


def test_tokens_are_refreshed_before_they_expire_without_blocking_calls(
    factory: ClientFactory, emulator: Emulator, tmp_path: Path
) -> None:
    identity = emulator.identity
    identity.token_lifetime = 1000.0
    origins = [Origin(kind, emulator, tmp_path) for kind in KINDS if kind != "yc"]  # its tokens have no known lifetime

    def call(number: int) -> list[str]:
        clock = Clock()
        origins[number].credentials.token_cache = TokenCache(
            clock, rng=lambda: 1.0
        )  # the earliest refresh: after 700 s
        used: list[str] = []
        client = factory.client(
            emulator, credentials=origins[number].credentials, retry=Retry.none(), metadata=[("x-number", str(number))]
        )
        end = time.monotonic() + PATIENCE
        while len(set(used)) < 2:
            assert time.monotonic() < end
            if used:
                clock.now = 1690.0 if len(used) < 3 else 1990.0  # 10 s before the refresh, and 10 s before expiry
            assert client.complete("раз два").text == "раз два"
            used += [
                str(each.metadata["authorization"])
                for each in reversed(emulator.requests)
                if each.metadata["x-number"] == str(number)
            ][:1]
            threading.Event().wait(0.02)
        return used

    try:
        for used in in_threads(len(origins), call):
            assert len(used) > 4
            assert len(set(used[:4])) == 1, "the call that found a refresh due has waited for it"
    finally:
        for origin in origins:
            origin.close()
    assert identity.exchanges == 2 * 3


def test_token_without_a_known_lifetime_is_refreshed_after_it_is_rejected(
    factory: ClientFactory, emulator: Emulator
) -> None:
    tokens = [emulator.identity.issue(), emulator.identity.issue()]
    given = iter(tokens)
    client = factory.client(emulator, credentials=TokenProvider(lambda: next(given)), retry=Retry.none())
    assert client.complete("Привет").text == "Привет"
    emulator.identity._expiry[tokens[0]] = time.time()
    assert client.complete("Привет").text == "Привет"
    assert outcomes(emulator) == ["OK", "UNAUTHENTICATED", "OK"]


def test_token_that_expired_between_calls_is_not_sent(factory: ClientFactory, emulator: Emulator, oauth: Any) -> None:
    emulator.identity.token_lifetime = 100.0
    clock = Clock()
    oauth.token_cache = TokenCache(clock)
    client = factory.client(emulator, credentials=oauth, retry=Retry.none())
    client.complete("Привет")
    clock.now += 100.1
    assert client.complete("Привет").text == "Привет"
    assert outcomes(emulator) == ["OK", "OK"]
    assert tokens_of(emulator) == emulator.identity.issued
    assert emulator.identity.exchanges == 2


# Rejected tokens


def test_revoked_token_is_refreshed_once_for_all_calls(
    factory: ClientFactory, emulator: Emulator, origin: Origin
) -> None:
    client = factory.client(emulator, credentials=origin.credentials, retry=Retry.none())
    client.complete("Привет")
    [token] = tokens_of(emulator)
    emulator.identity.revoke(token)
    emulator.clear()
    completion = client.complete("раз")
    assert completion.text == "раз"
    rejected, accepted = emulator.requests
    assert outcomes(emulator) == ["UNAUTHENTICATED", "OK"]
    assert [each.metadata["x-client-attempt"] for each in (rejected, accepted)] == ["1", "2"]
    assert {each.metadata["x-client-request-id"] for each in (rejected, accepted)} == {completion.request_id}
    assert origin.fetched == 2

    emulator.identity.revoke(tokens_of(emulator)[1])
    emulator.clear()
    origin.take(0.1)
    answers = in_threads(10, lambda number: client.stream(f"вызов {number}").finish().text)
    assert answers == [f"вызов {number}" for number in range(10)]
    assert origin.fetched == 3
    assert len(tokens_of(emulator)) == 2


def test_token_rejected_again_after_a_refresh_is_an_error(
    factory: ClientFactory, emulator: Emulator, origin: Origin
) -> None:
    client = factory.client(emulator, credentials=origin.credentials)
    emulator.fail("UNAUTHENTICATED", "the account was deleted", times=2)
    with pytest.raises(yandexgpt.AuthenticationError, match="the account was deleted") as caught:
        client.complete("Привет")
    error = caught.value
    assert (error.attempts, error.endpoint) == (2, emulator.endpoint)
    assert {request.metadata["x-client-request-id"] for request in emulator.requests} == {error.request_id}
    assert len(tokens_of(emulator)) == len(emulator.requests) == origin.fetched == 2
    assert all(token not in str(error) for token in tokens_of(emulator))
    assert client.complete("Привет").text == "Привет"


def test_revoked_token_without_a_replacement_is_an_error(
    factory: ClientFactory, emulator: Emulator, iam: Iam, oauth: OAuthToken
) -> None:
    client = factory.client(emulator, credentials=oauth, iam_endpoint=iam.endpoint)
    client.complete("Привет")
    emulator.identity.revoke(emulator.identity.issued[0])
    emulator.identity.fail("UNAUTHENTICATED", times=1, message="the OAuth token was revoked")
    with pytest.raises(yandexgpt.AuthenticationError, match="the OAuth token was revoked") as caught:
        client.complete("раз")
    assert (caught.value.attempts, caught.value.endpoint) == (1, iam.endpoint)
    assert emulator.identity.exchanges == 2
    assert client.complete("Привет").text == "Привет"


# Failures of the identity service


def test_failed_refresh_is_logged_and_calls_use_the_old_token_until_it_expires(
    factory: ClientFactory, emulator: Emulator, iam: Iam, oauth: OAuthToken, caplog: pytest.LogCaptureFixture
) -> None:
    identity = emulator.identity
    identity.token_lifetime = 1000.0
    clock = Clock()
    oauth.token_cache = TokenCache(clock, rng=lambda: 1.0)
    client = factory.client(emulator, credentials=oauth, iam_endpoint=iam.endpoint, retry=Retry.none())
    client.complete("Привет")
    identity.fail("PERMISSION_DENIED", times=100_000, message="the account is blocked")
    for moment in range(690, 990, 3):  # seconds since the start; the refresh is due after 700 s
        clock.now = 1000.0 + moment
        client.complete("Привет")
        until(lambda: oauth.token_cache.pending is None)
    assert outcomes(emulator) == ["OK"] * 101
    until(lambda: len(caplog.records) == identity.exchanges - 1)
    assert 30 <= len(caplog.records) <= 40  # one per 8 s, more often near expiry
    for record in caplog.records:
        assert (record.name, record.levelno) == ("yandexgpt", logging.WARNING)
        assert "the token could not be refreshed; the old one is used while it lives: PERMISSION_DENIED" in (
            record.getMessage()
        )
        assert f"from {iam.endpoint}: no IAM token could be got: the account is blocked" in record.getMessage()

    # After expiry:
    clock.now = 1000.0 + 1000.1
    emulator.clear()
    before = identity.exchanges
    with pytest.raises(yandexgpt.PermissionDeniedError) as caught:
        client.complete("Привет")
    assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.advice == "check that the account and its key are active"
    assert caught.value.endpoint == iam.endpoint
    assert caught.value.attempts == 0
    assert caught.value.request_id
    assert f"from {iam.endpoint}: no IAM token could be got: the account is blocked" in str(caught.value)
    assert emulator.requests == []
    assert identity.exchanges - before <= 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("UNAUTHENTICATED", yandexgpt.AuthenticationError),
        ("PERMISSION_DENIED", yandexgpt.PermissionDeniedError),
        ("INVALID_ARGUMENT", yandexgpt.InvalidArgumentError),
        ("UNIMPLEMENTED", yandexgpt.UnimplementedError),
        ("NOT_FOUND", yandexgpt.NotFoundError),
        ("INTERNAL", yandexgpt.InternalServerError),
        ("UNKNOWN", yandexgpt.APIError),
    ],
)
def test_error_of_a_failed_exchange_gives_the_reason(
    factory: ClientFactory, emulator: Emulator, iam: Iam, oauth: OAuthToken, code: str, kind: type[yandexgpt.APIError]
) -> None:
    client = factory.client(emulator, credentials=oauth, iam_endpoint=iam.endpoint)
    for call in (client.complete, lambda prompt: client.stream(prompt).finish()):
        emulator.identity.fail(code, message="слова службы IAM")
        with pytest.raises(kind) as caught:
            call("Привет")
        assert type(caught.value) is kind
        assert str(caught.value).startswith(
            f"{code} from {iam.endpoint}: no IAM token could be got: слова службы IAM ("
        )
        assert isinstance(caught.value.__cause__, yandexgpt.APIError)
        assert isinstance(caught.value.__cause__.__cause__, grpc.RpcError)
    assert emulator.identity.exchanges == 2
    assert emulator.requests == []


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"])
def test_transient_failure_of_the_identity_service_is_retried(
    factory: ClientFactory, emulator: Emulator, oauth: OAuthToken, code: str
) -> None:
    client = factory.client(emulator, credentials=oauth, retry=Retry(attempts=3, initial=0.01, maximum=0.02))
    emulator.identity.fail(code, times=2)
    assert client.complete("Привет").text == "Привет"
    assert emulator.identity.exchanges == 3
    assert [request.metadata["x-client-attempt"] for request in emulator.requests] == ["1"]


def test_permanent_failure_of_the_identity_service_is_retried_up_to_the_limit(
    factory: ClientFactory, emulator: Emulator, iam: Iam, oauth: OAuthToken
) -> None:
    client = factory.client(
        emulator, credentials=oauth, iam_endpoint=iam.endpoint, retry=Retry(attempts=3, initial=0.01, maximum=0.02)
    )
    emulator.identity.fail("UNAVAILABLE", times=1000, message="out of order")
    with pytest.raises(yandexgpt.UnavailableError, match="no IAM token could be got: out of order") as caught:
        client.complete("Привет")
    assert caught.value.endpoint == iam.endpoint
    assert emulator.identity.exchanges == 3


def test_waiting_calls_share_a_failed_exchange_and_its_retry(
    factory: ClientFactory, emulator: Emulator, oauth: OAuthToken
) -> None:
    client = factory.client(emulator, credentials=oauth, retry=FAST)
    emulator.identity.delay = 0.2
    emulator.identity.fail("UNAVAILABLE", times=1)
    assert in_threads(20, lambda number: client.complete(f"{number}").text) == [str(number) for number in range(20)]
    assert emulator.identity.exchanges == 2


def test_unreachable_identity_service_is_unavailable(
    factory: ClientFactory, emulator: Emulator, oauth: OAuthToken
) -> None:
    with socket.socket() as taken:  # reserves a port on which nothing listens
        taken.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        client = factory.client(emulator, credentials=oauth, iam_endpoint=endpoint, retry=Retry.none())
        with pytest.raises(yandexgpt.UnavailableError, match=r"no IAM token could be got: .*refused") as caught:
            client.complete("Привет")
    assert caught.value.endpoint == endpoint


def test_metadata_service_timeout_is_retried(factory: ClientFactory, emulator: Emulator) -> None:
    with MetadataServer(emulator.identity) as metadata:
        metadata.delay = FOREVER
        credentials = MetadataService(metadata.endpoint, timeout=0.1)
        client = factory.client(emulator, credentials=credentials)
        with pytest.raises(yandexgpt.UnavailableError, match=r"metadata service at .* did not answer: timed out"):
            client.complete("Привет")
        until(lambda: metadata.requests == 4)
        metadata.delay = 0.0
        credentials._timeout = PATIENCE
        assert client.complete("Привет").text == "Привет"


# The deadline, cancellation, close


@some
def test_slow_exchange_ends_at_the_deadline(factory: ClientFactory, emulator: Emulator, origin: Origin) -> None:
    origin.hold()
    client = factory.client(emulator, credentials=origin.credentials)
    began = time.monotonic()
    with pytest.raises(
        yandexgpt.DeadlineExceededError, match="the deadline passed while waiting for a token"
    ) as caught:
        client.complete("Привет", timeout=0.2)
    assert 0.19 <= time.monotonic() - began < PATIENCE
    assert caught.value.attempts == 0
    assert emulator.requests == []


def test_slow_refresh_of_a_rejected_token_ends_at_the_deadline(
    factory: ClientFactory, emulator: Emulator, oauth: OAuthToken
) -> None:
    client = factory.client(emulator, credentials=oauth)
    client.complete("Привет")
    emulator.identity.revoke(emulator.identity.issued[0])
    emulator.identity.delay = FOREVER
    began = time.monotonic()
    with pytest.raises(yandexgpt.DeadlineExceededError, match="while waiting for a token") as caught:
        client.complete("Привет", timeout=2.0)
    assert 1.99 <= time.monotonic() - began < PATIENCE
    assert caught.value.attempts == 1


@some
def test_expired_deadline_of_one_call_does_not_cancel_the_exchange(
    factory: ClientFactory, emulator: Emulator, origin: Origin
) -> None:
    origin.hold()
    client = factory.client(emulator, credentials=origin.credentials)
    short = Background(client.complete, "раз", timeout=0.1)
    long = Background(client.complete, "два")
    assert isinstance(short.error(), yandexgpt.DeadlineExceededError)
    origin.release()
    assert long.result().text == "два"
    assert origin.fetched == 1
    assert client.complete("три").text == "три"
    assert origin.fetched == 1


def test_loop_that_ends_during_an_exchange_logs_nothing(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def provide() -> str:
        release.wait(PATIENCE)
        return emulator.identity.issue()

    credentials = TokenProvider(provide)

    async def main() -> None:
        client = emulator.async_client(credentials=credentials)
        with pytest.raises(yandexgpt.DeadlineExceededError):
            await client.complete("Привет", timeout=0.1)
        await client.close()

    run_loop(main)
    pending = credentials.token_cache.pending
    assert pending is not None
    release.set()
    pending.result(PATIENCE)
    until(lambda: credentials.token_cache.pending is None)
    until(lambda: not any(thread.name == "yandexgpt-token" for thread in threading.enumerate()))
    assert [record.getMessage() for record in caplog.records if record.name != "yandexgpt"] == []


@pytest.mark.parametrize("origin", ["oauth"], indirect=True)
def test_cancelled_tasks_do_not_cancel_the_exchange(emulator: Emulator, origin: Origin) -> None:
    async def main() -> None:
        origin.hold()
        async with emulator.async_client(credentials=origin.credentials) as client:
            tasks = [asyncio.create_task(client.complete(f"{number}")) for number in range(10)]
            await asyncio.to_thread(until, lambda: refreshing(origin.credentials))
            for task in tasks[::2]:
                task.cancel()
            await asyncio.wait(tasks[::2])
            origin.release()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
            assert [result.text for result in results[1::2]] == ["1", "3", "5", "7", "9"]  # type: ignore[union-attr]
        assert emulator.identity.exchanges == 1

    run_loop(main)


def test_two_concurrent_loops_share_one_exchange(emulator: Emulator, oauth: OAuthToken) -> None:
    emulator.identity.delay = 0.3
    client = emulator.async_client(credentials=oauth)

    async def main() -> list[str]:
        return [each.text for each in await asyncio.gather(*(client.complete(f"{number}") for number in range(5)))]

    assert in_threads(2, lambda _: run_loop(main)) == [["0", "1", "2", "3", "4"]] * 2
    assert emulator.identity.exchanges == 1
    assert len(emulator.requests) == 10
    run_loop(client.close)


@some
def test_close_cancels_calls_that_wait_for_a_token(factory: ClientFactory, emulator: Emulator, origin: Origin) -> None:
    origin.hold()
    client = factory.client(emulator, credentials=origin.credentials)
    calls = [
        Background(client.complete, "раз", timeout=None),
        Background(lambda: client.stream("два", timeout=None).finish()),
    ]
    until(lambda: len(calls_of(client)) == 2 and refreshing(origin.credentials))
    client.close()
    for call in calls:
        error = call.error()
        assert isinstance(error, yandexgpt.CancelledError)
        assert "closed during the call" in str(error)
    assert emulator.requests == []
    # Another client with these credentials gets the token of the running exchange.
    origin.release()
    other = factory.client(emulator, credentials=origin.credentials)
    assert other.complete("три", timeout=20.0).text == "три"
    assert origin.fetched == 1


CLOSED_STUBS = """
import asyncio, sys, threading
import yandexgpt
from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt.credentials import OAuthToken

credentials = OAuthToken(sys.argv[2])
request = text_generation_service_pb2.TokenizeRequest(model_uri="gpt://emulator/yandexgpt", text="раз")
options = dict(credentials=credentials, timeout=None)
if sys.argv[1] == "sync":
    client = yandexgpt.Client(**options)
    def close():
        while credentials.token_cache.pending is None:
            threading.Event().wait(0.001)
        client.close()
    threading.Thread(target=close).start()
    try:
        client.raw.tokenizer.Tokenize(request)
    except yandexgpt.YandexGPTError:
        print("well")
else:
    async def main():
        client = yandexgpt.AsyncClient(**options)
        async def call():
            return await client.raw.tokenizer.Tokenize(request)
        task = asyncio.create_task(call())
        while credentials.token_cache.pending is None:
            await asyncio.sleep(0.001)
        await client.close()
        try:
            await task
        except (yandexgpt.YandexGPTError, asyncio.CancelledError):
            print("well")
    asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_close_cancels_stub_calls_that_wait_for_a_token(emulator: Emulator, kind: str) -> None:
    emulator.identity.delay = FOREVER
    process = program(CLOSED_STUBS, emulator, kind, emulator.identity.oauth_token())
    code, out, err = output_of(process)
    assert (code, out, err) == (0, "well\n", "")


CLOSED_JUST_NOW = """
import yandexgpt
from yandexgpt._rpc.call import Call

attempt = Call.attempt

def closed_before_it(call, authorization):
    client.close()  # as another thread may do at this moment
    return attempt(call, authorization)

Call.attempt = closed_before_it
client = yandexgpt.Client()
try:
    client.complete("раз")
except yandexgpt.CancelledError:
    print("well")
"""


def test_close_just_before_an_attempt_cancels_the_call(emulator: Emulator) -> None:
    code, out, err = output_of(program(CLOSED_JUST_NOW, emulator))
    assert (code, out, err) == (0, "well\n", "")


def tokenize_by_stub(factory: ClientFactory, raw: Any, timeout: float | None = None) -> Any:
    from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2

    request = text_generation_service_pb2.TokenizeRequest(model_uri="gpt://emulator/yandexgpt", text="раз")
    return factory.result_of(lambda: raw.tokenizer.Tokenize(request, timeout=timeout))


def test_stubs_send_a_token(factory: ClientFactory, emulator: Emulator, origin: Origin) -> None:
    client = factory.client(emulator, credentials=origin.credentials)
    assert len(tokenize_by_stub(factory, client.raw).tokens) == 1
    assert client.complete("Привет").text == "Привет"
    assert len(tokens_of(emulator)) == origin.fetched == 1


def test_stub_call_waits_for_a_token_until_its_timeout(factory: ClientFactory, emulator: Emulator) -> None:
    go = threading.Event()

    def provide() -> str:
        go.wait(PATIENCE)
        return emulator.identity.issue()

    raw = factory.client(emulator, credentials=TokenProvider(provide), timeout=None).raw
    try:
        with pytest.raises(yandexgpt.DeadlineExceededError, match="while waiting for a token"):
            tokenize_by_stub(factory, raw, timeout=0.2)
    finally:
        go.set()
    assert emulator.requests == []
    assert len(tokenize_by_stub(factory, raw, timeout=5.0).tokens) == 1
    assert 0.0 < (emulator.requests[0].deadline or 0.0) < 5.1  # gRPC rounds timeouts up


def test_stubs_raise_the_reason_of_a_failed_exchange(
    factory: ClientFactory, emulator: Emulator, oauth: OAuthToken
) -> None:
    client = factory.client(emulator, credentials=oauth)
    emulator.identity.fail("PERMISSION_DENIED", message="the account is blocked")
    with pytest.raises(yandexgpt.PermissionDeniedError, match="the account is blocked"):
        tokenize_by_stub(factory, client.raw)
    assert emulator.requests == []


# Forks and exits

FORK = """
import asyncio, os, signal, sys, threading
import yandexgpt
from yandexgpt.credentials import MetadataService, OAuthToken

credentials = (MetadataService if ":" in sys.argv[2] else OAuthToken)(sys.argv[2])
signal.alarm(40)
if sys.argv[1] == "sync":
    client = yandexgpt.Client(credentials=credentials, timeout=10.0)
    def use():
        assert client.complete("раз два").text == "раз два"
else:
    client = yandexgpt.AsyncClient(credentials=credentials, timeout=10.0)
    async def main():
        assert (await client.complete("раз два")).text == "раз два"
    def use():
        asyncio.run(main())

def fork(in_child):
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(12)  # kills a child that hangs
    try:
        in_child()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)

def ended_well(pid):
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status
"""

AFTER_A_TOKEN = """
use()
for _ in range(5):
    pid = fork(use)
    use()
    ended_well(pid)
print("well")
"""

DURING_A_REFRESH = """
for _ in range(2):
    while credentials.token_cache.pending is None:  # a background refresh, for which no call waits
        use()
    pid = fork(use)
    use()
    ended_well(pid)
    while credentials.token_cache.pending is not None:
        threading.Event().wait(0.005)
print("well")
"""

FIRST_IN_THE_CHILD = """
for _ in range(3):
    ended_well(fork(use))
use()
ended_well(fork(use))
print("well")
"""

AT_THE_EXIT = """
while credentials.token_cache.pending is None:
    use()
print("well")
"""


def check_program(source: str, emulator: Emulator, kind: str, secret: str) -> None:
    code, out, err = output_of(program(FORK + source, emulator, kind, secret))
    # gRPC logs lines when a fork happens during a call.
    err = without_fork_messages(err)
    assert (code, out, err) == (0, "well\n", ""), err


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_forked_child_uses_the_token_of_the_parent(emulator: Emulator, kind: str) -> None:
    check_program(AFTER_A_TOKEN, emulator, kind, emulator.identity.oauth_token())
    assert emulator.identity.exchanges == 1
    assert len(tokens_of(emulator)) == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_forked_children_fetch_a_token_if_the_parent_has_none(emulator: Emulator, kind: str) -> None:
    check_program(FIRST_IN_THE_CHILD, emulator, kind, emulator.identity.oauth_token())
    assert emulator.identity.exchanges == 4


@pytest.mark.parametrize("source", ["oauth", pytest.param("metadata", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_fork_during_a_background_refresh(emulator: Emulator, kind: str, source: str) -> None:
    emulator.identity.token_lifetime = 2.0
    emulator.identity.delay = 0.4
    with MetadataServer(emulator.identity) as metadata:
        metadata.delay = 0.4
        secret = emulator.identity.oauth_token() if source == "oauth" else metadata.endpoint
        check_program(DURING_A_REFRESH, emulator, kind, secret)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_exchange_in_progress_does_not_delay_interpreter_exit(emulator: Emulator, kind: str) -> None:
    emulator.identity.token_lifetime = 2.0
    process = program(FORK + AT_THE_EXIT, emulator, kind, emulator.identity.oauth_token())
    emulator.wait_for_requests(1, PATIENCE)
    emulator.identity.delay = FOREVER  # the next exchange is in progress when the program ends
    code, out, err = output_of(process)
    assert (code, out, without_fork_messages(err)) == (0, "well\n", ""), err


# Responses of the identity service


class FakeIam(iam_token_service_pb2_grpc.IamTokenServiceServicer):
    """An IAM service with responses that the test sets."""

    def __init__(self) -> None:
        self.answers: list[iam_token_service_pb2.CreateIamTokenResponse] = []
        self.count = 0
        self._workers = futures.ThreadPoolExecutor(4)
        self._server = grpc.server(self._workers)
        iam_token_service_pb2_grpc.add_IamTokenServiceServicer_to_server(self, self._server)
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Create(self, request: Any, context: Any) -> Any:
        self.count += 1
        return self.answers[0]

    def close(self) -> None:
        self._server.stop(None).wait()
        self._workers.shutdown()


@pytest.fixture
def fake_iam() -> Iterator[FakeIam]:
    made = FakeIam()
    yield made
    made.close()


def test_response_without_an_expiry_is_a_token_without_a_known_lifetime(
    factory: ClientFactory, emulator: Emulator, fake_iam: FakeIam
) -> None:
    fake_iam.answers = [iam_token_service_pb2.CreateIamTokenResponse(iam_token=emulator.identity.issue())]
    client = factory.client(emulator, credentials=OAuthToken("y0_any"), iam_endpoint=fake_iam.endpoint)
    for _ in range(5):
        assert client.complete("Привет").text == "Привет"
    assert fake_iam.count == 1


BAD_TOKENS = pytest.mark.parametrize(
    "token", ["", f"t1.\n{SECRET}", f"t1.ё{SECRET}", f"{SECRET}\x00"], ids=["empty", "newline", "not ASCII", "NUL"]
)


def refused_token(call: Callable[[], Any]) -> None:
    """Check that the call raises an error about the token that does not contain the token."""
    with pytest.raises((yandexgpt.ConfigurationError, yandexgpt.APIError)) as caught:
        call()
    assert "token" in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in f"{caught.value!r} {vars(caught.value)}"


@BAD_TOKENS
def test_invalid_token_from_iam_is_rejected_and_not_in_the_error(
    factory: ClientFactory, emulator: Emulator, fake_iam: FakeIam, token: str
) -> None:
    answer = iam_token_service_pb2.CreateIamTokenResponse(iam_token=token)
    answer.expires_at.FromSeconds(int(time.time()) + 3600)
    fake_iam.answers = [answer]
    client = factory.client(emulator, credentials=OAuthToken("y0_any"), iam_endpoint=fake_iam.endpoint)
    refused_token(lambda: client.complete("Привет"))
    assert emulator.requests == []


class UserCredentials(Credentials):
    """Credentials defined by the user."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def fetch(self, exchange: Any) -> ExpiringToken:
        return ExpiringToken(self._token, lifetime=3600)


def test_user_defined_credentials(factory: ClientFactory, emulator: Emulator) -> None:
    client = factory.client(emulator, credentials=UserCredentials(emulator.identity.issue()))
    assert client.complete("Привет").text == "Привет"


@BAD_TOKENS
def test_invalid_token_of_user_defined_credentials_is_rejected_and_not_in_the_error(
    factory: ClientFactory, emulator: Emulator, token: str
) -> None:
    client = factory.client(emulator, credentials=UserCredentials(token))
    refused_token(lambda: client.complete("Привет"))
    assert emulator.requests == []


class TruncatedResponse(http.server.BaseHTTPRequestHandler):
    """A metadata service whose response ends in the middle of a token."""

    def do_GET(self) -> None:
        body = json.dumps({"access_token": SECRET}).encode()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def test_error_of_a_truncated_response_does_not_contain_the_token() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), TruncatedResponse) as server:
        server.timeout = PATIENCE
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        credentials = MetadataService(f"127.0.0.1:{server.server_address[1]}")
        with pytest.raises(yandexgpt.UnavailableError) as caught:
            credentials.fetch(lambda **_: ExpiringToken(""))
        thread.join()
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r} {vars(error)} {error.args}"
        error = error.__cause__ or error.__context__


# Concurrent access while a token is stored


def test_caller_gets_a_token_while_another_thread_stores_it() -> None:
    refresher = TokenCache()
    seen: list[Any] = []

    class ObservedToken(ExpiringToken):
        """A token that starts a call in another thread whenever its value is read."""

        def __getattribute__(self, name: str) -> Any:
            if name == "value":
                call = Background(refresher.header, lambda: ExpiringToken("t1.other", lifetime=60.0))
                with contextlib.suppress(futures.TimeoutError):
                    call.error(0.3)  # time to finish, or to reach the lock
                seen.append(call)
            return super().__getattribute__(name)

    header = refresher.header(lambda: ObservedToken("t1.abc", lifetime=60.0))
    assert isinstance(header, futures.Future)
    assert header.result(PATIENCE) == "Bearer t1.abc"
    for call in seen:
        found = call.result()
        assert (found if isinstance(found, str) else found.result(PATIENCE)).startswith("Bearer t1.")
