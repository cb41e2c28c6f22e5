"""`/_tvix/activity`: one document, or a stream of events for as long as somebody watches."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.support import (
    Client,
    DescribedPaths,
    client_of,
    connected,
    counted,
    front_of,
    serving,
)
from tests.support.until import until
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.access import Access
from tvixstore.activity import UpstreamState, Watch, Work
from tvixstore.activity.registry import MOST_WATCHERS
from tvixstore.http import activity as room

if TYPE_CHECKING:
    from tvixstore.http import HttpFront

TARGET = "/_tvix/activity"
OFTEN = f"{TARGET}?interval=0.2"


def front(**settings: Any) -> HttpFront:
    return front_of(DescribedPaths(None), **settings)


async def chunk(client: Client) -> bytes:
    """The next chunk of a response, which each event is one of."""
    length = int(await client.reader.readuntil(b"\r\n"), 16)
    data = await client.reader.readexactly(length)
    assert await client.reader.readexactly(2) == b"\r\n"
    return data


async def event(client: Client) -> tuple[str, Any]:
    """The next event: its name, and what is in it."""
    text = (await chunk(client)).decode()
    lines = dict(line.split(": ", 1) for line in text.removesuffix("\n\n").split("\n"))
    assert text.endswith("\n\n") and lines.keys() == {"event", "data"}
    return lines["event"], json.loads(lines["data"])


async def watch(client: Client, target: str = OFTEN) -> dict[str, Any]:
    """Begins to watch; the first snapshot."""
    client.send("GET", target)
    status, headers = await client.read_head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert headers["cache-control"] == "no-store"
    name, snapshot = await event(client)
    assert name == "activity"
    assert isinstance(snapshot, dict)
    return snapshot


async def test_one_document_is_given_to_whoever_wants_one() -> None:
    served = front()
    served.activity.begin(Work("nar", "/nix/store/x", "mirror"))
    async with client_of(served) as client:
        replies = [
            await client.get(f"{TARGET}?once=1"),
            await client.get(TARGET, Accept="application/json"),
        ]
        for reply in replies:
            assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
            snapshot = json.loads(reply.body)
            assert [each["what"] for each in snapshot["fills"]] == ["/nix/store/x"]
            # The one that asks.
            assert snapshot["totals"]["requests"] == {"http": 1}


async def test_events_follow_what_is_under_way() -> None:
    served = front()
    async with client_of(served) as client:
        assert (await watch(client))["fills"] == []
        work = served.activity.begin(Work("nar", "/nix/store/x", "mirror"))
        fills: list[Any] = []
        while not fills:
            name, snapshot = await event(client)
            assert name == "activity"
            fills = snapshot["fills"]
        assert fills[0]["phase"] == "waiting"
        assert snapshot["totals"]["requests"] == {"http": 0}, "who watches does not count"
        assert snapshot["totals"]["watchers"] == 1
        work.enter("done")
        while fills:
            fills = (await event(client))[1]["fills"]


async def test_long_pauses_have_heartbeats_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_HEARTBEAT", 0.1)
    async with client_of(front()) as client:
        await watch(client, f"{TARGET}?interval=20")
        assert await chunk(client) == b": still here\n\n"
        assert await chunk(client) == b": still here\n\n"


@pytest.mark.parametrize("interval", ["0.1", "21", "x", "nan", "-1", "inf", ""])
async def test_other_intervals_are_refused(interval: str) -> None:
    async with client_of(front()) as client:
        reply = await client.get(f"{TARGET}?interval={interval}")
    assert reply.status == 400
    assert "from 0.2 to 20" in reply.text


async def test_a_head_is_of_what_a_get_would_have() -> None:
    async with client_of(front()) as client:
        reply = await client.request("HEAD", TARGET)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
        assert (await client.get("/healthz")).status == 200


async def test_only_who_may_read_may_watch() -> None:
    async with client_of(front(access=Access.of())) as client:
        assert (await client.get(TARGET)).status == 403


async def test_a_watcher_who_leaves_is_forgotten_and_no_failure() -> None:
    served = front()
    async with serving(served) as server:
        async with connected(server.addresses[0]) as client:
            await watch(client)
            assert served.activity.watchers["http"] == 1
        good = {"route": "activity", "status": "200", "answer": "present"}
        await until(lambda: counted(served, "requests_total", **good) == 1)
    assert served.activity.watchers["http"] == 0
    assert counted(served, "response_bytes_total") > 0


async def test_too_many_watchers_are_turned_away_until_one_leaves() -> None:
    served = front()
    async with serving(served) as server, AsyncExitStack() as stack:
        address = server.addresses[0]
        for _ in range(MOST_WATCHERS - 1):
            await watch(await stack.enter_async_context(connected(address)))
        async with connected(address) as last, connected(address) as refused:
            await watch(last)
            reply = await refused.get(TARGET)
            assert (reply.status, reply.text) == (503, "too many watchers at once: try again\n")
            assert "retry-after" in reply.headers
            assert (await refused.get(f"{TARGET}?once=1")).status == 200
        await until(lambda: served.activity.watchers["http"] < MOST_WATCHERS)
        await watch(await stack.enter_async_context(connected(address)))


async def test_a_drain_tells_watchers_and_does_not_wait_for_them() -> None:
    async with serving(front(), drain_timeout=60) as server:
        async with connected(server.addresses[0]) as client:
            await watch(client, f"{TARGET}?interval=20")
            async with asyncio.timeout(30):
                await server.drain()
            assert await event(client) == ("end", {"reason": "the daemon is stopping"})
            assert await client.reader.readuntil(b"\r\n\r\n") == b"0\r\n\r\n"


@virtual_clock
async def test_who_is_slow_to_take_one_is_given_the_next_as_it_is_then() -> None:
    """Nothing is made that nobody takes, and nothing is made up for."""
    served, ended = front(), asyncio.Event()
    made = 0

    def asked_of_each_snapshot() -> list[UpstreamState]:
        nonlocal made
        made += 1
        return []

    served.activity.upstreams = asked_of_each_snapshot
    async with room._Events(Watch(served.activity, "http", ended), 1.0) as events:
        assert b'"fills":[]' in await anext(events)
        served.activity.begin(Work("nar", "/nix/store/x", "mirror"))
        await asyncio.sleep(100)
        assert b"/nix/store/x" in await anext(events)
        assert (now(), made) == (100, 2)
        await anext(events)
        assert (now(), made) == (101, 3)
        ended.set()
        assert (await anext(events)).startswith(b"event: end")
        assert await anext(events, None) is None
    assert served.activity.watchers["http"] == 0
