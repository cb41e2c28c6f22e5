"""Asks again when the answer could not be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tvixstore.blob.service import BlobWriter, Chunk
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.policy.retry import Retry
from tvixstore.streams import ByteStream, started


@dataclass(eq=False)
class RetryBlobService(BlobWrapper):
    """Retries reads until their first piece is there, and writes of what is in memory: put twice,
    they are the same blob. What was streamed in or out in part is not repeated here."""

    retry: Retry = field(default_factory=Retry)

    async def has(self, digest: Digest) -> bool:
        return await self.retry.run(lambda: self.inner.has(digest))

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return await self.retry.run(lambda: self.inner.chunks(digest))

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        return await self.retry.run(
            lambda: started(self.inner.open_read(digest, offset, length, size))
        )

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        return await self.retry.run(lambda: self.inner.read(digest, size))

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return await self.retry.run(lambda: self.inner.open_write(boundaries))

    async def put(self, data: bytes) -> Digest:
        return await self.retry.run(lambda: self.inner.put(data))

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self.retry.run(lambda: self.inner.lacking(digests))

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await self.retry.run(lambda: self.inner.put_many(blobs))
