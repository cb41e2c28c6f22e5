"""`Insight/Watch`: snapshots of what a daemon does, for other programs."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status

from tests.directory.samples import LEAF
from tests.rpc.raw import framed, raw_client
from tests.rpc.support import serving
from tests.support.until import until
from tvixstore.access import Access
from tvixstore.activity import Work
from tvixstore.activity.registry import MOST_WATCHERS
from tvixstore.errors import CorruptData, InvalidData, ReadOnly, StoreError, Unavailable
from tvixstore.rpc import activity_messages as messages
from tvixstore.rpc import methods
from tvixstore.rpc.client import Peer, watch
from tvixstore.rpc.client.activity import _parsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.rpc.support import Served

pytestmark = pytest.mark.may_leave("threads", "files")


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


@pytest.fixture
async def peer(served: Served) -> AsyncIterator[Peer]:
    peer = Peer.at(f"grpc+http://{served.address}")
    yield peer
    await peer.aclose()


async def test_snapshots_follow_what_is_under_way(served: Served, peer: Peer) -> None:
    async with aclosing(watch(peer, 0.2)) as snapshots:
        first = await anext(snapshots)
        assert (first["fills"], first["totals"]["requests"]) == ([], {"grpc": 0})
        served.front.activity.begin(Work("nar", "/nix/store/x", "mirror"))
        async for snapshot in snapshots:
            if snapshot["fills"]:
                break
        assert snapshot["fills"][0]["what"] == "/nix/store/x"
    await until(lambda: not served.front.activity.watchers["grpc"])


async def shown(served: Served, what: str, size: int) -> None:
    """Returns once that upload is told of, with so many bytes."""
    async with asyncio.timeout(10):
        while True:
            fills = json.loads(await served.front.activity.text())["fills"]
            if [(each["what"], each["bytes"]) for each in fills] == [(what, size)]:
                assert (fills[0]["kind"], fills[0]["source"]) == ("upload", "client")
                assert (fills[0]["phase"], fills[0]["total"]) == ("receiving", None)
                return
            await asyncio.sleep(0.001)


SENT = [
    (methods.PUT_BLOB, "a blob", b"x" * 1000, 1000),
    (methods.PUT_DIRECTORY, "Directories", LEAF, len(LEAF.wire)),
    (methods.PUT_BLOBS, "blobs", [b"one", b"two"], 6),
]


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize(
    ("method", "what", "message", "size"), SENT, ids=[each[1] for each in SENT]
)
async def test_what_a_client_sends_is_shown_while_it_does(
    served: Served, method: Any, what: str, message: Any, size: int, leaves: bool
) -> None:
    async with raw_client(served.address) as client:
        number = client.begin(method.path())
        client.send(number, framed(method.request.encode(message)))
        await shown(served, what, size)
        if leaves:
            client.h2.reset_stream(number)
            client.flush()
        else:
            client.h2.end_stream(number)
            client.flush()
            assert (await client.ended(number)).status is Status.OK
    await until(lambda: not len(served.front.activity))
    assert served.front.activity.snapshot()["totals"]["bytes"] == size


async def test_a_drain_does_not_wait_for_watchers() -> None:
    async with serving(drain_timeout=60) as served:
        peer = Peer.at(f"grpc+http://{served.address}")
        async with aclosing(watch(peer, 20)) as snapshots:
            await anext(snapshots)
            async with asyncio.timeout(30):
                await served.server.drain()
            assert served.front.activity.watchers["grpc"] == 0
            # What the connection's end looks like here.
            with suppress(Unavailable):
                assert await anext(snapshots, None) is None
        await peer.aclose()


async def test_too_many_watchers_are_turned_away(served: Served, peer: Peer) -> None:
    served.front.activity.watchers["http"] = MOST_WATCHERS
    with pytest.raises(Unavailable, match="too many watchers"):
        await anext(watch(peer, 1))


async def test_only_who_may_read_may_watch() -> None:
    async with serving(access=Access.of()) as served:
        peer = Peer.at(f"grpc+http://{served.address}")
        try:
            with pytest.raises(StoreError) as caught:
                await anext(watch(peer, 1))
            assert not isinstance(caught.value, CorruptData | ReadOnly)
        finally:
            await peer.aclose()


def test_an_interval_that_is_left_out_is_a_second_and_others_are_bounded() -> None:
    assert messages.WATCH.decode(b"") == 1.0
    assert messages.WATCH.decode(messages.WATCH.encode(0.25)) == 0.25
    for seconds in (0.1, 21):
        with pytest.raises(InvalidData, match="from 200 to 20000"):
            messages.WATCH.decode(messages.WATCH.encode(seconds))


@pytest.mark.parametrize("document", ["", "[]", "1", "{"])
def test_what_is_no_snapshot_is_corrupt(document: str) -> None:
    peer = Peer.at("grpc+http://127.0.0.1:1")
    with pytest.raises(CorruptData, match="cannot be read: this is not"):
        _parsed(peer, document)
    assert _parsed(peer, json.dumps({"a": 1})) == {"a": 1}
