"""Which paths go first: those that were read longest ago."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from math import inf
from typing import Final

from tvixstore.kv import KeyValue
from tvixstore.pathinfo.access import LastAccess

# Kept from one pass over all paths, and how many may be looked at before the others are dropped.
KEPT: Final = 4096
_PAGE: Final = 256

# Seconds by which a time may be ahead without meaning that the clock was set back.
_SKEW: Final = 60.0

# By what it is sorted, when it was read, and its hash.
Candidate = tuple[float, float, bytes]


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
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._access = access
        self._pinned = pinned
        self._now = now
        self._found: deque[Candidate] = deque()
        self._skipped: set[bytes] = set()

    async def take(self, most: int, before: float = inf) -> list[bytes]:
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
            _, read, path_hash = self._found.popleft()
            # Read since it was found: it is not its turn any more.
            now = self._access.time(path_hash, _row(read))
            if read < before and now in (read, int(read)):
                taken.append(path_hash)
        return taken

    async def _look(self, before: float) -> None:
        left_out = await self._pinned() | self._skipped
        found: list[Candidate] = []
        bound = inf
        after: bytes | None = None
        ahead = self._now() + _SKEW
        while rows := await self._table.scan(after=after, limit=_PAGE):
            after = rows[-1][0]
            for path_hash, row in rows:
                read = self._access.time(path_hash, row)
                # The clock was set back since that was read, so all others were read after it.
                place = read if read <= ahead else -1.0
                if read < before and place <= bound and path_hash not in left_out:
                    found.append((place, read, path_hash))
            if len(found) >= 2 * KEPT:
                found.sort()
                del found[KEPT:]
                bound = found[-1][0]
            if len(rows) < _PAGE:
                break
        found.sort()
        self._found = deque(found[:KEPT])


def _row(read: float) -> bytes:
    return int(read).to_bytes(8, "big")
