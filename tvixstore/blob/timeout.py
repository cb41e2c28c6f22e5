"""Gives up waiting for an answer; never on a stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.blob.service import BlobService, Chunk
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.policy.timeout import Timeout
from tvixstore.streams import ByteStream, started


@dataclass(eq=False)
class TimeoutBlobService(BlobWrapper):
    """Bounds short reads, and the wait for a stream's first piece, by `timeout`.

    How long a whole blob takes, read or written, depends on its size, so nothing here bounds that:
    whoever reads the network knows whether it still moves.
    """

    timeout: Timeout = field(default_factory=Timeout)

    async def has(self, digest: Digest) -> bool:
        return await self.timeout.run(lambda: self.inner.has(digest))

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return await self.timeout.run(lambda: self.inner.chunks(digest))

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        return await self.timeout.run(
            lambda: started(self.inner.open_read(digest, offset, length, size))
        )

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        # By way of `open_read`: its first piece is waited for so long, and not all of it.
        return await BlobService.read(self, digest, size)
