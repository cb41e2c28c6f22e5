"""Leaves a service alone that keeps failing, so that nobody waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tvixstore.blob.service import BlobWriter, Chunk
from tvixstore.blob.watched import WatchedWriter
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.policy.breaker import Breaker
from tvixstore.streams import ByteStream, WatchedStream


@dataclass(eq=False)
class BreakerBlobService(BlobWrapper):
    """Has every call pass through `breaker`, which also hears of streams and writers that break."""

    breaker: Breaker = field(default_factory=Breaker)

    async def has(self, digest: Digest) -> bool:
        return await self.breaker.run(lambda: self.inner.has(digest))

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return await self.breaker.run(lambda: self.inner.chunks(digest))

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        stream = await self.breaker.run(
            lambda: self.inner.open_read(digest, offset, length, size), download=True
        )
        return None if stream is None else WatchedStream(stream, self.breaker.broke)

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        return await self.breaker.run(lambda: self.inner.read(digest, size), download=True)

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        writer = await self.breaker.run(lambda: self.inner.open_write(boundaries))
        return WatchedWriter(writer, self.breaker.broke)

    async def put(self, data: bytes) -> Digest:
        return await self.breaker.run(lambda: self.inner.put(data), download=True)

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        return await self.breaker.run(lambda: self.inner.lacking(digests), download=True)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await self.breaker.run(lambda: self.inner.put_many(blobs), download=True)
