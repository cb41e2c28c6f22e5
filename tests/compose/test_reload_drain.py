"""What drains: nobody is cut off, nothing is closed too early, and nothing is left in the end."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.compose.test_long import long
from tests.compose.test_reload import KEY, config_of, drained, part, serve, text_of
from tests.support.caches import make_path
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.access import Access
from tvixstore.cli.doors import http_front
from tvixstore.compose import load_text
from tvixstore.compose.composition import Composition
from tvixstore.errors import StoreError
from tvixstore.http import serve as serve_http
from tvixstore.pathinfo.nix import Fills
from tvixstore.policy.uses import Uses
from tvixstore.rpc.client import Peer

if TYPE_CHECKING:
    from tvixstore.http import HttpServer

PATIENCE = 60.0
RELOADS = 50
CLIENTS = 8


async def read_across_a_reload(folder: Path) -> None:
    """Reads a blob of a store that is taken out of the file meanwhile."""

    def text(name: str) -> str:
        return long(blobservices=f'[blobservices.root]\ntype = "local"\npath = "{name}"\n')

    data = random.Random(0).randbytes(8 << 20)
    async with await Composition.open(config_of(folder, text("one"))) as composition:
        uses, blobs = composition.uses, composition.content.blobs
        uses.begin()
        try:
            digest = await blobs.put(data)
            stream = await blobs.open_read(digest)
            assert stream is not None
            async with stream:
                pieces = [await anext(stream)]
                await composition.reload(config_of(folder, text("two")))
                # As long as closing takes, if nobody waits for us.
                for _ in range(100):
                    await asyncio.sleep(0.001)
                pieces += [piece async for piece in stream]
            assert b"".join(pieces) == data
        finally:
            uses.end()
            await drained(composition)


async def fill_across_a_reload(folder: Path) -> None:
    """Leaves a download that is worth to be finished, of a substituter that is then removed."""
    path = make_path("long", KEY, size=300_000)
    go_on = asyncio.Event()
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        upstream.on(path.nar_target, Reply(body=path.nar, pause=go_on, after=200_000))
        text = text_of({"a": upstream.url}, "verify_ahead = 1024")
        async with await Composition.open(config_of(folder, text)) as composition:
            description = await composition.path_infos.describe(path.narinfo.store_path.hash)
            assert description is not None
            stream = await composition.path_infos.open_nar(description)
            assert stream is not None
            async with stream:
                await anext(stream)
            await composition.reload(config_of(folder, text_of({})))
            for _ in range(100):
                await asyncio.sleep(0.001)
            go_on.set()
            await drained(composition)
            assert await composition.path_infos.get(path.narinfo.store_path.hash) is not None


async def at_once(_: object) -> None:
    """For nothing that would be worth to be waited for."""


async def test_a_reader_of_a_store_that_is_removed_reads_to_the_end(tmp_path: Path) -> None:
    await read_across_a_reload(tmp_path)


async def test_a_download_of_a_substituter_that_is_removed_is_finished(tmp_path: Path) -> None:
    await fill_across_a_reload(tmp_path)


async def test_closing_before_the_readers_have_left_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Uses, "over", at_once)
    with pytest.raises((StoreError, AssertionError, OSError, RuntimeError, ValueError)):
        await read_across_a_reload(tmp_path)


async def test_closing_before_downloads_are_over_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fills, "outlast", at_once)
    with pytest.raises((StoreError, AssertionError)):
        await fill_across_a_reload(tmp_path)


async def test_a_composition_is_closed_well_while_others_drain(tmp_path: Path) -> None:
    async with await Composition.open(config_of(tmp_path, text_of({}))) as composition:
        for number in range(3):
            composition.uses.begin()
            text = text_of({"a": f"http://a{number}.invalid"})
            await composition.reload(config_of(tmp_path, text))
        assert composition.draining == 3


async def test_a_reload_that_is_cancelled_leaves_all_as_it_was(tmp_path: Path) -> None:
    async with UpstreamServer() as upstream:
        # It takes connections, and is no daemon.
        upstream.otherwise(lambda _: Reply(end="stall", before=asyncio.Event()))
        text = text_of({"a": f"grpc+http://127.0.0.1:{upstream.port}?wait-connect=1"})
        async with await Composition.open(config_of(tmp_path, text_of({}))) as composition:
            path_infos, parts = composition.path_infos, set(composition._generations.parts)
            reloading = asyncio.create_task(composition.reload(config_of(tmp_path, text)))
            async with asyncio.timeout(PATIENCE):
                while not upstream.accepted and not reloading.done():  # noqa: ASYNC110
                    await asyncio.sleep(0)
            reloading.cancel()
            with pytest.raises((asyncio.CancelledError, StoreError)):
                await reloading
            assert composition.path_infos is path_infos
            assert composition._generations.parts == parts
            # And the next one is not in anybody's way.
            await composition.reload(config_of(tmp_path, text_of({"b": "http://b.invalid"})))
            await drained(composition)


async def test_what_is_taken_over_is_not_closed_with_what_drained_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_path("there", KEY)
    connecting, go_on = asyncio.Event(), asyncio.Event()

    async def connect(self: Peer) -> None:
        connecting.set()
        await go_on.wait()

    monkeypatch.setattr(Peer, "connect", connect)
    waits = "grpc+http://127.0.0.1:1?wait-connect=1"
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        with_it = config_of(tmp_path, text_of({"a": upstream.url}))
        async with await Composition.open(with_it) as composition:
            uses = composition.uses
            uses.begin()
            await composition.reload(config_of(tmp_path, text_of({})))
            both = text_of({"a": upstream.url, "b": waits}, b="enabled = true")
            reloading = asyncio.create_task(composition.reload(config_of(tmp_path, both)))
            await connecting.wait()
            # The reload has taken it over, and has yet to come to its end.
            uses.end()
            for _ in range(20):
                await asyncio.sleep(0)
            go_on.set()
            await reloading
            await drained(composition)
            leaf = part(composition, "a").service
            assert await leaf.describe(path.narinfo.store_path.hash) is not None


class _House:
    """A composition behind a front door that changes over with it."""

    def __init__(self, composition: Composition, server: HttpServer) -> None:
        self.composition = composition
        self.server = server
        self.access = Access.of("read")

    async def reload(self, folder: Path, text: str) -> None:
        config = load_text(text, "compose.toml", folder, {})

        def change_over() -> None:
            front = http_front(self.composition, config.daemon, self.access)
            self.server.change(front, 5.0)

        await self.composition.reload(config, change_over)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_many_reloads_under_load_cut_nobody_off_and_leave_nothing(
    seed: int, tmp_path: Path
) -> None:
    dice = random.Random(seed)
    paths = [make_path(f"path-{number}", KEY, size=40_000) for number in range(60)]
    servers = [UpstreamServer() for _ in range(3)]
    wrong: list[str] = []
    stop = False

    async def ask(url: str, mine: random.Random) -> int:
        asked = 0
        async with aiohttp.ClientSession(url) as session:
            while not stop:
                path = mine.choice(paths)
                async with session.get(path.narinfo_target) as answer:
                    text = await answer.text()
                if answer.status != 200:
                    wrong.append(f"{answer.status}: {text}")
                    continue
                target = text.partition("URL: ")[2].partition("\n")[0]
                headers = {"Accept-Encoding": "identity"}
                async with session.get(f"/{target}", headers=headers) as answer:
                    if answer.status != 200 or await answer.read() != path.nar:
                        wrong.append(f"{answer.status} of {path.store_path}")
                asked += 1
        return asked

    def text() -> str:
        """One of them at least is there, and can be had."""
        chosen = dice.sample(range(3), dice.randint(1, 3))
        lines = {
            f"s{number}": f"priority = {dice.choice([40, 50])}\ntimeout = '{dice.choice([5, 6])}s'"
            for number in chosen
        }
        urls = {f"s{number}": servers[number].url for number in chosen}
        daemon = f"priority = {dice.randint(1, 3)}\nnarinfo_ttl = '{dice.choice([60, 70])}s'\n"
        store = f"[store]\nmax_size = '{dice.choice([100, 200])}MiB'\n"
        return text_of(urls, daemon, **lines) + store

    def held() -> tuple[int, int]:
        gc.collect()
        return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

    async with servers[0], servers[1], servers[2]:
        for each in servers:
            serve(each, *paths)
        plain = text_of({"s0": servers[0].url})
        async with await Composition.open(config_of(tmp_path, plain)) as composition:
            front = http_front(composition, composition.config.daemon, Access.of("read"))
            server = await serve_http(front, "127.0.0.1:0", 5.0)
            house = _House(composition, server)
            try:
                before = held()
                url = f"http://{server.addresses[0]}"
                asking = [
                    asyncio.create_task(ask(url, random.Random(number)))
                    for number in range(CLIENTS)
                ]
                for _ in range(RELOADS):
                    await house.reload(tmp_path, text())
                    for _ in range(dice.randint(0, 5)):
                        await asyncio.sleep(0)
                stop = True
                asked = sum(await asyncio.gather(*asking))
                assert wrong == []
                assert asked > CLIENTS
                await house.reload(tmp_path, plain)
                await drained(composition)
                assert len(composition._generations.live) == 1
                assert composition._generations.parts == composition._generation.parts
                # What is left may be idle connections, to the one that was there before.
                async with asyncio.timeout(PATIENCE):
                    for other in servers[1:]:
                        await other.abandoned()
                    while held()[0] > before[0] + servers[0].connections:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                assert held()[1] <= before[1] + 2 * servers[0].connections
            finally:
                await server.aclose()
