"""Where the front door listens, and how it closes."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.http.support import (
    ABSENT,
    DescribedPaths,
    ScriptedStream,
    Store,
    StuckPaths,
    connected,
    description_of,
    front_of,
    serving,
)
from tvixstore.errors import ConfigError
from tvixstore.http import parse_address, serve

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("localhost:0", "localhost:0"),
        ("[::1]:65535", "[::1]:65535"),
        ("unix:/run/x y", "unix:/run/x y"),
        ("off", "None"),
    ],
)
def test_addresses_are_read_and_written_alike(text: str, said: str) -> None:
    assert str(parse_address(text)) == said


@pytest.mark.parametrize(
    "text",
    ["", "9000", ":9000", "host", "host:", "host:x", "host:65536", "::1:9000", "[::1]", "unix:",
     "http://h:1", "a b:1", "[x]:1", "OFF"],
)  # fmt: skip
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not `host:port`"):
        parse_address(text)


async def test_a_door_that_is_off_listens_nowhere() -> None:
    async with serving(front_of(DescribedPaths(None)), "off") as server:
        assert server.addresses == []
        await server.drain()


async def test_a_name_is_listened_on_at_each_of_its_addresses_with_one_port() -> None:
    async with serving(front_of(DescribedPaths(None)), "localhost:0") as server:
        assert server.addresses
        assert len({address.rsplit(":", 1)[1] for address in server.addresses}) == 1
        for address in server.addresses:
            async with connected(address) as client:
                assert (await client.get("/healthz")).status == 200


async def test_the_v6_wildcard_serves_both_families() -> None:
    async with serving(front_of(DescribedPaths(None)), "[::]:0") as server:
        (address,) = server.addresses
        port = address.removeprefix("[::]:")
        for reachable in (f"127.0.0.1:{port}", f"[::1]:{port}"):
            async with connected(reachable) as client:
                assert (await client.get("/healthz")).status == 200


async def test_a_v6_address_serves_its_family_alone() -> None:
    async with serving(front_of(DescribedPaths(None)), "[::1]:0") as server:
        async with connected(server.addresses[0]) as client:
            assert (await client.get("/healthz")).status == 200


async def test_connections_send_small_answers_at_once() -> None:
    async with serving(front_of(DescribedPaths(None))) as server:
        async with connected(server.addresses[0]) as client:
            await client.get("/healthz")
            (protocol,) = server._connections.connections
            assert protocol.transport is not None
            accepted = protocol.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    async with serving(front_of(DescribedPaths(None)), f"unix:{path}") as server:
        assert server.addresses == [f"unix:{path}"]
        async with connected(server.addresses[0]) as client:
            assert (await client.get("/healthz")).status == 200
    assert not path.exists()


async def test_a_unix_socket_of_a_daemon_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    async with serving(front_of(DescribedPaths(None)), f"unix:{path}") as server:
        async with connected(server.addresses[0]) as client:
            assert (await client.get("/healthz")).status == 200


async def test_a_unix_socket_that_another_one_took_over_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    async with serving(front_of(DescribedPaths(None)), f"unix:{path}"):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_an_address_in_use_is_one_clear_line(kind: str, tmp_path: Path) -> None:
    first = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/http.sock"
    async with serving(front_of(DescribedPaths(None)), first) as server:
        (address,) = server.addresses
        with pytest.raises(ConfigError) as caught:
            await serve(front_of(DescribedPaths(None)), address, 1.0)
        assert str(caught.value).startswith(f"cannot listen: {address} is in use")
        assert "\n" not in str(caught.value)
        async with connected(address) as client:
            assert (await client.get("/healthz")).status == 200


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.1:0", "not an address of this machine"),
        ("no-such-host.invalid:0", "does not resolve"),
        ("unix:/no/such/folder/sock", "folder that does not exist"),
        ("unix:/" + "a" * 107, "longer than the 107 bytes"),
        ("nonsense", "is not `host:port`"),
    ],
)
@pytest.mark.may_leave("threads")
async def test_an_address_that_cannot_be_bound_is_one_clear_line(address: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        await serve(front_of(DescribedPaths(None)), address, 1.0)
    assert "\n" not in str(caught.value)


async def test_a_drain_waits_for_the_requests_that_run() -> None:
    store = await Store.filled()
    gate = asyncio.Event()
    stream = ScriptedStream(store.path.nar[:10], gate, store.path.nar[10:])
    front = front_of(DescribedPaths(description_of(store.path), stream))
    async with serving(front, drain_timeout=30) as server, AsyncExitStack() as stack:
        (address,) = server.addresses
        idle = await stack.enter_async_context(connected(address))
        other = await stack.enter_async_context(connected(address))
        running = await stack.enter_async_context(connected(address))
        for client in (idle, other):
            assert (await client.get("/readyz")).status == 200
        running.send("GET", store.path.by_hash)
        await stream.waiting.wait()
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        with pytest.raises(OSError):
            async with connected(address):
                pass
        # Connections that there are learn of it, and are told to go.
        unready = await other.get("/readyz")
        assert unready.status == 503
        assert json.loads(unready.body)["reason"] == "the daemon is stopping"
        assert unready.headers["connection"] == "close"
        assert not draining.done()
        gate.set()
        reply = await running.receive()
        assert reply.body == store.path.nar
        await draining
        await server.aclose()
        assert await idle.reader.read() == b""


async def test_a_drain_cancels_what_is_left_at_its_end() -> None:
    store = await Store.filled()
    stream = ScriptedStream(store.path.nar[:10], asyncio.Event())
    front = front_of(DescribedPaths(description_of(store.path), stream))
    async with serving(front, drain_timeout=0.0) as server:
        async with connected(server.addresses[0]) as client:
            client.send("GET", store.path.by_hash)
            await stream.waiting.wait()
            await server.drain()
            assert stream.closed.is_set()
            assert not (await client.receive()).whole


async def test_closing_without_a_drain_cancels_at_once() -> None:
    paths = StuckPaths()
    async with serving(front_of(paths), drain_timeout=1000) as server:
        async with connected(server.addresses[0]) as client:
            client.send("GET", f"/{ABSENT}.narinfo")
            await paths.asked.wait()
            await server.aclose()
            assert paths.cancelled.is_set()
            assert await client.reader.read() == b""


async def test_a_client_that_leaves_cancels_its_lookup() -> None:
    paths = StuckPaths()
    async with serving(front_of(paths)) as server:
        async with connected(server.addresses[0]) as client:
            client.send("GET", f"/{ABSENT}.narinfo")
            await paths.asked.wait()
        await asyncio.wait_for(paths.cancelled.wait(), 10)


async def test_clients_that_do_not_read_do_not_hold_up_the_end() -> None:
    store = await Store.filled()
    stream = ScriptedStream(*[bytes(1 << 20)] * 64)
    description = replace(description_of(store.path), nar_size=64 << 20)
    front = front_of(DescribedPaths(description, stream))
    async with serving(front, drain_timeout=0.0) as server:
        async with connected(server.addresses[0]) as client:
            client.send("GET", store.path.by_hash)
            await client.read_head()
            await server.drain()
            await asyncio.wait_for(server.aclose(), 20)
