"""What local stores write: rows together with the counts of what they name (`counts.py`).

Everything here is one transaction each, in the thread that writes: the row, the counts of its
children, and the total size of chunk files never disagree, wherever the process is killed. What
frees is in `freeing.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from tvixstore.castore import Digest, Node, encode_node
from tvixstore.errors import StoreError
from tvixstore.kv.counts import CHUNK_FILES, ROW_TABLES, ROWS, Counts, weight
from tvixstore.kv.holds import BLOB, DIRECTORY, Holds, key_of
from tvixstore.kv.lmdb import LmdbEngine
from tvixstore.kv.lmdb_table import LmdbTable, Transaction
from tvixstore.kv.service import Change

_DIGEST_BYTES = 32
# How full leaf pages are of a table that has only grown; a little less, so that no page of such a
# table looks unused.
_FILL = 0.6


class Edges(Protocol):
    """What stored rows name. Raises `StoreError` for a row that is damaged."""

    def of_directory(self, digest: bytes, row: bytes) -> list[bytes]:
        """The keys of its children, each once."""

    def of_chunk_list(self, digest: bytes, row: bytes) -> list[bytes]:
        """The keys of its chunks, each once."""

    def file_bytes(self, digest: bytes, row: bytes) -> int:
        """The size of a chunk's file; 0 for one that is in its row."""

    def root_of(self, table: str, key: bytes, row: bytes) -> Node | None:
        """The node that a row of that table refers to; `None` where the row does not say."""


class ChunkRow(NamedTuple):
    """A chunk's row; its stored form of `stored` bytes is a file, or in the row itself."""

    digest: bytes
    row: bytes
    stored: int
    in_file: bool


