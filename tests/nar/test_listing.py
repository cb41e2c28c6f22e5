"""Listings, from castore and from NARs."""

from __future__ import annotations

import json

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
    source,
    store,
    utf8_trees,
)
from tests.nar.vectors import VALID, Valid
from tvixstore.castore import EMPTY_DIGEST, DirectoryNode, FileNode
from tvixstore.directory import MemoryDirectoryService
from tvixstore.errors import Incomplete, InvalidData, Unsupported
from tvixstore.nar import ingest, listing, listing_of_nar
from tvixstore.tree import Content

LISTED = [vector for vector in VALID if vector.ls_new_key_order is not None]


def _normal(node: dict[str, object]) -> dict[str, object]:
    """A listed node as newer Nix has it, with `executable` always written."""
    if node["type"] == "regular":
        return {"executable": False, **node}
    entries = node.get("entries")
    if isinstance(entries, dict):
        return {**node, "entries": {name: _normal(child) for name, child in entries.items()}}
    return node


@pytest.mark.parametrize("vector", LISTED, ids=lambda vector: vector.what)
async def test_golden_nars_are_listed_to_the_byte(vector: Valid) -> None:
    content = memory()
    node = await ingest(content, source(vector.nar))
    assert await listing(content, node) == vector.ls
    for size in (None, 1, 7):
        assert await listing_of_nar(source(vector.nar, size)) == vector.ls


@pytest.mark.parametrize("vector", LISTED, ids=lambda vector: vector.what)
async def test_newer_nix_lists_the_same_in_another_order(vector: Valid) -> None:
    ours = json.loads(await listing_of_nar(source(vector.nar)))
    assert vector.ls_new_key_order is not None
    assert {**ours, "root": _normal(ours["root"])} == json.loads(vector.ls_new_key_order)


@given(tree=utf8_trees, size=st.none() | st.integers(1, 100))
async def test_both_ways_list_the_same_json(tree: Tree, size: int | None) -> None:
    content = memory()
    node = await store(content, tree)
    nar = nar_of(tree)
    text = await listing(content, node)
    assert text == await listing_of_nar(source(nar, size))
    _check(json.loads(text)["root"], tree, nar)


def _check(listed: dict[str, object], tree: Tree, nar: bytes) -> None:
    match tree:
        case File(data, executable):
            offset = listed.pop("narOffset")
            assert isinstance(offset, int)
            assert nar[offset : offset + len(data)] == data
            executable_key = {"executable": True} if executable else {}
            assert listed == {"type": "regular", "size": len(data), **executable_key}
        case Link(target):
            assert listed == {"type": "symlink", "target": target.decode()}
        case dict():
            entries = listed.pop("entries")
            assert isinstance(entries, dict)
            assert listed == {"type": "directory"}
            assert list(entries) == [name.decode() for name in sorted(tree)]
            for name, child in tree.items():
                _check(entries[name.decode()], child, nar)


@pytest.mark.parametrize("tree", [{b"\xff": File(b"")}, {b"a": Link(b"\xc3")}])
async def test_what_is_not_utf8_has_no_listing(tree: Tree) -> None:
    content = memory()
    with pytest.raises(Unsupported, match="UTF-8"):
        await listing(content, await store(content, tree))
    with pytest.raises(Unsupported, match="UTF-8"):
        await listing_of_nar(source(nar_of(tree)))


async def test_listing_reads_no_blob() -> None:
    blobs = CountingBlobService()
    content = Content(blobs, MemoryDirectoryService())
    await listing(content, await store(content, {b"a": File(b"x")}))
    assert blobs.reads == []


async def test_a_broken_tree_or_nar_is_not_listed() -> None:
    content = memory()
    with pytest.raises(Incomplete):
        await listing(content, DirectoryNode(EMPTY_DIGEST, 0))
    with pytest.raises(InvalidData, match="64 levels"):
        await listing(content, await store(content, deep(64, File(b""))))
    with pytest.raises(InvalidData):
        await listing_of_nar(source(nar_of(File(b"x"))[:-1]))
    assert await listing(content, FileNode(EMPTY_DIGEST, 0))
