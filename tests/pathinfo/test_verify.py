from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace

import pytest

from tests.pathinfo.samples import (
    KEYS,
    STRANGER,
    TRUSTED,
    Sample,
    Tree,
    add,
    memory_content,
    nar_of,
    signed,
    store_path,
)
from tests.support.virtual_clock import virtual_clock
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode
from tvixstore.errors import CorruptData, Incomplete, StoreError
from tvixstore.kv import MemoryKeyValue
from tvixstore.nar import NarIdentities
from tvixstore.nix import ContentAddress, KeyRing, NixHash
from tvixstore.pathinfo import (
    Description,
    MemoryPathInfoService,
    PathInfo,
    PathInfoService,
    VerifyPathInfoService,
)
from tvixstore.streams import BytesStream, ByteStream
from tvixstore.tree import Content

TREE: dict[bytes, Tree] = {b"bin": b"\x7fELF" * 3000, b"doc": {b"readme": b"read me"}}


class Liar(MemoryPathInfoService):
    """Tells what it holds, and serves `nar`, if that is set, whatever is asked for."""

    nar: bytes | None = None

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        if self.nar is None:
            return await super().open_nar(description, offset, length)
        end = len(self.nar) if length is None else offset + length
        cut = [self.nar[at : at + 1000] for at in range(offset, end, 1000)]
        return BytesStream(*cut)


@dataclass
class Set:
    """A verifying service over one that may lie, and one signed path in it."""

    service: VerifyPathInfoService
    inner: Liar
    content: Content
    sample: Sample

    def tell(self, info: PathInfo) -> None:
        self.inner.infos[self.sample.key] = info


async def made(keys: KeyRing | None = KEYS) -> Set:
    content = memory_content()
    inner = Liar(content)
    sample = await add(content, "hello", TREE, references=[store_path("glibc")], signers=[TRUSTED])
    await inner.put(sample.info)
    service = VerifyPathInfoService(inner, NarIdentities(content, MemoryKeyValue()), keys)
    return Set(service, inner, content, sample)


async def read(stream: ByteStream | None) -> bytes:
    assert stream is not None
    return await stream.read_all()


@virtual_clock
async def test_a_signed_path_with_the_content_it_promises_is_believed() -> None:
    made_ = await made()
    key, info = made_.sample.key, made_.sample.info
    assert await made_.service.get(key) == info
    assert await read(await made_.service.open_nar(info)) == made_.sample.nar
    assert await read(await made_.service.open_nar(info, 99, 500)) == made_.sample.nar[99:599]
    assert await made_.service.describe(key, info.nar_sha256) == info
    assert await made_.service.describe(key, bytes(32)) is None


@virtual_clock
async def test_a_true_signature_with_another_tree_is_corrupt() -> None:
    made_ = await made()
    lies: list[Tree] = [{b"bin": b"\x7fELF" * 3000}, TREE | {b"evil": b"x"}, b"file", (b"target",)]
    for lie in lies:
        other = await add(made_.content, "hello", lie)
        made_.tell(replace(made_.sample.info, node=other.info.node))
        with pytest.raises(CorruptData, match="promises a NAR"):
            await made_.service.get(made_.sample.key)


@virtual_clock
async def test_a_description_costs_nothing_and_has_a_node_only_once_it_was_verified() -> None:
    made_ = await made()
    assert isinstance(made_.content.blobs, MemoryBlobService)
    blobs, made_.content.blobs.blobs = made_.content.blobs.blobs, {}
    described = await made_.service.describe(made_.sample.key)
    assert described is not None and not isinstance(described, PathInfo)
    assert described.same_nar(made_.sample.info)
    made_.content.blobs.blobs = blobs
    await made_.service.get(made_.sample.key)
    assert await made_.service.describe(made_.sample.key) == made_.sample.info


@virtual_clock
async def test_unsigned_signed_by_a_stranger_and_forged_are_corrupt() -> None:
    made_ = await made()
    info = made_.sample.info
    for signers in ([], [STRANGER]):
        made_.tell(signed(info, *signers))
        for call in (made_.service.get, made_.service.describe):
            with pytest.raises(CorruptData, match="no trusted signature"):
                await call(made_.sample.key)
    for forged in (
        replace(info, nar_size=info.nar_size + 8),
        replace(info, nar_sha256=bytes(32)),
        replace(info, references=()),
        replace(info, store_path=replace(info.store_path, name="other")),
    ):
        made_.tell(forged)
        with pytest.raises(CorruptData):
            await made_.service.get(made_.sample.key)


@virtual_clock
async def test_without_keys_content_is_verified_all_the_same() -> None:
    made_ = await made(keys=None)
    made_.tell(signed(made_.sample.info))
    assert await made_.service.get(made_.sample.key) == signed(made_.sample.info)
    made_.tell(replace(signed(made_.sample.info), nar_sha256=bytes(32)))
    with pytest.raises(CorruptData):
        await made_.service.get(made_.sample.key)


