"""Reading a whole table without being in anybody's way: in threads, a small page at a time.

Rows that nobody has read for long come from the disk, and who waits for the disk in the event loop
makes everybody wait. What is read for somebody is asked of the table itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tvixstore.kv.lmdb_table import LmdbTable

if TYPE_CHECKING:
    from tvixstore.kv.service import KeyValue
    from tvixstore.pools import Pool

PAGE_ROWS: Final = 128
PAGE_BYTES: Final = 1 << 20
# Lookups made in one go: some hundred microseconds, or as many seeks of a disk.
_LOOKUPS: Final = 128


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with the row of `key`; `row` is what stands there, if it was read at all."""

    key: bytes
    reason: str
    row: bytes | None = None
    # Whether it could not be read, so that nobody knows.
    unread: bool = False


class TableReader:
    """`table`, read in threads of `pool` where it is one that may wait for a disk."""

    def __init__(self, table: KeyValue, pool: Pool) -> None:
        self.table = table
        self._pool = pool

    async def count(self) -> int | None:
        """How many rows there are, if that is known without counting them."""
        return self.table.count() if isinstance(self.table, LmdbTable) else None

    async def page(
        self, after: bytes | None = None, rows: int = PAGE_ROWS, size: int = PAGE_BYTES
    ) -> list[tuple[bytes, bytes]]:
        """The rows above `after`, in order: at most so many, and about so many bytes of them."""
        if isinstance(self.table, LmdbTable):
            return await self._pool.run(self.table.read_page, after, rows, size)
        return await self.table.scan(after=after, limit=rows)

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in their order."""
        return await self.heads(keys, None)

    async def heads(self, keys: Sequence[bytes], length: int | None) -> list[bytes | None]:
        """The first `length` bytes of each value, or all of it."""
        if not isinstance(self.table, LmdbTable):
            values = await self.table.get_many(keys)
            return [None if value is None else value[:length] for value in values]
        heads: list[bytes | None] = []
        for begin in range(0, len(keys), _LOOKUPS):
            wanted = keys[begin : begin + _LOOKUPS]
            heads += await self._pool.run(self.table.read_heads, wanted, length)
        return heads
