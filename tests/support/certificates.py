"""A private certificate authority, made for a test."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path


# No two authorities have the same name.
_numbers = count(1)

_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Authority:
    """`ca_file` is what others have to trust; `server` is for whoever listens, from `chain`."""

    ca_file: Path
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    @property
    def chain(self) -> Path:
        return self.ca_file.with_name("server.pem")

    @property
    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain)
        return context

    def issue(self, file: Path, *names: str, days: float = 30) -> Path:
        """Makes `file`: a key and its certificate, for 127.0.0.1 and `names`."""
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's cache")])
        certificate = (
            _certificate(subject, key.public_key(), self.name, days)
            .add_extension(
                x509.SubjectAlternativeName([address, *(x509.DNSName(name) for name in names)]),
                critical=False,
            )
            # Without it, and an authority's key usage, Python 3.13 and later believe nothing.
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return file


def make_authority(folder: Path, *names: str) -> Authority:
    """An authority, and a server certificate of it for 127.0.0.1 and `names`."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"a test's authority {next(_numbers)}")]
    )
    certificate = (
        _certificate(name, key.public_key(), name, 30)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(folder / "ca.pem", key, name)
    authority.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    authority.issue(authority.chain, *names)
    return authority


def _certificate(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
    )
