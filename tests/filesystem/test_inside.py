"""What is inside of store paths, and that no more is fetched than what leads there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from tests.filesystem.places import unfolding
from tests.nar.trees import CountingBlobService, File, Link, Tree, nar_of, store
from tvixstore.castore import Digest, Directory, FileNode, SymlinkNode
from tvixstore.directory import MemoryDirectoryService
from tvixstore.errors import AbsentPath, Incomplete, InvalidData
from tvixstore.filesystem import Found, Inside, TreeReader
from tvixstore.nix import StorePath
from tvixstore.pathinfo import MemoryPathInfoService, PathInfo
from tvixstore.tree import Content

PATH = StorePath(bytes(range(20)), "app")
TREE: dict[bytes, Tree] = {
    b"bin": {b"\xff": Link(b"run"), b"run": File(b"#!/bin/sh\n", True)},
    b"empty": {},
    b"link": Link(b"bin"),
    b"share": {b"doc": {b"page": File(b"0123456789")}},
}


class CountingDirectoryService(MemoryDirectoryService):
    def __init__(self) -> None:
        super().__init__()
        self.reads: list[Digest] = []

    async def get(self, digest: Digest) -> Directory | None:
        self.reads.append(digest)
        return await super().get(digest)

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        return [await self.get(digest) for digest in digests]


class Shop:
    """One path in memory, and a count of what was read of it."""

    def __init__(self) -> None:
        self.blobs = CountingBlobService()
        self.directories = CountingDirectoryService()
        self.content = Content(self.blobs, self.directories)
        self.path_infos = MemoryPathInfoService(self.content)
        self.reader = TreeReader(self.path_infos, self.content)

    async def fill(self) -> None:
        await self.path_infos.put(
            PathInfo(
                store_path=PATH,
                nar_sha256=bytes(32),
                nar_size=1,
                node=await store(self.content, TREE),
            )
        )
        self.directories.reads.clear()

    async def list(self, inside: str, *, recursive: bool = False) -> list[bytes]:
        found = self.reader.list(Inside.parse(f"{PATH}/{inside}"), recursive=recursive)
        return [name async for name, _ in found]


@pytest.fixture
async def shop() -> Shop:
    shop = Shop()
    await shop.fill()
    return shop


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (str(PATH), ()),
        (PATH.base_name, ()),
        (f"{PATH}/", ()),
        (f"{PATH}/bin//./run/", (b"bin", b"run")),
        (f"{PATH.base_name}/a b", (b"a b",)),
        (bytes(str(PATH), "ascii") + b"/\xff", (b"\xff",)),
    ],
)
def test_places_are_read_as_one_writes_them(text: str | bytes, names: tuple[bytes, ...]) -> None:
    assert Inside.parse(text) == Inside(PATH, names)


@pytest.mark.parametrize(
    "text", ["", "/", "/nix/store", "/tmp/x", "./x", "app", b"\xff", "/nix/store/x-y"]
)
def test_what_is_no_store_path_is_told_so(text: str | bytes) -> None:
    with pytest.raises(InvalidData, match="is not in a store path: write /nix/store/HASH-NAME"):
        Inside.parse(text)


def test_dots_that_lead_out_are_refused() -> None:
    with pytest.raises(InvalidData, match="has a .. in it"):
        Inside.parse(f"{PATH}/bin/../../other")


async def test_a_folder_is_listed_in_the_order_of_names(shop: Shop) -> None:
    assert await shop.list("") == [b"bin", b"empty", b"link", b"share"]
    assert await shop.list("bin") == [b"run", b"\xff"]
    assert await shop.list("empty") == []
    assert await shop.list("share", recursive=True) == [b"doc", b"doc/page"]
    assert await shop.list("bin/run") == await shop.list("link") == [b""]
    assert await shop.list("", recursive=True) == [
        *(b"bin", b"bin/run", b"bin/\xff", b"empty", b"link"),
        *(b"share", b"share/doc", b"share/doc/page"),
    ]


async def test_only_what_is_on_the_way_is_fetched(shop: Shop) -> None:
    stream = await shop.reader.open_file(Inside.parse(f"{PATH}/share/doc/page"))
    assert await stream.read_all() == b"0123456789"
    assert len(shop.directories.reads) == 3
    assert shop.blobs.reads == [Digest.of(b"0123456789")]
    shop.directories.reads.clear()
    await shop.list("share/doc")
    assert len(shop.directories.reads) == 3 and len(shop.blobs.reads) == 1


@pytest.mark.parametrize(
    ("offset", "length", "part"),
    [(0, None, b"0123456789"), (3, 4, b"3456"), (8, 100, b"89"), (10, None, b""), (99, 1, b"")],
)
async def test_any_part_of_a_file_is_read(
    shop: Shop, offset: int, length: int | None, part: bytes
) -> None:
    inside = Inside.parse(f"{PATH}/share/doc/page")
    assert await (await shop.reader.open_file(inside, offset, length)).read_all() == part


@pytest.mark.parametrize(("offset", "length"), [(-5, None), (0, -1)])
async def test_no_range_begins_or_ends_before_a_file(
    shop: Shop, offset: int, length: int | None
) -> None:
    with pytest.raises(InvalidData, match="neither is below 0"):
        await shop.reader.open_file(Inside.parse(f"{PATH}/share/doc/page"), offset, length)


async def test_nodes_are_found(shop: Shop) -> None:
    assert await shop.reader.find(Inside(PATH, (b"link",))) == SymlinkNode(b"bin")
    run = FileNode(Digest.of(b"#!/bin/sh\n"), 10, True)
    assert await shop.reader.find(Inside(PATH, (b"bin", b"run"))) == run


async def test_what_is_not_there_is_named_as_far_as_it_was_looked_for(shop: Shop) -> None:
    with pytest.raises(AbsentPath, match=f"{PATH}/share/none does not exist$"):
        await shop.reader.find(Inside.parse(f"{PATH}/share/none/at/all"))
    with pytest.raises(AbsentPath, match="/bin/run/x does not exist$"):
        await shop.reader.find(Inside.parse(f"{PATH}/bin/run/x"))
    with pytest.raises(
        AbsentPath, match="/link/run does not exist: links are not followed, .* bin"
    ):
        await shop.reader.find(Inside.parse(f"{PATH}/link/run"))
    other = StorePath(bytes(20), "app")
    for call in (shop.reader.find, shop.reader.open_nar):
        with pytest.raises(AbsentPath, match=f"{other} is nowhere to be had"):
            await call(Inside(other))
        with pytest.raises(AbsentPath, match="other is nowhere to be had"):
            await call(Inside(StorePath(PATH.hash, "other")))


async def test_only_a_file_has_contents(shop: Shop) -> None:
    with pytest.raises(InvalidData, match="/bin is a folder and not a file"):
        await shop.reader.open_file(Inside.parse(f"{PATH}/bin"))
    with pytest.raises(
        InvalidData, match="/link is a symbolic link and not a file: .* leads to bin"
    ):
        await shop.reader.open_file(Inside.parse(f"{PATH}/link"))


async def test_content_that_is_lost_is_not_absent(shop: Shop) -> None:
    node = await shop.reader.find(Inside(PATH, (b"bin", b"run")))
    assert isinstance(node, FileNode)
    shop.blobs.blobs.pop(node.digest)
    with pytest.raises(Incomplete, match="bin/run: blob .* is missing"):
        await shop.reader.open_file(Inside(PATH, (b"bin", b"run")))


async def test_what_is_inside_has_a_nar_of_its_own(shop: Shop) -> None:
    stream = await shop.reader.open_nar(Inside(PATH, (b"bin",)))
    below = TREE[b"bin"]
    assert await stream.read_all() == nar_of(below)
    assert await (await shop.reader.open_nar(Inside(PATH))).read_all() == nar_of(TREE)


async def test_a_tree_that_unfolds_without_end_is_listed_as_far_as_one_reads(shop: Shop) -> None:
    info = replace(await shop.reader.info(PATH), node=await unfolding(shop.reader.content))
    await shop.reader.path_infos.put(info)
    async with aclosing(shop.reader.list(Inside(PATH), recursive=True)) as found:
        names = [name async for name, _ in first(found, 5000)]
    assert names[:3] == [b"a", b"a/a", b"a/a/a"] and len(names) == 5000


async def first(found: AsyncGenerator[Found, None], count: int) -> AsyncGenerator[Found, None]:
    for _ in range(count):
        yield await anext(found)
