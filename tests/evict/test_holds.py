"""A hold and the collector meet in every order; what is held stays, what is gone is not found."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

import pytest

from tests.evict.stores import LocalStore, open_store
from tests.nar.trees import File, Tree
from tests.pathinfo.samples import store_path
from tvixstore.castore import DirectoryNode
from tvixstore.errors import Incomplete
from tvixstore.kv import PATH, Holds
from tvixstore.kv.holds import GENERATION
from tvixstore.kv.lmdb_table import Transaction

TREE: Tree = {b"a": {b"b": File(b"contents" * 20_000)}, b"c": File(b"small")}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_hold_lasts_until_it_is_released() -> None:
    holds = Holds()
    one, other = await holds.hold(b"key"), await holds.hold(b"key", b"more")
    one.release()
    one.release()
    assert holds.is_held(b"key") and holds.is_held(b"more")
    other.release()
    assert not holds.is_held(b"key") and not holds.is_held(b"more")


async def test_what_a_session_takes_is_held_to_its_end_in_its_tasks_too() -> None:
    holds, others = Holds(), Holds()
    with holds.session():
        await holds.take([b"key"])
        await asyncio.create_task(holds.take([b"task"]))
        assert holds.in_session() and not others.in_session()
        assert holds.is_held(b"key") and holds.is_held(b"task")
    assert not holds.is_held(b"key") and not holds.is_held(b"task")


async def test_outside_of_a_session_a_key_is_held_for_ten_to_twenty_minutes() -> None:
    clock = Clock()
    holds = Holds(clock)
    await holds.take([b"key"])
    clock.now += GENERATION - 1
    holds.turn()
    clock.now += GENERATION - 1
    holds.turn()
    assert holds.is_held(b"key")
    clock.now += GENERATION
    holds.turn()
    assert not holds.is_held(b"key")


async def test_more_keys_than_are_remembered_hold_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tvixstore.kv.holds.MOST_KEYS", 10)
    clock = Clock()
    holds = Holds(clock)
    await holds.take([b"%d" % number for number in range(11)])
    assert holds.is_held(b"anything")
    clock.now += 2 * GENERATION
    assert not holds.is_held(b"anything")


class Gate:
    """Stops the thread that frees, once it has decided, until it is opened."""

    def __init__(self, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = asyncio.get_running_loop()
        self.decided = asyncio.Event()
        self.open = threading.Event()
        free = store.freeing._free_object
        monkeypatch.setattr(store.freeing, "_free_object", self._through(free))

    def _through(self, free: object) -> object:
        def gated(txn: Transaction, key: bytes, freed: object) -> None:
            self._loop.call_soon_threadsafe(self.decided.set)
            assert self.open.wait(20)
            free(txn, key, freed)  # type: ignore[operator]

        return gated


async def root_of(store: LocalStore) -> tuple[DirectoryNode, bytes]:
    info = await store.add("one", TREE)
    assert isinstance(info.node, DirectoryNode)
    return info.node, store_path("one").hash


async def test_who_looks_for_what_is_being_freed_waits_and_finds_it_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(tmp_path) as store:
        node, path_hash = await root_of(store)
        gate = Gate(store, monkeypatch)
        await store.freeing.evict([path_hash])
        collecting = asyncio.create_task(store.collector.collect())
        await gate.decided.wait()
        # Too late for a hold: it waits, rather than find what is about to go.
        holding = asyncio.create_task(store.content.hold(node))
        await asyncio.sleep(0)
        assert not holding.done()
        gate.open.set()
        hold = await holding
        assert hold is not None
        assert await store.directories.get(node.digest) is None
        hold.release()
        await collecting
        assert await store.problems() == []


async def test_a_writer_who_comes_while_his_tree_is_being_freed_stores_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(tmp_path) as store:
        _, path_hash = await root_of(store)
        gate = Gate(store, monkeypatch)
        await store.freeing.evict([path_hash])
        collecting = asyncio.create_task(store.collector.collect())
        await gate.decided.wait()
        adding = asyncio.create_task(store.add("two", TREE))
        await asyncio.sleep(0.05)
        gate.open.set()
        info = await adding
        await collecting
        stream = await store.path_infos.open_nar(info)
        assert stream is not None and len(await stream.read_all()) == info.nar_size
        assert await store.problems() == []


async def test_a_path_that_is_held_by_itself_is_not_evicted(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        _, path_hash = await root_of(store)
        with store.holds.session():
            await store.holds.take([PATH + path_hash])
            assert (await store.freeing.evict([path_hash])).held == [path_hash]
        # Whoever takes it while it goes waits, and then finds it gone.
        evicting = asyncio.create_task(store.freeing.evict([path_hash]))
        await asyncio.sleep(0)
        await store.holds.take([PATH + path_hash])
        found = await store.path_infos.get(path_hash)
        evicted = (await evicting).paths
        assert (found is None) == (evicted == [path_hash])


async def test_a_held_root_keeps_its_whole_tree(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        node, path_hash = await root_of(store)
        info = await store.path_infos.get(path_hash)
        assert info is not None
        stream = await store.path_infos.open_nar(info)
        assert stream is not None
        async with stream:
            first = await anext(stream)
            # Its path is not evicted while it is read, and its tree would stay even if it were.
            assert (await store.freeing.evict([path_hash])).held == [path_hash]
            await store.references.drop_root("pathinfos", path_hash)
            await store.collector.collect()
            rest = [part async for part in stream]
        assert len(first) + sum(map(len, rest)) == info.nar_size
        await store.collector.collect()
        assert await store.directories.get(node.digest) is None
        assert set(store.rows().values()) == {0}
        assert await store.problems() == []


async def test_a_reader_keeps_his_chunks_when_the_blob_is_cut_in_another_way(
    tmp_path: Path,
) -> None:
    data = random.Random(1).randbytes(4_000_000)
    async with open_store(tmp_path) as store:
        with store.holds.session():
            digest = await store.blobs.put(data)
        stream = await store.blobs.open_read(digest)
        assert stream is not None
        async with stream:
            read = await anext(stream)
            async with await store.blobs.open_write([700_000]) as writer:
                await writer.write(data)
                assert await writer.close() == digest
            await store.collector.collect()
            read += b"".join([part async for part in stream])
        whole = read == data
        assert whole
        before = store.rows()["chunks"]
        await store.collector.collect()
        assert store.rows()["chunks"] < before
        again = await store.blobs.read(digest) == data
        assert again
        assert await store.problems() == []


async def test_a_list_that_lacks_a_chunk_is_not_taken_for_the_one_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(1).randbytes(4_000_000)
    async with open_store(tmp_path) as store:
        with store.holds.session():
            digest = await store.blobs.put(data)
        stream = await store.blobs.open_read(digest)
        assert stream is not None
        async with stream:
            await anext(stream)
            async with await store.blobs.open_write([700_000]) as writer:
                await writer.write(data)
                await writer.close()
            # Whatever became of its chunks: the list that is there now is right.
            with monkeypatch.context() as careless:
                careless.setattr(Holds, "is_held", lambda self, key: False)
                await store.collector.collect()
            with pytest.raises(Incomplete):
                async for _ in stream:
                    pass
        again = await store.blobs.read(digest) == data
        assert again
        assert await store.problems() == []


async def test_what_a_session_found_is_there_when_its_path_info_is_put(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.add("one", TREE)
        with store.content.session():
            # All of it is found, nothing is written.
            _, commits = await store.blobs.put(b"contents" * 20_000), store.engine.commits
            assert store.engine.commits == commits
            await store.evict("one")
            assert await store.blobs.read(_) == b"contents" * 20_000
        await store.collector.collect()
        assert await store.blobs.read(_) is None


async def test_a_hold_that_is_not_honoured_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above are worth something: with the check planted out, a reader breaks."""
    monkeypatch.setattr(Holds, "is_held", lambda self, key: False)
    async with open_store(tmp_path) as store:
        node, path_hash = await root_of(store)
        hold = await store.content.hold(node)
        assert hold is not None
        await store.evict("one")
        assert await store.directories.get(node.digest) is None
        hold.release()
