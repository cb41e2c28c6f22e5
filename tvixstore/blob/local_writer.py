"""Writing one blob into a chunk store: cut, hash and compress in threads, slice by slice."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from blake3 import blake3

from tvixstore.blob.breaking import BreakingWriter
from tvixstore.blob.chunk_codec import StoredForm, encode_chunk
from tvixstore.blob.staging import Staging, to_the_end
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.kv import step
from tvixstore.policy.tasks import end

if TYPE_CHECKING:
    from tvixstore.blob.chunk_list import Entry
    from tvixstore.blob.chunk_lists import ChunkLists
    from tvixstore.blob.chunking import Cutter
    from tvixstore.pools import Pools

# What is gathered before a thread takes it: a hop for each piece of the network would cost more
# than the work. Three slices are in memory at a time: being filled, being cut, being written.
SLICE_BYTES = 2 << 20
# Work on so few bytes takes less time than the way to a thread.
IN_LOOP_BYTES = 32 << 10


class LocalBlobWriter(BreakingWriter):
    def __init__(
        self, staging: Staging, lists: ChunkLists, cutter: Cutter, pools: Pools, *, compress: bool
    ) -> None:
        super().__init__()
        self._staging = staging
        self._lists = lists
        self._cutter = cutter
        self._pools = pools
        self._compress = compress
        self._parts: list[bytes | memoryview] = []
        self._waiting = 0
        # Slices in the works: one is cut while the chunks of the one before go to the disk.
        self._cutting: asyncio.Task[None] | None = None
        self._storing: asyncio.Task[None] | None = None
        self._hasher = blake3()
        self._entries: list[Entry] = []

    async def write(self, data: bytes) -> None:
        with self._breaking():
            view = memoryview(data)
            while len(view) >= (room := SLICE_BYTES - self._waiting):
                self._parts.append(view[:room])
                view = view[room:]
                await self._all_cut()
                parts, self._parts, self._waiting = self._parts, [], 0
                self._cutting = asyncio.create_task(self._cut_then_store(parts))
            if view:
                self._parts.append(view)
                self._waiting += len(view)

    async def close(self) -> Digest:
        if self._digest is None:
            with self._breaking():
                await self._all_cut()
                chunks = await self._cut_last()
                await self._all_stored()
                await self._staging.add(chunks)
                await to_the_end(self._commit())
        assert self._digest is not None
        return self._digest

    async def abort(self) -> None:
        if self._digest is None:
            self._broken = True
            async with contextlib.AsyncExitStack() as stack:
                # Last in, first out: the task that cuts may be about to start the one that stores.
                stack.push_async_callback(self._staging.discard)
                stack.push_async_callback(lambda: _end(self._storing))
                stack.push_async_callback(lambda: _end(self._cutting))

    async def _all_cut(self) -> None:
        """Waits for the slice that is being cut, and raises what became of it."""
        if self._cutting is not None:
            await self._cutting
            self._cutting = None

    async def _all_stored(self) -> None:
        if self._storing is not None:
            await self._storing
            self._storing = None

    async def _cut_then_store(self, parts: list[bytes | memoryview]) -> None:
        chunks = await self._pools.background.run(self._cut, parts, False)
        await self._all_stored()
        self._storing = asyncio.create_task(self._staging.add(chunks))

    async def _cut_last(self) -> list[StoredForm]:
        parts, self._parts = self._parts, []
        if not self._entries and self._waiting <= IN_LOOP_BYTES:
            return self._cut(parts, True)
        return await self._pools.background.run(self._cut, parts, True)

    def _cut(self, parts: list[bytes | memoryview], last: bool) -> list[StoredForm]:
        chunks = self._cutter.feed(parts, last=last)
        if not (last and not self._entries and len(chunks) <= 1):
            # Not of a blob that is one chunk: their digests are the same.
            for part in parts:
                self._hasher.update(part)
        stored = [encode_chunk(chunk, compress=self._compress) for chunk in chunks]
        self._entries += [(one.digest, one.size) for one in stored]
        return stored

    async def _commit(self) -> None:
        await self._staging.commit()
        if not self._entries:
            self._digest = EMPTY_DIGEST
        elif len(self._entries) == 1:
            self._digest = Digest(self._entries[0][0])
        else:
            digest = self._hasher.digest()
            await self._lists.put(digest, self._entries)
            step("blob-listed")
            self._digest = Digest(digest)


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        await end([task])
