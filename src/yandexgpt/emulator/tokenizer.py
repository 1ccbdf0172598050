"""TokenizerService: splits text into tokens by the rule that :class:`Emulator` documents."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import grpc
from google.protobuf.message import Message

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
from yandexgpt.emulator.answers import DEFAULT_MODEL_VERSION, word_ends
from yandexgpt.emulator.call import Call
from yandexgpt.emulator.default_answer import default_answer, input_texts
from yandexgpt.emulator.service import Service
from yandexgpt.emulator.validation import check_request, check_tokenize_request

__all__ = ["Tokenizer"]

_SERVICE = text_generation_service_pb2.DESCRIPTOR.services_by_name["TokenizerService"].full_name


class Tokenizer:
    """The implementation of the service; :meth:`handler` returns the gRPC handler."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler for ``grpc.Server.add_generic_rpc_handlers``. Its responses are serialized already."""
        tokenize = self._service.unary_handler(
            f"/{_SERVICE}/Tokenize", text_generation_service_pb2.TokenizeRequest, _tokenize, check_tokenize_request
        )
        tokenize_completion = self._service.unary_handler(
            f"/{_SERVICE}/TokenizeCompletion",
            text_generation_service_pb2.CompletionRequest,
            _tokenize_completion,
            check_request,
        )
        return grpc.method_handlers_generic_handler(
            _SERVICE, {"Tokenize": tokenize, "TokenizeCompletion": tokenize_completion}
        )


def _tokenize(_call: Call, request: text_generation_service_pb2.TokenizeRequest) -> Message:
    return _response(_pieces([request.text]), DEFAULT_MODEL_VERSION)


def _tokenize_completion(_call: Call, request: text_generation_service_pb2.CompletionRequest) -> Message:
    """As many tokens as an answer to this prompt reports as its input tokens."""
    pieces = _pieces(input_texts(request))
    answer = default_answer(request, 0.0)
    counted = answer.usage.input_tokens
    if counted is None:
        return _response(pieces, answer.model_version)
    if counted < len(pieces):
        pieces[counted - 1 :] = ["".join(pieces[counted - 1 :])]
    return _response(pieces, answer.model_version, special=counted - len(pieces))


def _pieces(texts: Iterable[str]) -> list[str]:
    """The words of the texts, each with the white space before it."""
    pieces: list[str] = []
    for text in texts:
        ends = word_ends(text)
        pieces += [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return pieces


def _response(
    pieces: Iterable[str], model_version: str, *, special: int = 0
) -> text_generation_service_pb2.TokenizeResponse:
    response = text_generation_service_pb2.TokenizeResponse(model_version=model_version)
    for _ in range(special):
        response.tokens.add(id=1, special=True)
    for piece in pieces:
        response.tokens.add(id=zlib.crc32(piece.encode()), text=piece)
    return response
