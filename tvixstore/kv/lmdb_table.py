"""A table of an LMDB environment: lookups in the loop, and changes that the engine writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import lmdb

from tvixstore.kv.service import Change, KeyValue, check_key

if TYPE_CHECKING:
    from tvixstore.kv.lmdb import LmdbEngine

Transaction: TypeAlias = "lmdb.Transaction[bytes]"
Database: TypeAlias = "lmdb._Database"

Result = TypeVar("Result")

# Lookups made in one go before other tasks get their turn.
SLICE = 256


@dataclass(eq=False, slots=True)
class Batch:
    """What one caller wants written; `absent_only` leaves keys alone that have a value."""

    table: LmdbTable
    changes: Sequence[Change]
    absent_only: bool = False

    @property
    def weight(self) -> int:
        return sum(len(key) + len(value or b"") for key, value in self.changes)

    def make(self, transaction: lmdb.Transaction) -> bool:
        """Makes the changes; says whether the last one changed anything."""
        changed = False
        database = self.table.database
        for key, value in self.changes:
            if value is None:
                changed = transaction.delete(key, db=database)
            else:
                changed = transaction.put(key, value, overwrite=not self.absent_only, db=database)
        return changed


class LmdbTable(KeyValue):
    """One named table of an engine."""

    atomic = True

    def __init__(self, engine: LmdbEngine, name: str, database: lmdb._Database) -> None:
        self.database = database
        self._engine = engine
        self._name = name

    def __repr__(self) -> str:
        return f"{self._engine!r} {self._name}"

    async def get(self, key: bytes) -> bytes | None:
        check_key(key)
        try:
            with self._engine.begin() as transaction:
                return transaction.get(key, db=self.database)
        except lmdb.Error as error:
            raise self._engine.translated(error) from error

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        def values(transaction: Transaction, part: Sequence[bytes]) -> list[bytes | None]:
            return [transaction.get(key, db=self.database) for key in part]

        return await self._look_up(keys, values)

    async def absent(self, keys: Sequence[bytes]) -> list[bytes]:
        def lacking(transaction: Transaction, part: Sequence[bytes]) -> list[bytes]:
            # A cursor copies no value, which takes half the time.
            with transaction.cursor(db=self.database) as cursor:
                return [key for key in part if not cursor.set_key(key)]

        return await self._look_up(keys, lacking)

    async def _look_up(
        self,
        keys: Sequence[bytes],
        look: Callable[[Transaction, Sequence[bytes]], list[Result]],
    ) -> list[Result]:
        """What `look` finds, a slice of the keys at a time."""
        for key in keys:
            check_key(key)
        found: list[Result] = []
        for begin in range(0, len(keys), SLICE):
            if begin:
                await asyncio.sleep(0)
            try:
                with self._engine.begin() as transaction:
                    found += look(transaction, keys[begin : begin + SLICE])
            except lmdb.Error as error:
                raise self._engine.translated(error) from error
        return found

    async def put_if_absent(self, key: bytes, value: bytes) -> bool:
        if await self.get(key) is not None:
            return False
        return await self._engine.write(Batch(self, [(key, value)], absent_only=True))

    async def apply(self, changes: Sequence[Change]) -> None:
        for key, _ in changes:
            check_key(key)
        if changes:
            await self._engine.write(Batch(self, changes))

    async def scan(
        self, prefix: bytes = b"", after: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        page: list[tuple[bytes, bytes]] = []
        while len(page) < limit:
            wanted = min(SLICE, limit - len(page))
            part = self._slice(prefix, after, wanted)
            page += part
            if len(part) < wanted:
                break
            after = part[-1][0]
            await asyncio.sleep(0)
        return page

    def count(self) -> int:
        """How many rows there are."""
        try:
            with self._engine.begin() as transaction:
                return int(transaction.stat(self.database)["entries"])
        except lmdb.Error as error:
            raise self._engine.translated(error) from error

    def read_page(self, after: bytes | None, rows: int, size: int) -> list[tuple[bytes, bytes]]:
        """In a thread: rows above `after`, at most so many, and no more once they are so large."""
        page: list[tuple[bytes, bytes]] = []
        with (
            self._engine.begin_in_thread() as transaction,
            transaction.cursor(db=self.database) as cursor,
        ):
            found = cursor.first() if after is None else cursor.set_range(after + b"\0")
            while found and len(page) < rows and size > 0:
                page.append((bytes(cursor.key()), bytes(cursor.value())))
                size -= len(page[-1][1])
                found = cursor.next()
        return page

    def read_heads(self, keys: Sequence[bytes], length: int | None) -> list[bytes | None]:
        """In a thread: the first `length` bytes of each value, or all of it."""
        heads: list[bytes | None] = []
        with self._engine.begin_in_thread() as transaction:
            for key in keys:
                value = transaction.get(key, db=self.database)
                heads.append(None if value is None else bytes(value[:length]))
        return heads

    def _slice(self, prefix: bytes, after: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        # The first key that can come after `after` is `after` and a zero byte.
        first = prefix if after is None else max(prefix, after + b"\0")
        part: list[tuple[bytes, bytes]] = []
        try:
            with (
                self._engine.begin() as transaction,
                transaction.cursor(db=self.database) as cursor,
            ):
                found = cursor.set_range(first) if first else cursor.first()
                while found and len(part) < limit and cursor.key().startswith(prefix):
                    part.append(cursor.item())
                    found = cursor.next()
        except lmdb.Error as error:
            raise self._engine.translated(error) from error
        return part
