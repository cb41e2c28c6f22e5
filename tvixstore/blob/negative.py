"""Remembers what was absent, so that asking again costs nothing for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tvixstore.blob.arrivals import tell_of
from tvixstore.blob.service import BlobWriter, Chunk
from tvixstore.blob.watched import WatchedWriter
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
        async def committed(digest: Digest) -> None:
            await tell_of(self.inner, [(digest, None)], self.absences)

        writer = await self.inner.open_write(boundaries)
        return WatchedWriter(writer, on_commit=committed, on_doubt=self.absences.forget)

    async def put(self, data: bytes) -> Digest:
        return (await self.put_many([data]))[0]

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        try:
            digests = await self.inner.put_many(blobs)
        except BaseException:
            # They may have arrived all the same, with chunks that nobody has listed.
            self.absences.forget()
            raise
        sizes = map(len, blobs)
        await tell_of(self.inner, list(zip(digests, sizes, strict=True)), self.absences)
        return digests
