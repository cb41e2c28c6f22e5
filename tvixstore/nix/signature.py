"""Ed25519 signatures over a path's fingerprint, and the keys that make and verify them.

All three are written `name:base64`. The name says which key to try; it is covered by nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tvixstore.errors import InvalidData
from tvixstore.nix import nixbase32
from tvixstore.nix.store_path import StorePath

SEED_BYTES = 32
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Signature:
    """`name:base64` of 64 bytes."""

    name: str
    data: bytes

    def __post_init__(self) -> None:
        _check("signature", self.name, self.data, SIGNATURE_BYTES)

    @classmethod
    def parse(cls, text: str) -> Signature:
        return cls(*_split("signature", text))

    def __str__(self) -> str:
        return _join(self.name, self.data)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`name:base64` of 32 bytes."""

    name: str
    data: bytes

    def __post_init__(self) -> None:
        _check("public key", self.name, self.data, PUBLIC_KEY_BYTES)

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        return cls(*_split("public key", text))

    def __str__(self) -> str:
        return _join(self.name, self.data)

    def verifies(self, signature: Signature, message: bytes) -> bool:
        """Whether this key made `signature` over `message`; a `KeyRing` is quicker for several."""
        return KeyRing([self]).verifier(message, [signature]) is not None


@dataclass(frozen=True, slots=True)
class SecretKey:
    """`name:base64` of 64 bytes: the seed, then the public key. Neither `repr` nor `str` tell."""

    name: str
    data: bytes = field(repr=False)
    # Making it of the seed takes as long as signing does.
    _private: Ed25519PrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check("secret key", self.name, self.data, SEED_BYTES + PUBLIC_KEY_BYTES)
        private = Ed25519PrivateKey.from_private_bytes(self.data[:SEED_BYTES])
        if private.public_key().public_bytes_raw() != self.data[SEED_BYTES:]:
            raise InvalidData(f"secret key {self.name!r} has a public half that isn't its own")
        object.__setattr__(self, "_private", private)

    @classmethod
    def parse(cls, text: str) -> SecretKey:
        return cls(*_split("secret key", text))

    @classmethod
    def generate(cls, name: str) -> SecretKey:
        """A new one, of the system's randomness."""
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        return cls(name, private.private_bytes_raw() + public)

    @property
    def text(self) -> str:
        """All of it, as `parse` takes it: for the file that it is kept in, and nothing else."""
        return _join(self.name, self.data)

    @property
    def public_key(self) -> PublicKey:
        return PublicKey(self.name, self.data[SEED_BYTES:])

    def sign(self, message: bytes) -> Signature:
        return Signature(self.name, self._private.sign(message))


def fingerprint(
    store_path: StorePath, nar_sha256: bytes, nar_size: int, references: Sequence[StorePath]
) -> bytes:
    """What a signature covers, with the references in the order given."""
    listed = ",".join([str(reference) for reference in references])
    digits = nixbase32.encode(nar_sha256)
    return f"1;{store_path};sha256:{digits};{nar_size};{listed}".encode()


class KeyRing:
    """Public keys that are trusted; the same name may stand for several keys."""

    def __init__(self, keys: Iterable[PublicKey] = ()) -> None:
        self._keys: dict[str, list[Ed25519PublicKey]] = {}
        for key in keys:
            parsed = Ed25519PublicKey.from_public_bytes(key.data)
            self._keys.setdefault(key.name, []).append(parsed)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    @property
    def names(self) -> list[str]:
        """What the keys are called, sorted."""
        return sorted(self._keys)

    def signer(
        self,
        store_path: StorePath,
        nar_sha256: bytes,
        nar_size: int,
        references: Sequence[StorePath],
        signatures: Iterable[Signature],
    ) -> str | None:
        """The name of a trusted key that made one of `signatures`, or `None`.

        Verified over the sorted references first, then over the listed order: old narinfos of
        cache.nixos.org carry signatures over the latter.
        """
        candidates = [signature for signature in signatures if signature.name in self._keys]
        if not candidates:
            return None
        ordered = sorted(set(references), key=StorePath.order)
        message = fingerprint(store_path, nar_sha256, nar_size, ordered)
        name = self.verifier(message, candidates)
        if name is None and ordered != list(references):
            message = fingerprint(store_path, nar_sha256, nar_size, references)
            name = self.verifier(message, candidates)
        return name

    def verifier(self, message: bytes, signatures: Iterable[Signature]) -> str | None:
        """The name of a trusted key that made one of `signatures` over `message`, or `None`."""
        for signature in signatures:
            for key in self._keys.get(signature.name, ()):
                try:
                    key.verify(signature.data, message)
                except InvalidSignature:
                    continue
                return signature.name
        return None


def _split(what: str, text: str) -> tuple[str, bytes]:
    name, _, encoded = text.partition(":")
    try:
        return name, base64.b64decode(encoded, validate=True)
    except ValueError:
        # The text is left out: it may be a secret.
        raise InvalidData(f"{what} {name!r} is not `name:base64`") from None


def _check(what: str, name: str, data: bytes, length: int) -> None:
    if not name or ":" in name or not name.isprintable():
        raise InvalidData(f"{what} has {name!r} for a name")
    if len(data) != length:
        raise InvalidData(f"{what} {name!r} is {len(data)} bytes long, expected {length}")


def _join(name: str, data: bytes) -> str:
    return f"{name}:{base64.b64encode(data).decode()}"
