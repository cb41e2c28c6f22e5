"""Takes no writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvixstore.blob.service import BlobWriter
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest, FileNode
from tvixstore.errors import ReadOnly


@dataclass(eq=False)
class ReadOnlyBlobService(BlobWrapper):
    """Reads from `inner`; whoever writes gets `ReadOnly`, before a byte was taken."""

    async def at_hand(self, files: Sequence[FileNode]) -> list[bytes | None]:
        return await self.inner.at_hand(files)

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        raise _refusal()

    async def put(self, data: bytes) -> Digest:
        raise _refusal()

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        raise _refusal()


def _refusal() -> ReadOnly:
    return ReadOnly("this blob service was declared readonly")
