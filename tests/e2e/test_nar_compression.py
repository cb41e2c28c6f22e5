"""The real client takes NARs that are compressed as they go out, and none that break off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.caches import assert_same_tree, make_path
from tests.support.daemon import Daemon, substituter
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.nix import NarInfo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient


async def test_a_closure_comes_compressed_cold_and_warm(
    tmp_path: Path,
    upstreams: Upstreams,
    app: str,
    client: NixClient,
    second_client: NixClient,
) -> None:
    async with UpstreamServer() as upstream:
        upstream.serve_directory(upstreams.of("xz", app))
        section = substituter(upstream.url, upstreams.key)
        settings = {"nar_compression": "zstd"}
        async with Daemon(tmp_path / "tvix", [section], daemon=settings) as daemon:
            await client.realise(daemon.url, app)
            await daemon.settled()
            upstream.otherwise(lambda _: Reply(status=500))
            answer = await daemon.get(f"/{app[11:43]}.narinfo")
            await second_client.copy(daemon.url, app)
    narinfo = NarInfo.parse(answer.body.decode())
    assert (narinfo.compression, narinfo.file_hash, narinfo.file_size) == ("zstd", None, None)
    for one in (client, second_client):
        for path in upstreams.workshop.closure(app):
            assert_same_tree(upstreams.workshop.original(path), one.path(path))
        await one.verify()


async def test_another_daemon_takes_them_as_it_takes_any(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient
) -> None:
    folder = upstreams.of("xz", app)
    inner = Daemon(
        tmp_path / "inner",
        [substituter(f"file://{folder}", upstreams.key)],
        daemon={"nar_compression": "zstd"},
    )
    async with inner:
        section = substituter(inner.url, upstreams.key)
        async with Daemon(tmp_path / "outer", [section]) as outer:
            await client.copy(outer.url, app)
            assert outer.events("fill.failed") == outer.events("upstream.rejected") == []
    await client.verify()


async def test_a_body_that_breaks_off_installs_nothing_and_is_not_taken_for_whole(
    tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    path = make_path("broken", upstreams.workshop.secret_key, size=3 << 20)
    async with UpstreamServer() as upstream:
        upstream.on(path.narinfo_target, Reply(body=path.text))
        upstream.on(path.nar_target, Reply(body=path.nar, end="reset", after=2 << 20))
        section = substituter(upstream.url, upstreams.key, retries=0)
        settings = {"nar_compression": "zstd"}
        async with Daemon(tmp_path / "tvix", [section], daemon=settings) as daemon:
            finished = await client.copy(daemon.url, path.store_path, check=False)
            await daemon.logged("request.broken_off")
            assert finished.code != 0, finished.output
            assert not await client.is_valid(path.store_path)
            # The same client, as soon as there is a whole one.
            upstream.on(path.nar_target, Reply(body=path.nar))
            client.forget_narinfos()
            await client.copy(daemon.url, path.store_path)
    await client.verify()
