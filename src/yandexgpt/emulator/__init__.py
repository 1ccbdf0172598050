"""An emulator of the YandexGPT service: a real gRPC server on loopback, for tests without an account or a network.

::

    with yandexgpt.emulator.Emulator() as emulator:
        client = emulator.client()
        emulator.reply("Ответ", partials=["От", "Отв"], delay=0.02)
        emulator.fail("UNAVAILABLE", times=2, retry_after=0.1)
        emulator.rule(match={"text": "погода"}, answer="Солнечно")
        ...
        emulator.requests

A :class:`FaultProxy` in front of the emulator plays network faults::

    with FaultProxy(upstream=emulator.endpoint) as proxy:
        client = emulator.client(endpoint=proxy.endpoint)
        proxy.inject(Fault("break", after=2))               # break the connection after two messages

See :class:`Emulator` for its default answers.
"""

from yandexgpt.emulator.fault_proxy.faults import ErrorCode, Fault
from yandexgpt.emulator.fault_proxy.proxy import FaultProxy
from yandexgpt.emulator.identity import Identity
from yandexgpt.emulator.metadata_server import MetadataServer
from yandexgpt.emulator.received import Metadata, RecordedRequest
from yandexgpt.emulator.server import Emulator

__all__ = [
    "Emulator",
    "ErrorCode",
    "Fault",
    "FaultProxy",
    "Identity",
    "Metadata",
    "MetadataServer",
    "RecordedRequest",
]
