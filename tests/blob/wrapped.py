"""Blob services around others, as tests of wrappers need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvixstore.blob import BlobService, BlobWriter, MemoryBlobService
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.errors import StorageFull


@dataclass(eq=False)
class ReadsFrom(BlobWrapper):
    """Reads from `inner`, and writes to `backing`, from where inner gets it."""

    backing: BlobService

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return await self.backing.open_write(boundaries)

    async def put(self, data: bytes) -> Digest:
        return await self.backing.put(data)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await self.backing.put_many(blobs)


class Unwritable(MemoryBlobService):
    """Has no room."""

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        raise StorageFull("the disk is full")
