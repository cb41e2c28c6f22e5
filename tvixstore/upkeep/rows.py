"""The tables beside the content: what is remembered, calculated, recorded and pinned.

Their rows stand for themselves, with a checksum or at least a form. Tables that are not listed here
are somebody else's, and left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tvixstore.errors import InvalidData
from tvixstore.kv import Damage, TableReader
from tvixstore.nar.identity import check_row as check_identity
from tvixstore.nix import nixbase32
from tvixstore.pathinfo.access import check_row as check_access
from tvixstore.pathinfo.answer_rows import check_row as check_remembered
from tvixstore.pathinfo.audit import Kept
from tvixstore.pathinfo.pins import decode_pin
from tvixstore.upkeep.holdings import Holdings
from tvixstore.upkeep.service import Kind, Outcome

if TYPE_CHECKING:
    from tvixstore.upkeep.findings import Findings


def _check_pin(key: bytes, row: bytes) -> None:
    decode_pin(key, row)


# A row each table: the kind of its findings, and what raises `InvalidData` for a wrong row.
CHECKS: Final[dict[str, tuple[Kind, Callable[[bytes, bytes], None]]]] = {
    "pins": ("pin", _check_pin),
    "calculated": ("calculated", check_identity),
    "remembered": ("remembered", check_remembered),
    "access": ("access", check_access),
}


class RowScrub:
    """Checks such tables of `holdings`."""

    def __init__(self, findings: Findings, holdings: Holdings) -> None:
        self._findings = findings
        self._holdings = holdings

    async def everything(self) -> None:
        for name, (kind, check) in CHECKS.items():
            reader = TableReader(self._holdings.table(name), self._holdings.pools.background)
            self._findings.begin(name, await reader.count())
            after: bytes | None = None
            while rows := await reader.page(after):
                for key, row in rows:
                    try:
                        check(key, row)
                    except InvalidData as error:
                        await self._wrong(reader, kind, Damage(key, str(error), row))
                self._findings.advance(len(rows), sum(len(row) for _, row in rows))
                after = rows[-1][0]

    async def _wrong(self, reader: TableReader, kind: Kind, damage: Damage) -> None:
        if await reader.table.get(damage.key) != damage.row:
            return
        if kind == "pin":
            await self._wrong_pin(damage)
            return

        async def drop() -> bool:
            if await reader.table.get(damage.key) != damage.row:
                return False
            await reader.table.apply([(damage.key, None)])
            return True

        await self._findings.settle(kind, damage, drop)

    async def _wrong_pin(self, damage: Damage) -> None:
        """A pin is never dropped: it is written anew, if it is known what path it is of."""
        found = None
        if self._holdings.audits.path_infos is not None:
            found = await self._holdings.audits.path_infos.get(damage.key)
        outcome: Outcome = "failed" if self._findings.repair else "found"
        if self._findings.repair and isinstance(found, Kept):
            await self._holdings.pins.add(found.info.store_path)
            outcome = "rewritten"
        key = nixbase32.encode(damage.key)
        reason = f"{damage.reason}; it pins its path all the same"
        await self._findings.add("pin", key, reason, outcome)
