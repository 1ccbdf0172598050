"""TextGenerationService: generates answers, unary and streamed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import grpc

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt.emulator.answers import encode_answer
from yandexgpt.emulator.call import Call
from yandexgpt.emulator.default_answer import default_answer, input_words
from yandexgpt.emulator.error_status import ErrorStatus
from yandexgpt.emulator.quota import Quota, Slot
from yandexgpt.emulator.service import Service
from yandexgpt.emulator.validation import check_request

__all__ = ["TextGeneration"]

_SERVICE = text_generation_service_pb2.DESCRIPTOR.services_by_name["TextGenerationService"].full_name
_COMPLETION = f"/{_SERVICE}/Completion"
_ANSWERS_KEPT = 64
"""Number of answers whose encoded messages are cached."""


class TextGeneration:
    """The implementation of the service; :meth:`handler` returns the gRPC handler.

    Args:
        service: the common part of the services.
        quota: the limits of generations.
        delay: seconds before each message of a default answer; may be set at any time.
    """

    def __init__(self, service: Service, *, quota: Quota, delay: float) -> None:
        self._service = service
        self._quota = quota
        self.delay = delay
        self._encode = functools.lru_cache(maxsize=_ANSWERS_KEPT)(encode_answer)

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler for ``grpc.Server.add_generic_rpc_handlers``. Its responses are serialized already."""
        completion: grpc.RpcMethodHandler[Any, bytes] = grpc.unary_stream_rpc_method_handler(
            self._completion,
            request_deserializer=text_generation_service_pb2.CompletionRequest.FromString,
        )
        return grpc.method_handlers_generic_handler(_SERVICE, {"Completion": completion})

    def _completion(
        self, request: text_generation_service_pb2.CompletionRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        call, status = self._service.receive(_COMPLETION, request, context, check_request)
        admitted = status or self._quota.acquire()
        if isinstance(admitted, ErrorStatus):
            call.fail(admitted)
            return
        call.add_done_callback(admitted.release)
        try:
            yield from self._answer(call, request, admitted)
        finally:
            admitted.release()

    def _answer(
        self, call: Call, request: text_generation_service_pb2.CompletionRequest, slot: Slot
    ) -> Iterator[bytes]:
        failure, answer = self._service.script.take(request)
        if failure is not None and not failure.after:
            if call.pause(failure.delay):
                call.fail(failure.status)
            return
        if answer is None:
            answer = default_answer(request, self.delay)
        messages = self._encode(answer, input_words(request))
        partials = messages.partials if request.completion_options.stream else ()
        for partial in partials if failure is None else partials[: failure.after]:
            if not call.pause(answer.delay):
                return
            call.recorded.sent += 1
            yield partial
        if failure is not None:
            if call.pause(failure.delay):
                call.fail(failure.status)
            return
        if messages.final is not None:
            if not call.pause(answer.delay):
                return
            # Release the slot before the last message: a client that has read it may start the next generation.
            slot.release()
            call.recorded.sent += 1
            yield messages.final
        call.finish()
