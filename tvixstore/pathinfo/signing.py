"""Signs what is put.

A signature is over the path's fingerprint alone, so it can be made wherever the path info is; those
of others stay beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from tvixstore.nix import SecretKey, StorePath, fingerprint
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.wrapper import PathInfoWrapper

Described = TypeVar("Described", bound=Description)


@dataclass(frozen=True, slots=True)
class Signer:
    """Adds the signature of `key`."""

    key: SecretKey

    def signed(self, description: Described) -> Described:
        """`description` with our signature behind all others; the same object if it has it."""
        # Nix sorts, so everybody verifies over the sorted references; the listed order stays.
        references = sorted(set(description.references), key=StorePath.order)
        message = fingerprint(
            description.store_path, description.nar_sha256, description.nar_size, references
        )
        # Ed25519 is deterministic: what was signed before has these very bytes.
        ours = self.key.sign(message)
        if ours in description.signatures:
            return description
        return replace(description, signatures=(*description.signatures, ours))


@dataclass(eq=False)
class SigningPathInfoService(PathInfoWrapper):
    """Whatever is put into `inner` is signed first, once."""

    signer: Signer

    async def put(self, info: PathInfo) -> PathInfo:
        return await self.inner.put(self.signer.signed(info))
