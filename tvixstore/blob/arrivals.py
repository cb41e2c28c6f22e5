"""What a blob that was written brings with it: its chunks can be read by their own digests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvixstore.blob.service import BlobService, BlobWriter
from tvixstore.blob.watched import WatchedWriter
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.errors import StoreError
from tvixstore.policy.negative import Absences, Arrivals

Told: TypeAlias = Absences[Digest] | Arrivals[Digest]

# No store cuts smaller chunks.
_NOT_CUT = 2 << 10


async def tell_of(
    service: BlobService, blobs: Sequence[tuple[Digest, int | None]], told: Told
) -> None:
    """Tells `told` that `blobs`, by digest and size if that is known, were put into `service`.

    Where nobody can say which chunks came with them, or who put them leaves, nothing is taken for
    absent any more.
    """
    come = [digest for digest, _ in blobs]
    tell = told.arrived if isinstance(told, Absences) else told.announce
    try:
        for digest, size in blobs:
            if size is None or size > _NOT_CUT:
                come += [chunk.digest for chunk in await service.chunks(digest) or ()]
    except (StoreError, OSError):
        told.forget()
    except BaseException:
        told.forget()
        raise
    tell(come)


async def open_write_telling(
    service: BlobService, boundaries: Sequence[int] | None, told: Told
) -> BlobWriter:
    """A writer into `service`, what is committed to which `told` hears of."""

    async def committed(digest: Digest) -> None:
        await tell_of(service, [(digest, None)], told)

    writer = await service.open_write(boundaries)
    return WatchedWriter(writer, on_commit=committed, on_doubt=told.forget)


async def put_telling(service: BlobService, blobs: Sequence[bytes], told: Told) -> list[Digest]:
    """Puts `blobs` into `service`, of which `told` hears."""
    try:
        digests = await service.put_many(blobs)
    except BaseException:
        # They may have arrived all the same, with chunks that nobody has listed.
        told.forget()
        raise
    sizes = map(len, blobs)
    await tell_of(service, list(zip(digests, sizes, strict=True)), told)
    return digests


@dataclass(eq=False)
class AnnouncingBlobService(BlobWrapper):
    """Has `arrivals` tell everybody of what is put into `inner`, or may have been."""

    arrivals: Arrivals[Digest]

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return await open_write_telling(self.inner, boundaries, self.arrivals)

    async def put(self, data: bytes) -> Digest:
        return (await self.put_many([data]))[0]

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await put_telling(self.inner, blobs, self.arrivals)
