"""The HTTP server of the emulator: uvicorn in a thread with an event loop of its own."""

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
from yandexgpt.emulator.listening import bind

__all__ = ["HttpServer"]

_OPENAI = "/v1/"
_GRACE = 0.5
"""Seconds for requests that only have to send how they end; after that their connections are cut."""


class HttpServer:
    """The HTTP server of an emulator: REST and the OpenAI API on one port.

    The gRPC client is ``request.app.state.grpc_client``. ``request.app.state.authorization`` is the only
    ``authorization`` that the emulator accepts, or None.

    Args:
        target: ``host:port`` of the gRPC face.
        host: the address to listen on: a name or an IP address.
        port: the port, 0 for a free one.
        tls: serve TLS with these files, as the gRPC face does; None: plaintext.
        authorization: the only one accepted, such as ``"Api-Key abc"``; None: any.
    """

    def __init__(
        self, *, target: str, host: str, port: int, tls: TlsFiles | None = None, authorization: str | None = None
    ) -> None:
        self._target = target
        self._host = host
        self._tls = tls
        self.port = port
        """The port; the one found once it is started with 0."""
        self._app = Starlette(
            routes=[*openai.routes(), *rest.routes()],
            exception_handlers={HTTPException: _http_error, Exception: _http_error},
        )
        self._app.router.redirect_slashes = False
        self._app.state.authorization = authorization
        self._thread: threading.Thread | None = None
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen, and answer from another thread.

        Raises:
            OSError: the address cannot be listened on; ``filename`` is the address.
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
        """Stop listening, and end what is in flight with UNAVAILABLE; leaves no thread and no socket behind."""
        if self._server is not None and self._thread is not None:
            self._server.stop()
            self._thread.join()
            self._server = self._thread = None


async def _http_error(request: Request, error: Exception) -> Response:
    """What answers a request that gets to no method, or that breaks one: in the form of the face it meant."""
    if not isinstance(error, HTTPException):
        error = HTTPException(500, f"the emulator failed: {error!r}")
    if request.url.path.startswith(_OPENAI):
        api_error = ApiError(error.status_code, error.detail, headers=dict(error.headers or {}))
        return api_error.response()
    return rest.http_error(request, error)


class _Server(uvicorn.Server):
    """uvicorn's server: it says when it serves, is stopped from another thread, and cuts off who does not read.

    Args:
        config: uvicorn's.
        connect: connects to the gRPC face.
        started: is set once it serves.
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
        """End :meth:`serve`; to be called from another thread."""
        self._wake()

    async def main_loop(self) -> None:
        tenths = 0
        while not self._stopping.is_set():
            await self.on_tick(tenths)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1.0)
            tenths += 10

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - closed by their maker
        # asyncio loses a connection, and never closes it, that was accepted just before its server was closed.
        for listening in (each for server in self.servers for each in server.sockets):
            with contextlib.suppress(NotImplementedError):  # loops of Windows accept in another way
                asyncio.get_running_loop().remove_reader(listening.fileno())
        await _a_moment()
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
            task.cancel()  # what is left are connections in the middle of their TLS handshake
        await _a_moment()
        while state.connections:
            for connection in list(state.connections):
                connection.transport.abort()
            await _a_moment()


async def _a_moment() -> None:
    """Let everything happen that is due."""
    for _ in range(3):
        await asyncio.sleep(0)
