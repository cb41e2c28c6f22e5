"""`.ls`, of what is here and of what cannot be kept."""

from __future__ import annotations

import json

import pytest

from tests.http.support import (
    ABSENT,
    DescribedPaths,
    ScriptedStream,
    Store,
    client_of,
    description_of,
    front_of,
    store_path,
)
from tvixstore.castore import Directory, DirectoryNode, SymlinkNode
from tvixstore.errors import (
    Incomplete,
    StorageFull,
    StoreError,
)
from tvixstore.pathinfo import PathInfo


async def test_a_listing_of_content_that_is_here() -> None:
    store = await Store.filled()
    async with client_of(front_of(store.path_infos, store.content)) as client:
        reply = await client.get(f"/{store.path.digits}.ls")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    root = json.loads(reply.body)["root"]
    tool = root["entries"]["bin"]["entries"]["tool"]
    assert tool["executable"] is True
    assert store.path.nar[tool["narOffset"] :].startswith(b"#!/bin/sh")
    assert root["entries"]["link"] == {"type": "symlink", "target": "bin/tool"}


@pytest.mark.parametrize(
    "error", [StorageFull("no room"), Incomplete("gone", bytes(32))], ids=["full", "gone"]
)
async def test_a_listing_of_what_cannot_be_kept_is_made_from_the_nar(error: StoreError) -> None:
    store = await Store.filled()
    stream = ScriptedStream(store.path.nar[:1000], store.path.nar[1000:])

    class Full(DescribedPaths):
        async def get(self, path_hash: bytes) -> PathInfo | None:
            raise error

    full = Full(description_of(store.path), stream)
    async with client_of(front_of(store.path_infos, store.content)) as client:
        warm = await client.get(f"/{store.path.digits}.ls")
    async with client_of(front_of(full)) as client:
        cold = await client.get(f"/{store.path.digits}.ls")
        none = await client.get(f"/{ABSENT}.ls")
    assert cold.status == 200
    assert cold.body == warm.body
    assert none.status == 404
    assert stream.closed.is_set()


async def test_a_path_with_names_that_are_not_utf8_has_no_listing() -> None:
    store = await Store.filled()
    directory = Directory.of([(b"\xff", SymlinkNode(b"a"))])
    await store.content.directories.put(directory)
    node = DirectoryNode(directory.digest, directory.size)
    path = await store_path(store.path_infos, store.content, "odd", node)
    async with client_of(front_of(store.path_infos, store.content)) as client:
        reply = await client.get(f"/{path.digits}.ls")
        nar = await client.get(path.by_hash)
    assert reply.status == 404
    assert "UTF-8" in reply.text
    assert nar.body == path.nar
