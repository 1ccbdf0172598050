"""langchain-community's YandexGPT and ChatYandexGPT. They support only TLS, with a configurable `url`.

Their asynchronous methods request operations from operation.api.cloud.yandex.net and ignore `url`. The proxy in
``grpc_proxy`` connects them to the emulator, whose certificate contains that name.
"""

from __future__ import annotations

import asyncio
import os

from langchain_community.chat_models import ChatYandexGPT
from langchain_community.llms import YandexGPT
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from seen import CA, ENDPOINT, FOLDER, IAM_TOKEN, KEY, refused, seen

SETTINGS = {"url": ENDPOINT, "folder_id": FOLDER, "model_name": "yandexgpt", "max_retries": 1}
MESSAGES = [
    SystemMessage("Отвечай кратко"),
    HumanMessage("раз"),
    AIMessage("два"),
    HumanMessage("три четыре"),
]


def main() -> None:
    """Call invoke, stream and batch, with a key and with a token; then the asynchronous methods."""
    os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = str(CA)
    model = YandexGPT(api_key=KEY, **SETTINGS)
    chat = ChatYandexGPT(api_key=KEY, disable_request_logging=True, **SETTINGS)
    with seen("YandexGPT: invoke"):
        assert model.invoke("раз два три") == "раз два три"
    with seen("YandexGPT: stop"):
        assert model.invoke("раз два три", stop=["два"]) == "раз "
    with seen("YandexGPT: batch"):
        assert model.batch(["раз", "два", "три"]) == ["раз", "два", "три"]
    with seen("YandexGPT: stream"):
        assert "".join(model.stream("раз два")) == "раз два"
    with seen("YandexGPT: IAM token"):
        assert YandexGPT(iam_token=IAM_TOKEN, **SETTINGS).invoke("раз") == "раз"
    with seen("ChatYandexGPT: invoke"):
        assert chat.invoke(MESSAGES).content == "три четыре"
    with seen("ChatYandexGPT: stream"):
        assert "".join(chunk.content for chunk in chat.stream(MESSAGES)) == "три четыре"
    with seen("ChatYandexGPT: chain"):
        prompt = ChatPromptTemplate.from_messages([("system", "Переводи"), ("user", "{text}")])
        assert (prompt | chat).invoke({"text": "раз"}).content == "раз"
    with seen("errors"), refused("UNAUTHENTICATED", "unknown API key"):
        YandexGPT(api_key="wrong", **SETTINGS).invoke("раз")
    asyncio.run(asynchronous(model, chat))


async def asynchronous(model: YandexGPT, chat: ChatYandexGPT) -> None:
    """Call the asynchronous methods, which use operations."""
    with seen("YandexGPT: ainvoke, abatch"):
        alone, several = await asyncio.gather(model.ainvoke("раз два три"), model.abatch(["раз", "два"]))
        assert (alone, several) == ("раз два три", ["раз", "два"])
    with seen("ChatYandexGPT: ainvoke, astream"):
        assert (await chat.ainvoke(MESSAGES)).content == "три четыре"
        assert "".join([chunk.content async for chunk in chat.astream(MESSAGES)]) == "три четыре"


if __name__ == "__main__":
    main()
