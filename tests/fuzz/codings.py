"""Accept-Encoding, as clients send it, and key files."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fuzz.target import Target, of_text
from tvixstore.compose.key_files import parse_secret_key
from tvixstore.http.codings import PREFERRED, Coding, accepted
from tvixstore.nix import SecretKey

_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_KEY = bytes(range(32)) + _PRIVATE.public_key().public_bytes_raw()


def _accepted_law(data: bytes, codings: list[Coding]) -> None:
    assert len(set(codings)) == len(codings) and set(codings) <= set(PREFERRED)


def _secret_key_law(data: bytes, key: SecretKey) -> None:
    assert parse_secret_key(data) == key


CODINGS: dict[str, Target[Any]] = {
    "accept-encoding": Target(
        of_text(accepted),
        [b"zstd, gzip;q=0.5, *;q=0", b"identity;q=0", b"*", b"x-gzip ; Q=1.000,,br"],
        _accepted_law,
        (),
        words=(b";q=", b",", b"*", b"0.000", b"identity", b"zstd", b" \t", b"\xd9\xa3"),
    ),
    "secret-key": Target(
        parse_secret_key,
        [
            b"key-1:" + base64.b64encode(_KEY) + b"\n",
            b"rev-1:oCtRMpjx7VPxItBLwaB3ZOixP+OQ6m30n0uEQPQ+PFM=",
        ],
        _secret_key_law,
    ),
}
