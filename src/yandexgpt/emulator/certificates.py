"""A certificate authority and a server certificate, created for one run of the emulator."""

from __future__ import annotations

import datetime
import ipaddress
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from yandexgpt.emulator.server_sockets import is_any_address

__all__ = ["Certificates", "TlsFiles", "issue"]

_LIFETIME = datetime.timedelta(days=365)
_CLOCK_SKEW = datetime.timedelta(hours=1)
"""How far the clock of a client may be behind."""
_NAMES = ("localhost", "127.0.0.1", "::1", "*.api.cloud.yandex.net")
"""The hosts of the service are for clients with fixed addresses. A hosts file or a proxy redirects these clients."""


@dataclass(frozen=True)
class Certificates:
    """PEM data: the certificate of the authority, and the certificate and key of the server."""

    authority: bytes
    server: bytes
    server_key: bytes = field(repr=False)


def issue(names: Iterable[str] = ()) -> Certificates:
    """Create an authority and a server certificate for localhost, the hosts of the service and the given names.

    Args:
        names: further host names or IP addresses.

    Raises:
        ImportError: ``cryptography`` is not installed; the extra ``yandexgpt[emulator]`` installs it.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID
    except ImportError as error:
        raise ImportError("tls=True needs the package cryptography: pip install 'yandexgpt[emulator]'") from error

    now = datetime.datetime.now(datetime.timezone.utc)

    def name(common_name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])

    def alternative(host: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            return x509.DNSName(host)

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(authority_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + _LIFETIME)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs,
            key_cert_sign=signs,
            crl_sign=signs,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )

    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = name("yandexgpt emulator CA")
    authority = (
        builder("yandexgpt emulator CA", authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server_key = ec.generate_private_key(ec.SECP256R1())
    hosts = dict.fromkeys((*_NAMES, *names))
    server = (
        builder("yandexgpt emulator", server_key)
        .add_extension(x509.SubjectAlternativeName([alternative(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return Certificates(
        authority=authority.public_bytes(pem),
        server=server.public_bytes(pem),
        server_key=server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


class TlsFiles:
    """A server certificate and its authority as files in a temporary directory.

    Args:
        host: a further host name or IP address for the certificate, see :func:`issue`.

    Attributes:
        authority: the file that clients must trust.
        certificate, key: the files of the server.

    Raises:
        ImportError: the extra ``yandexgpt[emulator]`` is not installed.
    """

    def __init__(self, host: str) -> None:
        made = issue([] if is_any_address(host) else [host])
        self._folder = tempfile.TemporaryDirectory(prefix="yandexgpt-emulator-")
        folder = Path(self._folder.name)
        self.authority, self.certificate, self.key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
        try:
            self.authority.write_bytes(made.authority)
            self.certificate.write_bytes(made.server)
            self.key.write_bytes(made.server_key)
        except BaseException:
            self.close()
            raise

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials of a gRPC server."""
        return grpc.ssl_server_credentials([(self.key.read_bytes(), self.certificate.read_bytes())])

    def close(self) -> None:
        """Delete the files."""
        self._folder.cleanup()
