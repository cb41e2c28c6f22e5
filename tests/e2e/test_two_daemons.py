"""A laptop over an office: two daemons of ours that speak gRPC, asked over both fronts."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from grpc import RpcError, StatusCode

from tests.e2e.test_closures import assert_installed, nars_of
from tests.pathinfo.samples import secret_key
from tests.support.caches import make_path
from tests.support.composed import (
    BLOBS,
    bytes_of,
    client_of,
    laptop,
    office,
    put_blob,
    read_blob,
    reading,
    stat_blob,
    stopped,
)
from tests.support.daemon import substituter
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.castore import Digest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.daemon import Daemon
    from tests.support.nix_client import NixClient

# grpcio keeps threads and files for the process.
pytestmark = pytest.mark.may_leave("threads", "files")

MiB = 1 << 20
KEY = secret_key("upstream-1")
PATH = make_path("held", KEY, size=8 * MiB)
SMALL = make_path("small", KEY)


def member(upstream: UpstreamServer) -> dict[str, str | int | bool | list[str]]:
    return substituter(upstream.url, str(KEY.public_key), timeout="30s", stall_timeout="30s")


def serve_path(upstream: UpstreamServer, rest: asyncio.Event | None = None) -> None:
    """Has `upstream` serve `PATH`: until `rest` is set, only 4 MiB of its NAR."""
    upstream.on(PATH.narinfo_target, Reply(body=PATH.text))
    if rest is None:
        upstream.on(PATH.nar_target, Reply(body=PATH.nar))
    else:
        upstream.on(PATH.nar_target, Reply(body=PATH.nar, pause=rest, after=4 * MiB))


async def fills(daemon: Daemon) -> float:
    """How many it began."""
    running = await daemon.metric("tvixstore_fills_running")
    outcomes = ("done", "passed", "failed", "cancelled")
    ended = [await daemon.metric("tvixstore_fills_total", outcome=each) for each in outcomes]
    return running + sum(ended)


async def test_a_closure_comes_through_both_cold_and_warm_with_the_office_gone(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient, second_client: NixClient
) -> None:
    async with UpstreamServer() as upstream:
        upstream.serve_directory(upstreams.of("xz", app))
        far = office(tmp_path, [substituter(upstream.url, upstreams.key)])
        await far.start()
        async with laptop(tmp_path, far) as near:
            await client.copy(near.url, app)
            assert set(nars_of(upstream).values()) == {1}
            await near.settled()
            await far.stop()
            await second_client.copy(near.url, app)
    await assert_installed(upstreams, client, app)
    await assert_installed(upstreams, second_client, app)


async def test_a_warm_office_needs_no_upstream_for_a_cold_laptop(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient, second_client: NixClient
) -> None:
    async with UpstreamServer() as upstream:
        upstream.serve_directory(upstreams.of("zstd", app))
        async with office(tmp_path, [substituter(upstream.url, upstreams.key)]) as far:
            await client.copy(far.url, app)
            await far.settled()
            upstream.otherwise(lambda _: Reply(status=500))
            asked = len(upstream.log)
            async with laptop(tmp_path, far) as near:
                await second_client.realise(near.url, app)
                assert len(upstream.log) == asked
    await assert_installed(upstreams, second_client, app)


async def test_a_narinfo_through_the_laptop_downloads_nothing_at_the_office(tmp_path: Path) -> None:
    async with UpstreamServer() as upstream:
        serve_path(upstream)
        async with office(tmp_path, [member(upstream)]) as far, laptop(tmp_path, far) as near:
            for _ in range(2):
                assert (await near.get(PATH.narinfo_target)).status == 200
            assert await fills(far) == await fills(near) == 0
        assert not nars_of(upstream)


async def test_a_nar_goes_out_while_the_office_still_downloads_it(tmp_path: Path) -> None:
    rest = asyncio.Event()
    async with UpstreamServer() as upstream:
        serve_path(upstream, rest)
        async with office(tmp_path, [member(upstream)]) as far, laptop(tmp_path, far) as near:
            target = await near.nar_target(PATH.digits)
            async with near.session() as session, session.get(target) as response:
                begin = await response.content.readexactly(2 * MiB)
                assert await far.metric("tvixstore_fills_running") == 1
                rest.set()
                assert begin + await response.read() == PATH.nar
        assert len(upstream.seen(PATH.nar_target)) == 1


async def test_what_the_office_lacks_is_absent_and_what_it_cannot_say_is_unknown(
    tmp_path: Path,
) -> None:
    async with UpstreamServer() as upstream:
        far = office(tmp_path, [member(upstream)], negative_ttl="1ms")
        await far.start()
        async with laptop(tmp_path, far) as near:
            assert (await near.get(SMALL.narinfo_target)).status == 404
            upstream.otherwise(lambda _: Reply(status=500))
            assert (await near.get(PATH.narinfo_target)).status == 503
            await far.stop()
            # Said to be absent by nobody who could be asked now.
            for path in (PATH, SMALL):
                assert (await near.get(path.narinfo_target)).status == 503
            async with client_of(near) as client:
                for call in (stat_blob, read_blob):
                    answer = await call(client, Digest.of(b"absent"))
                    assert answer.status is StatusCode.UNAVAILABLE
            serve_path(upstream)
            await far.start()
            assert (await near.get(PATH.narinfo_target)).status == 200
            assert (await near.get(await near.nar_target(PATH.digits))).body == PATH.nar
            await far.stop()


async def test_an_office_that_hangs_is_unknown_until_it_answers_again(tmp_path: Path) -> None:
    async with UpstreamServer() as upstream:
        serve_path(upstream)
        async with (
            office(tmp_path, [member(upstream)]) as far,
            laptop(tmp_path, far, timeout="500ms") as near,
        ):
            assert (await near.get(SMALL.narinfo_target)).status == 404
            async with stopped(far):
                assert (await near.get(PATH.narinfo_target)).status == 503
            assert (await near.get(PATH.narinfo_target)).status == 200
            assert (await near.get(await near.nar_target(PATH.digits))).body == PATH.nar


async def test_what_the_laptop_has_does_not_wait_for_an_office_that_hangs(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3 * MiB)
    async with UpstreamServer() as upstream:
        serve_path(upstream)
        async with (
            office(tmp_path, [member(upstream)]) as far,
            # Longer than anything here is waited for.
            laptop(tmp_path, far, timeout="10m") as near,
            client_of(far) as filling,
            client_of(near) as client,
        ):
            digest = await put_blob(filling, data)
            assert bytes_of(await read_blob(client, digest)) == data
            assert (await near.get(await near.nar_target(PATH.digits))).body == PATH.nar
            await near.settled()
            async with stopped(far):
                assert bytes_of(await read_blob(client, digest)) == data
                assert (await near.get(await near.nar_target(PATH.digits))).body == PATH.nar


async def test_a_nar_breaks_visibly_when_the_office_is_killed_and_comes_whole_the_next_time(
    tmp_path: Path,
) -> None:
    rest = asyncio.Event()
    async with UpstreamServer() as upstream:
        serve_path(upstream, rest)
        far = office(tmp_path, [member(upstream)])
        await far.start()
        async with laptop(tmp_path, far) as near:
            target = await near.nar_target(PATH.digits)
            async with near.session() as session, session.get(target) as response:
                await response.content.readexactly(2 * MiB)
                await far.kill()
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
            await near.settled()
            assert await near.metric("tvixstore_fills_total", outcome="done") == 0
            rest.set()
            await far.start()
            assert (await near.get(target)).body == PATH.nar
            await near.settled()
            await far.stop()
            assert (await near.get(target)).body == PATH.nar


async def test_a_laptop_that_is_killed_in_a_fill_starts_again_without_any_of_it(
    tmp_path: Path,
) -> None:
    rest = asyncio.Event()
    async with UpstreamServer() as upstream:
        serve_path(upstream, rest)
        async with office(tmp_path, [member(upstream)]) as far:
            near = laptop(tmp_path, far)
            await near.start()
            target = await near.nar_target(PATH.digits)
            async with near.session() as session, session.get(target) as response:
                await response.content.readexactly(2 * MiB)
                await near.kill()
            rest.set()
            async with near:
                assert (await near.get(target)).body == PATH.nar


async def test_a_blob_breaks_visibly_when_the_office_is_killed_and_comes_whole_the_next_time(
    tmp_path: Path,
) -> None:
    # More than lies in the windows and queues between three processes.
    data = random.Random(2).randbytes(64 * MiB)
    far = office(tmp_path)
    await far.start()
    async with client_of(far) as filling:
        digest = await put_blob(filling, data)
    async with laptop(tmp_path, far) as near, client_of(near) as client:
        call = client.begin(f"{BLOBS}/Read", [reading(digest)])
        first = await asyncio.to_thread(next, call)
        await far.kill()
        begun = await asyncio.to_thread(_rest_of, call)
        assert data.startswith(first.data + begun)
        assert call.code() is StatusCode.UNAVAILABLE
        assert (await stat_blob(client, digest)).status is StatusCode.UNAVAILABLE
        await far.start()
        assert bytes_of(await read_blob(client, digest)) == data
        await far.stop()
        assert bytes_of(await read_blob(client, digest)) == data


def _rest_of(call: Any) -> bytes:
    """What still comes of a read that is to fail."""
    parts: list[bytes] = []
    with pytest.raises(RpcError):
        parts.extend(reply.data for reply in call)
    return b"".join(parts)
