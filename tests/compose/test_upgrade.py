"""A state of the version before references were counted is taken over, whenever that is killed."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from tests.evict.disk import problems_of
from tests.evict.stores import info_of
from tests.nar.trees import File, nar_of
from tvixstore import nar
from tvixstore.blob import LocalBlobService
from tvixstore.compose import load_text
from tvixstore.compose.composition import Composition
from tvixstore.directory import LocalDirectoryService
from tvixstore.errors import ConfigError
from tvixstore.kv import LmdbEngine, StateDirectory
from tvixstore.pathinfo import LocalPathInfoService
from tvixstore.pools import Pools
from tvixstore.streams import BytesStream
from tvixstore.tree import Content

OLD, NEW = "tvixstore state, version 1\n", "tvixstore state, version 2\n"
TREE = nar_of(
    {
        b"large": File(random.Random(1).randbytes(1_000_000)),
        b"folder": {b"file": File(random.Random(2).randbytes(90_000)), b"small": File(b"small")},
    }
)


async def old_state(path: Path) -> bytes:
    """As that version left it; the hash of the path in it."""
    pools = Pools()
    state = StateDirectory(path)
    engine = LmdbEngine(state.index)
    try:
        content = Content(
            LocalBlobService(engine.table("blobs"), engine.table("chunks"), path, pools),
            LocalDirectoryService(engine.table("directories")),
        )
        node = await nar.ingest(content, BytesStream(TREE), pools=pools)
        info = info_of("old", TREE, node)
        await LocalPathInfoService(engine.table("pathinfos")).put(info)
        await content.blobs.put(b"nobody refers to this")
    finally:
        await engine.aclose()
        state.close()
        pools.close()
    (path / "format").write_text(OLD)
    return info.store_path.hash


async def test_an_old_state_is_counted_and_serves_what_it_has(tmp_path: Path) -> None:
    path_hash = await old_state(tmp_path / "state")
    config = load_text('[store]\nmin_free = "0"\n', "compose.toml", tmp_path)
    async with await Composition.open(config) as composition:
        assert (tmp_path / "state" / "format").read_text() == NEW
        info = await composition.path_infos.get(path_hash)
        assert info is not None
        stream = await composition.path_infos.open_nar(info)
        assert stream is not None
        digest = hashlib.sha256(await stream.read_all()).digest()
        assert digest == info.nar_sha256
    assert await problems_of(tmp_path / "state") == []


async def test_an_upgrade_that_fails_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await old_state(tmp_path / "state")
    config = load_text('[store]\nmin_free = "0"\n', "compose.toml", tmp_path)

    def broken(self: StateDirectory) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(StateDirectory, "is_current", broken)
        with pytest.raises(ConfigError, match="make room"):
            await Composition.open(config)
    assert (tmp_path / "state" / "format").read_text() == OLD
    async with await Composition.open(config):
        assert (tmp_path / "state" / "format").read_text() == NEW
    assert await problems_of(tmp_path / "state") == []
