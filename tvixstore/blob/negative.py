"""Remembers what was absent, so that asking again costs nothing for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tvixstore.blob.arrivals import open_write_telling, put_telling
from tvixstore.blob.service import BlobWriter, Chunk
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.policy.negative import Absences
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class NegativeBlobService(BlobWrapper):
    """Answers from `absences`; what is put through here is there at once."""

    absences: Absences[Digest] = field(default_factory=Absences)

    async def has(self, digest: Digest) -> bool:
        return bool(
            await self.absences.ask(
                digest, lambda: self.inner.has(digest), lambda answer: not answer
            )
        )

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return await self.absences.ask(digest, lambda: self.inner.chunks(digest))

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        return await self.absences.ask(
            digest, lambda: self.inner.open_read(digest, offset, length, size)
        )

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        return await self.absences.ask(digest, lambda: self.inner.read(digest, size))

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return await open_write_telling(self.inner, boundaries, self.absences)

    async def put(self, data: bytes) -> Digest:
        return (await self.put_many([data]))[0]

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await put_telling(self.inner, blobs, self.absences)
