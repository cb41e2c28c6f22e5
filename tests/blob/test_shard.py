from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blob.conformance import noise, part
from tests.blob.scripted import Scripted
from tests.blob.stores import local_store
from tvixstore.blob import BlobService, MemoryBlobService
from tvixstore.blob.shard import ShardBlobService
from tvixstore.castore import Digest
from tvixstore.errors import StorageFull, Unavailable
from tvixstore.policy.rendezvous import Rendezvous
from tvixstore.pools import Pools


@pytest.fixture
def pools() -> Iterator[Pools]:
    pools = Pools(files=2, cpu=1, dns=1)
    yield pools
    pools.close()


def shard(path: Path, pools: Pools, **members: BlobService) -> ShardBlobService:
    names = list(members)
    return ShardBlobService(
        list(members.values()), names, Rendezvous(names, [1.0] * len(names)), path, pools
    )


BLOBS = [noise(size, seed=size) for size in range(1000, 1100)]


async def test_each_blob_is_in_one_place_and_all_of_them_share(
    tmp_path: Path, pools: Pools
) -> None:
    members = {name: MemoryBlobService() for name in "abc"}
    service = shard(tmp_path, pools, **members)
    await service.put_many(BLOBS[:50])
    for data in BLOBS[50:]:
        await service.put(data)
    held = [set(member.blobs) - {Digest.of(b"")} for member in members.values()]
    assert sum(map(len, held)) == len(BLOBS)
    assert all(len(each) > 15 for each in held)
    for data in BLOBS:
        assert await service.read(Digest.of(data)) == data


async def test_what_came_before_a_member_was_added_is_found(tmp_path: Path, pools: Pools) -> None:
    members: dict[str, BlobService] = {name: MemoryBlobService() for name in "abc"}
    await shard(tmp_path, pools, **members).put_many(BLOBS)
    grown = shard(tmp_path, pools, **members, d=MemoryBlobService())
    for data in BLOBS:
        assert await grown.read(Digest.of(data)) == data


async def test_a_chunk_is_read_where_its_blob_is(tmp_path: Path, pools: Pools) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    data = noise(2_000_000)
    async with (
        local_store(one, chunk_size=64 << 10) as first,
        local_store(two, chunk_size=64 << 10) as second,
    ):
        service = shard(tmp_path, pools, a=first.blobs, b=second.blobs)
        async with await service.open_write() as writer:
            for begin in range(0, len(data), 300_000):
                await writer.write(data[begin : begin + 300_000])
            digest = await writer.close()
        assert await part(service, digest, 999_999, 100) == data[999_999:1_000_099]
        chunks = await service.chunks(digest)
        assert chunks
        # Also by somebody who did not list them.
        for reader in (service, shard(tmp_path, pools, a=first.blobs, b=second.blobs)):
            assert b"".join([await reader.read(c.digest) or b"" for c in chunks]) == data


async def test_a_member_that_is_down_leaves_nothing_absent(tmp_path: Path, pools: Pools) -> None:
    healthy, down = MemoryBlobService(), Scripted(fails=Unavailable("down"))
    service = shard(tmp_path, pools, a=healthy, b=down)
    mine = next(data for data in BLOBS if service.place(Digest.of(data)) == 0)
    assert await service.read(await service.put(mine)) == mine
    with pytest.raises(Unavailable, match="b: down"):
        await service.read(Digest.of(b"nobody has it"))


async def test_a_spool_without_room_says_so(tmp_path: Path, pools: Pools) -> None:
    service = shard(tmp_path / "gone", pools, a=MemoryBlobService())
    with pytest.raises(StorageFull, match="has no room here"):
        async with await service.open_write() as writer:
            for _ in range(3):
                await writer.write(bytes(1 << 20))
