"""What is known of a store path: its description, and with the root node its path info."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tvixstore.castore import Node
from tvixstore.nix import ContentAddress, Signature, StorePath


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A narinfo's worth: everything but the content. `references` in the order listed."""

    store_path: StorePath
    nar_sha256: bytes
    nar_size: int
    references: tuple[StorePath, ...] = ()
    signatures: tuple[Signature, ...] = ()
    deriver: StorePath | None = None
    ca: ContentAddress | None = None

    def same_nar(self, other: Description) -> bool:
        """Whether both promise the same bytes: NAR hash and size."""
        return self.nar_sha256 == other.nar_sha256 and self.nar_size == other.nar_size


@dataclass(frozen=True, slots=True, kw_only=True)
class PathInfo(Description):
    """A description with the root node that was verified to render to its NAR."""

    node: Node

    @classmethod
    def of(cls, description: Description, node: Node) -> PathInfo:
        """`description` with its content."""
        known = {field.name: getattr(description, field.name) for field in fields(Description)}
        return cls(**known, node=node)
