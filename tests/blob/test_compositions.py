"""Random compositions of all blob wrappers over members that fail, against a dict.

Whatever is stacked on what: never wrong bytes, and never absent what somebody has. Where nobody
fails, every answer is exact.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.blob.conformance import noise
from tests.blob.scripted import Scripted, chunks_of
from tests.support import virtual_clock
from tests.support.crowd import crowd
from tvixstore.blob import (
    BlobService,
    CachedBlobService,
    FallbackBlobService,
    RacingBlobService,
    ReadOnlyBlobService,
    VerifyBlobService,
)
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData, Incomplete, ReadOnly, StorageFull, StoreError, Unavailable
from tvixstore.policy.hedge import Hedging
from tvixstore.pools import Pools

CHUNK = 700
BLOBS = [b"a", noise(699), noise(701), noise(5000), noise(20_000), noise(600_000)]
DIGESTS = [Digest.of(data) for data in BLOBS]

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
    pools: Pools
    leaves: list[Scripted] = field(default_factory=list)
    fails: bool = False

    def leaf(self, *, may_lie: bool = False) -> Scripted:
        leaf = Scripted(piece=100_000, after=self.random.choice([0.0, 0.0, 0.1, 3.0]))
        for data in BLOBS:
            if self.random.random() < 0.4:
                short = len(data) < 10_000
                leaf.hold(data, CHUNK if short and self.random.random() < 0.5 else None)
        fault = self.random.choice(["none"] * 4 + ["dead", "breaks", "full", "lies"])
        error = self.random.choice(ERRORS)()
        if fault == "dead":
            leaf.fails = error
        elif fault == "breaks":
            leaf.breaks_at, leaf.breaks_with = self.random.choice([0, 500, 300_000]), error
        elif fault == "full":
            leaf.full = self.random.choice([StorageFull("full"), ReadOnly("no")])
        elif fault == "lies" and may_lie:
            self._lie(leaf)
        self.fails |= fault != "none"
        self.leaves.append(leaf)
        return leaf

    def _lie(self, leaf: Scripted) -> None:
        for digest, data in list(leaf.blobs.items()):
            wrong = [data[:-1], data + b"?", b"?" + data[1:], b""]
            leaf.lies[digest] = self.random.choice(wrong)
            if self.random.random() < 0.5:
                leaf.lists[digest] = chunks_of(b"other" + data, CHUNK)

    def build(self, depth: int) -> BlobService:
        """A composition of at most that depth."""
        kinds = ["leaf"] if depth == 0 else ["cache", "cache", "race", "fallback", "verify", "ro"]
        kind = self.random.choice(kinds)
        if kind == "leaf":
            return self.leaf()
        if kind == "verify":
            if self.random.random() < 0.5:
                return VerifyBlobService(self.leaf(may_lie=True))
            return VerifyBlobService(self.build(depth - 1))
        if kind == "ro":
            return ReadOnlyBlobService(self.build(depth - 1))
        if kind == "cache":
            near, far = self.build(depth - 1), self.build(depth - 1)
            cache = CachedBlobService(near, far, Path(gettempdir()), self.pools)
            self.stack.push_async_callback(cache.aclose)
            return cache
        members = [self.build(depth - 1) for _ in range(self.random.randint(1, 3))]
        names = [f"m{index}" for index in range(len(members))]
        if kind == "race":
            return RacingBlobService(members, names, Hedging(self.random.choice([0.0, 0.5])))
        return FallbackBlobService(members, names)

    def held(self, digest: Digest) -> bool:
        return any(digest in leaf.blobs for leaf in self.leaves)


async def check_read(world: World, service: BlobService) -> None:
    index = world.random.randrange(len(BLOBS))
    data, digest = BLOBS[index], DIGESTS[index]
    offset, length = world.random.choice([(0, None), (0, None), (0, 5), (3, None), (600, 900)])
    size = world.random.choice([None, len(data)])
    came = b""
    stream = await service.open_read(digest, offset, length, size)
    if stream is None:
        assert not world.held(digest), "a blob that somebody has was said to be absent"
        return
    async with stream:
        async for part in stream:
            assert part
            came += part
    end = None if length is None else offset + length
    assert came == data[offset:end], "a stream came to its end with wrong bytes"
    if world.random.random() < 0.2:
        # Left early.
        again = await service.open_read(digest)
        if again is not None:
            async with again:
                await anext(again)


async def check_whole(world: World, service: BlobService) -> None:
    index = world.random.randrange(len(BLOBS))
    answer = await service.read(DIGESTS[index], world.random.choice([None, len(BLOBS[index])]))
    assert answer == BLOBS[index] if answer is not None else not world.held(DIGESTS[index])


async def check_has(world: World, service: BlobService) -> None:
    digest = world.random.choice(DIGESTS)
    assert await service.has(digest) == world.held(digest)


async def check_chunks(world: World, service: BlobService) -> None:
    index = world.random.randrange(len(BLOBS))
    chunks = await service.chunks(DIGESTS[index])
    if chunks is None:
        assert not world.held(DIGESTS[index])


async def check_put(world: World, service: BlobService) -> None:
    data = world.random.choice(BLOBS)
    assert await service.put(data) == Digest.of(data)
    assert world.held(Digest.of(data))


CHECKS = [check_read, check_read, check_whole, check_whole, check_has, check_chunks, check_put]


async def run(seed: int, depth: int, steps: int) -> None:
    pools = Pools(files=1, cpu=1, dns=1)
    stack = AsyncExitStack()
    world = World(random.Random(seed), stack, pools)
    try:
        async with stack:
            service = world.build(depth)
            for _ in range(steps):
                try:
                    await world.random.choice(CHECKS)(world, service)
                except ReadOnly:
                    continue
                except (StoreError, OSError):
                    assert world.fails, "nobody fails, and yet it is unknown"
    finally:
        pools.close()
    assert [leaf.open_streams for leaf in world.leaves] == [0] * len(world.leaves)


@virtual_clock.virtual_clock
async def test_the_checks_catch_a_liar_and_one_that_forgets() -> None:
    liar = Scripted()
    for data in BLOBS:
        liar.lies[liar.hold(data)] = data[:-1] + b"?"
    forgetful = Scripted()
    async with AsyncExitStack() as stack:
        world = World(random.Random(0), stack, Pools(files=1, cpu=1, dns=1))
        world.leaves = [liar]
        for service in (liar, forgetful):
            with pytest.raises(AssertionError):
                for _ in range(20):
                    await check_read(world, service)
        world.pools.close()


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 12))
def test_no_composition_gives_wrong_bytes_or_loses_what_somebody_has(
    seed: int, depth: int, steps: int
) -> None:
    virtual_clock.run(run(seed, depth, steps))


READS = [check_read, check_whole, check_has, check_chunks]


async def read_or_fail(world: World, service: BlobService) -> None:
    with suppress(StoreError, OSError):
        await world.random.choice(READS)(world, service)


async def run_at_once(seed: int, depth: int) -> None:
    """Several read at the same time, and some of them are cancelled."""
    pools = Pools(files=1, cpu=1, dns=1)
    stack = AsyncExitStack()
    world = World(random.Random(seed), stack, pools)
    try:
        async with stack:
            service = world.build(depth)
            await crowd(world.random, lambda: read_or_fail(world, service))
    finally:
        pools.close()
    assert [leaf.open_streams for leaf in world.leaves] == [0] * len(world.leaves)


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_whoever_leaves_leaves_nothing_behind_and_disturbs_nobody(seed: int, depth: int) -> None:
    virtual_clock.run(run_at_once(seed, depth))
