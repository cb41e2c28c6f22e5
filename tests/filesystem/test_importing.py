"""Trees from disk into a store."""

from __future__ import annotations

import asyncio
import mmap
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

import tvixstore
from tests.filesystem.places import HAND_MADE, LARGE, Nix, Places, Shelf, few_pools, sha256
from tests.library.stores import LOCAL
from tests.nar.trees import File, Link, Tree, nar_of, store, trees, write_out
from tests.upkeep.house import House, verify
from tvixstore.castore import Digest, DirectoryNode, FileNode, SizeRule
from tvixstore.directory import CachedDirectoryService, MemoryDirectoryService
from tvixstore.errors import InvalidData, TreeError, Unavailable
from tvixstore.filesystem import Importer, TreeProgress, nar_hash
from tvixstore.nar import NarIdentity, render
from tvixstore.nix import ContentAddress, NixHash, StorePath
from tvixstore.pools import Pools
from tvixstore.tree import Content


async def check(shelf: Shelf, path: bytes, tree: Tree) -> None:
    """Against `tests/nar/trees.py`, which makes NARs and nodes in another way."""
    info = await shelf.importer.add(path, name="n")
    nar = nar_of(tree)
    assert info.node == await store(shelf.content, tree)
    assert (info.nar_size, info.nar_sha256) == (len(nar), sha256(nar))
    assert info.ca == ContentAddress("recursive", NixHash("sha256", sha256(nar)))
    assert info.store_path == info.ca.store_path("n")
    assert (info.references, info.deriver, info.signatures) == ((), None, ())
    assert await shelf.path_infos.get(info.store_path.hash) == info
    assert await render(shelf.content, info.node).read_all() == nar


@pytest.mark.parametrize("tree", HAND_MADE)
async def test_a_tree_becomes_what_its_nar_says(shelf: Shelf, places: Places, tree: Tree) -> None:
    await check(shelf, places.make(tree), tree)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees)
async def test_any_tree_becomes_what_its_nar_says(places: Places, tree: Tree) -> None:
    with few_pools() as pools:
        path = places.make(tree)
        await check(Shelf(pools), path, tree)
        assert await nar_hash(path, pools) == NarIdentity(len(nar_of(tree)), sha256(nar_of(tree)))


@pytest.mark.parametrize("tree", HAND_MADE)
async def test_it_is_hashed_without_a_store(pools: Pools, places: Places, tree: Tree) -> None:
    nar = nar_of(tree)
    assert await nar_hash(places.make(tree), pools) == NarIdentity(len(nar), sha256(nar))


