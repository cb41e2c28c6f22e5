"""Lets things go wrong on purpose, for drills and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.policy.chaos import Chaos, ChaoticStream
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class ChaosBlobService(BlobWrapper):
    """What `chaos` says becomes of each call of `inner`, writers' calls among them."""

    chaos: Chaos

    async def has(self, digest: Digest) -> bool:
        outcome = await self.chaos.meet("absent")
        return outcome.kind != "absent" and await self.inner.has(digest)

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        return await BlobService.lacking(self, digests)

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        outcome = await self.chaos.meet("absent", "truncate", "corrupt")
        if outcome.kind == "absent":
            return None
        chunks = await self.inner.chunks(digest)
        if not chunks or outcome.kind == "ok":
            return chunks
        if outcome.kind == "truncate":
            return chunks[:-1]
        return [replace(chunks[0], digest=_other(chunks[0].digest)), *chunks[1:]]

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        outcome = await self.chaos.meet("absent", "truncate", "corrupt", "stall", "disconnect")
        if outcome.kind == "absent":
            return None
        stream = await self.inner.open_read(digest, offset, length, size)
        return None if stream is None else ChaoticStream(stream, outcome)

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        return await BlobService.read(self, digest, size)

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        # One that was opened, and nobody hears of it, could not be closed by anybody.
        await self.chaos.meet()
        return _ChaoticWriter(await self.inner.open_write(boundaries), self.chaos)

    async def put(self, data: bytes) -> Digest:
        return await self.chaos.write(lambda: self.inner.put(data))

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await self.chaos.write(lambda: self.inner.put_many(blobs))


def _other(digest: Digest) -> Digest:
    return Digest(bytes([digest.raw[0] ^ 1]) + digest.raw[1:])


@dataclass(eq=False)
class _ChaoticWriter(BlobWriter):
    inner: BlobWriter
    chaos: Chaos

    async def write(self, data: bytes) -> None:
        await self.chaos.write(lambda: self.inner.write(data))

    async def close(self) -> Digest:
        return await self.chaos.write(self.inner.close)

    async def abort(self) -> None:
        await self.inner.abort()
