"""Every way in which an upstream breaks, where in the exchange it may, beside a healthy one or not.

Three daemons live as long as the module: the faulty upstream is the first choice of all. One has
nothing else, one falls back to a healthy one, and one asks both together. Each case has a path of
its own, so that no case knows of the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import aiohttp
import pytest
import pytest_asyncio

from tests.support.caches import MadePath, files_of, make_path
from tests.support.daemon import Daemon, Value, substituter
from tests.support.fault_proxy import KINDS, Fault, FaultProxy, Kind
from tests.support.upstream_server import Reply, Seen, UpstreamServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

# The daemons and what is between them and the upstreams keep connections from one test to another.
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.may_leave("files", "threads"),
]

Place = Literal["narinfo", "small nar", "early in the nar", "late in the nar", "at the nar's end"]
# The size of the NAR's one file, and after how many bytes of the body the fault strikes.
PLACES: dict[Place, tuple[int, int]] = {
    "narinfo": (1_000, 60),
    "small nar": (20_000, 10_000),
    "early in the nar": (300_000, 1_000),
    "late in the nar": (300_000, 220_000),
    # Held back until the whole is verified.
    "at the nar's end": (300_000, 290_000),
}
VERIFY_AHEAD = 64 << 10
# What an HTTP status or a closed port says instead of an answer, it says before the first byte.
INSTEAD: tuple[Kind, ...] = ("refused", "500", "503", "403", "404", "html")

# At the end only what looks like an end is of interest.
CASES = [
    (kind, place)
    for kind in KINDS
    for place in PLACES
    if place != "at the nar's end" or kind in ("close", "corrupt", "truncate")
]
# Of a class that is asked together it is enough to see some of each sort.
RACES: list[tuple[Kind, Place]] = [
    (kind, place)
    for kind in ("refused", "reset", "stall", "truncate", "503", "404", "html")
    for place in ("narinfo", "late in the nar")
]


class Scene:
    """The upstreams, and the daemons in front of them."""

    def __init__(self, upstreams: Upstreams) -> None:
        self.key = upstreams.key
        self.paths = {
            (kind, place, beside): make_path(
                f"{kind}-{place}-{beside}".replace(" ", "-").replace("'", ""),
                upstreams.workshop.secret_key,
                size=PLACES[place][0],
            )
            for kind, place in CASES
            for beside in ("a-healthy-one", "a-rival", "nobody")
        }
        self.files = files_of(self.paths.values())
        self.nars = {path.narinfo_target: path.nar_target for path in self.paths.values()}
        self.beside_a_healthy_one: Daemon
        self.beside_a_rival: Daemon
        self.alone: Daemon
        self.proxy: FaultProxy

    def serve(self, seen: Seen) -> Reply:
        if seen.path not in self.files:
            return Reply(status=404)
        etag = f'"{len(seen.path)}-{seen.path[1:33]}"'
        return Reply(body=self.files[seen.path], headers={"ETag": etag}, ranges=True)

    def serve_as_rival(self, seen: Seen) -> Reply:
        """As healthy as can be, and yet it loses each race to one whose NAR is going to break."""
        reply = self.serve(seen)
        if seen.path in self.proxy.armed:
            # A race is over with its first winner: the other one has to have been hit by then.
            return replace(reply, before=self.proxy.struck(seen.path))
        nar = self.nars.get(seen.path)
        if nar in self.proxy.armed and nar not in dict(self.proxy.hits):
            return replace(reply, before=asyncio.Event())
        return reply

    def strike(self, path: MadePath, kind: Kind, place: Place) -> str:
        """Arms the fault, and returns the target that it is armed for."""
        target = path.narinfo_target if place == "narinfo" else path.nar_target
        after = 0 if place == "narinfo" and kind in INSTEAD else PLACES[place][1]
        self.proxy.arm(target, Fault(kind, after))
        return target


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(
    upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    scene = Scene(upstreams)
    settings: dict[str, Value] = {"verify_ahead": VERIFY_AHEAD, "lookup_timeout": "6s"}
    async with (
        UpstreamServer() as server,
        UpstreamServer() as rival,
        FaultProxy(server.port) as proxy,
    ):
        server.otherwise(scene.serve)
        rival.otherwise(scene.serve_as_rival)
        scene.proxy = proxy
        faulty = substituter(
            proxy.url,
            scene.key,
            name="faulty",
            priority=10,
            # One that is set aside for its failures would not show the next one.
            breaker_failures=1_000_000,
            timeout="800ms",
            stall_timeout="800ms",
        )
        healthy = substituter(server.url, scene.key, name="healthy", priority=20)
        equal = substituter(rival.url, scene.key, name="rival", priority=10, timeout="5s")
        folder = tmp_path_factory.mktemp("faults")
        async with (
            Daemon(folder / "both", [faulty, healthy], daemon=settings) as both,
            Daemon(folder / "race", [faulty, equal], daemon=settings) as race,
            Daemon(folder / "alone", [faulty], daemon=settings) as alone,
        ):
            scene.beside_a_healthy_one, scene.beside_a_rival, scene.alone = both, race, alone
            yield scene


@pytest.mark.parametrize(("kind", "place"), CASES)
async def test_beside_a_healthy_member_the_path_is_installed(
    kind: Kind, place: Place, scene: Scene, client: NixClient
) -> None:
    path = scene.paths[kind, place, "a-healthy-one"]
    target = scene.strike(path, kind, place)
    url = scene.beside_a_healthy_one.url
    try:
        run = await client.realise(url, path.store_path, check=False)
    finally:
        await scene.proxy.disarm()
    assert (target, kind) in scene.proxy.hits
    if kind == "corrupt" and place in ("early in the nar", "late in the nar"):
        # Bytes went out before anybody could know that they were wrong. Nix finds that out, and
        # the next run has the healthy member's.
        assert run.code != 0, run.output
        run = await client.realise(url, path.store_path, check=False)
    assert run.code == 0, run.output
    assert client.path(path.store_path).read_bytes() in path.nar
    await client.verify()


@pytest.mark.parametrize(("kind", "place"), RACES)
async def test_in_a_race_with_a_healthy_member_the_path_is_installed(
    kind: Kind, place: Place, scene: Scene, client: NixClient
) -> None:
    path = scene.paths[kind, place, "a-rival"]
    target = scene.strike(path, kind, place)
    try:
        await client.realise(scene.beside_a_rival.url, path.store_path)
    finally:
        await scene.proxy.disarm()
    assert (target, kind) in scene.proxy.hits
    await client.verify()


@pytest.mark.parametrize(("kind", "place"), CASES)
async def test_alone_it_is_absent_only_if_it_said_so(
    kind: Kind, place: Place, scene: Scene
) -> None:
    path = scene.paths[kind, place, "nobody"]
    daemon = scene.alone
    target = scene.strike(path, kind, place)
    try:
        if place == "narinfo":
            answer = await daemon.get(path.narinfo_target)
            # A 403 without a page for people is how buckets say that they have no such thing.
            assert answer.status == (404 if kind in ("404", "403") else 503), answer
            assert ("Retry-After" in answer.headers) == (answer.status == 503)
        else:
            await assert_nar_fails_visibly(daemon, path, kind, place)
    finally:
        await scene.proxy.disarm()
    assert (target, kind) in scene.proxy.hits


async def assert_nar_fails_visibly(
    daemon: Daemon, path: MadePath, kind: Kind, place: Place
) -> None:
    nar_target = await daemon.nar_target(path.digits)
    try:
        answer = await daemon.get(nar_target)
    except aiohttp.ClientPayloadError:
        # Broken off in the midst: only where bytes go out before the whole was verified.
        assert place != "small nar"
        return
    if kind == "slow":
        assert (answer.status, answer.body) == (200, path.nar)
    elif kind == "404" and answer.status == 404:
        assert place == "small nar"
    else:
        assert answer.status == 503, answer