class References:
    """Writes to the tables of `engine`. `holds` are those of the composition."""

    def __init__(
        self,
        engine: LmdbEngine,
        holds: Holds,
        edges: Edges,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.engine = engine
        self.holds = holds
        self.edges = edges
        self.counts = Counts(engine)
        self.now = now
        # As of the last commit: the bytes of all chunks that are files; of the index, those that
        # hold something, and those that what comes can use.
        self.chunk_file_bytes = 0
        self.index_bytes = 0
        self.index_free_bytes = 0
        self._blobs = engine.table("blobs")
        self._chunks = engine.table("chunks")
        self._directories = engine.table("directories")
        self._row_tables = [engine.table(name) for name in ROW_TABLES]
        engine.measure(self._measure)

    def _measure(self, txn: Transaction) -> None:
        self.chunk_file_bytes = self.counts.size(txn, CHUNK_FILES)
        self.index_bytes = self.engine.live_bytes - self._unused_in_leaves(txn)
        self.index_free_bytes = self.engine.used_bytes - self.index_bytes

    def _unused_in_leaves(self, txn: Transaction) -> int:
        """Digests are spread evenly, so what is deleted leaves room in all pages, and no page
        free. What comes is spread as evenly, and goes into that room."""
        page = pages = 0
        for table in self._row_tables:
            stat = txn.stat(table.database)
            page, pages = stat["psize"], pages + stat["leaf_pages"]
        unused = max(0, pages * page - int(self.counts.size(txn, ROWS) / _FILL))
        for table, row_bytes in self.counts.fixed:
            stat = txn.stat(table.database)
            unused += max(0, stat["leaf_pages"] * page - int(stat["entries"] * row_bytes / _FILL))
        return unused

    async def put_chunks(self, rows: Sequence[ChunkRow]) -> None:
        """Stores chunks that were absent. Their files have their names already."""

        def work(txn: Transaction) -> None:
            with txn.cursor(db=self._chunks.database) as cursor:
                cursor.putmulti([(each.digest, each.row) for each in ordered])
            self.counts.grow(txn, CHUNK_FILES, sum(one.stored for one in rows if one.in_file))
            self.counts.grow(txn, ROWS, sum(weight(each.digest, each.row) for each in rows))
            self.counts.appeared(txn, [BLOB + each.digest for each in ordered], self.now())

        # Neighbours go into one page.
        ordered = sorted(rows)
        await self.engine.transact(work, sum(100 + len(each.row) for each in rows))

    async def drop_chunk(self, digest: bytes, row: bytes) -> None:
        """Forgets a chunk whose content is lost, if it still has that row."""

        def work(txn: Transaction) -> None:
            if txn.get(digest, db=self._chunks.database) == row:
                txn.delete(digest, db=self._chunks.database)
                self.counts.grow(txn, CHUNK_FILES, -self.file_size(digest, row))
                self.counts.grow(txn, ROWS, -weight(digest, row))
                self._went(txn, BLOB + digest, self._blobs, self._chunks)

        await self.engine.transact(work)

    async def put_chunk_list(self, digest: bytes, row: bytes, chunks: Sequence[bytes]) -> None:
        """Stores the list of a blob's chunks, in place of another one that it may have."""
        key = BLOB + digest
        children = list(dict.fromkeys(BLOB + chunk for chunk in chunks))

        def work(txn: Transaction) -> None:
            old = txn.get(digest, db=self._blobs.database)
            if old == row:
                return
            txn.put(digest, row, db=self._blobs.database)
            self.counts.grow(txn, ROWS, weight(digest, row) - weight(digest, old))
            if old is None:
                self.counts.appeared(txn, [key], self.now())
            self.counts.add(txn, children)
            if old is not None:
                self.counts.take(txn, self.chunks_of(digest, old))

        await self.engine.transact(work, len(row) + 100 * len(children))

    async def drop_chunk_list(self, digest: bytes, row: bytes) -> None:
        """Forgets a blob's list of chunks, whose chunks are not all there, or which is damaged, if
        it still is that one."""

        def work(txn: Transaction) -> None:
            if txn.get(digest, db=self._blobs.database) != row:
                return
            txn.delete(digest, db=self._blobs.database)
            self.counts.grow(txn, ROWS, -weight(digest, row))
            self._went(txn, BLOB + digest, self._blobs, self._chunks)
            self.counts.take(txn, self.chunks_of(digest, row))

        await self.engine.transact(work)

    async def put_directories(
        self, rows: Sequence[tuple[bytes, bytes]], children: Sequence[Sequence[bytes]]
    ) -> None:
        """Stores Directories (digest and wire form), each with the keys of its children."""

        def work(txn: Transaction) -> None:
            database = self._directories.database
            appeared = []
            grown = 0
            for (digest, row), keys in zip(rows, children, strict=True):
                old = txn.get(digest, db=database)
                if old == row:
                    continue
                txn.put(digest, row, db=database)
                grown += weight(digest, row) - weight(digest, old)
                # One whose row was damaged has the same digest, and so the same children.
                if old is None:
                    key = DIRECTORY + digest
                    appeared.append(key)
                    if not self.counts.find(txn, key):
                        self.counts.add(txn, keys)
            self.counts.appeared(txn, appeared, self.now())
            self.counts.grow(txn, ROWS, grown)

        written = sum(200 + len(row) for _, row in rows) + 100 * sum(map(len, children))
        await self.engine.transact(work, written)

    async def drop_directory(self, digest: bytes, row: bytes) -> None:
        """Forgets a Directory whose row is damaged, or whose children are gone, if it still has
        that row."""

        def work(txn: Transaction) -> None:
            if txn.get(digest, db=self._directories.database) == row:
                txn.delete(digest, db=self._directories.database)
                self.counts.grow(txn, ROWS, -weight(digest, row))
                self._went(txn, DIRECTORY + digest, self._directories)
                try:
                    self.counts.take(txn, self.edges.of_directory(digest, row))
                except StoreError:
                    self.counts.lose(txn, DIRECTORY + digest)

        await self.engine.transact(work)

    async def put_root(
        self,
        table: str,
        key: bytes,
        row: bytes,
        node: Node,
        also: Sequence[tuple[str, Change]] = (),
    ) -> None:
        """Writes a row that refers to `node`, in place of what the key has; `also` other rows.

        The node's tree counts as referred to until `drop_root`, or until the row gets another node.
        """
        where = self.engine.table(table)
        others = [(self.engine.table(name), change) for name, change in also]

        def work(txn: Transaction) -> None:
            if table in ROW_TABLES:
                old = txn.get(key, db=where.database)
                self.counts.grow(txn, ROWS, weight(key, row) - weight(key, old))
            txn.put(key, row, db=where.database)
            self._refer(txn, owner(table, key), root_row(node))
            for other, (at, value) in others:
                if value is None:
                    txn.delete(at, db=other.database)
                else:
                    txn.put(at, value, db=other.database)

        await self.engine.transact(work, 300 + len(row))

    async def drop_root(self, table: str, key: bytes, row: bytes | None = None) -> bool:
        """Deletes such a row, if it still is `row` (`None`: whatever it is); whether it did."""
        where = self.engine.table(table)

        def work(txn: Transaction) -> bool:
            old = txn.get(key, db=where.database)
            if old is None or row not in (None, old):
                return False
            txn.delete(key, db=where.database)
            if table in ROW_TABLES:
                self.counts.grow(txn, ROWS, -weight(key, old))
            self._refer(txn, owner(table, key), None)
            return True

        return await self.engine.transact(work)

    def _went(self, txn: Transaction, key: bytes, *tables: LmdbTable) -> None:
        """A row of an object is gone: with the last one, it no longer waits for a parent."""
        if all(txn.get(key[1:], db=table.database) is None for table in tables):
            self.counts.vanished(txn, key)

    def _refer(self, txn: Transaction, row_owner: bytes, root: bytes | None) -> None:
        """Has a row refer to `root` from now on, as `root_row` wrote it, or to nothing."""
        database = self.counts.roots.database
        old = txn.get(row_owner, db=database)
        if old == root:
            return
        if root is None:
            txn.delete(row_owner, db=database)
        else:
            txn.put(row_owner, root, db=database)
            self.counts.add(txn, object_in(root))
        if old is not None:
            self.counts.take(txn, object_in(old))

    def file_size(self, digest: bytes, row: bytes | None) -> int:
        """The bytes of a chunk's file; 0 if there is none, or nobody can say."""
        if row is None:
            return 0
        try:
            return self.edges.file_bytes(digest, row)
        except StoreError:
            return 0

    def chunks_of(self, digest: bytes, row: bytes) -> list[bytes]:
        """What a list names. Nothing for a damaged one: that counts once too often then, and stays
        until counts are rebuilt."""
        try:
            return self.edges.of_chunk_list(digest, row)
        except StoreError:
            return []


def owner(table: str, key: bytes) -> bytes:
    """What a row that refers to a node is called in `roots`."""
    return table.encode() + b"\0" + key


def root_row(node: Node) -> bytes:
    """What is kept in `roots`: what remembers a node's NAR goes by, and what counts."""
    return Digest.of(encode_node(node)).raw + (key_of(node) or b"")


def object_in(row: bytes) -> list[bytes]:
    """The key of the object that a row of `roots` counts for, if there is one."""
    return [key] if (key := row[_DIGEST_BYTES:]) else []


def node_key_in(row: bytes) -> bytes:
    """What is remembered of that node's NAR is kept under this."""
    return row[:_DIGEST_BYTES]