async def test_it_is_called_as_the_file_is_or_as_one_likes(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/f").write_text("x")
    (tmp_path / "link").symlink_to("src")
    for text, name in [("src", "src"), ("src/", "src"), ("src/../src/.", "src"), ("link/", "link")]:
        info = await shelf.importer.add(f"{tmp_path}/{text}")
        assert info.store_path.name == name
    assert (await shelf.importer.add(tmp_path / "src", name="other")).store_path.name == "other"


@pytest.mark.parametrize("name", [b"a b", b"\xff", "é".encode(), b"..-x"])
async def test_a_file_whose_name_no_path_can_have_wants_another_one(
    shelf: Shelf, tmp_path: Path, name: bytes
) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    os.mknod(path)
    with pytest.raises(TreeError, match="has no name that a store path can have"):
        await shelf.importer.add(path)
    with pytest.raises(InvalidData, match="is not a name for a new store path"):
        await shelf.importer.add(path, name="a/b")
    assert (await shelf.importer.add(path, name="ok")).store_path.name == "ok"


async def test_a_flat_file_is_addressed_by_its_contents_alone(shelf: Shelf, places: Places) -> None:
    for data in (b"", b"text", LARGE):
        infos = set()
        for executable in (False, True):
            path = places.make(File(data, executable))
            info = await shelf.importer.add(path, name="f", flat=True)
            assert info.ca == ContentAddress("flat", NixHash("sha256", sha256(data)))
            assert info.store_path == info.ca.store_path("f")
            nar = nar_of(File(data))
            assert (info.nar_size, info.nar_sha256) == (len(nar), sha256(nar))
            infos.add(info)
        assert len(infos) == 1


@pytest.mark.parametrize("tree", [{}, Link(b"f")])
async def test_only_a_file_can_be_flat(shelf: Shelf, places: Places, tree: Tree) -> None:
    with pytest.raises(TreeError, match="only a file can be taken as flat"):
        await shelf.importer.add(places.make(tree), flat=True)
    assert await shelf.paths() == []


async def test_directories_state_their_sizes_by_the_rule_that_is_wanted(
    pools: Pools, places: Places
) -> None:
    path = places.make({b"a": {b"b": File(b""), b"c": {}}})
    for rule, size in ((SizeRule.DOCUMENTED, 3), (SizeRule.DOUBLED, 6)):
        shelf = Shelf(pools)
        importer = Importer(shelf.content, shelf.path_infos, pools, rule)
        info = await importer.add(path)
        assert isinstance(info.node, DirectoryNode) and info.node.size == size


async def test_what_is_there_is_not_sent_again(shelf: Shelf, places: Places) -> None:
    path = places.make({b"a": File(b"one"), b"b": {b"c": File(b"two"), b"again": File(b"one")}})
    first = await shelf.importer.add(path)
    assert set(shelf.blobs.put_digests) == {Digest.of(b"one"), Digest.of(b"two")}
    assert shelf.progress[-1] == TreeProgress(path, files=3, size=9, sent=6)
    shelf.blobs.put_digests.clear()
    assert await shelf.importer.add(path) == first
    assert shelf.blobs.put_digests == []
    assert shelf.progress[-1] == TreeProgress(path, files=3, size=9, sent=0)
    # One more file, and it alone travels.
    write_out(File(b"three"), path + b"/b/new")
    await shelf.importer.add(path)
    assert shelf.blobs.put_digests == [Digest.of(b"three")]


async def test_a_large_file_that_is_there_is_not_sent_again(tmp_path: Path, places: Places) -> None:
    path = places.make({b"a": File(LARGE), b"b": File(LARGE, True)})
    told: list[TreeProgress] = []
    async with tvixstore.loads(LOCAL, folder=tmp_path) as store:
        first = await tvixstore.import_path(store, path, progress=told.append)
        assert told[-1] == TreeProgress(path, files=2, size=2 * len(LARGE), sent=len(LARGE))
        assert await tvixstore.import_path(store, path, progress=told.append) == first
        assert told[-1] == TreeProgress(path, files=2, size=2 * len(LARGE), sent=0)


async def test_a_large_file_of_which_only_the_beginning_is_there_is_sent(
    tmp_path: Path, places: Places
) -> None:
    other = LARGE + b"2"
    # Only a store that cuts blobs has the beginning of one.
    async with tvixstore.loads(LOCAL, folder=tmp_path) as store:
        await tvixstore.import_path(store, places.make(File(LARGE + b"1")))
        info = await tvixstore.import_path(store, places.make(File(other)))
        assert info.node == FileNode(Digest.of(other), len(other))
        assert await store.blobs.read(Digest.of(other)) == other


@pytest.mark.slow
@pytest.mark.nix
async def test_a_file_of_more_than_32_bits_is_as_nix_has_it(
    nix: Nix, pools: Pools, tmp_path: Path
) -> None:
    path, size = tmp_path / "holes", (1 << 32) + 9
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    os.truncate(descriptor, size)
    os.pwrite(descriptor, b"the end", size - 7)
    os.close(descriptor)
    async with tvixstore.loads(LOCAL, folder=tmp_path) as store:
        info = await tvixstore.import_path(store, path)
        assert info.nar_sha256.hex() == nix.hash(path, "--base16")
        # 112 bytes are around the contents, which are filled up to a multiple of eight.
        assert info.nar_size == 112 + size + 7
        end = await tvixstore.open_file(store, info.store_path, 1 << 32)
        assert await end.read_all() == b"\0\0the end"


async def test_holes_are_read_as_zeros(shelf: Shelf, tmp_path: Path) -> None:
    size = 40_000_000
    descriptor = os.open(tmp_path / "holes", os.O_CREAT | os.O_WRONLY, 0o644)
    os.truncate(descriptor, size)
    os.pwrite(descriptor, b"island", size // 2)
    os.close(descriptor)
    info = await shelf.importer.add(tmp_path / "holes")
    data = bytes(size // 2) + b"island" + bytes(size - size // 2 - 6)
    assert info.node == FileNode(Digest.of(data), size)
    assert info.nar_sha256 == sha256(nar_of(File(data)))


async def test_hard_links_are_files_of_the_same_contents(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/a").write_bytes(LARGE)
    os.link(tmp_path / "t/a", tmp_path / "t/b")
    info = await shelf.importer.add(tmp_path / "t")
    assert info.nar_sha256 == sha256(nar_of({b"a": File(LARGE), b"b": File(LARGE)}))
    # The second one was not even looked for.
    assert (shelf.progress[-1].files, shelf.progress[-1].sent) == (2, len(LARGE))


async def test_a_linked_file_that_changes_unseen_is_not_taken_for_what_it_was(
    pools: Pools, tmp_path: Path
) -> None:
    path = tmp_path / "tree"
    write_out({b"a": File(LARGE)}, os.fsencode(path))
    os.link(path / "a", path / "b")
    shelf = Shelf(pools)
    with (path / "a").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[-1] = 1

        def change(progress: TreeProgress) -> None:
            if progress.files == 2:
                mapped[-1] = 2

        importer = Importer(shelf.content, shelf.path_infos, pools, on_progress=change)
        with pytest.raises(TreeError, match="tree/[ab] changed while it was read"):
            await importer.add(path)
    assert await shelf.paths() == []


async def test_a_tier_that_has_the_root_alone_gets_all_of_it(shelf: Shelf, places: Places) -> None:
    path = places.make({b"a": {b"b": {b"c": File(b"")}}})
    far = shelf.content.directories
    info = await shelf.importer.add(path)
    assert isinstance(info.node, DirectoryNode)
    near = MemoryDirectoryService()
    tier = CachedDirectoryService(near, far)
    # Somebody looked into it.
    assert await tier.get(info.node.digest) is not None
    importer = Importer(
        Content(shelf.blobs, tier), shelf.path_infos, shelf.importer.pools, shelf.importer.sizes
    )
    await importer.add(path)
    closure = [each async for each in near.get_closure(info.node.digest)]
    assert len(closure) == 3


async def test_a_folder_of_very_many_files_is_taken(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(5000):
        (folder / f"{number}").write_bytes(b"%d" % (number % 10))
    info = await shelf.importer.add(folder)
    tree: Tree = {b"%d" % number: File(b"%d" % (number % 10)) for number in range(5000)}
    assert info.nar_sha256 == sha256(nar_of(tree))


class FailingBlobs:
    """Has put_many fail the n-th time."""

    def __init__(self, shelf: Shelf, time: int) -> None:
        self._put_many = shelf.blobs.put_many
        self._left = time
        shelf.blobs.put_many = self.put_many  # type: ignore[method-assign]

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        self._left -= 1
        if self._left == 0:
            raise Unavailable("the store is away")
        return await self._put_many(blobs)


@pytest.mark.parametrize("time", [1, 2, 3])
async def test_a_store_that_fails_gets_no_path_info_and_another_try_does(
    shelf: Shelf, places: Places, time: int
) -> None:
    tree: Tree = {b"%d" % number: File(b"%d" % number) for number in range(2500)}
    path = places.make(tree)
    FailingBlobs(shelf, time)
    with pytest.raises(Unavailable, match="the store is away"):
        await shelf.importer.add(path)
    assert await shelf.paths() == []
    await check(shelf, path, tree)


async def test_a_tree_that_cannot_be_read_to_its_end_gets_no_path_info(
    shelf: Shelf, places: Places
) -> None:
    path = places.make({**{b"%d" % n: File(b"%d" % n) for n in range(2500)}, b"z": {}})
    os.mkfifo(path + b"/z/fifo")
    with pytest.raises(TreeError, match="z/fifo is a fifo"):
        await shelf.importer.add(path)
    assert await shelf.paths() == []
    os.unlink(path + b"/z/fifo")
    assert isinstance((await shelf.importer.add(path)).store_path, StorePath)


async def test_cancelled_anywhere_there_is_no_path_info_and_repeated_it_is_whole(
    tmp_path: Path, places: Places
) -> None:
    tree: Tree = {**{b"%d" % n: File(b"%d" % n) for n in range(2500)}, b"z": File(LARGE)}
    path = places.make(tree)
    chance = random.Random(5)
    broken = 0
    async with tvixstore.loads(LOCAL, folder=tmp_path) as store:
        for _ in range(12):
            task = asyncio.create_task(tvixstore.import_path(store, path))
            for _ in range(chance.randrange(200)):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            broken += task.cancelled()
            if task.cancelled():
                assert [info async for info in store.path_infos.list()] == []
        assert broken
        info = await tvixstore.import_path(store, path)
        assert await (await tvixstore.open_nar(store, info.store_path)).read_all() == nar_of(tree)
    house = House(tmp_path, [])
    async with house.open(upstream=False) as composition:
        assert (await verify(composition.upkeep)).findings == []
