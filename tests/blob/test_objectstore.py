"""Object stores: tvix's layout to the byte, and what happens to a bucket that others write to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blake3 import blake3

from tvixstore.blob import Chunk
from tvixstore.blob.object_codec import chunk_key, encode_stat
from tvixstore.blob.objectstore import ObjectStoreBlobService
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.errors import ConfigError, CorruptData, Incomplete, Unavailable
from tvixstore.pools import Pools

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "objectstore.json").read_text()
)["blobs"]
CONTENTS = {
    "empty": b"",
    "b'Hello World!'": b"Hello World!",
    "3000000 zero bytes": bytes(3_000_000),
    "first 3000000 bytes of the BLAKE3 XOF of b'chunks'": blake3(b"chunks").digest(3_000_000),
    "first 131073 bytes of the BLAKE3 XOF of b'm'": blake3(b"m").digest(131_073),
}
LONG = blake3(b"long").digest(3_000_000)


@pytest.fixture
def pools() -> Iterator[Pools]:
    pools = Pools()
    yield pools
    pools.close()


@pytest.fixture
async def service(tmp_path: Path, pools: Pools) -> AsyncIterator[ObjectStoreBlobService]:
    yield ObjectStoreBlobService.at(f"file://{tmp_path}", pools)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["blob"])[:16])
async def test_the_layout_is_that_of_tvix(
    vector: dict[str, Any], tmp_path: Path, service: ObjectStoreBlobService
) -> None:
    data = CONTENTS[vector["blob"]]
    digest = await service.put(data)
    assert digest.raw.hex() == vector["digest_hex"]
    chunks = await service.chunks(digest)
    lengths = [chunk.size for chunk in chunks or ()]
    assert lengths == (vector["chunk_lengths"] if len(vector["chunk_lengths"]) > 1 else [])
    written = files(tmp_path)
    lists = {key: value.hex() for key, value in written.items() if key.startswith("blobs/")}
    assert lists == vector["objects"]
    assert sorted(written.keys() - lists.keys()) == vector["chunk_keys"]
    for key in vector["chunk_keys"]:
        chunk = zstandard.ZstdDecompressor().decompress(written[key])
        assert blake3(chunk).hexdigest() == key.rpartition("/")[2]


async def test_what_tvix_wrote_is_read(tmp_path: Path, service: ObjectStoreBlobService) -> None:
    """Whose frames do not say how long they are, because they were streamed."""
    digest, pieces = plant(tmp_path, LONG, [1_000_000, 1_500_000, 500_000])
    assert await service.read(digest) == LONG
    assert await service.chunks(digest) == [Chunk(Digest.of(piece), len(piece)) for piece in pieces]
    assert await service.read(Digest.of(pieces[1])) == pieces[1]


def plant(folder: Path, data: bytes, sizes: list[int]) -> tuple[Digest, list[bytes]]:
    """`data` in the bucket, cut as `sizes` say; its digest and its chunks."""
    pieces: list[bytes] = []
    for size in sizes:
        begin = sum(map(len, pieces))
        pieces.append(data[begin : begin + size])
        plant_chunk(folder, Digest.of(pieces[-1]), pieces[-1])
    plant_list(folder, Digest.of(data), [(Digest.of(piece), len(piece)) for piece in pieces])
    return Digest.of(data), pieces


def plant_chunk(folder: Path, digest: Digest, data: bytes) -> None:
    compressor = zstandard.ZstdCompressor().compressobj()
    write(folder / chunk_key(digest.raw), compressor.compress(data) + compressor.flush())


def plant_list(folder: Path, blob: Digest, chunks: list[tuple[Digest, int]]) -> None:
    stat = encode_stat([(digest.raw, size) for digest, size in chunks])
    write(folder / chunk_key(blob.raw).replace("chunks/", "blobs/"), stat)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


async def test_a_list_that_lies_gives_no_last_byte_and_no_part(
    tmp_path: Path, service: ObjectStoreBlobService
) -> None:
    _, pieces = plant(tmp_path, LONG, [1_000_000, 1_000_000, 1_000_000])
    victim = Digest.of(b"something else")
    plant_list(tmp_path, victim, [(Digest.of(piece), len(piece)) for piece in pieces])
    stream = await service.open_read(victim)
    assert stream is not None
    received = 0
    with pytest.raises(CorruptData, match="hashes to"):
        async with stream:
            async for part in stream:
                received += len(part)
    assert received < len(LONG)
    with pytest.raises(CorruptData, match="hashes to"):
        await service.open_read(victim, 10, 10)


async def test_parts_are_read_by_a_list_that_was_verified_once(
    tmp_path: Path, service: ObjectStoreBlobService
) -> None:
    digest, pieces = plant(tmp_path, LONG, [1_000_000, 1_000_000, 1_000_000])
    assert await part(service, digest, 999_999, 2) == LONG[999_999:1_000_001]
    # The others are not needed any more.
    (tmp_path / chunk_key(Digest.of(pieces[2]).raw)).unlink()
    assert await part(service, digest, 0, 2_000_000) == LONG[:2_000_000]
    with pytest.raises(Incomplete):
        await part(service, digest, 2_000_000, 1)


async def part(
    service: ObjectStoreBlobService, digest: Digest, offset: int, length: int
) -> bytes | None:
    stream = await service.open_read(digest, offset, length)
    return None if stream is None else await stream.read_all()


async def test_a_chunk_that_is_broken_is_written_anew(
    tmp_path: Path, service: ObjectStoreBlobService
) -> None:
    digest = await service.put(LONG[:100_000])
    path = tmp_path / chunk_key(digest.raw)
    right = path.read_bytes()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    with pytest.raises(CorruptData):
        await service.read(digest)
    assert await service.put(LONG[:100_000]) == digest
    assert path.read_bytes() == right


async def test_a_bomb_is_not_unpacked(tmp_path: Path, service: ObjectStoreBlobService) -> None:
    digest = Digest.of(b"small")
    plant_chunk(tmp_path, digest, bytes(200 << 20))
    with pytest.raises(CorruptData, match="of another size"):
        await service.read(digest)


@pytest.mark.parametrize(
    "stat", [b"\x12", b"\x12\x02\x0a\x00", b"\x08\x01", encode_stat([(bytes(32), 0)] * 2)]
)
async def test_a_list_that_is_none_is_corrupt(
    stat: bytes, tmp_path: Path, service: ObjectStoreBlobService
) -> None:
    digest = Digest.of(b"listed")
    write(tmp_path / chunk_key(digest.raw).replace("chunks/", "blobs/"), stat)
    if stat == b"\x08\x01":
        # A field that nobody knows, and no chunks: a blob of one chunk, which is not there.
        with pytest.raises(Incomplete):
            await service.read(digest)
    else:
        with pytest.raises(CorruptData):
            await service.read(digest)


async def test_a_blob_whose_only_chunk_is_lost_is_incomplete(
    tmp_path: Path, service: ObjectStoreBlobService
) -> None:
    digest = await service.put(b"lost")
    (tmp_path / chunk_key(digest.raw)).unlink()
    with pytest.raises(Incomplete):
        await service.open_read(digest)


async def test_a_bucket_that_cannot_be_read_is_unknown_not_absent(
    tmp_path: Path, service: ObjectStoreBlobService
) -> None:
    digest = Digest.of(b"x")
    path = tmp_path / chunk_key(digest.raw)
    path.parent.mkdir(parents=True)
    path.symlink_to(path)
    with pytest.raises(Unavailable):
        await service.open_read(digest)


async def test_what_was_put_is_there_for_the_next_process(tmp_path: Path, pools: Pools) -> None:
    for _ in range(2):
        service = ObjectStoreBlobService.at(f"file://{tmp_path}/not%20yet/there", pools)
        digest = await service.put(LONG)
        assert await service.read(digest) == LONG
    assert (tmp_path / "not yet" / "there" / "blobs").is_dir()


async def test_two_buckets_in_memory_are_two(pools: Pools) -> None:
    first, second = (ObjectStoreBlobService.at("memory:///", pools) for _ in range(2))
    digest = await first.put(b"x")
    assert not await second.has(digest)
    assert await second.has(EMPTY_DIGEST)


@pytest.mark.parametrize("url", ["s3://bucket/x", "file:///proc/nothing/here"])
async def test_a_place_that_cannot_be_used_is_one_line(url: str, pools: Pools) -> None:
    with pytest.raises(ConfigError, match="^[^\n]*$"):
        ObjectStoreBlobService.at(url, pools)
