"""A world of writes: mirrors and shards over members that fail, are slow, or lose the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.support.virtual_clock import now
from tvixstore.blob import BlobService, BlobWriter, MemoryBlobService
from tvixstore.blob.chaos import ChaosBlobService
from tvixstore.blob.mirror import MirrorBlobService
from tvixstore.blob.retry import RetryBlobService
from tvixstore.castore import Digest
from tvixstore.errors import StoreError
from tvixstore.policy.chaos import Chaos, Kind
from tvixstore.policy.quorum import PATIENCE
from tvixstore.policy.retry import Retry

KINDS: tuple[Kind, ...] = ("error", "disconnect", "corrupt", "truncate", "stall")
WRITERS = 12


class Store(MemoryBlobService):
    """Counts the writers that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open_writers = 0

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        self.open_writers += 1
        return _Opened(await super().open_write(boundaries), self)


@dataclass(eq=False)
class _Opened(BlobWriter):
    inner: BlobWriter
    store: Store | None

    async def write(self, data: bytes) -> None:
        await self.inner.write(data)

    async def close(self) -> Digest:
        digest = await self.inner.close()
        await self.abort()
        return digest

    async def abort(self) -> None:
        if self.store is not None:
            self.store.open_writers -= 1
            self.store = None
        await self.inner.abort()


async def simulate_copies(
    seed: int, mirror: Callable[..., MirrorBlobService] = MirrorBlobService
) -> list[str]:
    """What the world of that seed broke of the invariants."""
    random, broken = Random(f"copies {seed}"), list[str]()
    stores = [Store() for _ in range(random.randrange(1, 5))]
    faults = [
        Chaos(f"{seed} {number}", dict.fromkeys(KINDS, random.choice([0.0, 0.02, 0.1])), 0.05)
        for number in range(len(stores))
    ]
    members: list[BlobService] = [
        RetryBlobService(ChaosBlobService(store, chaos), Retry(2, random=Random(seed)))
        for store, chaos in zip(stores, faults, strict=True)
    ]
    quorum = random.randrange(1, len(stores) + 1)
    root = mirror(members, [f"member-{n}" for n in range(len(stores))], quorum)
    written: dict[Digest, bytes] = {}

    async def write(data: bytes, streams: bool, begins: float) -> None:
        await asyncio.sleep(begins)
        try:
            digest = await (_stream_in(root, data) if streams else root.put(data))
        except StoreError:
            return
        if digest != Digest.of(data):
            broken.append(f"seed {seed}: {digest} is not what was written")
        holders = sum(store.blobs.get(digest) == data for store in stores)
        if holders < quorum:
            broken.append(f"seed {seed}: written, and {holders} of {quorum} have it")
        written[digest] = data

    writers = [
        asyncio.create_task(
            write(random.randbytes(random.randrange(1, 3000)), random.random() < 0.5, at / 10)
        )
        for at in range(WRITERS)
    ]
    for task in writers:
        if random.random() < 0.15:
            asyncio.get_running_loop().call_later(random.uniform(0, 2.0), task.cancel)
    await asyncio.wait(writers)
    for task in writers:
        if not task.cancelled():
            task.result()
    # Quiet again: what was missed has been brought by now, or is brought when it is asked for.
    for chaos in faults:
        chaos.rates, chaos.latency = {}, 0.0
    await asyncio.sleep(20_000.0)
    for digest, data in written.items():
        if await root.read(digest) != data:
            broken.append(f"seed {seed}: what was written is not read: {digest}")
    await asyncio.sleep(100.0 + PATIENCE)
    for number, store in enumerate(stores):
        wrong = [d for d, data in store.blobs.items() if Digest.of(data) != d]
        if wrong:
            broken.append(f"seed {seed}: member-{number} holds something wrong")
    # The first is asked first, so that whatever it lacked was noticed and brought.
    if missed := [digest for digest in written if digest not in stores[0].blobs]:
        broken.append(f"seed {seed}: not repaired, at {now():.0f} s: {missed}")
    await root.aclose()
    if left := [store.open_writers for store in stores if store.open_writers]:
        broken.append(f"seed {seed}: writers left open: {left}")
    return broken


async def _stream_in(root: BlobService, data: bytes) -> Digest:
    async with await root.open_write() as writer:
        for begin in range(0, len(data), 500):
            await writer.write(data[begin : begin + 500])
            await asyncio.sleep(0.01)
        return await writer.close()
