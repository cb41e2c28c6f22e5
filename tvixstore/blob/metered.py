"""Counts what a node of the composition is asked, how it answers, and how much it delivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tvixstore.blob.service import BlobWriter, Chunk
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest, FileNode
from tvixstore.metrics import NodeMeter
from tvixstore.policy.observe import ObservedStream, observed
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class MeteredBlobService(BlobWrapper):
    """Reports each call of `inner` to `meter`; of a writer, its opening."""

    meter: NodeMeter = field(repr=False)

    async def has(self, digest: Digest) -> bool:
        return await observed(self.meter, "has", self.inner.has(digest), lambda answer: not answer)

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        return await observed(self.meter, "lacking", self.inner.lacking(digests))

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return await observed(self.meter, "chunks", self.inner.chunks(digest))

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        opening = self.inner.open_read(digest, offset, length, size)
        stream = await observed(self.meter, "open_read", opening)
        return None if stream is None else ObservedStream(stream, self.meter)

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        data = await observed(self.meter, "read", self.inner.read(digest, size))
        if data is not None:
            self.meter.bytes.inc(len(data))
        return data

    async def at_hand(self, files: Sequence[FileNode]) -> list[bytes | None]:
        contents = await observed(self.meter, "at_hand", self.inner.at_hand(files))
        self.meter.bytes.inc(sum(len(data) for data in contents if data is not None))
        return contents

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return await observed(self.meter, "open_write", self.inner.open_write(boundaries))

    async def put(self, data: bytes) -> Digest:
        return await observed(self.meter, "put", self.inner.put(data))

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await observed(self.meter, "put_many", self.inner.put_many(blobs))
