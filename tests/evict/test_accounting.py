"""Counts and sizes add up, whatever is put, evicted, dropped and opened again, in any order."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evict.stores import LocalStore, open_store
from tests.nar.trees import File, Link, Tree
from tests.pathinfo.samples import store_path
from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode
from tvixstore.errors import Incomplete
from tvixstore.evict import rebuild

# Contents that overlap: small ones, one of a file of its own, and two of many chunks that share
# most of them.
_LONG = random.Random(1).randbytes(300_000)
CONTENTS = [
    b"",
    b"small",
    random.Random(2).randbytes(3000),
    random.Random(3).randbytes(90_000),
    _LONG,
    _LONG[:200_000] + b"changed" + _LONG[200_000:],
]


def _leaf(number: int) -> Tree:
    return File(CONTENTS[number]) if number < len(CONTENTS) else Link(b"target")


leaves = st.integers(0, len(CONTENTS)).map(_leaf)
trees: st.SearchStrategy[Tree] = st.recursive(
    leaves,
    lambda below: st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), below, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["one", "two", "three", "four"])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), names, trees),
        st.tuples(st.just("evict"), names, st.none()),
        st.tuples(st.just("orphan"), names, trees),
        st.tuples(st.just("reopen"), names, st.none()),
        st.tuples(st.just("rebuild"), names, st.none()),
    ),
    max_size=8,
)


async def _apply(path: Path, steps: list[tuple[str, str, Tree | None]]) -> None:
    position = 0
    trees_of: dict[str, Tree] = {}
    while position <= len(steps):
        async with open_store(path) as store:
            while position < len(steps):
                what, name, tree = steps[position]
                position += 1
                if what == "reopen":
                    break
                await _one(store, what, name, tree, trees_of)
                assert await store.problems() == []
            else:
                position += 1
                await _everything_goes(store, trees_of)


async def _one(
    store: LocalStore, what: str, name: str, tree: Tree | None, trees_of: dict[str, Tree]
) -> None:
    if what == "put" and tree is not None:
        if name in trees_of:
            # Another NAR for a path that is here is refused: it goes first.
            await store.evict(name)
        await store.add(name, tree)
        trees_of[name] = tree
    elif what == "orphan" and tree is not None:
        await store.add("orphan", tree)
        await store.references.drop_root("pathinfos", store_path("orphan").hash)
    elif what == "evict":
        assert await store.evict(name) == (name in trees_of)
        trees_of.pop(name, None)
    elif what == "rebuild":
        await rebuild(store.references)
    for present in trees_of:
        info = await store.path_infos.get(store_path(present).hash)
        assert info is not None
        stream = await store.path_infos.open_nar(info)
        assert stream is not None
        assert len(await stream.read_all()) == info.nar_size


async def _everything_goes(store: LocalStore, trees_of: dict[str, Tree]) -> None:
    await store.evict(*trees_of)
    store.references.now = lambda: 1e12
    while await store.freeing.ripen() is not None:
        pass
    await store.collector.collect()
    assert await store.problems() == []
    assert store.rows() == {"blobs": 0, "chunks": 0, "directories": 0, "pathinfos": 0}
    assert store.references.chunk_file_bytes == 0


@settings(max_examples=10)
@given(operations)
def test_counts_and_sizes_are_those_of_what_is_there(
    steps: list[tuple[str, str, Tree | None]],
) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(_apply(Path(folder), steps))


async def test_a_shared_tree_goes_with_the_last_path_that_has_it(tmp_path: Path) -> None:
    shared: Tree = {b"lib": {b"so": File(CONTENTS[4])}, b"x": File(b"small")}
    async with open_store(tmp_path) as store:
        await store.add("one", {b"shared": shared, b"own": File(CONTENTS[3])})
        two = await store.add("two", shared)
        before = store.guard.used()["chunks"]
        assert await store.evict("one") == 1
        assert store.guard.used()["chunks"] == before - len(CONTENTS[3])
        stream = await store.path_infos.open_nar(two)
        assert stream is not None and len(await stream.read_all()) == two.nar_size
        assert await store.evict("two") == 1
        assert store.rows() == {"blobs": 0, "chunks": 0, "directories": 0, "pathinfos": 0}
        assert await store.problems() == []


async def test_what_was_freed_is_not_served_from_memory(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        info = await store.add("one", {b"a": {b"b": File(b"small")}})
        assert isinstance(info.node, DirectoryNode)
        assert await store.directories.get(info.node.digest) is not None
        await store.evict("one")
        assert await store.directories.get(info.node.digest) is None
        assert await store.directories.get_many([info.node.digest]) == [None]
        assert [each async for each in store.directories.get_closure(info.node.digest)] == []
        assert await store.path_infos.get(info.store_path.hash) is None


async def test_what_was_lost_before_anything_named_it_leaves_no_miscount(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        short, long = CONTENTS[3], random.Random(9).randbytes(400_000)
        for data in (short, long):
            digest = await store.blobs.put(data)
            next(store.state.chunks.glob("??/*")).unlink()
            with pytest.raises(Incomplete):
                await store.blobs.read(digest)
            assert await store.problems() == []
        directory = Directory.of([(b"gone", FileNode(Digest.of(b"gone"), 4))])
        await store.directories.put(directory)
        assert await store.directories.drop(directory.digest, directory.wire)
        assert await store.problems() == []


async def test_a_planted_miscount_is_found(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        info = await store.add("one", {b"a": File(CONTENTS[3])})
        assert isinstance(info.node, DirectoryNode)
        key = b"d" + info.node.digest.raw
        await store.engine.transact(lambda txn: store.references.counts.add(txn, [key]))
        assert any("counted 2 references" in each for each in await store.problems())
        await rebuild(store.references)
        assert await store.problems() == []
        next(store.state.chunks.glob("??/*")).unlink()
        assert any("its file has None bytes" in each for each in await store.problems())
