"""The emulator: a gRPC server and an HTTP server on loopback."""

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
from yandexgpt.emulator.operations import Operations
from yandexgpt.emulator.quota import Quota
from yandexgpt.emulator.received import RecordedRequest, Recorder
from yandexgpt.emulator.record_replay.backend import make_backend
from yandexgpt.emulator.request_decoding import DecodeErrorInterceptor
from yandexgpt.emulator.script import Script
from yandexgpt.emulator.scripting import ScriptingMixin
from yandexgpt.emulator.server_sockets import address, check_free, connectable_host
from yandexgpt.emulator.service import Service
from yandexgpt.emulator.text_generation import TextGeneration
from yandexgpt.emulator.tokenizer import Tokenizer
from yandexgpt.emulator.validation import is_authorization

if TYPE_CHECKING:
    from typing_extensions import Self

    from yandexgpt._async.client import AsyncClient
    from yandexgpt._sync.client import Client
    from yandexgpt.emulator.http_api.server import HttpServer

__all__ = ["Emulator"]

_WORKERS = 2048
"""Maximum number of concurrent calls. Each call has a thread. Threads are created when they are needed."""
_GRACE = 0.5
"""Seconds for calls that are about to end. Without this time, gRPC logs an error at each client."""
_PLACEHOLDER = "emulator"
"""API key and folder of a client for an emulator that accepts any."""
_HIGHEST_PORT = 65535


