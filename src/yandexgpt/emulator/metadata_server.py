"""The metadata service of a cloud virtual machine."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final

from yandexgpt.emulator.identity import Identity

__all__ = ["METADATA_PATH", "MetadataServer"]

METADATA_PATH: Final = "/computeMetadata/v1/instance/service-accounts/default/token"
HTTP_TIMEOUT: Final = 1.0
"""Seconds without data after which a request is dropped."""


class MetadataServer:
    """The metadata service of a virtual machine, over HTTP on a free loopback port. It issues tokens of an `Identity`.

    It runs from the constructor to `close`.

    Attributes (may be set at any time):
        missing: True: a machine without a service account, which answers 404.
        delay: seconds before a response.
        garbage: a body to send instead of a token, with status 200; None: none.
    """

    def __init__(self, identity: Identity) -> None:
        """Start to serve tokens of `identity`."""
        self.missing = False
        self.delay = 0.0
        self.garbage: bytes | None = None
        self._identity = identity
        self._lock = threading.Lock()
        self._requests = 0
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"metadata": self}))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="yandexgpt-metadata", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> MetadataServer:
        """Return the server."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close the server."""
        self.close()

    @property
    def endpoint(self) -> str:
        """The address "host:port". It replaces 169.254.169.254."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The URL of the token."""
        return f"http://{self.endpoint}{METADATA_PATH}"

    @property
    def requests(self) -> int:
        """The number of requests, including rejected requests."""
        with self._lock:
            return self._requests

    def close(self) -> None:
        """Stop the server. Delayed responses end too. A second call does nothing."""
        if not self._closing.is_set():
            self._closing.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def answer(self, path: str, flavor: str | None) -> tuple[int, bytes]:
        """Return the status and body for a path and a `Metadata-Flavor` header."""
        with self._lock:
            self._requests += 1
        self._closing.wait(self.delay)
        if flavor != "Google":
            return 403, b"Missing required header Metadata-Flavor: Google\n"
        if path != METADATA_PATH or self.missing:
            return 404, b"Not Found\n"
        if self.garbage is not None:
            return 200, self.garbage
        lifetime = self._identity.token_lifetime
        expires_in = int(lifetime) if lifetime == int(lifetime) else lifetime
        token = {"access_token": self._identity.issue(lifetime), "expires_in": expires_in, "token_type": "Bearer"}
        return 200, json.dumps(token).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() then waits for the threads

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of closed connections."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    metadata: MetadataServer
    timeout = HTTP_TIMEOUT

    def do_GET(self) -> None:
        status, body = self.metadata.answer(self.path, self.headers.get("Metadata-Flavor"))
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 200 else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing."""
