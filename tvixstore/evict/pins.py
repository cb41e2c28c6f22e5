"""Pinned paths, with the closure of their references: what is never evicted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tvixstore.errors import InvalidData
from tvixstore.kv import KeyValue
from tvixstore.pathinfo.codec import decode_record

_PAGE = 1000
# Path infos decoded in one go (about 1 ms) before others get their turn.
_A_TURN = 30


def pinned_closures(pins: KeyValue, path_infos: KeyValue) -> Callable[[], Awaitable[set[bytes]]]:
    """The hashes of all paths in `pins`, and of what they refer to as far as it is here."""

    async def pinned() -> set[bytes]:
        found: set[bytes] = set()
        after: bytes | None = None
        while rows := await pins.scan(after=after, limit=_PAGE):
            found.update(key for key, _ in rows)
            after = rows[-1][0]
        ahead = list(found)
        while ahead:
            some, ahead = ahead[-_A_TURN:], ahead[:-_A_TURN]
            for row in await path_infos.get_many(some):
                for reference in _references(row):
                    if reference not in found:
                        found.add(reference)
                        ahead.append(reference)
            await asyncio.sleep(0)
        return found

    return pinned


def _references(row: bytes | None) -> list[bytes]:
    if row is None:
        return []
    try:
        return [reference.hash for reference in decode_record(row).references]
    except InvalidData:
        # Whoever reads it next says so, and has it fetched anew.
        return []