@virtual_clock
async def test_what_came_for_another_path_is_corrupt() -> None:
    made_ = await made()
    other = store_path("another")
    made_.inner.infos[other.hash] = made_.sample.info
    for call in (made_.service.get, made_.service.describe):
        with pytest.raises(CorruptData, match="another path"):
            await call(other.hash)


@virtual_clock
async def test_a_path_addressed_by_the_hash_of_its_nar_needs_no_signature() -> None:
    content = memory_content()
    sample = await add(content, "source", TREE)
    address = ContentAddress("recursive", NixHash("sha256", sample.info.nar_sha256))
    path = address.store_path("source", [])
    info = replace(sample.info, store_path=path, ca=address)
    inner = Liar(content)
    await inner.put(info)
    service = VerifyPathInfoService(inner, NarIdentities(content, MemoryKeyValue()), KEYS)
    assert await service.get(path.hash) == info
    flat = ContentAddress("flat", NixHash("sha256", bytes(32)))
    for lie in (address, flat):
        wrong = replace(info, store_path=store_path("source"), ca=lie)
        inner.infos[wrong.store_path.hash] = wrong
        with pytest.raises(CorruptData, match="no trusted signature"):
            await service.get(wrong.store_path.hash)


@virtual_clock
async def test_missing_content_is_unknown_and_never_absent() -> None:
    made_ = await made()
    gone = Digest.of(b"gone")
    made_.tell(replace(made_.sample.info, node=FileNode(gone, 4)))
    with pytest.raises(Incomplete):
        await made_.service.get(made_.sample.key)


@virtual_clock
async def test_content_that_no_nar_can_have_is_corrupt() -> None:
    made_ = await made()
    deep = Directory(())
    for _ in range(70):
        await made_.content.directories.put(deep)
        deep = Directory.of([(b"d", DirectoryNode(deep.digest, deep.size))])
    digest = await made_.content.directories.put(deep)
    made_.tell(replace(made_.sample.info, node=DirectoryNode(digest, deep.size)))
    with pytest.raises(CorruptData):
        await made_.service.get(made_.sample.key)


@virtual_clock
async def test_a_nar_that_is_another_never_ends_well() -> None:
    made_ = await made()
    nar, info = made_.sample.nar, made_.sample.info
    for lie in (nar[:-1], nar + bytes(8), nar[:-9] + b"x" + nar[-8:], nar_of(b"another"), b""):
        made_.inner.nar = lie
        for offset, length in [(0, None), (500, None), (500, 1000), (len(nar) - 1, 1)]:
            stream = await made_.service.open_nar(info, offset, length)
            assert stream is not None
            came = b""
            async with stream:
                with pytest.raises(CorruptData, match="is not the one"):
                    async for part in stream:
                        came += part
                with pytest.raises(CorruptData):
                    await anext(stream)
            end = None if length is None else offset + length
            assert len(came) < len(nar[offset:end])
    made_.inner.nar = nar
    assert await read(await made_.service.open_nar(info, 500, 1000)) == nar[500:1500]
    assert await read(await made_.service.open_nar(info, len(nar) + 5)) == b""


@virtual_clock
async def test_what_is_listed_was_verified() -> None:
    made_ = await made()
    wrong = await add(made_.content, "wrong", b"wrong")
    hollow = await add(made_.content, "hollow", b"hollow", signers=[TRUSTED])
    await made_.inner.put(wrong.info)
    await made_.inner.put(replace(hollow.info, node=FileNode(Digest.of(b"gone"), 6)))
    async with aclosing(made_.service.list()) as infos:
        assert [info async for info in infos] == [made_.sample.info]
    assert made_.service.left_out == 2


@virtual_clock
async def test_a_tree_is_rendered_once_for_all_who_ask() -> None:
    made_ = await made()
    reads = 0

    class Counting(MemoryBlobService):
        async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
            nonlocal reads
            reads += 1
            await asyncio.sleep(1.0)
            return await super().read(digest, size)

    blobs = Counting()
    assert isinstance(made_.content.blobs, MemoryBlobService)
    blobs.blobs = made_.content.blobs.blobs
    nars = NarIdentities(Content(blobs, made_.content.directories), MemoryKeyValue())
    service = VerifyPathInfoService(made_.inner, nars, KEYS)
    answers = await asyncio.gather(*[service.get(made_.sample.key) for _ in range(5)])
    assert answers == [made_.sample.info] * 5
    assert await service.get(made_.sample.key) == made_.sample.info
    assert reads == 2


@virtual_clock
async def test_a_failing_inner_stays_unknown() -> None:
    class Down(MemoryPathInfoService):
        async def get(self, path_hash: bytes) -> PathInfo | None:
            raise StoreError("down")

    content = memory_content()
    service = VerifyPathInfoService(Down(), NarIdentities(content, MemoryKeyValue()), KEYS)
    for call in (service.get, service.describe):
        with pytest.raises(StoreError, match="down"):
            await call(bytes(20))
