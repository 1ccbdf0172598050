"""The emulator: a gRPC server on loopback, its script and its record."""

from __future__ import annotations

import math
import socket
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from yandexgpt.emulator import script
from yandexgpt.emulator.answers import DEFAULT_MODEL_VERSION
from yandexgpt.emulator.certificates import issue
from yandexgpt.emulator.checks import is_authorization
from yandexgpt.emulator.generation import TextGeneration
from yandexgpt.emulator.identity import Identity
from yandexgpt.emulator.operations import Operations
from yandexgpt.emulator.quota import Quota
from yandexgpt.emulator.recording import RecordedRequest, Recorder
from yandexgpt.emulator.service import Service
from yandexgpt.emulator.tokenizer import Tokenizer

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from typing_extensions import Self

    from yandexgpt import AsyncClient, Client

__all__ = ["Emulator"]

_WORKERS = 2048
"""Calls served at once. A call holds a thread while it lasts, made when it is first needed; an Event holds it still."""
_GRACE = 0.5
"""Seconds for calls that only have their status left to send; without a grace, gRPC logs an error at every client."""
_PLACEHOLDER = "emulator"
"""The API key and the folder for a client of an emulator that accepts any."""
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound
_HIGHEST_PORT = 65535


class Emulator:
    """The text-generation service on a port of this machine. A context manager; all of it is thread-safe.

    **What it answers when nothing is scripted.** The text of the last user message, word by word: with
    ``stream=true`` a partial after each word, holding the whole text so far, then the final message. A word is a run of
    characters without white space, and counts as one token; the prompt's tokens are the words of all its texts. Where
    ``max_tokens`` is less than that, the first ``max_tokens`` words come, with status ``TRUNCATED_FINAL``. Otherwise:

    - ``tool_choice`` demands a tool (``REQUIRED``: the first one; or a name), and the prompt does not end in tool
      results: one call of it, in one message with status ``TOOL_CALLS``, with arguments made for its JSON Schema, where
      a string says the name of its property (see :func:`yandexgpt.emulator.schema.example`);
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
        tls: serve TLS, with a certificate made now for the host, localhost, 127.0.0.1 and ::1; needs the extra
            ``yandexgpt[emulator]``.
        authorization: the only ``authorization`` accepted, such as ``"Api-Key abc"``; None: any of the right form.
        max_concurrent_streams: calls that one connection may carry at once; None: gRPC's default.
        max_concurrent: generations that may run at once; None: any number.
        rate: generations that may start per second (a token bucket, one second deep); None: any number.
        delay: seconds before each message of an answer that is not scripted.
        operation_time: seconds that an operation takes, besides the delay of its answer; see also :attr:`operations`.
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
        tls: bool = False,
        authorization: str | None = None,
        max_concurrent_streams: int | None = None,
        max_concurrent: int | None = None,
        rate: float | None = None,
        delay: float = 0.0,
        operation_time: float = 0.0,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        if script.count("port", port, least=0) > _HIGHEST_PORT:
            raise ValueError(f"port must be from 0 to {_HIGHEST_PORT}, not {port}")
        if authorization is not None and not is_authorization(authorization):
            raise ValueError("authorization must be 'Api-Key <key>' or 'Bearer <IAM token>'")
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"rate must be a number of generations per second above 0, not {rate!r}")
        if max_concurrent is not None:
            script.count("max_concurrent", max_concurrent)
        self._options: list[tuple[str, Any]] = [("grpc.so_reuseport", 0), *options]
        if max_concurrent_streams is not None:
            limit = script.count("max_concurrent_streams", max_concurrent_streams)
            self._options.append(("grpc.max_concurrent_streams", limit))
        self._host = host
        self._port = port
        self._serves_tls = bool(tls)
        self._authorization = authorization
        self._recorder = Recorder()
        self._script = script.Script()
        self._quota = Quota(max_concurrent, rate)
        self.identity = Identity()
        """The identity service that this emulator plays: keys and tokens that it knows, and faults of its own."""
        service = Service(self._recorder, self._script, authorization, self.identity)
        delay = script.seconds("delay", delay)
        self._generation = TextGeneration(service, quota=self._quota, delay=delay)
        self.operations = Operations(service, time=script.seconds("operation_time", operation_time), delay=delay)
        """What was submitted in asynchronous mode: how long it takes, and ways to end or to forget it."""
        self._tokenizer = Tokenizer(service)
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self._workers: futures.ThreadPoolExecutor | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._started = False

    def _handlers(self) -> list[grpc.GenericRpcHandler]:
        """The services of this server; another one is added here."""
        return [self._generation.handler(), *self.operations.handlers(), self._tokenizer.handler()]

    # Life

    def start(self) -> Self:
        """Listen, and answer from another thread; does nothing if it does already.

        Returns:
            The emulator itself.

        Raises:
            OSError: the address cannot be listened on, such as a port in use.
            ImportError: TLS was asked for without the extra ``yandexgpt[emulator]``.
        """
        with self._lock:
            if self._server is None:
                self._start()
        return self

    def _start(self) -> None:
        _check_free(self._host, self._port)
        workers = futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="yandexgpt-emulator")
        server = grpc.server(workers, handlers=self._handlers(), options=self._options)
        self.identity.register(server)
        address = f"{_bracketed(self._host)}:{self._port}"
        try:
            if self._serves_tls:
                self._port = server.add_secure_port(address, self._server_credentials())
            else:
                self._port = server.add_insecure_port(address)
        except BaseException:
            self._release(server, workers)
            raise
        server.start()
        self._server, self._workers, self._started = server, workers, True

    def _server_credentials(self) -> grpc.ServerCredentials:
        certificates = issue([] if self._host in _ANY_ADDRESS else [self._host])
        self._folder = tempfile.TemporaryDirectory(prefix="yandexgpt-emulator-")
        self._authority.write_bytes(certificates.authority)
        return grpc.ssl_server_credentials([(certificates.server_key, certificates.server)])

    @property
    def _authority(self) -> Path:
        if self._folder is None:
            raise RuntimeError("the emulator does not run: its certificate authority is made by start()")
        return Path(self._folder.name, "ca.pem")

    def stop(self) -> None:
        """Cancel what is in flight, stop listening, leave no thread and no file behind; once stopped, do nothing."""
        with self._lock:
            if self._server is not None and self._workers is not None:
                self._release(self._server, self._workers)
                self._server = self._workers = None

    def _release(self, server: grpc.Server, workers: futures.ThreadPoolExecutor) -> None:
        server.stop(None if self._quota.in_flight else _GRACE).wait()
        workers.shutdown()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # How to reach it

    @property
    def endpoint(self) -> str:
        """``host:port`` for a client; it stays the same after :meth:`stop`.

        Raises:
            RuntimeError: it was never started, so there is no port yet.
        """
        if not self._started:
            raise RuntimeError("the emulator was not started: use `with Emulator() as emulator`, or start()")
        return f"{_bracketed(_ANY_ADDRESS.get(self._host, self._host))}:{self._port}"

    @property
    def tls(self) -> bool | str:
        """What a client takes as `tls`: False, or the path of the certificate authority's PEM file.

        Raises:
            RuntimeError: it serves TLS and does not run, so there is no such file.
        """
        return str(self._authority) if self._serves_tls else False

    def environment(self) -> dict[str, str]:
        """The environment variables that point a program at this emulator, credential and folder included."""
        tls = self.tls
        scheme, _, secret = (self._authorization or f"Api-Key {_PLACEHOLDER}").partition(" ")
        return {
            "YANDEXGPT_ENDPOINT": self.endpoint,
            "YANDEXGPT_TLS": tls if isinstance(tls, str) else "false",
            "IAM_TOKEN" if scheme == "Bearer" else "API_KEY": secret,
            "FOLDER_ID": _PLACEHOLDER,
        }

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

    # What it does next

    def reply(
        self,
        text: str | None = "",
        *,
        partials: Iterable[str | Sequence[str]] | None = None,
        delay: float = 0.0,
        status: str | int | None = None,
        tool_calls: Iterable[Mapping[str, Any]] | None = None,
        alternatives: Iterable[str | Mapping[str, Any]] | None = None,
        usage: Mapping[str, int] | None = None,
        model_version: str = DEFAULT_MODEL_VERSION,
        final: bool = True,
        times: int = 1,
    ) -> None:
        """Script the next answer; answers are used in the order scripted, and ``max_tokens`` does not cut them.

        Args:
            text: the final text; None: a message that holds no text.
            partials: the texts sent before the final message to a request with ``stream=true``. Each is the whole text
                so far, and may shrink, rewrite what came before, repeat it, or end in half a character (U+FFFD). An
                item that is a list holds one text per alternative.
            delay: seconds before each message.
            status: how the answer ends: ``"FINAL"`` (the default), ``"TRUNCATED"``, ``"CONTENT_FILTER"``,
                ``"TOOL_CALLS"`` (the default with `tool_calls`), ..., or a number that the interface does not know.
            tool_calls: mappings of ``name`` and ``arguments``, in place of text.
            alternatives: in place of text, status and tool_calls, any number of alternatives: texts, or mappings of
                ``text``, ``status``, ``tool_calls``, ``role``.
            usage: the final message's ``input_tokens``, ``completion_tokens``, ``total_tokens``, ``reasoning_tokens``;
                what is left out is counted in words. The counts of the partials grow towards it.
            model_version: on every message.
            final: False ends the stream, with status OK, without the final message.
            times: how many calls get this answer.

        Raises:
            ValueError: an argument is not as above.
        """
        answer = script.reply(
            text,
            partials=partials,
            delay=delay,
            status=status,
            tool_calls=tool_calls,
            alternatives=alternatives,
            usage=usage,
            model_version=model_version,
            final=final,
        )
        self._script.add_answer(answer, script.count("times", times))

    def fail(
        self,
        code: str | grpc.StatusCode,
        message: str | None = None,
        *,
        times: int = 1,
        after: int = 0,
        details: Iterable[Message] = (),
        retry_after: float | None = None,
        pushback: int | None = None,
        delay: float = 0.0,
        operation: bool = False,
    ) -> None:
        """Script the next calls to fail; failures come before scripted answers, and in the order scripted.

        Args:
            code: any status but OK, by name or as ``grpc.StatusCode``.
            message: the status message; None: ``"scripted <code>"``.
            times: how many calls fail so.
            after: partials sent before the failure, those of the next scripted answer (which is used up) or of the
                default one; if it has fewer, all of them. 0: no message at all, and no scripted answer is used up.
                Of a call with one answer: 1 or more lets it have its effect, such as an operation that is made, and
                only its answer is lost.
            details: ``google.rpc.error_details_pb2`` messages for ``grpc-status-details-bin``.
            retry_after: seconds, sent as a ``RetryInfo`` detail.
            pushback: milliseconds, sent as ``grpc-retry-pushback-ms``; negative: do not retry.
            delay: seconds before the failure.
            operation: not a call fails, but the next operation that is submitted ends so, in place of an answer.

        Raises:
            ValueError: an argument is not as above.
        """
        failure = script.failure(
            code,
            message,
            after=after,
            details=details,
            retry_after=retry_after,
            pushback=pushback,
            delay=delay,
            operation=operation,
        )
        self._script.add_failure(failure, script.count("times", times))

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
        """Forget the calls that arrived, the script that is left, and the peak; calls in flight go on."""
        self._script.clear()
        self._recorder.clear()
        self._quota.reset_peak()


def _bracketed(host: str) -> str:
    """The host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def _check_free(host: str, port: int) -> None:
    """Try the address first, because gRPC prints a trace of its own on the way to its error.

    Raises:
        OSError: it cannot be listened on.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
