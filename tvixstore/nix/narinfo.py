"""narinfo files: one path of a binary cache, as `Key: value` lines."""

from __future__ import annotations

from dataclasses import dataclass

from tvixstore.nix.content_address import ContentAddress
from tvixstore.nix.hashes import NixHash
from tvixstore.nix.signature import Signature
from tvixstore.nix.store_path import StorePath


@dataclass(frozen=True, slots=True)
class NarInfo:
    """A parsed narinfo; `references` in the order listed, hashes as raw bytes."""

    store_path: StorePath
    url: str
    compression: str
    nar_sha256: bytes
    nar_size: int
    references: tuple[StorePath, ...] = ()
    file_hash: NixHash | None = None
    file_size: int | None = None
    deriver: StorePath | None = None
    system: str | None = None
    signatures: tuple[Signature, ...] = ()
    ca: ContentAddress | None = None

    @classmethod
    def parse(cls, text: str) -> NarInfo:
        """Raises `InvalidData`, naming the line, on what Nix would call corrupt."""

    def __str__(self) -> str:
        """In the order of keys that Nix writes; ends with a newline."""
