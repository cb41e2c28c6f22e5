"""Ed25519 signatures over a path's fingerprint, and the keys that are trusted to make them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tvixstore.nix.store_path import StorePath


@dataclass(frozen=True, slots=True)
class Signature:
    """`name:base64` of 64 bytes."""

    name: str
    data: bytes

    @classmethod
    def parse(cls, text: str) -> Signature: ...

    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`name:base64` of 32 bytes."""

    name: str
    data: bytes

    @classmethod
    def parse(cls, text: str) -> PublicKey: ...

    def verifies(self, signature: Signature, message: bytes) -> bool: ...


def fingerprint(
    store_path: StorePath, nar_sha256: bytes, nar_size: int, references: Sequence[StorePath]
) -> bytes:
    """What a signature covers, with the references in the order given."""


class KeyRing:
    """Public keys that are trusted; the same name may stand for several keys."""

    def __init__(self, keys: Iterable[PublicKey] = ()) -> None: ...

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
