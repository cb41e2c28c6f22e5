"""What all wrappers of one blob service have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.castore import Digest
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class BlobWrapper(BlobService):
    """Passes every call on to `inner`; a policy overrides those that it is about."""

    inner: BlobService

    async def has(self, digest: Digest) -> bool:
        return await self.inner.has(digest)

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self.inner.lacking(digests)

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        return await self.inner.open_read(digest, offset, length, size)

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return await self.inner.open_write(boundaries)

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return await self.inner.chunks(digest)

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        return await self.inner.read(digest, size)

    async def put(self, data: bytes) -> Digest:
        return await self.inner.put(data)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await self.inner.put_many(blobs)
