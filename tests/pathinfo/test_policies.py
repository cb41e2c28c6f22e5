"""What the wrappers do for path infos; the policies themselves are tested in `tests/policy`."""

from __future__ import annotations

import asyncio

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of, nar_of, read
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import InvalidData, ReadOnly, Unavailable
from tvixstore.nix import StorePath
from tvixstore.pathinfo import MemoryPathInfoService, PathInfo
from tvixstore.pathinfo.arrivals import AnnouncingPathInfoService
from tvixstore.pathinfo.chaos import ChaosPathInfoService
from tvixstore.pathinfo.limit import LimitPathInfoService
from tvixstore.pathinfo.mirror import MirrorPathInfoService
from tvixstore.pathinfo.names import NamesPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.pathinfo.shard import ShardPathInfoService
from tvixstore.policy.chaos import Chaos, Kind, Outcome
from tvixstore.policy.limit import Limit, Permits
from tvixstore.policy.negative import Arrivals
from tvixstore.policy.rendezvous import Rendezvous
from tvixstore.policy.retry import Retry

INFOS = [info_of(path=StorePath(bytes([n]) * 20, f"p{n}")) for n in range(60)]


@virtual_clock
async def test_a_put_is_repeated_and_a_download_is_not() -> None:
    inner = Scripted(puts=Unavailable("down"), says=Unavailable("down"))
    asyncio.get_running_loop().call_later(0.001, setattr, inner, "puts", [])
    service = RetryPathInfoService(inner, Retry(attempts=5, min_delay=0.1))
    await service.put(info_of())
    inner.says = Unavailable("down")
    with pytest.raises(Unavailable):
        await service.get(KEY)
    assert inner.asked("get") == 1


@virtual_clock
async def test_an_absence_is_forgotten_when_a_fill_brings_the_path() -> None:
    inner = MemoryPathInfoService()
    arrivals: Arrivals[bytes] = Arrivals()
    service = NegativePathInfoService(inner)
    arrivals.subscribe(service.absences)
    assert await service.describe(KEY) is None
    await AnnouncingPathInfoService(inner, arrivals).put(info_of())
    assert await service.describe(KEY) == info_of()


@virtual_clock
async def test_a_limit_bounds_lookups_and_streams_and_not_a_caches_downloads() -> None:
    limit = Limit(Permits(1, patience=1e9))
    assert limit.permits is not None
    inner = Scripted(after=1.0)
    service = LimitPathInfoService(inner, limit)
    await asyncio.gather(*[service.describe(KEY) for _ in range(3)])
    assert now() == 3.0
    stream = await service.open_nar(info_of())
    waiting = asyncio.create_task(service.get(KEY))
    await asyncio.sleep(100.0)
    assert not waiting.done()
    assert await LimitPathInfoService(inner, limit, downloads=True).get(KEY) is not None
    assert await read(stream) == nar_of()
    assert await waiting is not None
    assert limit.permits.in_use == 0


@virtual_clock
async def test_a_mirror_writes_to_all_and_repairs_who_missed_a_write() -> None:
    healthy, down = Scripted(None, puts=[]), Scripted(None, puts=Unavailable("down"))
    service = MirrorPathInfoService([healthy, down], "ab", quorum=1)
    assert await service.put(info_of()) == info_of()
    down.puts = []
    await asyncio.sleep(60.0)
    assert down.puts == [info_of()]
    await service.aclose()


@virtual_clock
async def test_who_is_found_to_lack_a_path_gets_it() -> None:
    empty, full = Scripted(None, puts=[]), Scripted()
    service = MirrorPathInfoService([empty, full], "ab", quorum=2)
    assert await service.describe(KEY) == info_of()
    await asyncio.sleep(60.0)
    await service.aclose()
    assert empty.puts == [info_of()]


@virtual_clock
async def test_a_member_that_has_another_nar_lacks_nothing() -> None:
    other = Scripted(info_of("other"), puts=InvalidData("another NAR"))
    service = MirrorPathInfoService([Scripted(None, puts=[]), other], "ab", quorum=1)
    await service.put(info_of())
    await asyncio.sleep(60.0)
    assert other.asked("put") == 1
    await service.aclose()
    with pytest.raises(ReadOnly):
        await MirrorPathInfoService([Scripted(), Scripted()], "ab", quorum=1).put(info_of())


def shard(**members: MemoryPathInfoService | Scripted) -> ShardPathInfoService:
    names = list(members)
    placement = Rendezvous(names, [1.0] * len(names))
    return ShardPathInfoService(list(members.values()), names, placement)


async def held(service: MemoryPathInfoService) -> int:
    return len([info async for info in service.list()])


@virtual_clock
async def test_each_path_is_in_one_place_and_all_are_listed() -> None:
    members = {name: MemoryPathInfoService() for name in "abc"}
    service = shard(**members)
    for info in INFOS:
        await service.put(info)
    shares = [await held(member) for member in members.values()]
    assert sum(shares) == len(INFOS) and min(shares) > 8
    hashes = {info.store_path.hash async for info in service.list()}
    assert hashes == {info.store_path.hash for info in INFOS}
    grown = shard(**members, d=MemoryPathInfoService())
    for info in INFOS:
        assert await grown.get(info.store_path.hash) == info


@virtual_clock
async def test_a_shard_that_is_down_leaves_nothing_absent() -> None:
    with pytest.raises(Unavailable, match="b: down"):
        await shard(a=Scripted(None), b=Scripted(Unavailable("down"))).describe(KEY)


def called(name: str) -> PathInfo:
    return info_of(path=StorePath(KEY, name))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("firefox-100.0", True),
        ("firefox-100.0-debug", False),
        ("Firefox-100.0", False),
        ("hello-2.12", False),
        ("linux-6.1", True),
    ],
)
def test_what_is_not_called_as_wanted_is_absent(name: str, wanted: bool) -> None:
    @virtual_clock
    async def run() -> None:
        inner = Scripted(called(name))
        service = NamesPathInfoService(inner, ["firefox-*", "linux-[0-9]*"], ["*-debug"])
        found = called(name) if wanted else None
        assert await service.describe(KEY) == found
        assert await service.get(KEY) == found
        # Nothing is fetched only to be thrown away.
        assert (inner.asked("get") == 1) is wanted
        stream = await service.open_nar(called(name))
        assert (stream is not None) is wanted
        if stream is not None:
            await stream.aclose()

    run()


@virtual_clock
async def test_without_only_everything_but_the_excepted_is_there() -> None:
    service = NamesPathInfoService(Scripted(), but=["hello-*"])
    assert await service.describe(KEY) is None
    assert await NamesPathInfoService(Scripted(), but=["bye-*"]).describe(KEY) == info_of()


@virtual_clock
async def test_chaos_does_to_path_infos_what_its_script_says() -> None:
    kinds: list[Kind] = ["ok", "absent", "corrupt", "error"]
    chaos = Chaos(script=[(Outcome(kind), 1) for kind in kinds])
    service = ChaosPathInfoService(Scripted(), chaos)
    assert await service.describe(KEY) == info_of()
    assert await service.describe(KEY) is None
    corrupt = await service.get(KEY)
    assert corrupt is not None and not corrupt.same_nar(info_of())
    with pytest.raises(Unavailable, match="chaos: error"):
        await service.get(KEY)
