"""Rows that refer to castore nodes: what they name must not be taken for waste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tvixstore.castore import Node
from tvixstore.kv import Change, KeyValue


class Roots(Protocol):
    """Whoever counts what refers to what, and writes such rows in one go with the counts."""

    async def put_root(
        self,
        table: str,
        key: bytes,
        row: bytes,
        node: Node,
        also: Sequence[tuple[str, Change]] = (),
    ) -> None:
        """Writes a row that refers to `node`, in place of what the key has; `also` other rows."""

    async def drop_root(self, table: str, key: bytes, row: bytes | None = None) -> bool:
        """Deletes such a row, if it still is `row`; whether it did."""


@dataclass(eq=False)
class RootRows:
    """The rows of `table`, which `roots` knows as `name`; without `roots` nobody counts them."""

    name: str
    table: KeyValue
    roots: Roots | None = field(default=None, repr=False)

    async def put(self, key: bytes, row: bytes, node: Node, also: Sequence[Change] = ()) -> None:
        """Has `key` refer to `node`, durably, and makes the changes `also` in the same table."""
        if self.roots is None:
            await self.table.apply([*also, (key, row)])
        else:
            changes = [(self.name, change) for change in also]
            await self.roots.put_root(self.name, key, row, node, changes)

    async def drop(self, key: bytes, row: bytes) -> None:
        """Deletes the row, if it still is that one."""
        if self.roots is not None:
            await self.roots.drop_root(self.name, key, row)
        elif await self.table.get(key) == row:
            await self.table.apply([(key, None)])
