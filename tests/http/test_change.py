"""A front door that changes over: what began goes on as it did, on connections that stay."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING
from weakref import ref

from tests.http.support import (
    DescribedPaths,
    ScriptedStream,
    Store,
    connected,
    description_of,
    front_of,
    serving,
)
from tvixstore.http import routes
from tvixstore.http.answers import Answer
from tvixstore.http.call import Call
from tvixstore.nix import nixbase32

if TYPE_CHECKING:
    import pytest


async def test_a_body_goes_on_of_the_front_that_it_began_with() -> None:
    store = await Store.filled()
    gate = asyncio.Event()
    stream = ScriptedStream(store.path.nar[:10], gate, store.path.nar[10:])
    old = front_of(DescribedPaths(description_of(store.path), stream))
    new = front_of(DescribedPaths(None), priority=7)
    target = f"/nar/{store.path.digits}-{nixbase32.encode(store.path.info.nar_sha256)}.nar"
    async with (
        serving(old) as server,
        connected(server.addresses[0]) as one,
        connected(server.addresses[0]) as other,
    ):
        assert b"Priority: 30" in (await other.get("/nix-cache-info")).body
        one.send("GET", target)
        status, headers = await one.read_head()
        assert status == 200
        assert old.uses.count == 1
        server.change(new, 5.0)
        # The same connection, and another front.
        assert b"Priority: 7" in (await other.get("/nix-cache-info")).body
        assert (old.uses.count, new.uses.count) == (1, 0)
        gate.set()
        assert await one.reader.readexactly(int(headers["content-length"])) == store.path.nar
        assert (await one.get(target)).status == 404
        await old.uses.over()


async def test_what_narinfos_say_changes_with_the_front() -> None:
    store = await Store.filled()
    paths = DescribedPaths(description_of(store.path))
    target = f"/{store.path.digits}.narinfo"
    async with serving(front_of(paths)) as server, connected(server.addresses[0]) as client:
        assert "Compression: none" in (await client.get(target)).text
        server.change(front_of(paths, nar_compression="zstd"), 5.0)
        assert "Compression: zstd" in (await client.get(target)).text
        server.change(front_of(paths), 5.0)
        assert "Compression: none" in (await client.get(target)).text


async def test_what_lasts_as_long_as_its_client_likes_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = ScriptedStream(b"one", asyncio.Event())

    async def answer(call: Call, wanted: None) -> Answer:
        return Answer(200, "present", {}, stream=events, length=None, endless=True)

    rows = [routes._row("events", r"/events()", routes._parse_nothing, answer)]
    monkeypatch.setattr(routes, "ROUTES", rows)
    async with (
        serving(front_of(DescribedPaths(None))) as server,
        connected(server.addresses[0]) as client,
    ):
        front = front_of(DescribedPaths(None))
        server.change(front, 5.0)
        client.send("GET", "/events")
        assert (await client.read_head())[0] == 200
        await events.waiting.wait()
        assert front.uses.count == 0
        # Nor does it keep in memory what is not served any more.
        uses, old = front.uses, ref(front)
        del front
        server.change(front_of(DescribedPaths(None)), 5.0)
        gc.collect()
        assert old() is None
    assert uses.count == 0
