"""The local blob service when its disk lies, loses, fills up, or its callers go away."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

import pytest
import zstandard

from tests.blob.conformance import KIB, noise, part, prose
from tests.blob.stores import Store, local_store
from tests.support.small_disk import fill, small_disk
from tvixstore.blob import LocalBlobService
from tvixstore.castore import Digest, FileNode
from tvixstore.errors import CorruptData, Incomplete, StorageFull, StoreError, Unavailable
from tvixstore.kv import Change, MemoryKeyValue, disk
from tvixstore.pools import Pool, Pools

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit flipped": flip,
    "cut short": lambda data: data[:-1],
    "empty": lambda _: b"",
    "too long": lambda data: data + b"\0",
    "zeroed": lambda data: bytes(len(data)),
}


async def expect_failure(store: Store, digest: Digest, kind: type[StoreError]) -> None:
    with pytest.raises(kind):
        await store.blobs.read(digest)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("make", [noise, prose])
async def test_a_damaged_file_is_dropped_and_can_be_stored_again(
    tmp_path: Path, damage: str, make: Callable[[int], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with local_store(tmp_path, chunk_size=1 << 20) as store:
        data = make(500 * KIB)
        digest = await store.blobs.put(data)
        (file,) = store.files()
        stored = file.read_bytes()
        file.write_bytes(DAMAGES[damage](stored))
        await expect_failure(store, digest, CorruptData)
        assert store.blobs.dropped_chunks == 1
        assert [record.message for record in caplog.records] == ["chunk.dropped"]
        assert not await store.blobs.has(digest)
        assert await store.blobs.read(digest) is None
        assert store.files() == [] and store.guard.used()["chunks"] == 0
        await store.blobs.put(data)
        assert await store.blobs.read(digest) == data


async def test_a_lost_file_is_dropped_and_can_be_stored_again(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        digest = await store.blobs.put(noise(100 * KIB))
        store.files()[0].unlink()
        await expect_failure(store, digest, Incomplete)
        assert await store.blobs.read(digest) is None
        await store.blobs.put(noise(100 * KIB))
        assert await store.blobs.read(digest) == noise(100 * KIB)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("make", [noise, prose])
async def test_a_damaged_index_entry_is_dropped_and_can_be_stored_again(
    tmp_path: Path, damage: str, make: Callable[[int], bytes]
) -> None:
    async with local_store(tmp_path) as store:
        data = make(20 * KIB)
        digest = await store.blobs.put(data)
        value = await store.table_chunks.get(digest.raw)
        assert value is not None
        await store.table_chunks.apply([(digest.raw, DAMAGES[damage](value))])
        assert await store.blobs.at_hand([FileNode(digest, len(data))]) == [None]
        await expect_failure(store, digest, CorruptData)
        assert await store.blobs.read(digest) is None
        await store.blobs.put(data)
        assert await store.blobs.read(digest) == data


async def test_a_frame_that_lies_about_its_size_is_not_unpacked(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        digest = Digest.of(b"small")
        bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
        await store.table_chunks.apply([(digest.raw, struct.pack("<BII", 1, 5, len(bomb)) + bomb)])
        assert await store.blobs.at_hand([FileNode(digest, 5)]) == [None]
        with pytest.raises(CorruptData, match="a frame of another size"):
            await store.blobs.read(digest)


async def test_a_reader_never_gets_the_last_byte_of_a_damaged_blob(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        data = noise(3_000_000)
        digest = await store.blobs.put(data)
        chunks = await store.blobs.chunks(digest)
        assert chunks is not None
        last = chunks[-1]
        file = next(path for path in store.files() if path.name == last.digest.hex())
        file.write_bytes(flip(file.read_bytes()))
        got = b""
        stream = await store.blobs.open_read(digest)
        assert stream is not None
        async with stream:
            with pytest.raises(CorruptData):
                async for piece in stream:
                    got += piece
        assert got == data[: -last.size]
        # It is absent now, so that whoever needs it stores it again; the other chunks are kept.
        assert await store.blobs.open_read(digest) is None
        assert len(store.files()) == len(chunks) - 1
        await store.blobs.put(data)
        assert await store.blobs.read(digest) == data


async def test_a_blob_that_lacks_a_chunk_is_incomplete_and_then_absent(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        data = noise(3_000_000)
        digest = await store.blobs.put(data)
        chunks = await store.blobs.chunks(digest)
        assert chunks is not None
        await store.table_chunks.apply([(chunks[2].digest.raw, None)])
        with pytest.raises(Incomplete) as raised:
            await part(store.blobs, digest)
        assert raised.value.digest == chunks[2].digest.raw
        assert not await store.blobs.has(digest)
        await store.blobs.put(data)
        assert await store.blobs.read(digest) == data


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_chunk_list_is_noticed_before_anything_is_read(
    tmp_path: Path, damage: str
) -> None:
    async with local_store(tmp_path) as store:
        data = noise(2_000_000)
        digest = await store.blobs.put(data)
        value = await store.table_blobs.get(digest.raw)
        assert value is not None
        await store.table_blobs.apply([(digest.raw, DAMAGES[damage](value))])
        with pytest.raises(CorruptData):
            await store.blobs.open_read(digest, 1_000_000, 1)
        assert await store.blobs.open_read(digest) is None
        await store.blobs.put(data)
        assert await store.blobs.read(digest) == data


async def test_the_list_of_another_blob_is_no_list_of_this_one(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        one, other = [await store.blobs.put(noise(1_000_000, seed)) for seed in (1, 2)]
        value = await store.table_blobs.get(other.raw)
        await store.table_blobs.apply([(one.raw, value)])
        await expect_failure(store, one, CorruptData)


async def test_many_readers_of_a_damaged_chunk_drop_it_once(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        digest = await store.blobs.put(noise(100 * KIB))
        store.files()[0].write_bytes(b"damaged")
        outcomes = await asyncio.gather(
            *[store.blobs.read(digest) for _ in range(10)], return_exceptions=True
        )
        assert all(outcome is None or isinstance(outcome, CorruptData) for outcome in outcomes)
        assert store.blobs.dropped_chunks == 1


async def test_trouble_that_may_pass_drops_nothing(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        digest = await store.blobs.put(noise(100 * KIB))
        (file,) = store.files()
        away = file.rename(tmp_path / "away")
        file.mkdir()
        await expect_failure(store, digest, Unavailable)
        file.rmdir()
        away.rename(file)
        assert await store.blobs.read(digest) == noise(100 * KIB)
        assert store.blobs.dropped_chunks == 0


async def test_a_full_disk_leaves_nothing_and_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "tvixstore")
    # What the guard believes for a moment would be true of the disk as it was.
    monkeypatch.setattr(disk, "HOLD", 0.0)
    monkeypatch.setattr(disk, "FRESH", 0.0)
    with small_disk(tmp_path, megabytes=24) as small:
        async with local_store(small) as store:
            kept = await store.blobs.put(noise(1_000_000, seed=1))
            before = store.files()
            ballast = fill(small, leave=2 << 20)
            for _ in range(3):
                with pytest.raises(StorageFull):
                    await store.blobs.put(noise(8_000_000))
            assert sorted(store.files()) == sorted(before)
            assert not await store.blobs.has(Digest.of(noise(8_000_000)))
            assert await store.blobs.read(kept) == noise(1_000_000, seed=1)
            ballast.unlink()
            digest = await store.blobs.put(noise(8_000_000))
            assert [record.message for record in caplog.records] == [
                "store.full",
                "store.room",
            ]
            assert await store.blobs.read(digest) == noise(8_000_000)


async def test_a_store_at_its_limit_takes_no_chunk(tmp_path: Path) -> None:
    async with local_store(tmp_path, max_size=2_000_000) as store:
        await store.blobs.put(noise(1_500_000, seed=1))
        before = store.files()
        with pytest.raises(StorageFull, match="max_size leaves no room"):
            await store.blobs.put(noise(5_000_000))
        with pytest.raises(StorageFull):
            await store.blobs.put_many([noise(100_000, seed) for seed in range(10)])
        assert sorted(store.files()) == sorted(before)


async def test_files_of_chunks_that_found_no_place_in_the_index_are_withdrawn(
    tmp_path: Path,
) -> None:
    async with local_store(tmp_path, map_bytes=400 * KIB) as store:
        # Four chunks become files, more than the map can take wait for the index.
        blob = noise(1_200_000) + b"".join(noise(60 * KIB, seed) for seed in range(20))
        sizes = [300_000] * 4 + [60 * KIB] * 20
        async with await store.blobs.open_write(sizes) as writer:
            await writer.write(blob)
            with pytest.raises(StorageFull):
                await writer.close()
        assert store.files() == [] and store.guard.used() == {"chunks": 0}
        assert await store.table_chunks.scan() == []


class Countdown:
    """Cancels `task` at the n-th of the points that it passes."""

    def __init__(self, points: int) -> None:
        self.left = points
        self.task: asyncio.Task[Digest] | None = None

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0 and self.task is not None:
            self.task.cancel()


class CountedPool(Pool):
    def __init__(self, passed: Countdown) -> None:
        super().__init__("counted", 4)
        self._passed = passed

    async def run(
        self,
        function: Callable[[Unpack[Arguments]], Result],
        *arguments: *Arguments,
    ) -> Result:
        self._passed()
        outcome = await super().run(function, *arguments)
        self._passed()
        return outcome


class CountedTable(MemoryKeyValue):
    def __init__(self, passed: Countdown) -> None:
        super().__init__()
        self._passed = passed

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._passed()
        await asyncio.sleep(0)
        return await super().get_many(keys)

    async def apply(self, changes: Sequence[Change]) -> None:
        self._passed()
        await asyncio.sleep(0)
        await super().apply(changes)
        self._passed()
        await asyncio.sleep(0)


async def test_a_writer_cancelled_at_any_point_leaves_all_or_nothing(tmp_path: Path) -> None:
    data = noise(5_000_000)
    digest = Digest.of(data)
    outcomes = []
    for points in itertools.count(1):
        passed = Countdown(points)
        path = tmp_path / str(points)
        pools = Pools()
        blobs, chunks = CountedTable(passed), CountedTable(passed)
        for name in ("files", "cpu"):
            getattr(pools, name).close()
            setattr(pools, name, CountedPool(passed))
        try:
            service = LocalBlobService(blobs, chunks, path, pools, durability="process")
            passed.task = asyncio.create_task(service.put(data))
            await asyncio.wait([passed.task])
            cancelled = passed.task.cancelled()
            files = [file for file in path.rglob("*") if file.is_file()]
            if await service.has(digest):
                assert await service.read(digest) == data
            else:
                assert cancelled
                assert files == [] and await chunks.scan() == [] and await blobs.scan() == []
            outcomes.append((cancelled, bool(files)))
        finally:
            pools.close()
        if passed.left > 0:
            break
    # Early it left nothing, late everything, and in the end nobody cancelled it.
    assert outcomes == sorted(outcomes, key=[(True, False), (True, True), (False, True)].index)
    assert len(set(outcomes)) == 3
