"""A world of chaos: the real nodes over members that fail, on a clock that jumps, from one seed.

`simulate(seed)` builds a composition, has several readers use it at once, some of whom leave early,
and returns what it broke of the invariants; nothing, if all is well.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from tests.simulation.parts import REAL, Parts
from tests.support.virtual_clock import now
from tvixstore.blob import BlobService, MemoryBlobService
from tvixstore.blob.breaker import BreakerBlobService
from tvixstore.blob.chaos import ChaosBlobService
from tvixstore.blob.retry import RetryBlobService
from tvixstore.blob.service import Chunk
from tvixstore.blob.verify import VerifyBlobService
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData, StoreError, Unavailable
from tvixstore.metrics import Metrics
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.chaos import Chaos, Kind
from tvixstore.policy.hedge import Hedging
from tvixstore.policy.negative import Absences
from tvixstore.policy.retry import Retry
from tvixstore.policy.timeout import Timeout
from tvixstore.streams import ByteStream

TIMEOUT, ATTEMPTS, PAUSE = 2.0, 2, 0.5
FAILURES, OPEN = 3, 20.0
# What one member may take at most, with all its attempts.
MEMBER = ATTEMPTS * TIMEOUT + PAUSE
READERS = 24
HONEST: tuple[Kind, ...] = ("error", "truncate", "corrupt", "stall", "disconnect")


@dataclass(eq=False)
class Watched(BlobWrapper):
    """A member as its breaker sees it: when calls came, how they ended, what is still open."""

    name: str
    began: list[float] = field(default_factory=list)
    ended: list[tuple[float, bool]] = field(default_factory=list)
    open_streams: int = 0
    calls: Counter[str] = field(default_factory=Counter)

    async def has(self, digest: Digest) -> bool:
        async with self._call("has"):
            return await self.inner.has(digest)

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        async with self._call("chunks"):
            return await self.inner.chunks(digest)

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        async with self._call("open_read"):
            stream = await self.inner.open_read(digest, offset, length, size)
        return None if stream is None else _WatchedStream(stream, self)

    @asynccontextmanager
    async def _call(self, call: str) -> AsyncIterator[None]:
        self.began.append(now())
        self.calls[call] += 1
        try:
            yield
        except (Unavailable, CorruptData):
            self.ended.append((now(), False))
            raise
        else:
            self.ended.append((now(), True))


class _WatchedStream(ByteStream):
    def __init__(self, inner: ByteStream, member: Watched) -> None:
        self._inner = inner
        self._member = member
        self._open = True
        member.open_streams += 1

    async def __anext__(self) -> bytes:
        return await self._inner.__anext__()

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._member.open_streams -= 1
        await self._inner.aclose()


@dataclass(eq=False)
class Guarded:
    """One member: what is in it, what goes wrong with it, and the policies around it."""

    store: MemoryBlobService
    chaos: Chaos
    watched: Watched
    breaker: Breaker
    # (is open, when), as the breaker said.
    changes: list[tuple[bool, float]]
    service: BlobService
    healthy: bool


@dataclass(eq=False)
class World:
    """What a seed came to."""

    seed: int
    blobs: dict[Digest, bytes]
    members: list[Guarded]
    root: BlobService
    hedging: Hedging | None
    metrics: Metrics
    # Whether parts of blobs are verified: what members say of a part is taken for it otherwise.
    verifies: bool
    # What was found wrong.
    broken: list[str] = field(default_factory=list)

    def holders(self, digest: Digest) -> list[Guarded]:
        return [member for member in self.members if digest in member.store.blobs]

    def wrong(self, what: str) -> None:
        self.broken.append(f"seed {self.seed}, at {now():.3f} s: {what}")


def build(seed: int, parts: Parts = REAL) -> World:
    """The world of that seed."""
    random = Random(seed)
    metrics = Metrics()
    blobs = [random.randbytes(random.randrange(1, 5000)) for _ in range(6)]
    held = {Digest.of(data): data for data in blobs[:5]}
    # The last one is nowhere.
    members = [
        _member(number, random, list(held.values()), metrics, parts)
        for number in range(random.randrange(2, 5))
    ]
    services: list[BlobService] = [member.service for member in members]
    names = [member.watched.name for member in members]
    verifies = random.random() < 0.5
    if verifies:
        services = [VerifyBlobService(service) for service in services]
    hedging = None
    if random.random() < 0.7:
        delays: list[float | str] = [0.0, 0.02, 0.2, "p95"]
        hedging = Hedging(random.choice(delays), parts.budget())
        top = parts.race(services, names, hedging)
    else:
        top = parts.fallback(services, names)
    if random.random() < 0.5:
        top = parts.negative(top, Absences(ttl=random.choice([0.5, 30.0])))
    truth = {Digest.of(data): data for data in blobs}
    return World(seed, truth, members, top, hedging, metrics, verifies)


def _member(
    number: int, random: Random, blobs: Sequence[bytes], metrics: Metrics, parts: Parts
) -> Guarded:
    store = MemoryBlobService()
    for data in blobs:
        if random.random() < 0.6:
            store.blobs[Digest.of(data)] = data
    healthy = random.random() < 0.4
    rates: dict[Kind, float] = {}
    if not healthy:
        weights = [random.random() for _ in HONEST]
        share = random.choice([0.1, 0.5, 1.0]) / sum(weights)
        rates = {kind: weight * share for kind, weight in zip(HONEST, weights, strict=True)}
    latency = 0.0 if healthy else random.choice([0.0, 0.01, 0.3])
    chaos = Chaos(f"{number} {random.random()}", rates, latency)
    name = f"member-{number}"
    inner: BlobService = ChaosBlobService(store, chaos)
    inner = parts.metered(inner, metrics.node("blob", name))
    inner = parts.timeout(inner, Timeout(TIMEOUT))
    retry = Retry(ATTEMPTS, 0.1, PAUSE, random=Random(random.random()))
    watched = Watched(RetryBlobService(inner, retry), name)
    changes: list[tuple[bool, float]] = []
    breaker = parts.breaker(
        FAILURES, OPEN, on_change=lambda is_open, _: changes.append((is_open, now()))
    )
    service = BreakerBlobService(watched, breaker)
    return Guarded(store, chaos, watched, breaker, changes, service, healthy)


async def simulate(seed: int, parts: Parts = REAL) -> World:
    """Runs the world of that seed to its end; `broken` of it says what it did wrong."""
    # Here, and not for all of them: a module may be replaced by one with a planted bug.
    from tests.simulation.invariants import afterwards, read_one

    world = build(seed, parts)
    random = Random(f"readers {seed}")
    readers = []
    for _ in range(READERS):
        digest = random.choice(list(world.blobs))
        begins = random.uniform(0, 60.0)
        leaves = begins + random.expovariate(2.0) if random.random() < 0.2 else None
        call = random.choice(["has", "read", "read", "part" if world.verifies else "read"])
        readers.append(
            asyncio.create_task(_reader(world, read_one(world, call, digest), begins, leaves))
        )
    for reader in readers:
        await reader
    await afterwards(world, parts)
    return world


async def _reader(world: World, reading: object, begins: float, leaves: float | None) -> None:
    assert asyncio.iscoroutine(reading)
    await asyncio.sleep(begins)
    task = asyncio.create_task(reading)
    if leaves is not None:
        asyncio.get_running_loop().call_at(max(now(), leaves), task.cancel)
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        if not isinstance(error, StoreError):
            raise error
        world.wrong(f"a reader was told {type(error).__name__}: {error}")
