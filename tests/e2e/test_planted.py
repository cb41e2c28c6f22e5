"""The checks that the other tests rely on do notice: each is shown a bug that was planted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.state import assert_nothing_is_partial, contents_of
from tests.nar.trees import File, nar_of
from tests.support.caches import make_path
from tests.support.daemon import Daemon, substituter
from tests.support.upstream_server import Reply, UpstreamServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

# NARs are not looked at before they are passed on and kept.
BLIND = """
from tvixstore.pathinfo.nix.download import Download
Download._judge = lambda self: None
"""
SIZE = 300_000


async def test_a_daemon_that_does_not_verify_is_found_out(
    tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    path = make_path("forged", upstreams.workshop.secret_key, size=SIZE)
    async with UpstreamServer() as upstream:
        upstream.on(path.narinfo_target, Reply(body=path.text))
        upstream.on(path.nar_target, Reply(body=nar_of(File(bytes(SIZE)))))
        sections = [substituter(upstream.url, upstreams.key)]
        async with Daemon(tmp_path / "tvix", sections, planted=BLIND) as daemon:
            run = await client.copy(daemon.url, path.store_path, check=False)
            assert "hash mismatch" in run.output
            await daemon.settled()
    assert not (await contents_of(daemon.state)).is_empty
    with pytest.raises(AssertionError, match="forged"):
        await assert_nothing_is_partial(daemon.state)


async def test_a_state_that_lost_a_piece_is_found_out(tmp_path: Path, upstreams: Upstreams) -> None:
    path = make_path("maimed", upstreams.workshop.secret_key, size=SIZE)
    async with UpstreamServer() as upstream:
        upstream.on(path.narinfo_target, Reply(body=path.text))
        upstream.on(path.nar_target, Reply(body=path.nar))
        async with Daemon(tmp_path, [substituter(upstream.url, upstreams.key)]) as daemon:
            await daemon.get(await daemon.nar_target(path.digits))
            await daemon.settled()
    assert await assert_nothing_is_partial(daemon.state) == [path.store_path]
    next(file for file in (daemon.state / "chunks").rglob("*") if file.is_file()).unlink()
    with pytest.raises(Exception, match="chunk"):
        await assert_nothing_is_partial(daemon.state)
