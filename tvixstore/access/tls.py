"""Certificates of our own, and of clients: files in, contexts for both front doors out.

A context is made anew whenever a file changes, and never changed: so nothing of an authority that
was taken out remains, its clients' sessions included.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

from tvixstore.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime

# What the kinds of TLS 1.2 that HTTP/2 forbids are not among.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_PEM: Final = "it has to be in PEM form, which begins with -----BEGIN"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What TLS connections are made with, and until when clients will take it."""

    http: ssl.SSLContext
    grpc: ssl.SSLContext
    expires: datetime


def read_certificate(cert: Path, key: Path, client_ca: Path | None = None) -> Certificate:
    """Reads the files: blocks. With `client_ca`, gRPC is for clients that it signed.

    Raises `ConfigError`, one line, which names the file and says what to do.
    """
    leaf = _certificates("tls_cert", cert)[0]
    if b"ENCRYPTED" in _bytes_of("tls_key", key):
        raise ConfigError(
            f"tls_key: {key} is encrypted, and nobody is there to be asked for its passphrase: "
            "take that off, for instance with `openssl pkey`"
        )
    grpc = _context(cert, key, "h2")
    if client_ca is not None:
        _certificates("client_ca", client_ca)
        grpc.verify_mode = ssl.CERT_REQUIRED
        # An authority that is subject to another is one too.
        grpc.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        grpc.load_verify_locations(cafile=client_ca)
    return Certificate(_context(cert, key, "http/1.1"), grpc, leaf.not_valid_after_utc)


def _context(cert: Path, key: Path, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([protocol])
    try:
        # With a passphrase nothing asks for one on a terminal.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"tls_key: {key} is not the key of the first certificate in {cert}: "
                "that has to be the server's own, before those of its authorities"
            ) from None
        reason = (error.reason or "unknown").lower().replace("_", " ")
        raise ConfigError(f"tls_key: {key} cannot be used ({reason}): {_PEM}") from None
    except OSError as error:
        raise _unreadable("tls_cert", cert, error) from None
    return context


def _certificates(name: str, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_bytes_of(name, path))
    except ValueError:
        raise ConfigError(f"{name}: {path} has no certificate in it: {_PEM}") from None


def _bytes_of(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(name, path, error) from None


def _unreadable(name: str, path: Path, error: OSError) -> ConfigError:
    reason = error.strerror or type(error).__name__
    return ConfigError(
        f"{name}: {path} cannot be read: {reason}; name a file that this user can read"
    )
