"""Name resolution that fails, or hangs."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from tests.pathinfo.nix.reached import HASH, NARINFO, reach
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.errors import Unavailable
from tvixstore.pathinfo.nix.resolver import PoolResolver
from tvixstore.pools import Pool


async def test_localhost_resolves() -> None:
    pool = Pool("dns", 1)
    try:
        found = await PoolResolver(pool).resolve("localhost", 80)
    finally:
        pool.close()
    assert {result["host"] for result in found} & {"127.0.0.1", "::1"}
    assert {result["port"] for result in found} == {80}


async def test_an_upstream_is_reached_by_name() -> None:
    async with UpstreamServer() as server:
        server.on(NARINFO, Reply(body=b"found"))
        async with reach(f"http://localhost:{server.port}") as upstream:
            assert await upstream.narinfo(HASH) == "found"


async def test_a_name_that_does_not_resolve_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with reach("http://cache.example") as upstream:
        with pytest.raises(Unavailable, match=r"cache\.example cannot be resolved: Name or"):
            await upstream.narinfo(HASH)


async def test_a_lookup_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, over = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        hanging.set()
        over.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        async with reach("http://cache.example", connect_timeout=0.05) as upstream:
            with pytest.raises(Unavailable, match="connect_timeout"):
                await upstream.narinfo(HASH)
            assert hanging.is_set()
            lookup = asyncio.create_task(upstream.narinfo(HASH))
            await asyncio.sleep(0)
            lookup.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lookup
    finally:
        over.set()
