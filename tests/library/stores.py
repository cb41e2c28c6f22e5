"""Compositions for programs, and store paths to put into them."""

from __future__ import annotations

from tests.pathinfo.samples import TRUSTED, Sample, Tree, add
from tvixstore import Store
from tvixstore.tree import Content

MEMORY = """
[blobservices.root]
type = "memory"
[directoryservices.root]
type = "memory"
[pathinfoservices.root]
type = "memory"
"""

LOCAL = MEMORY.replace('"memory"', '"local"\npath = "./state"')

TREE: Tree = {
    b"bin": {b"hello": b"#!/bin/sh\necho hello\n", b"hi": (b"hello",)},
    b"share": {b"large": bytes(range(256)) * 4000, b"\xff": b"not UTF-8"},
    b"escape": (b"/nix/store/elsewhere",),
}


def content_of(store: Store) -> Content:
    return Content(store.blobs, store.directories)


async def put(store: Store, name: str = "hello", tree: Tree = TREE, *below: Sample) -> Sample:
    """Stores a signed path with that tree, which refers to the paths `below`."""
    references = [sample.info.store_path for sample in below]
    sample = await add(content_of(store), name, tree, references=references, signers=[TRUSTED])
    await store.path_infos.put(sample.info)
    return sample
