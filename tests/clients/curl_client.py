"""curl with the REST API: the requests of the guides to prompt mode, chat mode and asynchronous requests, and errors.

Needs only Python's standard library, and curl on the PATH.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from seen import CA, FOLDER, HTTP_URL, IAM_TOKEN, KEY, OAUTH_TOKEN, seen

MODELS = f"{HTTP_URL}/foundationModels/v1"
BY_TOKEN = ("--header", f"Authorization: Bearer {IAM_TOKEN}", "--header", f"x-folder-id: {FOLDER}")
BY_KEY = ("--header", f"Authorization: Api-Key {KEY}")
CHAT = [
    {"role": "system", "text": "Ты знаешь счёт"},
    {"role": "user", "text": "Раз"},
    {"role": "assistant", "text": "Два"},
    {"role": "user", "text": "три  четыре\nпять"},
]
ANSWER = {
    "alternatives": [
        {"message": {"role": "assistant", "text": "три  четыре\nпять"}, "status": "ALTERNATIVE_STATUS_FINAL"}
    ],
    "usage": {"inputTextTokens": "8", "completionTokens": "3", "totalTokens": "11"},
}


def main() -> None:
    """Call every path that the guides use."""
    with seen("prompt mode"):
        status, answer = post("completion", body([{"role": "user", "text": "раз два"}]), *BY_TOKEN)
        assert status == 200, answer
        assert text_of(answer["result"]) == "раз два", answer
        assert answer["result"]["modelVersion"], answer
    with seen("chat mode"):
        status, answer = post("completion", body(CHAT), *BY_KEY)
        assert (status, without(answer["result"], "modelVersion")) == (200, ANSWER), answer
    with seen("a stream"):
        lines = curl(f"{MODELS}/completion", "--no-buffer", "--data", json.dumps(body(CHAT, stream=True)), *BY_KEY)[1]
        results = [json.loads(line)["result"] for line in lines.splitlines()]
        assert [text_of(each) for each in results] == [
            "три",
            "три  четыре",
            "три  четыре\nпять",
            "три  четыре\nпять",
        ], results
        statuses = [each["alternatives"][0]["status"] for each in results]
        assert statuses == [*["ALTERNATIVE_STATUS_PARTIAL"] * 3, "ALTERNATIVE_STATUS_FINAL"], statuses
    with seen("asynchronous"):
        status, operation = post("completionAsync", body(CHAT), *BY_TOKEN)
        assert (status, operation["done"]) == (200, False), operation
        end = time.monotonic() + 30
        while not operation["done"]:
            assert time.monotonic() < end, operation
            time.sleep(0.02)
            operation = json.loads(curl(f"{HTTP_URL}/operations/{operation['id']}", *BY_TOKEN)[1])
        response = operation["response"]
        assert response.pop("@type").endswith("/yandex.cloud.ai.foundation_models.v1.CompletionResponse"), operation
        assert without(response, "modelVersion") == ANSWER, operation
    with seen("tools"):
        tool = {"name": "sum", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
        request = {**body(CHAT), "tools": [{"function": tool}], "toolChoice": {"mode": "REQUIRED"}}
        status, answer = post("completion", request, *BY_KEY)
        (call,) = answer["result"]["alternatives"][0]["message"]["toolCallList"]["toolCalls"]
        assert call["functionCall"]["name"] == "sum", answer
    with seen("tokenizer"):
        status, answer = post("tokenize", {"modelUri": f"gpt://{FOLDER}/yandexgpt", "text": "раз два"}, *BY_KEY)
        assert [token["text"] for token in answer["tokens"]] == ["раз", " два"], answer
        assert len(post("tokenizeCompletion", body(CHAT), *BY_KEY)[1]["tokens"]) == 8
    with seen("IAM token for an OAuth token"):
        status, answer = json_of(
            f"{HTTP_URL}/iam/v1/tokens", "--data", json.dumps({"yandexPassportOauthToken": OAUTH_TOKEN})
        )
        token = ("--header", f"Authorization: Bearer {answer['iamToken']}")
        assert post("completion", body(CHAT), *token)[0] == 200
    with seen("errors"):
        refusals = {
            (401, 16): post("completion", body(CHAT), "--header", "Authorization: Api-Key wrong"),
            (400, 3): post("completion", {**body(CHAT), "modelUri": "gpt"}, *BY_KEY),
            (404, 5): json_of(f"{HTTP_URL}/operations/nothing", *BY_KEY),
        }
        for expected, (status, answer) in refusals.items():
            assert (status, answer["code"]) == expected, answer
            assert answer["message"], answer


def body(messages: list[dict[str, str]], *, stream: bool = False) -> dict[str, Any]:
    """A request in the form of the guides: 64-bit numbers are strings."""
    options = {"stream": stream, "temperature": 0.6, "maxTokens": "2000"}
    return {"modelUri": f"gpt://{FOLDER}/yandexgpt-lite", "completionOptions": options, "messages": messages}


def post(method: str, request: dict[str, Any], *arguments: str) -> tuple[int, Any]:
    """Call a method of the models. Return the HTTP status and the response."""
    return json_of(f"{MODELS}/{method}", "--data", json.dumps(request), *arguments)


def json_of(url: str, *arguments: str) -> tuple[int, Any]:
    """Return the HTTP status and the parsed JSON."""
    status, text = curl(url, *arguments)
    return status, json.loads(text)


def curl(url: str, *arguments: str) -> tuple[int, str]:
    """Return the HTTP status and the body."""
    trust = ("--cacert", str(CA)) if CA else ()
    options = ("--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}")
    headers = ("--header", "Content-Type: application/json")
    done = subprocess.run(["curl", *options, *trust, *headers, *arguments, url], stdout=subprocess.PIPE, check=True)
    text, _, status = done.stdout.decode().rpartition("\n")
    return int(status), text


def text_of(result: dict[str, Any]) -> str:
    """The text of an answer."""
    return str(result["alternatives"][0]["message"]["text"])


def without(data: dict[str, Any], name: str) -> dict[str, Any]:
    """The object without one key."""
    return {key: value for key, value in data.items() if key != name}


if __name__ == "__main__":
    main()
