"""The common part of the emulated services: recording, credential checks and the script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from yandexgpt.emulator.call import Call
from yandexgpt.emulator.error_status import ErrorStatus
from yandexgpt.emulator.identity import Identity
from yandexgpt.emulator.received import Recorder
from yandexgpt.emulator.script import Script
from yandexgpt.emulator.validation import check_authorization

__all__ = ["Service"]


@dataclass(frozen=True)
class Service:
    """What the emulated services share.

    Attributes:
        recorder: the list of received requests.
        script: the scripted answers and failures.
        authorization: the only accepted ``authorization`` value; None: any value of the right form.
        identity: the issuer of IAM tokens.
    """

    recorder: Recorder
    script: Script
    authorization: str | None
    identity: Identity

    def receive(
        self, method: str, request: Any, context: grpc.ServicerContext, check: Callable[[Any], ErrorStatus | None]
    ) -> tuple[Call, ErrorStatus | None]:
        """Record a call and validate it.

        Args:
            method: the full method name.
            request: the request.
            context: gRPC's context of the call.
            check: validates the request.

        Returns:
            The call, and the status to fail it with (None if it is valid).
        """
        call = Call(self.recorder, method, request, context)
        return call, check_authorization(call.recorded.metadata, self.authorization, self.identity) or check(request)

    def unary_handler(
        self,
        method: str,
        request_type: type[Message],
        respond: Callable[[Call, Any], Message | ErrorStatus],
        check: Callable[[Any], ErrorStatus | None],
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The gRPC handler of a method with one response.

        It is registered as a response stream with one message. The bytes on the wire are the same, and a failed call
        sends no message.

        Args:
            method: the full method name.
            request_type: the request class.
            respond: returns the response or an error status.
            check: validates the request.
        """

        def handle(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
            call, status = self.receive(method, request, context, check)
            if status is not None:
                call.fail(status)
                return
            failure = self.script.take_failure()
            response = None
            if failure is None or failure.after:
                response = respond(call, request)
            if isinstance(response, ErrorStatus):
                call.fail(response)
            elif failure is not None:
                if call.pause(failure.delay):
                    call.fail(failure.status)
            elif response is not None:
                call.recorded.sent += 1
                yield response.SerializeToString()
                call.finish()

        handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
            handle, request_deserializer=request_type.FromString
        )
        return handler
