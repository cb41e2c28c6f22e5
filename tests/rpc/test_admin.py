"""Admin over gRPC: what operators may ask, who may not, and that leaving ends the work."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from grpclib.const import Status

from tests.rpc.raw import raw_client
from tests.rpc.support import Served, serving
from tvixstore.access import Access
from tvixstore.errors import AbsentPath, CorruptData, ReadOnly, Unavailable, Unsupported
from tvixstore.nix import StorePath
from tvixstore.pathinfo import Pin
from tvixstore.pools import Pools
from tvixstore.rpc import methods
from tvixstore.rpc.client import GrpcUpkeep, Peer
from tvixstore.upkeep import (
    Event,
    Finding,
    Pinned,
    PinRequest,
    Progress,
    Summary,
    Upkeep,
    VerifyRequest,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

APP = StorePath(b"\1" * 20, "app")
OTHER = StorePath(b"\2" * 20, "other")
PINNED = Pinned(Pin(APP, 1000, "why"), 2, 300, (OTHER,), 1)
EVENTS: list[Event] = [
    Progress("chunks", 1, 2, 3),
    Finding("chunk", "00", "does not hash", "dropped"),
    Summary(chunks=1, damaged=1),
]


class ScriptedUpkeep(Upkeep):
    """Knows `APP` alone. A check tells `EVENTS`, and with `endless` then goes on."""

    def __init__(self, *, endless: bool = False, error: Exception | None = None) -> None:
        self.asked: list[object] = []
        self.ended = asyncio.Event()
        self._endless = endless
        self._error = error

    async def pin(self, request: PinRequest) -> Pinned | None:
        self.asked.append(request)
        if self._error is not None:
            raise self._error
        return PINNED if request.store_path == APP else None

    async def unpin(self, store_path: StorePath) -> bool:
        self.asked.append(store_path)
        return store_path == APP

    async def pins(self) -> AsyncGenerator[Pinned, None]:
        if self._error is not None:
            raise self._error
        yield PINNED

    async def verify(self, request: VerifyRequest) -> AsyncGenerator[Event, None]:
        self.asked.append(request)
        if self._error is not None:
            raise self._error
        try:
            for event in EVENTS[:2]:
                yield event
            while self._endless:
                await asyncio.sleep(0.01)
                yield EVENTS[0]
            yield EVENTS[2]
        finally:
            self.ended.set()


@asynccontextmanager
async def admin(
    upkeep: Upkeep | None, *, allowed: bool = True
) -> AsyncIterator[tuple[GrpcUpkeep, Served]]:
    pools = Pools(files=1, cpu=1, dns=1)
    access = Access.of("read", "write", "admin") if allowed else Access.of("read", "write")
    async with serving(upkeep=upkeep, access=access) as served:
        peer = Peer.at(f"grpc+http://{served.address}", pools=pools)
        try:
            yield GrpcUpkeep(peer), served
        finally:
            await peer.aclose()
            pools.close()


async def told(events: AsyncGenerator[Event, None]) -> list[Event]:
    async with aclosing(events):
        return [event async for event in events]


async def test_everything_that_is_asked_and_answered_arrives() -> None:
    scripted = ScriptedUpkeep()
    async with admin(scripted) as (client, _):
        assert await client.pin(PinRequest(APP, "why", fetch=False)) == PINNED
        assert await client.pin(PinRequest(OTHER)) is None
        assert await client.unpin(APP) and not await client.unpin(OTHER)
        async with aclosing(client.pins()) as pins:
            assert [pinned async for pinned in pins] == [PINNED]
        request = VerifyRequest(True, (APP, OTHER))
        assert await told(client.verify(request)) == EVENTS
    assert scripted.asked == [
        PinRequest(APP, "why", fetch=False),
        PinRequest(OTHER),
        APP,
        OTHER,
        request,
    ]


async def test_whoever_may_not_is_refused_and_told_why() -> None:
    scripted = ScriptedUpkeep()
    async with admin(scripted, allowed=False) as (client, _):
        with pytest.raises(ReadOnly, match="nobody may administer it"):
            await client.pin(PinRequest(APP))
        with pytest.raises(ReadOnly, match="loopback"):
            await client.unpin(APP)
        with pytest.raises(ReadOnly):
            await told(client.verify(VerifyRequest()))
        with pytest.raises(ReadOnly):
            await anext(client.pins())
    assert scripted.asked == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unsupported("no path infos are kept"), Unsupported),
        (Unavailable("it cannot be read"), Unavailable),
        (CorruptData("it is wrong"), CorruptData),
    ],
)
async def test_what_goes_wrong_means_the_same_at_the_other_end(
    error: Exception, kind: type[Exception]
) -> None:
    async with admin(ScriptedUpkeep(error=error)) as (client, _):
        for asking in (client.pin(PinRequest(APP)), told(client.verify(VerifyRequest()))):
            with pytest.raises(kind, match=str(error)):
                await asking


async def test_a_path_that_is_not_there_is_absent_and_not_unknown() -> None:
    async with admin(ScriptedUpkeep(error=AbsentPath("x is nowhere"))) as (client, _):
        with pytest.raises(AbsentPath, match="-app"):
            await told(client.verify(VerifyRequest(False, (APP,))))
        assert await client.pin(PinRequest(APP)) is None


async def test_a_daemon_that_keeps_nothing_says_so() -> None:
    async with admin(None) as (client, _):
        with pytest.raises(Unsupported, match="keeps nothing"):
            await told(client.verify(VerifyRequest()))


async def test_leaving_a_check_ends_it() -> None:
    scripted = ScriptedUpkeep(endless=True)
    async with admin(scripted) as (client, _):
        events = client.verify(VerifyRequest())
        assert await anext(events) == EVENTS[0]
        await events.aclose()
        await scripted.ended.wait()


async def test_a_daemon_that_ends_waits_for_no_check() -> None:
    scripted = ScriptedUpkeep(endless=True)
    async with admin(scripted) as (client, served):
        events = client.verify(VerifyRequest())
        assert await anext(events) == EVENTS[0]
        draining = asyncio.create_task(served.server.drain())
        with pytest.raises(Unavailable, match="shutting down"):
            await told(events)
        await draining
        assert scripted.ended.is_set()


async def test_a_check_that_ends_without_a_summary_is_no_good_end() -> None:
    class Silent(ScriptedUpkeep):
        async def verify(self, request: VerifyRequest) -> AsyncGenerator[Event, None]:
            yield EVENTS[0]

    async with admin(Silent()) as (client, _):
        with pytest.raises(CorruptData, match="without a summary"):
            await told(client.verify(VerifyRequest()))


async def test_a_path_that_is_none_is_invalid() -> None:
    async with serving(upkeep=ScriptedUpkeep(), access=Access.of("admin")) as served:
        async with raw_client(served.address) as client:
            call = await client.call(methods.PIN.path(), b"\x0a\x03abc")
            assert call.status is Status.INVALID_ARGUMENT
