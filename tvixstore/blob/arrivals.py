"""What a blob that was written brings with it: its chunks can be read by their own digests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvixstore.blob.service import BlobService, BlobWriter
from tvixstore.blob.watched import WatchedWriter
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.errors import StoreError
from tvixstore.policy.negative import Absences, Arrivals

# No store cuts smaller chunks.
_NOT_CUT = 2 << 10


async def tell_of(
    service: BlobService,
    blobs: Sequence[tuple[Digest, int | None]],
    told: Absences[Digest] | Arrivals[Digest],
) -> None:
    """Tells `told` that `blobs`, by digest and size if that is known, were put into `service`."""
    come = [digest for digest, _ in blobs]
    tell = told.arrived if isinstance(told, Absences) else told.announce
    try:
        for digest, size in blobs:
            if size is None or size > _NOT_CUT:
                come += [chunk.digest for chunk in await service.chunks(digest) or ()]
    except (StoreError, OSError):
        # Which chunks came is not known, so none is taken for absent any more.
        told.forget()
    tell(come)


@dataclass(eq=False)
class AnnouncingBlobService(BlobWrapper):
    """Has `arrivals` tell everybody of what is put into `inner`."""

    arrivals: Arrivals[Digest]

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        async def committed(digest: Digest) -> None:
            await tell_of(self.inner, [(digest, None)], self.arrivals)

        return WatchedWriter(await self.inner.open_write(boundaries), on_commit=committed)

    async def put(self, data: bytes) -> Digest:
        digest = await self.inner.put(data)
        await tell_of(self.inner, [(digest, len(data))], self.arrivals)
        return digest

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        digests = await self.inner.put_many(blobs)
        sizes = map(len, blobs)
        await tell_of(self.inner, list(zip(digests, sizes, strict=True)), self.arrivals)
        return digests
