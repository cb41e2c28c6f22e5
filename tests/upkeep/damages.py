"""Everything that can be wrong with a state directory, done to one that nobody works on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tvixstore.blob.chunk_codec import is_in_file
from tvixstore.blob.chunk_list import decode_chunk_list, encode_chunk_list
from tvixstore.castore import (
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    decode_directory,
    encode_node,
)
from tvixstore.nar.identity import NarIdentity, encode_identity
from tvixstore.pathinfo import PathInfo
from tvixstore.pathinfo.codec import decode_record, encode_record
from tvixstore.pathinfo.pins import Pins

if TYPE_CHECKING:
    from pathlib import Path

    from tests.upkeep.house import House
    from tvixstore.kv import LmdbEngine

# What is done; it returns the key of the finding that names it, or a part of that.
Plant = Callable[["House"], Awaitable[str]]
Change = Callable[[bytes], bytes]


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


async def change(engine: LmdbEngine, table: str, key: bytes, made: Change) -> None:
    row = await engine.table(table).get(key)
    assert row is not None
    await engine.table(table).apply([(key, made(row))])


async def info_of(engine: LmdbEngine, house: House, name: str) -> PathInfo:
    row = await engine.table("pathinfos").get(house.store_path(name).hash)
    assert row is not None
    return decode_record(row)


async def root_of(engine: LmdbEngine, house: House) -> Directory:
    """The library's."""
    node = (await info_of(engine, house, "library")).node
    assert isinstance(node, DirectoryNode)
    row = await engine.table("directories").get(node.digest.raw)
    assert row is not None
    return decode_directory(row)


async def large_of(engine: LmdbEngine, house: House) -> FileNode:
    """The library's largest file, which is several chunks."""
    node = dict(await root_of(engine, house))[b"large"]
    assert isinstance(node, FileNode)
    return node


async def chunks_of_large(engine: LmdbEngine, house: House) -> list[tuple[bytes, int]]:
    digest = (await large_of(engine, house)).digest.raw
    row = await engine.table("blobs").get(digest)
    assert row is not None
    return decode_chunk_list(digest, row)


async def chunk_file(house: House) -> Path:
    """The file of one of its chunks."""
    async with house.engine() as engine:
        for chunk, _ in await chunks_of_large(engine, house):
            row = await engine.table("chunks").get(chunk)
            assert row is not None
            if is_in_file(row):
                return house.state / "chunks" / chunk.hex()[:2] / chunk.hex()
    raise AssertionError("no chunk is a file")


async def flip_in_file(house: House) -> str:
    file = await chunk_file(house)
    file.write_bytes(flipped(file.read_bytes()))
    return file.name


async def truncate_file(house: House) -> str:
    file = await chunk_file(house)
    file.write_bytes(file.read_bytes()[:-1])
    return file.name


async def lengthen_file(house: House) -> str:
    file = await chunk_file(house)
    file.write_bytes(file.read_bytes() + b"\0")
    return file.name


async def delete_file(house: House) -> str:
    file = await chunk_file(house)
    file.unlink()
    return file.name


async def _change_other(house: House, made: Change) -> str:
    """Changes the row of the chunk that is all there is of the path `other`."""
    digest = Digest.of(b"other").raw
    async with house.engine() as engine:
        await change(engine, "chunks", digest, made)
    return digest.hex()


async def flip_in_chunk_row(house: House) -> str:
    return await _change_other(house, flipped)


async def garble_chunk_row(house: House) -> str:
    return await _change_other(house, lambda row: b"\xff" + row[1:])


async def delete_chunk_row(house: House) -> str:
    """What is left is a blob that lacks a chunk, and its file, that nobody knows."""
    file = await chunk_file(house)
    async with house.engine() as engine:
        await engine.table("chunks").apply([(bytes.fromhex(file.name), None)])
        return (await large_of(engine, house)).digest.raw.hex()


async def flip_in_chunk_list(house: House) -> str:
    async with house.engine() as engine:
        digest = (await large_of(engine, house)).digest.raw
        await change(engine, "blobs", digest, flipped)
    return digest.hex()


async def another_size_in_chunk_list(house: House) -> str:
    """Its check is right; what it says is not."""
    async with house.engine() as engine:
        digest = (await large_of(engine, house)).digest.raw
        (first, size), *rest = await chunks_of_large(engine, house)
        wrong = encode_chunk_list(digest, [(first, size + 1), *rest])
        await engine.table("blobs").apply([(digest, wrong)])
    return digest.hex()


async def flip_in_directory(house: House) -> str:
    async with house.engine() as engine:
        digest = (await root_of(engine, house)).digest.raw
        await change(engine, "directories", digest, flipped)
    return digest.hex()


async def delete_directory(house: House) -> str:
    async with house.engine() as engine:
        root = await root_of(engine, house)
        node = dict(root)[b"folder"]
        assert isinstance(node, DirectoryNode)
        await engine.table("directories").apply([(node.digest.raw, None)])
    return root.digest.raw.hex()


async def delete_chunk_list(house: House) -> str:
    async with house.engine() as engine:
        root = await root_of(engine, house)
        digest = (await large_of(engine, house)).digest.raw
        await engine.table("blobs").apply([(digest, None)])
    return root.digest.raw.hex()


