"""A disk without room: clients succeed, one line tells of it, and things are kept again later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.e2e.state import assert_nothing_is_partial
from tests.support.caches import MadePath, files_of, make_path
from tests.support.daemon import Daemon, substituter
from tests.support.nix_client import NixClient
from tests.support.small_disk import fill, small_disk
from tests.support.upstream_server import Reply, Seen, UpstreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Upstreams

# What is left of the disk when things begin to come.
LEFT = 3 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The root of a small file system of its own."""
    with small_disk(tmp_path, megabytes=48) as path:
        yield path


@pytest.fixture
def paths(upstreams: Upstreams) -> list[MadePath]:
    """Eight, of 3 MB each."""
    key = upstreams.workshop.secret_key
    return [make_path(f"weighty-{number}", key, size=3 << 20) for number in range(8)]


@pytest.fixture
def files(paths: list[MadePath]) -> dict[str, bytes]:
    return files_of(paths)


def serve(upstream: UpstreamServer, files: dict[str, bytes]) -> None:
    def script(seen: Seen) -> Reply:
        return Reply(body=files[seen.path]) if seen.path in files else Reply(status=404)

    upstream.otherwise(script)


def complaints(daemon: Daemon) -> list[str]:
    return [line for line in daemon.lines if '"level": "info"' not in line]


@pytest.mark.parametrize("min_free", ["0", "2MiB"], ids=["out of space", "below min_free"])
async def test_a_full_disk_is_survived_and_room_is_used_when_it_returns(
    min_free: str,
    disk: Path,
    tmp_path: Path,
    upstreams: Upstreams,
    paths: list[MadePath],
    files: dict[str, bytes],
    client: NixClient,
) -> None:
    store_paths = [path.store_path for path in paths]
    async with UpstreamServer() as upstream:
        serve(upstream, files)
        daemon = Daemon(
            tmp_path / "tvix",
            [substituter(upstream.url, upstreams.key)],
            daemon={"state": str(disk / "state")},
            store={"min_free": min_free},
        )
        async with daemon:
            ballast = fill(disk, leave=LEFT)
            await client.copy(daemon.url, *store_paths)
            assert all(upstream.seen(path.nar_target) for path in paths)
            await daemon.settled()
            # The fault happened: not all of them found room.
            asked = len(upstream.log)
            second = NixClient(tmp_path / "second", upstreams.key)
            await second.copy(daemon.url, *store_paths)
            assert any(seen.path.startswith("/nar/") for seen in upstream.log[asked:])
            assert len(complaints(daemon)) == 1, "\n".join(complaints(daemon))

            ballast.unlink()
            await _kept_again(daemon, upstream, paths)
            assert len(complaints(daemon)) == 1, "\n".join(complaints(daemon))
            upstream.otherwise(lambda _: Reply(status=500))
            third = NixClient(tmp_path / "third", upstreams.key)
            await third.copy(daemon.url, *store_paths)
    for one in (client, second, third):
        await one.verify()
    found = await assert_nothing_is_partial(disk / "state")
    assert sorted(found) == sorted(store_paths)


async def _kept_again(daemon: Daemon, upstream: UpstreamServer, paths: list[MadePath]) -> None:
    """Fetches all of them until nothing is asked of the upstream any more."""
    for _ in range(200):
        asked = len(upstream.log)
        for path in paths:
            answer = await daemon.get(await daemon.nar_target(path.digits))
            assert answer.body == path.nar
        await daemon.settled()
        if len(upstream.log) == asked:
            return
    raise AssertionError("it keeps nothing")


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(0, id="none left"),
        pytest.param(4 << 20, id="some left", marks=pytest.mark.slow),
        pytest.param(16 << 20, id="enough for one copy"),
    ],
)
async def test_room_that_vanishes_in_the_midst_of_a_nar_costs_nobody_anything(
    leave: int, disk: Path, tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    path = make_path("in-the-midst", upstreams.workshop.secret_key, size=12 << 20)
    rest = asyncio.Event()
    async with UpstreamServer() as upstream:
        upstream.on(path.narinfo_target, Reply(body=path.text))
        upstream.on(path.nar_target, Reply(body=path.nar, pause=rest, after=2 << 20))
        daemon = Daemon(
            tmp_path / "tvix",
            [substituter(upstream.url, upstreams.key, stall_timeout="20s")],
            daemon={"state": str(disk / "state")},
            store={"min_free": "0"},
        )
        async with daemon:
            copying = asyncio.create_task(client.copy(daemon.url, path.store_path))
            await upstream.requested(path.nar_target)
            ballast = fill(disk, leave=leave)
            rest.set()
            await copying
            await daemon.settled()
            assert len(complaints(daemon)) == 1, "\n".join(complaints(daemon))
            assert len(upstream.seen(path.nar_target)) == 1

            ballast.unlink()
            await _kept_again(daemon, upstream, [path])
    await client.verify()
    assert await assert_nothing_is_partial(disk / "state") == [path.store_path]


async def test_what_the_store_could_never_hold_passes_through(
    tmp_path: Path,
    upstreams: Upstreams,
    paths: list[MadePath],
    files: dict[str, bytes],
    client: NixClient,
) -> None:
    async with UpstreamServer() as upstream:
        serve(upstream, files)
        daemon = Daemon(
            tmp_path / "tvix",
            [substituter(upstream.url, upstreams.key)],
            store={"max_size": "2MiB"},
        )
        async with daemon:
            await client.copy(daemon.url, *(path.store_path for path in paths))
            await daemon.settled()
            assert len(complaints(daemon)) == 1, "\n".join(complaints(daemon))
    await client.verify()
    assert await assert_nothing_is_partial(daemon.state) == []
