"""What the wrappers do for Directories; the policies themselves are tested in `tests/policy`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import pytest

from tests.directory.samples import CLOSURE, LEAF, MIDDLE, OTHER, ROOT, directory
from tests.directory.scripted import Scripted
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.castore import Digest, Directory
from tvixstore.directory import DirectoryService, MemoryDirectoryService
from tvixstore.directory.arrivals import AnnouncingDirectoryService
from tvixstore.directory.breaker import BreakerDirectoryService
from tvixstore.directory.chaos import ChaosDirectoryService
from tvixstore.directory.limit import LimitDirectoryService
from tvixstore.directory.mirror import MirrorDirectoryService
from tvixstore.directory.negative import NegativeDirectoryService
from tvixstore.directory.retry import RetryDirectoryService
from tvixstore.directory.shard import ShardDirectoryService
from tvixstore.directory.timeout import TimeoutDirectoryService
from tvixstore.directory.verify import VerifyDirectoryService
from tvixstore.errors import CorruptData, Incomplete, StorageFull, Unavailable
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.chaos import Chaos, Kind, Outcome
from tvixstore.policy.limit import Limit, Permits
from tvixstore.policy.negative import Absences, Arrivals
from tvixstore.policy.rendezvous import Rendezvous
from tvixstore.policy.retry import Retry
from tvixstore.policy.timeout import Timeout

Call = Callable[[DirectoryService], Awaitable[object]]


async def closure(service: DirectoryService, root: Digest = ROOT.digest) -> list[Directory]:
    return [each async for each in service.get_closure(root)]


READS: dict[str, Call] = {
    "get": lambda service: service.get(ROOT.digest),
    "get_many": lambda service: service.get_many([ROOT.digest]),
    "get_closure": closure,
}


def holder(**script: object) -> Scripted:
    service = Scripted(**script)  # type: ignore[arg-type]
    service.hold(CLOSURE)
    return service


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_a_timeout_bounds_every_read(call: Call) -> None:
    @virtual_clock
    async def run() -> None:
        with pytest.raises(Unavailable, match="no answer within 5 s"):
            await call(TimeoutDirectoryService(holder(after=1e6), Timeout(5.0)))
        assert now() == 5.0

    run()


@virtual_clock
async def test_a_timeout_never_bounds_a_closure_that_has_begun() -> None:
    inner = holder(waits_at=2)
    asyncio.get_running_loop().call_later(3600.0, inner.go_on.set)
    assert len(await closure(TimeoutDirectoryService(inner, Timeout(5.0)))) == len(CLOSURE)


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_a_retry_asks_again_for_every_read(call: Call) -> None:
    @virtual_clock
    async def run() -> None:
        inner = holder(fails=Unavailable("down"))
        asyncio.get_running_loop().call_later(0.01, setattr, inner, "fails", None)
        assert await call(RetryDirectoryService(inner, Retry(3, 0.1, random=Random(5))))

    run()


@virtual_clock
async def test_a_closure_that_has_begun_is_not_begun_again() -> None:
    inner = holder(breaks_at=2)
    came: list[Directory] = []
    with pytest.raises(Unavailable, match="connection reset"):
        async for each in RetryDirectoryService(inner).get_closure(ROOT.digest):
            came += [each]
    assert len(came) == 2 and inner.calls["get_closure"] == 1


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_a_breaker_spares_every_read(call: Call) -> None:
    @virtual_clock
    async def run() -> None:
        inner = holder(fails=Unavailable("down"))
        service = BreakerDirectoryService(inner, Breaker(failures=1))
        for _ in range(3):
            with pytest.raises(Unavailable):
                await call(service)
        assert inner.calls.total() == 1

    run()


@virtual_clock
async def test_a_closure_that_breaks_off_opens_the_breaker() -> None:
    breaker = Breaker(failures=1)
    with pytest.raises(Unavailable):
        await closure(BreakerDirectoryService(holder(breaks_at=2), breaker))
    assert breaker.is_open


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_what_was_absent_is_not_asked_for_again_for_a_while(call: Call) -> None:
    @virtual_clock
    async def run() -> None:
        inner = Scripted()
        service = NegativeDirectoryService(inner, Absences(ttl=60.0))
        for _ in range(3):
            assert await call(service) in (None, [None], [])
        assert inner.calls.total() == 1
        inner.hold(CLOSURE)
        await asyncio.sleep(60.0)
        assert await call(service) not in (None, [None], [])

    run()


async def _put_closure(service: DirectoryService) -> None:
    async with await service.put_closure() as putter:
        for each in CLOSURE:
            await putter.put(each)
        await putter.close()


@pytest.mark.parametrize(
    "write",
    [lambda service: service.put(LEAF), lambda service: service.put_many([LEAF]), _put_closure],
    ids=["put", "put_many", "put_closure"],
)
def test_an_absence_is_forgotten_when_somebody_brings_it(write: Call) -> None:
    @virtual_clock
    async def run() -> None:
        inner = MemoryDirectoryService()
        arrivals: Arrivals[Digest] = Arrivals()
        service = NegativeDirectoryService(inner)
        arrivals.subscribe(service.absences)
        for through in (service, AnnouncingDirectoryService(inner, arrivals)):
            inner.directories.clear()
            service.absences.forget()
            assert await service.get(LEAF.digest) is None
            await write(through)
            assert await service.get(LEAF.digest) == LEAF

    run()


@pytest.mark.parametrize(
    "write",
    [lambda service: service.put(LEAF), lambda service: service.put_many([LEAF]), _put_closure],
    ids=["put", "put_many", "put_closure"],
)
def test_an_absence_is_forgotten_though_nobody_hears_that_it_came(write: Call) -> None:
    class LosesTheAnswer(MemoryDirectoryService):
        async def put(self, directory: Directory) -> Digest:
            await super().put(directory)
            raise Unavailable("disconnected")

        async def put_many(self, directories: Sequence[Directory]) -> None:
            await super().put_many(directories)
            raise Unavailable("disconnected")

    @virtual_clock
    async def run() -> None:
        inner = LosesTheAnswer()
        arrivals: Arrivals[Digest] = Arrivals()
        service = NegativeDirectoryService(inner)
        arrivals.subscribe(service.absences)
        for through in (service, AnnouncingDirectoryService(inner, arrivals)):
            inner.directories.clear()
            service.absences.forget()
            assert await service.get(LEAF.digest) is None
            with pytest.raises(Unavailable, match="disconnected"):
                await write(through)
            assert await service.get(LEAF.digest) == LEAF

    run()


@virtual_clock
async def test_a_limit_bounds_calls_and_gives_permits_back() -> None:
    limit = Limit(Permits(1))
    assert limit.permits is not None
    service = LimitDirectoryService(holder(after=1.0), limit)
    await asyncio.gather(*[service.get(ROOT.digest) for _ in range(3)])
    assert now() == 3.0
    left = service.get_closure(ROOT.digest)
    assert await anext(left) == ROOT
    # Whoever walks a closure may ask for more of the same store.
    assert await service.get(LEAF.digest) == LEAF
    await left.aclose()
    await _put_closure(service)
    assert limit.permits.in_use == 0


def mirror(*members: DirectoryService, quorum: int) -> MirrorDirectoryService:
    return MirrorDirectoryService(members, "abcdef"[: len(members)], quorum)


@virtual_clock
async def test_a_mirror_writes_to_all_and_repairs_who_missed_a_write() -> None:
    healthy, full = Scripted(), Scripted(full=StorageFull("full"))
    service = mirror(healthy, full, quorum=1)
    await _put_closure(service)
    assert not full.directories
    full.full = None
    await asyncio.sleep(60.0)
    assert len(full.directories) == len(healthy.directories) == len(CLOSURE)
    await service.aclose()
    strict = mirror(healthy, Scripted(full=StorageFull("full")), quorum=2)
    with pytest.raises(StorageFull):
        await strict.put_many(CLOSURE)
    await strict.aclose()


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_who_is_found_to_lack_a_closure_gets_all_of_it(call: Call) -> None:
    @virtual_clock
    async def run() -> None:
        empty, full = Scripted(), holder()
        service = mirror(empty, full, quorum=2)
        await call(service)
        await asyncio.sleep(60.0)
        await service.aclose()
        assert set(empty.directories) == set(full.directories)

    run()


@virtual_clock
async def test_a_hole_below_a_root_is_repaired_from_whoever_has_what_is_lacking() -> None:
    holed = Scripted()
    holed.hold([ROOT, OTHER])
    # Neither of the others has all of what the first one lacks.
    middle, leaf = Scripted(), Scripted()
    middle.hold([MIDDLE])
    leaf.hold([LEAF, OTHER])
    service = mirror(holed, middle, leaf, quorum=2)
    assert set(await closure(service)) == set(CLOSURE)
    await asyncio.sleep(60.0)
    await service.aclose()
    assert set(holed.directories) == {each.digest for each in CLOSURE}


def shard(**members: DirectoryService) -> ShardDirectoryService:
    names = list(members)
    placement = Rendezvous(names, [1.0] * len(names))
    return ShardDirectoryService(list(members.values()), names, placement)


SEVERAL = [directory(below=directory(file=str(number))) for number in range(60)]


@virtual_clock
async def test_a_closure_is_in_one_place_and_every_directory_of_it_is_found() -> None:
    members = {name: Scripted() for name in "abc"}
    service = shard(**members)
    for root in SEVERAL:
        await service.put_many([directory(file=str(SEVERAL.index(root))), root])
        holders = [m for m in members.values() if root.digest in m.directories]
        assert len(holders) == 1
        below = root.children[0].digest
        assert below in holders[0].directories
        assert await service.get(below) is not None
        assert len(await closure(service, root.digest)) == 2
    assert all(len(member.directories) > 20 for member in members.values())


@virtual_clock
async def test_a_closure_is_read_level_by_level_from_the_member_that_has_it() -> None:
    members = {name: Scripted() for name in "abcd"}
    service = shard(**members)
    await _put_closure(service)
    asked = sum(member.calls["get_many"] for member in members.values())
    assert len(await closure(service)) == len(CLOSURE)
    # A call a level: who had the parents is asked for the children.
    assert sum(member.calls["get_many"] for member in members.values()) - asked == 3


@virtual_clock
async def test_what_came_before_a_member_was_added_is_found() -> None:
    members: dict[str, DirectoryService] = {name: MemoryDirectoryService() for name in "ab"}
    await shard(**members).put_many([*CLOSURE, *SEVERAL])
    grown = shard(**members, c=MemoryDirectoryService())
    assert await grown.get_many([each.digest for each in SEVERAL]) == SEVERAL
    assert len(await closure(grown)) == len(CLOSURE)


@virtual_clock
async def test_a_shard_that_is_down_leaves_nothing_absent() -> None:
    service = shard(a=MemoryDirectoryService(), b=Scripted(fails=Unavailable("down")))
    with pytest.raises(Unavailable, match="b: down"):
        await service.get(LEAF.digest)
    liar = shard(a=Scripted(lies={LEAF.digest: MIDDLE}))
    with pytest.raises((Unavailable, CorruptData), match="what came"):
        await liar.get(LEAF.digest)


@pytest.mark.parametrize("kind", ["truncate", "corrupt", "disconnect", "error", "absent"])
def test_chaos_is_found_out_by_who_verifies(kind: Kind) -> None:
    @virtual_clock
    async def run() -> None:
        for at in range(3):
            chaos = Chaos(seed=str(at), script=[(Outcome(kind), None)])
            faulty = VerifyDirectoryService(ChaosDirectoryService(holder(), chaos))
            if kind == "absent":
                assert await faulty.get(LEAF.digest) is None and await closure(faulty) == []
                continue
            with pytest.raises((Unavailable, CorruptData, Incomplete)):
                await closure(faulty)
            with pytest.raises((Unavailable, CorruptData)):
                await faulty.get(ROOT.digest)

    run()
