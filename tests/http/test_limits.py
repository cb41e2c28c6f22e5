"""Clients that are too many, or too slow: let go of, without harm to those who are merely slow."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.http.support import (
    ABSENT,
    DescribedPaths,
    ScriptedStream,
    Store,
    StuckPaths,
    connected,
    counted,
    description_of,
    front_of,
    serving,
)
from tests.support.virtual_clock import virtual_clock
from tvixstore.http import Limits
from tvixstore.http.answers import Answer, text
from tvixstore.http.connections import Connections
from tvixstore.http.denials import slow
from tvixstore.http.dispatch import Dispatcher
from tvixstore.http.slow import SlowClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from aiohttp import web

    from tvixstore.http import HttpFront

MIB = 1 << 20


class Wire(asyncio.Transport):
    """A client in memory, who takes what he is sent while he `reads`."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.reads = True
        self.got = bytearray()
        self.lost = asyncio.Event()
        self._closing = False
        self._paused = False
        self._left = 0
        protocol.connection_made(self)

    def say(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def take(self, size: int) -> None:
        """Reads so much of what waits for him."""
        self._left -= min(size, self._left)
        if self._paused and self._left <= 16 << 10:
            self._paused = False
            self.protocol.resume_writing()

    def write(self, data: Any) -> None:
        if self.reads:
            self.got += data
            return
        self._left += len(data)
        if not self._paused and self._left > 64 << 10:
            self._paused = True
            self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self._left

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing and not self._left:
            self.abort()
        self._closing = True

    def abort(self) -> None:
        self._closing = True
        if not self.lost.is_set():
            self.lost.set()
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


@asynccontextmanager
async def wired(dispatcher: Dispatcher) -> AsyncIterator[Wire]:
    connections = Connections(dispatcher)
    wire = Wire(connections())
    try:
        yield wire
    finally:
        wire.take(1 << 60)
        await connections.close()


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual_clock
async def test_a_head_that_trickles_in_is_not_waited_for() -> None:
    front = front_of(DescribedPaths(None))
    async with wired(Dispatcher(front)) as wire:
        wire.say(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        while not wire.lost.is_set():
            await asyncio.sleep(1)
            wire.say(b"x")
        assert wire.got.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert 30 <= now() <= 40
    assert counted(front, "requests_total", route="other", status="408", answer="invalid") == 1


@virtual_clock
async def test_a_second_head_has_no_more_time_than_the_first() -> None:
    async with wired(Dispatcher(front_of(DescribedPaths(None)))) as wire:
        wire.say(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(50)
        wire.say(b"GET")
        await wire.lost.wait()
        assert b"408 Request Timeout" in wire.got
        assert 80 <= now() <= 90


@virtual_clock
async def test_who_connects_and_says_nothing_is_let_go() -> None:
    async with wired(Dispatcher(front_of(DescribedPaths(None)))) as wire:
        await wire.lost.wait()
        assert not wire.got
        assert 30 <= now() <= 40


@virtual_clock
async def test_between_requests_a_connection_may_be_idle_for_longer() -> None:
    async with wired(Dispatcher(front_of(DescribedPaths(None)))) as wire:
        for count in range(1, 4):
            wire.say(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            # Nix keeps its connections for 118 s.
            await asyncio.sleep(120)
            assert wire.got.count(b"200 OK") == count
        await wire.lost.wait()
        assert now() == 240 + 130


class Reading(Dispatcher):
    """Reads bodies, once it `may`."""

    def __init__(self) -> None:
        super().__init__(front_of(DescribedPaths(None)))
        self.may = asyncio.Event()
        self.may.set()

    async def _answer(self, front: HttpFront, request: web.BaseRequest, account: Any) -> Answer:
        await self.may.wait()
        try:
            return text(200, "present", f"read {len(await request.content.read())}")
        except SlowClient as error:
            return slow(str(error))


PUT = b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"


@virtual_clock
async def test_a_body_that_stops_coming_is_not_waited_for() -> None:
    async with wired(Reading()) as wire:
        wire.say(PUT + b"12345")
        await wire.lost.wait()
        assert wire.got.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert wire.got.endswith(b"nothing of the request's body came for 60 s\n")
        assert 60 <= now() <= 80


@virtual_clock
async def test_a_body_that_comes_slowly_is_taken() -> None:
    async with wired(Reading()) as wire:
        wire.say(PUT)
        for _ in range(10):
            await asyncio.sleep(45)
            wire.say(b"x")
        await asyncio.sleep(1)
        assert wire.got.endswith(b"read 10\n")


@virtual_clock
async def test_who_is_not_read_is_not_slow() -> None:
    dispatcher = Reading()
    async with wired(dispatcher) as wire:
        dispatcher.may.clear()
        wire.say(PUT + b"12345")
        await asyncio.sleep(3600)
        dispatcher.may.set()
        await asyncio.sleep(45)
        wire.say(b"12345")
        await asyncio.sleep(1)
        assert wire.got.endswith(b"read 10\n")


class Endless(ScriptedStream):
    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        return bytes(1 << 16)


async def endless(**limits: Any) -> tuple[HttpFront, str, Endless]:
    stream = Endless()
    path = (await Store.filled()).path
    described = description_of(path)
    # Longer than all buffers on the way.
    object.__setattr__(described, "nar_size", 1 << 40)
    return (
        front_of(DescribedPaths(described, stream), limits=Limits(**limits)),
        path.by_hash,
        stream,
    )


GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


@virtual_clock
async def test_a_reader_that_stops_for_good_holds_nothing() -> None:
    front, target, stream = await endless()
    async with wired(Dispatcher(front)) as wire:
        wire.reads = False
        wire.say(GET % target.encode())
        await stream.closed.wait()
        assert 600 <= now() <= 620
        await wire.lost.wait()
    assert counted(front, "requests_total", route="nar", status="499", answer="cancelled") == 1


@virtual_clock
async def test_a_reader_that_is_slow_is_served() -> None:
    front, target, stream = await endless()
    async with wired(Dispatcher(front)) as wire:
        wire.reads = False
        wire.say(GET % target.encode())
        for _ in range(20):
            # As long as Nix may pause, and so little that nothing more is written.
            await asyncio.sleep(500)
            wire.take(1)
        for _ in range(20):
            # All that waits, whereupon just as much comes after it.
            await asyncio.sleep(500)
            wire.take(MIB)
        assert not stream.closed.is_set()


@virtual_clock
async def test_who_does_not_read_the_end_is_let_go_too() -> None:
    async with wired(Dispatcher(front_of(DescribedPaths(None)))) as wire:
        wire.reads = False
        wire.say(GET % b"/healthz")
        await wire.lost.wait()
        assert 600 <= now() <= 620


async def test_a_socket_that_nobody_reads_is_let_go() -> None:
    front, target, stream = await endless(reader_stall=0.2)
    async with serving(front) as server, connected(server.addresses[0]) as client:
        client.send("GET", target)
        await stream.closed.wait()


async def test_connections_beyond_the_limit_are_told_to_come_again() -> None:
    front = front_of(DescribedPaths(None), limits=Limits(connections=1))
    async with serving(front) as server:
        async with connected(server.addresses[0]) as first:
            assert (await first.get("/healthz")).status == 200
            async with connected(server.addresses[0]) as second:
                reply = await second.receive()
                assert (reply.status, reply.headers["retry-after"]) == (503, "2")
                assert reply.headers["connection"] == "close"
                assert await second.reader.read() == b""
            assert (await first.get("/healthz")).status == 200
        async with asyncio.timeout(30):
            while (await _status(server.addresses[0])) != 200:
                pass
    assert counted(front, "requests_total", route="other", status="503", answer="unknown") >= 1


async def _status(address: str) -> int:
    async with connected(address) as client:
        try:
            return (await client.get("/healthz")).status
        except ConnectionError:
            # It was turned away while it asked.
            return 503


async def test_requests_beyond_the_limit_are_told_to_come_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths = StuckPaths()
    front = front_of(paths, limits=Limits(requests=1))
    target = f"/{ABSENT}.narinfo"
    async with (
        serving(front) as server,
        connected(server.addresses[0]) as first,
        connected(server.addresses[0]) as second,
    ):
        first.send("GET", target)
        await paths.asked.wait()
        for _ in range(3):
            reply = await second.get(target)
            assert (reply.status, reply.headers["retry-after"]) == (503, "2")
        # Whoever looks after it is answered all the same.
        assert (await second.get("/readyz")).status == 200
    assert [record.getMessage() for record in caplog.records] == ["limit.reached"]
