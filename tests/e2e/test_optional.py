"""An optional substituter that is down: builds go on, it is left alone, and the answer names it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.e2e.conftest import EXPRESSION
from tests.support.caches import files_of, make_path
from tests.support.daemon import Daemon, substituter
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.upstream_server import Reply, Seen, UpstreamServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

ABSENT = "0" * 32


async def test_a_derivation_is_built_beside_a_dead_optional_member(
    tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    (leaf,) = upstreams.workshop.build(EXPRESSION, "leaf")
    async with UpstreamServer() as main, UpstreamServer() as community:
        main.serve_directory(upstreams.of("xz", leaf))
        community.otherwise(lambda _: Reply(status=500))
        substituters = [
            substituter(main.url, upstreams.key, name="main"),
            substituter(community.url, upstreams.key, name="community", optional=True),
        ]
        async with Daemon(tmp_path / "tvix", substituters) as daemon:
            # What it needs comes from the cache; itself nobody has.
            run = await client.build(daemon.url, EXPRESSION, "local")
            built = run.output.split()[-1]
            assert client.path(built).read_text() == f"built from {leaf}\n"
            assert main.log
            # The first lookup found out that it is dead, with one attempt and its retry; since
            # then nobody has asked it anything.
            asked = len(community.log)
            assert 0 < asked <= 2 * len({seen.path for seen in community.log})
            answer = await daemon.get(f"/{ABSENT}.narinfo")
            assert (answer.status, answer.headers["X-Tvix-Skipped"]) == (404, "community")
            assert len(community.log) == asked
            # Said once an outage.
            assert len(daemon.events("upstream.down")) == 1
    assert client.has(leaf)


async def test_the_lookup_that_finds_it_dead_is_answered_and_the_next_asks_it_nothing(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    async with UpstreamServer() as main, FaultProxy(main.port) as dead:
        dead.arm(f"/{ABSENT}.narinfo", Fault("refused"))
        substituters = [
            substituter(main.url, upstreams.key, name="main"),
            substituter(dead.url, upstreams.key, name="dead", optional=True),
        ]
        async with Daemon(tmp_path, substituters) as daemon:
            answer = await daemon.get(f"/{ABSENT}.narinfo")
            assert (answer.status, answer.headers["X-Tvix-Skipped"]) == (404, "dead")
            assert answer.headers["Cache-Control"] == "no-store"
            assert dead.hits
            await dead.disarm()
            asked = len(dead.log)
            answer = await daemon.get(f"/{'1' * 32}.narinfo")
            assert (answer.status, answer.headers["X-Tvix-Skipped"]) == (404, "dead")
            assert len(dead.log) == asked
            ready = json.loads((await daemon.get("/readyz")).body)
            states = {one["name"]: one["state"] for one in ready["substituters"]}
            assert states == {"main": "up", "dead": "down"}


async def test_what_was_skipped_is_never_remembered_as_absent(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    path = make_path("late-to-come", upstreams.workshop.secret_key)
    files = files_of([path])

    def serve(seen: Seen) -> Reply:
        return Reply(body=files[seen.path]) if seen.path in files else Reply(status=404)

    async with UpstreamServer() as main, UpstreamServer() as community:
        community.otherwise(lambda _: Reply(status=503))
        substituters = [
            substituter(main.url, upstreams.key, name="main"),
            substituter(
                community.url, upstreams.key, name="community", optional=True, breaker_open="50ms"
            ),
        ]
        async with Daemon(tmp_path, substituters) as daemon:
            assert (await daemon.get(path.narinfo_target)).status == 404
            assert community.log
            community.otherwise(serve)
            # Its breaker lets the next one through in a moment.
            while (await daemon.get(path.narinfo_target)).status == 404:
                pass
            assert (await daemon.get(path.narinfo_target)).status == 200


async def test_a_dead_optional_member_alone_is_no_answer(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    async with UpstreamServer() as community:
        community.otherwise(lambda _: Reply(status=500))
        sections = [substituter(community.url, upstreams.key, optional=True)]
        async with Daemon(tmp_path, sections) as daemon:
            for _ in range(2):
                assert (await daemon.get(f"/{ABSENT}.narinfo")).status == 503
        assert community.log


async def test_a_dead_member_that_is_not_optional_makes_absence_unknown(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    async with UpstreamServer() as main, UpstreamServer() as dead:
        dead.otherwise(lambda _: Reply(status=500))
        substituters = [
            substituter(main.url, upstreams.key, name="main"),
            substituter(dead.url, upstreams.key, name="dead"),
        ]
        async with Daemon(tmp_path, substituters) as daemon:
            answer = await daemon.get(f"/{ABSENT}.narinfo")
            assert answer.status == 503
            assert b"dead" in answer.body
            assert "X-Tvix-Skipped" not in answer.headers
        assert dead.log
