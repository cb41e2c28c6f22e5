"""Chunks on their way into a chunk store: nothing of them can be seen before `commit`.

Larger ones are written to files without their final names at once, so that memory stays bounded;
small ones wait in memory. Everything becomes visible in one group of index entries.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from tvixstore.errors import StorageFull
from tvixstore.kv import Refused, step
from tvixstore.kv.files import storage_error
from tvixstore.log import Logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable

    from tvixstore.blob.chunk_codec import StoredForm
    from tvixstore.blob.chunk_store import ChunkStore
    from tvixstore.kv import ChunkRow

# Stored forms up to this size go into the index.
MAX_INLINE_BYTES = 64 << 10
# What may wait in memory for the commit; after that, small ones become files too.
MAX_WAITING_BYTES = 8 << 20
# Threads that wait for the disk at once when every file has to be synced.
SYNC_THREADS = 4

Result = TypeVar("Result")

_log = Logger(__name__)


class Staging:
    """The new chunks of one blob, or of several small ones. Ends with `commit` or `discard`."""

    def __init__(self, store: ChunkStore, *, durable: bool) -> None:
        self._store = store
        self._durable = durable
        self._inline: dict[bytes, ChunkRow] = {}
        self._inline_bytes = 0
        # Chunks in files, and the names of those files for now. Their bytes are not held here.
        self._files: dict[bytes, tuple[str, ChunkRow]] = {}
        # Bytes in those files that the guard knows of.
        self._staged = 0

    async def add(self, chunks: Iterable[StoredForm]) -> None:
        """Takes those chunks that the store does not have. Raises `StorageFull`."""
        new = {one.digest: one for one in chunks if not self._has(one.digest)}
        await self._store.hold(new)
        fresh = [new[digest] for digest in await self._absent(list(new))]
        guard = self._store.guard
        size = sum(one.stored for one in fresh)
        if guard is not None and not await guard.makes_room(size):
            raise Refused(f"{self._store.files.root}: {guard.why_not(size)}")
        to_write = []
        for chunk in fresh:
            if self._fits_inline(chunk):
                self._inline[chunk.digest] = chunk.inline_row()
                self._inline_bytes += chunk.stored
            else:
                # Known before it exists: whatever happens, `discard` removes it.
                path = self._store.files.incoming_name()
                self._files[chunk.digest] = (path, chunk.file_row())
                self._stage(chunk.stored)
                to_write.append((path, chunk.payload))
        if to_write:
            await self._reporting(self._write(to_write))

    async def commit(self) -> None:
        """Makes the chunks visible, durably. To be run to its end, whoever is cancelled."""
        staged = self._inline | {digest: row for digest, (_, row) in self._files.items()}
        committing = list(staged)
        await self._store.begin_commit(committing)
        try:
            rows = [staged[digest] for digest in await self._absent(committing)]
            publish = [(self._files[one.digest][0], one.digest) for one in rows if one.in_file]
            try:
                await self._reporting(self._publish(publish, rows))
            except BaseException:
                await self._withdraw([digest for _, digest in publish])
                raise
        finally:
            self._store.end_commit(committing)
        kept = sum(self._files.pop(digest)[1].stored for _, digest in publish)
        self._staged -= kept
        if self._store.guard is not None:
            self._store.guard.keep(kept, sum(one.stored for one in rows))
        await self.discard()

    async def discard(self) -> None:
        """Forgets what was not committed."""
        self._inline.clear()
        files, self._files = self._files, {}
        if not files:
            return
        self._stage(-self._staged)
        paths = [path for path, _ in files.values()]
        try:
            await self._store.pools.files.run(self._store.files.remove, paths)
        except asyncio.CancelledError:
            # Perhaps before a thread came to it, so it is done here: nothing may be left.
            self._store.files.remove(paths)
            raise

    def _fits_inline(self, chunk: StoredForm) -> bool:
        return (
            chunk.stored <= MAX_INLINE_BYTES
            and self._inline_bytes + chunk.stored <= MAX_WAITING_BYTES
        )

    def _has(self, digest: bytes) -> bool:
        return digest in self._inline or digest in self._files

    def _stage(self, change: int) -> None:
        self._staged += change
        if self._store.guard is not None:
            self._store.guard.stage("chunks", change)

    async def _absent(self, digests: list[bytes]) -> list[bytes]:
        return await self._store.index.absent(digests)

    async def _write(self, files: list[tuple[str, bytes | memoryview]]) -> None:
        run, write = self._store.pools.files.run, self._store.files.write
        # Without syncing one thread is busy enough; with it, threads mostly wait.
        shares = min(SYNC_THREADS, len(files)) if self._durable else 1
        # All of them end before this does, so that no file comes up after `discard`.
        outcomes = await asyncio.gather(
            *[run(write, files[share::shares]) for share in range(shares)], return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _publish(self, files: list[tuple[str, bytes]], rows: list[ChunkRow]) -> None:
        if files:
            await self._store.pools.files.run(self._store.files.publish, files)
        await self._store.write(rows)
        step("chunks-indexed")

    async def _withdraw(self, digests: list[bytes]) -> None:
        """Removes files that got their names and no index entry."""
        store = self._store
        lost = await self._absent(digests)
        await store.pools.files.run(store.files.remove, [store.files.path(d) for d in lost])

    async def _reporting(self, work: Awaitable[None]) -> None:
        """Does `work`, with the errors of files as ours and a full disk made known."""
        try:
            try:
                await work
            except OSError as error:
                raise storage_error(error, self._store.files.root) from error
        except StorageFull as error:
            if self._store.guard is not None:
                self._store.guard.failed(self._staged + self._inline_bytes, str(error))
            raise


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Does all of `work`; who is cancelled meanwhile gets that when it is over."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("commit.failed_after_cancellation", reason=str(error))
        raise
