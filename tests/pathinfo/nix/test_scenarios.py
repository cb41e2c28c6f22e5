"""What has hurt other stores, of NARs; docs/testing.md has the table of all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.blob.filling_up import FillsUp
from tests.evict.stores import open_store
from tests.nar.trees import File
from tests.pathinfo.nix.fake_upstream import Attempt, FakeUpstream, drain
from tests.pathinfo.nix.house import KIB, LARGE, MIB, House, described, narinfo, opened_nar, settled
from tests.pathinfo.samples import nar_of
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import Directory
from tvixstore.errors import CorruptData
from tvixstore.pathinfo import CachedPathInfoService, MemoryPathInfoService
from tvixstore.pathinfo.nix import fill
from tvixstore.tree import Content


async def test_a_follower_that_leaves_in_mid_nar_does_not_cancel_the_leader(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "LINGER", 0)
    monkeypatch.setattr(fill, "FINISH_BELOW", 0)
    info = narinfo(LARGE)
    upstream, gate = FakeUpstream(), asyncio.Event()
    upstream.add(info, Attempt(body=LARGE, gate=gate, gate_at=64 * KIB))
    service = house.service(upstream)
    description = await described(service, info)
    leader = await opened_nar(service, description, into=house.near)
    first = await drain(leader, 1)
    follower = await opened_nar(service, description, into=house.near)
    assert LARGE.startswith(await drain(follower, 1))
    waiting = asyncio.create_task(drain(follower, len(LARGE)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await follower.aclose()
    gate.set()
    assert first + await leader.read_all() == LARGE
    await settled(house)
    assert len(upstream.opened) == 1 and house.outcomes() == {"done": 1}


async def test_a_store_that_fills_up_in_mid_nar_costs_the_keeping_and_no_byte(
    house: House,
) -> None:
    blobs = FillsUp()
    house.content = Content(blobs, house.content.directories)
    info = narinfo(LARGE)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=LARGE))
    service = house.service(upstream)
    description = await described(service, info)
    stream = await opened_nar(service, description, into=house.near)
    assert await stream.read_all() == LARGE
    await settled(house)
    assert blobs.room < 0 and house.outcomes() == {"passed": 1}
    assert house.is_empty
    blobs.room = 100 * MIB
    assert await service.get(info.store_path.hash) is not None
    await settled(house)
    assert not house.is_empty


async def test_what_a_nar_shares_with_an_evicted_path_is_kept(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = b"shared" * 100_000
    nar = nar_of({b"other": b"text", b"shared": shared})
    info = narinfo(nar)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=nar))
    async with open_store(tmp_path / "state") as store:
        await store.add("one", {b"shared": File(shared)})
        house.content = store.content
        service = house.service(upstream)
        evicted: list[int] = []

        put_many = store.directories.put_many

        async def late(directories: Sequence[Directory]) -> None:
            """Its files are in, and nothing refers to them yet."""
            if not evicted:
                await store.time_passes()
                evicted.append(await store.evict("one"))
            await put_many(directories)

        monkeypatch.setattr(store.directories, "put_many", late)
        description = await described(service, info)
        stream = await opened_nar(service, description, into=store.path_infos)
        assert await stream.read_all() == nar
        await settled(house)
        assert evicted == [1]
        kept = await store.path_infos.get(info.store_path.hash)
        assert kept is not None
        again = await store.path_infos.open_nar(kept)
        assert again is not None and await again.read_all() == nar
        assert await store.problems() == []


async def test_what_near_had_when_it_was_asked_and_not_when_it_is_read_comes_from_far(
    house: House,
) -> None:
    info = narinfo(LARGE)
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=LARGE))
    cache = CachedPathInfoService(house.near, house.service(upstream))
    assert await cache.get(info.store_path.hash) is not None
    await settled(house)
    description = await cache.describe(info.store_path.hash)
    assert description is not None and len(upstream.opened) == 1
    blobs = house.content.blobs
    assert isinstance(blobs, MemoryBlobService) and isinstance(house.near, MemoryPathInfoService)
    blobs.blobs.clear()
    house.near.infos.clear()
    stream = await cache.open_nar(description)
    assert stream is not None and await stream.read_all() == LARGE
    assert len(upstream.opened) == 2
    await settled(house)
    await cache.aclose()


async def test_a_far_that_has_another_nar_when_it_is_read_is_found_out(house: House) -> None:
    info, other = narinfo(LARGE), nar_of({b"other": b"build"})
    upstream = FakeUpstream()
    upstream.add(info, Attempt(body=LARGE))
    service = house.service(upstream, retries=0)
    description = await described(service, info)
    # A rebuild that was pushed in between, under the same name.
    upstream.add(narinfo(other), Attempt(body=other))
    with pytest.raises(CorruptData, match="fake"):
        await (await opened_nar(service, description, into=house.near)).read_all()
    await settled(house)
    assert upstream.opened and house.is_empty