async def _put(house: House, directory: Directory) -> str:
    async with house.engine() as engine:
        await engine.table("directories").apply([(directory.digest.raw, directory.wire)])
    return directory.digest.raw.hex()


async def dangling_directory(house: House) -> str:
    """Two, of which one names the other, and that names what there is not."""
    lower = Directory.of([(b"gone", FileNode(Digest.of(b"gone"), 4))])
    await _put(house, Directory.of([(b"lower", DirectoryNode(lower.digest, 1))]))
    return await _put(house, lower)


async def file_of_another_size(house: House) -> str:
    return await _put(house, Directory.of([(b"x", FileNode(Digest.of(b"other"), 6))]))


async def _change_path_info(house: House, made: Change) -> str:
    path = house.store_path("other")
    async with house.engine() as engine:
        await change(engine, "pathinfos", path.hash, made)
    return path.digits


async def flip_in_path_info(house: House) -> str:
    return await _change_path_info(house, flipped)


async def another_nar_hash(house: House) -> str:
    """The record is right by itself, and promises what its node has not."""
    return await _change_path_info(
        house, lambda row: encode_record(replace(decode_record(row), nar_sha256=b"\1" * 32))
    )


async def another_node(house: House) -> str:
    async with house.engine() as engine:
        node = (await info_of(engine, house, "library")).node
    return await _change_path_info(
        house, lambda row: encode_record(replace(decode_record(row), node=node))
    )


async def path_info_of_another(house: House) -> str:
    async with house.engine() as engine:
        row = encode_record(await info_of(engine, house, "library"))
    return await _change_path_info(house, lambda _: row)


async def another_nar_calculated(house: House) -> str:
    async with house.engine() as engine:
        node = (await info_of(engine, house, "other")).node
        row = encode_identity(NarIdentity(5, b"\2" * 32))
        await engine.table("calculated").apply([(Digest.of(encode_node(node)).raw, row)])
    return house.store_path("other").digits


async def flip_in_calculated(house: House) -> str:
    key = Digest.of(b"node").raw
    async with house.engine() as engine:
        row = flipped(encode_identity(NarIdentity(5, b"\2" * 32)))
        await engine.table("calculated").apply([(key, row)])
    return key.hex()


async def _change_first(house: House, table: str, made: Change) -> str:
    async with house.engine() as engine:
        (key, _), *_ = await engine.table(table).scan(limit=1)
        await change(engine, table, key, made)
    return key.hex()


async def flip_in_remembered(house: House) -> str:
    return await _change_first(house, "remembered", flipped)


async def truncate_access(house: House) -> str:
    return await _change_first(house, "access", lambda row: row[:-1])


async def flip_in_pin(house: House) -> str:
    path = house.store_path("app")
    async with house.engine() as engine:
        await Pins(engine.table("pins")).add(path, "why")
        await change(engine, "pins", path.hash, flipped)
    return path.digits


async def file_beside_an_inline_chunk(house: House) -> str:
    """Its chunk is in the index as a whole, and needs no file."""
    name = Digest.of(b"other").raw.hex()
    file = house.state / "chunks" / name[:2] / name
    file.write_bytes(b"other")
    return str(file)


@dataclass(frozen=True)
class Damage:
    """`named`: the kind of the finding whose key `plant` tells; `also`: kinds that come with it.

    `path`: which path is broken by it, if any is.
    """

    plant: Plant
    named: str
    also: frozenset[str] = frozenset()
    path: str | None = None


_PATH = frozenset({"path"})
_UP = frozenset({"path", "directory"})

DAMAGES = {
    each.plant.__name__: each
    for each in (
        Damage(flip_in_file, "chunk", _PATH, "library"),
        Damage(truncate_file, "chunk", _PATH, "library"),
        Damage(lengthen_file, "chunk", _PATH, "library"),
        Damage(delete_file, "chunk", _PATH, "library"),
        Damage(flip_in_chunk_row, "chunk", _PATH, "other"),
        Damage(garble_chunk_row, "chunk", _PATH, "other"),
        Damage(delete_chunk_row, "blob", _PATH | {"stray"}, "library"),
        Damage(flip_in_chunk_list, "blob", _UP, "library"),
        Damage(another_size_in_chunk_list, "blob", _UP, "library"),
        Damage(flip_in_directory, "directory", _PATH, "library"),
        Damage(delete_directory, "directory", _PATH, "library"),
        Damage(delete_chunk_list, "directory", _PATH, "library"),
        Damage(dangling_directory, "directory"),
        Damage(file_of_another_size, "directory"),
        Damage(flip_in_path_info, "path", path="other"),
        Damage(another_nar_hash, "path", path="other"),
        Damage(another_node, "path", path="other"),
        Damage(path_info_of_another, "path", path="other"),
        Damage(another_nar_calculated, "calculated"),
        Damage(flip_in_calculated, "calculated"),
        Damage(flip_in_remembered, "remembered"),
        Damage(truncate_access, "access"),
        Damage(flip_in_pin, "pin"),
        Damage(file_beside_an_inline_chunk, "stray"),
    )
}
