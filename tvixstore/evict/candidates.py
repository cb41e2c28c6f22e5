"""Which paths go first: those that were read longest ago."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from tvixstore.kv import KeyValue
from tvixstore.pathinfo.access import LastAccess

# Kept from one pass over all paths, and how many may be looked at before the others are dropped.
KEPT: Final = 4096
_PAGE: Final = 256

Candidate = tuple[float, bytes]


class Candidates:
    """Paths by `table` (the rows of `access`), the one read longest ago first.

    A pass over all paths finds the first few thousand, which are then handed out one by one; so
    the next pass comes only after as many evictions. Paths that `pinned` names are left out.
    """

    def __init__(
        self,
        table: KeyValue,
        access: LastAccess,
        pinned: Callable[[], Awaitable[set[bytes]]],
    ) -> None:
        self._table = table
        self._access = access
        self._pinned = pinned
        self._found: deque[Candidate] = deque()
        self._skipped: set[bytes] = set()

    async def take(self, most: int, before: float) -> list[bytes]:
        """Up to `most` paths that were read before that time; none if none is left."""
        taken = self._take(most, before)
        if not taken:
            await self._look(before)
            taken = self._take(most, before)
        return taken

    def skip(self, path_hashes: Collection[bytes]) -> None:
        """They cannot go now: they are not handed out again before `restart`."""
        self._skipped.update(path_hashes)

    def restart(self) -> None:
        """Begins anew: all paths are looked at again."""
        self._found.clear()
        self._skipped.clear()

    def _take(self, most: int, before: float) -> list[bytes]:
        taken: list[bytes] = []
        while self._found and len(taken) < most:
            time, path_hash = self._found.popleft()
            # Read since it was found: it is not its turn any more.
            if time < before and self._access.time(path_hash, _row(time)) <= time:
                taken.append(path_hash)
        return taken

    async def _look(self, before: float) -> None:
        left_out = await self._pinned() | self._skipped
        found: list[Candidate] = []
        bound = before
        after: bytes | None = None
        while rows := await self._table.scan(after=after, limit=_PAGE):
            after = rows[-1][0]
            for path_hash, row in rows:
                time = self._access.time(path_hash, row)
                if time < bound and path_hash not in left_out:
                    found.append((time, path_hash))
            if len(found) >= 2 * KEPT:
                found.sort()
                del found[KEPT:]
                bound = found[-1][0]
            if len(rows) < _PAGE:
                break
        found.sort()
        self._found = deque(found[:KEPT])


def _row(time: float) -> bytes:
    return int(time).to_bytes(8, "big")
