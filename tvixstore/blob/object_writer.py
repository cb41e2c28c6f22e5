"""Writing one blob into an object store: chunks as they come, the list of them at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3

from tvixstore.blob.breaking import BreakingWriter
from tvixstore.blob.bucket import together
from tvixstore.blob.object_codec import blob_key, chunk_key, encode_chunk_object, encode_stat
from tvixstore.blob.staging import to_the_end
from tvixstore.castore import EMPTY_DIGEST, Digest

if TYPE_CHECKING:
    from tvixstore.blob.chunk_list import Entry
    from tvixstore.blob.chunking import Cutter
    from tvixstore.blob.objectstore import ObjectStoreBlobService

# What is gathered before a thread takes it: the chunks in it are written at the same time.
SLICE_BYTES = 4 << 20


class ObjectWriter(BreakingWriter):
    def __init__(self, service: ObjectStoreBlobService, cutter: Cutter) -> None:
        super().__init__()
        self._service = service
        self._cutter = cutter
        self._parts: list[bytes] = []
        self._waiting = 0
        self._hasher = blake3()
        self._entries: list[Entry] = []

    async def write(self, data: bytes) -> None:
        with self._breaking():
            if data:
                self._parts.append(bytes(data))
                self._waiting += len(data)
            if self._waiting >= SLICE_BYTES:
                await self._store(last=False)

    async def close(self) -> Digest:
        if self._digest is None:
            with self._breaking():
                await self._store(last=True)
                await to_the_end(self._commit())
        assert self._digest is not None
        return self._digest

    async def abort(self) -> None:
        """Chunks that were written stay: others may have come to need them."""
        if self._digest is None:
            self._broken = True
            self._parts.clear()

    async def _store(self, *, last: bool) -> None:
        parts, self._parts, self._waiting = self._parts, [], 0
        pools = self._service.pools
        chunks = await pools.cpu.run(self._cut, parts, last)
        await together([self._put(digest, value) for digest, value in chunks.items()])

    def _cut(self, parts: list[bytes], last: bool) -> dict[bytes, bytes]:
        for part in parts:
            self._hasher.update(part)
        objects = {}
        for chunk in self._cutter.feed(parts, last=last):
            digest, value = encode_chunk_object(chunk)
            self._entries.append((digest, len(chunk)))
            objects[digest] = value
        return objects

    async def _put(self, digest: bytes, value: bytes) -> None:
        if await self._service.lacks_chunk(digest):
            await self._service.bucket.put(chunk_key(digest), value)
            self._service.wrote_chunk(digest)

    async def _commit(self) -> None:
        """The chunks first, those too that somebody else wrote; then the list that names them."""
        digest = Digest(self._hasher.digest()) if self._entries else EMPTY_DIGEST
        bucket = self._service.bucket
        stat = encode_stat(self._entries)
        await bucket.sync(chunk_key(chunk) for chunk, _ in self._entries)
        await bucket.put(blob_key(digest.raw), stat)
        await bucket.sync([blob_key(digest.raw)])
        self._service.wrote_list(digest, stat)
        self._digest = digest
