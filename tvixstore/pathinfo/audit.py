"""Everything that a local path-info service keeps, gone through: in threads, changing nothing, and
without counting as a read of any path."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tvixstore.errors import InvalidData
from tvixstore.kv import Damage, TableReader
from tvixstore.nix import nixbase32
from tvixstore.pathinfo.codec import decode_record
from tvixstore.pathinfo.info import PathInfo

if TYPE_CHECKING:
    from tvixstore.pathinfo.local import LocalPathInfoService
    from tvixstore.pools import Pool

_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class Kept:
    """A path info, and the record that it is kept as."""

    info: PathInfo
    record: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows that were looked at: the path infos in them, and which rows are none."""

    kept: Sequence[Kept]
    damaged: Sequence[Damage]


class PathInfoAudit:
    """The table of one local path-info service, which is read in threads of `pool`."""

    def __init__(self, service: LocalPathInfoService, pool: Pool) -> None:
        self._service = service
        self._pool = pool
        self._rows = TableReader(service.table, pool)

    async def count(self) -> int | None:
        return await self._rows.count()

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Every row, held against its checksum and its key, and decoded."""
        after: bytes | None = None
        while rows := await self._rows.page(after, _ROWS):
            kept, suspects = await self._pool.run(_decode_all, rows)
            yield Page(kept, [each for each in suspects if await self._is_still(each)])
            after = rows[-1][0]

    async def get(self, path_hash: bytes) -> Kept | Damage | None:
        """What is kept of that path."""
        (row,) = await self._rows.get_many([path_hash])
        if row is None:
            return None
        kept, damaged = _decode_all([(path_hash, row)])
        return kept[0] if kept else damaged[0]

    async def is_still(self, kept: Kept) -> bool:
        """Whether nothing else was put, and it was not taken away, since it was read."""
        return await self._service.table.get(kept.info.store_path.hash) == kept.record

    async def drop(self, path_hash: bytes, record: bytes) -> bool:
        """Makes the path absent, unless something else was put since `record` was read."""
        return await self._service.drop(path_hash, record)

    async def _is_still(self, damage: Damage) -> bool:
        return await self._service.table.get(damage.key) == damage.row


def _decode_all(rows: Sequence[tuple[bytes, bytes]]) -> tuple[list[Kept], list[Damage]]:
    """In a thread, if they are many: the path infos in `rows`, and the rows that hold none."""
    kept = []
    damaged = []
    for key, row in rows:
        try:
            info = decode_record(row)
            if info.store_path.hash != key:
                raise InvalidData(f"the record is of another path, {info.store_path}")
            kept.append(Kept(info, row))
        except InvalidData as error:
            reason = f"the path info of {nixbase32.encode(key)} is damaged: {error}"
            damaged.append(Damage(key, reason, row))
    return kept, damaged
