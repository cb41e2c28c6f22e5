"""The disk guard: whether the state directory may take more.

A store that is full is a normal state: fills pass through to their clients, who succeed. The guard
answers from counters and from one `statvfs` a second, so that it can be asked for every write.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvixstore.kv.files import free_bytes
from tvixstore.log import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tvixstore.metrics import Metrics
    from tvixstore.pools import Pools

# Seconds for which the free bytes of the file system are believed.
FRESH = 1.0
# Seconds for which nothing is admitted after a write failed for want of room.
HOLD = 5.0
# Room that has to come before space counts as returned: 1 % of the file system, and at most this.
# Others write to the disk too, and the log should not flap with them.
MAX_SLACK = 64 << 20

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A write of `size` bytes that found no room when there was `room` and no more."""

    size: int
    room: int


class DiskGuard:
    """Watches the file system of `path`: `min_free` bytes of it stay free, and the store stays
    below `max_size` bytes (`None`: no limit).

    The store's bytes have kinds. Those in `measured` are asked for each time (LMDB's); the others
    are counted by whoever writes, from what `count` found at start.
    """

    def __init__(
        self,
        path: Path,
        *,
        min_free: int = 0,
        max_size: int | None = None,
        measured: Mapping[str, Callable[[], int]] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.path = path
        self._min_free = min_free
        self._max_size = max_size
        self._measured = dict(measured or {})
        self._counted: Counter[str] = Counter()
        # Bytes of objects that are not whole yet; given up, they come back.
        self._staged = 0
        # Those of them that were there when the store was found full.
        self._staged_before = 0
        self._metrics = metrics
        status = os.statvfs(path)
        self._slack = min(MAX_SLACK, status.f_blocks * status.f_frsize // 100)
        self._free = free_bytes(path)
        self._checked: float | None = None
        self._refusal: _Refusal | None = None
        self._held_until: float | None = None
        if metrics is not None:
            metrics.store_free_bytes.set_function(lambda: free_bytes(path))
            for kind, measure in self._measured.items():
                metrics.store_bytes.labels(kind).set_function(measure)

    @property
    def refusing(self) -> bool:
        """Whether the log says that the store is full."""
        return self._refusal is not None

    async def count(self, kind: str, directory: Path, pools: Pools) -> None:
        """Adds up the files below `directory`.

        What is written meanwhile is counted by who writes it, so this leaves out files that are
        newer than its own start. A call in a thread for each folder: others get their turn too.
        """
        start = time.time()
        folders = [os.fspath(directory)]
        while folders:
            size, below = await pools.files.run(_files_in, folders.pop(), start)
            self._found(kind, size)
            folders += below

    def add(self, kind: str, change: int) -> None:
        """The store's files of that kind grew by `change` bytes, or shrank if it is negative."""
        self._found(kind, change)
        self._free -= change

    def stage(self, kind: str, change: int) -> None:
        """As `add`, of bytes whose object is not whole yet: `keep` them, or take them back."""
        self.add(kind, change)
        self._staged += change
        if change < 0:
            self._staged_before += change

    def keep(self, staged: int, size: int) -> None:
        """An object of `size` bytes is whole; `staged` of them had been given to `stage`."""
        self._staged -= staged
        if self._staged_before > 0:
            # It may have had its room before there was none: that proves nothing.
            self._staged_before -= staged
            return
        if self._refusal is not None and size >= max(1, self._refusal.size):
            # As much as was refused has gone in: whatever the file system says, there is room.
            self._accept()

    def used(self) -> dict[str, int]:
        """Bytes of the store, by kind."""
        return {**self._counted, **{kind: measure() for kind, measure in self._measured.items()}}

    def admits(self, size: int) -> bool:
        """Whether `size` more bytes may be written now; 0 asks whether there is room at all."""
        now = asyncio.get_running_loop().time()
        if self._held_until is not None:
            if now < self._held_until:
                return False
            self._held_until = None
        if self._checked is None or now - self._checked >= FRESH:
            self._measure(now)
        room = self._room()
        if size > room:
            self._refuse(size, "min_free or max_size is reached")
            return False
        refusal = self._refusal
        if refusal is not None:
            needed = max(refusal.size, refusal.room + self._slack)
            if room + self._staged >= needed:
                self._accept()
        return True

    def failed(self, size: int, reason: str) -> None:
        """An object of `size` bytes met a full disk, whatever the counters said.

        Nothing is admitted for a while, and then the next one is let try.
        """
        now = asyncio.get_running_loop().time()
        self._held_until = now + HOLD
        self._measure(now)
        self._refuse(size, reason)

    def _found(self, kind: str, change: int) -> None:
        self._counted[kind] += change
        if self._metrics is not None:
            self._metrics.store_bytes.labels(kind).set(self._counted[kind])

    def _measure(self, now: float) -> None:
        self._free = free_bytes(self.path)
        self._checked = now

    def _room(self) -> int:
        room = self._free - self._min_free
        if self._max_size is not None:
            room = min(room, self._max_size - sum(self.used().values()))
        return room

    def _accept(self) -> None:
        self._refusal = None
        _log.info("store.room", path=self.path, free=self._free, **self.used())

    def _refuse(self, size: int, reason: str) -> None:
        if self._refusal is not None:
            return
        # What is staged counts as room: it comes back when its object is given up, and that must
        # not look as if somebody had made room.
        self._refusal = _Refusal(size, self._room() + self._staged)
        self._staged_before = self._staged
        _log.warning(
            "store.full",
            path=self.path,
            meaning="fills pass through without being kept",
            reason=reason,
            needed=size,
            free=self._free,
            min_free=self._min_free,
            max_size=self._max_size,
            **self.used(),
        )


def _files_in(folder: str, before: float) -> tuple[int, list[str]]:
    """The bytes of the files in `folder` that are older than `before`, and its folders."""
    total = 0
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                # Removed since it was listed.
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(entry.path)
            elif status.st_mtime < before:
                total += status.st_size
    return total, folders
