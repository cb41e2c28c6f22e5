"""When each path was last read: what eviction goes by."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tvixstore.errors import InvalidData
from tvixstore.kv import KeyValue
from tvixstore.nix.store_path import HASH_BYTES
from tvixstore.policy.lru import Lru
from tvixstore.policy.write_behind import WriteBehind

# Seconds: a read this soon after one that was recorded is not written.
GRAIN = 3600
# Seconds, and paths, after which what was recorded is written.
_DELAY = 60.0
_BATCH = 1000
_TIME_BYTES = 8
# Paths whose times are remembered; of others a read is recorded again, which only costs.
_REMEMBERED = 100_000


def check_row(key: bytes, row: bytes) -> None:
    """Raises `InvalidData` for a row that `LastAccess` did not write."""
    if len(key) != HASH_BYTES or len(row) != _TIME_BYTES:
        raise InvalidData(f"{len(row)} bytes for a key of {len(key)}: no time of a path")


class LastAccess:
    """Path hash → 8 bytes of big-endian Unix seconds in `table`, written behind.

    On disk they are true to `grain` seconds; of those that were read last, memory has them exactly,
    so that what was read a minute ago does not look older than what came in ten minutes ago.
    """

    def __init__(
        self, table: KeyValue, now: Callable[[], float] = time.time, *, grain: int = GRAIN
    ) -> None:
        self._table = table
        self._now = now
        self._grain = grain
        # The last read, and the last one that was recorded.
        self._times: Lru[bytes, tuple[float, int]] = Lru(_REMEMBERED)
        self._writes: WriteBehind[bytes, int] = WriteBehind(
            "access", self._write, delay=_DELAY, batch=_BATCH
        )

    def be_true_to(self, grain: int) -> None:
        """From now on they are true to so many seconds."""
        self._grain = grain

    def record(self, path_hash: bytes) -> None:
        """That path is read now. Never waits, never fails."""
        now = self._now()
        before = self._times.get(path_hash)
        # A time in the future means that the clock was set back since.
        if before is not None and before[1] <= now < before[1] + self._grain:
            self._times.put(path_hash, (now, before[1]))
            return
        self._times.put(path_hash, (now, int(now)))
        self._writes.put(path_hash, int(now))

    def row(self, path_hash: bytes) -> bytes:
        """As `record`, for a caller who writes this row of the table himself."""
        now = self._now()
        self._times.put(path_hash, (now, int(now)))
        return int(now).to_bytes(8, "big")

    def time(self, path_hash: bytes, row: bytes) -> float:
        """When that path, which has that row, was read last."""
        known = self._times.peek(path_hash)
        return int.from_bytes(row, "big") if known is None else known[0]

    def forget(self, path_hash: bytes) -> None:
        """The path is gone."""
        self._times.discard(path_hash)

    async def get(self, path_hash: bytes) -> int | None:
        """Unix seconds of the last recorded read; `None` if none is known."""
        waiting = self._writes.get(path_hash)
        if waiting is not None:
            return waiting
        row = await self._table.get(path_hash)
        return None if row is None else int.from_bytes(row, "big")

    async def aclose(self) -> None:
        """Writes what waits."""
        await self._writes.aclose()

    async def _write(self, times: Mapping[bytes, int]) -> None:
        await self._table.apply(
            [(key, now.to_bytes(_TIME_BYTES, "big")) for key, now in times.items()]
        )
