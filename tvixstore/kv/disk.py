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
# Room beyond what was refused, before space counts as returned: less would make the log flap.
SLACK = 1 << 20

_log = Logger(__name__)


class DiskGuard:
    """Watches the file system of `path`: `min_free` bytes of it stay free, and the store stays
    below `max_size` bytes (`None`: no limit).

    The store's bytes have kinds. Those in `measured` are asked for each time (LMDB's); the others
    are counted by whoever writes, through `add`, from what `count` found at start.
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
        self.refusing = False
        self._min_free = min_free
        self._max_size = max_size
        self._measured = dict(measured or {})
        self._counted: Counter[str] = Counter()
        self._metrics = metrics
        self._free = free_bytes(path)
        self._checked = -FRESH
        self._refused_bytes = 0
        self._failed = False
        self._held_until: float | None = None
        if metrics is not None:
            metrics.store_free_bytes.set_function(lambda: free_bytes(path))
            for kind, measure in self._measured.items():
                metrics.store_bytes.labels(kind).set_function(measure)

    async def count(self, kind: str, directory: Path, pools: Pools) -> None:
        """Adds up the files below `directory`.

        What is written meanwhile is counted by `add`, so this leaves out files that are newer than
        its own start. A call in a thread for each folder: others get their turn in between.
        """
        start = time.time()
        folders = [os.fspath(directory)]
        while folders:
            size, below = await pools.files.run(_files_in, folders.pop(), start)
            self.add(kind, size)
            folders += below

    def add(self, kind: str, change: int) -> None:
        """The store's files of that kind grew by `change` bytes, or shrank if it is negative."""
        self._counted[kind] += change
        self._free -= change
        if self._failed and change > 0 and self._held_until is None:
            # The first write that went well again.
            self._failed = False
            self._accept()
        if self._metrics is not None:
            self._metrics.store_bytes.labels(kind).set(self._counted[kind])

    def used(self) -> dict[str, int]:
        """Bytes of the store, by kind."""
        return {**self._counted, **{kind: measure() for kind, measure in self._measured.items()}}

    def admits(self, size: int) -> bool:
        """Whether `size` more bytes may be written now; 0 asks whether there is room at all."""
        now = asyncio.get_running_loop().time()
        room = self._room(now)
        if self._held_until is not None:
            if now < self._held_until:
                return False
            self._held_until = None
        if size > room:
            self._refuse(size, "min_free or max_size is reached")
            return False
        if self.refusing and not self._failed and room >= self._refused_bytes + SLACK:
            self._accept()
        return True

    def failed(self, size: int, reason: str) -> None:
        """A write of `size` bytes met a full disk, whatever the counters said.

        After a while the next one is let try; space has returned when one went well.
        """
        self._failed = True
        self._held_until = asyncio.get_running_loop().time() + HOLD
        self._refuse(size, reason)

    def _room(self, now: float) -> int:
        if now - self._checked >= FRESH:
            self._free = free_bytes(self.path)
            self._checked = now
        room = self._free - self._min_free
        if self._max_size is not None:
            room = min(room, self._max_size - sum(self.used().values()))
        return room

    def _accept(self) -> None:
        self.refusing = False
        _log.info("store-has-room-again", path=self.path, **self.used())

    def _refuse(self, size: int, reason: str) -> None:
        if self.refusing:
            return
        self.refusing = True
        self._refused_bytes = size
        _log.warning(
            "store-full-fills-pass-through",
            path=self.path,
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
