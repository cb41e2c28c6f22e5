"""Rows about content lie where the content does, and not where the daemon's state is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.extras.test_documents import ID, realisation
from tvixstore.castore import FileNode
from tvixstore.compose import load_text
from tvixstore.compose.composition import Composition
from tvixstore.extras import ExtraName
from tvixstore.kv import LmdbEngine
from tvixstore.pathinfo.upload_rows import Upload

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = """
[daemon]
state = "./state"
[blobservices.root]
type = "cache"
near = "disk"
far = "far"
[blobservices.far]
type = "memory"
[blobservices.disk]
type = "local"
path = "./content"
[directoryservices.root]
type = "verify"
inner = "disk"
[directoryservices.disk]
type = "local"
path = "./content"
[pathinfoservices.root]
type = "local"
path = "./content"
"""
MEMORY = """
[daemon]
state = "./state"
[blobservices.root]
type = "memory"
[directoryservices.root]
type = "memory"
[pathinfoservices.root]
type = "memory"
"""


async def _open(text: str, folder: Path) -> Composition:
    return await Composition.open(load_text(text, "compose.toml", folder, {}))


async def _put(composition: Composition) -> None:
    node = FileNode(await composition.content.blobs.put(b"data"), 4)
    upload = Upload(
        node=node, nar_sha256=bytes(32), nar_size=1, compression="none",
        file_sha256=bytes(32), file_size=1,
    )  # fmt: skip
    await composition.inbox.uploads.add("x.nar", upload)
    await composition.extras.put_document(ExtraName.realisation(ID), realisation("x"))


async def _rows(state: Path, name: str) -> int:
    engine = LmdbEngine(state / "index")
    try:
        return len(await engine.table(name).scan())
    finally:
        await engine.aclose()


async def test_rows_are_counted_in_the_store_that_has_their_content(tmp_path: Path) -> None:
    async with await _open(LOCAL, tmp_path) as composition:
        await _put(composition)
    for table in ("uploads", "extras", "roots"):
        assert await _rows(tmp_path / "content", table)
        assert not await _rows(tmp_path / "state", table)


async def test_what_is_in_memory_alone_is_not_told_to_be_here_after_a_restart(
    tmp_path: Path,
) -> None:
    async with await _open(MEMORY, tmp_path) as composition:
        await _put(composition)
        assert await composition.inbox.uploads.may_skip("x.nar") is not None
    async with await _open(MEMORY, tmp_path) as composition:
        assert await composition.inbox.uploads.may_skip("x.nar") is None
        assert await composition.extras.find(ExtraName.realisation(ID)) is None