class Emulator(ScriptingMixin):
    """An emulator of the text-generation service on a port of this machine. Thread-safe.

    It is a context manager (``with`` and ``async with``).

    **Default answers.** Without a script, the emulator answers with the text of the last user message, word by word.
    With ``stream=true`` it sends a partial message after each word (for more than a thousand words, after every few
    words) with the whole text so far, and then the final message. A word is a run of characters without white space,
    and counts as one token. The tokens of the prompt are the words of all its texts. If ``max_tokens`` is less than the
    number of words, the answer is the first ``max_tokens`` words, with status ``TRUNCATED_FINAL``. Exceptions:

    - ``tool_choice`` requires a tool (``REQUIRED``: the first tool; or a name), and the prompt does not end with tool
      results: one call of this tool, in one message with status ``TOOL_CALLS``. The arguments are an example for its
      JSON Schema, in which a string is the name of its property (see
      :func:`yandexgpt.emulator.json_schema_example.example`);
    - ``json_schema``: an example for the schema, made in the same way; ``json_object``: ``{"answer": <the text>}``;
    - the prompt ends with tool results: their contents, one per line;
    - the system and user messages are those of an example in Yandex Cloud's guides: the answer, the token counts, the
      model version and the partials (if any) printed there. If the guide prints ``T`` tokens for an answer of ``W``
      words, ``w`` words of it count as ``T * w // W`` tokens, also for ``max_tokens``.

    **Errors**, as from the service: a missing, malformed or unexpected ``authorization`` (UNAUTHENTICATED); a malformed
    model URI, a temperature outside [0, 1], ``max_tokens`` below 1, no messages, an unknown role, an empty message, a
    tool choice that names no tool (INVALID_ARGUMENT, with ``BadRequest`` details); an exceeded quota
    (RESOURCE_EXHAUSTED, with ``QuotaFailure`` and, for a rate, ``RetryInfo``). A rejected call uses up nothing of the
    script. Every call gets ``x-request-id`` and ``x-server-trace-id`` in its initial and trailing metadata, and every
    error has a ``RequestInfo``. Methods that are not emulated answer UNIMPLEMENTED and are not recorded.

    **Asynchronous mode.** An operation is pending for ``operation_time`` and the ``delay`` of its answer. Then it is
    done: with the next scripted answer or the default answer, or with the error of :meth:`fail` with
    ``operation=True``. A second submission with the same ``idempotency-key`` returns the operation of the first one. A
    cancelled operation ends immediately. See :attr:`operations` for methods to finish or remove an operation.

    **Tokens.** The tokens of a text are its words, each with the white space before it. The tokens of a prompt are
    those of all its texts. If a guide prints a larger number for the prompt, special tokens are added at the beginning.

    Args:
        host: the address to listen on: a name or an IP address.
        port: the port, 0 for a free port. After :meth:`stop`, :meth:`start` uses the same port again.
        http_port: the port of the REST and OpenAI APIs, 0 for a free port, used again like `port`; None: no HTTP
            server. It needs the extra ``yandexgpt[emulator]``.
        tls: serve TLS. The certificate is created at start, for the host, localhost, 127.0.0.1, ::1 and the hosts of
            the service (for clients with fixed addresses that are redirected here). It needs the extra
            ``yandexgpt[emulator]``.
        authorization: the only accepted ``authorization``, such as ``"Api-Key abc"``; None: any value of the right
            form.
        max_concurrent_streams: maximum number of concurrent calls on one connection; None: gRPC's default.
        max_concurrent: maximum number of concurrent generations; None: no limit.
        rate: maximum number of new generations per second (a token bucket with the capacity of one second); None: no
            limit.
        delay: seconds before each message of a default answer.
        operation_time: duration of an operation in seconds, in addition to the delay of its answer; see also
            :attr:`operations`.
        upstream: ``host:port`` of a gRPC service. Every call is forwarded to it. Scripts and validation do not apply
            then, except `authorization` and the quotas if given. With the endpoint of the real service,
            ``llm.api.cloud.yandex.net:443``, calls of its other services are forwarded to their own endpoints.
        upstream_tls: True (system roots), the path of a PEM bundle, or False for plaintext (loopback only).
        record: a file to write the forwarded calls to, see ``docs/recordings.md``. An existing recording is continued.
        record_texts: False: texts are masked in the file.
        replay: a recording to answer from, with its timing. :meth:`fail` works, :meth:`reply` does not. Each
            :meth:`start` begins again with the first call.
        match: ``"request"``: a call gets what was recorded for an equal request; if there are several, each in turn,
            and then the last one again. ``"order"``: a call gets the next recorded answer of its method, for any
            request. If there is none, the status is FAILED_PRECONDITION, and its message names the nearest recorded
            request.
        options: further gRPC server arguments, such as ``[("grpc.http2.min_ping_interval_without_data_ms", 300_000)]``
            for its keepalive policy.

    Raises:
        ValueError: an argument is invalid.
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
        """The identity service of this emulator: its keys and tokens, and its failures."""
        self._service = service = Service(self._recorder, self._script, authorization, self.identity)
        delay = check_seconds("delay", delay)
        self._generation = TextGeneration(service, quota=self._quota, delay=delay)
        self.operations = Operations(service, time=check_seconds("operation_time", operation_time), delay=delay)
        """The operations of the asynchronous mode: their duration, and methods to finish or remove them."""
        self._tokenizer = Tokenizer(service)
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self._workers: futures.ThreadPoolExecutor | None = None
        self._tls_files: TlsFiles | None = None
        self._http_server: HttpServer | None = None
        self._started = False

    def _handlers(self) -> list[grpc.GenericRpcHandler]:
        """The gRPC handlers of this server."""
        discovery = Discovery(lambda: address(connectable_host(self._host), self._port))
        if self._backend is not None:
            return [self._backend.handler(self._service, self._quota), discovery.handler()]
        return [
            self._generation.handler(),
            *self.operations.handlers(),
            self._tokenizer.handler(),
            discovery.handler(),
        ]

    # Start and stop

    def start(self) -> Self:
        """Listen, and answer in other threads. If the emulator runs already, do nothing.

        Returns:
            The emulator itself.

        Raises:
            OSError: the address cannot be bound, for example because the port is in use.
            ImportError: TLS or an HTTP port needs the extra ``yandexgpt[emulator]``.
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
        """Cancel active calls and stop listening. No thread and no file is left.

        If the emulator does not run, do nothing.
        """
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

    # Addresses and clients

    @property
    def endpoint(self) -> str:
        """``host:port`` for a client; it does not change after :meth:`stop`.

        Raises:
            RuntimeError: the emulator was never started, so there is no port yet.
        """
        self._check_started()
        return address(connectable_host(self._host), self._port)

    @property
    def http_url(self) -> str:
        """``http://host:port`` (``https`` with TLS) of the REST and OpenAI APIs; it does not change after :meth:`stop`.

        Raises:
            RuntimeError: there is no HTTP port, or the emulator was never started.
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
        """The value for a client's argument `tls`: False, or the path of the authority's PEM file.

        Raises:
            RuntimeError: the emulator serves TLS and does not run, so there is no such file.
        """
        if not self._serves_tls:
            return False
        if self._tls_files is None:
            raise RuntimeError("the emulator does not run: its certificate authority is made by start()")
        return str(self._tls_files.authority)

    def environment(self) -> dict[str, str]:
        """The environment variables that configure a client for this emulator, including credential and folder.

        With an HTTP port, they include the variables of OpenAI's client, and with TLS the one with its trusted
        authority.
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
        """A :class:`yandexgpt.Client` of this emulator. Keywords of the client override the defaults."""
        from yandexgpt._sync.client import Client

        return Client(**{**self._client_kwargs(), **client_kwargs})

    def async_client(self, **client_kwargs: Any) -> AsyncClient:
        """A :class:`yandexgpt.AsyncClient` of this emulator. Keywords as for :meth:`client`."""
        from yandexgpt._async.client import AsyncClient

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

    # Received calls

    @property
    def requests(self) -> list[RecordedRequest]:
        """The received calls, in order (a copy)."""
        return self._recorder.snapshot()

    def wait_for_requests(self, count: int, timeout: float | None = 10.0) -> list[RecordedRequest]:
        """:attr:`requests`, after at least `count` calls have arrived.

        Args:
            count: the number of calls to wait for.
            timeout: seconds; None: no limit.

        Raises:
            TimeoutError: fewer calls arrived in time.
        """
        return self._recorder.wait_for(count, timeout)

    @property
    def in_flight(self) -> int:
        """The number of running generations. A generation ends before its last message is sent."""
        return self._quota.in_flight

    @property
    def peak_in_flight(self) -> int:
        """The maximum number of concurrent generations since the start or the last :meth:`clear`."""
        return self._quota.peak

    def clear(self) -> None:
        """Clear the received calls, the queued answers and failures, and the peak.

        Rules stay, and active calls continue.
        """
        self._script.clear()
        self._recorder.clear()
        self._quota.reset_peak()
