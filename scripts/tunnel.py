"""A proxy that forwards every connection to one address, for programs whose hosts cannot be changed."""

from __future__ import annotations

import socket
import socketserver
import threading
from types import TracebackType

__all__ = ["Tunnel"]


class Tunnel:
    """An HTTP proxy on a free loopback port; a context manager. It connects every request to `target`, for any host.

    Args:
        target: ``host:port`` that all connections are forwarded to.
    """

    def __init__(self, target: str) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        host, _, port = target.rpartition(":")
        self._server.target = (host, int(port))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Tunnel:
        """Serve in threads."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="tunnel", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stop listening; connections last until either side closes."""
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    target: tuple[str, int]
    daemon_threads = True


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        method = self.rfile.readline().partition(b" ")[0]
        while self.rfile.readline().strip():
            pass
        if method != b"CONNECT":
            self.wfile.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(self.server.target) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
            back.start()
            _pump(self.connection, there)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy bytes until the source ends; then end the sink too."""
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # one connection was broken: close both
        source.close()
        sink.close()
