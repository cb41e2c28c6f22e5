"""Who counts what rows refer to, as plainly as can be."""

from __future__ import annotations

from collections.abc import Sequence

from tvixstore.castore import Node
from tvixstore.kv import Change, KeyValue


class CountingRoots:
    """Writes the rows of one table, and knows which node each refers to."""

    def __init__(self, table: KeyValue) -> None:
        self.nodes: dict[bytes, Node] = {}
        self._table = table

    async def put_root(
        self,
        table: str,
        key: bytes,
        row: bytes,
        node: Node,
        also: Sequence[tuple[str, Change]] = (),
    ) -> None:
        await self._table.apply([*[change for _, change in also], (key, row)])
        self.nodes[key] = node

    async def drop_root(self, table: str, key: bytes, row: bytes | None = None) -> bool:
        if row not in (None, await self._table.get(key)):
            return False
        await self._table.apply([(key, None)])
        del self.nodes[key]
        return True
