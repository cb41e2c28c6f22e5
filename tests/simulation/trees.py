"""A world of compositions of Directories: one by one, many at once, whole closures.

Members may have roots and lack what is below them. A closure that comes from one of those is
`Incomplete`; it never ends as if it were whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from tests.directory.samples import named
from tests.simulation.compositions import ACTIONS, Composition, Kit, afterwards, compose, drive
from tests.support.virtual_clock import now
from tvixstore.castore import ClosureReader, Digest, Directory
from tvixstore.directory import CachedDirectoryService, DirectoryService, MemoryDirectoryService
from tvixstore.directory.arrivals import AnnouncingDirectoryService
from tvixstore.directory.breaker import BreakerDirectoryService
from tvixstore.directory.chaos import ChaosDirectoryService
from tvixstore.directory.closure import children_first
from tvixstore.directory.fallback import FallbackDirectoryService
from tvixstore.directory.limit import LimitDirectoryService
from tvixstore.directory.mirror import MirrorDirectoryService
from tvixstore.directory.negative import NegativeDirectoryService
from tvixstore.directory.racing import RacingDirectoryService
from tvixstore.directory.retry import RetryDirectoryService
from tvixstore.directory.shard import ShardDirectoryService
from tvixstore.directory.timeout import TimeoutDirectoryService
from tvixstore.directory.verify import VerifyDirectoryService
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.errors import CorruptData, StorageFull, StoreError, Unavailable

TREES = 4


class Store(MemoryDirectoryService):
    """May be full soon."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.room = random.choice([None, None, None, 0, 2, 8])

    async def put(self, directory: Directory) -> Digest:
        await self.put_many([directory])
        return directory.digest

    async def put_many(self, directories: Sequence[Directory]) -> None:
        if self.room is not None:
            self.room -= len(directories)
            if self.room < 0:
                raise StorageFull("no room")
        await super().put_many(directories)


@dataclass(eq=False)
class Alone(DirectoryWrapper):
    """Notes in `crowds` what two want at once, where that `matters`."""

    crowds: list[str]
    matters: bool
    reading: Counter[Digest] = field(default_factory=Counter)

    async def get(self, digest: Digest) -> Directory | None:
        self._begin(digest)
        try:
            return await self.inner.get(digest)
        finally:
            self.reading[digest] -= 1

    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        # A Directory and its closure are two things.
        key = Digest.of(root.raw)
        self._begin(key)
        try:
            async with aclosing(self.inner.get_closure(root)) as closure:
                async for directory in closure:
                    yield directory
        finally:
            self.reading[key] -= 1

    def _begin(self, key: Digest) -> None:
        self.reading[key] += 1
        if self.matters and self.reading[key] > 1:
            self.crowds.append(f"{key}, at {now():.3f} s")


def _cache(near: DirectoryService, far: DirectoryService, metrics: Any) -> DirectoryService:
    cache = CachedDirectoryService(near, far, metrics)
    # So few that longer closures go to near piece by piece.
    cache._fills.most_entries = 12
    return cache


KIT = Kit(
    store=Store,
    chaos=ChaosDirectoryService,
    announcing=AnnouncingDirectoryService,
    limit=LimitDirectoryService,
    timeout=TimeoutDirectoryService,
    retry=RetryDirectoryService,
    breaker=BreakerDirectoryService,
    verify=VerifyDirectoryService,
    negative=NegativeDirectoryService,
    race=RacingDirectoryService,
    fallback=FallbackDirectoryService,
    shard=ShardDirectoryService,
    mirror=MirrorDirectoryService,
    cache=_cache,
    alone=Alone,
    faults=("error", "truncate", "corrupt", "stall", "disconnect"),
)


async def simulate_trees(seed: int, kit: Kit = KIT) -> list[str]:
    """What the world of that seed broke of the invariants."""
    random = Random(f"trees {seed}")
    world = compose(f"trees, seed {seed}", kit, random)
    callers = _Callers(world, random)
    await drive(world, random, [callers.action() for _ in range(ACTIONS)])
    await afterwards(world, callers.check_all)
    return world.broken


def tree(random: Random, label: str) -> list[Directory]:
    """A closure, children first, of which some are in several places."""
    below: list[Directory] = []
    for number in range(random.randrange(1, 8)):
        children = random.sample(below, min(len(below), random.randrange(0, 4)))
        entries: dict[bytes, Any] = {f"d{n}".encode(): child for n, child in enumerate(children)}
        below.append(named({**entries, b"file": f"{label} {number}"}))
    all_of_them: dict[bytes, Any] = {f"d{n}".encode(): each for n, each in enumerate(below)}
    root = named({**all_of_them, b"x": label})
    return [*below, root]


