"""NARs into castore."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nar.trees import File, Link, Tree, deep, memory, nar_of, source, store, trees
from tests.nar.vectors import INVALID, VALID, Valid
from tvixstore.blob import BlobWriter, MemoryBlobService
from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode, SizeRule, encode_node
from tvixstore.directory import MemoryDirectoryService
from tvixstore.errors import InvalidData, StorageFull, Unavailable
from tvixstore.nar import ingest, nar_size, render
from tvixstore.pools import Pools
from tvixstore.tree import Content

LARGE = random.Random(2).randbytes(1_000_001)


@pytest.fixture(params=[False, True], ids=["inline", "in pools"])
def pools(request: pytest.FixtureRequest) -> Iterator[Pools | None]:
    pools = Pools(files=1, cpu=1, dns=1) if request.param else None
    yield pools
    if pools is not None:
        pools.close()


class Blobs(MemoryBlobService):
    """Remembers its batches, and how many writers are open."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []
        self.writers = 0
        self.opened = 0

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        self.writers += 1
        self.opened += 1
        return _Writer(self, await super().open_write(boundaries))

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        self.batches.append([len(data) for data in blobs])
        for data in blobs:
            self.blobs[Digest.of(data)] = data
        return [Digest.of(data) for data in blobs]


class _Writer(BlobWriter):
    def __init__(self, blobs: Blobs, inner: BlobWriter) -> None:
        self._blobs = blobs
        self._inner = inner
        self._open = True

    async def write(self, data: bytes) -> None:
        assert data
        await self._inner.write(data)

    async def close(self) -> Digest:
        await self.abort()
        return await self._inner.close()

    async def abort(self) -> None:
        if self._open:
            self._open = False
            self._blobs.writers -= 1


class Directories(MemoryDirectoryService):
    """Refuses a Directory whose blobs or Directories are not there yet."""

    def __init__(self, blobs: Blobs) -> None:
        super().__init__()
        self.blobs = blobs
        self.puts = 0
        self.batches = 0

    async def put_many(self, directories: Sequence[Directory]) -> None:
        self.batches += 1
        for directory in directories:
            self.puts += 1
            for _, node in directory:
                if isinstance(node, FileNode):
                    assert len(self.blobs.blobs[node.digest]) == node.size
                elif isinstance(node, DirectoryNode):
                    assert self.directories[node.digest].size == node.size
            await super().put_many([directory])


def strict() -> tuple[Content, Blobs, Directories]:
    blobs = Blobs()
    directories = Directories(blobs)
    return Content(blobs, directories), blobs, directories


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector.what)
async def test_golden_nars_become_the_nodes_that_they_should(
    vector: Valid, size: int | None
) -> None:
    content, _, _ = strict()
    node = await ingest(content, source(vector.nar, size))
    if vector.node is not None:
        assert encode_node(node) == vector.node
    assert await render(content, node).read_all() == vector.nar


@given(tree=trees, size=st.none() | st.integers(1, 300))
async def test_what_was_ingested_is_the_tree_and_renders_the_same(
    tree: Tree, size: int | None
) -> None:
    content, blobs, _ = strict()
    nar = nar_of(tree)
    node = await ingest(content, source(nar, size))
    assert node == await store(memory(), tree)
    assert await render(content, node).read_all() == nar
    assert blobs.opened == 0


@pytest.mark.parametrize("piece", [None, 1000, 65_536, 262_144])
@pytest.mark.parametrize("size", [131_071, 131_072, 131_073, len(LARGE)])
async def test_large_files_are_streamed_and_small_ones_gathered(
    piece: int | None, size: int
) -> None:
    content, blobs, _ = strict()
    tree: Tree = {b"a": File(b"before"), b"b": File(LARGE[:size], True), b"c": File(b"after")}
    node = await ingest(content, source(nar_of(tree), piece))
    assert node == await store(memory(), tree)
    assert blobs.opened == (size > 131_072)
    assert blobs.writers == 0


async def test_batches_are_bounded_by_number_and_by_bytes() -> None:
    content, blobs, _ = strict()
    many: Tree = {b"%05d" % n: File(b"%d" % n) for n in range(2500)}
    big: Tree = {b"%03d" % n: File(LARGE[n : n + 100_000]) for n in range(100)}
    tree: Tree = {b"big": big, b"many": many}
    node = await ingest(content, source(nar_of(tree), 50_000))
    assert node == await store(memory(), tree)
    assert sum(map(len, blobs.batches)) == 2600
    assert max(map(len, blobs.batches)) == 1000
    assert max(map(sum, blobs.batches)) <= 4 * 1024 * 1024 + 100_000
    assert len(blobs.batches) <= 6


