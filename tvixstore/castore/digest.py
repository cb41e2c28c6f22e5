"""BLAKE3 digests: the names of blobs and Directories."""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3

from tvixstore.errors import InvalidData

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """32 bytes of BLAKE3."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != DIGEST_BYTES:
            raise InvalidData(f"digest is {len(self.raw)} bytes long, expected {DIGEST_BYTES}")

    @classmethod
    def of(cls, data: bytes) -> Digest:
        return cls(blake3(data).digest())

    @classmethod
    def from_hex(cls, text: str) -> Digest:
        try:
            return cls(bytes.fromhex(text))
        except ValueError:
            raise InvalidData(f"digest {text!r} is not hexadecimal") from None

    def hex(self) -> str:
        return self.raw.hex()

    def __str__(self) -> str:
        return f"b3:{self.raw.hex()}"


# Of no bytes at all: the empty blob, and the Directory without entries, whose wire form is empty.
EMPTY_DIGEST = Digest.of(b"")
