"""BlobService: blobs and chunks, by digest; and our own service, for many small ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from grpclib.const import Status

from tvixstore.activity import Activity
from tvixstore.blob import BlobService, Chunk
from tvixstore.castore import Digest, FileNode
from tvixstore.rpc.messages import StatBlob
from tvixstore.rpc.server.refusals import Refusal, absent
from tvixstore.rpc.server.uploads import Sending
from tvixstore.streams import ByteStream

# Of one message of a stream of bytes, at most.
_PIECE: Final = 256 * 1024
# Of a message of whole blobs, at most; and what each of them counts for beyond its bytes.
_BATCH: Final = 1 << 20
_OVERHEAD: Final = 64
# Of a chunk in a list of chunks, at most: tags, lengths, the digest, the size.
_CHUNK_BYTES: Final = 48
# Of a digest in a list of digests: tag, length, the digest.
_DIGEST_BYTES: Final = 34


async def pieces(stream: ByteStream) -> AsyncGenerator[bytes, None]:
    """What `stream` gives, in parts that make messages; closes it."""
    async with stream:
        async for part in stream:
            if len(part) <= _PIECE:
                yield part
                continue
            for start in range(0, len(part), _PIECE):
                yield part[start : start + _PIECE]


@dataclass(eq=False, slots=True)
class BlobHandlers:
    blobs: BlobService
    # A longer list of chunks does not fit into a message. None at all is always right.
    message_bytes: int
    activity: Activity

    async def stat(self, request: StatBlob) -> Sequence[Chunk]:
        if not request.send_chunks:
            if not await self.blobs.has(request.digest):
                raise absent(f"blob {request.digest}")
            return ()
        if (chunks := await self.blobs.chunks(request.digest)) is None:
            raise absent(f"blob {request.digest}")
        return chunks if 1 < len(chunks) <= self.message_bytes // _CHUNK_BYTES else ()

    async def lacking(self, digests: Sequence[Digest]) -> Sequence[Digest]:
        return list(await self.blobs.lacking(digests))

    async def at_hand(self, files: Sequence[FileNode]) -> AsyncGenerator[Sequence[bytes], None]:
        part: list[FileNode] = []
        size = 0
        for file in files:
            if file.size > _BATCH:
                continue
            if part and size + file.size > _BATCH:
                yield await self._at_hand(part)
                part, size = [], 0
            part.append(file)
            # What it is in a message, and to whoever holds it.
            size += file.size + _OVERHEAD
        yield await self._at_hand(part)

    async def _at_hand(self, files: Sequence[FileNode]) -> Sequence[bytes]:
        return [data for data in await self.blobs.at_hand(files) if data is not None]

    async def put_many(self, batches: AsyncGenerator[Sequence[bytes], None]) -> Sequence[Digest]:
        # Empty blobs cost their sender two bytes each, and us a digest until the call is over.
        most = self.message_bytes // _DIGEST_BYTES
        digests: list[Digest] = []
        with Sending(self.activity, "blobs") as sending:
            async for batch in batches:
                if len(digests) + len(batch) > most:
                    raise Refusal(
                        Status.RESOURCE_EXHAUSTED,
                        f"more blobs than one reply can name: put at most {most} in a call",
                    )
                sending.received += sum(map(len, batch))
                digests += await self.blobs.put_many(batch)
        return digests

    async def read(self, digest: Digest) -> AsyncGenerator[bytes, None]:
        if (stream := await self.blobs.open_read(digest)) is None:
            raise absent(f"blob {digest}")
        async with aclosing(pieces(stream)) as parts:
            async for part in parts:
                yield part

    async def put(self, parts: AsyncGenerator[bytes, None]) -> Digest:
        with Sending(self.activity, "a blob") as sending:
            async with await self.blobs.open_write() as writer:
                async for part in parts:
                    sending.received += len(part)
                    await writer.write(part)
                return await writer.close()
