"""What a state directory holds when no daemon runs on it: read by the package's own engine."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvixstore.blob import LocalBlobService
from tvixstore.castore import Digest, DirectoryNode, FileNode
from tvixstore.directory import LocalDirectoryService
from tvixstore.kv.lmdb import LmdbEngine
from tvixstore.nar import render
from tvixstore.pathinfo import LocalPathInfoService
from tvixstore.pools import Pools
from tvixstore.tree import Content

if TYPE_CHECKING:
    from pathlib import Path

    from tvixstore.kv import KeyValue

TABLES = ("blobs", "chunks", "directories", "pathinfos")


@dataclass(frozen=True, slots=True)
class Contents:
    """How many rows each table has, and how many files there are."""

    rows: dict[str, int]
    chunk_files: int
    spool_files: int

    @property
    def is_empty(self) -> bool:
        return not any(self.rows.values()) and not self.chunk_files and not self.spool_files


async def contents_of(state: Path) -> Contents:
    engine = LmdbEngine(state / "index")
    try:
        rows = {name: len(await _keys(engine.table(name))) for name in TABLES}
    finally:
        await engine.aclose()
    return Contents(rows, _files_below(state / "chunks"), _files_below(state / "spool"))


async def assert_nothing_is_partial(state: Path) -> list[str]:
    """Whatever can be seen is whole, down to the last byte. Returns the store paths there are."""
    engine = LmdbEngine(state / "index")
    pools = Pools()
    try:
        blobs = LocalBlobService(engine.table("blobs"), engine.table("chunks"), state, pools)
        directories = LocalDirectoryService(engine.table("directories"))
        content = Content(blobs, directories)
        for name in ("chunks", "blobs"):
            for key in await _keys(engine.table(name)):
                # A whole blob is verified as it is read.
                assert await blobs.read(Digest(key)) is not None, key.hex()
        for key in await _keys(engine.table("directories")):
            await _assert_children_are_there(content, Digest(key))
        infos = LocalPathInfoService(engine.table("pathinfos"), content)
        found = []
        for info in [info async for info in infos.list()]:
            nar = await render(content, info.node).read_all()
            assert hashlib.sha256(nar).digest() == info.nar_sha256, info.store_path
            found.append(str(info.store_path))
        assert not blobs.dropped_chunks
        return found
    finally:
        await engine.aclose()
        pools.close()


async def _assert_children_are_there(content: Content, digest: Digest) -> None:
    directory = await content.directories.get(digest)
    assert directory is not None
    for _, node in directory:
        match node:
            case DirectoryNode(digest=child):
                assert await content.directories.get(child) is not None, f"{digest} lacks {child}"
            case FileNode(digest=child):
                assert await content.blobs.has(child), f"{digest} lacks {child}"


async def _keys(table: KeyValue) -> list[bytes]:
    keys: list[bytes] = []
    while page := await table.scan(after=keys[-1] if keys else None):
        keys += [key for key, _ in page]
    return keys


def _files_below(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
