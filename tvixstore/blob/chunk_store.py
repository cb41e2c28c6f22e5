"""Chunks by digest: an index table, which holds small ones itself, and files for the others.

A chunk exists when its index entry does; the entry is written last. Every read verifies the chunk.
One that cannot be read any more is dropped from the index, so that whoever needs it stores it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import Counter
from typing import TYPE_CHECKING

from tvixstore.blob.chunk_codec import Record, decode_chunk
from tvixstore.errors import CorruptData, Incomplete, StoreError, Unavailable
from tvixstore.kv.files import storage_error
from tvixstore.log import Logger

if TYPE_CHECKING:
    from tvixstore.blob.chunk_files import ChunkFiles
    from tvixstore.kv import DiskGuard, KeyValue
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
    ) -> None:
        self.index = index
        self.files = files
        self.pools = pools
        self.guard = guard
        # Digests that a commit is about to index, and by how many commits at a time.
        self.committing: Counter[bytes] = Counter()
        # Chunks dropped since start.
        self.dropped = 0
        self._metrics = metrics
        # Held by whoever takes a chunk away: its file is gone a little before its entry.
        self.dropping = asyncio.Lock()

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
            await self.drop(digest, error)
            raise

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
        async with self.dropping:
            # Meanwhile another reader may have dropped it, and a writer stored it anew.
            value = await self.index.get(digest)
            if value is None or await self._may_be_readable(digest, value):
                return False
            try:
                # The file first: while the entry is there, no writer puts a new one in its place.
                await self._remove_file(digest, value)
                await self.index.apply([(digest, None)])
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

    async def _remove_file(self, digest: bytes, value: bytes) -> None:
        size = await self.pools.files.run(self.files.take_away, self.files.path(digest))
        with contextlib.suppress(CorruptData):
            # As much as was counted when it came, whatever it was damaged to.
            size = size and Record.decode(digest, value).stored
        self._forget_bytes(size)

    def _forget_bytes(self, size: int) -> None:
        if size and self.guard is not None:
            self.guard.add("chunks", -size)
