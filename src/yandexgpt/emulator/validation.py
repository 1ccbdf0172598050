"""Validation of credentials and requests, before an answer is generated."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1 import text_common_pb2
from yandexgpt.emulator.error_status import ErrorStatus, abbreviated, invalid_argument, unauthenticated

if TYPE_CHECKING:
    from yandexgpt._proto.yandex.cloud.ai.foundation_models.v1.text_generation import text_generation_service_pb2
    from yandexgpt.emulator.identity import Identity
    from yandexgpt.emulator.received import Metadata

__all__ = ["MODEL_URI", "ROLES", "check_authorization", "check_request", "check_tokenize_request", "is_authorization"]

ROLES = ("system", "user", "assistant")
MODEL_URI = re.compile(r"gpt://[^/@\s]+/[^/@\s]+(?:/[^/@\s]+)?(?:@[^/@\s]+)?|ds://[^/\s]+")

_AUTHORIZATION = re.compile(r"(?:Api-Key|Bearer) \S+")
_VIOLATIONS_SHOWN = 10


def is_authorization(value: str) -> bool:
    """Whether the value has the form ``Api-Key <key>`` or ``Bearer <IAM token>``."""
    return _AUTHORIZATION.fullmatch(value) is not None


def check_authorization(metadata: Metadata, expected: str | None, identity: Identity) -> ErrorStatus | None:
    """UNAUTHENTICATED, or None if the ``authorization`` metadata is valid.

    An IAM token that ``identity`` issued is valid until it expires, whatever value is expected.

    Args:
        metadata: the metadata of the call.
        expected: the only accepted value; None: any value of the right form.
        identity: the issuer of IAM tokens.
    """
    given = metadata.get_all("authorization")
    if not given:
        return unauthenticated("the authorization metadata is missing: send 'Api-Key <key>' or 'Bearer <IAM token>'")
    if len(given) > 1:
        return unauthenticated("the authorization metadata was sent more than once")
    value = str(given[0])
    if value.startswith("Bearer ") and identity.knows(token := value.removeprefix("Bearer ")):
        reason = identity.why_invalid(token)
        return unauthenticated(reason) if reason else None
    if expected is not None and value != expected:
        return unauthenticated("unknown API key or IAM token")
    if not is_authorization(value):
        return unauthenticated("the authorization metadata must be 'Api-Key <key>' or 'Bearer <IAM token>'")
    return None


def check_request(request: text_generation_service_pb2.CompletionRequest) -> ErrorStatus | None:
    """INVALID_ARGUMENT with a violation for each invalid field (at most ten), or None if the request is valid."""
    violations = [
        *_model(request),
        *_options(request.completion_options),
        *_messages(request),
        *_tools(request),
    ]
    return invalid_argument(violations[:_VIOLATIONS_SHOWN]) if violations else None


def check_tokenize_request(request: text_generation_service_pb2.TokenizeRequest) -> ErrorStatus | None:
    """INVALID_ARGUMENT with a violation for each invalid field, or None if the request is valid."""
    violations = [*_model(request), *([] if request.text else [("text", "must not be empty")])]
    return invalid_argument(violations) if violations else None


def _model(
    request: text_generation_service_pb2.CompletionRequest | text_generation_service_pb2.TokenizeRequest,
) -> list[tuple[str, str]]:
    if MODEL_URI.fullmatch(request.model_uri):
        return []
    wanted = "must be gpt://<folder>/<model>[/<version>][@<suffix>] or ds://<id>"
    return [("model_uri", f"{wanted}, not {abbreviated(request.model_uri)}")]


def _options(options: text_common_pb2.CompletionOptions) -> list[tuple[str, str]]:
    violations = []
    temperature = options.temperature.value
    if not 0 <= temperature <= 1:
        violations.append(("completion_options.temperature", f"must be from 0 to 1, not {temperature:g}"))
    if options.HasField("max_tokens") and options.max_tokens.value <= 0:
        violations.append(("completion_options.max_tokens", f"must be above 0, not {options.max_tokens.value}"))
    return violations


def _messages(request: text_generation_service_pb2.CompletionRequest) -> list[tuple[str, str]]:
    if not request.messages:
        return [("messages", "must hold at least one message")]
    violations = []
    for index, message in enumerate(request.messages):
        if message.role not in ROLES:
            violations.append(
                (f"messages[{index}].role", f"must be one of {', '.join(ROLES)}, not {abbreviated(message.role)}")
            )
        if message.WhichOneof("Content") is None:
            violations.append((f"messages[{index}]", "must hold text, a tool call list or a tool result list"))
    return violations


def _tools(request: text_generation_service_pb2.CompletionRequest) -> list[tuple[str, str]]:
    names = [tool.function.name for tool in request.tools]
    violations = [
        (f"tools[{index}].function.name", "must not be empty") for index, name in enumerate(names) if not name
    ]
    choice = request.tool_choice
    if choice.WhichOneof("ToolChoice") == "function_name" and choice.function_name not in names:
        violations.append(("tool_choice.function_name", f"{abbreviated(choice.function_name)} is not among the tools"))
    elif choice.mode == text_common_pb2.ToolChoice.REQUIRED and not names:
        violations.append(("tool_choice.mode", "REQUIRED needs tools"))
    return violations
