"""The fast servers of the benchmark: answers serialized in advance, at a few tens of microseconds per call.

Every port has one answer. ``run.py`` starts this script. It prints its ports as a line of JSON, and serves until its
standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading

from answers import grpc_answers, http_answers
from http1 import HttpConnection
from http2 import Connection


async def serve() -> None:
    """Serve each answer on its own port, until standard input ends."""
    loop = asyncio.get_running_loop()
    ports = {}
    for name, answer in grpc_answers().items():
        server = await loop.create_server(lambda answer=answer: Connection(answer), "127.0.0.1", 0)  # type: ignore[misc]
        ports[name] = server.sockets[0].getsockname()[1]
    for name, response in http_answers().items():
        server = await loop.create_server(lambda response=response: HttpConnection(response), "127.0.0.1", 0)  # type: ignore[misc]
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    stop = asyncio.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve())
