"""A world of path infos: NARs that break off anywhere, and members that have them or don't."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from tests.pathinfo.scripted import info_of as made_of
from tests.pathinfo.scripted import nar_of
from tests.simulation.world import ATTEMPTS, FAILURES, OPEN, PAUSE, TIMEOUT
from tests.support.virtual_clock import now
from tvixstore.errors import CorruptData, Unavailable
from tvixstore.nix import StorePath
from tvixstore.pathinfo import Description, MemoryPathInfoService, PathInfo, PathInfoService
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.chaos import ChaosPathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.pathinfo.timeout import TimeoutPathInfoService
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.chaos import Chaos, Kind
from tvixstore.policy.hedge import Hedging
from tvixstore.policy.retry import Retry
from tvixstore.policy.timeout import Timeout
from tvixstore.streams import BytesStream, ByteStream

LOOKUP = 60.0
SEEDS_OF_NARS = ("one", "two", "three", "four")
KINDS: tuple[Kind, ...] = ("error", "stall", "disconnect")


class Keeps(MemoryPathInfoService):
    """Has the NARs of its paths in pieces, and counts the streams that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open_streams = 0

    def nar(self, info: PathInfo) -> bytes:
        return nar_of(info.store_path.name)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        info = await self.get(description.store_path.hash)
        if info is None or not info.same_nar(description):
            return None
        nar = self.nar(info)[offset : None if length is None else offset + length]
        return _Counted(self, *[nar[at : at + 7] for at in range(0, len(nar), 7)])


class _Counted(BytesStream):
    def __init__(self, keeper: Keeps, *parts: bytes) -> None:
        super().__init__(*parts)
        self._keeper: Keeps | None = keeper
        keeper.open_streams += 1

    async def aclose(self) -> None:
        if self._keeper is not None:
            self._keeper.open_streams -= 1
            self._keeper = None
        await super().aclose()


def info_of(name: str) -> PathInfo:
    return made_of(name, StorePath(name.encode().ljust(20, b"."), name))


def _part(random: Random, size: int) -> tuple[int, int | None]:
    """From where, and how long."""
    offset = random.randrange(size)
    return offset, random.choice([None, random.randrange(1, size)])


async def simulate_paths(
    seed: int, fallback: Callable[..., PathInfoService] = FallbackPathInfoService
) -> list[str]:
    """What the world of that seed broke of the invariants."""
    random, broken = Random(f"paths {seed}"), list[str]()
    stores, services, healthy = [], [], []
    for number in range(random.randrange(2, 5)):
        store = Keeps()
        for name in SEEDS_OF_NARS[:3]:
            if random.random() < 0.6:
                await store.put(info_of(name))
        healthy.append(random.random() < 0.4)
        share = 0.0 if healthy[-1] else random.choice([0.05, 0.2, 0.33])
        chaos = Chaos(f"{number} {seed}", dict.fromkeys(KINDS, share), 0.0 if healthy[-1] else 0.1)
        inner: PathInfoService = ChaosPathInfoService(store, chaos)
        inner = TimeoutPathInfoService(inner, Timeout(TIMEOUT))
        inner = RetryPathInfoService(inner, Retry(ATTEMPTS, 0.1, PAUSE, random=Random(seed)))
        services.append(BreakerPathInfoService(inner, Breaker(FAILURES, OPEN)))
        stores.append(store)
    names = [f"member-{number}" for number in range(len(services))]
    delays: list[float | str] = [0.0, 0.2, "p95"]
    # Two classes, the first of which may have one member.
    cut = random.randrange(1, len(services))
    classes = [
        RacingPathInfoService(services[:cut], names[:cut], Hedging(random.choice(delays))),
        RacingPathInfoService(services[cut:], names[cut:], Hedging(random.choice(delays))),
    ]
    root = fallback(classes, ["near", "far"], LOOKUP)

    async def read(name: str, begins: float) -> None:
        part = (0, None) if random.random() < 0.6 else _part(random, len(nar_of(name)))
        await asyncio.sleep(begins)
        info, (offset, length) = info_of(name), part
        wanted = nar_of(name)[offset : None if length is None else offset + length]
        begun = now()
        holders = [
            place for place, store in enumerate(stores) if info.store_path.hash in store.infos
        ]
        what: Any = None
        try:
            description = await root.describe(info.store_path.hash)
            if now() - begun > LOOKUP + 1e-6:
                broken.append(f"seed {seed}: describe took {now() - begun:.3f} s")
            if description is not None:
                stream = await root.open_nar(description, offset, length)
                what = None if stream is None else await stream.read_all()
        except (Unavailable, CorruptData) as error:
            if any(healthy[place] for place in holders):
                broken.append(f"seed {seed}: not delivered: {name}: {error}")
            return
        if what is None and holders:
            broken.append(f"seed {seed}: a false absent: {name}")
        if what is not None and what != wanted:
            broken.append(f"seed {seed}: wrong bytes: {name}, {length} at {offset}")

    readers = [
        asyncio.create_task(read(random.choice(SEEDS_OF_NARS), random.uniform(0, 60.0)))
        for _ in range(16)
    ]
    left = [task for task in readers if random.random() < 0.2]
    for task in left:
        asyncio.get_running_loop().call_later(random.uniform(0, 70.0), task.cancel)
    await asyncio.wait(readers)
    for task in readers:
        if not task.cancelled():
            task.result()
    if still := [store.open_streams for store in stores if store.open_streams]:
        broken.append(f"seed {seed}: streams left open: {still}")
    return broken
