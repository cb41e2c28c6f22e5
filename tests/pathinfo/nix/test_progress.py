"""What those who want a NAR are told of it, and what operators see of its fill."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pathinfo.nix.fake_upstream import Attempt, FakeUpstream
from tests.pathinfo.nix.house import (
    KIB,
    LARGE,
    MIB,
    SMALL,
    House,
    described,
    house_in,
    narinfo,
    opened_nar,
    settled,
    turns,
)
from tvixstore.activity import Progress, watching
from tvixstore.errors import StoreError, Unavailable
from tvixstore.pathinfo.cached import CachedPathInfoService
from tvixstore.policy.limit import Permits


def phases(told: list[Progress], kind: str = "nar") -> list[str]:
    """Of one kind, each as it changed."""
    found = [each.phase for each in told if each.kind == kind]
    return [one for one, before in zip(found, [None, *found], strict=False) if one != before]


async def test_a_getter_is_told_of_the_lookup_and_of_each_phase_of_the_fill(house: House) -> None:
    info, told = narinfo(LARGE), list[Progress]()
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=LARGE))
    service = CachedPathInfoService(house.near, house.service(upstream))
    with watching(told.append):
        assert await service.get(info.store_path.hash) is not None
    await settled(house)
    assert phases(told, "lookup") == ["asking", "done"]
    lookup = next(each for each in told if each.kind == "lookup")
    assert (lookup.what, lookup.source) == (info.store_path.digits, "fake")
    assert phases(told) == ["waiting", "connecting", "downloading", "ingesting", "done"]
    first, *_, last = [each for each in told if each.kind == "nar"]
    assert (first.what, first.source) == (str(info.store_path), "fake")
    assert (first.bytes, first.total, first.joined) == (0, len(LARGE), False)
    assert (last.bytes, last.total, last.over) == (len(LARGE), len(LARGE), True)
    await service.aclose()


async def test_a_follower_sees_the_fill_of_somebody_else_and_that_he_joined(house: House) -> None:
    info, gate = narinfo(LARGE), asyncio.Event()
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=LARGE, gate=gate, gate_at=2 * MIB))
    service = house.service(upstream)
    description = await described(service, info)
    one, other = list[Progress](), list[Progress]()
    with watching(one.append):
        first = await opened_nar(service, description)
    with watching(other.append, every=0.05):
        second = await opened_nar(service, description)
        async with asyncio.timeout(10):
            while not any(each.bytes >= 2 * MIB - 64 * KIB for each in other):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert {each.joined for each in other} == {True}
        assert other[-1].readers == 2
        assert other[-1].source == "fake"
        [shown] = house.fills.activity.snapshot()["fills"]
        assert (shown["phase"], shown["readers"]) == ("downloading", 2)
        gate.set()
        for stream in (first, second):
            async with stream:
                assert await stream.read_all() == LARGE
    assert {each.joined for each in one} == {False}
    await settled(house)
    assert len(house.fills.activity) == 0


async def test_an_attempt_that_broke_is_told_with_why(house: House) -> None:
    info, told = narinfo(SMALL), list[Progress]()
    upstream = FakeUpstream()
    upstream.add(info, Unavailable("the connection was reset"), Attempt(body=SMALL))
    service = house.service(upstream)
    with watching(told.append):
        await service.get(info.store_path.hash)
    assert phases(told) == [
        "waiting",
        "connecting",
        "pausing",
        "connecting",
        "downloading",
        "ingesting",
        "done",
    ]
    pause = next(each for each in told if each.phase == "pausing")
    assert pause.reason == "the connection was reset"


async def test_what_fails_ends_failed_with_why(house: House) -> None:
    info, told = narinfo(SMALL), list[Progress]()
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=SMALL[:-8] + bytes(8)))
    service = house.service(upstream)
    with watching(told.append), pytest.raises(StoreError):
        await service.get(info.store_path.hash)
    assert phases(told)[-1] == "failed"
    reason = told[-1].reason
    assert reason is not None and "hashes to" in reason


async def test_what_is_absent_or_gone_ends_absent(house: House) -> None:
    info, told = narinfo(SMALL), list[Progress]()
    upstream = FakeUpstream()
    upstream.add(info, None)
    service = house.service(upstream)
    with watching(told.append):
        assert await service.get(bytes(20)) is None
        assert phases(told, "lookup") == ["asking", "absent"]
        assert await service.get(info.store_path.hash) is None
    assert phases(told)[-1] == "absent"


async def test_what_is_not_kept_is_told_to_pass(tmp_path: Path) -> None:
    async with house_in(tmp_path) as house:
        house.admission.open = False
        info, told = narinfo(LARGE), list[Progress]()
        upstream = FakeUpstream()
        upstream.add(info, Attempt(body=LARGE))
        service = house.service(upstream)
        description = await described(service, info)
        with watching(told.append):
            async with await opened_nar(service, description) as stream:
                assert await stream.read_all() == LARGE
            await settled(house)
        assert phases(told)[:3] == ["waiting", "connecting", "passing"]
        assert phases(told)[-1] in ("passed", "left")


async def test_downloads_that_wait_for_a_place_say_so(house: House) -> None:
    gate = asyncio.Event()
    upstream = FakeUpstream()
    service = house.service(upstream)
    house.fills._downloads = Permits(1)
    streams = []
    for name in ("first", "second"):
        nar = LARGE if name == "first" else SMALL
        info = narinfo(nar, name=name)
        upstream.add(info, Attempt(body=nar, gate=gate))
        description = await described(service, info)
        streams.append(asyncio.create_task(opened_nar(service, description)))
        await turns()
    shown = house.fills.activity.snapshot()["fills"]
    assert [each["phase"] for each in shown] == ["downloading", "waiting"]
    gate.set()
    for task in streams:
        await (await task).aclose()
    await settled(house)


async def test_a_reader_who_is_cancelled_leaves_the_fill_to_the_others(house: House) -> None:
    info, gate = narinfo(SMALL), asyncio.Event()
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=SMALL, gate=gate))
    service = house.service(upstream)
    told = list[Progress]()

    async def ask() -> None:
        with watching(told.append):
            await service.get(info.store_path.hash)

    leaving = asyncio.create_task(ask())
    staying = asyncio.create_task(service.get(info.store_path.hash))
    await turns()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert phases(told)[-1] == "left"
    gate.set()
    assert await staying is not None


async def test_two_paths_with_one_nar_have_one_fill(house: House) -> None:
    one, gate = narinfo(SMALL, name="one"), asyncio.Event()
    other = replace(narinfo(SMALL, name="other"), url=one.url)
    upstream = FakeUpstream()
    for info in (one, other):
        upstream.add(info, Attempt(body=SMALL, gate=gate))
    service = house.service(upstream)
    getters = [asyncio.create_task(service.get(info.store_path.hash)) for info in (one, other)]
    await turns()
    [shown] = house.fills.activity.snapshot()["fills"]
    assert shown["readers"] == 2
    gate.set()
    assert all(await asyncio.gather(*getters))
