"""Writing one blob into a chunk store: cut, hash and compress in threads, slice by slice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from blake3 import blake3

from tvixstore.blob.chunk_codec import StoredForm, encode_chunk
from tvixstore.blob.chunk_list import encode_chunk_list
from tvixstore.blob.service import BlobWriter
from tvixstore.blob.staging import Staging, to_the_end
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.errors import Unsupported
from tvixstore.kv import step
from tvixstore.policy.tasks import end

if TYPE_CHECKING:
    from tvixstore.blob.chunk_list import Entry
    from tvixstore.blob.chunking import Cutter
    from tvixstore.kv import KeyValue
    from tvixstore.pools import Pools

# What is gathered before a thread takes it: a hop for each piece of the network would cost more
# than the work. Two slices are in memory at a time, one being filled and one being worked on.
SLICE_BYTES = 2 << 20
# Work on so few bytes takes less time than the way to a thread.
IN_LOOP_BYTES = 32 << 10


class LocalBlobWriter(BlobWriter):
    def __init__(
        self, staging: Staging, blobs: KeyValue, cutter: Cutter, pools: Pools, *, compress: bool
    ) -> None:
        self._staging = staging
        self._blobs = blobs
        self._cutter = cutter
        self._pools = pools
        self._compress = compress
        self._parts: list[bytes | memoryview] = []
        self._waiting = 0
        self._working: asyncio.Task[None] | None = None
        self._hasher = blake3()
        self._entries: list[Entry] = []
        self._digest: Digest | None = None
        self._aborted = False

    async def write(self, data: bytes) -> None:
        self._check_open()
        view = memoryview(data)
        while len(view) >= (room := SLICE_BYTES - self._waiting):
            self._parts.append(view[:room])
            view = view[room:]
            await self._settle()
            parts, self._parts, self._waiting = self._parts, [], 0
            self._working = asyncio.create_task(self._take(parts))
        if view:
            self._parts.append(view)
            self._waiting += len(view)

    async def close(self) -> Digest:
        if self._digest is None:
            self._check_open()
            await self._settle()
            await self._take(self._parts, last=True)
            self._parts = []
            await to_the_end(self._commit())
        assert self._digest is not None
        return self._digest

    async def abort(self) -> None:
        if self._digest is not None or self._aborted:
            return
        self._aborted = True
        self._parts.clear()
        try:
            if self._working is not None:
                await end([self._working])
        finally:
            await self._staging.discard()

    def _check_open(self) -> None:
        if self._aborted or self._digest is not None:
            raise Unsupported("this blob writer is closed")

    async def _settle(self) -> None:
        """Waits for the slice being worked on, and raises what became of it."""
        if self._working is not None:
            await self._working
            self._working = None

    async def _take(self, parts: list[bytes | memoryview], *, last: bool = False) -> None:
        if last and self._waiting <= IN_LOOP_BYTES and not self._entries:
            chunks = self._cut(parts, last)
        else:
            chunks = await self._pools.cpu.run(self._cut, parts, last)
        self._entries += [(one.digest, one.size) for one in chunks]
        await self._staging.add(chunks)

    def _cut(self, parts: list[bytes | memoryview], last: bool) -> list[StoredForm]:
        chunks = self._cutter.feed(parts, last=last)
        if not (last and not self._entries and len(chunks) <= 1):
            # Not of a blob that is one chunk: their digests are the same.
            for part in parts:
                self._hasher.update(part)
        return [encode_chunk(chunk, compress=self._compress) for chunk in chunks]

    async def _commit(self) -> None:
        await self._staging.commit()
        if not self._entries:
            self._digest = EMPTY_DIGEST
        elif len(self._entries) == 1:
            self._digest = Digest(self._entries[0][0])
        else:
            digest = self._hasher.digest()
            await self._blobs.apply([(digest, encode_chunk_list(digest, self._entries))])
            step("blob-listed")
            self._digest = Digest(digest)
