"""A blob service that fills up while it is written to."""

from __future__ import annotations

from collections.abc import Sequence

from tvixstore.blob import BlobWriter, MemoryBlobService
from tvixstore.castore import Digest
from tvixstore.errors import StorageFull


class FillsUp(MemoryBlobService):
    """Takes so many bytes of large blobs, and then no more."""

    room = 1 << 20

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return _Filling(self, await super().open_write(boundaries))


class _Filling(BlobWriter):
    def __init__(self, service: FillsUp, inner: BlobWriter) -> None:
        self._service = service
        self._inner = inner

    async def write(self, data: bytes) -> None:
        self._service.room -= len(data)
        if self._service.room < 0:
            raise StorageFull("no space left")
        await self._inner.write(data)

    async def close(self) -> Digest:
        return await self._inner.close()

    async def abort(self) -> None:
        await self._inner.abort()
