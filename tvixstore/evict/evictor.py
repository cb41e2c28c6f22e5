"""Evicts: the paths that were read longest ago go, where the store or the disk gets too full.

One task, which the composition owns. It sleeps until somebody finds no room, and looks by itself
every few seconds. A run frees down to the low mark, so that the next one is not due at once; those
who wait for room are told as soon as there is enough for them, or that there will not be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from tvixstore.blob.staging import MAX_INLINE_BYTES
from tvixstore.errors import InvalidData, StoreError
from tvixstore.evict.candidates import Candidates
from tvixstore.evict.collector import Collector
from tvixstore.evict.limits import Limits
from tvixstore.kv import DiskGuard, KeyValue
from tvixstore.log import Logger
from tvixstore.metrics import Metrics
from tvixstore.pathinfo.access import LastAccess
from tvixstore.pathinfo.codec import decode_record

# Seconds between two looks: as a rule, and while all that could go is in use; and for which nobody
# tries again after a run that did not help.
INTERVAL: Final = 5.0
BUSY: Final = 0.2
BACK_OFF: Final = 30.0
# Seconds that a writer waits for room.
PATIENCE: Final = 60.0
# Paths evicted in one transaction, at most; and how many may go without freeing anything.
MOST_PATHS: Final = 50
MOST_IN_VAIN: Final = 1000

_log = Logger("tvixstore.evict")


@dataclass(slots=True)
class _Run:
    """What one run has come to."""

    why: str
    paths: int = 0
    bytes: int = 0
    # Paths that went since something was freed that helps.
    in_vain: int = 0
    held: int = 0
    begun: float = field(default_factory=time.monotonic)


class Evictor:
    """Keeps the store within `limits`; is the guard's room maker while it runs."""

    def __init__(
        self,
        limits: Limits,
        guard: DiskGuard,
        candidates: Candidates,
        path_infos: KeyValue,
        collector: Collector,
        access: LastAccess,
        metrics: Metrics,
        *,
        max_age: float | None = None,
    ) -> None:
        self._limits = limits
        self._guard = guard
        self._candidates = candidates
        self._path_infos = path_infos
        self._collector = collector
        self._access = access
        self._metrics = metrics
        self._max_age = max_age
        self._age_checked = float("-inf")
        self._wake = asyncio.Event()
        self._waiting: dict[asyncio.Future[None], int] = {}
        # Whether all that could go is in use.
        self._busy = False
        # Until when evicting is known not to help.
        self._useless_until = float("-inf")
        self._said_useless = False

    def can_make(self, size: int) -> bool:
        self._wake.set()
        return not self._is_useless() and self._limits.may_hold(size)

    async def make(self, size: int) -> None:
        if not self.can_make(size):
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = size
        try:
            async with asyncio.timeout(PATIENCE):
                await future
        except TimeoutError:
            # Then there is no room, which the caller finds out by himself.
            return
        finally:
            self._waiting.pop(future, None)

    def change(self, max_size: int | None, min_free: int, max_age: float | None) -> None:
        """From now on those are the limits; it looks at once."""
        self._limits.change(max_size, min_free)
        if max_age != self._max_age:
            self._max_age = max_age
            self._age_checked = float("-inf")
        # What did not help before was for other limits.
        self._useless_until = float("-inf")
        self._said_useless = False
        self._wake.set()

    async def run(self) -> None:
        """Works until it is cancelled."""
        self._guard.room_maker = self
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                began = loop.time()
                try:
                    await self._look()
                except (StoreError, OSError) as error:
                    self._failed(str(error))
                except Exception as error:
                    _log.error("eviction.crashed", exc_info=error, path=self._guard.path)
                    self._failed("of a bug, see the log")
                if self._busy:
                    # All paths were looked at for it, which takes the longer the more there are.
                    await asyncio.sleep(min(INTERVAL, max(BUSY, 10 * (loop.time() - began))))
                elif not self._wake.is_set() or self._is_useless():
                    await self._sleep()
        finally:
            if self._guard.room_maker is self:
                self._guard.room_maker = None
            self._tell(self._waiting)

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(INTERVAL):
                await self._wake.wait()
        except TimeoutError:
            # Time to look by itself.
            return

    async def _look(self) -> None:
        waiting = list(self._waiting)
        await self._collect(_Run("unreferenced"))
        await self._evict_old()
        self._busy = False
        if not self._is_useless() and (why := self._limits.exceeded(self._wanted())):
            await self._evict_until_enough(_Run(why))
        # Those who came meanwhile have the next look. Where everything is in use, much of that is
        # what those who wait have written so far: the last one gives up, then there is more room.
        self._tell(waiting[-1:] if self._busy else waiting)

    async def _evict_old(self) -> None:
        now = time.time()
        if self._max_age is None or abs(now - self._age_checked) < min(self._max_age / 10, 3600):
            return
        self._age_checked = now
        run = _Run("max_age")
        self._candidates.restart()
        while paths := await self._candidates.take(MOST_PATHS, now - self._max_age):
            began = asyncio.get_running_loop().time()
            await self._evict(run, paths)
            await self._collect(run)
            await self._take_turns(began)
        self._candidates.restart()
        self._report(run)

    async def _evict_until_enough(self, run: _Run) -> None:
        if not await self._path_infos.scan(limit=1):
            # What is here is on its way in; or of paths that were known elsewhere, before.
            self._busy = True
            return
        self._limits.begin(self._wanted())
        await self._free_orphans(run)
        self._candidates.restart()
        most = 1
        while (missing := self._limits.missing(self._wanted())) > 0:
            paths = await self._candidates.take(most)
            if not paths:
                self._busy = True
                break
            if run.in_vain > MOST_IN_VAIN or self._limits.hopeless():
                self._give_up("it does not make enough room")
                break
            began = asyncio.get_running_loop().time()
            await self._evict(run, await self._useful(paths))
            await self._collect(run)
            await self._take_turns(began)
            self._tell()
            each = max(1, run.bytes // max(1, run.paths))
            most = max(1, min(MOST_PATHS, missing // each // 2, 2 * most))
        else:
            self._said_useless = False
        self._report(run)

    async def _take_turns(self, began: float) -> None:
        """Leaves the processor to others for as long as the work since `began` took, unless
        somebody waits for room."""
        if not self._waiting:
            await asyncio.sleep(min(0.1, asyncio.get_running_loop().time() - began))

    async def _useful(self, paths: list[bytes]) -> list[bytes]:
        """Those that may have chunk files, where only these help."""
        if not self._limits.wants_files:
            return paths
        useful = []
        for path_hash, row in zip(paths, await self._path_infos.get_many(paths), strict=True):
            if _may_have_files(row):
                useful.append(path_hash)
            else:
                self._candidates.skip([path_hash])
        return useful

    async def _free_orphans(self, run: _Run) -> None:
        """What never got a parent goes before any path does."""
        after: bytes | None = None
        while self._limits.missing(self._wanted()) > 0:
            after = await self._collector.freeing.ripen(after)
            await self._collect(run)
            if after is None:
                return

    async def _evict(self, run: _Run, paths: list[bytes]) -> int:
        if not paths:
            return 0
        evicted = await self._collector.freeing.evict(paths)
        self._candidates.skip(evicted.held)
        for path_hash in evicted.paths:
            self._access.forget(path_hash)
        count = len(evicted.paths)
        run.paths += count
        run.in_vain += count
        run.held += len(evicted.held)
        self._metrics.evictions.inc(count)
        return count

    async def _collect(self, run: _Run) -> None:
        collected = await self._collector.collect()
        run.bytes += collected.bytes
        if self._limits.helps(collected):
            run.in_vain = 0
        self._metrics.evicted_bytes.inc(collected.bytes)
        self._guard.changed()

    def _wanted(self) -> int:
        """The bytes that those who wait want to write."""
        return sum(self._waiting.values())

    def _tell(self, in_any_case: Collection[asyncio.Future[None]] = ()) -> None:
        """Lets those go on who have room now, the first first."""
        wanted = 0
        for future, size in self._waiting.items():
            wanted += size
            if (future in in_any_case or self._guard.fits(wanted)) and not future.done():
                future.set_result(None)

    def _is_useless(self) -> bool:
        return asyncio.get_running_loop().time() < self._useless_until

    def _failed(self, reason: str) -> None:
        # Those who wait do so in vain.
        self._busy = False
        self._give_up(reason)
        self._tell(list(self._waiting))

    def _give_up(self, reason: str) -> None:
        self._useless_until = asyncio.get_running_loop().time() + BACK_OFF
        if not self._said_useless:
            self._said_useless = True
            _log.warning("eviction.stopped", path=self._guard.path, reason=reason)

    def _report(self, run: _Run) -> None:
        if run.paths or run.bytes:
            _log.info(
                "eviction.done",
                path=self._guard.path,
                why=run.why,
                paths=run.paths,
                bytes=run.bytes,
                held=run.held,
                ms=int((time.monotonic() - run.begun) * 1000),
                **self._guard.used(),
            )


def _may_have_files(row: bytes | None) -> bool:
    if row is None:
        return True
    try:
        return decode_record(row).nar_size > MAX_INLINE_BYTES
    except InvalidData:
        # It serves nobody.
        return True
