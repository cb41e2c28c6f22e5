"""How many refer to each object: the tables, and what is done to them within a transaction.

Keys are those of objects where nothing else is said; `docs/design.md` has the bytes.

refs          how many stored parents name it; 0: the last one is gone
unreferenced  since when it is there, and no parent has named it yet
doomed        its count fell to 0, so it is due
lost          its own row was damaged and dropped; what it named still counts its edges
roots         under a table's name and a key in it: the node that this row refers to
sizes         under `CHUNK_FILES`, the bytes of all chunks that are files; under `ROWS`, what the
              rows of `ROW_TABLES` take in leaf pages

An object's key is a kind and a digest. A blob and a chunk of one digest are one object. An edge
counts once for each stored parent, however often that names the child; children need not be there
when their parent is put, then the count waits for them.

So every object that is there and that nobody refers to is in `unreferenced` or in `doomed`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from tvixstore.kv.lmdb import LmdbEngine
from tvixstore.kv.lmdb_table import LmdbTable, Transaction

_COUNT: Final = struct.Struct("<I")
_NONE: Final = _COUNT.pack(0)
_ONE: Final = _COUNT.pack(1)
_TIME: Final = struct.Struct(">Q")
_SIZE: Final = struct.Struct("<q")
CHUNK_FILES: Final = b"chunk-files"
ROWS: Final = b"rows"
# Tables whose rows differ in size, so that what they take has to be counted.
ROW_TABLES: Final = ("blobs", "chunks", "directories", "pathinfos")
# Of LMDB's: what a row costs besides its key and value, and above which a value has its own pages.
_ROW_BYTES: Final = 10
_MOST_IN_LEAF: Final = 2038


class Counts:
    """Rows in the tables of `engine`; every method belongs into a transaction of it that writes."""

    def __init__(self, engine: LmdbEngine) -> None:
        self.refs = engine.table("refs")
        self.unreferenced = engine.table("unreferenced")
        self.doomed = engine.table("doomed")
        self.lost = engine.table("lost")
        self.roots = engine.table("roots")
        self.sizes = engine.table("sizes")
        # Tables of rows of one size, and the bytes that a row takes in a leaf page.
        self.fixed = (
            (self.refs, 47),
            (self.unreferenced, 51),
            (self.doomed, 43),
            (self.roots, 105),
            (engine.table("access"), 38),
            (engine.table("calculated"), 91),
        )

    def tables(self) -> tuple[LmdbTable, ...]:
        """Those that follow from all others, and can be counted anew."""
        return (self.refs, self.unreferenced, self.doomed, self.lost, self.roots, self.sizes)

    def add(self, txn: Transaction, keys: Iterable[bytes]) -> None:
        """Another parent names `keys`."""
        refs = self.refs.database
        for key in keys:
            row = txn.get(key, db=refs)
            if row is None:
                txn.put(key, _ONE, db=refs)
                txn.delete(key, db=self.unreferenced.database)
                continue
            count = _COUNT.unpack(row)[0]
            if not count:
                txn.delete(key, db=self.doomed.database)
            txn.put(key, _COUNT.pack(count + 1), db=refs)

    def take(self, txn: Transaction, keys: Iterable[bytes]) -> None:
        """One parent less names `keys`."""
        refs = self.refs.database
        for key in keys:
            count = self.of(txn, key)
            if count > 1:
                txn.put(key, _COUNT.pack(count - 1), db=refs)
            else:
                self.doom(txn, key)

    def of(self, txn: Transaction, key: bytes) -> int:
        row = txn.get(key, db=self.refs.database)
        return 0 if row is None else count_in(row)

    def appeared(self, txn: Transaction, keys: Iterable[bytes], now: float) -> None:
        """`keys` are there, from now on."""
        row = time_row(now)
        refs = self.refs.database
        alone = []
        for key in keys:
            count = txn.get(key, db=refs)
            if count == _NONE:
                # What was due was an older one, and that is gone.
                txn.delete(key, db=refs)
                txn.delete(key, db=self.doomed.database)
            elif count is not None:
                continue
            alone.append((key, row))
        with txn.cursor(db=self.unreferenced.database) as cursor:
            cursor.putmulti(alone)

    def vanished(self, txn: Transaction, key: bytes) -> None:
        """The object is no longer there; whoever names it still does."""
        txn.delete(key, db=self.unreferenced.database)

    def doom(self, txn: Transaction, key: bytes) -> None:
        txn.put(key, _NONE, db=self.refs.database)
        txn.put(key, b"", db=self.doomed.database)

    def forget(self, txn: Transaction, key: bytes) -> None:
        """The object is gone, and nobody names it."""
        for table in (self.refs, self.unreferenced, self.doomed, self.lost):
            txn.delete(key, db=table.database)

    def lose(self, txn: Transaction, key: bytes) -> None:
        """The object's row is gone; what it named keeps its counts until the row is back."""
        txn.put(key, b"", db=self.lost.database)

    def find(self, txn: Transaction, key: bytes) -> bool:
        """The object's row is back; says whether what it names has its counts already."""
        return txn.delete(key, db=self.lost.database)

    def size(self, txn: Transaction, what: bytes) -> int:
        """`CHUNK_FILES` or `ROWS`."""
        row = txn.get(what, db=self.sizes.database)
        return 0 if row is None else size_in(row)

    def grow(self, txn: Transaction, what: bytes, change: int) -> None:
        """That becomes more, or less."""
        if change:
            size = self.size(txn, what) + change
            txn.put(what, _SIZE.pack(size), db=self.sizes.database)


def weight(key: bytes, row: bytes | None) -> int:
    """The bytes that a row takes in a leaf page; 0 for none."""
    if row is None:
        return 0
    size = _ROW_BYTES + len(key) + len(row)
    return size if size <= _MOST_IN_LEAF else _ROW_BYTES + 8 + len(key)


def size_in(row: bytes) -> int:
    size: int = _SIZE.unpack(row)[0]
    return size


def count_in(row: bytes) -> int:
    count: int = _COUNT.unpack(row)[0]
    return count


def time_row(now: float) -> bytes:
    return _TIME.pack(int(now))


def time_in(row: bytes) -> int:
    time: int = _TIME.unpack(row)[0]
    return time
