"""NARs out of castore."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nar.trees import (
    CountingBlobService,
    File,
    Link,
    Tree,
    deep,
    memory,
    nar_of,
    store,
    trees,
)
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import (
    EMPTY_DIGEST,
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    Node,
    SymlinkNode,
)
from tvixstore.directory import MemoryDirectoryService
from tvixstore.errors import CorruptData, Incomplete, InvalidData
from tvixstore.nar import nar_size, render
from tvixstore.streams import BytesStream, ByteStream
from tvixstore.tree import Content

LARGE = random.Random(1).randbytes(300_001)

HAND_MADE: Tree = {
    b"bin": {b"tool": File(b"#!/bin/sh\n", True), b"t": Link(b"tool")},
    b"empty": {},
    b"large": File(LARGE),
    b"nothing": File(b""),
    b"small": File(b"s" * 65_536),
    b"z\xff": {b"deep": {b"er": File(b"x")}},
}


@given(tree=trees)
async def test_a_tree_renders_as_its_nar(tree: Tree) -> None:
    content = memory()
    node = await store(content, tree)
    nar = await render(content, node).read_all()
    assert nar == nar_of(tree)
    assert await nar_size(content, node) == len(nar)


@given(tree=trees, data=st.data())
async def test_any_part_is_that_part_of_the_whole(tree: Tree, data: st.DataObject) -> None:
    content = memory()
    node = await store(content, tree)
    nar = nar_of(tree)
    offset = data.draw(st.integers(0, len(nar) + 1))
    length = data.draw(st.none() | st.integers(0, len(nar) + 1))
    end = None if length is None else offset + length
    assert await render(content, node, offset, length).read_all() == nar[offset:end]


async def test_every_offset_of_a_small_tree_works() -> None:
    tree: Tree = {b"a": {b"b": File(b"hello", True), b"c": Link(b"b")}, b"d": File(b"12345678")}
    content = memory()
    node = await store(content, tree)
    nar = nar_of(tree)
    for offset in range(len(nar) + 2):
        assert await render(content, node, offset).read_all() == nar[offset:]
        assert await render(content, node, offset, 5).read_all() == nar[offset : offset + 5]


async def test_offsets_around_large_files_work() -> None:
    content = memory()
    node = await store(content, HAND_MADE)
    nar = nar_of(HAND_MADE)
    start = nar.index(LARGE)
    end = start + len(LARGE)
    for offset in (start - 1, start, start + 1, start + 200_000, end - 1, end, end + 1):
        assert await render(content, node, offset).read_all() == nar[offset:]
        for length in (1, 2, 100_000, 400_000):
            part = await render(content, node, offset, length).read_all()
            assert part == nar[offset : offset + length]


async def test_no_blob_before_the_offset_or_behind_the_end_is_read() -> None:
    files = {b"%03d" % number: File(b"contents %d" % number) for number in range(40)}
    tree: Tree = {b"a": dict(files), b"b": File(LARGE), b"c": {b"x": File(b"last")}}
    blobs = CountingBlobService()
    content = Content(blobs, MemoryDirectoryService())
    node = await store(content, tree)
    nar = nar_of(tree)
    for number, file in enumerate(files.values()):
        blobs.reads.clear()
        start = nar.index(file.data)
        rest = await render(content, node, start, len(file.data)).read_all()
        assert rest == file.data
        assert blobs.reads == [Digest.of(file.data)]
        blobs.reads.clear()
        await render(content, node, start + len(file.data), 1).read_all()
        assert blobs.reads == []
        await render(content, node, start).read_all()
        assert len(blobs.reads) == 40 - number + 2
    blobs.reads.clear()
    assert await render(content, node, nar.index(b"last")).read_all() in nar
    assert blobs.reads == [Digest.of(b"last")]


class CountingDirectoryService(MemoryDirectoryService):
    def __init__(self) -> None:
        super().__init__()
        self.gets = 0

    async def get(self, digest: Digest) -> Directory | None:
        self.gets += 1
        return await super().get(digest)


async def test_sizes_are_remembered_and_directories_before_the_offset_not_fetched_again() -> None:
    tree: Tree = {b"%03d" % n: {b"f": File(b"remembered %d" % n)} for n in range(300)}
    directories = CountingDirectoryService()
    content = Content(MemoryBlobService(), directories)
    node = await store(content, tree)
    size = await nar_size(content, node)
    directories.gets = 0
    assert await nar_size(content, node) == size
    assert directories.gets == 0
    await render(content, node, size - 30).read_all()
    assert directories.gets == 1 + 1


async def test_pieces_are_gathered_to_about_128_kib_and_large_parts_left_alone() -> None:
    tree: Tree = {b"%04d" % n: File(random.Random(n).randbytes(3000)) for n in range(500)}
    blobs = MemoryBlobService()
    content = Content(blobs, MemoryDirectoryService())
    node = await store(content, tree)
    sizes = [len(piece) async for piece in render(content, node)]
    assert all(128 * 1024 <= size < 140 * 1024 for size in sizes[:-1])

    node = await store(content, File(LARGE))
    pieces = [piece async for piece in render(content, node)]
    assert len(pieces) == 3
    assert pieces[1] is blobs.blobs[Digest.of(LARGE)]


async def test_other_tasks_run_while_a_long_nar_is_rendered() -> None:
    tree: Tree = {b"%04d" % n: File(b"x") for n in range(2000)}
    content = memory()
    node = await store(content, tree)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await render(content, node).read_all()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert turns >= 20


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
async def test_a_missing_blob_is_named(data: bytes) -> None:
    content = memory()
    with pytest.raises(Incomplete) as caught:
        await render(content, FileNode(Digest.of(data), len(data))).read_all()
    assert caught.value.digest == Digest.of(data).raw


async def test_a_missing_directory_is_named() -> None:
    content = memory()
    inner = Directory.of([(b"gone", SymlinkNode(b"x"))])
    outer = Directory.of([(b"a", DirectoryNode(inner.digest, inner.size))])
    await content.directories.put(outer)
    root = DirectoryNode(outer.digest, outer.size)
    for reading in (render(content, root).read_all(), nar_size(content, root)):
        with pytest.raises(Incomplete) as caught:
            await reading
        assert caught.value.digest == inner.digest.raw


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("lie", [-1, 1])
async def test_a_file_that_lies_about_its_size_is_corrupt(data: bytes, lie: int) -> None:
    content = memory()
    node = FileNode(await content.blobs.put(data), len(data) + lie)
    stream = render(content, node)
    with pytest.raises(CorruptData, match="bytes long"):
        await stream.read_all()


@pytest.mark.parametrize("data", [b"x", LARGE], ids=["small", "large"])
async def test_a_file_that_claims_to_be_empty_is_checked_too(data: bytes) -> None:
    content = memory()
    with pytest.raises(CorruptData):
        await render(content, FileNode(await content.blobs.put(data), 0)).read_all()
    with pytest.raises(CorruptData):
        await render(content, FileNode(EMPTY_DIGEST, 1)).read_all()


@pytest.mark.parametrize("leaf", [File(b"x"), Link(b"x"), {}], ids=["file", "link", "directory"])
async def test_sixty_four_levels_are_rendered_and_no_more(leaf: Tree) -> None:
    content = memory()
    node = await store(content, deep(63, leaf))
    assert await render(content, node).read_all() == nar_of(deep(63, leaf))
    assert await nar_size(content, node) == len(nar_of(deep(63, leaf)))
    deeper = await store(content, deep(64, leaf))
    for reading in (
        render(content, deeper).read_all(),
        render(content, deeper, 1000).read_all(),
        nar_size(content, deeper),
    ):
        with pytest.raises(InvalidData, match="64 levels"):
            await reading


async def test_a_tree_far_too_deep_breaks_no_stack() -> None:
    content = memory()
    node = await store(content, deep(300, File(b"x")))
    with pytest.raises(InvalidData, match="64 levels"):
        await nar_size(content, node)


class PausingStream(BytesStream):
    """Counts those that are open."""

    open = 0

    def __init__(self, *parts: bytes) -> None:
        super().__init__(*parts)
        PausingStream.open += 1
        self._closed = False

    async def aclose(self) -> None:
        await super().aclose()
        if not self._closed:
            self._closed = True
            PausingStream.open -= 1


class PausingBlobService(MemoryBlobService):
    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        stream = await super().open_read(digest, offset, length, size)
        if stream is None:
            return None
        data = await stream.read_all()
        return PausingStream(*(data[at : at + 50_000] for at in range(0, len(data), 50_000)))


@pytest.mark.parametrize("node_at", [0, 100, 200_000])
async def test_leaving_early_closes_the_blob_that_was_being_read(node_at: int) -> None:
    content = Content(PausingBlobService(), MemoryDirectoryService())
    node: Node = await store(content, HAND_MADE)
    async with render(content, node, node_at) as stream:
        await anext(stream)
    assert PausingStream.open == 0
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert await render(content, node).read_all() == nar_of(HAND_MADE)
    assert PausingStream.open == 0
