"""Frees what nobody refers to: rows, counts of what they named, and then the files of chunks.

The worklist is in the tables (`counts.py`), so a kill at any moment loses nothing: what was to be
freed is still to be freed, except for files whose rows are gone, which the sweep at start removes.
Each step is one short transaction, because commits of others wait for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from tvixstore.errors import StoreError
from tvixstore.kv.counts import CHUNK_FILES, ROWS, time_in, weight
from tvixstore.kv.holds import DIRECTORY, PATH
from tvixstore.kv.lmdb_table import Database, Transaction
from tvixstore.kv.references import References, node_key_in, object_in, owner
from tvixstore.kv.steps import step

# Objects freed in one transaction, and the seconds after which it takes no more of them.
MOST_OBJECTS: Final = 100
MOST_SECONDS: Final = 0.005
# Seconds for which something may be there before its first parent is.
GRACE: Final = 3600


@dataclass(slots=True)
class Freed:
    """What one transaction freed; its files are still to be unlinked."""

    objects: int = 0
    directories: list[bytes] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    file_bytes: int = 0
    row_bytes: int = 0
    # Where to go on; `None`: there is no more.
    after: bytes | None = None


@dataclass(slots=True)
class Evicted:
    """What became of paths that were to go."""

    paths: list[bytes] = field(default_factory=list)
    # Pinned, or somebody reads them, or is about to write them.
    held: list[bytes] = field(default_factory=list)


class Freeing:
    """Frees in the tables of `references`. One caller at a time, who calls `freed` in the end."""

    def __init__(self, references: References) -> None:
        self._references = references
        self._engine = references.engine
        self._counts = references.counts
        self._holds = references.holds
        self._freeing = references.holds.register()
        self._blobs = self._engine.table("blobs")
        self._chunks = self._engine.table("chunks")
        self._directories = self._engine.table("directories")
        self._paths = self._engine.table("pathinfos")
        self._access = self._engine.table("access")
        self._calculated = self._engine.table("calculated")
        self._pins = self._engine.table("pins")

    async def evict(self, path_hashes: Sequence[bytes]) -> Evicted:
        """Deletes path infos, and what is remembered of them, unless they are pinned or held."""

        def work(txn: Transaction) -> Evicted:
            evicted = Evicted()
            # Said before it is looked who holds what: see `holds.py`.
            self._freeing.update([PATH + path_hash for path_hash in path_hashes])
            for path_hash in path_hashes:
                self._evict(txn, path_hash, evicted)
            step("paths-evicted")
            return evicted

        try:
            return await self._engine.transact(work, 500 * len(path_hashes))
        finally:
            self.settled()

    async def is_due(self) -> bool:
        """Whether there is anything to be freed."""
        return bool(await self._counts.doomed.scan(limit=1))

    async def free(self, after: bytes | None = None) -> Freed:
        """Frees some of what is due, from the first key above `after` on.

        Not to be cancelled. Until the caller says `settled`, whoever looks for one of them waits.
        """
        self._holds.turn()
        return await self._engine.transact(lambda txn: self._free(txn, after), 100 * MOST_OBJECTS)

    def settled(self) -> None:
        """The files of what was freed are unlinked, and caches have forgotten it."""
        self._freeing.clear()
        self._holds.settled()

    async def ripen(self, after: bytes | None = None, limit: int = 1000) -> bytes | None:
        """Has some of what never got a parent go, if it had its time; where to go on."""

        def work(txn: Transaction) -> bytes | None:
            due = self._references.now() - GRACE
            rows = _page(txn, self._counts.unreferenced.database, after, limit)
            for key, row in rows:
                if time_in(row) <= due:
                    txn.delete(key, db=self._counts.unreferenced.database)
                    self._counts.doom(txn, key)
            return rows[-1][0] if len(rows) == limit else None

        return await self._engine.transact(work, 100 * limit)

    def _evict(self, txn: Transaction, path_hash: bytes, evicted: Evicted) -> None:
        row_owner = owner("pathinfos", path_hash)
        root = txn.get(row_owner, db=self._counts.roots.database)
        objects = [] if root is None else object_in(root)
        pinned = txn.get(path_hash, db=self._pins.database) is not None
        if pinned or any(map(self._holds.is_held, [PATH + path_hash, *objects])):
            evicted.held.append(path_hash)
            return
        txn.delete(path_hash, db=self._access.database)
        if (row := txn.pop(path_hash, db=self._paths.database)) is None:
            # Only its last read was left, which was written after it had gone.
            return
        self._counts.grow(txn, ROWS, -weight(path_hash, row))
        if root is not None:
            txn.delete(row_owner, db=self._counts.roots.database)
            txn.delete(node_key_in(root), db=self._calculated.database)
            self._counts.take(txn, objects)
        evicted.paths.append(path_hash)

    def _free(self, txn: Transaction, after: bytes | None) -> Freed:
        rows = _page(txn, self._counts.doomed.database, after, MOST_OBJECTS)
        keys = [key for key, _ in rows]
        # Said before it is looked who holds what: see `holds.py`.
        self._freeing.update(keys)
        free = [key for key in keys if not self._holds.is_held(key)]
        self._freeing.intersection_update(free)
        freed = Freed(after=keys[-1] if len(keys) == MOST_OBJECTS else None)
        until = perf_counter() + MOST_SECONDS
        for key in free:
            self._free_object(txn, key, freed)
            if perf_counter() > until:
                freed.after = key
                break
        step("objects-freed")
        return freed

    def _free_object(self, txn: Transaction, key: bytes, freed: Freed) -> None:
        if self._counts.of(txn, key):
            # Not due at all; that cannot be, and costs nothing to be sure of.
            txn.delete(key, db=self._counts.doomed.database)
            return
        kind, digest = key[:1], key[1:]
        children = (
            self._free_directory(txn, digest, freed)
            if kind == DIRECTORY
            else self._free_blob(txn, digest, freed)
        )
        self._counts.forget(txn, key)
        self._counts.take(txn, children)
        freed.objects += 1

    def _free_directory(self, txn: Transaction, digest: bytes, freed: Freed) -> Collection[bytes]:
        row = txn.pop(digest, db=self._directories.database)
        freed.directories.append(digest)
        if row is None:
            return ()
        self._shrink(txn, digest, row, freed)
        try:
            return self._references.edges.of_directory(digest, row)
        except StoreError:
            # Damaged: what it named counts once too often, and stays until counts are rebuilt.
            return ()

    def _free_blob(self, txn: Transaction, digest: bytes, freed: Freed) -> Collection[bytes]:
        if (row := txn.pop(digest, db=self._chunks.database)) is not None:
            self._shrink(txn, digest, row, freed)
            if size := self._references.file_size(digest, row):
                self._counts.grow(txn, CHUNK_FILES, -size)
                freed.files.append(digest)
                freed.file_bytes += size
        if (row := txn.pop(digest, db=self._blobs.database)) is not None:
            self._shrink(txn, digest, row, freed)
            return self._references.chunks_of(digest, row)
        return ()

    def _shrink(self, txn: Transaction, digest: bytes, row: bytes, freed: Freed) -> None:
        freed.row_bytes += len(row)
        self._counts.grow(txn, ROWS, -weight(digest, row))


def _page(
    txn: Transaction, database: Database, after: bytes | None, limit: int
) -> list[tuple[bytes, bytes]]:
    page: list[tuple[bytes, bytes]] = []
    with txn.cursor(db=database) as cursor:
        found = cursor.first() if after is None else cursor.set_range(after + b"\0")
        while found and len(page) < limit:
            page.append(cursor.item())
            found = cursor.next()
    return page
