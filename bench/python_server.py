"""A server on ``grpc.aio``: it sends each message in a separate packet, at the intervals of its port.

``run.py`` starts it in the same way as ``server.py``. It prints its ports as a line of JSON, and serves until its
standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from answers import Answer, python_answers


class Paced(grpc.GenericRpcHandler):
    """Every call gets the same messages, at fixed intervals."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:  # noqa: ARG002 - gRPC's signature
        """The same handler for each method."""
        return grpc.unary_stream_rpc_method_handler(self._messages)

    async def _messages(self, request: bytes, context: object) -> AsyncIterator[bytes]:  # noqa: ARG002
        clock = asyncio.get_running_loop().time
        due = clock()
        for framed in self._answer.messages:
            due += self._answer.every
            if self._answer.every:
                await asyncio.sleep(due - clock())
            yield framed[5:]


async def serve() -> None:
    """Serve each answer on its own port, until standard input ends."""
    servers, ports = [], {}
    for name, answer in python_answers().items():
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Paced(answer),))
        ports[name] = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
    print(json.dumps(ports), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for server in servers:
        await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve())
