"""The emulator: a gRPC server and an HTTP one on loopback, their script and their record."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent import futures
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import grpc

from yandexgpt.emulator.arguments import check_count, check_seconds
from yandexgpt.emulator.certificates import TlsFiles
from yandexgpt.emulator.discovery import Discovery
from yandexgpt.emulator.identity import Identity
from yandexgpt.emulator.listening import address, check_free, connectable_host
from yandexgpt.emulator.operations import Operations
from yandexgpt.emulator.quota import Quota
from yandexgpt.emulator.record_replay.backend import make_backend
from yandexgpt.emulator.recording import RecordedRequest, Recorder
from yandexgpt.emulator.request_decoding import DecodeErrorInterceptor
from yandexgpt.emulator.script import Script
from yandexgpt.emulator.scripting import Scripting
from yandexgpt.emulator.service import Service
from yandexgpt.emulator.text_generation import TextGeneration
from yandexgpt.emulator.tokenizer import Tokenizer
from yandexgpt.emulator.validation import is_authorization

if TYPE_CHECKING:
    from typing_extensions import Self

    from yandexgpt import AsyncClient, Client
    from yandexgpt.emulator.http_api.server import HttpServer

__all__ = ["Emulator"]

_WORKERS = 2048
"""Calls served at once. A call holds a thread while it lasts, made when it is first needed; an Event holds it still."""
_GRACE = 0.5
"""Seconds for calls that only have their status left to send; without a grace, gRPC logs an error at every client."""
_PLACEHOLDER = "emulator"
"""The API key and the folder for a client of an emulator that accepts any."""
_HIGHEST_PORT = 65535


class Emulator(Scripting):
    """The text-generation service on a port of this machine. A context manager, asynchronous too; all thread-safe.

    **What it answers when nothing is scripted.** The text of the last user message, word by word: with
    ``stream=true`` a partial after each word (after every few, if they are more than a thousand), holding the whole
    text so far, then the final message. A word is a run of characters without white space, and counts as one token; the
    prompt's tokens are the words of all its texts. Where ``max_tokens`` is less than that, the first ``max_tokens``
    words come, with status ``TRUNCATED_FINAL``. Otherwise:

    - ``tool_choice`` demands a tool (``REQUIRED``: the first one; or a name), and the prompt does not end in tool
      results: one call of it, in one message with status ``TOOL_CALLS``, with arguments made for its JSON Schema, where
      a string says the name of its property (see :func:`yandexgpt.emulator.json_schema_example.example`);
    - ``json_schema``: a JSON value made for the schema in the same way; ``json_object``: ``{"answer": <the text>}``;
    - the prompt ends in tool results: their contents, one a line;
    - the system and user messages are those of an example in Yandex Cloud's guides: the answer, the token counts, the
      model version and, where it shows some, the partials printed there. Where the guide prints ``T`` tokens for an
      answer of ``W`` words, ``w`` words of it count ``T * w // W`` tokens, and are cut so.

    **What it refuses**, as the service does: a missing, malformed or unexpected ``authorization`` (UNAUTHENTICATED); a
    wrong model URI, a temperature outside [0, 1], ``max_tokens`` below 1, no messages, an unknown role, an empty
    message, a tool choice that names no tool (INVALID_ARGUMENT, with ``BadRequest`` details); more than its quota
    (RESOURCE_EXHAUSTED, with ``QuotaFailure`` and, for a rate, ``RetryInfo``). A refused call uses up none of the
    script. Every call gets ``x-request-id`` and ``x-server-trace-id``, in initial and in trailing metadata, and every
    error a ``RequestInfo``. Methods that are not emulated answer UNIMPLEMENTED and are not recorded.

    **Asynchronous mode.** An operation is pending for ``operation_time`` and the ``delay`` of its answer; then it is
    done, with the next scripted answer or the default one, or with what :meth:`fail` with ``operation=True`` says. A
    second submission with the same ``idempotency-key`` gets the first one's operation. One that is cancelled ends at
    once. See :attr:`operations` for ways to end or to forget one.

    **Tokens.** A text's tokens are its words, each with the white space before it. A prompt's are those of all its
    texts, and special ones at the beginning where a guide prints more: as many as its answer's usage counts.

    Args:
        host: the address to listen on: a name or an IP address.
        port: the port, 0 for a free one. After :meth:`stop`, :meth:`start` takes the same port again.
        http_port: the port of the REST and OpenAI faces, 0 for a free one, taken again like `port`; None: no such
            faces. They need the extra ``yandexgpt[emulator]``.
        tls: serve TLS, with a certificate made now for the host, localhost, 127.0.0.1, ::1 and the service's own hosts
            (for clients that call no others and are led here); needs the extra ``yandexgpt[emulator]``.
        authorization: the only ``authorization`` accepted, such as ``"Api-Key abc"``; None: any of the right form.
        max_concurrent_streams: calls that one connection may carry at once; None: gRPC's default.
        max_concurrent: generations that may run at once; None: any number.
        rate: generations that may start per second (a token bucket, one second deep); None: any number.
        delay: seconds before each message of an answer that is not scripted.
        operation_time: seconds that an operation takes, besides the delay of its answer; see also :attr:`operations`.
        upstream: ``host:port`` of a gRPC service that every call is forwarded to, in place of an answer of
            its own. With it come neither script nor checks, but for `authorization` and the quotas if given.
            That of the real service, ``llm.api.cloud.yandex.net:443``, stands for its other hosts too.
        upstream_tls: True (system roots), the path of a PEM bundle, or False for plaintext, on loopback only.
        record: a file that the forwarded calls are written to, see ``docs/recordings.md``; a recording that is there is
            gone on with.
        record_texts: False leaves only the outlines of texts in it.
        replay: a recording to answer from, with its timing. :meth:`fail` works, :meth:`reply` does not. Each
            :meth:`start` begins anew.
        match: ``"request"``: a call gets what was recorded for an equal request; if there are several, each in turn,
            and then the last again and again. ``"order"``: it gets the next recorded answer of its method, whatever
            it asks. A miss is FAILED_PRECONDITION, and says which recorded request comes nearest.
        options: further gRPC server arguments, such as
            ``[("grpc.http2.min_ping_interval_without_data_ms", 300_000)]`` for how strict it is about keepalive.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        http_port: int | None = None,
        tls: bool = False,
        authorization: str | None = None,
        max_concurrent_streams: int | None = None,
        max_concurrent: int | None = None,
        rate: float | None = None,
        delay: float = 0.0,
        operation_time: float = 0.0,
        upstream: str | None = None,
        upstream_tls: bool | str | os.PathLike[str] = True,
        record: str | os.PathLike[str] | None = None,
        record_texts: bool = True,
        replay: str | os.PathLike[str] | None = None,
        match: Literal["request", "order"] = "request",
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        for name, number in (("port", port), ("http_port", http_port or 0)):
            if check_count(name, number, least=0) > _HIGHEST_PORT:
                raise ValueError(f"{name} must be from 0 to {_HIGHEST_PORT}, not {number}")
        if authorization is not None and not is_authorization(authorization):
            raise ValueError("authorization must be 'Api-Key <key>' or 'Bearer <IAM token>'")
        self._options: list[tuple[str, Any]] = [("grpc.so_reuseport", 0), *options]
        if max_concurrent_streams is not None:
            limit = check_count("max_concurrent_streams", max_concurrent_streams)
            self._options.append(("grpc.max_concurrent_streams", limit))
        self._host = host
        self._port = port
        self._http_port = http_port
        self._serves_tls = bool(tls)
        self._authorization = authorization
        self._recorder = Recorder()
        self._backend = make_backend(
            upstream=upstream,
            upstream_tls=upstream_tls,
            record=record,
            record_texts=record_texts,
            replay=replay,
            match=match,
        )
        self._script = Script() if self._backend is None else self._backend.script
        self._quota = Quota(max_concurrent, rate)
        self.identity = Identity()
        """The identity service that this emulator plays: keys and tokens that it knows, and faults of its own."""
        self._service = service = Service(self._recorder, self._script, authorization, self.identity)
        delay = check_seconds("delay", delay)
        self._generation = TextGeneration(service, quota=self._quota, delay=delay)
        self.operations = Operations(service, time=check_seconds("operation_time", operation_time), delay=delay)
        """What was submitted in asynchronous mode: how long it takes, and ways to end or to forget it."""
        self._tokenizer = Tokenizer(service)
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self._workers: futures.ThreadPoolExecutor | None = None
        self._tls_files: TlsFiles | None = None
        self._http_server: HttpServer | None = None
        self._started = False

    def _handlers(self) -> list[grpc.GenericRpcHandler]:
        """The services of this server; another one is added here."""
        discovery = Discovery(lambda: address(connectable_host(self._host), self._port))
        if self._backend is not None:
            return [self._backend.handler(self._service, self._quota), discovery.handler()]
        return [
            self._generation.handler(),
            *self.operations.handlers(),
            self._tokenizer.handler(),
            discovery.handler(),
        ]

    # Life

    def start(self) -> Self:
        """Listen, and answer from another thread; does nothing if it does already.

        Returns:
            The emulator itself.

        Raises:
            OSError: the address cannot be listened on, such as a port in use.
            ImportError: TLS or an HTTP port was asked for without the extra ``yandexgpt[emulator]``.
        """
        with self._lock:
            if self._server is None:
                self._start()
        return self

    def _start(self) -> None:
        check_free(self._host, self._port)
        workers = futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="yandexgpt-emulator")
        server = grpc.server(
            workers, handlers=self._handlers(), interceptors=[DecodeErrorInterceptor()], options=self._options
        )
        try:
            if self._backend is None:
                self.identity.register(server)
            else:
                self._backend.start()
            listening = address(self._host, self._port)
            if self._serves_tls:
                self._tls_files = TlsFiles(self._host)
                self._port = server.add_secure_port(listening, self._tls_files.credentials())
            else:
                self._port = server.add_insecure_port(listening)
            server.start()
            if self._http_port is not None:
                self._start_http_server(self._http_port)
        except BaseException:
            self._release(server, workers)
            raise
        self._server, self._workers, self._started = server, workers, True

    def _start_http_server(self, port: int) -> None:
        try:
            from yandexgpt.emulator.http_api.server import HttpServer
        except ImportError as error:
            raise ImportError(f"http_port needs the package {error.name}: pip install 'yandexgpt[emulator]'") from error
        self._http_server = HttpServer(
            target=address(connectable_host(self._host), self._port),
            host=self._host,
            port=port,
            tls=self._tls_files,
            authorization=self._authorization,
        )
        self._http_server.start()
        self._http_port = self._http_server.port

    def stop(self) -> None:
        """Cancel what is in flight, stop listening, leave no thread and no file behind; once stopped, do nothing."""
        with self._lock:
            if self._server is not None and self._workers is not None:
                self._release(self._server, self._workers)
                self._server = self._workers = None

    def _release(self, server: grpc.Server, workers: futures.ThreadPoolExecutor) -> None:
        if self._http_server is not None:
            self._http_server.stop()
            self._http_server = None
        server.stop(None if self._quota.in_flight else _GRACE).wait()
        workers.shutdown()
        if self._backend is not None:
            self._backend.stop()
        if self._tls_files is not None:
            self._tls_files.close()
            self._tls_files = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    # How to reach it

    @property
    def endpoint(self) -> str:
        """``host:port`` for a client; it stays the same after :meth:`stop`.

        Raises:
            RuntimeError: it was never started, so there is no port yet.
        """
        self._check_started()
        return address(connectable_host(self._host), self._port)

    @property
    def http_url(self) -> str:
        """``http://host:port`` (``https`` with TLS) of the REST and OpenAI faces; it stays the same after :meth:`stop`.

        Raises:
            RuntimeError: it has none, or was never started.
        """
        if self._http_port is None:
            raise RuntimeError("the emulator has no HTTP port: use Emulator(http_port=0)")
        self._check_started()
        return f"{'https' if self._serves_tls else 'http'}://{address(connectable_host(self._host), self._http_port)}"

    def _check_started(self) -> None:
        if not self._started:
            raise RuntimeError("the emulator was not started: use `with Emulator() as emulator`, or start()")

    @property
    def tls(self) -> bool | str:
        """What a client takes as `tls`: False, or the path of the certificate authority's PEM file.

        Raises:
            RuntimeError: it serves TLS and does not run, so there is no such file.
        """
        if not self._serves_tls:
            return False
        if self._tls_files is None:
            raise RuntimeError("the emulator does not run: its certificate authority is made by start()")
        return str(self._tls_files.authority)

    def environment(self) -> dict[str, str]:
        """The environment variables that point a program at this emulator, credential and folder included.

        With an HTTP port also those that OpenAI's client reads, and with TLS the one that lets it trust the authority.
        """
        tls = self.tls
        scheme, _, secret = (self._authorization or f"Api-Key {_PLACEHOLDER}").partition(" ")
        variables = {
            "YANDEXGPT_ENDPOINT": self.endpoint,
            "YANDEXGPT_TLS": tls if isinstance(tls, str) else "false",
            "IAM_TOKEN" if scheme == "Bearer" else "API_KEY": secret,
            "FOLDER_ID": _PLACEHOLDER,
        }
        if self._http_port is not None:
            variables["OPENAI_BASE_URL"] = f"{self.http_url}/v1"
            variables["OPENAI_API_KEY"] = secret
            variables["OPENAI_PROJECT_ID"] = _PLACEHOLDER
            if isinstance(tls, str):
                variables["SSL_CERT_FILE"] = tls
        return variables

    def client(self, **client_kwargs: Any) -> Client:
        """A :class:`yandexgpt.Client` of this emulator; keywords are the client's and win over what it would set."""
        from yandexgpt import Client

        return Client(**{**self._client_kwargs(), **client_kwargs})

    def async_client(self, **client_kwargs: Any) -> AsyncClient:
        """A :class:`yandexgpt.AsyncClient` of this emulator; keywords as for :meth:`client`."""
        from yandexgpt import AsyncClient

        return AsyncClient(**{**self._client_kwargs(), **client_kwargs})

    def _client_kwargs(self) -> dict[str, Any]:
        scheme, _, secret = (self._authorization or f"Api-Key {_PLACEHOLDER}").partition(" ")
        credentials: Any = secret
        if scheme == "Bearer":
            from yandexgpt.credentials import IamToken

            credentials = IamToken(secret)
        return {
            "folder_id": _PLACEHOLDER,
            "credentials": credentials,
            "endpoint": self.endpoint,
            "operation_endpoint": self.endpoint,
            "iam_endpoint": self.endpoint,
            "tls": self.tls,
        }

    # What it saw

    @property
    def requests(self) -> list[RecordedRequest]:
        """The calls that arrived, in order; a list of the caller's own."""
        return self._recorder.snapshot()

    def wait_for_requests(self, count: int, timeout: float | None = 10.0) -> list[RecordedRequest]:
        """:attr:`requests`, once at least `count` have arrived.

        Args:
            count: how many to wait for.
            timeout: seconds; None waits without limit.

        Raises:
            TimeoutError: fewer arrived in time.
        """
        return self._recorder.wait_for(count, timeout)

    @property
    def in_flight(self) -> int:
        """Generations that run now: admitted, and neither ended nor at their last message."""
        return self._quota.in_flight

    @property
    def peak_in_flight(self) -> int:
        """The most generations that ran at once since the start or the last :meth:`clear`."""
        return self._quota.peak

    def clear(self) -> None:
        """Forget the calls that arrived, what :meth:`reply` and :meth:`fail` have left, and the peak.

        Rules stay, and calls in flight go on.
        """
        self._script.clear()
        self._recorder.clear()
        self._quota.reset_peak()
