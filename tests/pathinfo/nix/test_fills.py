"""What several who want the same NAR mean to each other: followers, getters, other paths."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pathinfo.nix.fake_upstream import Attempt, FakeUpstream, drain
from tests.pathinfo.nix.house import (
    KIB,
    LARGE,
    MIB,
    House,
    described,
    house_in,
    narinfo,
    opened_nar,
    settled,
    turns,
)
from tests.pathinfo.samples import nar_of
from tvixstore.blob import BlobWriter, MemoryBlobService
from tvixstore.errors import StorageFull
from tvixstore.pathinfo.nix import fill, fills
from tvixstore.pathinfo.nix.fill import Fill
from tvixstore.tree import Content

HUGE = nar_of(os.urandom(12 * MIB))


def the_fill(house: House) -> Fill:
    [running] = house.fills._running.values()
    return running


async def test_a_getter_learns_at_once_that_nothing_will_be_kept(tmp_path: Path) -> None:
    async with house_in(tmp_path / "missing") as house:
        info = narinfo(HUGE)
        upstream = FakeUpstream()
        upstream.add(info, Attempt(body=HUGE))
        async with asyncio.timeout(5):
            with pytest.raises(StorageFull):
                await house.service(upstream).get(info.store_path.hash)
            await settled(house)
        assert house.outcomes() == {"cancelled": 1}


async def test_a_getter_does_not_wait_for_a_reader_who_paces_a_download(tmp_path: Path) -> None:
    async with house_in(tmp_path / "missing") as house:
        info = narinfo(HUGE)
        upstream = FakeUpstream()
        upstream.add(info, Attempt(body=HUGE))
        service = house.service(upstream)
        description = await described(service, info)
        stream = await opened_nar(service, description)
        async with stream:
            await drain(stream, 1)
            async with asyncio.timeout(5):
                with pytest.raises(StorageFull):
                    await service.get(info.store_path.hash)
            await drain(stream, len(HUGE))
        await settled(house)
        assert house.outcomes() == {"passed": 1}


async def test_nobody_joins_a_download_that_is_being_stopped(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "FINISH_BELOW", 0)
    info = narinfo(LARGE)
    upstream = FakeUpstream()
    stalled = Attempt(body=LARGE, gate=asyncio.Event(), gate_at=64 * KIB)
    upstream.add(info, stalled, Attempt(body=LARGE))
    service = house.service(upstream)
    description = await described(service, info)
    first = await service.open_nar(description)
    assert first is not None
    await first.aclose()
    stopped = the_fill(house)
    stopped._stop_if_idle()
    assert stopped.task is not None and not stopped.task.done()
    second = await service.open_nar(description)
    assert second is not None
    assert await second.read_all() == LARGE
    await settled(house)


async def test_two_paths_with_one_nar_are_both_kept(house: House) -> None:
    gate = asyncio.Event()
    upstream = FakeUpstream()
    infos = [narinfo(LARGE, name=name) for name in ("one", "other")]
    for info in infos:
        upstream.add(info, Attempt(body=LARGE, gate=gate, gate_at=64 * KIB))
    service = house.service(upstream)
    streams = []
    for info in infos:
        description = await described(service, info)
        streams.append(await service.open_nar(description, into=house.near))
    gate.set()
    for stream in streams:
        assert stream is not None
        assert await stream.read_all() == LARGE
    await settled(house)
    assert len(upstream.opened) == 1
    assert set(house.near.infos) == {info.store_path.hash for info in infos}


async def test_whoever_lies_about_the_size_breaks_nobody_elses_download(house: House) -> None:
    info = narinfo(LARGE)
    liar, honest = FakeUpstream(name="liar"), FakeUpstream(name="honest")
    liar.add(
        replace(info, nar_size=2 * MIB, signatures=()),
        Attempt(body=LARGE, gate=(gate := asyncio.Event()), gate_at=MIB),
    )
    honest.add(info, Attempt(body=LARGE))
    deceived, service = house.service(liar, keys=None), house.service(honest)
    promised = await deceived.describe(info.store_path.hash)
    description = await service.describe(info.store_path.hash)
    assert promised is not None and description is not None
    broken = await deceived.open_nar(promised)
    assert broken is not None
    stream = await opened_nar(service, description)
    gate.set()
    async with broken:
        assert await stream.read_all() == LARGE
    await settled(house)


async def test_a_download_finished_for_nobody_is_stopped_when_it_can_only_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "LINGER", 0)
    async with house_in(tmp_path / "missing") as house:
        info = narinfo(HUGE)
        gate = asyncio.Event()
        upstream = FakeUpstream()
        upstream.add(info, Attempt(body=HUGE, gate=gate, gate_at=64 * KIB))
        service = house.service(upstream)
        description = await described(service, info)
        stream = await opened_nar(service, description)
        await stream.aclose()
        running = the_fill(house)
        await turns()
        assert running._timer is None, "nobody judged whether to go on"
        gate.set()
        async with asyncio.timeout(5):
            await settled(house)
        assert house.outcomes() == {"cancelled": 1}


class SlowBlobs(MemoryBlobService):
    """Takes large blobs only when `gate` is open; `waiting` are those that came before."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.waiting: asyncio.Queue[None] = asyncio.Queue()

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        if not self.gate.is_set():
            self.waiting.put_nowait(None)
        await self.gate.wait()
        return await super().open_write(boundaries)


async def test_large_nars_wait_for_a_slow_store_in_their_files(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fills, "LARGE", MIB)
    blobs = SlowBlobs()
    house.content = Content(blobs, house.content.directories)
    upstream = FakeUpstream()
    service = house.service(upstream)
    for number in range(fills.LARGE_INGESTS + 2):
        nar = nar_of(os.urandom(2 * MIB))
        info = narinfo(nar, name=f"nar-{number}")
        upstream.add(info, Attempt(body=nar))
        description = await described(service, info)
        stream = await opened_nar(service, description, into=house.near)
        assert await stream.read_all() == nar
    for _ in range(fills.LARGE_INGESTS):
        await blobs.waiting.get()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await blobs.waiting.get()
    blobs.gate.set()
    await settled(house)
    assert house.outcomes() == {"done": fills.LARGE_INGESTS + 2}
    assert len(house.near.infos) == fills.LARGE_INGESTS + 2
