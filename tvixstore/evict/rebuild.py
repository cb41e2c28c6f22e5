"""Counts everything anew: for a state of the version before there were counts, and for repairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tvixstore.errors import StoreError
from tvixstore.kv import BLOB, DIRECTORY, References
from tvixstore.kv.counts import CHUNK_FILES, ROW_TABLES, ROWS, time_row, weight
from tvixstore.kv.lmdb_table import Transaction
from tvixstore.kv.references import object_in, owner, root_row
from tvixstore.log import Logger

# Seconds between two lines that say how far it is.
_PROGRESS: Final = 5.0

_log = Logger("tvixstore.evict")


@dataclass(slots=True)
class Rebuilt:
    """What was counted, and damaged rows that were dropped: nobody knows what they named."""

    rows: int = 0
    dropped: int = 0


async def rebuild(references: References) -> Rebuilt:
    """Counts all references and sizes anew, in one transaction; nobody can write meanwhile."""
    return await references.engine.transact(_Rebuilding(references).work)


def rebuild_now(references: References) -> Rebuilt:
    """The same in this thread, before anybody else writes."""
    return references.engine.transact_now(_Rebuilding(references).work)


class _Rebuilding:
    def __init__(self, references: References) -> None:
        self._references = references
        self._engine = references.engine
        self._counts = references.counts
        self._rows = 0
        self._row_bytes = 0
        self._said = time.monotonic()

    def work(self, txn: Transaction) -> Rebuilt:
        rebuilt = Rebuilt()
        others = self._other_roots(txn)
        for table in self._counts.tables():
            txn.drop(table.database, delete=False)
        edges = self._references.edges
        rebuilt.dropped += self._count(txn, "directories", edges.of_directory)
        rebuilt.dropped += self._count(txn, "blobs", edges.of_chunk_list)
        files = sum(
            self._references.file_size(digest, row) for digest, row in self._each(txn, "chunks")
        )
        self._count_roots(txn)
        for row_owner, root in others:
            txn.put(row_owner, root, db=self._counts.roots.database)
            self._counts.add(txn, object_in(root))
        self._counts.grow(txn, CHUNK_FILES, files)
        self._counts.grow(txn, ROWS, self._row_bytes)
        self._note_unreferenced(txn)
        rebuilt.rows = self._rows
        return rebuilt

    def _each(self, txn: Transaction, name: str) -> Iterator[tuple[bytes, bytes]]:
        with txn.cursor(db=self._engine.table(name).database) as cursor:
            for key, row in cursor:
                self._rows += 1
                if name in ROW_TABLES:
                    self._row_bytes += weight(key, row)
                if time.monotonic() - self._said >= _PROGRESS:
                    self._said = time.monotonic()
                    _log.info("state.counting", path=self._engine.path, table=name, rows=self._rows)
                yield key, row

    def _count(
        self, txn: Transaction, name: str, children: Callable[[bytes, bytes], list[bytes]]
    ) -> int:
        damaged = []
        for digest, row in self._each(txn, name):
            try:
                self._counts.add(txn, children(digest, row))
            except StoreError:
                damaged.append(digest)
                self._row_bytes -= weight(digest, row)
        for digest in damaged:
            txn.delete(digest, db=self._engine.table(name).database)
        return len(damaged)

    def _count_roots(self, txn: Transaction) -> None:
        access = self._engine.table("access").database
        now = int(self._references.now()).to_bytes(8, "big")
        for key, row in self._each(txn, "pathinfos"):
            txn.put(key, now, overwrite=False, db=access)
            try:
                node = self._references.edges.root_of("pathinfos", key, row)
            except StoreError:
                # Whoever reads it next drops it.
                continue
            if node is not None:
                root = root_row(node)
                txn.put(owner("pathinfos", key), root, db=self._counts.roots.database)
                self._counts.add(txn, object_in(root))

    def _other_roots(self, txn: Transaction) -> list[tuple[bytes, bytes]]:
        """Of rows that do not say themselves which node they refer to."""
        others = []
        with txn.cursor(db=self._counts.roots.database) as cursor:
            for row_owner, root in cursor:
                name, _, key = row_owner.partition(b"\0")
                table = self._engine.table(name.decode())
                if name != b"pathinfos" and txn.get(key, db=table.database) is not None:
                    others.append((row_owner, root))
        return others

    def _note_unreferenced(self, txn: Transaction) -> None:
        row = time_row(self._references.now())
        for kind, name in ((DIRECTORY, "directories"), (BLOB, "blobs"), (BLOB, "chunks")):
            with txn.cursor(db=self._engine.table(name).database) as cursor:
                for digest in cursor.iternext(keys=True, values=False):
                    if not self._counts.of(txn, kind + digest):
                        txn.put(kind + digest, row, db=self._counts.unreferenced.database)
