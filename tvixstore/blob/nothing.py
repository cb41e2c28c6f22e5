"""Has nothing, and takes nothing: in place of services elsewhere, while there is no elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.errors import ReadOnly
from tvixstore.streams import BytesStream, ByteStream


class NoBlobs(BlobService):
    def __repr__(self) -> str:
        return "nothing"

    async def has(self, digest: Digest) -> bool:
        return digest == EMPTY_DIGEST

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        return BytesStream() if digest == EMPTY_DIGEST else None

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        raise ReadOnly("offline: that is elsewhere, and takes no writes now")

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return [] if digest == EMPTY_DIGEST else None
