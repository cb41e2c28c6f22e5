"""How much there may be, and how much has to go.

`max_size` counts what is in use: chunk files, and the pages of the index that hold something. Pages
that were freed are written over by what comes, so they do not count; but they do not come back to
the file system either. So for `min_free` only chunk files help, and it is not worth everything:
where others fill the disk, no more than half of the store goes for it.
"""

from __future__ import annotations

from typing import Final

from tvixstore.evict.collector import Collected
from tvixstore.kv import DiskGuard

# Of `max_size`: the first one is as far as writers go, since what they write takes a little more
# than they say, and above it a run begins; at the second it ends.
HIGH: Final = 0.95
LOW: Final = 0.90
# A run for `min_free` makes so much more room than it has to, and leaves so much of the store.
_SLACK: Final = 32 << 20
_LEFT: Final = 0.5


class Limits:
    """Of the store and the file system that `guard` watches."""

    def __init__(self, guard: DiskGuard, max_size: int | None, min_free: int) -> None:
        self._guard = guard
        self._max_size = max_size
        self._min_free = min_free
        # What the store had when the disk got too full; `None` while it is not.
        self._before_shortage: int | None = None

    def change(self, max_size: int | None, min_free: int) -> None:
        self._max_size = max_size
        self._min_free = min_free
        self._before_shortage = None

    def may_hold(self, size: int) -> bool:
        """Whether so much fits into the store when other things go."""
        return (self._max_size is None or size <= LOW * self._max_size) and not self.hopeless()

    def exceeded(self, wanted: int) -> str | None:
        """Which limit is, or would be by `wanted` more bytes; `None` if none is."""
        if self._max_size is not None:
            used = self._used()
            if used + wanted > HIGH * self._max_size:
                return "max_size"
        if not self._is_short(wanted):
            self._before_shortage = None
        elif not self.hopeless():
            return "min_free"
        return None

    def begin(self, wanted: int) -> None:
        """A run begins."""
        if self._before_shortage is None and self._is_short(wanted):
            self._before_shortage = self._used()

    def missing(self, wanted: int) -> int:
        """The bytes that have to go until a run is over."""
        missing = 0
        if self._max_size is not None:
            enough = min(int(LOW * self._max_size), int(HIGH * self._max_size) - wanted)
            missing = self._used() - enough
        if self._min_free:
            free = self._guard.free()
            if free < self._min_free + wanted or self._before_shortage is not None:
                missing = max(missing, self._min_free + wanted + self._slack() - free)
        return missing

    @property
    def wants_files(self) -> bool:
        """Whether only chunk files help: it is the file system that is short of room."""
        return self._before_shortage is not None and not self._too_large()

    def helps(self, collected: Collected) -> bool:
        """Whether what went was of any use."""
        if self.wants_files:
            return collected.file_bytes > 0
        return collected.bytes > 0

    def hopeless(self) -> bool:
        """Whether so much has gone for want of free space that no more should."""
        before = self._before_shortage
        return before is not None and self.wants_files and self._used() < _LEFT * before

    def _too_large(self) -> bool:
        return self._max_size is not None and self._used() > LOW * self._max_size

    def _is_short(self, wanted: int) -> bool:
        return bool(self._min_free) and self._guard.free() < self._min_free + wanted

    def _slack(self) -> int:
        return min(_SLACK, self._min_free // 10)

    def _used(self) -> int:
        return sum(self._guard.used().values())
