"""Whether what was counted adds up: for `verify`, and for tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tvixstore.errors import StoreError
from tvixstore.kv import BLOB, DIRECTORY, References
from tvixstore.kv.counts import CHUNK_FILES, ROW_TABLES, ROWS, count_in, weight
from tvixstore.kv.lmdb_table import Transaction
from tvixstore.kv.references import object_in, owner, root_row
from tvixstore.pools import Pools


async def check(references: References, chunks: Path | None, pools: Pools) -> list[str]:
    """What does not add up, a line each: counts of references, sizes, and files below `chunks`.

    Reads one state of the index, however many write meanwhile; of files that came or went since
    then nothing is said. Holds some 200 bytes for each object in memory.
    """
    return await pools.background.run(_check, references, chunks)


def _check(references: References, chunks: Path | None) -> list[str]:
    with references.engine.begin() as txn:
        checking = _Checking(references, txn)
        checking.counts()
        checking.sizes()
    if chunks is None:
        return checking.found
    # Looked at in this order: a file whose row was there, and which went since, has no row now.
    present = dict(_files(chunks))
    with references.engine.begin() as txn:
        checking.files(txn, present)
    return checking.found


class _Checking:
    def __init__(self, references: References, txn: Transaction) -> None:
        self._references = references
        self._engine = references.engine
        self._counts = references.counts
        self._txn = txn
        self._rows: dict[bytes, int] = {}
        self.found: list[str] = []

    def counts(self) -> None:
        expected, objects = self._expected()
        lost = bool(self._keys("lost"))
        counted = {key: count_in(row) for key, row in self._each("refs")}
        doomed, unreferenced = self._keys("doomed"), self._keys("unreferenced")
        for key in expected.keys() | counted.keys():
            has, should = counted.get(key, 0), expected[key]
            # What a lost Directory names counts, and nobody can say what that is.
            if has != should and not (lost and has > should):
                self.found.append(f"{_shown(key)}: counted {has} references, there are {should}")
            if counted.get(key) == 0 and key not in doomed:
                self.found.append(f"{_shown(key)}: nobody refers to it, and it is not due")
        for key in objects - counted.keys() - unreferenced:
            self.found.append(f"{_shown(key)}: nobody refers to it, and nobody noticed")
        for key in doomed:
            if counted.get(key) != 0:
                self.found.append(f"{_shown(key)}: is due with {counted.get(key)} references")
        for key in unreferenced & counted.keys():
            self.found.append(f"{_shown(key)}: has references, and is said to have none")
        for key in unreferenced - objects:
            self.found.append(f"{_shown(key)}: is said to be there, and is not")

    def _expected(self) -> tuple[Counter[bytes], set[bytes]]:
        """How many refer to each object; and the objects that are there."""
        expected: Counter[bytes] = Counter()
        objects: set[bytes] = set()
        edges = self._references.edges
        for name, kind, children in (
            ("directories", DIRECTORY, edges.of_directory),
            ("blobs", BLOB, edges.of_chunk_list),
        ):
            for digest, row in self._each(name):
                objects.add(kind + digest)
                try:
                    expected.update(children(digest, row))
                except StoreError as error:
                    self.found.append(f"{_shown(kind + digest)}: {error}")
        objects.update(BLOB + digest for digest in self._keys("chunks"))
        for row_owner, root in self._each("roots"):
            expected.update(object_in(root))
            self._check_owner(row_owner, root)
        for key, _ in self._each("pathinfos"):
            if self._txn.get(owner("pathinfos", key), db=self._counts.roots.database) is None:
                self.found.append(f"path {key.hex()}: its root is not counted")
        return expected, objects

    def _check_owner(self, row_owner: bytes, root: bytes) -> None:
        name, _, key = row_owner.partition(b"\0")
        row = self._txn.get(key, db=self._engine.table(name.decode()).database)
        if row is None:
            self.found.append(f"{name.decode()} {key.hex()}: is gone, and its root still counted")
            return
        try:
            node = self._references.edges.root_of(name.decode(), key, row)
        except StoreError as error:
            self.found.append(f"{name.decode()} {key.hex()}: {error}")
            return
        if node is not None and root_row(node) != root:
            self.found.append(f"{name.decode()} {key.hex()}: another root is counted than it has")

    def sizes(self) -> None:
        files = sum(self._references.file_size(digest, row) for digest, row in self._each("chunks"))
        rows = sum(weight(key, row) for name in ROW_TABLES for key, row in self._each(name))
        for what, size in ((CHUNK_FILES, files), (ROWS, rows)):
            if (counted := self._counts.size(self._txn, what)) != size:
                self.found.append(f"size of {what.decode()}: counted {counted} bytes, are {size}")
        self._rows = {
            digest: size
            for digest, row in self._each("chunks")
            if (size := self._references.file_size(digest, row))
        }

    def files(self, txn: Transaction, present: dict[bytes, int]) -> None:
        database = self._engine.table("chunks").database
        for digest, size in self._rows.items():
            if present.get(digest) != size and txn.get(digest, db=database) is not None:
                has = present.get(digest)
                self.found.append(f"chunk {digest.hex()}: its file has {has} bytes, not {size}")
        for digest in present.keys() - self._rows.keys():
            if txn.get(digest, db=database) is None:
                self.found.append(f"chunk {digest.hex()}: a file, and nothing names it")

    def _each(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        with self._txn.cursor(db=self._engine.table(name).database) as cursor:
            yield from cursor

    def _keys(self, name: str) -> set[bytes]:
        with self._txn.cursor(db=self._engine.table(name).database) as cursor:
            return set(cursor.iternext(keys=True, values=False))


def _files(chunks: Path) -> Iterator[tuple[bytes, int]]:
    for folder in chunks.iterdir():
        if folder.name == "incoming":
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    yield bytes.fromhex(entry.name), entry.stat(follow_symlinks=False).st_size
                except (ValueError, FileNotFoundError):
                    # No chunk's name; or it went meanwhile.
                    continue


def _shown(key: bytes) -> str:
    return f"{'Directory' if key[:1] == DIRECTORY else 'blob'} b3:{key[1:].hex()}"
