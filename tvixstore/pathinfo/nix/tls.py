"""Whom we trust over HTTPS: the system's authorities, and an upstream's own."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from tvixstore.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path


def client_context(name: str, ca_file: Path | None, protocol: str = "http/1.1") -> ssl.SSLContext:
    """Reads certificates: blocks. Raises `Unavailable` for a file that cannot be used, naming it.

    The system's authorities are OpenSSL's, or those in SSL_CERT_FILE and SSL_CERT_DIR.
    """
    named = os.environ.get("SSL_CERT_FILE")
    if named and not os.access(named, os.R_OK):
        # OpenSSL would go on without any authority, and every certificate would look wrong.
        raise Unavailable(f"{name}: certificates in {named} (SSL_CERT_FILE) cannot be read")
    context = ssl.create_default_context()
    # From 3.13 on Python refuses authorities without key usage, which private ones often are, and
    # which every other client of such a cache takes.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols([protocol])
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unavailable(
                f"{name}: certificates in {ca_file} cannot be read: {reason}"
            ) from error
    return context
