"""Trees out of a store onto disk: as they were, whole, and over nothing that is there."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.filesystem.killed_extraction import POINTS, TREE
from tests.filesystem.places import HAND_MADE, LARGE, Nix, few_pools, unfolding
from tests.nar.trees import File, Link, Tree, memory, nar_of, read_in, store, trees, write_out
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest, FileNode
from tvixstore.errors import CorruptData, Incomplete, StorageFull, TreeError
from tvixstore.filesystem import Extractor, TreeProgress, filling, open_file, placing, sharing
from tvixstore.filesystem import hand as hand_room
from tvixstore.filesystem import items as room
from tvixstore.filesystem.filling import MARK
from tvixstore.filesystem.hand import Hand
from tvixstore.filesystem.spots import Spot
from tvixstore.pools import Pools
from tvixstore.tree import Content

IN_THE_WAY = "is there already, and something else: nothing is written over it"
MANY: dict[bytes, Tree] = {
    b"d%d" % folder: {b"f%d" % file: File(b"%d %d" % (folder, file % 3)) for file in range(60)}
    for folder in range(30)
}


class Awaited(BlobWrapper):
    """Has nothing at hand, and gives the last first."""

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        for _ in range(digest.raw[0] % 5):
            await asyncio.sleep(0)
        return await super().read(digest, size)


class Disk:
    """Trees in memory, put into a folder."""

    def __init__(self, folder: Path, pools: Pools) -> None:
        self.content = memory()
        self.told: list[TreeProgress] = []
        self.path = os.fsencode(folder) + b"/out"
        self._pools = pools

    def is_there(self) -> bool:
        return os.path.lexists(self.path)

    async def extract(self, tree: Tree, *, link: bool = False) -> None:
        extractor = Extractor(self.content, self._pools, link, self.told.append)
        await extractor.put(await store(self.content, tree), self.path)


@pytest.fixture
def disk(tmp_path: Path, pools: Pools) -> Disk:
    return Disk(tmp_path, pools)


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("tree", HAND_MADE)
async def test_a_tree_comes_out_as_it_went_in(disk: Disk, tree: Tree, link: bool) -> None:
    await disk.extract(tree, link=link)
    assert read_in(disk.path) == tree
    # Again, where all of it is.
    before = os.lstat(disk.path)
    await disk.extract(tree, link=link)
    assert read_in(disk.path) == tree and os.lstat(disk.path) == before
    assert disk.told[-1].sent == 0, "nothing was written"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees)
async def test_any_tree_comes_out_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree
) -> None:
    with few_pools() as pools:
        disk = Disk(tmp_path_factory.mktemp("any"), pools)
        await disk.extract(tree)
        assert read_in(disk.path) == tree


@pytest.mark.nix
async def test_modes_are_those_that_nix_restores(disk: Disk, nix: Nix, tmp_path: Path) -> None:
    tree: Tree = {b"d": {b"x": File(b"1", True)}, b"f": File(LARGE), b"l": Link(b"f")}
    mask = os.umask(0o077)
    try:
        await disk.extract(tree)
        nix.run("nix-store", "--restore", tmp_path / "theirs", data=nar_of(tree))
    finally:
        os.umask(mask)
    for name in (b"", b"/d", b"/d/x", b"/f", b"/l"):
        ours = os.lstat(disk.path + name)
        assert ours.st_mode == os.lstat(os.fsencode(tmp_path) + b"/theirs" + name).st_mode
    assert stat.S_IMODE(os.lstat(disk.path + b"/f").st_mode) == 0o644


OTHERS: list[Tree] = [File(b"other"), File(b"right", True), Link(b"x"), {}, {b"x": File(b"")}]


@pytest.mark.parametrize("there", OTHERS)
@pytest.mark.parametrize(
    "tree",
    [
        File(b"right"),
        Link(b"y"),
        {b"in": {b"side": File(b"right")}},
        {b"in": {b"side": Link(b"y")}},
        {b"in": {b"side": {b"deep": File(b"1")}}},
    ],
)
async def test_nothing_is_written_over_what_is_there(disk: Disk, tree: Tree, there: Tree) -> None:
    if isinstance(tree, dict):
        write_out({b"in": {b"side": there}}, disk.path)
        wanted, spot = tree[b"in"], disk.path + b"/in/side"
        assert isinstance(wanted, dict)
        if there == {} and isinstance(wanted[b"side"], dict):
            pytest.skip("that is only the beginning of it")
    else:
        write_out(there, disk.path)
        spot = disk.path
    with pytest.raises(TreeError) as error:
        await disk.extract(tree)
    assert error.value.path.startswith(spot)
    assert read_in(spot) == there


async def test_what_is_in_a_folder_and_not_in_the_path_is_in_the_way(disk: Disk) -> None:
    os.mkdir(disk.path)
    write_out(File(b"mine"), disk.path + b"/mine")
    with pytest.raises(TreeError, match="out/mine is there, and not in what is to be put there"):
        await disk.extract({b"a": File(b"1")})
    assert read_in(disk.path) == {b"mine": File(b"mine")}


async def test_a_link_does_not_lead_out_of_the_folder(disk: Disk, tmp_path: Path) -> None:
    elsewhere = os.fsencode(tmp_path) + b"/elsewhere"
    os.mkdir(elsewhere)
    os.mkdir(disk.path)
    os.symlink(elsewhere, disk.path + b"/d")
    with pytest.raises(TreeError, match=f"out/d {IN_THE_WAY}"):
        await disk.extract({b"d": {b"f": File(b"1")}})
    assert os.listdir(elsewhere) == []


async def test_a_file_that_comes_up_meanwhile_stays(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = open_file.give_name

    def late(descriptor: int, called: bytes, folder: int) -> None:
        write_out(File(b"quicker"), disk.path)
        name(descriptor, called, folder)

    monkeypatch.setattr(open_file, "give_name", late)
    with pytest.raises(TreeError, match=IN_THE_WAY):
        await disk.extract(File(b"slower"))
    assert read_in(disk.path) == File(b"quicker")


@pytest.mark.parametrize("target", ["none/out", "file/out"])
async def test_what_it_goes_into_has_to_be_there(tmp_path: Path, pools: Pools, target: str) -> None:
    os.mknod(tmp_path / "file")
    content = memory()
    with pytest.raises(TreeError, match="cannot be written|is there already"):
        await Extractor(content, pools).put(await store(content, {}), tmp_path / target)


async def test_a_name_that_is_too_long_here_is_told(tmp_path: Path, pools: Pools) -> None:
    content = memory()
    node = await store(content, {b"l": Link(b"t" * 4095)})
    target = tmp_path / ("n" * 256)
    with pytest.raises(TreeError, match="cannot be written: File name too long"):
        await Extractor(content, pools).put(node, target)


async def test_content_that_is_missing_is_no_file(disk: Disk, pools: Pools) -> None:
    for size in (10, 5_000_000):
        node = FileNode(Digest.of(b"nowhere"), size)
        with pytest.raises(Incomplete, match="is missing"):
            await Extractor(disk.content, pools).put(node, disk.path)
        assert not disk.is_there()


async def test_equal_files_are_one_where_that_is_wanted(disk: Disk) -> None:
    tree: Tree = {
        b"a": {b"1": File(b"same"), b"2": File(b"same", True)},
        b"b": {b"1": File(b"same"), b"2": File(b"same", True), b"3": File(b"")},
        b"c": File(LARGE),
        b"d": File(LARGE),
    }
    await disk.extract(tree, link=True)
    assert read_in(disk.path) == tree
    assert disk.told[-1].files == 7
    # As hard links, or by reflinks where the file system has those.
    inodes = {os.stat(disk.path + name).st_ino for name in (b"/a/1", b"/b/1", b"/a/2", b"/b/2")}
    assert len(inodes) in (2, 4)


async def test_more_links_than_a_file_can_have_are_copies(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_linked", lambda *_: False)
    tree: Tree = {b"a": File(LARGE), b"b": File(LARGE)}
    await disk.extract(tree, link=True)
    assert read_in(disk.path) == tree


def without_nameless_files(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refusing(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not on this file system")
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refusing)


async def test_a_file_system_without_nameless_files_will_do(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_nameless_files(monkeypatch)
    tree: Tree = {b"d": {b"x": File(b"1", True)}, b"f": File(LARGE)}
    await disk.extract(tree)
    assert read_in(disk.path) == tree
    # What a kill would leave there is cleared away by whoever begins again.
    for name in (b"/.tvixstore-partial-", b"/d/.tvixstore-partial-"):
        write_out(File(b"half"), disk.path + name + b"0" * 32)
    await disk.extract(tree)
    assert read_in(disk.path) == tree


@pytest.mark.parametrize("nameless", [True, False])
async def test_broken_off_anywhere_and_repeated_it_finishes(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    if not nameless:
        without_nameless_files(monkeypatch)
    tree: Tree = {**MANY, b"large": File(LARGE * 3)}
    chance = random.Random(7)
    broken = 0
    for _ in range(8):
        task = asyncio.create_task(disk.extract(tree))
        for _ in range(chance.randrange(300)):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        broken += task.cancelled()
        if disk.is_there():
            check_part(disk.path, tree)
    assert broken
    await disk.extract(tree)
    assert read_in(disk.path) == tree


def check_part(path: bytes, tree: Tree) -> None:
    """Whatever is there is whole."""
    if not isinstance(tree, dict):
        assert read_in(path) == tree
        return
    for name in os.listdir(path):
        assert name in tree, name
        check_part(path + b"/" + name, tree[name])


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_a_file_and_repeated_it_finishes(disk: Disk, point: str) -> None:
    command = ("-m", "tests.filesystem.killed_extraction", disk.path, point)
    killed = await asyncio.to_thread(subprocess.run, (sys.executable, *command), timeout=60)
    assert killed.returncode == -signal.SIGKILL
    names = sorted(os.listdir(disk.path))
    unfinished = disk.path + b"/" + names[-1]
    assert len(names) == 6 and 0 < len(os.listdir(unfinished)) < 20
    assert {stat.S_IMODE(os.stat(each).st_mode) for each in (disk.path, unfinished)} == {MARK}
    await disk.extract(TREE)
    assert read_in(disk.path) == TREE
    for folder, _, files in os.walk(disk.path):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o755
        for name in files:
            executable = int(name[1:]) % 2
            mode = os.stat(folder + b"/" + name).st_mode
            assert stat.S_IMODE(mode) == (0o755 if executable else 0o644), name


BEGINNINGS: list[Tree] = [File(b""), File(b"ri"), File(b"right"), File(b"right", True)]


def half_done(path: bytes, there: Tree, mode: int = MARK) -> None:
    """What a kill leaves: folders with marks, and in one of them `there`."""
    write_out({b"d": {b"f": there}}, path)
    for folder in (path + b"/d", path):
        os.chmod(folder, mode)


@pytest.mark.parametrize("there", BEGINNINGS)
async def test_the_beginning_of_a_file_is_replaced_where_a_mark_says_whose_it_is(
    disk: Disk, there: Tree
) -> None:
    tree: Tree = {b"d": {b"f": File(b"right")}}
    half_done(disk.path, there)
    await disk.extract(tree)
    assert read_in(disk.path) == tree
    assert stat.S_IMODE(os.stat(disk.path + b"/d").st_mode) == 0o755


@pytest.mark.parametrize("there", [BEGINNINGS[0], BEGINNINGS[1], BEGINNINGS[3]])
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
async def test_the_beginning_of_a_file_stays_where_no_mark_is(
    disk: Disk, there: Tree, mode: int
) -> None:
    half_done(disk.path, there, mode)
    with pytest.raises(TreeError, match=f"out/d/f {IN_THE_WAY}"):
        await disk.extract({b"d": {b"f": File(b"right")}})
    assert read_in(disk.path + b"/d/f") == there


@pytest.mark.parametrize("there", [File(b"rig!"), File(b"right!"), Link(b"x"), {}])
async def test_what_is_no_beginning_stays_also_where_a_mark_is(disk: Disk, there: Tree) -> None:
    half_done(disk.path, there)
    with pytest.raises(TreeError, match=f"out/d/f {IN_THE_WAY}"):
        await disk.extract({b"d": {b"f": File(b"right")}})
    assert read_in(disk.path + b"/d/f") == there


@pytest.mark.parametrize("there", [BEGINNINGS[0], BEGINNINGS[1], BEGINNINGS[3]])
async def test_the_beginning_of_a_file_that_is_to_share_is_replaced_too(
    disk: Disk, there: Tree
) -> None:
    tree: Tree = {b"a": File(b"right"), b"d": {b"f": File(b"right")}}
    half_done(disk.path, there)
    await disk.extract(tree, link=True)
    assert read_in(disk.path) == tree
    for each in (b"", b"/d"):
        assert stat.S_IMODE(os.stat(disk.path + each).st_mode) == 0o755


async def test_what_is_no_beginning_of_a_file_that_is_to_share_stays(disk: Disk) -> None:
    half_done(disk.path, File(b"rig!"))
    with pytest.raises(TreeError, match=f"out/d/f {IN_THE_WAY}"):
        await disk.extract({b"a": File(b"right"), b"d": {b"f": File(b"right")}}, link=True)
    assert read_in(disk.path + b"/d/f") == File(b"rig!")


async def test_a_beginning_that_has_another_name_stays(disk: Disk, tmp_path: Path) -> None:
    half_done(disk.path, File(b"ri"))
    os.link(disk.path + b"/d/f", tmp_path / "mine")
    with pytest.raises(TreeError, match=f"out/d/f {IN_THE_WAY}"):
        await disk.extract({b"d": {b"f": File(b"right")}})
    assert (tmp_path / "mine").read_bytes() == b"ri"


async def test_a_file_that_comes_up_in_a_folder_being_filled_stays(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = filling.fill

    def late(folder: int, node: FileNode, name: bytes, contents: bytes) -> None:
        write_out(File(b"sl"), disk.path + b"/" + name)
        fill(folder, node, name, contents)

    monkeypatch.setattr(hand_room, "fill", late)
    with pytest.raises(TreeError, match=f"out/f {IN_THE_WAY}"):
        await disk.extract({b"f": File(b"slower")})
    assert read_in(disk.path) == {b"f": File(b"sl")}


async def test_two_extractions_into_one_folder_end_well_or_in_an_error_that_says_so(
    disk: Disk,
) -> None:
    tree: Tree = {**MANY, b"large": File(LARGE * 3)}
    results = await asyncio.gather(*(disk.extract(tree) for _ in range(4)), return_exceptions=True)
    assert None in results
    for result in results:
        if result is not None:
            assert isinstance(result, TreeError)
            assert "is being filled by another extraction: wait until that is over" in str(result)
    assert read_in(disk.path) == tree
    await disk.extract(tree)


async def test_who_comes_second_leaves_what_is_being_written_alone(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree: Tree = {b"d": {b"f": File(b"right")}}
    half_done(disk.path, File(b"ri"))
    first = os.open(disk.path, os.O_RDONLY)
    try:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(TreeError, match="out is being filled by another extraction"):
            await disk.extract(tree)
        assert read_in(disk.path + b"/d/f") == File(b"ri")
    finally:
        os.close(first)
    await disk.extract(tree)
    assert read_in(disk.path) == tree


async def test_nothing_goes_into_a_folder_that_another_extraction_has_not_finished(
    disk: Disk, pools: Pools
) -> None:
    half_done(disk.path, File(b"ri"))
    node = await store(disk.content, {b"f": File(b"right")})
    with pytest.raises(TreeError, match="out was not filled to the end by the extraction"):
        await Extractor(disk.content, pools).put(node, disk.path + b"/d")
    assert read_in(disk.path + b"/d/f") == File(b"ri")


async def test_without_locks_files_get_their_names_when_they_are_complete(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refusing)
    monkeypatch.setattr(hand_room, "fill", None)
    tree: Tree = {b"d": {b"f": File(b"right"), b"x": File(b"1", True)}}
    mask = os.umask(0o077)
    try:
        await disk.extract(tree)
    finally:
        os.umask(mask)
    assert read_in(disk.path) == tree
    assert {stat.S_IMODE(os.stat(disk.path + each).st_mode) for each in (b"", b"/d")} == {0o755}


async def test_where_marks_do_not_hold_files_get_their_names_when_they_are_complete(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_room, "is_marked", lambda _: False)
    monkeypatch.setattr(placing, "is_marked", lambda _: False)
    monkeypatch.setattr(hand_room, "fill", None)
    tree: Tree = {b"d": {b"f": File(b"right"), b"e": {}}}
    await disk.extract(tree)
    assert read_in(disk.path) == tree
    for each in (b"", b"/d", b"/d/e"):
        assert stat.S_IMODE(os.stat(disk.path + each).st_mode) == 0o755


async def test_a_disk_that_is_full_leaves_no_beginning_of_a_file(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if data == b"right":
            return write(descriptor, data[:2])
        if data == b"ght":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    tree: Tree = {b"a": File(b"1"), b"f": File(b"right")}
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(StorageFull, match="out/f cannot be written: No space left"):
            await disk.extract(tree)
    assert read_in(disk.path) == {b"a": File(b"1")}
    await disk.extract(tree)
    assert read_in(disk.path) == tree


async def test_folders_of_contents_that_have_to_be_waited_for_are_finished_after_them(
    disk: Disk, pools: Pools
) -> None:
    content = Content(Awaited(disk.content.blobs), disk.content.directories)
    tree: Tree = {**MANY, b"large": File(LARGE * 3), b"e": File(b"")}
    await Extractor(content, pools).put(await store(disk.content, tree), disk.path)
    assert read_in(disk.path) == tree
    for folder, _, _ in os.walk(disk.path):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o755


async def test_a_folder_that_a_kill_left_without_its_mode_gets_it(disk: Disk) -> None:
    os.makedirs(disk.path + b"/d/e", 0o700)
    await disk.extract({b"d": {b"e": {}, b"f": {b"g": File(b"1")}}})
    assert stat.S_IMODE(os.stat(disk.path + b"/d/e").st_mode) == 0o755


async def test_a_file_of_another_size_than_its_blob_is_none(disk: Disk, pools: Pools) -> None:
    digest = await disk.content.blobs.put(b"right")
    for size in (4, 6):
        with pytest.raises(CorruptData, match=f"is 5 bytes long, not {size}"):
            await Extractor(disk.content, pools).put(FileNode(digest, size), disk.path)
        assert not disk.is_there()


async def test_no_link_is_made_to_a_file_of_another_mode(disk: Disk) -> None:
    write_out({b"a": File(LARGE)}, disk.path)
    os.chmod(disk.path + b"/a", 0o600)
    await disk.extract({b"a": File(LARGE), b"b": File(LARGE)}, link=True)
    assert stat.S_IMODE(os.stat(disk.path + b"/b").st_mode) == 0o644
    assert stat.S_IMODE(os.stat(disk.path + b"/a").st_mode) == 0o600


async def test_a_file_that_is_swapped_for_a_link_is_not_shared(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    share = sharing.share

    def swapping(hand: Hand, spot: Spot, node: FileNode, other: Spot) -> None:
        os.unlink(disk.path + b"/a")
        os.symlink(tmp_path / "secret", disk.path + b"/a")
        share(hand, spot, node, other)

    monkeypatch.setattr(room, "share", swapping)
    with pytest.raises(TreeError, match="out/a is there already, and cannot be read"):
        await disk.extract({b"a": File(b"same"), b"b": File(b"same")}, link=True)
    assert read_in(disk.path) == {b"a": Link(os.fsencode(tmp_path) + b"/secret")}


async def test_what_the_system_refuses_is_not_called_something_else(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree: Tree = {b"a": File(b"1")}
    await disk.extract(tree)
    opened = os.open

    def refusing(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"a":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(TreeError, match="out/a .* cannot be read: Too many open files"):
        await disk.extract(tree)

    def listing(_: int) -> list[str]:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "listdir", listing)
    with pytest.raises(TreeError, match="out cannot be written: Permission denied"):
        await disk.extract(tree)


async def test_a_tree_that_unfolds_without_end_is_begun_with(disk: Disk, pools: Pools) -> None:
    node = await unfolding(disk.content)
    begun = asyncio.Event()
    extractor = Extractor(disk.content, pools, on_progress=lambda _: begun.set())
    task = asyncio.create_task(extractor.put(node, disk.path))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert disk.is_there()
