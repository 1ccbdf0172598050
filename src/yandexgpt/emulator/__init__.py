"""A stand-in for the service on loopback: a real gRPC server to test against, without an account or the network.

::

    with yandexgpt.emulator.Emulator() as emulator:
        client = emulator.client()
        emulator.reply("Ответ", partials=["От", "Отв"], delay=0.02)
        emulator.fail("UNAVAILABLE", times=2, retry_after=0.1)
        emulator.rule(match={"text": "погода"}, answer="Солнечно")
        ...
        emulator.requests

A broken network is played by a :class:`FaultProxy` in front of it::

    with FaultProxy(upstream=emulator.endpoint) as proxy:
        client = emulator.client(endpoint=proxy.endpoint)
        proxy.inject(Fault("break", after=2))               # cut the connection after two messages

See :class:`Emulator` for what it answers when nothing is scripted.
"""

from yandexgpt.emulator.fault_proxy.faults import ErrorCode, Fault
from yandexgpt.emulator.fault_proxy.proxy import FaultProxy
from yandexgpt.emulator.identity import Identity
from yandexgpt.emulator.metadata_server import MetadataServer
from yandexgpt.emulator.recording import Metadata, RecordedRequest
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
