"""Endpoints of the service: ``host:port`` and TLS."""

from __future__ import annotations

import dataclasses
import ipaddress
import re

from yandexgpt.errors import ConfigurationError

__all__ = ["ENDPOINT", "IAM_ENDPOINT", "OPERATION_ENDPOINT", "Endpoint", "is_loopback", "parse_endpoint"]

ENDPOINT = "llm.api.cloud.yandex.net:443"
OPERATION_ENDPOINT = "operation.api.cloud.yandex.net:443"
IAM_ENDPOINT = "iam.api.cloud.yandex.net:443"


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An endpoint. Frozen.

    Attributes:
        target: ``host:port`` or ``unix:path``.
        tls: True (system roots), the path of a PEM bundle, or False for plaintext.
    """

    target: str
    tls: bool | str

    def __str__(self) -> str:
        return self.target


def parse_endpoint(name: str, target: str, tls: bool | str) -> Endpoint:
    """Check and build an endpoint.

    Args:
        name: the name of the argument, for the error.
        target: ``host:port`` (port 1 to 65535) or ``unix:path``.
        tls: as in :class:`Endpoint`.

    Raises:
        ConfigurationError: ``target`` is neither.
    """
    if not isinstance(target, str):
        raise ConfigurationError(f"{name} must be host:port, got {target!r}")
    target = target.strip()
    if target.startswith("unix:") and target != "unix:":
        return Endpoint(target, tls)
    host, colon, port = target.rpartition(":")
    fits = re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536
    if re.search(r"[\s/@]", target) or not colon or not host or not fits:
        raise ConfigurationError(f"{name} must be host:port, got {target!r}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigurationError(f"{name}: an IPv6 address stands in brackets, [::1]:443; got {target!r}")
    return Endpoint(target, tls)


def is_loopback(target: str) -> bool:
    """Whether the target (``host:port`` or ``unix:path``) is on this machine: a loopback address or a Unix socket."""
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
