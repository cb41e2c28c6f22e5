from __future__ import annotations

import asyncio

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of
from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import Skipped, StoreError, Unavailable
from tvixstore.nix import StorePath
from tvixstore.pathinfo import MemoryPathInfoService, PathInfo
from tvixstore.pathinfo.arrivals import AnnouncingPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.policy.negative import Absences, Arrivals


@virtual_clock
async def test_an_absent_path_is_asked_for_once_in_its_time() -> None:
    inner = Scripted(says=None)
    service = NegativePathInfoService(inner, Absences(ttl=60.0))
    for _ in range(3):
        assert await service.describe(KEY) is None
        assert await service.get(KEY) is None
    assert len(inner.calls) == 1
    await asyncio.sleep(60.0)
    inner.says = info_of()
    assert await service.describe(KEY) == info_of()


@pytest.mark.parametrize(
    "error",
    [Unavailable("down"), Skipped("down", ["a"], answered=True)],
    ids=["unknown", "skipped"],
)
def test_an_unknown_is_never_remembered(error: StoreError) -> None:
    @virtual_clock
    async def run() -> None:
        inner = Scripted(says=error)
        service = NegativePathInfoService(inner)
        for _ in range(2):
            with pytest.raises(type(error)):
                await service.describe(KEY)
            with pytest.raises(type(error)):
                await service.get(KEY)
        assert len(inner.calls) == 4

    run()


@virtual_clock
async def test_that_one_nar_is_absent_says_nothing_of_the_path() -> None:
    inner = Scripted()
    service = NegativePathInfoService(inner)
    assert await service.describe(KEY, bytes(32)) is None
    assert await service.describe(KEY) == info_of()


@virtual_clock
async def test_a_put_makes_it_forget() -> None:
    inner = Scripted(says=None, puts=[])
    service = NegativePathInfoService(inner)
    assert await service.describe(KEY) is None
    await service.put(info_of())
    assert await service.describe(KEY) == info_of()


@virtual_clock
async def test_a_put_whose_answer_is_lost_makes_it_forget() -> None:
    class LosesTheAnswer(MemoryPathInfoService):
        async def put(self, info: PathInfo) -> PathInfo:
            await super().put(info)
            raise Unavailable("disconnected")

    inner = LosesTheAnswer()
    arrivals: Arrivals[bytes] = Arrivals()
    service = NegativePathInfoService(inner)
    arrivals.subscribe(service.absences)
    for through in (service, AnnouncingPathInfoService(inner, arrivals)):
        inner.infos.clear()
        service.absences.forget()
        assert await service.describe(KEY) is None
        with pytest.raises(Unavailable, match="disconnected"):
            await through.put(info_of())
        assert await service.describe(KEY) == info_of()


@virtual_clock
async def test_an_absent_that_a_put_has_overtaken_is_not_remembered() -> None:
    inner = Scripted(says=None, after=1.0, puts=[])
    service = NegativePathInfoService(inner)
    asking = asyncio.create_task(service.describe(KEY))
    await asyncio.sleep(0.5)
    await service.put(info_of())
    assert await asking is None
    assert await service.describe(KEY) == info_of()


@virtual_clock
async def test_memory_is_bounded() -> None:
    inner = Scripted(says=None)
    service = NegativePathInfoService(inner, Absences(capacity=2))
    paths = [StorePath(bytes([number] * 20), "x") for number in range(3)]
    for path in paths:
        await service.describe(path.hash)
    await service.describe(paths[0].hash)
    await service.describe(paths[2].hash)
    assert inner.asked("describe") == 4