async def test_sizes_are_doubled_where_tvix_shares_the_store() -> None:
    content = memory()
    tree: Tree = {b"a": {b"b": {b"c": File(b"x")}, b"d": File(b"y")}, b"e": File(b"z")}
    node = await ingest(content, source(nar_of(tree)), sizes=SizeRule.DOUBLED)
    assert isinstance(node, DirectoryNode)
    assert node.size == 2 * (2 + 2 + 1)
    root = await content.directories.get(node.digest)
    assert root is not None
    assert [child.size for child in root.children] == [2 * (2 + 1)]
    assert await render(content, node).read_all() == nar_of(tree)


async def test_equal_directories_are_stored_once() -> None:
    content, _, directories = strict()
    tree: Tree = {b"%d" % n: {b"same": {b"f": File(b"x")}} for n in range(9)}
    await ingest(content, source(nar_of(tree)))
    assert directories.puts == 3


async def test_more_directories_than_fit_in_memory_wait_in_a_file(pools: Pools | None) -> None:
    content, _, directories = strict()
    links: dict[bytes, Tree] = {b"%03d" % n: Link(b"x") for n in range(300)}
    tree: Tree = {b"%03d" % n: {**links, b"f": File(b"%d" % n)} for n in range(150)}
    node = await ingest(content, source(nar_of(tree), 65_536), pools=pools)
    assert node == await store(memory(), tree)
    assert directories.puts == 151
    assert directories.batches == 3
    assert await nar_size(content, node) == len(nar_of(tree))


async def test_a_full_disk_for_those_directories_is_said_and_leaves_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    content, _, directories = strict()
    links: dict[bytes, Tree] = {b"%05d" % n: Link(b"x") for n in range(20_000)}
    tree: Tree = {b"a": {b"b": {}}, b"links": links}
    with pytest.raises(StorageFull, match="no room"):
        await ingest(content, source(nar_of(tree), 65_536))
    assert directories.puts == 0


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize(("why", "nar"), INVALID, ids=[why for why, _ in INVALID])
async def test_an_invalid_nar_leaves_no_directory(why: str, nar: bytes, size: int | None) -> None:
    content, _, directories = strict()
    with pytest.raises(InvalidData):
        await ingest(content, source(nar, size))
    assert directories.directories == {}


@pytest.mark.parametrize("end", [0.1, 0.5, 0.9, 0.999])
async def test_a_nar_that_breaks_off_leaves_no_directory_and_no_writer(end: float) -> None:
    content, blobs, directories = strict()
    many: Tree = {b"%05d" % n: {b"f": File(b"%d" % n)} for n in range(3000)}
    nar = nar_of({b"a": many, b"b": File(LARGE), b"c": {}})
    with pytest.raises(InvalidData, match="ends early"):
        await ingest(content, source(nar[: int(len(nar) * end)], 65_536))
    assert directories.directories == {}
    assert blobs.writers == 0


async def test_a_tree_that_is_too_deep_is_refused() -> None:
    content, _, directories = strict()
    with pytest.raises(InvalidData, match="64 levels"):
        await ingest(content, source(nar_of(deep(64, File(b"x")))))
    assert directories.directories == {}


async def test_a_source_that_fails_is_passed_on_and_leaves_nothing_open() -> None:
    content, blobs, directories = strict()
    nar = nar_of({b"a": {}, b"b": File(LARGE)})

    async def failing() -> AsyncGenerator[bytes, None]:
        yield nar[:500_000]
        raise Unavailable("upstream is gone")

    with pytest.raises(Unavailable, match="upstream is gone"):
        await ingest(content, failing())
    assert directories.directories == {}
    assert (blobs.opened, blobs.writers) == (1, 0)


async def test_cancelled_it_leaves_no_writer_and_no_directory(pools: Pools | None) -> None:
    content, blobs, directories = strict()
    nar = nar_of({b"a": {}, b"b": File(LARGE)})
    stalled = asyncio.Event()

    async def stalling() -> AsyncGenerator[bytes, None]:
        yield nar[:500_000]
        stalled.set()
        await asyncio.Event().wait()

    async def run() -> None:
        async with aclosing(stalling()) as pieces:
            await ingest(content, pieces, pools=pools)

    task = asyncio.create_task(run())
    await stalled.wait()
    assert blobs.writers == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert blobs.writers == 0
    assert directories.directories == {}


async def test_other_tasks_run_while_a_long_nar_is_ingested() -> None:
    content, _, _ = strict()
    nar = nar_of({b"%04d" % n: Link(b"x") for n in range(5000)})
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await ingest(content, source(nar))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert turns >= 50
