"""Trees by the functions of the library: on a composition, and on a store made by hand."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

import tvixstore
from tests.library.stores import LOCAL, MEMORY
from tests.nar.trees import File, Link, Tree, cut, nar_of, read_in, write_out
from tests.pathinfo.samples import TRUSTED
from tvixstore.castore import SymlinkNode
from tvixstore.errors import AbsentPath, InvalidData, TreeError, Untrusted
from tvixstore.filesystem import Claims, TreeProgress

TREE: Tree = {b"bin": {b"run": File(b"#!/bin/sh\n", True), b"sh": Link(b"run")}, b"f": File(b"1")}


async def nar_in_pieces() -> AsyncIterator[bytes]:
    for piece in cut(nar_of(TREE), 100):
        yield piece


async def check(store: tvixstore.Store, folder: Path) -> None:
    tree = os.fsencode(folder / "tree")
    write_out(TREE, tree)
    told: list[TreeProgress] = []
    info = await tvixstore.import_path(store, tree, progress=told.append)
    assert told[-1] == TreeProgress(tree, files=2, size=11, sent=11)
    assert (await tvixstore.nar_hash(tree)).sha256 == info.nar_sha256
    names = [name async for name, _ in tvixstore.list_path(store, info.store_path)]
    assert names == [b"bin", b"f"]
    below = tvixstore.list_path(store, f"{info.store_path}/bin/sh", recursive=True)
    assert [found async for found in below] == [(b"", SymlinkNode(b"run"))]
    stream = await tvixstore.open_file(store, f"{info.store_path.base_name}/bin/run", 2, 4)
    assert await stream.read_all() == b"/bin"
    assert await (await tvixstore.open_nar(store, info.store_path)).read_all() == nar_of(TREE)
    out = os.fsencode(folder / "out")
    await tvixstore.extract(store, info.store_path, out, progress=told.append)
    assert read_in(out) == TREE
    assert told[-1] == TreeProgress(out, files=2, size=11, sent=11)
    added = await tvixstore.add_nar(store, nar_in_pieces(), Claims(name="tree"))
    assert added == info
    # What its content proves needs no signature.
    keys = [str(TRUSTED.public_key)]
    assert await tvixstore.add_nar(store, nar_in_pieces(), Claims(name="t"), public_keys=keys)
    with pytest.raises(Untrusted):
        claims = Claims(path=replace(info.store_path, name="other"))
        await tvixstore.add_nar(store, nar_in_pieces(), claims, public_keys=keys)
    with pytest.raises(AbsentPath):
        await tvixstore.open_file(store, f"{info.store_path}/none")
    with pytest.raises(InvalidData):
        await tvixstore.open_file(store, "/tmp/x")
    with pytest.raises(TreeError):
        await tvixstore.import_path(store, folder / "none")


@pytest.mark.parametrize("text", [LOCAL, MEMORY])
async def test_trees_go_in_and_out_of_a_composition(tmp_path: Path, text: str) -> None:
    async with tvixstore.loads(text, folder=tmp_path) as store:
        await check(store, tmp_path)


async def test_trees_go_in_and_out_of_services_put_together_by_hand(tmp_path: Path) -> None:
    async with tvixstore.loads(LOCAL, folder=tmp_path) as store:
        bare = tvixstore.Store(store.blobs, store.directories, store.path_infos)
        await check(bare, tmp_path)


async def test_directories_have_the_sizes_that_the_composition_wants(tmp_path: Path) -> None:
    write_out(TREE, os.fsencode(tmp_path / "tree"))
    text = '[daemon]\ndirectory_sizes = "doubled"\n' + MEMORY
    async with tvixstore.loads(text, folder=tmp_path) as store:
        info = await tvixstore.import_path(store, tmp_path / "tree")
        assert getattr(info.node, "size", None) == 8
