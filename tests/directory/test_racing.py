from __future__ import annotations

from contextlib import aclosing

import pytest

from tests.directory.samples import CLOSURE, LEAF, OTHER, ROOT
from tests.directory.scripted import Scripted, closure_of
from tests.directory.test_cached import WHOLE, holding
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.directory import (
    FallbackDirectoryService,
    MemoryDirectoryService,
    RacingDirectoryService,
    ReadOnlyDirectoryService,
)
from tvixstore.errors import ReadOnly, Unavailable
from tvixstore.policy.hedge import Hedging


def race(*members: Scripted, hedge: float = 0.0) -> RacingDirectoryService:
    return RacingDirectoryService(members, "abcdef"[: len(members)], Hedging(hedge))


@virtual_clock
async def test_a_slow_member_does_not_slow_down_a_fast_one() -> None:
    slow, fast = holding(*CLOSURE, after=60.0), holding(*CLOSURE, after=0.2)
    service = race(slow, fast)
    assert await service.get(LEAF.digest) == LEAF
    assert await service.get_many([ROOT.digest, LEAF.digest]) == [ROOT, LEAF]
    assert await closure_of(service, ROOT.digest) == WHOLE
    assert now() < 1.0
    assert slow.open_closures == fast.open_closures == 0


@virtual_clock
async def test_a_hedge_delay_spares_the_second_member() -> None:
    first, second = holding(*CLOSURE, after=0.1), holding(*CLOSURE)
    assert await closure_of(race(first, second, hedge=5.0), ROOT.digest) == WHOLE
    assert not second.calls


@virtual_clock
async def test_the_first_right_root_wins_and_not_the_first_directory() -> None:
    liar = Scripted(streams={ROOT.digest: [LEAF]}, lies={LEAF.digest: OTHER})
    service = race(liar, holding(*CLOSURE, after=1.0))
    assert await closure_of(service, ROOT.digest) == WHOLE
    assert await service.get(LEAF.digest) == LEAF
    assert await service.get_many([LEAF.digest]) == [LEAF]


@virtual_clock
async def test_members_have_together_what_none_of_them_has() -> None:
    service = race(holding(LEAF), holding(OTHER, after=1.0))
    assert await service.get_many([OTHER.digest, LEAF.digest]) == [OTHER, LEAF]
    assert await service.get_many([OTHER.digest, ROOT.digest]) == [OTHER, None]


@virtual_clock
async def test_absent_only_if_all_say_so() -> None:
    service = race(Scripted(), Scripted(after=1.0))
    assert await service.get(LEAF.digest) is None
    assert await closure_of(service, ROOT.digest) == []
    service = race(Scripted(), Scripted(fails=Unavailable("down")))
    for call in (service.get(LEAF.digest), service.get_many([LEAF.digest])):
        with pytest.raises(Unavailable, match="b: down"):
            await call
    with pytest.raises(Unavailable, match="b: down"):
        await closure_of(service, ROOT.digest)


@virtual_clock
async def test_a_closure_comes_from_its_winner_throughout() -> None:
    winner, other = holding(*CLOSURE), holding(*CLOSURE, after=1.0)
    assert await closure_of(race(winner, other, hedge=0.5), ROOT.digest) == WHOLE
    assert winner.calls == {"get_closure": 1} and not other.calls


@virtual_clock
async def test_a_closure_may_be_left_early() -> None:
    members = [holding(*CLOSURE), holding(*CLOSURE)]
    async with aclosing(race(*members).get_closure(ROOT.digest)) as closure:
        assert await anext(closure) == ROOT
    assert [member.open_closures for member in members] == [0, 0]


@virtual_clock
async def test_fallback_asks_the_next_only_for_what_is_missing_or_unknown() -> None:
    first, second = holding(*CLOSURE), holding(*CLOSURE)
    service = FallbackDirectoryService([first, second], ["a", "b"])
    assert await closure_of(service, ROOT.digest) == WHOLE
    assert await service.get(LEAF.digest) == LEAF
    assert await service.get_many([LEAF.digest]) == [LEAF]
    assert not second.calls
    del first.directories[LEAF.digest]
    assert await service.get_many([OTHER.digest, LEAF.digest]) == [OTHER, LEAF]
    first.fails = Unavailable("down")
    assert await closure_of(service, ROOT.digest) == WHOLE
    assert await service.get(LEAF.digest) == LEAF
    second.directories.clear()
    with pytest.raises(Unavailable, match="a: down"):
        await closure_of(service, ROOT.digest)


@virtual_clock
async def test_what_is_put_goes_to_the_first_member_that_takes_it() -> None:
    open_ = MemoryDirectoryService()
    closed = ReadOnlyDirectoryService(MemoryDirectoryService())
    service = FallbackDirectoryService([closed, open_], ["closed", "open"])
    await service.put(LEAF)
    await service.put_many([OTHER])
    async with await service.put_closure() as putter:
        for each in CLOSURE:
            await putter.put(each)
        await putter.close()
    assert len(open_.directories) == 4
    with pytest.raises(ReadOnly):
        await RacingDirectoryService([closed], ["closed"]).put(LEAF)
    for refused in (closed.put(LEAF), closed.put_many([LEAF]), closed.put_closure()):
        with pytest.raises(ReadOnly):
            await refused
