"""Fills: one fetch at a time of each closure, in a task of its own, with everybody following it.

Near gets a closure in one go, children first, once all of it was there and fitted together. One
that is too long to be held in memory goes there piece by piece, and what has gone there is read
from there by those who follow slowly. While near takes nothing, the fill passes: it holds a window,
and the fastest reader paces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field

from tvixstore.activity import Activity, follow
from tvixstore.castore import ClosureReader, Digest, Directory
from tvixstore.directory.closure import Turns, checked_closure, children_first
from tvixstore.directory.service import DirectoryService
from tvixstore.errors import CorruptData, StoreError
from tvixstore.kv import Holds
from tvixstore.log import Logger
from tvixstore.metrics import Metrics
from tvixstore.policy.filling import Fill, Filling
from tvixstore.policy.outage import Outage
from tvixstore.policy.spool import Overrun

# Entries held in memory, some 300 bytes each.
MOST_ENTRIES = 50_000

log = Logger("tvixstore.directory.fill")


class ClosureFill(Fill):
    """The closure of one root on its way in."""

    def __init__(self, fills: ClosureFills, root: Digest) -> None:
        super().__init__(f"closure {root}", fills.source)
        self.root = root
        # All that came, in order; and those of them that are still held, by their place.
        self.order: list[Digest] = []
        self._held: dict[int, Directory] = {}
        self._entries = 0
        self._bytes = 0
        # How many of the first ones were handed to near, while others were still to come.
        self._flushed = 0
        self._followers: set[Follower] = set()
        self._moved = asyncio.Event()
        self._whole = False
        self._fills = fills

    async def at(self, place: int) -> Directory | None:
        """The Directory that came there, once it did; `None` past the end."""
        await self.until(lambda: place < len(self.order) or self._whole)
        if place >= len(self.order):
            return None
        held = self._held.get(place)
        if held is None and place < self._flushed:
            held = await self._fills.near.get(self.order[place])
        if held is None:
            raise Overrun(f"{self.name}: {self.order[place]} is gone from a fill that passes")
        return held

    def follow(self, follower: Follower) -> None:
        self._followers.add(follower)

    def leave(self, follower: Follower) -> None:
        self._followers.discard(follower)
        self.moved()
        self.check_idle()

    def moved(self) -> None:
        """A follower did: there may be room for more."""
        self._moved.set()

    async def _fill(self) -> str | None:
        holds = self._fills.holds
        # What near has of it stays until a parent refers to it.
        with nullcontext() if holds is None else holds.session():
            return await self._fetch()

    async def _fetch(self) -> str | None:
        most = self._fills.most_entries
        async with aclosing(checked_closure(self._fills.far, self.root)) as closure:
            async for directory in closure:
                self._held[len(self.order)] = directory
                self._entries += _weight(directory)
                self._bytes += len(directory.wire)
                if not self.order:
                    self.work.enter("downloading")
                self.order.append(directory.digest)
                self.tell()
                if self._entries >= most and not self.passing:
                    await self._flush()
                while self._entries >= most:
                    await self._room()
        self._whole = True
        self.tell()
        if not self.order:
            return None
        if not self.passing:
            self.work.enter("ingesting")
        return "done" if await self._publish() else "passed"

    async def _flush(self) -> None:
        """Hands to near what is held, though its children may still be to come."""
        places = range(self._flushed, len(self.order))
        try:
            await self._fills.near.put_many([self._held[place] for place in places])
        except (StoreError, OSError) as error:
            self._pass(error)
            return
        self._flushed = len(self.order)
        self._drop(self._flushed)

    async def _room(self) -> None:
        """Waits, once, for the fastest follower to make some."""
        self._moved.clear()
        self._drop(max((follower.place for follower in self._followers), default=0))
        if self._entries >= self._fills.most_entries:
            await self._moved.wait()

    def _drop(self, before: int) -> None:
        # Slower followers keep half of what there is room for before they are left behind.
        while self._entries > self._fills.most_entries // 2:
            place = next(iter(self._held))
            if place >= before:
                return
            self._entries -= _weight(self._held.pop(place))

    async def _publish(self) -> bool:
        near = self._fills.near
        try:
            if self.passing:
                return False
            if self._flushed:
                await self._flush()
                return not self.passing
            closure = {directory.digest: directory for directory in self._held.values()}
            async with await near.put_closure() as putter:
                turns = Turns()
                for directory in children_first(closure, self.root):
                    await putter.put(directory)
                    await turns.take(directory)
                await putter.close()
        except (StoreError, OSError) as error:
            self._pass(error)
            return False
        self._fills.keeping.over()
        return True

    def _pass(self, error: Exception) -> None:
        self._fills.keeping.failed(error)
        self.passing = True
        self.work.enter("passing")

    def _left(self) -> int | None:
        return None

    def _came(self) -> int:
        return self._bytes

    def _readers(self) -> int:
        return len(self._followers)

    def _is_whole(self) -> bool:
        return self._whole

    def _broken(self, error: StoreError) -> None:
        if not self.over and isinstance(error, CorruptData):
            log.warning("fill.failed", key=self.root, reason=error)


class Follower:
    """Reads a fill at its own pace; left behind by one that passes, it asks far for itself."""

    def __init__(self, fill: ClosureFill, far: DirectoryService) -> None:
        self.root = fill.root
        self.place = 0
        self._fill = fill
        self._far = far
        self._alone: AsyncGenerator[Directory, None] | None = None
        # What was read and not taken yet.
        self._read: dict[Digest, Directory] = {}
        self._follows = follow(fill.work, joined=fill.is_joined())
        fill.follow(self)

    async def take(self, digest: Digest, reader: ClosureReader) -> Directory | None:
        """That Directory of the closure; `None` if the closure ends before it comes.

        What comes before it is kept, unless `reader` has it already.
        """
        while digest not in self._read:
            directory = await self._next()
            if directory is None:
                return None
            if directory.digest not in reader:
                self._read[directory.digest] = directory
        return self._read.pop(digest)

    async def aclose(self) -> None:
        if self._follows is not None:
            self._follows.close()
        self._fill.leave(self)
        if self._alone is not None:
            await self._alone.aclose()

    async def _next(self) -> Directory | None:
        if self._alone is None:
            try:
                directory = await self._fill.at(self.place)
            except Overrun:
                self._fill.leave(self)
                self._alone = self._ask_again(frozenset(self._fill.order[: self.place]))
            else:
                self.place += 1
                self._fill.moved()
                return directory
        return await anext(self._alone, None)

    async def _ask_again(self, known: frozenset[Digest]) -> AsyncGenerator[Directory, None]:
        async with aclosing(checked_closure(self._far, self.root)) as closure:
            async for directory in closure:
                if directory.digest not in known:
                    yield directory


@dataclass(eq=False)
class ClosureFills:
    """The fills of one cache; `aclose` cancels them."""

    near: DirectoryService
    far: DirectoryService
    metrics: Metrics | None = None
    holds: Holds | None = None
    # What far is called, and where those who look see what is under way.
    source: str = ""
    activity: Activity = field(default_factory=Activity)
    most_entries: int = MOST_ENTRIES
    keeping: Outage = field(
        default_factory=lambda: Outage(log, "cache.near_unwritable", "cache.near_writable")
    )

    def __post_init__(self) -> None:
        self._filling: Filling[Digest, ClosureFill] = Filling(self.metrics, self.activity)

    def is_running(self, root: Digest) -> bool:
        """Whether a follower now would have to wait for far no more than others do."""
        fill = self._filling.running(root)
        return fill is not None and not fill.passing

    def follow(self, root: Digest) -> Follower:
        """A follower of the fill of that closure, which begins now or is under way."""
        fill = self._filling.running(root)
        if fill is None or fill.passing:
            fill = ClosureFill(self, root)
            self._filling.start(root, fill)
        return Follower(fill, self.far)

    async def aclose(self) -> None:
        """Stops what is under way; its followers get `Unavailable`."""
        await self._filling.aclose()


def _weight(directory: Directory) -> int:
    return 1 + len(directory.entries)
