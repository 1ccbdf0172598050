"""What the services of the emulator have in common: the record, the script, and the credentials that they accept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from yandexgpt.emulator.call import Call
from yandexgpt.emulator.error_status import ErrorStatus
from yandexgpt.emulator.identity import Identity
from yandexgpt.emulator.recording import Recorder
from yandexgpt.emulator.script import Script
from yandexgpt.emulator.validation import check_authorization

__all__ = ["Service"]


@dataclass(frozen=True)
class Service:
    """The front of a service.

    Attributes:
        recorder: where calls are noted.
        script: what comes next.
        authorization: the one value accepted, or None for any of the right form.
        identity: what knows the IAM tokens that were issued here.
    """

    recorder: Recorder
    script: Script
    authorization: str | None
    identity: Identity

    def receive(
        self, method: str, request: Any, context: grpc.ServicerContext, check: Callable[[Any], ErrorStatus | None]
    ) -> tuple[Call, ErrorStatus | None]:
        """Note a call, and see whether it is to be refused: for its credential, or for what `check` finds."""
        call = Call(self.recorder, method, request, context)
        return call, check_authorization(call.recorded.metadata, self.authorization, self.identity) or check(request)

    def unary_handler(
        self,
        method: str,
        request_type: type[Message],
        respond: Callable[[Call, Any], Message | ErrorStatus],
        check: Callable[[Any], ErrorStatus | None],
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of a method with one answer.

        It is a stream of one message: on the wire that is the same, and a call that fails then sends no message at all.

        Args:
            method: the full name.
            request_type: the class of its requests.
            respond: what makes the answer, or a status.
            check: what finds a malformed request.
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
