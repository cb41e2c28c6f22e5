"""How the local blob service keeps blobs: what goes where, how often, and how durably."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.blob.conformance import KIB, noise, part, prose
from tests.blob.stores import local_store
from tvixstore.blob import LocalBlobService, staging
from tvixstore.castore import Digest, FileNode
from tvixstore.kv import MemoryKeyValue
from tvixstore.pools import Pools


async def test_a_blob_of_one_chunk_is_kept_as_just_that_chunk(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        digest = await store.blobs.put(noise(100 * KIB))
        assert await store.table_blobs.scan() == []
        assert [key for key, _ in await store.table_chunks.scan()] == [digest.raw]
        assert await store.blobs.chunks(digest) == []


async def test_small_chunks_are_in_the_index_and_larger_ones_are_files(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        await store.blobs.put(noise(64 * KIB))
        # Compressed it is small, whatever its size.
        await store.blobs.put(bytes(120 * KIB))
        assert store.files() == []
        digest = await store.blobs.put(noise(64 * KIB + 1))
        name = digest.hex()
        assert store.files() == [tmp_path / "chunks" / name[:2] / name]
        assert store.files()[0].read_bytes() == noise(64 * KIB + 1)


async def test_what_is_whole_in_the_index_is_at_hand(tmp_path: Path) -> None:
    async with local_store(tmp_path, chunk_size=16 * KIB) as store:
        blobs = [noise(300), prose(3000), b"", bytes(120 * KIB), noise(60 * KIB)]
        digests = await store.blobs.put_many(blobs)
        files = [FileNode(digest, len(blob)) for blob, digest in zip(blobs, digests, strict=True)]
        contents = await store.blobs.at_hand(files)
        assert contents[:3] == blobs[:3]
        # Of several chunks, or in a file.
        assert contents[3:] == [None, None]


async def test_chunks_are_compressed_where_it_pays(tmp_path: Path) -> None:
    async with local_store(tmp_path / "auto") as store:
        blobs = {
            "text": prose(256 * KIB * 8),
            "noise": noise(256 * KIB * 8),
            # Saves a twentieth: not worth decompressing it each time.
            "hardly": bytes(6 * KIB) + noise(114 * KIB),
        }
        stored = {}
        for name, data in blobs.items():
            before = sum(path.stat().st_size for path in store.files())
            digest = await store.blobs.put(data)
            stored[name] = sum(path.stat().st_size for path in store.files()) - before
            assert await store.blobs.read(digest) == data
        assert stored["text"] < len(blobs["text"]) // 2
        assert stored["noise"] == len(blobs["noise"])
        assert stored["hardly"] == len(blobs["hardly"])
    async with local_store(tmp_path / "none", compression="none") as store:
        await store.blobs.put(blobs["text"])
        assert sum(path.stat().st_size for path in store.files()) == len(blobs["text"])


async def test_chunk_digests_of_another_store_exist_here_too(tmp_path: Path) -> None:
    data = noise(1_000_000)
    sizes = [300_000, 1, 199_999, 500_000]
    async with local_store(tmp_path) as store:
        async with await store.blobs.open_write(sizes) as writer:
            await writer.write(data)
            digest = await writer.close()
        chunks = await store.blobs.chunks(digest)
        assert chunks is not None
        assert [chunk.size for chunk in chunks] == sizes
        assert await store.blobs.read(Digest.of(data[:300_000])) == data[:300_000]


async def test_what_two_blobs_share_is_kept_once(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        data = noise(5_000_000)
        await store.blobs.put(data)
        before = store.guard.used()["chunks"]
        changed = data[:2_500_000] + b"!" + data[2_500_001:]
        assert await store.blobs.read(await store.blobs.put(changed)) == changed
        assert store.guard.used()["chunks"] - before < 1_100_000


async def test_storing_it_again_writes_no_chunk(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        small, large = noise(10_000), noise(3_000_000)
        await store.blobs.put_many([small, large])
        times = {path: path.stat().st_mtime_ns for path in store.files()}
        commits = store.engine.commits
        await store.blobs.put_many([small])
        assert store.engine.commits == commits
        await store.blobs.put(large)
        assert {path: path.stat().st_mtime_ns for path in store.files()} == times


async def test_many_small_blobs_are_one_commit(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        commits = store.engine.commits
        blobs = [noise(2000, seed) for seed in range(500)]
        await store.blobs.put_many(blobs)
        assert store.engine.commits == commits + 1
        assert await store.blobs.put_many(blobs[:3]) == [Digest.of(data) for data in blobs[:3]]


async def test_a_small_blob_is_read_without_any_thread(tmp_path: Path) -> None:
    pools = Pools()
    try:
        service = LocalBlobService(MemoryKeyValue(), MemoryKeyValue(), tmp_path, pools)
        digests = await service.put_many([noise(4000), prose(100_000)])
    finally:
        pools.close()
    for digest in digests:
        data = await service.read(digest)
        assert data is not None
        assert await part(service, digest, 10, 20) == data[10:30]


async def test_memory_is_bounded_however_well_a_blob_compresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "MAX_WAITING_BYTES", 1000)
    async with local_store(tmp_path) as store:
        data = b"".join(bytes([byte]) * 100_000 for byte in range(80))
        digest = await store.blobs.put(data)
        assert await store.blobs.read(digest) == data
        inline = [value for _, value in await store.table_chunks.scan() if len(value) > 9]
        assert inline and sum(map(len, inline)) < 2000
        # What did not fit into memory went to files, small as it was.
        assert 0 < max(path.stat().st_size for path in store.files()) < 1000


@pytest.mark.parametrize("make", [noise, prose])
async def test_memory_is_bounded_however_large_a_blob_is(
    tmp_path: Path, make: Callable[[int, int], bytes]
) -> None:
    pieces = [make(1 << 20, seed) for seed in range(32)]
    async with local_store(tmp_path) as store:
        tracemalloc.start()
        try:
            async with await store.blobs.open_write() as writer:
                for piece in pieces:
                    await writer.write(piece)
                digest = await writer.close()
            _, written = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            stream = await store.blobs.open_read(digest)
            assert stream is not None
            async with stream:
                assert sum([len(piece) async for piece in stream]) == 32 << 20
            _, read = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert written < 20 << 20
        assert read < 12 << 20


async def test_the_guard_knows_the_bytes_of_all_files(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        for seed in range(3):
            await store.blobs.put(noise(1_000_000, seed))
        await store.blobs.put(noise(1_000_000, 0))
        async with await store.blobs.open_write() as writer:
            await writer.write(noise(6_000_000, 4))
        assert store.guard.used() == {"chunks": 3_000_000}
        assert sum(path.stat().st_size for path in store.files()) == 3_000_000


async def test_unfinished_files_of_a_killed_process_are_removed_at_start(tmp_path: Path) -> None:
    async with local_store(tmp_path) as store:
        digest = await store.blobs.put(noise(100_000))
        left = tmp_path / "chunks" / "incoming" / "left"
        left.write_bytes(b"half a chunk")
    async with local_store(tmp_path) as store:
        assert not left.exists()
        assert await store.blobs.read(digest) == noise(100_000)


async def test_chunks_are_on_disk_before_they_get_names_and_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with local_store(tmp_path, durability="power") as store:
        events: list[tuple[str, str]] = []

        def spy(name: str) -> None:
            real = getattr(os, name)

            def call(target: int | str, *rest: str) -> None:
                path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
                real(target, *rest)
                events.append((name, path))

            monkeypatch.setattr(os, name, call)

        for name in ("fdatasync", "fsync", "rename"):
            spy(name)
        commits = store.engine.commits
        digest = await store.blobs.put(noise(1_500_000))
        chunks = await store.blobs.chunks(digest)
        assert chunks is not None
        kinds = [name for name, _ in events]
        assert kinds == sorted(kinds, key=["fdatasync", "rename", "fsync"].index)
        synced = {path for name, path in events if name == "fdatasync"}
        renamed = {path for name, path in events if name == "rename"}
        folders = {path for name, path in events if name == "fsync"}
        assert len(chunks) == len(synced) and synced == renamed
        assert folders == {os.fspath(path.parent) for path in store.files()}
        # The index first, then the list that relies on it.
        assert store.engine.commits == commits + 2
