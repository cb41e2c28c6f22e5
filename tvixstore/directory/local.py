"""Directories in a table: each under its digest, in its canonical wire form."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from tvixstore.castore import Digest, Directory, decode_directory
from tvixstore.directory.closure import ClosurePutter, walk_closure
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.errors import CorruptData, InvalidData
from tvixstore.kv import KeyValue
from tvixstore.log import Logger
from tvixstore.policy.lru import Lru

_log = Logger(__name__)


@dataclass(eq=False)
class LocalDirectoryService(DirectoryService):
    """A codec over `table`, which keeps what was decoded last: about `cached_entries` entries."""

    table: KeyValue
    cached_entries: int = 50_000
    # Rows that did not hash to their key.
    corrupt: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._decoded: Lru[bytes, Directory] = Lru(self.cached_entries)
        # Puts begun, and puts under way: no row is dropped that one of them may have mended.
        self._puts_begun = 0
        self._puts_running = 0

    async def get(self, digest: Digest) -> Directory | None:
        known = self._decoded.get(digest.raw)
        if known is not None:
            return known
        puts_before = self._puts_begun
        return await self._read(digest, await self.table.get(digest.raw), puts_before)

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        found = {digest: self._decoded.get(digest.raw) for digest in digests}
        missing = [digest for digest, known in found.items() if known is None]
        if missing:
            puts_before = self._puts_begun
            rows = await self.table.get_many([digest.raw for digest in missing])
            for digest, row in zip(missing, rows, strict=True):
                found[digest] = await self._read(digest, row, puts_before)
        return [found[digest] for digest in digests]

    async def put(self, directory: Directory) -> Digest:
        await self.put_many([directory])
        return directory.digest

    async def put_many(self, directories: Sequence[Directory]) -> None:
        self._puts_begun += 1
        self._puts_running += 1
        try:
            # Present ones are written again: it costs little, and mends a row that went bad.
            await self.table.apply([(each.digest.raw, each.wire) for each in directories])
        finally:
            self._puts_running -= 1
        for directory in directories:
            self._keep(directory)

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return walk_closure(self, root)

    async def put_closure(self) -> DirectoryPutter:
        return ClosurePutter(self)

    async def _read(
        self, digest: Digest, row: bytes | None, puts_before: int
    ) -> Directory | None:
        """The Directory in `row`, verified; a row that is not what its key says is dropped."""
        if row is None:
            return None
        reason = "its row hashes to something else"
        if Digest.of(row) == digest:
            try:
                directory = decode_directory(row)
            except InvalidData as error:
                reason = str(error)
            else:
                self._keep(directory)
                return directory
        self.corrupt += 1
        _log.error("directory.corrupt", key=digest, reason=reason)
        if self._puts_running == 0 and self._puts_begun == puts_before:
            await self.table.apply([(digest.raw, None)])
        raise CorruptData(f"Directory {digest} is corrupt on disk: {reason}")

    def _keep(self, directory: Directory) -> None:
        self._decoded.put(directory.digest.raw, directory, 1 + len(directory.entries))
