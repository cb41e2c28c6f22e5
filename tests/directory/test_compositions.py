"""Random compositions of all directory wrappers over members that fail, against a dict.

Whatever is stacked on what: never another Directory, never a closure that ends well and is not
whole, and never absent what somebody has.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.directory.samples import CLOSURE, EMPTY, LEAF, OTHER, ROOT
from tests.directory.scripted import Scripted, closure_of
from tests.directory.test_cached import long_closure
from tests.support import virtual_clock
from tests.support.crowd import crowd
from tvixstore.castore import ClosureReader, Digest, Directory
from tvixstore.directory import (
    CachedDirectoryService,
    DirectoryService,
    FallbackDirectoryService,
    RacingDirectoryService,
    ReadOnlyDirectoryService,
    VerifyDirectoryService,
)
from tvixstore.errors import CorruptData, Incomplete, ReadOnly, StorageFull, StoreError, Unavailable
from tvixstore.policy.hedge import Hedging

LONG = long_closure(20)
ALL = [*CLOSURE, EMPTY, *LONG]
ROOTS = [ROOT.digest, LONG[0].digest, LONG[1].digest, LEAF.digest, EMPTY.digest]

ERRORS: list[Callable[[], Exception]] = [
    lambda: Unavailable("down"),
    lambda: CorruptData("damaged"),
    lambda: Incomplete("lost", bytes(32)),
    lambda: OSError(5, "Input/output error"),
]


@dataclass(eq=False)
class World:
    """One composition being built, with the members at its leaves."""

    random: random.Random
    stack: AsyncExitStack
    leaves: list[Scripted] = field(default_factory=list)
    fails: bool = False

    def leaf(self, *, may_lie: bool = False) -> Scripted:
        leaf = Scripted(after=self.random.choice([0.0, 0.0, 0.1, 3.0]))
        share = self.random.choice([0.0, 0.5, 0.95, 1.0])
        leaf.hold(each for each in ALL if self.random.random() < share)
        fault = self.random.choice(["none"] * 4 + ["dead", "breaks", "full", "roots", "lies"])
        error = self.random.choice(ERRORS)()
        if fault == "dead":
            leaf.fails = error
        elif fault == "breaks":
            leaf.breaks_at, leaf.breaks_with = self.random.choice([0, 1, 7]), error
        elif fault == "full":
            leaf.full = self.random.choice([StorageFull("full"), ReadOnly("no")])
        elif fault == "roots":
            leaf.roots_only = True
        elif fault == "lies" and may_lie:
            held = list(leaf.directories)
            leaf.lies = {digest: self.random.choice(ALL) for digest in held}
            leaf.streams = {digest: self.random.sample(ALL, 5) for digest in held}
        self.fails |= fault != "none"
        self.leaves.append(leaf)
        return leaf

    def build(self, depth: int) -> DirectoryService:
        """A composition of at most that depth."""
        kinds = ["leaf"] if depth == 0 else ["cache", "cache", "race", "fallback", "verify", "ro"]
        kind = self.random.choice(kinds)
        if kind == "leaf":
            return self.leaf()
        if kind == "verify":
            if self.random.random() < 0.5:
                return VerifyDirectoryService(self.leaf(may_lie=True))
            return VerifyDirectoryService(self.build(depth - 1))
        if kind == "ro":
            return ReadOnlyDirectoryService(self.build(depth - 1))
        if kind == "cache":
            cache = CachedDirectoryService(self.build(depth - 1), self.build(depth - 1))
            cache._fills.most_entries = self.random.choice([5, 20, 1000])
            self.stack.push_async_callback(cache.aclose)
            return cache
        members = [self.build(depth - 1) for _ in range(self.random.randint(1, 3))]
        names = [f"m{index}" for index in range(len(members))]
        if kind == "race":
            return RacingDirectoryService(members, names, Hedging(self.random.choice([0.0, 0.5])))
        return FallbackDirectoryService(members, names)

    def held(self, digest: Digest) -> bool:
        return any(digest in leaf.directories for leaf in self.leaves)


def check_one(world: World, digest: Digest, answer: Directory | None) -> None:
    if answer is None:
        assert not world.held(digest), "a Directory that somebody has was said to be absent"
    else:
        assert answer.digest == digest


async def check_get(world: World, service: DirectoryService) -> None:
    digest = world.random.choice(ALL).digest
    check_one(world, digest, await service.get(digest))


async def check_get_many(world: World, service: DirectoryService) -> None:
    digests = [world.random.choice(ALL).digest for _ in range(world.random.randint(0, 30))]
    for digest, answer in zip(digests, await service.get_many(digests), strict=True):
        check_one(world, digest, answer)


async def check_closure(world: World, service: DirectoryService) -> None:
    root = world.random.choice(ROOTS)
    answer = await closure_of(service, root)
    if answer:
        # Parents first, each once, and all of them: the reader sees to that.
        reader = ClosureReader(root)
        for each in answer:
            reader.feed(each)
        assert reader.missing() == [], "a closure came to its end and was not whole"
    else:
        assert not world.held(root), "a closure that somebody has was said to be absent"


async def check_leaving(world: World, service: DirectoryService) -> None:
    root = world.random.choice(ROOTS)
    async with aclosing(service.get_closure(root)) as closure:
        directory = await anext(closure, None)
        assert directory is None or directory.digest == root


async def check_put(world: World, service: DirectoryService) -> None:
    directory = world.random.choice(ALL)
    assert await service.put(directory) == directory.digest
    assert world.held(directory.digest)


async def check_put_closure(world: World, service: DirectoryService) -> None:
    async with await service.put_closure() as putter:
        for each in CLOSURE:
            await putter.put(each)
        assert await putter.close() == ROOT.digest
    assert world.held(OTHER.digest)


CHECKS = [
    *(check_get, check_get_many, check_closure, check_closure, check_closure),
    *(check_leaving, check_put, check_put_closure),
]


async def run(seed: int, depth: int, steps: int) -> None:
    stack = AsyncExitStack()
    world = World(random.Random(seed), stack)
    async with stack:
        service = world.build(depth)
        for _ in range(steps):
            try:
                await world.random.choice(CHECKS)(world, service)
            except ReadOnly:
                continue
            except Incomplete:
                # Members may have closures in part even where nobody fails.
                continue
            except (StoreError, OSError):
                assert world.fails, "nobody fails, and yet it is unknown"
    assert [leaf.open_closures for leaf in world.leaves] == [0] * len(world.leaves)


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 12))
def test_no_composition_gives_a_wrong_directory_or_loses_what_somebody_has(
    seed: int, depth: int, steps: int
) -> None:
    virtual_clock.run(run(seed, depth, steps))


@virtual_clock.virtual_clock
async def test_the_checks_catch_a_liar_and_one_that_forgets() -> None:
    liar = Scripted(lies={LEAF.digest: OTHER})
    short = Scripted(streams={ROOT.digest: [ROOT]})
    for service in (liar, short):
        service.hold(CLOSURE)
    async with AsyncExitStack() as stack:
        for service, check in [
            *[(liar, check_get), (liar, check_get_many), (short, check_closure)],
            *[(Scripted(), check) for check in (check_get, check_get_many, check_closure)],
        ]:
            world = World(random.Random(0), stack, [liar])
            with pytest.raises(AssertionError):
                for _ in range(200):
                    await check(world, service)


READS = [check_get, check_get_many, check_closure, check_leaving]


async def read_or_fail(world: World, service: DirectoryService) -> None:
    with suppress(StoreError, OSError):
        await world.random.choice(READS)(world, service)


async def run_at_once(seed: int, depth: int) -> None:
    """Several read at the same time, and some of them are cancelled."""
    stack = AsyncExitStack()
    world = World(random.Random(seed), stack)
    async with stack:
        service = world.build(depth)
        await crowd(world.random, lambda: read_or_fail(world, service))
    assert [leaf.open_closures for leaf in world.leaves] == [0] * len(world.leaves)


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_whoever_leaves_leaves_nothing_behind_and_disturbs_nobody(seed: int, depth: int) -> None:
    virtual_clock.run(run_at_once(seed, depth))
