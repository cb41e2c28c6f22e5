"""Peers that lie: nothing wrong gets through, and nothing of it is kept."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.directory.samples import LEAF, MIDDLE, OTHER, ROOT, directory
from tests.pathinfo.samples import KEYS, TRUSTED, add, memory_content, store_path
from tests.rpc.client.scripted import (
    Script,
    announces,
    breaks,
    looks_up,
    says,
    scripted,
)
from tests.rpc.client.support import fills_in
from tvixstore.blob import BlobService, Chunk
from tvixstore.castore import Digest, Directory, SizeRule
from tvixstore.errors import CorruptData, Incomplete, Unavailable
from tvixstore.kv import MemoryKeyValue
from tvixstore.nar import NarIdentities
from tvixstore.pathinfo import MemoryPathInfoService, PathInfo
from tvixstore.pathinfo.verify import VerifyPathInfoService
from tvixstore.rpc.client import GrpcBlobService, GrpcDirectoryService, GrpcPathInfoService
from tvixstore.rpc.methods import (
    DESCRIBE,
    GET_DIRECTORY,
    GET_PATH_INFO,
    OPEN_NAR,
    PUT_BLOB,
    PUT_DIRECTORY,
    PUT_PATH_INFO,
    READ_BLOB,
    STAT_BLOB,
)

HALF = 1 << 20
ONE, TWO = b"1" * HALF, b"2" * HALF
BLOB = Digest.of(ONE + TWO)
CHUNKS = [Chunk(Digest.of(ONE), HALF), Chunk(Digest.of(TWO), HALF)]


def messages(data: bytes) -> list[bytes]:
    return [data[begin : begin + HALF // 4] for begin in range(0, len(data), HALF // 4)]


async def received(service: BlobService, digest: Digest, size: int | None = None) -> bytes:
    """What comes of a blob before it turns out wrong."""
    stream = await service.open_read(digest, size=size)
    assert stream is not None
    parts = []
    async with stream:
        with pytest.raises(CorruptData):
            async for part in stream:
                parts.append(part)  # noqa: PERF401 (what came before the error counts)
    return b"".join(parts)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param([Chunk(Digest.of(TWO), HALF), Chunk(Digest.of(ONE), HALF)], id="order"),
        pytest.param([*CHUNKS, Chunk(Digest.of(ONE), HALF)], id="too many"),
        pytest.param([CHUNKS[0], Chunk(Digest.of(TWO), HALF - 1)], id="too small"),
        pytest.param([CHUNKS[0], Chunk(Digest.of(TWO), HALF + 1)], id="too large"),
        pytest.param([CHUNKS[0], Chunk(Digest.of(b""), 0), CHUNKS[1]], id="empty"),
        pytest.param([CHUNKS[0], Chunk(Digest.of(TWO), 1 << 62)], id="endless"),
    ],
)
async def test_a_chunk_list_that_lies_is_corrupt(lie: list[Chunk]) -> None:
    reads = {Digest.of(data): messages(data) for data in (ONE, TWO, ONE + TWO)}
    script: Script = {STAT_BLOB: says(lie), READ_BLOB: looks_up(reads)}
    async with scripted(script) as (peer, _):
        service = GrpcBlobService(peer)
        with pytest.raises(CorruptData):
            await service.read(BLOB)
        with pytest.raises(CorruptData):
            stream = await service.open_read(BLOB, 10, 10)
            assert stream is not None
            await stream.read_all()


async def test_a_chunk_that_is_another_is_corrupt_before_it_goes_out() -> None:
    reads = {CHUNKS[0].digest: messages(ONE), CHUNKS[1].digest: messages(ONE)}
    script: Script = {STAT_BLOB: says(CHUNKS), READ_BLOB: looks_up(reads)}
    async with scripted(script) as (peer, _):
        assert (ONE + TWO).startswith(await received(GrpcBlobService(peer), BLOB))


async def test_a_chunk_that_is_listed_and_not_there_is_unknown() -> None:
    script: Script = {
        STAT_BLOB: says(CHUNKS),
        READ_BLOB: looks_up({CHUNKS[0].digest: messages(ONE)}),
    }
    async with scripted(script) as (peer, _):
        with pytest.raises(Unavailable):
            await GrpcBlobService(peer).read(BLOB)


@pytest.mark.parametrize("wrong", [ONE + ONE, ONE + TWO + b"!", ONE + TWO[:-1], b""])
@pytest.mark.parametrize("size", [None, 10])
async def test_a_blob_that_is_another_is_corrupt_before_its_last_byte(
    wrong: bytes, size: int | None
) -> None:
    script: Script = {STAT_BLOB: says([]), READ_BLOB: says(*messages(wrong))}
    async with scripted(script) as (peer, _):
        service = GrpcBlobService(peer)
        with pytest.raises(CorruptData):
            await service.read(BLOB, size)
        assert len(await received(service, BLOB, size)) < max(1, len(wrong))


@pytest.mark.parametrize("length", [(4 << 20) + 1, 2**32 - 1])
async def test_a_message_that_is_announced_too_long_is_refused_at_once(length: int) -> None:
    methods = (STAT_BLOB, READ_BLOB, GET_DIRECTORY, GET_PATH_INFO, DESCRIBE)
    async with scripted({method: announces(length) for method in methods}) as (peer, _):
        with pytest.raises(CorruptData, match=str(length)):
            await GrpcBlobService(peer).has(BLOB)
        with pytest.raises(CorruptData, match=str(length)):
            await GrpcBlobService(peer).open_read(BLOB, size=1)
        with pytest.raises(CorruptData, match=str(length)):
            await GrpcDirectoryService(peer).get(ROOT.digest)


async def closure(replies: list[Any]) -> list[Directory]:
    """What is received of the closure of `ROOT`."""
    found = looks_up({(ROOT.digest, True): replies}, lambda it: (it.digest, it.recursive))
    async with scripted({GET_DIRECTORY: found}) as (peer, _):
        async with aclosing(GrpcDirectoryService(peer).get_closure(ROOT.digest)) as directories:
            return [each async for each in directories]


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([ROOT, ROOT], id="repeated"),
        pytest.param([ROOT, MIDDLE, LEAF, LEAF], id="leaf repeated"),
        pytest.param([ROOT, directory(x="unconnected")], id="unconnected"),
        pytest.param([MIDDLE, LEAF, OTHER], id="another root"),
        pytest.param([ROOT, OTHER, MIDDLE], id="child before parent"),
        pytest.param([ROOT, MIDDLE, LEAF, OTHER, OTHER], id="more behind the end"),
    ],
)
async def test_a_closure_that_is_no_closure_is_corrupt(replies: list[Directory]) -> None:
    with pytest.raises(CorruptData):
        await closure(replies)


async def test_a_closure_with_sizes_that_lie_is_corrupt() -> None:
    leaf = directory(one="1", two="2")
    middle = directory(SizeRule.DOCUMENTED, leaf=leaf)
    root = directory(SizeRule.DOUBLED, middle=middle)
    async with scripted({GET_DIRECTORY: says(root, middle, leaf)}) as (peer, _):
        with pytest.raises(CorruptData):
            async with aclosing(GrpcDirectoryService(peer).get_closure(root.digest)) as found:
                assert [each async for each in found]


async def test_a_closure_that_ends_short_is_incomplete() -> None:
    with pytest.raises(Incomplete) as caught:
        await closure([ROOT, MIDDLE, LEAF])
    assert caught.value.digest == OTHER.digest.raw


async def test_an_absent_closure_may_be_said_in_two_ways() -> None:
    assert await closure([]) == []
    async with scripted({GET_DIRECTORY: looks_up({})}) as (peer, _):
        async with aclosing(GrpcDirectoryService(peer).get_closure(ROOT.digest)) as found:
            assert [each async for each in found] == []


async def test_a_closure_that_breaks_off_goes_on_one_by_one() -> None:
    singly = looks_up({each.digest: [each] for each in (MIDDLE, LEAF, OTHER)}, lambda r: r.digest)
    async with scripted({GET_DIRECTORY: breaks(ROOT, then=singly)}) as (peer, _):
        async with aclosing(GrpcDirectoryService(peer).get_closure(ROOT.digest)) as found:
            assert [each async for each in found] == [ROOT, MIDDLE, LEAF, OTHER]


@pytest.mark.parametrize("replies", [[LEAF], [ROOT, ROOT], [LEAF, ROOT]])
async def test_a_directory_that_is_another_or_two_is_corrupt(replies: list[Directory]) -> None:
    async with scripted({GET_DIRECTORY: says(*replies)}) as (peer, _):
        with pytest.raises(CorruptData):
            await GrpcDirectoryService(peer).get(ROOT.digest)


async def test_what_is_stored_under_another_digest_is_corrupt() -> None:
    async def puts(stream: object) -> None:
        await says(BLOB)(stream)  # type: ignore[arg-type]

    script: Script = {STAT_BLOB: says([]), PUT_BLOB: puts, PUT_DIRECTORY: puts}
    async with scripted(script) as (peer, _):
        with pytest.raises(CorruptData):
            await GrpcBlobService(peer).put(b"small")
        with pytest.raises(CorruptData):
            async with await GrpcBlobService(peer).open_write() as writer:
                await writer.write(b"small")
                await writer.close()
        with pytest.raises(CorruptData):
            await GrpcDirectoryService(peer).put(LEAF)


async def test_another_path_than_asked_for_is_corrupt(tmp_path: Path) -> None:
    content = memory_content()
    sample = await add(content, "hello", b"hello", signers=[TRUSTED])
    script: Script = {
        method: says(sample.info) for method in (GET_PATH_INFO, DESCRIBE, PUT_PATH_INFO)
    }
    async with scripted(script) as (peer, _), fills_in(tmp_path) as fills:
        service = GrpcPathInfoService(peer, content, fills)
        other = store_path("other")
        with pytest.raises(CorruptData):
            await service.get(other.hash)
        with pytest.raises(CorruptData):
            await service.describe(other.hash)
        with pytest.raises(CorruptData):
            await service.describe(sample.key, bytes(32))
        with pytest.raises(CorruptData):
            await service.put(replace(sample.info, store_path=other))


@pytest.mark.parametrize("proxied", [True, False])
async def test_a_true_signature_on_another_tree_gives_no_nar_and_keeps_nothing(
    tmp_path: Path, proxied: bool
) -> None:
    content, near = memory_content(), MemoryPathInfoService(memory_content())
    true = await add(content, "hello", b"hello " * 1000, signers=[TRUSTED])
    evil = await add(content, "hello", b"evil! " * 1000)
    lie = replace(true.info, node=evil.info.node)
    script: Script = {GET_PATH_INFO: says(lie)}
    if proxied:
        script = {**script, DESCRIBE: says(lie), OPEN_NAR: says(evil.nar)}
    async with scripted(script) as (peer, _), fills_in(tmp_path) as fills:
        service = GrpcPathInfoService(peer, content, fills)
        with pytest.raises(CorruptData):
            await service.open_nar(true.info, into=near)
    assert near.infos == {}


async def test_a_true_signature_on_another_tree_does_not_pass_who_verifies(tmp_path: Path) -> None:
    content = memory_content()
    true = await add(content, "hello", b"hello", signers=[TRUSTED])
    evil = await add(content, "hello", b"evil!")
    lie = replace(true.info, node=evil.info.node)
    script: Script = {GET_PATH_INFO: says(lie), DESCRIBE: says(lie)}
    async with scripted(script) as (peer, _), fills_in(tmp_path) as fills:
        nars = NarIdentities(content, MemoryKeyValue())
        service = GrpcPathInfoService(peer, content, fills)
        verifying = VerifyPathInfoService(service, nars, KEYS)
        with pytest.raises(CorruptData):
            await verifying.get(true.key)
        assert not isinstance(await verifying.describe(true.key), PathInfo)
        await nars.aclose()
