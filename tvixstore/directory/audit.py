"""Everything that a local directory service keeps, gone through: in threads, changing nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tvixstore.castore import Digest, Directory, decode_directory
from tvixstore.directory.closure import walk_closure
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.errors import CorruptData, InvalidData, ReadOnly
from tvixstore.kv import Damage, TableReader

if TYPE_CHECKING:
    from tvixstore.directory.local import LocalDirectoryService
    from tvixstore.pools import Pool

# Directories read in one go; large ones take a millisecond each.
_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows that were looked at: the Directories in them, and which rows are none."""

    done: int
    size: int
    directories: Sequence[Directory]
    damaged: Sequence[Damage]


class DirectoryAudit:
    """The table of one local directory service, which is read in threads of `pool`."""

    def __init__(self, service: LocalDirectoryService, pool: Pool) -> None:
        self._service = service
        self._pool = pool
        self._rows = TableReader(service.table, pool)

    async def count(self) -> int | None:
        return await self._rows.count()

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Every row, held against its key and decoded."""
        after: bytes | None = None
        while rows := await self._rows.page(after, _ROWS):
            directories, suspects = await self._pool.run(_decode_all, rows)
            damaged = [each for each in suspects if await self._is_still(each)]
            yield Page(len(rows), sum(len(row) for _, row in rows), directories, damaged)
            after = rows[-1][0]

    async def check(self, digest: Digest) -> Damage | None:
        """What is wrong with that Directory's row, if it has one and anything is."""
        (row,) = await self._rows.get_many([digest.raw])
        if row is None:
            return None
        _, damaged = await self._pool.run(_decode_all, [(digest.raw, row)])
        return damaged[0] if damaged and await self._is_still(damaged[0]) else None

    async def present(self, digests: Sequence[Digest]) -> list[bool]:
        """Whether each of them is there, in whatever state."""
        heads = await self._rows.heads([digest.raw for digest in digests], 0)
        return [head is not None for head in heads]

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        """As they are on disk. Raises `CorruptData`; they stay where they are."""
        rows = await self._rows.get_many([digest.raw for digest in digests])
        found = [(d.raw, row) for d, row in zip(digests, rows, strict=True) if row is not None]
        directories, damaged = await self._pool.run(_decode_all, found)
        if damaged:
            raise CorruptData(damaged[0].reason)
        by_digest = {directory.digest: directory for directory in directories}
        return [by_digest.get(digest) for digest in digests]

    async def drop(self, digest: Digest, row: bytes) -> bool:
        """Makes it absent, unless something else is in its place by now."""
        return await self._service.drop(digest, row)

    async def _is_still(self, damage: Damage) -> bool:
        return await self._service.table.get(damage.key) == damage.row


class SoundDirectories(DirectoryService):
    """What a local directory service has on disk, for whoever checks it: nothing is dropped."""

    def __init__(self, audit: DirectoryAudit) -> None:
        self._audit = audit

    async def get(self, digest: Digest) -> Directory | None:
        return (await self._audit.get_many([digest]))[0]

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        return await self._audit.get_many(digests)

    async def put(self, directory: Directory) -> Digest:
        raise _refused()

    async def put_many(self, directories: Sequence[Directory]) -> None:
        raise _refused()

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return walk_closure(self.get_many, root)

    async def put_closure(self) -> DirectoryPutter:
        raise _refused()


def _refused() -> ReadOnly:
    return ReadOnly("nothing is written by whoever checks")


def _decode_all(rows: Sequence[tuple[bytes, bytes]]) -> tuple[list[Directory], list[Damage]]:
    """In a thread: the Directories in `rows`, and the rows that hold none."""
    directories = []
    damaged = []
    for key, row in rows:
        digest = Digest(key) if len(key) == 32 else None
        if digest is None or Digest.of(row) != digest:
            damaged.append(Damage(key, f"Directory {key.hex()} does not hash to its digest", row))
            continue
        try:
            directories.append(decode_directory(row))
        except InvalidData as error:
            damaged.append(Damage(key, f"Directory {digest}: {error}", row))
    return directories, damaged
