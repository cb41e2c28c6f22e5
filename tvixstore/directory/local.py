"""Directories in a table: each under its digest, in its canonical wire form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tvixstore.castore import Digest, Directory, decode_directory
from tvixstore.directory.audit import DirectoryAudit
from tvixstore.directory.closure import ClosurePutter, walk_closure
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.errors import CorruptData, InvalidData
from tvixstore.kv import DIRECTORY, KeyValue, References, key_of
from tvixstore.log import Logger
from tvixstore.policy.lru import Lru

if TYPE_CHECKING:
    from tvixstore.pools import Pool

_log = Logger(__name__)

# Entries decoded in one go (about 1 ms) before other tasks get their turn.
_ENTRIES_A_TURN = 500


@dataclass(eq=False)
class LocalDirectoryService(DirectoryService):
    """A codec over `table`; the last decoded Directories are kept, `cached_entries` in total.

    With `references`, whose table it then is, what is put counts as referring to its children, and
    what is found present by whoever writes is held.
    """

    table: KeyValue
    cached_entries: int = field(default=50_000, repr=False)
    references: References | None = field(default=None, repr=False)
    # Rows found that were not what their key says.
    corrupt: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._decoded: Lru[bytes, Directory] = Lru(self.cached_entries)
        # Puts begun, and puts under way: one of them may have mended a row that was read before.
        self._puts_begun = 0
        self._puts_running = 0
        # Grows when Directories are freed: what was read before must not be kept any more.
        self._freed = 0

    async def get(self, digest: Digest) -> Directory | None:
        if self.references is not None:
            await self._hold([digest])
        known = self._decoded.get(digest.raw)
        if known is not None:
            return known
        puts_before = self._puts_begun
        row = await self.table.get(digest.raw)
        return None if row is None else await self._read(digest, row, puts_before)

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        await self._hold(digests)
        found = {digest: self._decoded.get(digest.raw) for digest in digests}
        missing = [digest for digest, known in found.items() if known is None]
        if missing:
            puts_before = self._puts_begun
            freed_before = self._freed
            rows = await self.table.get_many([digest.raw for digest in missing])
            entries = 0
            for digest, row in zip(missing, rows, strict=True):
                if row is None:
                    continue
                keep = self._freed == freed_before
                directory = await self._read(digest, row, puts_before, keep=keep)
                found[digest] = directory
                entries += len(directory.entries)
                if entries >= _ENTRIES_A_TURN:
                    entries = 0
                    await asyncio.sleep(0)
        return [found[digest] for digest in digests]

    async def put(self, directory: Directory) -> Digest:
        await self.put_many([directory])
        return directory.digest

    async def put_many(self, directories: Sequence[Directory]) -> None:
        self._puts_begun += 1
        self._puts_running += 1
        try:
            # What is there already is written again: that is cheap, and mends a corrupt row.
            await self._write([(each.digest.raw, each.wire) for each in directories], directories)
        finally:
            self._puts_running -= 1
        for directory in directories:
            self._keep(directory)

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return walk_closure(self.get_many, root)

    async def put_closure(self) -> DirectoryPutter:
        return ClosurePutter(self)

    def audit(self, pool: Pool) -> DirectoryAudit:
        """For whoever goes through all of it, in threads of `pool`."""
        return DirectoryAudit(self, pool)

    async def drop(self, digest: Digest, row: bytes) -> bool:
        """Makes a Directory absent, on disk and in memory, of which `row` is still all there is.

        Not while anything is put: that may be what mends it.
        """
        if await self.table.get(digest.raw) != row or self._puts_running:
            return False
        await self._drop(digest, row)
        self._decoded.discard(digest.raw)
        return True

    def forget(self, digests: Sequence[bytes]) -> None:
        """They were freed: nothing here may say any more that they are present."""
        self._freed += 1
        for digest in digests:
            self._decoded.discard(digest)

    async def _hold(self, digests: Sequence[Digest]) -> None:
        """In the session of a writer: what he finds here he will not write."""
        if self.references is not None and self.references.holds.in_session():
            await self.references.holds.take([DIRECTORY + digest.raw for digest in digests])

    async def _write(
        self, rows: list[tuple[bytes, bytes]], directories: Sequence[Directory]
    ) -> None:
        if self.references is None:
            await self.table.apply(rows)
            return
        await self.references.holds.take([DIRECTORY + digest for digest, _ in rows])
        children = [keys_in(each) for each in directories]
        await self.references.put_directories(rows, children)

    async def _drop(self, digest: Digest, row: bytes) -> None:
        if self.references is None:
            await self.table.apply([(digest.raw, None)])
        else:
            await self.references.drop_directory(digest.raw, row)

    async def _read(
        self, digest: Digest, row: bytes, puts_before: int, *, keep: bool = True
    ) -> Directory:
        """The Directory in `row`, verified; a row that is not what its key says is dropped."""
        reason = "it hashes to something else"
        if Digest.of(row) == digest:
            try:
                directory = decode_directory(row)
            except InvalidData as error:
                reason = str(error)
            else:
                if keep:
                    self._keep(directory)
                return directory
        self.corrupt += 1
        _log.error("directory.corrupt", key=digest, reason=reason)
        if self._puts_running == 0 and self._puts_begun == puts_before:
            await self._drop(digest, row)
        raise CorruptData(f"Directory {digest} is corrupt on disk: {reason}")

    def _keep(self, directory: Directory) -> None:
        self._decoded.put(directory.digest.raw, directory, 1 + len(directory.entries))


def keys_in(directory: Directory) -> list[bytes]:
    """The keys of what `directory` names, each once."""
    keys = {key_of(node): None for _, node in directory}
    keys.pop(None, None)
    return [key for key in keys if key is not None]
