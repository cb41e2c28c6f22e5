"""nix-cache-info: asked for once, believed where it says something."""

from __future__ import annotations

import asyncio

import pytest

from tests.pathinfo.nix.reached import reach
from tests.support.upstream_server import Reply, UpstreamServer
from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import CorruptData, Unavailable
from tvixstore.pathinfo.nix.store_dir import ASK_AGAIN, StoreDirCheck

INFO = "/nix-cache-info"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"),
        Reply(body=b"StoreDir: /nix/store/\n"),
        Reply(body=b"Priority: 40\n"),
        Reply(status=404),
    ],
)
async def test_our_store_and_none_said_are_fine_and_asked_once(reply: Reply) -> None:
    async with UpstreamServer() as server:
        server.on(INFO, reply)
        async with reach(server.url) as upstream:
            await asyncio.gather(*(upstream.check_store_dir() for _ in range(20)))
            await upstream.check_store_dir()
        assert len(server.log) == 1


async def test_another_store_is_corrupt() -> None:
    async with UpstreamServer() as server:
        server.on(INFO, Reply(body=b"StoreDir: /gnu/store\n"))
        async with reach(server.url) as upstream:
            for _ in range(2):
                with pytest.raises(CorruptData, match="cache: its store is /gnu/store, not"):
                    await upstream.check_store_dir()
        assert len(server.log) == 1


@pytest.mark.parametrize("reply", [Reply(status=503), Reply(body=b"<html>Log in</html>")])
async def test_what_is_not_known_stops_nobody(
    reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    async with UpstreamServer() as server:
        server.on(INFO, reply)
        async with reach(server.url) as upstream:
            await upstream.check_store_dir()
            await upstream.check_store_dir()
        assert len(server.log) == 1
    assert [record.getMessage() for record in caplog.records] == ["upstream.store_dir_unknown"]


@virtual_clock
async def test_what_was_not_known_or_wrong_is_asked_again_later() -> None:
    answers: list[str | None | Unavailable] = [
        Unavailable("down"),
        "StoreDir: /gnu/store\n",
        "StoreDir: /nix/store\n",
    ]

    async def fetch() -> str | None:
        answer = answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    check = StoreDirCheck("cache", fetch)
    await check.check()
    await check.check()
    await asyncio.sleep(ASK_AGAIN)
    with pytest.raises(CorruptData):
        await check.check()
    await asyncio.sleep(ASK_AGAIN)
    await check.check()
    await asyncio.sleep(ASK_AGAIN)
    await check.check()
    assert answers == []
    await check.aclose()


@virtual_clock
async def test_the_first_caller_may_leave_and_closing_ends_the_question() -> None:
    asked = 0
    gate = asyncio.Event()

    async def fetch() -> str | None:
        nonlocal asked
        asked += 1
        await gate.wait()
        return None

    check = StoreDirCheck("cache", fetch)
    first, second = asyncio.create_task(check.check()), asyncio.create_task(check.check())
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.wait([first])
    gate.set()
    await second
    assert asked == 1

    gate.clear()
    other = StoreDirCheck("cache", fetch)
    left = asyncio.create_task(other.check())
    await asyncio.sleep(1)
    left.cancel()
    await asyncio.wait([left])
    await other.aclose()
