"""Whole closures through the daemon into a Nix store: cold, warm, and with upstream gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.caches import assert_same_tree, files_of, make_path
from tests.support.daemon import Daemon, substituter
from tests.support.upstream_server import Reply, Seen, UpstreamServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

# lzip and Unix compress are what Nix writes besides, and what nobody uses.
COMPRESSIONS = ("none", "xz", "zstd", "bzip2", "gzip", "br", "lz4", "lzma")


def nars_of(upstream: UpstreamServer) -> Counter[str]:
    """How often each NAR was asked for."""
    return Counter(seen.path for seen in upstream.log if seen.path.startswith("/nar/"))


async def assert_installed(upstreams: Upstreams, client: NixClient, store_path: str) -> None:
    """The whole closure is there, byte by byte what was built, and Nix has nothing to object."""
    for path in upstreams.workshop.closure(store_path):
        assert_same_tree(upstreams.workshop.original(path), client.path(path))
    await client.verify()


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_a_closure_comes_cold_and_then_with_upstream_gone(
    compression: str,
    tmp_path: Path,
    upstreams: Upstreams,
    app: str,
    client: NixClient,
    second_client: NixClient,
) -> None:
    async with UpstreamServer() as upstream:
        upstream.serve_directory(upstreams.of(compression, app))
        async with Daemon(tmp_path / "tvix", [substituter(upstream.url, upstreams.key)]) as daemon:
            await client.copy(daemon.url, app)
            assert set(nars_of(upstream).values()) == {1}
            await daemon.settled()
            asked = len(upstream.log)

            upstream.otherwise(lambda _: Reply(status=500))
            await second_client.copy(daemon.url, app)
            assert len(upstream.log) == asked
            assert daemon.events("fill.failed") == []
    await assert_installed(upstreams, client, app)
    await assert_installed(upstreams, second_client, app)


async def test_a_store_serves_after_a_restart_without_any_upstream_reachable(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient, second_client: NixClient
) -> None:
    daemon: Daemon
    async with UpstreamServer() as upstream:
        upstream.serve_directory(upstreams.of("zstd", app))
        daemon = Daemon(tmp_path / "tvix", [substituter(upstream.url, upstreams.key)])
        async with daemon:
            await client.realise(daemon.url, app)
            await daemon.settled()
    async with daemon:
        await second_client.realise(daemon.url, app)
    await assert_installed(upstreams, client, app)
    await assert_installed(upstreams, second_client, app)


async def test_a_path_of_60_mb_comes_through_and_stays(
    tmp_path: Path, upstreams: Upstreams, big: str, client: NixClient, second_client: NixClient
) -> None:
    async with UpstreamServer() as upstream:
        upstream.serve_directory(upstreams.of("zstd", big))
        async with Daemon(tmp_path / "tvix", [substituter(upstream.url, upstreams.key)]) as daemon:
            await client.copy(daemon.url, big)
            await daemon.settled()
            upstream.otherwise(lambda _: Reply(status=500))
            await second_client.copy(daemon.url, big)
    await assert_installed(upstreams, client, big)
    await assert_installed(upstreams, second_client, big)


async def test_sixty_paths_come_sixteen_at_a_time(
    tmp_path: Path, upstreams: Upstreams, many: str, client: NixClient
) -> None:
    async with UpstreamServer() as upstream:
        upstream.serve_directory(upstreams.of("xz", many))
        async with Daemon(tmp_path / "tvix", [substituter(upstream.url, upstreams.key)]) as daemon:
            await client.realise(daemon.url, many, jobs=16)
            assert len(nars_of(upstream)) == 61
            assert set(nars_of(upstream).values()) == {1}
    await assert_installed(upstreams, client, many)


async def test_two_clients_at_once_download_each_nar_once(
    tmp_path: Path,
    upstreams: Upstreams,
    many: str,
    client: NixClient,
    second_client: NixClient,
) -> None:
    async with UpstreamServer() as upstream:
        upstream.serve_directory(upstreams.of("xz", many))
        async with Daemon(tmp_path / "tvix", [substituter(upstream.url, upstreams.key)]) as daemon:
            await asyncio.gather(
                client.realise(daemon.url, many, jobs=8),
                second_client.realise(daemon.url, many, jobs=8),
            )
            assert set(nars_of(upstream).values()) == {1}
            assert len(nars_of(upstream)) == 61
    await assert_installed(upstreams, client, many)
    await assert_installed(upstreams, second_client, many)


async def test_whoever_comes_while_a_nar_is_downloaded_follows_that_download(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    path = make_path("followed", upstreams.workshop.secret_key, size=3 << 20)
    rest = asyncio.Event()
    async with UpstreamServer() as upstream:
        upstream.on(path.narinfo_target, Reply(body=path.text))
        upstream.on(path.nar_target, Reply(body=path.nar, pause=rest, after=2 << 20))
        async with Daemon(tmp_path / "tvix", [substituter(upstream.url, upstreams.key)]) as daemon:
            target = await daemon.nar_target(path.digits)
            async with daemon.session() as session:
                bodies = [await session.get(target) for _ in range(2)]
                first = [await body.content.readexactly(1 << 20) for body in bodies]
                rest.set()
                for begin, body in zip(first, bodies, strict=True):
                    assert begin + await body.read() == path.nar
        assert len(upstream.seen(path.nar_target)) == 1


@pytest.mark.timeout(600)
async def test_two_thousand_paths_come_through(
    tmp_path: Path, upstreams: Upstreams, client: NixClient, second_client: NixClient
) -> None:
    key = upstreams.workshop.secret_key
    leaves = [make_path(f"leaf-{number}", key, size=3000) for number in range(2000)]
    references = [leaf.narinfo.store_path for leaf in leaves]
    top = make_path("top", key, references=references)
    files = files_of([*leaves, top])

    def serve(seen: Seen) -> Reply:
        return Reply(body=files[seen.path]) if seen.path in files else Reply(status=404)

    async with UpstreamServer() as upstream:
        upstream.otherwise(serve)
        async with Daemon(tmp_path / "tvix", [substituter(upstream.url, upstreams.key)]) as daemon:
            await client.realise(daemon.url, top.store_path, jobs=16)
            await daemon.settled()
            assert set(nars_of(upstream).values()) == {1}
            upstream.otherwise(lambda _: Reply(status=500))
            await second_client.copy(daemon.url, top.store_path)
    for one in (client, second_client):
        assert one.has(*(leaf.store_path for leaf in leaves))
        await one.verify()
