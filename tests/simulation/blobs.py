"""A world of compositions of blobs: read whole and in part, left half-read, put meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.simulation.compositions import ACTIONS, Composition, Kit, afterwards, compose, drive
from tests.support.virtual_clock import now
from tvixstore.blob import BlobService, CachedBlobService, MemoryBlobService, RacingBlobService
from tvixstore.blob.arrivals import AnnouncingBlobService
from tvixstore.blob.breaker import BreakerBlobService
from tvixstore.blob.chaos import ChaosBlobService
from tvixstore.blob.fallback import FallbackBlobService
from tvixstore.blob.limit import LimitBlobService
from tvixstore.blob.mirror import MirrorBlobService
from tvixstore.blob.negative import NegativeBlobService
from tvixstore.blob.retry import RetryBlobService
from tvixstore.blob.service import BlobWriter, Chunk
from tvixstore.blob.shard import ShardBlobService
from tvixstore.blob.timeout import TimeoutBlobService
from tvixstore.blob.verify import VerifyBlobService
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData, StorageFull, StoreError, Unavailable
from tvixstore.streams import BytesStream, ByteStream

CHUNK, PIECE = 700, 300
# A blob that is written is so many at most; a store that is full has room for less.
LONGEST = 4000


class Store(MemoryBlobService):
    """Cuts blobs into chunks, streams in pieces, counts its streams, and may be full soon."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.open_streams = 0
        self.room = random.choice([None, None, None, 0, 1000, 6000])
        self._chunks: dict[Digest, bytes] = {}
        self._lists: dict[Digest, list[Chunk]] = {}

    def hold(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[digest] = data
        if len(data) > CHUNK:
            pieces = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
            self._lists[digest] = [Chunk(Digest.of(piece), len(piece)) for piece in pieces]
            self._chunks |= {Digest.of(piece): piece for piece in pieces}
        return digest

    async def has(self, digest: Digest) -> bool:
        return digest in self.blobs or digest in self._chunks

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return self._lists.get(digest, []) if await self.has(digest) else None

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        if (data := self.blobs.get(digest, self._chunks.get(digest))) is None:
            return None
        data = data[offset : None if length is None else offset + length]
        return _Open(self, *[data[at : at + PIECE] for at in range(0, len(data), PIECE)])

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return _Writer(self)


@dataclass(eq=False)
class _Writer(BlobWriter):
    store: Store
    data: bytes = b""

    async def write(self, data: bytes) -> None:
        self.data += data
        if self.store.room is not None and len(self.data) > self.store.room:
            raise StorageFull("no room")

    async def close(self) -> Digest:
        if self.store.room is not None:
            self.store.room = max(0, self.store.room - len(self.data))
        return self.store.hold(self.data)

    async def abort(self) -> None:
        return


class _Open(BytesStream):
    def __init__(self, store: Store, *parts: bytes) -> None:
        super().__init__(*parts)
        self._store: Store | None = store
        store.open_streams += 1

    async def aclose(self) -> None:
        if self._store is not None:
            self._store.open_streams -= 1
            self._store = None
        await super().aclose()


class HonestLists(ChaosBlobService):
    """Chunk lists come or don't, and don't lie."""

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        await self.chaos.meet()
        return await self.inner.chunks(digest)


@dataclass(eq=False)
class Alone(BlobWrapper):
    """Notes in `crowds` what is read whole by two at once, where that `matters`."""

    crowds: list[str]
    matters: bool
    reading: Counter[Digest] = field(default_factory=Counter)

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        if offset or length is not None or not self.matters or _is_of_a_chunk():
            return await self.inner.open_read(digest, offset, length, size)
        self.reading[digest] += 1
        if self.reading[digest] > 1:
            self.crowds.append(f"{digest}, at {now():.3f} s")
        stream = None
        try:
            stream = await self.inner.open_read(digest, size=size)
        finally:
            self.reading[digest] -= stream is None
        return None if stream is None else _Read(stream, self, digest)


def _is_of_a_chunk() -> bool:
    """Whether a fill of another blob wants it, as one of its chunks: that is no second fill of it.

    Those are fetched by tasks of a `ReadAhead`, which have no names of their own.
    """
    task = asyncio.current_task()
    return task is not None and task.get_name().startswith("Task-")


class _Read(ByteStream):
    def __init__(self, inner: ByteStream, alone: Alone, digest: Digest) -> None:
        self._inner = inner
        self._alone: Alone | None = alone
        self._digest = digest

    async def __anext__(self) -> bytes:
        return await self._inner.__anext__()

    async def aclose(self) -> None:
        if self._alone is not None:
            self._alone.reading[self._digest] -= 1
            self._alone = None
        await self._inner.aclose()


KIT = Kit(
    store=Store,
    chaos=HonestLists,
    announcing=AnnouncingBlobService,
    limit=LimitBlobService,
    timeout=TimeoutBlobService,
    retry=RetryBlobService,
    breaker=BreakerBlobService,
    verify=VerifyBlobService,
    negative=NegativeBlobService,
    race=RacingBlobService,
    fallback=FallbackBlobService,
    shard=lambda members, names, placement: ShardBlobService(
        members, names, placement, Path("/nowhere"), _NO_POOLS
    ),
    mirror=MirrorBlobService,
    cache=lambda near, far, metrics: CachedBlobService(
        near, far, Path("/nowhere"), _NO_POOLS, metrics
    ),
    alone=Alone,
    faults=("error", "truncate", "corrupt", "stall", "disconnect"),
)
# Blobs are too short to be spooled to files.
_NO_POOLS: Any = type("NoPools", (), {"files": None})()


async def simulate_blobs(seed: int, kit: Kit = KIT) -> list[str]:
    """What the world of that seed broke of the invariants."""
    random = Random(f"blobs {seed}")
    # A list that lies breaks a stream, visibly, though others may have the blob.
    lies = random.random() < 0.25
    if lies:
        kit = replace(kit, chaos=ChaosBlobService)
    elif random.random() < 0.4:
        # What is verified comes in one piece, so short are blobs here. This breaks in the middle.
        kit = replace(kit, verify=None, faults=("error", "stall", "disconnect"))
    world = compose(f"blobs, seed {seed}", kit, random)
    callers = _Callers(world, random, lies)
    actions = [callers.action() for _ in range(ACTIONS)]
    await drive(world, random, actions)
    await afterwards(world, callers.check_all)
    return world.broken


class _Callers:
    """Who uses a world, and what they have to get."""

    def __init__(self, world: Composition, random: Random, lies: bool) -> None:
        self._lies = lies
        self._world = world
        self._random = random
        self._root: BlobService = world.root
        blobs = [random.randbytes(random.randrange(1, LONGEST)) for _ in range(6)]
        self._blobs = {Digest.of(data): data for data in blobs}
        # The last two come only if somebody puts them.
        for data in blobs[:4]:
            for leaf in world.leaves.values():
                if random.random() < 0.4:
                    leaf.store.hold(data)

    def action(self) -> Callable[[], Any]:
        random = self._random
        digest = random.choice(list(self._blobs))
        begin = random.randrange(0, len(self._blobs[digest]) + 3)
        length = random.choice([None, 0, 1, random.randrange(1, LONGEST)])
        size = random.choice([None, len(self._blobs[digest])])
        return random.choice(
            [
                partial(self._has, digest),
                partial(self._read, digest, 0, None, size),
                partial(self._read, digest, 0, None, size),
                partial(self._read_at_once, digest, size),
                partial(self._read, digest, begin, length, size),
                partial(self._look_into, digest),
                partial(self._chunks, digest),
                partial(self._put, digest),
                partial(self._write, digest),
            ]
        )

    async def check_all(self) -> None:
        for digest in self._blobs:
            await self._has(digest)
            await self._read(digest)

    async def _ask(self, call: str, digest: Digest, asking: Any) -> Any:
        """What comes of it, and whether it may be absent or fail."""
        world = self._world
        holders = [leaf for leaf in world.leaves.values() if digest in leaf.store.blobs]
        arriving = digest in world.arriving
        well = any(leaf.healthy for leaf in holders)
        try:
            answer = await asking
        except (Unavailable, CorruptData) as error:
            if well and not arriving and not self._lies:
                world.wrong(f"not delivered: {call} {digest}: {error}")
            return None
        if answer is None and holders and not arriving:
            world.wrong(f"a false absent: {call} {digest}")
        if answer is not None and not any(
            digest in leaf.store.blobs for leaf in world.leaves.values()
        ):
            world.wrong(f"there is nothing of the kind: {call} {digest}")
        return answer

    async def _has(self, digest: Digest) -> None:
        async def ask() -> bool | None:
            return await self._root.has(digest) or None

        begun = now()
        await self._ask("has", digest, ask())
        if now() - begun > self._world.most:
            self._world.wrong(f"has took {now() - begun:.3f} s")

    async def _chunks(self, digest: Digest) -> None:
        await self._ask("chunks", digest, self._root.chunks(digest))

    async def _read(
        self, digest: Digest, begin: int = 0, length: int | None = None, size: int | None = None
    ) -> None:
        async def ask() -> bytes | None:
            stream = await self._root.open_read(digest, begin, length, size)
            return None if stream is None else await stream.read_all()

        got = await self._ask(f"read from {begin} for {length}", digest, ask())
        end = None if length is None else begin + length
        if got is not None and got != self._blobs[digest][begin:end]:
            self._world.wrong(f"wrong bytes: {digest} from {begin} for {length}")

    async def _read_at_once(self, digest: Digest, size: int | None) -> None:
        got = await self._ask("read", digest, self._root.read(digest, size))
        if got is not None and got != self._blobs[digest]:
            self._world.wrong(f"wrong bytes: {digest}")

    async def _look_into(self, digest: Digest) -> None:
        """Reads a piece, thinks, and leaves."""

        async def ask() -> bytes | None:
            stream = await self._root.open_read(digest)
            if stream is None:
                return None
            async with stream:
                return await anext(stream, b"")

        got = await self._ask("look into", digest, ask())
        if got is not None and not self._blobs[digest].startswith(got):
            self._world.wrong(f"wrong bytes: the first of {digest}")

    async def _put(self, digest: Digest) -> None:
        await self._bring(digest, self._root.put(self._blobs[digest]))

    async def _write(self, digest: Digest) -> None:
        async def write() -> Digest:
            data = self._blobs[digest]
            async with await self._root.open_write() as writer:
                for begin in range(0, len(data), 900):
                    await writer.write(data[begin : begin + 900])
                return await writer.close()

        await self._bring(digest, write())

    async def _bring(self, digest: Digest, putting: Any) -> None:
        world = self._world
        world.arriving.append(digest)
        try:
            got = await putting
        except StoreError:
            return
        finally:
            world.arriving.remove(digest)
        if got != digest:
            world.wrong(f"{got} is not what was put")
        if not any(digest in leaf.store.blobs for leaf in world.leaves.values()):
            world.wrong(f"put, and nowhere: {digest}")
