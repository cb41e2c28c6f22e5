"""The contract of `BlobService`, over every implementation: one row in `BLOB_SERVICES` each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.blob.conformance import CHECKS
from tests.blob.stores import local_store
from tests.blob.wrapped import ReadsFrom, Unwritable
from tests.rpc.client.rows import BLOB_ROWS
from tvixstore.blob import (
    BlobService,
    BlobWriter,
    CachedBlobService,
    Chunk,
    FallbackBlobService,
    LocalBlobService,
    MemoryBlobService,
    RacingBlobService,
    ReadOnlyBlobService,
    VerifyBlobService,
)
from tvixstore.blob.breaker import BreakerBlobService
from tvixstore.blob.chaos import ChaosBlobService
from tvixstore.blob.limit import LimitBlobService
from tvixstore.blob.metered import MeteredBlobService
from tvixstore.blob.mirror import MirrorBlobService
from tvixstore.blob.negative import NegativeBlobService
from tvixstore.blob.objectstore import ObjectStoreBlobService
from tvixstore.blob.retry import RetryBlobService
from tvixstore.blob.shard import ShardBlobService
from tvixstore.blob.timeout import TimeoutBlobService
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.kv import Durability, MemoryKeyValue
from tvixstore.metrics import Metrics
from tvixstore.policy.chaos import Chaos
from tvixstore.policy.limit import Limit
from tvixstore.policy.rendezvous import Rendezvous
from tvixstore.pools import Pools
from tvixstore.streams import BytesStream, ByteStream

Factory = Callable[[Path], AbstractAsyncContextManager[BlobService]]


@asynccontextmanager
async def memory(_: Path) -> AsyncIterator[BlobService]:
    yield MemoryBlobService()


@asynccontextmanager
async def local_over_memory(path: Path) -> AsyncIterator[BlobService]:
    pools = Pools()
    try:
        yield LocalBlobService(MemoryKeyValue(), MemoryKeyValue(), path, pools)
    finally:
        pools.close()


def local(durability: Durability, chunk_size: int) -> Factory:
    @asynccontextmanager
    async def factory(path: Path) -> AsyncIterator[BlobService]:
        async with local_store(path, durability=durability, chunk_size=chunk_size) as store:
            yield store.blobs

    return factory


def over(make: Callable[[BlobService], BlobService], *, chunk_size: int | None = None) -> Factory:
    """The row of a wrapper: what is written to the service that `make` gets is read through it."""

    @asynccontextmanager
    async def factory(path: Path) -> AsyncIterator[BlobService]:
        if chunk_size is None:
            inner: BlobService = MemoryBlobService()
            yield ReadsFrom(make(inner), inner)
            return
        async with local_store(path, chunk_size=chunk_size) as store:
            yield ReadsFrom(make(store.blobs), store.blobs)

    return factory


def through(
    make: Callable[[BlobService, Path, Pools], BlobService], *, chunk_size: int | None = None
) -> Factory:
    """The row of a wrapper that passes writes on, and is written itself."""

    @asynccontextmanager
    async def factory(path: Path) -> AsyncIterator[BlobService]:
        pools = Pools(files=2, cpu=1, dns=1)
        try:
            async with AsyncExitStack() as stack:
                inner: BlobService = MemoryBlobService()
                if chunk_size is not None:
                    store = local_store(path, chunk_size=chunk_size)
                    inner = (await stack.enter_async_context(store)).blobs
                service = make(inner, path, pools)
                if isinstance(service, MirrorBlobService):
                    # One was looked for where it was not yet, and is now: that asks for a repair.
                    stack.push_async_callback(service.aclose)
                yield service
        finally:
            pools.close()

    return factory


def wrapper(make: Callable[[BlobService], BlobService], chunk_size: int | None = None) -> Factory:
    return through(lambda inner, _, __: make(inner), chunk_size=chunk_size)


def mirror(inner: BlobService, path: Path, pools: Pools) -> BlobService:
    return MirrorBlobService([MemoryBlobService(), inner], ["one", "two"], 2)


def shard(inner: BlobService, path: Path, pools: Pools) -> BlobService:
    members = [MemoryBlobService(), inner, MemoryBlobService()]
    names = ["one", "two", "three"]
    return ShardBlobService(members, names, Rendezvous(names, [1.0, 3.0, 1.0]), path, pools)


def cache(*, fills: bool, chunk_size: int = 64 << 10) -> Factory:
    """The row of a cache that is written itself, or whose far service is."""

    @asynccontextmanager
    async def factory(path: Path) -> AsyncIterator[BlobService]:
        pools = Pools(files=2, cpu=1, dns=1)
        near, far = path / "near", path / "far"
        near.mkdir()
        far.mkdir()
        async with (
            local_store(near, chunk_size=256 << 10) as near_store,
            local_store(far, chunk_size=chunk_size) as far_store,
        ):
            service = CachedBlobService(near_store.blobs, far_store.blobs, path, pools)
            try:
                yield ReadsFrom(service, far_store.blobs) if fills else service
            finally:
                await service.aclose()
                pools.close()

    return factory


@asynccontextmanager
async def cache_that_passes(path: Path) -> AsyncIterator[BlobService]:
    pools = Pools(files=2, cpu=1, dns=1)
    far = MemoryBlobService()
    service = CachedBlobService(Unwritable(), far, path, pools)
    try:
        yield ReadsFrom(service, far)
    finally:
        await service.aclose()
        pools.close()


def object_store(memory: bool, avg_chunk_size: int) -> Factory:
    @asynccontextmanager
    async def factory(path: Path) -> AsyncIterator[BlobService]:
        pools = Pools()
        try:
            url = "memory:///" if memory else f"file://{path}"
            yield ObjectStoreBlobService.at(url, pools, avg_chunk_size)
        finally:
            pools.close()

    return factory


BLOB_SERVICES: dict[str, Factory] = {
    "memory": memory,
    "local over memory": local_over_memory,
    "local": local("power", 256 << 10),
    "local with small chunks": local("process", 16 << 10),
    "object store in a folder": object_store(False, 256 << 10),
    "object store in memory, with small chunks": object_store(True, 16 << 10),
    "cache": cache(fills=False),
    "cache that is filled": cache(fills=True),
    "cache whose near takes nothing": cache_that_passes,
    "race": over(lambda inner: RacingBlobService([MemoryBlobService(), inner], ["empty", "full"])),
    "race over chunks": over(
        lambda inner: RacingBlobService([inner, inner], ["one", "two"]), chunk_size=64 << 10
    ),
    "fallback": over(
        lambda inner: FallbackBlobService([MemoryBlobService(), inner], ["empty", "full"])
    ),
    "fallback over chunks": over(
        lambda inner: FallbackBlobService([inner], ["full"]), chunk_size=64 << 10
    ),
    "verify": over(VerifyBlobService),
    "verify over chunks": over(VerifyBlobService, chunk_size=64 << 10),
    "readonly": over(ReadOnlyBlobService),
    "timeout": wrapper(TimeoutBlobService),
    "retry": wrapper(RetryBlobService, 64 << 10),
    "breaker": wrapper(BreakerBlobService),
    "negative": wrapper(NegativeBlobService, 64 << 10),
    "limit": wrapper(lambda inner: LimitBlobService(inner, Limit.of(1, 1 << 40))),
    "limit over chunks": wrapper(
        lambda inner: LimitBlobService(inner, Limit.of(2, None)), 64 << 10
    ),
    "metered": wrapper(lambda inner: MeteredBlobService(inner, Metrics().node("blob", "inner"))),
    "mirror": through(mirror),
    "mirror over chunks": through(mirror, chunk_size=64 << 10),
    "shard": through(shard),
    "shard over chunks": through(shard, chunk_size=64 << 10),
    "chaos that is calm": wrapper(lambda inner: ChaosBlobService(inner, Chaos())),
    **BLOB_ROWS,
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", BLOB_SERVICES)
async def test_a_blob_service_keeps_its_contract(name: str, check: str, tmp_path: Path) -> None:
    async with BLOB_SERVICES[name](tmp_path) as service:
        await CHECKS[check](service)


class Truncates(MemoryBlobService):
    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        stream = await super().open_read(digest, offset, length, size)
        return None if stream is None else BytesStream((await stream.read_all())[:1_000_000])


class FlipsABit(MemoryBlobService):
    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        data = await super().read(digest, size)
        return data and data[:-1] + bytes([data[-1] ^ 1])


class ForgetsTheOffset(MemoryBlobService):
    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        return await super().open_read(digest, 0, length, size)


class TakesAbsentForEmpty(MemoryBlobService):
    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        return await super().read(digest, size) or b""


class HasNoEmptyBlob(MemoryBlobService):
    async def has(self, digest: Digest) -> bool:
        return digest != EMPTY_DIGEST and await super().has(digest)


class ListsChunksItLacks(MemoryBlobService):
    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        data = self.blobs.get(digest)
        if data is None or len(data) < 2:
            return await super().chunks(digest)
        halves = data[: len(data) // 2], data[len(data) // 2 :]
        return [Chunk(Digest.of(half), len(half)) for half in halves]


class SortsWhatIsPut(MemoryBlobService):
    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await super().put_many(sorted(blobs))


class PutsNothingThatIsLacking(MemoryBlobService):
    async def put_lacking(self, blobs: Mapping[Digest, bytes]) -> int:
        return sum(len(blobs[digest]) for digest in await self.lacking(list(blobs)))


class ShowsItTooEarly(MemoryBlobService):
    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        writer = await super().open_write(boundaries)
        write = writer.write

        async def write_and_show(data: bytes) -> None:
            await write(data)
            self.blobs.setdefault(Digest.of(data), data)

        setattr(writer, "write", write_and_show)  # noqa: B010 (a method is not assigned to)
        return writer


@pytest.mark.parametrize(
    "broken",
    [
        Truncates,
        FlipsABit,
        ForgetsTheOffset,
        TakesAbsentForEmpty,
        HasNoEmptyBlob,
        ListsChunksItLacks,
        SortsWhatIsPut,
        PutsNothingThatIsLacking,
        ShowsItTooEarly,
    ],
)
async def test_a_planted_bug_breaks_the_contract(broken: type[MemoryBlobService]) -> None:
    with pytest.raises(AssertionError):
        for check in CHECKS.values():
            await check(broken())
