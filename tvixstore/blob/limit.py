"""Asks no more of a store than it should be asked: calls at a time, bytes a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvixstore.blob.service import BlobWriter, Chunk
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.policy.limit import Limit, Permit, limited, using
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class LimitBlobService(BlobWrapper):
    """Over a store itself, and nothing that asks other services: calls, streams and writers each
    hold a permit of `limit`, and what goes in and out counts against its rate."""

    limit: Limit

    async def has(self, digest: Digest) -> bool:
        async with self.limit.held():
            return await self.inner.has(digest)

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        async with self.limit.held():
            return await self.inner.chunks(digest)

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        async with self.limit.held():
            return await self.inner.lacking(digests)

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        return await limited(self.limit, lambda: self.inner.open_read(digest, offset, length, size))

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        async with self.limit.held():
            data = await self.inner.read(digest, size)
            if data is not None:
                await self.limit.pay(len(data))
            return data

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        permit = await self.limit.acquire()
        try:
            writer = await self.inner.open_write(boundaries)
        except BaseException:
            if permit is not None:
                permit.release()
            raise
        if permit is not None:
            permit.rest()
        return _LimitedWriter(writer, self.limit, permit)

    async def put(self, data: bytes) -> Digest:
        async with self.limit.held():
            await self.limit.pay(len(data))
            return await self.inner.put(data)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        async with self.limit.held():
            await self.limit.pay(sum(map(len, blobs)))
            return await self.inner.put_many(blobs)


@dataclass(eq=False)
class _LimitedWriter(BlobWriter):
    """Holds `permit` until it is closed or aborted."""

    inner: BlobWriter
    limit: Limit
    permit: Permit | None

    async def write(self, data: bytes) -> None:
        with using(self.permit):
            await self.limit.pay(len(data))
            await self.inner.write(data)

    async def close(self) -> Digest:
        with using(self.permit):
            digest = await self.inner.close()
        self._release()
        return digest

    async def abort(self) -> None:
        try:
            await self.inner.abort()
        finally:
            self._release()

    def _release(self) -> None:
        if self.permit is not None:
            self.permit.release()
