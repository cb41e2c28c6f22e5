"""Chunks by digest: an index table, which holds small ones itself, and files for the others.

A chunk exists when its index entry does; the entry is written last. Every read verifies the chunk.
One that cannot be read any more is dropped from the index, so that whoever needs it stores it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tvixstore.blob.chunk_codec import Record, decode_chunk, decode_rows
from tvixstore.errors import CorruptData, Incomplete, StoreError, Unavailable
from tvixstore.kv import BLOB
from tvixstore.kv.files import storage_error
from tvixstore.log import Logger

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tvixstore.blob.chunk_files import ChunkFiles
    from tvixstore.castore import FileNode
    from tvixstore.kv import ChunkRow, DiskGuard, KeyValue, References
    from tvixstore.metrics import Metrics
    from tvixstore.pools import Pools

# Chunks up to this size are decompressed and verified in the loop: a thread costs as much.
IN_LOOP_BYTES = 256 << 10
# In a stream there is more to come, so others read and verify while the loop hands out.
IN_LOOP_BYTES_OF_A_STREAM = 32 << 10

# Of a file that is gone, or that the disk cannot read any more; written anew, it can be.
LOST = frozenset({errno.ENOENT, errno.EIO})

_log = Logger(__name__)


class ChunkStore:
    """`index` and `files` of one directory, read and written by one process."""

    def __init__(
        self,
        index: KeyValue,
        files: ChunkFiles,
        pools: Pools,
        guard: DiskGuard | None,
        metrics: Metrics | None,
        references: References | None = None,
    ) -> None:
        self.references = references
        self.index = index
        self.files = files
        self.pools = pools
        self.guard = guard
        # Chunks that a commit is about to make visible, and what tells that it is over.
        self.committing: dict[bytes, asyncio.Future[None]] = {}
        # Chunks dropped since start.
        self.dropped = 0
        self._metrics = metrics
        # Held by whoever takes a chunk away: its file is gone a little before its entry.
        self.dropping = asyncio.Lock()

    async def hold(self, digests: Collection[bytes]) -> None:
        """Before looking for chunks, or blobs, that will not be written if they are there."""
        if self.references is not None:
            await self.references.holds.take([BLOB + digest for digest in digests])

    async def settled(self, digest: bytes) -> None:
        """Returns once nobody is freeing that chunk: its file goes a little after its entry."""
        if self.references is not None:
            (await self.references.holds.hold(BLOB + digest)).release()

    async def begin_commit(self, digests: Collection[bytes]) -> None:
        """Waits until nobody else is about to commit any of `digests`, and keeps others off.

        One at a time: what took another one's place would be counted twice.
        """
        while others := [self.committing[each] for each in digests if each in self.committing]:
            await asyncio.wait(others)
        over = asyncio.get_running_loop().create_future()
        self.committing.update(dict.fromkeys(digests, over))

    def end_commit(self, digests: Collection[bytes]) -> None:
        for future in {self.committing.pop(each) for each in digests}:
            future.set_result(None)

    async def write(self, rows: Sequence[ChunkRow]) -> None:
        """Puts chunks into the index, the files of which are there."""
        if self.references is None:
            await self.index.apply([(each.digest, each.row) for each in rows])
        else:
            await self.references.put_chunks(rows)

    async def load(self, digest: bytes, in_loop: int = IN_LOOP_BYTES) -> bytes | None:
        """The chunk, verified, or `None` if it is absent; `in_loop` bytes are worth no thread.

        Raises `CorruptData` or `Incomplete` for one that was there and cannot be read; it is
        absent from then on. Raises `Unavailable` where trying again may help.
        """
        value = await self.index.get(digest)
        if value is None:
            return None
        try:
            record = Record.decode(digest, value)
            if record.payload is None:
                return await self.pools.files.run(self._read_file, digest, record)
            if record.size <= in_loop:
                return decode_chunk(digest, record, record.payload)
            return await self.pools.cpu.run(decode_chunk, digest, record, record.payload)
        except (CorruptData, Incomplete) as error:
            if await self.index.get(digest) is None:
                # Freed since it was looked up, and nobody held it.
                return None
            await self.drop(digest, error)
            raise

    async def at_hand(self, files: Sequence[FileNode]) -> list[bytes | None]:
        """The contents of small files that are whole in the index, verified.

        In one thread: each of many short calls lets the interpreter's lock go, and two threads
        that do such are slower than one.
        """
        rows = await self.index.get_many([file.digest.raw for file in files])
        return await self.pools.cpu.run(decode_rows, files, rows)

    def _read_file(self, digest: bytes, record: Record) -> bytes:
        try:
            payload = self.files.read(digest, record.stored)
        except OSError as error:
            if error.errno in LOST:
                raise Incomplete(
                    f"the file of chunk {digest.hex()} is lost: {error.strerror}", digest
                ) from error
            raise storage_error(error, self.files.root) from error
        return decode_chunk(digest, record, payload)

    async def drop(self, digest: bytes, reason: StoreError) -> bool:
        """Makes a chunk absent that cannot be read; `False` if it can be, or is absent already."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.dropping)
            if self.references is not None:
                # Nobody frees it, nor then stores it anew, while its file is unlinked here.
                stack.enter_context(await self.references.holds.hold(BLOB + digest))
            # Meanwhile another reader may have dropped it, and a writer stored it anew.
            value = await self.index.get(digest)
            if value is None or await self._may_be_readable(digest, value):
                return False
            try:
                await self._remove(digest, value)
            except (StoreError, OSError) as error:
                _log.error("chunk.not_dropped", chunk=digest.hex(), reason=str(error))
                return False
        self.dropped += 1
        if self._metrics is not None:
            self._metrics.chunks_dropped.inc()
        _log.error("chunk.dropped", chunk=digest.hex(), reason=str(reason))
        return True

    def remove_stray(self, path: str) -> None:
        """Removes a file that no entry is about, in the loop: it takes less than the way to a
        thread, on which a commit could come to use it."""
        self._forget_bytes(self.files.take_away(path))

    async def _may_be_readable(self, digest: bytes, value: bytes) -> bool:
        try:
            record = Record.decode(digest, value)
            if record.payload is None:
                await self.pools.files.run(self._read_file, digest, record)
            else:
                decode_chunk(digest, record, record.payload)
        except (CorruptData, Incomplete):
            return False
        except Unavailable:
            return True
        return True

    async def _remove(self, digest: bytes, value: bytes) -> None:
        # The file first: while the entry is there, no writer puts a new one in its place.
        size = await self.pools.files.run(self.files.take_away, self.files.path(digest))
        if self.references is not None:
            await self.references.drop_chunk(digest, value)
            return
        await self.index.apply([(digest, None)])
        with contextlib.suppress(CorruptData):
            # As much as was counted when it came, whatever it was damaged to.
            size = size and Record.decode(digest, value).stored
        self._forget_bytes(size)

    def _forget_bytes(self, size: int) -> None:
        # With references, what is counted is what the index says.
        if size and self.guard is not None and self.references is None:
            self.guard.add("chunks", -size)
