"""The HTTP server of the emulator: uvicorn in a thread with its own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from yandexgpt.emulator.certificates import TlsFiles
from yandexgpt.emulator.http_api import openai, rest
from yandexgpt.emulator.http_api.grpc_client import GrpcClient
from yandexgpt.emulator.http_api.openai.errors import ApiError
from yandexgpt.emulator.server_sockets import bind

__all__ = ["HttpServer"]

_OPENAI = "/v1/"
_GRACE = 0.5
"""Seconds for active requests to send their end. After that, their connections are closed."""


class HttpServer:
    """The HTTP server of an emulator: REST and the OpenAI API on one port.

    ``request.app.state`` contains the gRPC client (``grpc_client``) and the only accepted ``authorization`` value, or
    None.

    Args:
        target: ``host:port`` of the gRPC server.
        host: the address to listen on: a name or an IP address.
        port: the port, 0 for a free port.
        tls: the TLS files, which the gRPC server uses too; None: plaintext.
        authorization: the only accepted value, such as ``"Api-Key abc"``; None: any value.
    """

    def __init__(
        self, *, target: str, host: str, port: int, tls: TlsFiles | None = None, authorization: str | None = None
    ) -> None:
        self._target = target
        self._host = host
        self._tls = tls
        self.port = port
        """The port. After a start with 0, the chosen port."""
        self._app = Starlette(
            routes=[*openai.routes(), *rest.routes()],
            exception_handlers={HTTPException: _http_error, Exception: _http_error},
        )
        self._app.router.redirect_slashes = False
        self._app.state.authorization = authorization
        self._thread: threading.Thread | None = None
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen, and serve in another thread.

        Raises:
            OSError: the address cannot be bound; ``filename`` is the address.
        """
        listener = bind(self._host, self.port)
        self.port = listener.getsockname()[1]
        files = (None, None) if self._tls is None else (str(self._tls.certificate), str(self._tls.key))
        config = uvicorn.Config(
            self._app,
            ws="none",
            lifespan="off",
            http="h11",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=files[0],
            ssl_keyfile=files[1],
        )
        started: Future[None] = Future()
        self._server = server = _Server(config, self._connect, started)

        def run() -> None:
            try:
                asyncio.run(server.serve([listener]))
            except BaseException as error:
                if started.done():
                    raise
                started.set_exception(error)
            finally:
                listener.close()

        self._thread = threading.Thread(target=run, name="yandexgpt-emulator-http", daemon=True)
        self._thread.start()
        started.result()

    def _connect(self) -> GrpcClient:
        grpc_client = GrpcClient(self._target, None if self._tls is None else self._tls.authority.read_bytes())
        self._app.state.grpc_client = grpc_client
        return grpc_client

    def stop(self) -> None:
        """Stop listening, and end the active requests with UNAVAILABLE. No thread and no socket is left."""
        if self._server is not None and self._thread is not None:
            self._server.stop()
            self._thread.join()
            self._server = self._thread = None


async def _http_error(request: Request, error: Exception) -> Response:
    """The response to a request without a route, or with an internal error, in the format of its API."""
    if not isinstance(error, HTTPException):
        error = HTTPException(500, f"the emulator failed: {error!r}")
    if request.url.path.startswith(_OPENAI):
        api_error = ApiError(error.status_code, error.detail, headers=dict(error.headers or {}))
        return api_error.response()
    return rest.http_error(request, error)


class _Server(uvicorn.Server):
    """A uvicorn server for another thread: it reports its start, and :meth:`stop` is thread-safe.

    On shutdown, it closes connections that do not read.

    Args:
        config: the configuration of uvicorn.
        connect: connects to the gRPC server.
        started: is completed when the server runs.
    """

    def __init__(self, config: uvicorn.Config, connect: Callable[[], GrpcClient], started: Future[None]) -> None:
        super().__init__(config)
        self._connect = connect
        self._serves = started
        self._stopping = asyncio.Event()
        self._wake: Callable[[], object] = self._stopping.set

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._grpc_client = self._connect()
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        self._wake = lambda: loop.call_soon_threadsafe(self._stopping.set)
        self._serves.set_result(None)

    def stop(self) -> None:
        """End :meth:`serve`. May be called from another thread."""
        self._wake()

    async def main_loop(self) -> None:
        tenths = 0
        while not self._stopping.is_set():
            await self.on_tick(tenths)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1.0)
            tenths += 10

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - their creator closes them
        # asyncio never closes a connection that was accepted just before its server was closed.
        for listening in (each for server in self.servers for each in server.sockets):
            with contextlib.suppress(NotImplementedError):  # event loops on Windows have no readers
                asyncio.get_running_loop().remove_reader(listening.fileno())
        await _run_ready_callbacks()
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        await self._grpc_client.close()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=_GRACE)
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()  # connections that have not finished their TLS handshake
        await _run_ready_callbacks()
        while state.connections:
            for connection in list(state.connections):
                connection.transport.abort()
            await _run_ready_callbacks()


async def _run_ready_callbacks() -> None:
    """Let the event loop run all callbacks that are ready."""
    for _ in range(3):
        await asyncio.sleep(0)