class _Callers:
    """Who uses a world, and what they have to get."""

    def __init__(self, world: Composition, random: Random) -> None:
        self._world = world
        self._random = random
        self._root: DirectoryService = world.root
        self._trees = [tree(random, f"tree {number}") for number in range(TREES)]
        self._all = {each.digest: each for one in self._trees for each in one}
        # The last one comes only if somebody puts it.
        for one in self._trees[:-1]:
            for leaf in world.leaves.values():
                if random.random() < 0.5:
                    self._hold(leaf.store, one)

    def _hold(self, store: Store, closure: list[Directory]) -> None:
        """The closure, or what is left of it."""
        lost = self._random.random() if self._random.random() < 0.4 else 0.0
        for directory in closure:
            if self._random.random() >= lost:
                store.directories[directory.digest] = directory

    def action(self) -> Callable[[], Any]:
        random = self._random
        one = random.choice(self._trees)
        root, some = one[-1].digest, random.choice(list(self._all))
        most = random.randrange(0, len(one) + 1) if random.random() < 0.3 else None
        return random.choice(
            [
                partial(self._get, random.choice([root, some])),
                partial(self._get_many, random.choices(list(self._all), k=random.randrange(5))),
                partial(self._closure, root, most),
                partial(self._closure, root, most),
                partial(self._closure, some, most),
                partial(self._put, self._all[some]),
                partial(self._put_many, one),
                partial(self._put_closure, one),
            ]
        )

    async def check_all(self) -> None:
        for digest in self._all:
            await self._get(digest)
            await self._closure(digest, None)
        await self._get_many(list(self._all))

    def _holders(self, digest: Digest) -> list[Any]:
        return [one for one in self._world.leaves.values() if digest in one.store.directories]

    def _below(self, root: Digest) -> set[Digest]:
        found, stack = set(), [root]
        while stack:
            digest = stack.pop()
            if digest not in found:
                found.add(digest)
                stack += [child.digest for child in self._all[digest].children]
        return found

    def _is_well(self, root: Digest) -> bool:
        """Whether somebody who is well has the root, and for all that is below there is one."""
        return all(any(leaf.healthy for leaf in self._holders(d)) for d in self._below(root))

    async def _get(self, digest: Digest) -> None:
        world, holders = self._world, self._holders(digest)
        settled = digest not in world.arriving
        well = any(leaf.healthy for leaf in holders)
        try:
            got = await self._root.get(digest)
        except (Unavailable, CorruptData) as error:
            if well and settled:
                world.wrong(f"not delivered: get {digest}: {error}")
            return
        self._check(digest, got, bool(holders) and settled)

    async def _get_many(self, digests: Sequence[Digest]) -> None:
        world = self._world
        had = {d for d in digests if self._holders(d) and d not in world.arriving}
        try:
            found = await self._root.get_many(digests)
        except (Unavailable, CorruptData) as error:
            # One may fail that is asked for something else than what it has.
            if had == set(digests) and all(leaf.healthy for leaf in world.leaves.values()):
                world.wrong(f"not delivered: get_many {digests}: {error}")
            return
        if len(found) != len(digests):
            world.wrong(f"{len(found)} answers to {len(digests)} questions")
        for digest, got in zip(digests, found, strict=False):
            self._check(digest, got, digest in had)

    def _check(self, digest: Digest, got: Directory | None, is_there: bool) -> None:
        if got is None and is_there:
            self._world.wrong(f"a false absent: get {digest}")
        if got is not None and got != self._all[digest]:
            self._world.wrong(f"wrong bytes: {digest}")
        if got is not None and not self._holders(digest):
            self._world.wrong(f"there is nothing of the kind: {digest}")

    async def _closure(self, root: Digest, most: int | None) -> None:
        """Reads all of it, or `most` Directories and leaves."""
        world, reader = self._world, ClosureReader(root)
        settled = not any(each in world.arriving for each in self._below(root))
        well, had = settled and self._is_well(root), settled and bool(self._holders(root))
        came = 0
        try:
            async with aclosing(self._root.get_closure(root)) as closure:
                async for directory in closure:
                    if directory != self._all.get(directory.digest):
                        world.wrong(f"wrong bytes: {directory.digest} below {root}")
                        return
                    reader.feed(directory)
                    came += 1
                    if came == most:
                        return
        except (Unavailable, CorruptData) as error:
            # Somebody may have put the root alone meanwhile.
            if well and self._is_well(root):
                world.wrong(f"not delivered: closure {root}: {error}")
        else:
            if not came and had:
                world.wrong(f"a false absent: closure {root}")
            if came and reader.missing():
                world.wrong(f"a closure ends too early: {root}")

    async def _put(self, directory: Directory) -> None:
        await self._bring([directory], self._root.put(directory))

    async def _put_many(self, directories: Sequence[Directory]) -> None:
        await self._bring(directories, self._root.put_many(directories))

    async def _put_closure(self, directories: Sequence[Directory]) -> None:
        closure = {each.digest: each for each in directories}

        async def put() -> Digest:
            async with await self._root.put_closure() as putter:
                for directory in children_first(closure, directories[-1].digest):
                    await putter.put(directory)
                return await putter.close()

        await self._bring(directories, put())

    async def _bring(self, directories: Sequence[Directory], putting: Any) -> None:
        world = self._world
        digests = [each.digest for each in directories]
        world.arriving += digests
        try:
            await putting
        except StoreError:
            return
        finally:
            for digest in digests:
                world.arriving.remove(digest)
        for digest in digests:
            if not self._holders(digest):
                world.wrong(f"put, and nowhere: {digest}")
