"""A key to sign with, the same each time."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tvixstore.nix import SecretKey


def secret_key(name: str) -> SecretKey:
    """The key of that name."""
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    return SecretKey(name, private.private_bytes_raw() + private.public_key().public_bytes_raw())


SECRET_KEY = secret_key("test-1")
