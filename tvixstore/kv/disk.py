"""The disk guard: whether the state directory may take more.

A store that is full is a normal state: fills pass through to their clients, who succeed. The guard
answers from counters and from one `statvfs` a second, so that it can be asked for every write.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from tvixstore.errors import StorageFull
from tvixstore.kv.files import free_bytes
from tvixstore.log import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tvixstore.metrics import Metrics

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


class Refused(StorageFull):
    """The guard did not admit it, and has said so: no write failed."""


class RoomMaker(Protocol):
    """Evicts, where that makes room."""

    def can_make(self, size: int) -> bool:
        """Whether there may be room for so many bytes when they are written. Begins to make it."""

    async def make(self, size: int) -> None:
        """Returns when there is room for so many bytes, or when there will not be."""


class DiskGuard:
    """Watches the file system of `path`: `min_free` bytes of it stay free, and the store stays
    below `max_size` bytes (`None`: no limit).

    The store's bytes have kinds. Those in `measured` are asked for each time; what is being written
    is counted here until it is whole, and from then on if nobody measures that kind. Those in
    `reusable` are shown, and do not count: what comes is written over them.
    """

    # Who makes room where there is none, if anybody does.
    room_maker: RoomMaker | None = None

    def __init__(
        self,
        path: Path,
        *,
        min_free: int = 0,
        max_size: int | None = None,
        measured: Mapping[str, Callable[[], int]] | None = None,
        reusable: Mapping[str, Callable[[], int]] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.path = path
        self._min_free = min_free
        self._max_size = max_size
        self._measured = dict(measured or {})
        self._reusable = dict(reusable or {})
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
        self.show()

    def limit(self, *, min_free: int, max_size: int | None) -> None:
        """From now on so much stays free, and the store below that size."""
        self._min_free = min_free
        self._max_size = max_size
        # What a write met before was under other limits.
        self._held_until = None

    def show(self) -> None:
        """Has metrics tell of this store."""
        metrics = self._metrics
        if metrics is None:
            return
        metrics.store_free_bytes.set_function(lambda: free_bytes(self.path))
        for kind in self._measured:
            metrics.store_bytes.labels(kind).set_function(partial(self._bytes_of, kind))
        for kind, measure in self._reusable.items():
            metrics.store_bytes.labels(kind).set_function(measure)

    @property
    def refusing(self) -> bool:
        """Whether the log says that the store is full."""
        return self._refusal is not None

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
        for kind in self._measured:
            # It is measured from now on.
            if kind in self._counted:
                self._counted[kind] -= staged
        if self._staged_before > 0:
            # It may have had its room before there was none: that proves nothing.
            self._staged_before -= staged
            return
        if self._refusal is not None and size >= max(1, self._refusal.size):
            # As much as was refused has gone in: whatever the file system says, there is room.
            self._accept()

    def used(self) -> dict[str, int]:
        """Bytes of the store, by kind."""
        return {kind: self._bytes_of(kind) for kind in self._measured.keys() | self._counted}

    def free(self) -> int:
        """The bytes that are free on the file system; a second old, at most."""
        now = asyncio.get_running_loop().time()
        if self._checked is None or now - self._checked >= FRESH:
            self._measure(now)
        return self._free

    def changed(self) -> None:
        """Something was freed: the file system is to be asked anew."""
        self._checked = None

    def fits(self, size: int) -> bool:
        """Whether there is room for `size` bytes now, whatever a write may have met before."""
        return size <= min(self.free() - self._min_free, self._room())

    def admits(self, size: int) -> bool:
        """Whether `size` more bytes may be written, now or once room was made for them."""
        if not self.fits(size) and self.room_maker is not None and self.room_maker.can_make(size):
            return True
        return self.admits_now(size)

    async def makes_room(self, size: int) -> bool:
        """Whether `size` more bytes may be written now; waits while room is being made."""
        if not self.fits(size) and self.room_maker is not None:
            await self.room_maker.make(size)
        return self.admits_now(size)

    def admits_now(self, size: int) -> bool:
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
            self._refuse(size, self.why_not(size))
            return False
        refusal = self._refusal
        if refusal is not None:
            needed = max(refusal.size, refusal.room + self._slack)
            if room + self._staged >= needed:
                self._accept()
        return True

    def why_not(self, size: int) -> str:
        """What is in the way of `size` more bytes."""
        if self._held_until is not None:
            return "the disk was full a moment ago"
        if self._max_size is not None and size > self._max_size - sum(self.used().values()):
            return f"max_size leaves no room for {size:,} bytes more"
        if self._min_free:
            free = f"{self._free:,} bytes are free"
            return f"min_free leaves no room for {size:,} bytes more: {free}"
        return f"the disk is full: {size:,} bytes more are needed, {self._free:,} are free"

    def failed(self, size: int, reason: str) -> None:
        """An object of `size` bytes met a full disk, whatever the counters said.

        Nothing is admitted for a while, and then the next one is let try.
        """
        now = asyncio.get_running_loop().time()
        self._held_until = now + HOLD
        self._measure(now)
        self._refuse(size, reason)

    def _bytes_of(self, kind: str) -> int:
        measure = self._measured.get(kind)
        return self._counted[kind] + (0 if measure is None else measure())

    def _found(self, kind: str, change: int) -> None:
        self._counted[kind] += change
        if self._metrics is not None and kind not in self._measured:
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
